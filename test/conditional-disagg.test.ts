/** Goal: requests that skip the prefill stage by rule, in the two-stage router. Method: scripted workers on loopback. */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { decodeBody, type WireValue } from '../src/dynamo/wire/body.ts'
import { encodeData } from '../src/dynamo/wire/items.ts'
import type { JsonObject, RequestHandler } from '../src/ports.ts'
import { SmallDeployment, plainCard, prefillEndpoint, type ScriptedWorker } from './standalone-kit.ts'

let small: SmallDeployment
beforeEach(() => { small = new SmallDeployment() })
afterEach(() => small.close())

const endpoint = 'dynamo.router.generate'
const tokens = Array.from({ length: 160 }, (_, index) => index)
const ask: { readonly [key: string]: WireValue } = { token_ids: tokens, stop_conditions: { max_tokens: 2 } }
// Workers here publish no events, so that the router knows what they hold by what it sent them.
const approximate = ['--no-router-kv-events'] as const
const twoStages = [...approximate, '--prefill-endpoint', 'dynamo.prefill.generate', '--router-conditional-disagg'] as const
const rules = (value: JsonObject): string[] => ['--router-conditional-disagg-config', JSON.stringify(value)]

interface Request {
  readonly annotations: readonly string[]
  readonly routing: Record<string, WireValue>
  readonly router_config_override: Record<string, WireValue> | null
  readonly prefill_result?: WireValue
}
const requestsOf = (worker: ScriptedWorker): Request[] => worker.seen.map(({ body, codec }) => decodeBody(body, codec) as unknown as Request)

const decodes: RequestHandler = (request, response) => {
  response.writeItem(encodeData({ token_ids: [7] }, request.codec))
  response.writeItem(encodeData({ token_ids: [8], finish_reason: 'length' }, request.codec))
  response.end()
}
const pulls: RequestHandler = (request, response) => {
  response.writeItem(encodeData({ token_ids: [7], disaggregated_params: { kv: 1 } }, request.codec))
  response.end()
}
const prefillWorker = (runtime: JsonObject = {}, handler: RequestHandler = pulls): Promise<ScriptedWorker> =>
  small.worker(handler, { endpoint: prefillEndpoint, card: plainCard({ worker_type: 'prefill', needs: [['decode']], model_type: '' }, runtime) })
const decodeWorker = (runtime: JsonObject = {}): Promise<ScriptedWorker> => small.worker(decodes, { card: plainCard({ worker_type: 'decode', needs: [['prefill']] }, runtime) })
/** Outputs, without the event that tells of the skipped stage. */
const tokensOf = (values: readonly WireValue[]): number[] => values.flatMap((value) => (value as { token_ids?: number[] } | null)?.token_ids ?? [])

test('a prompt that the decode worker has cached skips the prefill worker, with the mark and nothing handed over', async () => {
  const prefill = await prefillWorker()
  const decode = await decodeWorker()
  const { service, metrics } = await small.router(twoStages)
  assert.deepEqual(tokensOf(await small.call(endpoint, ask)), [7, 8])
  assert.deepEqual(tokensOf(await small.call(endpoint, ask)), [7, 8])
  assert.equal(prefill.seen.length, 1)
  const [first, second] = requestsOf(decode)
  assert.deepEqual(first?.router_config_override, {
    overlap_score_credit: null, prefill_load_scale: null, router_temperature: null, assume_kv_reuse: false, track_prefill_tokens: false, shared_cache_multiplier: null,
  }, 'the overlap credit stays')
  assert.deepEqual(first?.annotations, [])
  assert.deepEqual(second?.annotations, ['x-bypass-remote-prefill'])
  assert.deepEqual(second?.routing, { dp_rank: 0 })
  assert.equal(second?.prefill_result, undefined)
  assert.equal(second?.router_config_override ?? null, null)
  assert.match(small.lines.join(''), /Conditional disagg routing to decode worker/)
  const text = await metrics.text()
  assert.match(text, /warmpath_conditional_disagg_total\{outcome="bypass",reason="cached"\} 1/)
  assert.match(text, /warmpath_conditional_disagg_total\{outcome="remote",reason="policy"\} 1/)
  for (const pool of [service.workers, service.prefill]) assert.equal(pool?.router?.bookingCount, 0)
})

test("a caller's own mark is taken away where two stages are decided, and left where not", async () => {
  const prefill = await prefillWorker()
  const decode = await decodeWorker()
  await small.router([...approximate, '--prefill-endpoint', 'dynamo.prefill.generate'])
  const marked = { ...ask, annotations: ['x-bypass-remote-prefill', 'request_id'] }
  await small.call(endpoint, marked)
  assert.deepEqual(requestsOf(prefill)[0]?.annotations, ['request_id'])
  assert.deepEqual(requestsOf(decode)[0]?.annotations, ['request_id'])
  await small.router(['--component', 'plain', ...approximate])
  await small.call('dynamo.plain.generate', marked)
  assert.deepEqual(requestsOf(decode)[1]?.annotations, ['x-bypass-remote-prefill', 'request_id'])
})

test('a short prompt, a pinned prefill worker, and thresholds keep both stages', async () => {
  const prefill = await prefillWorker()
  await decodeWorker({ total_kv_blocks: 100 })
  await small.router([...twoStages, ...rules({ eff_isl_threshold: 64, decode_busy_threshold: 0.05 })])
  await small.call(endpoint, { ...ask, token_ids: [1, 2, 3] })
  await small.call(endpoint, ask)
  await small.call(endpoint, ask)
  assert.equal(prefill.seen.length, 3, 'ten blocks are more than five of a hundred')
  await small.router(['--component', 'second', ...twoStages])
  await small.call('dynamo.second.generate', ask)
  await small.call('dynamo.second.generate', { ...ask, routing: { prefill_worker_id: prefill.id } })
  assert.equal(prefill.seen.length, 5)
  await small.call('dynamo.second.generate', ask)
  assert.equal(prefill.seen.length, 5)
})

test('prefill_load: while the prefill worker is busy, others skip it', async () => {
  const held: (() => void)[] = []
  const prefill = await prefillWorker({ max_num_batched_tokens: 100 }, (request, response) => { held.push(() => void pulls(request, response)) })
  const decode = await decodeWorker()
  await small.router([...twoStages, ...rules({ policy: 'prefill_load', prefill_busy_threshold: 1 })])
  const first = small.call(endpoint, ask)
  while (held.length === 0) await new Promise((resolve) => setImmediate(resolve))
  await small.call(endpoint, { ...ask, token_ids: tokens.map((token) => token + 1000) })
  assert.equal(prefill.seen.length, 1)
  assert.deepEqual(requestsOf(decode)[0]?.annotations, ['x-bypass-remote-prefill'])
  held[0]?.()
  await first
})

test('engines that hand over by bootstrap never skip the prefill stage', async () => {
  const prefill = await prefillWorker({ disaggregated_endpoint: { bootstrap_host: 'h', bootstrap_port: 1 } })
  await decodeWorker()
  const { metrics } = await small.router(twoStages)
  for (let round = 0; round < 3; round += 1) await small.call(endpoint, ask)
  assert.equal(prefill.seen.length, 3)
  assert.match(await metrics.text(), /outcome="remote",reason="bootstrap"\} 3/)
})

test('a decode worker that fails a skipped request is followed by another round', async () => {
  const prefill = await prefillWorker()
  let fails = false
  const flaky: RequestHandler = (request, response) => {
    if (!fails) return decodes(request, response)
    fails = false
    response.abort()
  }
  const card = plainCard({ worker_type: 'decode', needs: [['prefill']] })
  const workers = [await small.worker(flaky, { card }), await small.worker(flaky, { card })]
  await small.router(twoStages)
  await small.call(endpoint, ask)
  fails = true
  assert.deepEqual(tokensOf(await small.call(endpoint, ask)), [7, 8])
  assert.equal(prefill.seen.length, 2, 'the other decode worker has nothing cached')
  assert.equal(workers.reduce((sum, { seen }) => sum + seen.length, 0), 3)
})
