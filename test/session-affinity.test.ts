/** Goal: requests of a session stay with their worker, in every stage. Method: scripted workers on loopback, requests as frontends send them. */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { decodeBody, type WireValue } from '../src/dynamo/wire/body.ts'
import { encodeData } from '../src/dynamo/wire/items.ts'
import type { JsonObject, RequestHandler } from '../src/ports.ts'
import { SmallDeployment, failureOf, plainCard, prefillEndpoint, type ScriptedWorker } from './standalone-kit.ts'
import { until } from './until.ts'

let small: SmallDeployment
beforeEach(() => { small = new SmallDeployment() })
afterEach(() => small.close())

const endpoint = 'dynamo.router.generate'
const affinity = ['--router-session-affinity-ttl-secs', '60'] as const
const soft = [...affinity, '--router-session-affinity-mode', 'soft'] as const
// Without cached prefixes in play, requests would go round.
const mode = ['--no-router-kv-events', '--router-kv-overlap-score-credit', '0'] as const

const ask = (sessionId: string | null, more: { readonly [key: string]: WireValue } = {}, context: JsonObject = {}): { readonly [key: string]: WireValue } =>
  ({ token_ids: Array.from({ length: 40 }, (_, index) => index), ...(sessionId === null ? {} : { agent_context: { session_id: sessionId, ...context } as WireValue }), ...more })

const answers: RequestHandler = (request, response) => {
  const isPrefill = (decodeBody(request.body, request.codec) as { routing?: { prefill_dp_rank?: number } }).routing?.prefill_dp_rank !== undefined
  response.writeItem(encodeData({ token_ids: [7], finish_reason: 'length', ...(isPrefill ? { disaggregated_params: { kv: 1 } } : {}) }, request.codec))
  response.end()
}
const workers = (count: number, handler: RequestHandler = answers, card: JsonObject = plainCard()): Promise<ScriptedWorker[]> =>
  Promise.all(Array.from({ length: count }, () => small.worker(handler, { card })))
const used = (all: readonly ScriptedWorker[]): ScriptedWorker[] => all.filter(({ seen }) => seen.length > 0)

const several = async (count: number, each: (index: number) => Promise<unknown>): Promise<void> => { for (let index = 0; index < count; index += 1) await each(index) }

test('one session, one worker and rank; without a session, all of them', async () => {
  const all = await workers(4, answers, plainCard({}, { data_parallel_size: 2 }))
  const { metrics, service } = await small.router([...mode, ...affinity])
  await several(12, () => small.call(endpoint, ask('s')))
  assert.equal(used(all).length, 1)
  const ranks = new Set(used(all)[0]?.seen.map(({ body, codec }) => (decodeBody(body, codec) as { routing: { dp_rank: number } }).routing.dp_rank))
  assert.equal(ranks.size, 1)
  await several(40, () => small.call(endpoint, ask(null)))
  assert.ok(used(all).length > 1)
  const text = await metrics.text()
  assert.match(text, /warmpath_session_affinity_total\{stage="decode",outcome="bound"\} 1/)
  assert.match(text, /warmpath_session_affinity_total\{stage="decode",outcome="reused"\} 11/)
  assert.equal(service.workers.affinity?.table.size, 1)
})

test('the name of a session also comes as metadata', async () => {
  const all = await workers(4)
  await small.router([...mode, ...affinity])
  await several(10, () => small.call(endpoint, ask(null), { metadata: { 'dynamo.llm.session_affinity': 's' } }))
  assert.equal(used(all).length, 1)
})

test('concurrent requests of a new session go together; each stage has its own binding', async () => {
  const decoders = await workers(4, answers, plainCard({ worker_type: 'decode', needs: [['prefill']] }))
  const prefills = await Promise.all(Array.from({ length: 4 }, () => small.worker(answers, { endpoint: prefillEndpoint, card: plainCard({ worker_type: 'prefill', needs: [['decode']], model_type: '' }) })))
  const { service } = await small.router([...mode, ...affinity, '--prefill-endpoint', 'dynamo.prefill.generate'])
  await Promise.all(Array.from({ length: 16 }, () => small.call(endpoint, ask('s'))))
  assert.equal(used(decoders).length, 1)
  assert.equal(used(prefills).length, 1)
  await several(20, (index) => small.call(endpoint, ask(`other-${index}`)))
  assert.ok(used(decoders).length > 1 && used(prefills).length > 1)
  assert.equal(service.prefill?.affinity?.table.size, 21)
})

test('requests that wait for the first of their session leave with it, or go on when it is cancelled', async () => {
  const all = await workers(2, (request, response) => { open.push(() => void answers(request, response)) })
  const open: (() => void)[] = []
  const { metrics } = await small.router([...mode, ...affinity, '--router-queue-threshold', '0'])
  // Both workers have prompts to compute: the first request of the session has to wait for one of them.
  const busy = [small.call(endpoint, ask(null)), small.call(endpoint, ask(null))]
  await until('both are busy', () => open.length === 2)
  const leaves = new AbortController()
  const first = small.call(endpoint, ask('s'), { signal: leaves.signal })
  const rest = [1, 2, 3].map(() => small.call(endpoint, ask('s')))
  await until('three wait for the first', async () => (await metrics.text()).includes('outcome="waited"} 3'))
  leaves.abort()
  await assert.rejects(first)
  for (const each of open.splice(0)) each()
  let over = false
  const answered = Promise.all([...busy, ...rest]).then(() => { over = true })
  await until('all are answered', () => {
    for (const each of open.splice(0)) each()
    return over
  })
  await answered
  const ofSession = all.filter(({ seen }) => seen.some(({ body, codec }) => (decodeBody(body, codec) as { agent_context?: unknown }).agent_context !== undefined))
  assert.equal(ofSession.length, 1)
})

test('siblings share the worker of their group, their parent keeps its own binding', async () => {
  await workers(4)
  const { service } = await small.router([...mode, ...affinity])
  await small.call(endpoint, ask('parent'))
  await several(6, (index) => small.call(endpoint, ask(`child-${index}`, {}, { parent_session_id: 'parent' })))
  assert.equal(service.workers.affinity?.table.size, 2)
})

test('what a session may not ask for is refused by name', async () => {
  const [one, other] = await workers(2)
  await small.router([...mode, ...affinity])
  assert.match((await failureOf(small.call(endpoint, ask('é'.repeat(129))))).message, /258 bytes, expected at most 256/)
  const rank = await failureOf(small.call(endpoint, ask('s', { routing: { dp_rank: 0 } })))
  assert.equal(rank.class, 'InvalidRequest')
  assert.match(rank.message, /dp_rank.*without a worker id/)
  await small.call(endpoint, ask('s', { routing: { backend_instance_id: one!.id } }))
  const conflict = await failureOf(small.call(endpoint, ask('s', { routing: { backend_instance_id: other!.id } })))
  assert.equal(conflict.class, 'InvalidRequest')
  assert.match(conflict.message, new RegExp(`bound to worker ${one!.id}, not ${other!.id}`))
  assert.equal(other!.seen.length, 0)
})

test('a query reads the binding and makes none', async () => {
  const all = await workers(4)
  const { service } = await small.router([...mode, ...affinity])
  const query = { annotations: ['query_instance_id:'] }
  await several(3, () => small.call(endpoint, ask('s', query)))
  assert.equal(service.workers.affinity?.table.size, 0)
  await small.call(endpoint, ask('s'))
  const bound = used(all)[0]?.id
  await several(8, async () => {
    const [first] = await small.call(endpoint, ask('s', query))
    assert.equal((first as { routing_data: { worker_id: { decode_worker_id: bigint } } }).routing_data.worker_id.decode_worker_id, bound)
  })
})

for (const [name, flags] of [['hard', affinity], ['soft', soft]] as const) {
  test(`${name}: a session whose worker has gone, or fails, goes elsewhere and stays there`, async () => {
    let refuses: bigint | null = null
    const all: ScriptedWorker[] = []
    for (let index = 0; index < 3; index += 1) {
      const worker: ScriptedWorker = await small.worker((request, response) => {
        if (refuses === worker.id) response.abort()
        else return answers(request, response)
      })
      all.push(worker)
    }
    const { service } = await small.router([...mode, ...flags])
    await several(3, () => small.call(endpoint, ask('s')))
    const [first] = used(all)
    refuses = first!.id
    await several(5, () => small.call(endpoint, ask('s')))
    const second = used(all).find((worker) => worker !== first)
    assert.equal(used(all).length, 2)
    assert.equal(second?.seen.length, 5)
    await second!.leave()
    await until('the router has seen it go', () => service.workers.router?.worker(second!.id) === undefined)
    refuses = null
    await several(3, () => small.call(endpoint, ask('s')))
    assert.equal(second?.seen.length, 5)
  })
}

for (const [name, flags] of [['hard', affinity], ['soft', soft]] as const) {
  test(`${name}: where the bound worker is overloaded ${name === 'hard' ? 'the request is refused' : 'another is taken'}`, async () => {
    const held: (() => void)[] = []
    const all = await workers(2, (request, response) => { held.push(() => void answers(request, response)) })
    await small.router([...mode, ...flags, '--active-prefill-tokens-threshold', '30'])
    const first = small.call(endpoint, ask('s'))
    await until('it runs', () => held.length === 1)
    const second = small.call(endpoint, ask('s'))
    if (name === 'hard') assert.equal((await failureOf(second)).class, 'CapacityExhausted')
    else {
      await until('the other one runs', () => held.length === 2)
      assert.deepEqual(all.map(({ seen }) => seen.length), [1, 1])
    }
    for (const each of held) each()
    await Promise.all([first, ...(name === 'soft' ? [second] : [])])
  })
}

test('a session that was idle for its time is free again', async () => {
  await workers(2)
  const { service } = await small.router([...mode, '--router-session-affinity-ttl-secs', '1'])
  await small.call(endpoint, ask('s'))
  assert.equal(service.workers.affinity?.table.size, 1)
  await until('its time is over', () => {
    service.workers.tick()
    return service.workers.affinity?.table.size === 0
  })
})
