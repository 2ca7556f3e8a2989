/** Goal: the global router forwards, retries and drains as it promises. Method: scripted pool routers on loopback, one process. */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { decodeBody, type WireValue } from '../src/dynamo/wire/body.ts'
import { encodeData, encodeFailureItem } from '../src/dynamo/wire/items.ts'
import { MemoryDiscovery } from '../src/dynamo/discovery/memory-discovery.ts'
import { createTcpRequestClient } from '../src/dynamo/request-plane/tcp-client.ts'
import { createTcpRequestServer } from '../src/dynamo/request-plane/tcp-server.ts'
import { GlobalRouter, type GlobalRouterOptions } from '../src/global-router/global-router.ts'
import { parsePoolConfig } from '../src/global-router/pool-config.ts'
import { innerFailure } from '../src/global-router/inner-failure.ts'
import type { Failure } from '../src/model/failure.ts'
import type { Json, JsonObject, RequestHandler } from '../src/ports.ts'
import { failureOf, plainCard, type ScriptedWorker, SmallDeployment } from './standalone-kit.ts'
import { until } from './until.ts'

let small: SmallDeployment
let open: GlobalRouter[] = []
beforeEach(() => { small = new SmallDeployment() })
afterEach(async () => {
  for (const router of open) await router.drain()
  open = []
  await small.close()
})

const axis = (name: string, unit = ''): JsonObject => ({ [`${name}_min${unit}`]: 0, [`${name}_max${unit}`]: 100, [`${name}_resolution`]: 2 })
const config = (more: { readonly [key: string]: Json } = {}): JsonObject => ({
  num_prefill_pools: 2, num_decode_pools: 2, prefill_pool_dynamo_namespaces: ['p0', 'p1'], decode_pool_dynamo_namespaces: ['d0', 'd1'], enable_priority_retry: true,
  prefill_pool_selection_strategy: { ...axis('isl'), ...axis('ttft', '_ms'), prefill_pool_mapping: [[0, 0], [1, 1]] },
  decode_pool_selection_strategy: { ...axis('context_length'), ...axis('itl', '_ms'), decode_pool_mapping: [[0, 0], [1, 1]] },
  ...more,
})

const seenEvents: string[] = []
async function globalRouter(file: JsonObject = config(), more: Partial<GlobalRouterOptions> = {}, card: JsonObject | null = null): Promise<GlobalRouter> {
  const discovery = new MemoryDiscovery(small.store)
  await discovery.start(AbortSignal.timeout(5000))
  seenEvents.length = 0
  const router = new GlobalRouter({
    options: {
      namespace: 'dynamo', component: 'global_router', modelName: 'tiny', config: parsePoolConfig(file), defaultTtftTargetMs: null, defaultItlTargetMs: null, retryLimit: 2,
      firstOutputTimeoutMs: 60_000, outputTimeoutMs: 60_000, inhibitedMs: 5000, activeRequestsMax: 100, shutdownTimeoutMs: 5000, shutdownGraceMs: 0, codec: 'msgpack', ...more,
    },
    discovery, card, clock: small.clock, log: small.log, measured: (_name, handler) => handler,
    server: createTcpRequestServer({ clock: small.clock, log: small.log, host: '127.0.0.1' }),
    client: createTcpRequestClient({ clock: small.clock, log: small.log, host: '127.0.0.1', connectTimeoutMs: 1000, ackTimeoutMs: 1000 }),
    observer: {
      onSent: (kind, pool) => seenEvents.push(`sent ${kind} ${pool}`), onRetry: (kind, from, to) => seenEvents.push(`retry ${kind} ${from} ${to}`),
      onEnded: (kind, failure) => seenEvents.push(`ended ${kind} ${failure?.class ?? 'well'}`),
    },
  })
  open.push(router)
  await router.start(AbortSignal.timeout(5000))
  return router
}

/** A pool's router that answers for `worker`. */
const poolRouter = (namespace: string, handler: RequestHandler, codec: 'msgpack' | 'json' = 'msgpack'): Promise<ScriptedWorker> =>
  small.worker(handler, { endpoint: { namespace, component: 'router', endpoint: 'generate' }, card: null, codec })
const answersAs = (worker: bigint, count = 2): RequestHandler => (request, response) => {
  for (let index = 0; index < count; index += 1) {
    response.writeItem(encodeData({
      token_ids: [index], ...(index === 0 ? { routing_data: { worker_id: { prefill_worker_id: worker, prefill_dp_rank: 1, decode_worker_id: worker, decode_dp_rank: 1 } } } : {}),
      ...(index === count - 1 ? { finish_reason: 'length' } : {}),
    }, request.codec))
  }
  response.end()
}
const fails = (failure: Failure, after = 0): RequestHandler => (request, response) => {
  response.begin()
  for (let index = 0; index < after; index += 1) response.writeItem(encodeData({ token_ids: [index] }, request.codec))
  response.writeItem(encodeFailureItem(failure, request.codec))
  response.end()
}
const gone: Failure = { class: 'Unavailable', reason: 'backend.unavailable', message: 'no endpoints available to route work' }
const short: WireValue = { token_ids: [1, 2, 3], stop_conditions: { max_tokens: 2 } }
const long: WireValue = { token_ids: Array.from({ length: 80 }, (_, index) => index), stop_conditions: { max_tokens: 2 } }
const prefillEndpoint = 'dynamo.global_router.prefill_generate'
const decodeEndpoint = 'dynamo.global_router.decode_generate'
const tokensOf = (values: readonly WireValue[]): number[] => values.flatMap((value) => (value as { token_ids: number[] }).token_ids)
const bodyOf = (worker: ScriptedWorker, index = 0): Record<string, WireValue> => decodeBody(worker.seen[index]?.body ?? new Uint8Array(), worker.seen[index]?.codec ?? 'json') as Record<string, WireValue>

test('requests go to the pool of their length with id, metadata and trace; the frontend\'s word on this router is taken out', async () => {
  const [p0, p1] = await Promise.all([poolRouter('p0', answersAs(11n)), poolRouter('p1', answersAs(12n))])
  const router = await globalRouter()
  const own = [...(await new MemoryDiscovery(small.store).list('v1/instances', 'dynamo/global_router')).values()].map((record) => BigInt(record['instance_id'] as bigint))[0] as bigint
  const routing = { prefill_worker_id: own, dp_rank: 0, prefill_dp_rank: 0, priority: 3 }
  await small.call(prefillEndpoint, { ...(short as object), routing, zzz: 1 }, { id: 'request-1', metadata: { tenant: 'blue' }, headers: { traceparent: '00-ab-cd-01' } })
  await small.call(prefillEndpoint, long)
  assert.deepEqual([p0.seen.length, p1.seen.length], [1, 1])
  assert.equal(p0.seen[0]?.id, 'request-1')
  assert.deepEqual(p0.seen[0]?.metadata, { tenant: 'blue' })
  assert.equal(p0.seen[0]?.headers['traceparent'], '00-ab-cd-01')
  assert.deepEqual(bodyOf(p0)['routing'], { priority: 3 })
  assert.equal(bodyOf(p0)['zzz'], 1)
  assert.equal(router.activeCount, 0)
})

test('the decode worker and the client see who computed the prompt', async () => {
  await poolRouter('p0', answersAs(2n ** 63n + 5n))
  const [d0] = await Promise.all([poolRouter('d0', answersAs(77n)), poolRouter('d1', answersAs(78n), 'json')])
  const router = await globalRouter()
  const own = [...(await new MemoryDiscovery(small.store).list('v1/instances', 'dynamo/global_router')).values()].map((record) => BigInt(record['instance_id'] as bigint))[0] as bigint
  await small.call(prefillEndpoint, short, { id: 'one' })
  const values = await small.call(decodeEndpoint, { ...(short as object), routing: { prefill_worker_id: own, dp_rank: 0 } }, { id: 'one' })
  assert.deepEqual(bodyOf(d0)['routing'], { prefill_worker_id: 2n ** 63n + 5n })
  const shown = (values[0] as { routing_data: { worker_id: WireValue } }).routing_data.worker_id
  assert.deepEqual(shown, { prefill_worker_id: 2n ** 63n + 5n, prefill_dp_rank: 1, decode_worker_id: 77, decode_dp_rank: 1 })
  assert.equal(router.notes.size, 0, 'an answered request is forgotten')
  assert.deepEqual(tokensOf(await small.call(decodeEndpoint, long, { codec: 'json' })), [0, 1])
})

test('before the first output another replica is tried, then the faster pools; afterwards nothing', async () => {
  await poolRouter('d1', fails(gone))
  await poolRouter('d0', answersAs(1n))
  await globalRouter()
  assert.deepEqual(tokensOf(await small.call(decodeEndpoint, long)), [0, 1])
  assert.deepEqual(seenEvents, ['sent decode d1', 'retry decode d1 d0', 'sent decode d0', 'ended decode well'])
})

test('without retries between pools the failure is the answer, with its class', async () => {
  await poolRouter('d1', fails(gone))
  await poolRouter('d0', answersAs(1n))
  await globalRouter(config({ enable_priority_retry: false }))
  assert.equal((await failureOf(small.call(decodeEndpoint, long))).class, 'Unavailable')
  assert.deepEqual(seenEvents, ['sent decode d1', 'ended decode Unavailable'])
})

test('two replicas of a pool share its requests and stand in for each other', async () => {
  const [dead, alive] = await Promise.all([poolRouter('d0', answersAs(1n)), poolRouter('d0', answersAs(2n))])
  await globalRouter(config({ enable_priority_retry: false }))
  for (let count = 0; count < 4; count += 1) await small.call(decodeEndpoint, short)
  assert.deepEqual([dead.seen.length, alive.seen.length], [2, 2])
  await dead.kill()
  for (let count = 0; count < 4; count += 1) assert.deepEqual(tokensOf(await small.call(decodeEndpoint, short)), [0, 1])
})

test('an invalid request is not tried elsewhere; a failure after an output ends the answer', async () => {
  await poolRouter('d1', fails({ class: 'InvalidRequest', reason: 'request.invalid_argument', message: 'max_tokens is -1' }))
  const d0 = await poolRouter('d0', fails(gone, 1))
  await globalRouter()
  assert.equal((await failureOf(small.call(decodeEndpoint, long))).class, 'InvalidRequest')
  assert.equal(d0.seen.length, 0)
  const seen: WireValue[] = []
  assert.equal((await failureOf(small.call(decodeEndpoint, short, { onValue: (value) => seen.push(value) }))).class, 'Unavailable')
  assert.deepEqual(tokensOf(seen), [0])
})

test('a pool without a router is named; a malformed request is the caller\'s', async () => {
  await globalRouter(config({ enable_priority_retry: false }))
  const missing = await failureOf(small.call(decodeEndpoint, short))
  assert.equal(missing.class, 'Unavailable')
  assert.match(missing.message, /nobody serves d0\.router\.generate; start a router for that pool/)
  assert.equal((await failureOf(small.call(decodeEndpoint, { token_ids: 'x' }))).class, 'InvalidRequest')
})

test('the hidden class of a foreign router comes back', () => {
  const hidden = (message: string): Failure => ({ class: 'InvalidRequest', reason: 'backend.invalid_argument', message })
  assert.deepEqual(innerFailure(hidden('ValueError: Unavailable: Stream ended before generation completed')), { class: 'Unavailable', reason: 'backend.stream_incomplete', message: 'Stream ended before generation completed' })
  assert.deepEqual(innerFailure(hidden('InvalidRequest: ValueError: Internal: RuntimeError: x')), { class: 'Internal', reason: 'runtime.unclassified', message: 'RuntimeError: x' })
  for (const message of ['ValueError: bad prompt', 'ValueError: Nothing: x', 'Unavailable: x', 'ValueError: constructor: x']) assert.equal(innerFailure(hidden(message)).message, message)
  assert.equal(innerFailure(gone), gone)
})

test('a caller that leaves ends the pool\'s work, and nothing stays open', async () => {
  let cancelled = ''
  await poolRouter('d0', (request, response) => {
    response.onCancel = (kind) => { cancelled = kind }
    response.writeItem(encodeData({ token_ids: [1] }, request.codec))
  })
  const router = await globalRouter()
  const abort = new AbortController()
  await assert.rejects(small.call(decodeEndpoint, short, { signal: abort.signal, onValue: () => abort.abort() }))
  await until('the pool hears of it', () => cancelled !== '' && router.activeCount === 0)
})

test('silence has a limit; open requests finish while it drains', async () => {
  let finish = (): void => {}
  await poolRouter('d0', (request, response) => {
    response.writeItem(encodeData({ token_ids: [1] }, request.codec))
    finish = () => response.end()
  })
  await poolRouter('d1', () => {})
  const router = await globalRouter(config({ enable_priority_retry: false }), { firstOutputTimeoutMs: 300, retryLimit: 0 })
  assert.equal((await failureOf(small.call(decodeEndpoint, long))).class, 'DeadlineExceeded')
  let first = (): void => {}
  const begun = new Promise<void>((resolve) => { first = resolve })
  const answer = small.call(decodeEndpoint, short, { onValue: () => first() })
  await begun
  const drained = router.drain()
  await until('it drains', () => router.state === 'draining')
  finish()
  assert.deepEqual(tokensOf(await answer), [1])
  await drained
  assert.equal((await new MemoryDiscovery(small.store).list('v1/instances', 'dynamo/global_router')).size, 0)
})

test('cards of both stages are published, from a worker of the pools as soon as there is one', async () => {
  await globalRouter()
  const cards = (): Promise<ReadonlyMap<string, JsonObject>> => new MemoryDiscovery(small.store).list('v1/mdc', 'dynamo/global_router')
  assert.equal((await cards()).size, 0)
  await small.worker(answersAs(1n), { endpoint: { namespace: 'p1', component: 'prefill', endpoint: 'generate' }, card: { ...plainCard({ aliases: ['other'] }), tokenizer: { hf_tokenizer_json: { path: '/m/tokenizer.json', checksum: 'blake3:00', size: 1 } } } })
  await until('both cards', async () => (await cards()).size === 2)
  const shown = [...(await cards()).values()].map((record) => record['card_json'] as JsonObject)
  assert.deepEqual(shown.map((card) => [card['display_name'], card['worker_type'], card['model_type'], card['needs'], card['aliases']]), [
    ['tiny', 'prefill', 'Prefill', [['decode']], undefined], ['tiny', 'decode', 'Chat | Completions', [['prefill']], undefined],
  ])
})
