/** Goal: what the standalone router does better than the original holds. Method: scripted workers on loopback, one process. */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { decodeBody, encodeBody, type WireValue } from '../src/dynamo/wire/body.ts'
import { encodeData, encodeFailureItem } from '../src/dynamo/wire/items.ts'
import type { Failure } from '../src/model/failure.ts'
import type { RequestHandler } from '../src/ports.ts'
import { failureOf, plainCard, SmallDeployment } from './standalone-kit.ts'
import { until } from './until.ts'

let small: SmallDeployment
beforeEach(() => { small = new SmallDeployment() })
afterEach(() => small.close())

const endpoint = 'dynamo.router.generate'
const tokens = Array.from({ length: 40 }, (_, index) => index)
const ask: WireValue = { token_ids: tokens, stop_conditions: { max_tokens: 3 } }

/** Sends `count` tokens, one an output. */
const answers = (count = 3): RequestHandler => (request, response) => {
  for (let index = 0; index < count; index += 1) {
    response.writeItem(encodeData({ token_ids: [index], ...(index === count - 1 ? { finish_reason: 'length' } : {}) }, request.codec))
  }
  response.end()
}
/** An error item after `count` outputs. */
const fails = (failure: Failure, count = 0): RequestHandler => (request, response) => {
  for (let index = 0; index < count; index += 1) response.writeItem(encodeData({ token_ids: [index] }, request.codec))
  response.begin()
  response.writeItem(encodeFailureItem(failure, request.codec))
  response.end()
}
const silent: RequestHandler = () => {}

const shutdown: Failure = { class: 'Unavailable', reason: 'backend.engine_shutdown', message: 'engine is going' }
const own: Failure = { class: 'Internal', reason: 'backend.unknown', message: 'RuntimeError: own fault' }

const tokensOf = (values: readonly WireValue[]): number[] => values.flatMap((value) => (value as { token_ids: number[] }).token_ids)

test('outputs stream through; the first names the worker, the last the times', async () => {
  const worker = await small.worker(answers())
  const { service } = await small.router()
  const values = await small.call(endpoint, ask)
  assert.deepEqual(tokensOf(values), [0, 1, 2])
  const [first, middle, last] = values as { routing_data?: { worker_id?: { decode_worker_id: bigint }; timing?: Record<string, number> } }[]
  assert.equal(first?.routing_data?.worker_id?.decode_worker_id, worker.id)
  assert.equal(middle?.routing_data, undefined)
  assert.ok((last?.routing_data?.timing?.['total_time_ms'] ?? -1) >= 0)
  assert.equal(service.workers.router?.bookingCount, 0)
})

test('request id, metadata, trace headers and unknown fields reach the worker', async () => {
  const worker = await small.worker(answers())
  await small.router()
  await small.call(endpoint, { token_ids: tokens, zzz: 2n ** 64n - 1n }, { id: 'request-1', metadata: { tenant: 'blue' }, headers: { traceparent: '00-ab-cd-01', 'x-request-id': 'x', other: 'stays' } })
  const [seen] = worker.seen
  assert.equal(seen?.id, 'request-1')
  assert.deepEqual(seen?.metadata, { tenant: 'blue' })
  assert.equal(seen?.headers['traceparent'], '00-ab-cd-01')
  assert.equal(seen?.headers['x-request-id'], 'x')
  const body = decodeBody(seen?.body ?? new Uint8Array(), seen?.codec ?? 'json') as Record<string, WireValue>
  assert.equal(body['zzz'], 2n ** 64n - 1n)
  assert.deepEqual(body['routing'], { dp_rank: 0 })
})

test('caller and worker may speak different codecs', async () => {
  const worker = await small.worker(answers(), { codec: 'json' })
  await small.router()
  for (const codec of ['msgpack', 'json'] as const) assert.deepEqual(tokensOf(await small.call(endpoint, ask, { codec })), [0, 1, 2])
  assert.deepEqual(worker.seen.map((request) => request.codec), ['json', 'json'])
})

test('a failure before the first output is retried on another worker, which is set aside no more than it must', async () => {
  const bad = await small.worker(fails(shutdown))
  const good = await small.worker(answers())
  const { service } = await small.router()
  for (let round = 0; round < 10; round += 1) assert.deepEqual(tokensOf(await small.call(endpoint, { token_ids: [round] })), [0, 1, 2])
  assert.ok(bad.seen.length <= 1, `the failed worker got ${bad.seen.length} requests`)
  assert.ok(good.seen.length >= 9)
  assert.equal(service.workers.router?.bookingCount, 0)
})

test('retries end: at the limit, and when nobody is left', async () => {
  for (let count = 0; count < 4; count += 1) await small.worker(fails(shutdown))
  const { service } = await small.router(['--retry-limit', '2'], { DYN_RUNTIME_INHIBITED_DURATION_SECS: '0' })
  const failure = await failureOf(small.call(endpoint, ask))
  assert.equal(failure.class, 'Unavailable')
  assert.equal(failure.reason, 'backend.engine_shutdown')
  assert.equal(service.workers.router?.bookingCount, 0)
})

test("an application's error is relayed as it came and sets nobody aside", async () => {
  const worker = await small.worker(fails(own, 2))
  const { service } = await small.router()
  const values: WireValue[] = []
  const failure = await failureOf(small.call(endpoint, ask, { onValue: (value) => values.push(value) }))
  assert.deepEqual([failure.class, failure.reason, failure.message], ['Internal', 'backend.unknown', 'RuntimeError: own fault'])
  assert.equal(values.length, 2)
  await failureOf(small.call(endpoint, ask))
  assert.equal(worker.seen.length, 2)
  assert.equal(service.workers.directory?.counts().setAside, 0)
})

test('a worker that breaks off is Unavailable, before and after the first output', async () => {
  await small.worker((request, response) => {
    response.writeItem(encodeData({ token_ids: [1] }, request.codec))
    setTimeout(() => response.abort(), 20)
  })
  await small.router()
  const failure = await failureOf(small.call(endpoint, ask))
  assert.equal(failure.class, 'Unavailable')
  assert.equal(failure.reason, 'backend.disconnected', 'not transport.*: the caller must not set the router aside')
  assert.match(failure.message, /Stream ended before generation completed/)
})

test('a record that leaves before the first output ends the wait', async () => {
  const worker = await small.worker(silent)
  await small.router(['--retry-limit', '0'])
  const waiting = failureOf(small.call(endpoint, ask))
  await until('the worker has it', () => worker.seen.length === 1)
  await worker.leave()
  assert.equal((await waiting).class, 'Unavailable')
})

test('limits are on silence: before the first output, and between outputs', async () => {
  await small.worker(silent)
  await small.router(['--first-output-timeout', '0.5', '--retry-limit', '0'])
  const first = await failureOf(small.call(endpoint, ask))
  assert.deepEqual([first.class, first.reason], ['DeadlineExceeded', 'backend.response_timeout'])
  assert.match(first.message, /--first-output-timeout/)
})

test('a silent stream is ended with what it had', async () => {
  await small.worker((request, response) => void response.writeItem(encodeData({ token_ids: [1] }, request.codec)))
  const { service } = await small.router(['--output-timeout', '0.5'])
  const values: WireValue[] = []
  const failure = await failureOf(small.call(endpoint, ask, { onValue: (value) => values.push(value) }))
  assert.match(failure.message, /--output-timeout/)
  assert.equal(values.length, 1)
  assert.equal(service.workers.router?.bookingCount, 0)
})

test('a caller that leaves frees its booking and the worker hears of it', async () => {
  let cancelled: string | null = null
  await small.worker((request, response) => {
    response.onCancel = (kind) => { cancelled = kind }
    response.writeItem(encodeData({ token_ids: [1] }, request.codec))
  })
  const { service } = await small.router()
  const leave = new AbortController()
  await failureOf(small.call(endpoint, ask, { signal: leave.signal, onValue: () => leave.abort() }))
  await until('the worker hears', () => cancelled !== null)
  await until('the booking is gone', () => service.workers.router?.bookingCount === 0)
  assert.equal(service.generate.activeCount, 0)
})

test('a rank asked for without a worker is honoured', async () => {
  const worker = await small.worker(answers(), { card: plainCard({}, { data_parallel_size: 4 }) })
  await small.router()
  await small.call(endpoint, { token_ids: tokens, routing: { dp_rank: 2 } })
  await small.call(endpoint, { token_ids: tokens, dp_rank: 3 })
  const ranks = worker.seen.map((request) => (decodeBody(request.body, request.codec) as { routing: { dp_rank: number } }).routing.dp_rank)
  assert.deepEqual(ranks, [2, 3])
  const failure = await failureOf(small.call(endpoint, { token_ids: tokens, routing: { dp_rank: 9 } }))
  assert.match(failure.message, /no endpoints available to route work/)
})

test('a worker without a card is used when the block size is given, and refused by name when not', async () => {
  const worker = await small.worker(answers(), { card: null })
  await small.router(['--router-block-size', '16'])
  assert.deepEqual(tokensOf(await small.call(endpoint, ask)), [0, 1, 2])
  await small.router(['--component', 'second'])
  const failure = await failureOf(small.call('dynamo.second.generate', ask))
  assert.equal(failure.class, 'Unavailable')
  await until('the log names worker and option', () => small.lines.some((line) => line.includes(String(worker.id)) && line.includes('set --router-block-size')))
})

test('a block size that differs from the cards is said loudly, and theirs is used', async () => {
  await small.worker(answers())
  const { service, metrics } = await small.router(['--router-block-size', '64'])
  assert.equal(service.workers.pool.facts?.blockSize, 16)
  assert.ok(small.lines.some((line) => /BLOCK SIZE MISMATCH.*16.*64/.test(line)))
  assert.match(await metrics.text(), /warmpath_block_size_mismatch_workers 1/)
  const strict = await small.router(['--router-block-size', '64', '--strict-block-size', '--component', 'strict'])
  assert.equal(strict.service.workers.router, null)
})

test('taints that change are followed', async () => {
  const worker = await small.worker(answers(), { card: plainCard({}, { taints: [] }) })
  await small.router()
  const wanted: WireValue = { token_ids: tokens, routing: { routing_constraints: { required_taints: ['gold'] } } }
  assert.match((await failureOf(small.call(endpoint, wanted))).message, /no endpoints available/)
  await worker.publishCard(plainCard({}, { taints: ['gold'] }))
  await until('the taint counts', async () => small.call(endpoint, wanted).then(() => true, () => false))
})

test('best_worker_id takes an array or a map and changes nothing', async () => {
  const worker = await small.worker(answers())
  const { service } = await small.router()
  for (const body of [tokens, { token_ids: tokens }]) {
    assert.deepEqual((await small.call('dynamo.router.best_worker_id', body)).map((id) => BigInt(id as bigint)), [worker.id])
  }
  assert.equal(service.workers.router?.bookingCount, 0)
  assert.equal(worker.seen.length, 0)
  assert.match((await failureOf(small.call('dynamo.router.best_worker_id', { tokens }))).message, /token_ids/)
})

test('overlap scores have the shape of the original', async () => {
  const worker = await small.worker(answers())
  await small.router()
  const [answer] = await small.call('dynamo.router.get_overlap_scores', { token_ids: tokens })
  assert.deepEqual(answer, {
    block_size: 16, num_blocks: 2,
    workers: [{ worker_id: worker.id, dp_rank: 0, device_blocks: 0, host_pinned_blocks: 0, disk_blocks: 0, host_pinned_extension_blocks: 0, disk_extension_blocks: 0, shared_beyond_device_blocks: null }],
    shared_cache: { enabled: false, total_hit_blocks: 0, ranges: [], error: null },
  })
})

test('without workers: an error of class Unavailable, and the router stays up', async () => {
  await small.router()
  const failure = await failureOf(small.call(endpoint, ask))
  assert.deepEqual([failure.class, failure.reason], ['Unavailable', 'backend.unavailable'])
  const [scores] = await small.call('dynamo.router.get_overlap_scores', { token_ids: tokens })
  assert.deepEqual((scores as { workers: unknown }).workers, [])
  await small.worker(answers())
  await until('a late worker is used', async () => small.call(endpoint, ask).then(() => true, () => false))
})

test('a live router of ours with another target keeps its name, a replica may share it', async () => {
  await small.router()
  await small.router()
  await assert.rejects(small.router(['--endpoint', 'dynamo.prefill.generate']), /dynamo\.router\.generate is served by a live router for dynamo\.backend\.generate.*--component NAME/)
  await small.router(['--endpoint', 'dynamo.prefill.generate', '--force'])
})

test('draining lets streams finish and refuses new requests', async () => {
  let release = (): void => {}
  await small.worker((request, response) => {
    response.writeItem(encodeData({ token_ids: [1] }, request.codec))
    release = () => {
      response.writeItem(encodeData({ token_ids: [2], finish_reason: 'stop' }, request.codec))
      response.end()
    }
  })
  const { service } = await small.router()
  let started = false
  const open = small.call(endpoint, ask, { onValue: () => { started = true } })
  await until('the stream runs', () => started)
  const drained = service.drain()
  await until('the record is gone', () => small.call(endpoint, ask).then(() => false, (error: Error) => /nobody serves/.test(error.message)))
  release()
  assert.deepEqual(tokensOf(await open), [1, 2])
  await drained
  assert.equal(service.state, 'stopped')
})

test('the card of --register-model is a worker card renamed', async () => {
  await small.worker(answers())
  const { service } = await small.router(['--register-model', 'Routed Model'])
  assert.equal(service.state, 'ready')
  const { MemoryDiscovery } = await import('../src/dynamo/discovery/memory-discovery.ts')
  const cards = await new MemoryDiscovery(small.store).list('v1/mdc', 'dynamo/router/generate')
  const [card] = [...cards.values()] as unknown as { card_json: { display_name: string; slug: string; kv_cache_block_size: number; runtime_config: { kv_event_publishing_enabled: boolean } } }[]
  assert.equal(card?.card_json.display_name, 'Routed Model')
  assert.equal(card?.card_json.slug, 'routed_model')
  assert.equal(card?.card_json.kv_cache_block_size, 16)
  assert.equal(card?.card_json.runtime_config.kv_event_publishing_enabled, false)
})

test('bad requests are answered one by one and nothing else is touched', async () => {
  const worker = await small.worker(answers())
  await small.router()
  for (const body of [7, 'x', {}, { token_ids: [1.5] }, { token_ids: [1], routing: [] }, { token_ids: [1], router_config_override: { router_temperature: -1 } }] as WireValue[]) {
    assert.equal((await failureOf(small.call(endpoint, body))).class, 'InvalidRequest')
  }
  assert.equal(worker.seen.length, 0)
  assert.deepEqual(tokensOf(await small.call(endpoint, ask)), [0, 1, 2])
  assert.ok(encodeBody(ask, 'msgpack').length > 0)
})
