/** Goal: two stages inside one router, for every engine's hand-over and every failure. Method: scripted prefill and decode workers on loopback. */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { decodeBody, type WireValue } from '../src/dynamo/wire/body.ts'
import { encodeData, encodeFailureItem } from '../src/dynamo/wire/items.ts'
import type { Failure } from '../src/model/failure.ts'
import type { JsonObject, RequestHandler } from '../src/ports.ts'
import { failureOf, plainCard, prefillEndpoint, type ScriptedWorker, SmallDeployment } from './standalone-kit.ts'
import { until } from './until.ts'

let small: SmallDeployment
beforeEach(() => { small = new SmallDeployment() })
afterEach(() => small.close())

const endpoint = 'dynamo.router.generate'
const tokens = Array.from({ length: 40 }, (_, index) => index)
const ask: WireValue = { token_ids: tokens, stop_conditions: { max_tokens: 4 }, sampling_options: {} }
const twoStages = ['--prefill-endpoint', 'dynamo.prefill.generate'] as const

type Request = { token_ids: number[]; routing: Record<string, WireValue>; stop_conditions: Record<string, WireValue>; router_config_override: Record<string, WireValue> | null; prefill_result?: { disaggregated_params: WireValue; prompt_tokens_details: WireValue }; bootstrap_info?: Record<string, WireValue> }
const requestsOf = (worker: ScriptedWorker): Request[] => worker.seen.map(({ body, codec }) => decodeBody(body, codec) as unknown as Request)

/** A decode worker that sends as many tokens as it is asked for. */
const decodes: RequestHandler = (request, response) => {
  const { stop_conditions: stop } = decodeBody(request.body, request.codec) as unknown as Request
  const count = Number(stop['max_tokens'] ?? 2)
  for (let index = 0; index < count; index += 1) response.writeItem(encodeData({ token_ids: [100 + index], ...(index === count - 1 ? { finish_reason: 'length' } : {}) }, request.codec))
  response.end()
}
const gives = (output: WireValue): RequestHandler => (request, response) => {
  response.writeItem(encodeData(output, request.codec))
  response.end()
}
const fails = (failure: Failure): RequestHandler => (request, response) => {
  response.begin()
  response.writeItem(encodeFailureItem(failure, request.codec))
  response.end()
}
const params = { kv_transfer_params: { remote_block_ids: [1, 2n ** 63n], ratio: 0.25 } }
const pulls = gives({ token_ids: [5], disaggregated_params: params, completion_usage: { prompt_tokens_details: { cached_tokens: 16 } } })
const lost: Failure = { class: 'Unavailable', reason: 'backend.engine_shutdown', message: 'going' }

const prefillCard = (runtime: JsonObject = {}): JsonObject => plainCard({ worker_type: 'prefill', needs: [['decode']], model_type: '' }, runtime)
const decodeCard = (runtime: JsonObject = {}): JsonObject => plainCard({ worker_type: 'decode', needs: [['prefill']] }, runtime)
const prefillWorker = (handler: RequestHandler, runtime: JsonObject = {}): Promise<ScriptedWorker> => small.worker(handler, { endpoint: prefillEndpoint, card: prefillCard(runtime) })
const decodeWorker = (handler: RequestHandler = decodes, runtime: JsonObject = {}): Promise<ScriptedWorker> => small.worker(handler, { card: decodeCard(runtime) })
const tokensOf = (values: readonly WireValue[]): number[] => values.flatMap((value) => (value as { token_ids: number[] }).token_ids)

test('pull engines: prompt at the prefill worker, its params verbatim at the decode worker', async () => {
  const prefill = await prefillWorker(pulls)
  const decode = await decodeWorker()
  const { service } = await small.router(twoStages)
  const values = await small.call(endpoint, ask, { id: 'request-1' })
  assert.deepEqual(tokensOf(values), [100, 101, 102, 103])
  const [first] = requestsOf(prefill)
  assert.deepEqual(first?.stop_conditions, { max_tokens: 1 })
  assert.deepEqual(first?.routing, { prefill_worker_id: prefill.id, prefill_dp_rank: 0, dp_rank: 0 })
  const [second] = requestsOf(decode)
  assert.deepEqual(second?.stop_conditions, { max_tokens: 4 })
  assert.deepEqual(second?.prefill_result, { disaggregated_params: params, prompt_tokens_details: { audio_tokens: null, cached_tokens: 16 } })
  assert.deepEqual(second?.routing, { prefill_worker_id: prefill.id, dp_rank: 0 })
  assert.deepEqual(second?.router_config_override, {
    overlap_score_credit: 0, prefill_load_scale: null, router_temperature: null, assume_kv_reuse: false, track_prefill_tokens: false, shared_cache_multiplier: null,
  })
  assert.equal(prefill.seen[0]?.id, 'request-1')
  assert.equal(decode.seen[0]?.id, 'request-1')
  const worker = (values[0] as { routing_data: { worker_id: unknown } }).routing_data.worker_id
  assert.deepEqual(worker, { prefill_worker_id: prefill.id, prefill_dp_rank: 0, decode_worker_id: decode.id, decode_dp_rank: 0 })
  assert.equal(service.workers.router?.bookingCount, 0)
  assert.equal(service.prefill?.router?.bookingCount, 0)
})

test('any JSON value is handed over', async () => {
  await prefillWorker(gives({ token_ids: [5], disaggregated_params: 'dummy', finish_reason: 'length' }))
  const decode = await decodeWorker()
  await small.router(twoStages)
  await small.call(endpoint, ask)
  assert.equal(requestsOf(decode)[0]?.prefill_result?.disaggregated_params, 'dummy')
})

test('an advertised bootstrap server: the same room and id on both legs at once, one per attempt', async () => {
  const held: (() => void)[] = []
  const prefill = await prefillWorker((request, response) => {
    response.writeItem(encodeData({ token_ids: [], disaggregated_params: { bootstrap_room: 1 } }, request.codec))
    held.push(() => response.end())
  }, { disaggregated_endpoint: { bootstrap_host: '10.0.0.1', bootstrap_port: 8998 }, data_parallel_size: 4 })
  const decode = await decodeWorker()
  await small.router(twoStages)
  let outputs = 0
  const answer = small.call(endpoint, { token_ids: tokens, stop_conditions: { max_tokens: 4 }, routing: { prefill_dp_rank: 3 } }, { onValue: () => { outputs += 1 } })
  await until('the decode leg streams while prefill runs', () => outputs === 3)
  assert.equal(held.length, 1, 'the last output waits for the prefill leg')
  held[0]?.()
  assert.deepEqual(tokensOf(await answer), [100, 101, 102, 103])
  const [left] = requestsOf(prefill)
  const [right] = requestsOf(decode)
  assert.deepEqual(left?.bootstrap_info, right?.bootstrap_info)
  assert.equal(left?.bootstrap_info?.['bootstrap_host'], '10.0.0.1')
  assert.equal(BigInt(left?.bootstrap_info?.['bootstrap_room'] as bigint) % 4n, 3n)
  assert.equal((left?.bootstrap_info?.['handoff_id'] as Uint8Array | undefined)?.length, 16)
  assert.equal(right?.routing['prefill_dp_rank'], 3)
  const again = small.call(endpoint, ask)
  await until('the second prefill runs', () => held.length === 2)
  held[1]?.()
  await again
  assert.notDeepEqual(requestsOf(prefill)[1]?.bootstrap_info?.['handoff_id'], left?.bootstrap_info?.['handoff_id'])
})

test("a prefill failure after the hand-over replaces the decode worker's success", async () => {
  let attempts = 0
  await prefillWorker((request, response) => {
    attempts += 1
    response.writeItem(encodeData({ token_ids: [] }, request.codec))
    setTimeout(() => {
      response.writeItem(encodeFailureItem({ class: 'Internal', reason: 'backend.unknown', message: 'late' }, request.codec))
      response.end()
    }, 30)
  }, { disaggregated_endpoint: { bootstrap_host: 'h', bootstrap_port: 1 } })
  await decodeWorker()
  const { service } = await small.router(twoStages)
  const failure = await failureOf(small.call(endpoint, ask))
  assert.equal(failure.message, 'late')
  assert.equal(attempts, 1)
  assert.equal(service.workers.router?.bookingCount, 0)
})

test('without an advertised server the first output names the room', async () => {
  await prefillWorker(gives({ token_ids: [], disaggregated_params: { bootstrap_host: 'p', bootstrap_port: 7, bootstrap_room: 2n ** 62n } }))
  const decode = await decodeWorker()
  await small.router(twoStages)
  assert.deepEqual(tokensOf(await small.call(endpoint, ask)), [100, 101, 102, 103])
  const info = requestsOf(decode)[0]?.bootstrap_info
  assert.deepEqual([info?.['bootstrap_host'], info?.['bootstrap_port'], info?.['bootstrap_room']], ['p', 7, 2n ** 62n])
  assert.equal((info?.['handoff_id'] as Uint8Array | undefined)?.length, 16)
})

test('a prefill that ends the answer is the answer', async () => {
  await prefillWorker(gives({ token_ids: [9], finish_reason: 'eos', disaggregated_params: params }))
  const decode = await decodeWorker()
  await small.router(twoStages)
  const values = await small.call(endpoint, ask)
  assert.deepEqual(tokensOf(values), [9])
  assert.equal((values[0] as { disaggregated_params: unknown }).disaggregated_params, null)
  assert.equal(decode.seen.length, 0)
})

for (const [name, handler] of [
  ['raises', fails({ class: 'Internal', reason: 'backend.unknown', message: 'boom' })],
  ['is lost', fails(lost)],
  ['breaks off', ((_request, response) => { response.begin(); response.abort() }) as RequestHandler],
  ['gives nothing', ((_request, response) => { response.begin(); response.end() }) as RequestHandler],
  ['hands nothing over', gives({ token_ids: [5] })],
  ['ends with an error', gives({ token_ids: [], finish_reason: { error: 'engine' } })],
  ['hands over no context id', gives({ token_ids: [5], finish_reason: 'length', disaggregated_params: { request_type: 'context_only', ctx_request_id: null } })],
] as const) {
  test(`a prefill worker that ${name}: another one, then the decode worker alone`, async () => {
    const bad = await prefillWorker(handler)
    const decode = await decodeWorker()
    const { service, metrics } = await small.router(twoStages)
    assert.deepEqual(tokensOf(await small.call(endpoint, ask)), [100, 101, 102, 103])
    assert.equal(bad.seen.length, 1)
    assert.equal(requestsOf(decode)[0]?.prefill_result, undefined)
    assert.match(await metrics.text(), /warmpath_prefill_fallback_total\{reason="[a-z._]+"\} 1/)
    const good = await prefillWorker(pulls)
    await until('the new prefill worker is used', async () => {
      await small.call(endpoint, ask)
      return good.seen.length > 0
    })
    assert.ok(requestsOf(decode).at(-1)?.prefill_result !== undefined)
    assert.equal(service.prefill?.router?.bookingCount, 0)
    assert.equal(service.workers.router?.bookingCount, 0)
  })
}

test('the strict: a failed prefill fails the request, and a bad request is never tried twice', async () => {
  const bad = await prefillWorker(fails({ class: 'InvalidRequest', reason: 'backend.invalid_argument', message: 'too long' }))
  const decode = await decodeWorker()
  await small.router(twoStages)
  assert.equal((await failureOf(small.call(endpoint, ask))).message, 'too long')
  await small.router([...twoStages, '--on-prefill-error', 'fail', '--component', 'strict'])
  await bad.leave()
  await prefillWorker(fails(lost))
  await until('the strict router fails', async () => small.call('dynamo.strict.generate', ask).then(() => false, (error: Error) => /going/.test(error.message)))
  assert.equal(decode.seen.length, 0)
})

test('without prefill workers the decode workers do it all, and prefill is used when it comes back', async () => {
  const decode = await decodeWorker()
  await small.router(twoStages)
  await small.call(endpoint, ask)
  const request = requestsOf(decode)[0]
  assert.equal(request?.prefill_result, undefined)
  assert.deepEqual(request?.routing, { dp_rank: 0 })
  const prefill = await prefillWorker(pulls)
  await until('prefill is used', async () => {
    await small.call(endpoint, ask)
    return prefill.seen.length > 0
  })
})

test('a caller that leaves during prefill: the staged blocks are still fetched, then dropped', async () => {
  let finish: (() => void) | null = null
  await prefillWorker((request, response) => {
    finish = () => {
      response.writeItem(encodeData({ token_ids: [5], disaggregated_params: params }, request.codec))
      response.end()
    }
  })
  let cancelled: string | null = null
  const decode = await decodeWorker((request, response) => {
    response.onCancel = (kind) => { cancelled = kind }
    response.writeItem(encodeData({ token_ids: [1] }, request.codec))
  })
  const { service } = await small.router(twoStages)
  const leave = new AbortController()
  const answer = failureOf(small.call(endpoint, ask, { signal: leave.signal }))
  const handOver = await until('prefill runs', () => ((service.prefill?.router?.bookingCount ?? 0) === 1 ? finish : null))
  leave.abort()
  assert.equal((await answer).class, 'Cancelled')
  handOver()
  await until('the decode worker got the hand-over and was told to stop', () => cancelled !== null)
  assert.deepEqual(requestsOf(decode)[0]?.prefill_result?.disaggregated_params, params)
  await until('nothing is left', () => service.generate.activeCount === 0)
  assert.equal(service.prefill?.router?.bookingCount, 0)
  assert.equal(service.workers.router?.bookingCount, 0)
})

test('a decode worker lost in the middle: both stages again elsewhere, the tokens so far behind the prompt', async () => {
  const prefill = await prefillWorker(pulls)
  const dies: RequestHandler = (request, response) => {
    for (const token of [100, 101]) response.writeItem(encodeData({ token_ids: [token] }, request.codec))
    setTimeout(() => response.abort(), 20)
  }
  let first = true
  const either: RequestHandler = (request, response) => {
    if (!first) return void decodes(request, response)
    first = false
    dies(request, response)
  }
  const workers = [await decodeWorker(either), await decodeWorker(either)]
  const { service } = await small.router([...twoStages, '--migration-limit', '3'])
  const values = await small.call(endpoint, ask)
  assert.deepEqual(tokensOf(values), [100, 101, 100, 101])
  const second = requestsOf(prefill)[1]
  assert.deepEqual(second?.token_ids, [...tokens, 100, 101])
  assert.deepEqual(second?.stop_conditions, { max_tokens: 1 })
  const last = workers.flatMap(requestsOf).find((request) => request.token_ids.length > tokens.length)
  assert.deepEqual(last?.token_ids, [...tokens, 100, 101])
  assert.deepEqual(last?.stop_conditions, { max_tokens: 2 })
  assert.equal(workers.filter((worker) => worker.seen.length === 1).length, 2, 'the lost worker is not asked again')
  assert.equal(service.workers.router?.bookingCount, 0)
})

test('blocks go only where they can: a required domain binds the decode stage, an unreachable prefill worker is not chosen', async () => {
  const zone = (value: string): JsonObject => ({ topology_domains: { zone: value }, kv_transfer_domain: 'zone', kv_transfer_enforcement: 'required' })
  const stranded = await prefillWorker(pulls, zone('nowhere'))
  const near = await prefillWorker(pulls, zone('za'))
  const here = await decodeWorker(decodes, { topology_domains: { zone: 'za' } })
  const there = await decodeWorker(decodes, { topology_domains: { zone: 'zb' } })
  await small.router(twoStages)
  for (let round = 0; round < 6; round += 1) await small.call(endpoint, { token_ids: [round] })
  assert.equal(stranded.seen.length, 0)
  assert.equal(near.seen.length, 6)
  assert.equal(there.seen.length, 0)
  assert.deepEqual(requestsOf(here)[0]?.routing['routing_constraints'], { required_taints: ['dynamo.topology/zone=za'] })
})

test('a rule that cannot be applied leaves the request unconstrained, with a warning', async () => {
  await prefillWorker(pulls, { topology_domains: { zone: 'za' }, kv_transfer_domain: 'zone' })
  const decode = await decodeWorker()
  const { metrics } = await small.router(twoStages)
  assert.deepEqual(tokensOf(await small.call(endpoint, ask)), [100, 101, 102, 103])
  assert.equal(requestsOf(decode)[0]?.routing['routing_constraints'], undefined)
  assert.match(await metrics.text(), /warmpath_kv_transfer_unconstrained_total 1/)
  assert.ok(small.lines.some((line) => line.includes('unconstrained')))
})

test('a query names both stages and runs neither', async () => {
  const prefill = await prefillWorker(pulls)
  const decode = await decodeWorker()
  await small.router(twoStages)
  const [value] = await small.call(endpoint, { token_ids: tokens, annotations: ['query_instance_id:'] })
  const worker = (value as { routing_data: { worker_id: { prefill_worker_id: bigint; decode_worker_id: bigint } } }).routing_data.worker_id
  assert.equal(worker.prefill_worker_id, prefill.id)
  assert.equal(worker.decode_worker_id, decode.id)
  assert.equal(prefill.seen.length + decode.seen.length, 0)
})

test('pins work in both stages', async () => {
  const prefills = [await prefillWorker(pulls), await prefillWorker(pulls)]
  const decoders = [await decodeWorker(), await decodeWorker()]
  await small.router(twoStages)
  for (let round = 0; round < 4; round += 1) {
    await small.call(endpoint, { token_ids: [round], routing: { prefill_worker_id: prefills[1]?.id ?? 0n, decode_worker_id: decoders[0]?.id ?? 0n } })
  }
  assert.deepEqual([...prefills, ...decoders].map((worker) => worker.seen.length), [0, 4, 4, 0])
  assert.equal((await failureOf(small.call(endpoint, { token_ids: [1], routing: { prefill_worker_id: 12345 } }))).class, 'InvalidRequest')
})

test("SGLang's decode workers are not left alone with a prompt: without prefill workers the answer is an error", async () => {
  const prefill = await prefillWorker(gives({ token_ids: [], disaggregated_params: { bootstrap_host: 'p', bootstrap_port: 7, bootstrap_room: 5 } }))
  const decode = await decodeWorker()
  await small.router(twoStages)
  await small.call(endpoint, ask)
  await prefill.leave()
  await until('the prefill worker is gone', async () => small.call(endpoint, ask).then(() => false, (error: Error) => /no endpoints available/.test(error.message)))
  assert.ok(requestsOf(decode).every((request) => request.bootstrap_info !== undefined))
})

test('a registered model of two stages needs no others: frontends take it for an aggregated worker', async () => {
  await prefillWorker(pulls)
  await decodeWorker()
  await small.router([...twoStages, '--register-model', 'whole'])
  const cards = (): JsonObject[] => [...small.store.view('v1/mdc').snapshot('dynamo/router').values()]
  await until('the card is there', () => cards().length === 1)
  const card = cards()[0]?.['card_json'] as JsonObject
  assert.deepEqual([card['display_name'], card['worker_type'], card['needs']], ['whole', 'aggregated', []])
})

test('a zone whose decode worker is lost: prefill and decode in the other one, in every round', async () => {
  const zone = (value: string): JsonObject => ({ topology_domains: { zone: value }, kv_transfer_domain: 'zone', kv_transfer_enforcement: 'required' })
  const breaks: RequestHandler = (_request, response) => { response.begin(); response.abort() }
  await prefillWorker(pulls, zone('za'))
  const near = await prefillWorker(pulls, zone('zb'))
  await decodeWorker(breaks, zone('za'))
  const sound = await decodeWorker(decodes, zone('zb'))
  await small.router(twoStages)
  for (let round = 0; round < 8; round += 1) assert.equal((await small.call(endpoint, { token_ids: [round], stop_conditions: { max_tokens: 4 } })).length, 4)
  assert.equal(sound.seen.length, 8)
  assert.equal(near.seen.length, 8)
})

test('a hand-over that fails with a single decode worker: the next leg there has an id of its own', async () => {
  let first = true
  const bootstrap = { disaggregated_endpoint: { bootstrap_host: 'h', bootstrap_port: 1 } }
  const either: RequestHandler = (request, response) => {
    response.writeItem(encodeData({ token_ids: [] }, request.codec))
    if (!first) return void response.end()
    first = false
    setTimeout(() => {
      response.writeItem(encodeFailureItem({ class: 'Internal', reason: 'backend.unknown', message: 'late' }, request.codec))
      response.end()
    }, 20)
  }
  const prefills = [await prefillWorker(either, bootstrap), await prefillWorker(either, bootstrap)]
  const running = new Set<string>()
  const decode = await decodeWorker((request, response) => {
    // As engines do: an id that runs is refused, and ending takes its time.
    if (running.has(request.id)) return void response.fail({ class: 'Internal', reason: 'backend.unknown', message: `request ${request.id} runs already` })
    running.add(request.id)
    if (running.size > 1) return void decodes(request, response)
    response.begin()
  })
  const { service } = await small.router(twoStages)
  assert.deepEqual(tokensOf(await small.call(endpoint, ask, { id: 'request-1' })), [100, 101, 102, 103])
  assert.deepEqual(decode.seen.map(({ id }) => id), ['request-1', 'request-1-1'])
  assert.deepEqual(prefills.flatMap(({ seen }) => seen.map(({ id }) => id)), ['request-1', 'request-1'])
  assert.equal(service.workers.router?.bookingCount, 0)
})

for (const [name, end] of [
  ['dies', (_request, response) => response.abort()],
  ['raises', (request, response) => {
    response.writeItem(encodeFailureItem({ class: 'Internal', reason: 'backend.unknown', message: 'late' }, request.codec))
    response.end()
  }],
] as readonly (readonly [string, RequestHandler])[]) {
  test(`a prefill worker that ${name} when only the held last output is missing: the answer goes on where the caller is`, async () => {
    let first = true
    const either: RequestHandler = (request, response) => {
      response.writeItem(encodeData({ token_ids: [] }, request.codec))
      if (!first) return void response.end()
      first = false
      void until('the decode worker is done', () => outputs === 3).then(() => setTimeout(() => end(request, response), 20))
    }
    let outputs = 0
    const bootstrap = { disaggregated_endpoint: { bootstrap_host: 'h', bootstrap_port: 1 } }
    for (let at = 0; at < 2; at += 1) await prefillWorker(either, bootstrap)
    const decode = await decodeWorker()
    const { service } = await small.router([...twoStages, '--migration-limit', '3'])
    const values = await small.call(endpoint, ask, { onValue: () => { outputs += 1 } })
    assert.deepEqual(tokensOf(values), [100, 101, 102, 100])
    const [, second] = requestsOf(decode)
    assert.deepEqual([second?.token_ids.slice(tokens.length), second?.stop_conditions], [[100, 101, 102], { max_tokens: 1 }])
    assert.equal(service.workers.router?.bookingCount, 0)
  })
}
