/** The mirror over real sockets with a scripted service: bodies in, statuses and events out. */
import { once } from 'node:events'
import { connect } from 'node:net'
import { after, test } from 'node:test'
import assert from 'node:assert/strict'
import { FailureError } from '../model/failure.ts'
import type { Json, JsonObject, Log } from '../ports.ts'
import { createHttpMirror, type HttpMirror } from './http-mirror.ts'
import { httpStatusByClass } from './http-status.ts'
import type { HttpCall, HttpService } from './service.ts'

const silent: Log = { debug() {}, info() {}, warn() {}, error() {} }
const bigId = 13428561255892356228n

class ScriptedService implements HttpService {
  readonly requests: JsonObject[] = []
  readonly calls: HttpCall[] = []
  outputs: readonly Json[] = [{ token_ids: [7], routing_data: { worker_id: { decode_worker_id: bigId } } }, { token_ids: [8], finish_reason: 'length' }]
  failBefore: Error | null = null
  failAfter: Error | null = null
  endless = false
  ended = 0

  async *generate(request: JsonObject, call: HttpCall): AsyncIterable<Json> {
    this.requests.push(request)
    this.calls.push(call)
    if (this.failBefore) throw this.failBefore
    try {
      yield* this.outputs
      if (this.failAfter) throw this.failAfter
      if (this.endless) await new Promise<void>((resolve) => call.signal.addEventListener('abort', () => resolve()))
    } finally {
      this.ended += 1
    }
  }
  bestWorkerId(request: JsonObject): Promise<bigint> {
    this.requests.push(request)
    return Promise.resolve(bigId)
  }
  overlapScores(request: JsonObject): Promise<JsonObject> {
    this.requests.push(request)
    return Promise.resolve({ block_size: 16, num_blocks: 0, workers: [{ worker_id: bigId, dp_rank: 0 }] })
  }
  health(): { ready: boolean; detail: JsonObject } {
    return { ready: true, detail: { workers: 1 } }
  }
}

const mirrors: HttpMirror[] = []
after(async () => {
  for (const mirror of mirrors) await mirror.close(0)
})

async function start(options: { bodyLimitBytes?: number } = {}): Promise<{ service: ScriptedService; url: string; mirror: HttpMirror }> {
  const service = new ScriptedService()
  const mirror = await createHttpMirror({ port: 0, service, log: silent, ...options })
  mirrors.push(mirror)
  return { service, url: mirror.url, mirror }
}

const post = (url: string, body: string, headers: Record<string, string> = {}): Promise<Response> => fetch(url, { method: 'POST', body, headers })

test('generate streams one event per output and ends', async () => {
  const { service, url } = await start()
  const response = await post(`${url}/generate`, '{"token_ids":[1,2]}', { 'x-request-id': 'r-1', traceparent: '00-aa-bb-01' })
  assert.equal(response.status, 200)
  assert.match(response.headers.get('content-type') ?? '', /^text\/event-stream/)
  assert.equal(response.headers.get('x-request-id'), 'r-1')
  assert.equal(await response.text(), `data: {"token_ids":[7],"routing_data":{"worker_id":{"decode_worker_id":${bigId}}}}\n\ndata: {"token_ids":[8],"finish_reason":"length"}\n\n`)
  assert.equal(service.calls[0]?.id, 'r-1')
  assert.equal(service.calls[0]?.headers['traceparent'], '00-aa-bb-01')
  assert.deepEqual([...service.requests], [{ token_ids: [1, 2] }])
})

test('worker ids are bare integers, strings on request, and accepted in both forms', async () => {
  const { service, url } = await start()
  assert.equal(await (await post(`${url}/best_worker_id`, '[1,2]')).text(), `${bigId}\n`)
  assert.equal(await (await post(`${url}/best_worker_id?ids=string`, '{"token_ids":[1,2]}')).text(), `"${bigId}"\n`)
  assert.deepEqual([...service.requests], [{ token_ids: [1, 2] }, { token_ids: [1, 2] }])
  const scores = await (await post(`${url}/get_overlap_scores?ids=string`, '{"token_ids":[]}')).json() as { workers: { worker_id: string; dp_rank: number }[] }
  assert.deepEqual(scores.workers, [{ worker_id: String(bigId), dp_rank: 0 }])
  const streamed = await (await post(`${url}/generate?ids=string`, `{"token_ids":[],"routing":{"backend_instance_id":"${bigId}","allowed_worker_ids":["7",${bigId}]}}`)).text()
  assert.match(streamed, new RegExp(`"decode_worker_id":"${bigId}"`))
  assert.deepEqual(service.requests.at(-1)?.['routing'], { backend_instance_id: bigId, allowed_worker_ids: [7n, bigId] })
  const bad = await post(`${url}/generate`, '{"token_ids":[],"routing":{"allowed_worker_ids":["7","x"]}}')
  assert.equal(bad.status, 400)
  assert.match(await bad.text(), /routing\.allowed_worker_ids\[1\] must be a worker id/)
})

test('bad bodies are 400 and name position or field', async () => {
  const { url } = await start()
  const cases: [string, RegExp][] = [
    ['{"token_ids":}', /not valid JSON at position 13/],
    ['', /body is empty/],
    ['"x"', /the body is a string/],
    ['null', /the body is null/],
    ['{}', /missing field token_ids/],
    ['{"token_ids":"abc"}', /token_ids must be an array of token ids, not "abc"/],
    ['{"token_ids":[1,-2]}', /token_ids\[1\] must be an integer from 0 to 4294967295, not -2/],
    ['{"token_ids":[1,2.5]}', /token_ids\[1\] must be an integer/],
    ['{"token_ids":[18446744073709551615]}', /token_ids\[0\] must be an integer .*, not 18446744073709551615/],
    ['['.repeat(200_000), /nested too deeply|not valid JSON/],
  ]
  for (const [body, message] of cases) {
    const response = await post(`${url}/generate`, body)
    assert.equal(response.status, 400, body.slice(0, 30))
    const answer = await response.json() as { error: { message: string; class: string; code: number } }
    assert.match(answer.error.message, message)
    assert.equal(answer.error.class, 'InvalidRequest')
  }
  const binary = await fetch(`${url}/generate`, { method: 'POST', body: new Uint8Array([0xff, 0xfe, 0x00]) })
  assert.equal(binary.status, 400)
})

test('unknown routes list the routes, wrong methods name the right one', async () => {
  const { url } = await start()
  const unknown = await fetch(`${url}/v1/nothing`)
  assert.equal(unknown.status, 404)
  assert.match(await unknown.text(), /POST \/generate, POST \/best_worker_id, POST \/get_overlap_scores, GET \/health/)
  const wrong = await fetch(`${url}/generate`)
  assert.equal(wrong.status, 405)
  assert.equal(wrong.headers.get('allow'), 'POST')
  await wrong.text()
  assert.match(await (await fetch(url)).text(), /best_worker_id/)
  assert.equal((await fetch(`${url}/metrics`)).status, 404)
  const health = await fetch(`${url}/health`)
  assert.equal(health.status, 200)
  assert.deepEqual(await health.json(), { status: 'ready', workers: 1 })
})

test('bodies beyond the limit are 413, declared or not', async () => {
  const { url } = await start({ bodyLimitBytes: 100 })
  const declared = await post(`${url}/generate`, `{"token_ids":[${'1,'.repeat(200)}1]}`)
  assert.equal(declared.status, 413)
  await declared.text()
  const chunks = async function* (): AsyncIterable<Uint8Array> {
    for (let index = 0; index < 4; index += 1) yield Buffer.alloc(60, 0x20)
  }
  const streamed = await fetch(`${url}/generate`, { method: 'POST', body: ReadableStream.from(chunks()), duplex: 'half' } as RequestInit)
  assert.equal(streamed.status, 413)
  assert.match(await streamed.text(), /more than 100 bytes/)
})

test('failures before the first output are statuses, after it an event', async () => {
  const { service, url } = await start()
  service.failBefore = new FailureError({ class: 'Unavailable', reason: 'backend.unavailable', message: 'no endpoints available to route work' })
  const before = await post(`${url}/generate`, '{"token_ids":[1]}')
  assert.equal(before.status, 503)
  assert.match(await before.text(), /no endpoints available/)
  service.failBefore = new Error('secret detail')
  const internal = await post(`${url}/generate`, '{"token_ids":[1]}')
  assert.equal(internal.status, 500)
  assert.doesNotMatch(await internal.text(), /secret/)
  service.failBefore = null
  service.failAfter = new FailureError({ class: 'Unavailable', reason: 'backend.stream_incomplete', message: 'worker died' })
  const after = await post(`${url}/generate`, '{"token_ids":[1]}')
  assert.equal(after.status, 200)
  const events = (await after.text()).trim().split('\n\n')
  assert.equal(events.length, 3)
  assert.equal(events[2], 'data: {"error":{"class":"Unavailable","reason":"backend.stream_incomplete","message":"worker died","code":503}}')
  assert.equal(httpStatusByClass.CapacityExhausted, 529)
})

test('a client that leaves ends its request', async () => {
  const { service, url, mirror } = await start()
  service.endless = true
  const { port } = new URL(url)
  const socket = connect(Number(port), '127.0.0.1')
  const body = '{"token_ids":[1]}'
  socket.write(`POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: ${body.length}\r\n\r\n${body}`)
  await once(socket, 'data')
  assert.equal(mirror.inflight, 1)
  const call = service.calls[0]
  assert.ok(call)
  const aborted = once(call.signal, 'abort')
  socket.destroy()
  await aborted
  while (service.ended === 0) await new Promise((resolve) => setImmediate(resolve))
  assert.equal(mirror.inflight, 0)
})

test('close cuts open requests after the grace time', async () => {
  const { service, url, mirror } = await start()
  service.endless = true
  const response = await post(`${url}/generate`, '{"token_ids":[1]}')
  const text = response.text().catch(() => 'cut')
  await mirror.close(20)
  assert.ok(service.calls[0]?.signal.aborted)
  await text
})
