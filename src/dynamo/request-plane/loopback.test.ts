/** Goal: server and client of the TCP request plane understand each other in good times and bad. Method: both over loopback, with typed endpoints on top. */
import { setTimeout as delay } from 'node:timers/promises'
import assert from 'node:assert/strict'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { afterEach, test } from 'node:test'
import { FailureError, type Failure } from '../../model/failure.ts'
import type { CallHandle, Codec, InstanceRecord, ResponseListener, ServedEndpoint } from '../../ports.ts'
import { callStream, serveStream, type CallOptions, type StreamHandler } from '../endpoint.ts'
import type { WireValue } from '../wire/body.ts'
import { encodeHandshake, encodeControl, goodPrologue, sentinel } from '../wire/envelope.ts'
import { AckAssembler, decodeAck, encodeAck, encodeRequestHead, encodeTwoPart } from '../wire/frames.ts'
import { encodeData, finalFrame } from '../wire/items.ts'
import { createTcpRequestClient, type TcpRequestClient, type TcpRequestClientOptions } from './tcp-client.ts'
import { createTcpRequestServer, type TcpRequestServer, type TcpRequestServerOptions } from './tcp-server.ts'
import { silentLog, systemClock } from '../../../test/request-plane-kit.ts'
import { until } from '../../../test/until.ts'

const endpoint = { namespace: 'test', component: 'backend', endpoint: 'generate' }
const instanceId = 0xba5bd5508e098c84n
const cleanup: (() => Promise<void> | void)[] = []

afterEach(async () => {
  for (const end of cleanup.splice(0).reverse()) await end()
})

async function startServer(options: Partial<TcpRequestServerOptions> = {}): Promise<TcpRequestServer> {
  const server = createTcpRequestServer({ clock: systemClock, log: silentLog, host: '127.0.0.1', ...options })
  await server.start(AbortSignal.timeout(5000))
  cleanup.push(() => server.close())
  return server
}

async function startClient(options: Partial<TcpRequestClientOptions> = {}): Promise<TcpRequestClient> {
  const client = createTcpRequestClient({ clock: systemClock, log: silentLog, host: '127.0.0.1', ...options })
  await client.start(AbortSignal.timeout(5000))
  cleanup.push(() => client.close())
  return client
}

function instanceOf(served: Pick<ServedEndpoint, 'transport'>, codec: Codec = 'msgpack'): InstanceRecord {
  return { ...endpoint, instanceId, transport: served.transport, codec, deviceType: null }
}

function serve(server: TcpRequestServer, handler: StreamHandler): InstanceRecord {
  return instanceOf(serveStream(server, endpoint, instanceId, handler))
}

async function collect(client: TcpRequestClient, instance: InstanceRecord, value: WireValue, options: CallOptions = {}): Promise<{ values: WireValue[]; failure: Failure | null }> {
  const values: WireValue[] = []
  try {
    for await (const item of callStream(client, instance, value, options)) values.push(item)
    return { values, failure: null }
  } catch (error) {
    assert.ok(error instanceof FailureError, String(error))
    return { values, failure: error.failure }
  }
}

/** Records what a call tells, in order. */
class Recorder implements ResponseListener {
  readonly told: string[] = []
  failure: Failure | null = null
  bytes = 0
  over = false
  onAccepted(): void { this.told.push('accepted') }
  onPrologue(): void { this.told.push('prologue') }
  onFrame(frame: Uint8Array): void {
    this.bytes += frame.length
    if (this.told.at(-1) !== 'frames') this.told.push('frames')
  }
  onEnd(): void {
    this.told.push('end')
    this.over = true
  }
  onFail(failure: Failure, beforeFrames: boolean): void {
    this.failure = failure
    this.told.push(beforeFrames ? 'failed before frames' : 'failed')
    this.over = true
  }
}

async function* count(): AsyncGenerator<WireValue> {
  for (let index = 0; index < 3; index += 1) yield { token_ids: [index] }
}

for (const codec of ['msgpack', 'json'] as const) {
  test(`values, id, metadata and headers arrive in ${codec}, integers exactly`, async () => {
    const server = await startServer()
    const client = await startClient()
    const served = serveStream(server, endpoint, instanceId, async function* (request, context) {
      yield { request, id: context.id, metadata: context.metadata, requestId: context.headers['request-id'] ?? '', trace: context.headers['traceparent'] ?? '' }
      yield null
      yield 5
    })
    const request = { big: 18446744073709551615n, negative: -9223372036854775808n, small: 7, text: 'é', none: null }
    const { values, failure } = await collect(client, instanceOf(served, codec), request, { id: 'r-1', metadata: { k: 'v' }, headers: { traceparent: '00-a-b-01' } })
    assert.equal(failure, null)
    assert.deepEqual(values, [{ request, id: 'r-1', metadata: { k: 'v' }, requestId: 'r-1', trace: '00-a-b-01' }, null, 5])
    await until(() => server.stats().openStreams === 0 && client.stats().responseStreams === 0)
    assert.equal(served.inflight, 0)
  })
}

test('many requests at once share few connections and all end', async () => {
  const server = await startServer()
  const client = await startClient()
  const instance = serve(server, async function* (request) { yield request })
  const answers = await Promise.all(Array.from({ length: 300 }, (_, index) => collect(client, instance, index)))
  assert.deepEqual(answers.map(({ values }) => values[0]), Array.from({ length: 300 }, (_, index) => index))
  assert.ok(client.stats().connections <= 4)
  assert.equal(client.stats().openCalls, 0)
})

test('an un-annotated endpoint gives bare values', async () => {
  const server = await startServer()
  const client = await startClient()
  const served = serveStream(server, endpoint, instanceId, async function* () { yield { TooNew: { requested_start: 9 } } }, { annotated: false })
  assert.deepEqual((await collect(client, instanceOf(served), {}, { annotated: false })).values, [{ TooNew: { requested_start: 9 } }])
})

test('an exception before the first value is an error item, one in the middle follows the values before it', async () => {
  const server = await startServer()
  const client = await startClient()
  const instance = serve(server, async function* (request) {
    if (request === 'middle') yield 1
    if (request === 'typed') throw new FailureError({ class: 'CapacityExhausted', reason: 'capacity.exhausted', message: 'full' })
    throw new RangeError('boom')
  })
  const before = await collect(client, instance, 'before')
  assert.deepEqual([before.values, before.failure?.reason, before.failure?.message], [[], 'backend.invalid_argument', 'RangeError: boom'])
  assert.deepEqual((await collect(client, instance, 'middle')).values, [1])
  assert.equal((await collect(client, instance, 'typed')).failure?.reason, 'capacity.exhausted')
})

test('a failure before the prologue is relayed with its type', async () => {
  const server = await startServer()
  const client = await startClient()
  const failure = { class: 'RateLimited', reason: 'request.rate_limited', message: 'slow down', publicDetail: { type: 'rate_limit', limit: 5, remaining: 0 } } as const
  const served = server.serve(endpoint, instanceId, (_request, response) => response.fail(failure))
  const recorder = new Recorder()
  client.call(instanceOf(served), { id: 'x', codec: 'msgpack', body: [] }, recorder)
  assert.deepEqual(recorder.told, [])
  await until(() => recorder.over)
  assert.deepEqual(recorder.told, ['accepted', 'failed before frames'])
  assert.deepEqual(recorder.failure, { ...failure, legacyType: 'ResourceExhausted' })
})

test('a handler that rejects is an internal failure, never the fault of the request', async () => {
  const server = await startServer()
  const client = await startClient()
  const served = server.serve(endpoint, instanceId, async () => { throw new TypeError('a bug') })
  assert.deepEqual((await collect(client, instanceOf(served), 1)).failure?.class, 'Internal')
})

for (const kind of ['stop', 'kill', 'disconnect'] as const) {
  test(`${kind} of the caller reaches the handler and ends the stream`, async () => {
    const server = await startServer()
    const client = await startClient()
    let seen: unknown = null
    const served = serveStream(server, endpoint, instanceId, async function* (_request, context) {
      yield 1
      await new Promise((resolve) => context.signal.addEventListener('abort', resolve))
      seen = context.signal.reason
      yield 2
    })
    const recorder = new Recorder()
    const call = client.call(instanceOf(served), { id: 'x', codec: 'msgpack', body: [Uint8Array.of(1)] }, recorder)
    await until(() => recorder.told.includes('frames'))
    assert.equal(served.inflight, 1)
    if (kind === 'stop') call.stop()
    else if (kind === 'kill') call.kill()
    else await client.close()
    await until(() => seen !== null && recorder.over)
    if (kind !== 'disconnect') assert.equal(seen, kind)
    assert.deepEqual(recorder.told, ['accepted', 'prologue', 'frames', 'failed'])
    assert.equal(recorder.failure?.class, 'Cancelled')
    assert.equal(served.inflight, 0)
    await until(() => server.stats().openStreams === 0)
  })
}

test('leaving an iteration kills the call', async () => {
  const server = await startServer()
  const client = await startClient()
  let killed = false
  const instance = serve(server, async function* (_request, context) {
    context.signal.addEventListener('abort', () => { killed = context.isKilled() })
    for (;;) {
      yield 1
      await new Promise((resolve) => setImmediate(resolve))
    }
  })
  for await (const value of callStream(client, instance, null)) {
    assert.equal(value, 1)
    break
  }
  await until(() => killed && server.stats().openStreams === 0)
})

test('a kill before the worker has dialled reaches it when it dials', async () => {
  const client = await startClient()
  let control: Buffer | null = null
  const peer = createServer((socket) => socket.once('data', () => {
    socket.write(encodeAck(''))
    const dial = connect({ port: Number(client.address.split(':')[1]), host: '127.0.0.1' })
    dial.on('error', () => undefined)
    void until(() => recorder.over).then(() => dial.write(encodeHandshake(subjectOf(client))))
    dial.on('data', (chunk) => { control = chunk })
  }))
  const recorder = new Recorder()
  const subjectOf = (_client: TcpRequestClient): string => subject
  let subject = ''
  const instance = await listen(peer, (payload) => { subject = /"subject\\":\\"([^\\]+)/.exec(payload)?.[1] ?? '' })
  const call = client.call(instance, { id: 'x', codec: 'msgpack', body: [Uint8Array.of(1)] }, recorder)
  await until(() => recorder.told.includes('accepted') && subject !== '')
  call.kill()
  await until(() => control !== null)
  assert.equal((control as Buffer | null)?.subarray(24).toString(), '"kill"')
  assert.deepEqual(recorder.told, ['accepted', 'failed before frames'])
})

/** Listens as a worker and hands out what callers send as text. */
async function listen(peer: ReturnType<typeof createServer>, onText: (text: string) => void = () => undefined): Promise<InstanceRecord> {
  const sockets = new Set<Socket>()
  peer.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.on('data', (chunk: Buffer) => onText(chunk.toString('latin1')))
  })
  await new Promise<void>((resolve) => peer.listen(0, '127.0.0.1', resolve))
  cleanup.push(async () => {
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => peer.close(resolve))
  })
  return instanceOf({ transport: { tcp: `127.0.0.1:${(peer.address() as AddressInfo).port}/2a/test/backend/generate` } })
}

test('refusals name their cause: unknown endpoint, closed endpoint, overload, other texts', async () => {
  const server = await startServer({ inflightMax: 1 })
  const client = await startClient()
  const served = serveStream(server, endpoint, instanceId, async function* (_request, context) {
    yield 1
    await new Promise((resolve) => context.signal.addEventListener('abort', resolve))
  })
  const holder = new Recorder()
  const held = client.call(instanceOf(served), { id: 'x', codec: 'msgpack', body: [Uint8Array.of(1)] }, holder)
  await until(() => holder.told.includes('frames'))
  const overloaded = await collect(client, instanceOf(served), 1)
  assert.deepEqual([overloaded.failure?.reason, overloaded.failure?.message], ['capacity.worker_overloaded', 'Server overloaded: worker at capacity'])
  served.close()
  const unknown = await collect(client, instanceOf(served), 1)
  assert.equal(unknown.failure?.reason, 'backend.worker_unavailable')
  assert.match(unknown.failure?.message ?? '', /^Server unavailable: unknown endpoint ba5bd5508e098c84\/test\/backend\/generate$/)
  assert.equal(holder.over, false)
  held.kill()
  const peer = await listen(createServer((socket) => socket.once('data', () => socket.write(encodeAck('Read error: no')))))
  assert.equal((await collect(client, peer, 1)).failure?.reason, 'backend.unavailable')
})

test('a worker that is not there, does not acknowledge or leaves is named', async () => {
  const client = await startClient({ ackTimeoutMs: 50 })
  const gone = createServer()
  const instance = await listen(gone)
  await new Promise((resolve) => gone.close(resolve))
  const refused = await collect(client, instance, 1)
  assert.deepEqual([refused.failure?.class, refused.failure?.reason], ['Unavailable', 'transport.cannot_connect'])
  const silent = await listen(createServer())
  assert.deepEqual((await collect(client, silent, 1)).failure?.reason, 'transport.connection_timeout')
  await until(() => client.stats().connections === 0)
  const leaving = await listen(createServer((socket) => socket.once('data', () => socket.destroy())))
  assert.deepEqual((await collect(client, leaving, 1)).failure?.reason, 'transport.disconnected')
  assert.equal(client.stats().tcpErrors, 3)
})

test('each step of a request is timed once, however many items come', async () => {
  const server = await startServer()
  const client = await startClient()
  const steps: string[] = []
  const step = (name: string) => (seconds: number): void => void steps.push(seconds >= 0 && seconds < 60 ? name : `${name} ${seconds}`)
  client.observe({ encoded: step('encoded'), accepted: step('accepted'), answered: step('answered') })
  const instance = serve(server, count)
  for (let round = 0; round < 2; round += 1) await collect(client, instance, null)
  assert.deepEqual(steps, ['encoded', 'accepted', 'answered', 'encoded', 'accepted', 'answered'])
  assert.equal(client.stats().tcpErrors, 0)
})

test('a stream that breaks before its last item is a disconnection, before or after frames', async () => {
  const server = await startServer()
  const client = await startClient()
  const served = server.serve(endpoint, instanceId, (request, response) => {
    if (request.body[0] === 1) response.writeItem(encodeData(1, 'msgpack'))
    response.begin()
    response.abort()
  })
  for (const [first, told] of [[1, ['accepted', 'prologue', 'frames', 'failed']], [0, ['accepted', 'prologue', 'failed before frames']]] as const) {
    const recorder = new Recorder()
    client.call(instanceOf(served), { id: 'x', codec: 'msgpack', body: [Uint8Array.of(first)] }, recorder)
    await until(() => recorder.over)
    assert.deepEqual(recorder.told, told)
    assert.deepEqual(recorder.failure, { class: 'Unavailable', reason: 'transport.disconnected', message: 'Stream ended before generation completed' })
  }
})

test('a slow reader pauses the source, and everything arrives', async () => {
  const server = await startServer({ bufferBytes: 32_768 })
  const client = await startClient()
  const item = encodeData(new Uint8Array(60_000), 'msgpack')
  const total = 200
  let written = 0
  let refused = 0
  const served = server.serve(endpoint, instanceId, (_request, response) => {
    const pump = (): void => {
      while (written < total) {
        written += 1
        if (!response.writeItem(item)) {
          refused += 1
          return
        }
      }
      response.end()
    }
    response.onDrain = pump
    pump()
  })
  const recorder = new Recorder()
  const call: CallHandle = client.call(instanceOf(served), { id: 'x', codec: 'msgpack', body: [Uint8Array.of(1)] }, recorder)
  call.pause()
  await until(() => recorder.told.includes('accepted') && refused > 0)
  const seen = { written: -1 }
  await until(async () => {
    await delay(50)
    const still = seen.written === written
    seen.written = written
    return still
  })
  assert.ok(written < total, `${written} items were written for a reader that does not read`)
  call.resume()
  await until(() => recorder.over)
  assert.deepEqual(recorder.told.at(-1), 'end')
  assert.equal(recorder.bytes, total * (item.length + 24))
})

test('hostile frames close their connection with an error and change nothing else', async () => {
  const server = await startServer({ frameBytesMax: 10_000 })
  const client = await startClient()
  let go: (() => void) | null = null
  const instance = serve(server, async function* () {
    yield 1
    await new Promise<void>((resolve) => { go = resolve })
    yield 2
  })
  const stream = callStream(client, instance, null)
  assert.equal((await stream.next()).value, 1)
  const { host, port } = server.address
  const path = '2a/ns/c/e'
  const hostile: Uint8Array[] = [
    Buffer.concat([encodeRequestHead(path, {}, 0xfffffff0)]),
    Buffer.concat([encodeRequestHead('\0', {}, 0).subarray(0, 3), Buffer.from([0, 1, 0x7b, 0, 0, 0, 0])]),
    Buffer.from([0, 1, 0xff, 0, 2, 0x7b, 0x7d, 0, 0, 0, 0]),
    Buffer.concat([encodeRequestHead(path, {}, 0).subarray(0, 11), Buffer.from([0, 7]), Buffer.from('{"a":1}'), Buffer.alloc(4)]),
  ]
  for (const bytes of hostile) {
    const ack = await exchange(host, port, bytes)
    assert.match(ack, /^Read error: /)
  }
  for (const garbage of [encodeTwoPart('x', 'y'), Buffer.alloc(64, 0xff), encodeHandshake('nobody')]) {
    await exchange(client.address.split(':')[0] as string, Number(client.address.split(':')[1]), garbage)
  }
  assert.equal(server.stats().malformedFrames, hostile.length)
  assert.equal(client.stats().unknownSubjects, 1)
  assert.equal(client.stats().brokenHandshakes, 2);
  (go as (() => void) | null)?.()
  assert.equal((await stream.next()).value, 2)
  assert.equal((await stream.next()).done, true)
})

/** Sends bytes and resolves with the first acknowledgement, or empty text, when the peer has closed. */
async function exchange(host: string, port: number, bytes: Uint8Array): Promise<string> {
  let text = ''
  await new Promise<void>((resolve) => {
    const socket = connect({ host, port }, () => socket.write(bytes))
    const acks = new AckAssembler()
    socket.on('data', (chunk: Buffer) => {
      if (text === '') acks.push(chunk, (frame) => { text = decodeAck(frame) })
    })
    socket.on('error', () => undefined)
    socket.on('close', () => resolve())
  })
  return text
}

test('a request that cannot be understood is told so over its response stream', async () => {
  const server = await startServer()
  const instance = serve(server, count)
  const path = (instance.transport as { tcp: string }).tcp.replace(/^[^/]*\//, '')
  const answers: string[] = []
  const home = createServer((socket) => socket.on('data', (chunk: Buffer) => answers.push(chunk.toString('latin1'))))
  await listen(home)
  const address = `127.0.0.1:${(home.address() as AddressInfo).port}`
  const control = encodeControl({ id: 'r', codec: 'msgpack', address, subject: 's' })
  const bad = [control.replace('single_in', 'many_in'), control.replace('msgpack', 'cbor'), control.replace('\\"context\\":\\"r', '\\"context\\":\\"q')]
  const { host, port } = server.address
  for (const text of bad) {
    const payload = encodeTwoPart(text, Uint8Array.of(1))
    const socket = connect({ host, port }, () => socket.write(Buffer.concat([encodeRequestHead(path, {}, payload.length), payload])))
    cleanup.push(() => { socket.destroy() })
  }
  await until(() => answers.join('').split('typed_error').length === 4)
  assert.match(answers.join(''), /NotImplemented/)
  assert.match(answers.join(''), /payload_codec/)
  assert.match(answers.join(''), /context differs/)
  const unreadable = encodeTwoPart('{"id":5}', '')
  const socket = connect({ host, port }, () => socket.write(Buffer.concat([encodeRequestHead(path, {}, unreadable.length), unreadable])))
  cleanup.push(() => { socket.destroy() })
  await until(() => server.stats().unreadableRequests === 1)
})

test('what a worker sends against the protocol fails its own call only', async () => {
  const client = await startClient({ responseFrameBytesMax: 100_000 })
  const item = encodeTwoPart('', encodeData(1, 'msgpack'))
  const cases: readonly (readonly [readonly Uint8Array[], string])[] = [
    [[item], 'backend.protocol'],
    [[goodPrologue, goodPrologue], 'backend.protocol'],
    [[goodPrologue, encodeTwoPart('"stop"', '')], 'backend.protocol'],
    [[goodPrologue, encodeTwoPart('a', 'b')], 'backend.protocol'],
    [[goodPrologue, item, sentinel], 'transport.disconnected'],
    [[goodPrologue, encodeTwoPart('', new Uint8Array(200_000))], 'transport.disconnected'],
    [[encodeTwoPart('{"error":"boom"}', '')], 'transport.cannot_connect'],
  ]
  for (const [messages, reason] of cases) {
    const instance = await worker(client, messages)
    const { failure } = await collect(client, instance, 1)
    assert.equal(failure?.reason, reason, messages.map((message) => Buffer.from(message).toString('latin1')).join(' | '))
  }
  const late = await worker(client, [goodPrologue, item, finalFrame('msgpack'), item, item, sentinel])
  assert.deepEqual(await collect(client, late, 1), { values: [1], failure: null })
  await until(() => client.stats().lateFrames === 2 && client.stats().responseStreams === 0)
})

/** A worker that acknowledges, dials, and answers every request with these messages. */
function worker(client: TcpRequestClient, messages: readonly Uint8Array[]): Promise<InstanceRecord> {
  const [host, port] = client.address.split(':')
  return listen(createServer((socket) => socket.on('data', (chunk: Buffer) => {
    socket.write(encodeAck(''))
    const subject = /"subject\\":\\"([^\\]+)/.exec(chunk.toString('latin1'))?.[1] ?? ''
    const dial = connect({ host: host as string, port: Number(port) }, () => dial.write(Buffer.concat([encodeHandshake(subject), ...messages])))
    dial.on('error', () => undefined)
    dial.on('data', () => undefined)
  })))
}

test('a request beyond the limits is refused before it is sent', async () => {
  const client = await startClient({ requestBytesMax: 1000 })
  const instance = instanceOf({ transport: { tcp: '127.0.0.1:9/2a/ns/c/e' } })
  const large = await collect(client, instance, new Uint8Array(2000))
  assert.deepEqual([large.failure?.reason, large.failure?.publicDetail?.type], ['request.payload_too_large', 'size_limit'])
  assert.equal((await collect(client, { ...instance, transport: { nats_tcp: 'a' } }, 1)).failure?.reason, 'transport.cannot_connect')
  assert.equal((await collect(client, { ...instance, transport: { tcp: 'nonsense' } }, 1)).failure?.reason, 'transport.cannot_connect')
  assert.equal(client.stats().connections, 0)
})
