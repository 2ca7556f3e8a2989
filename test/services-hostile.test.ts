/** Goal: no body that a caller can send ends a service, gives 500 or an answer without reason. Method: good bodies with one thing wrong, thousands of them. */
import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { test } from 'node:test'
import fc from 'fast-check'
import { stringifyJson } from '../src/dynamo/wire/json.ts'
import { singleClassProfile } from '../src/queue/policy-profile.ts'
import { defaultRouterSettings } from '../src/router/settings.ts'
import type { Answer } from '../src/services/answer.ts'
import { startServiceServer } from '../src/services/http-server.ts'
import { IndexerService, indexerRoutes } from '../src/services/indexer/indexer-service.ts'
import { Routes, type Route } from '../src/services/routes.ts'
import { selectionRoutes } from '../src/services/selection/selection-routes.ts'
import { SelectionService } from '../src/services/selection/selection-service.ts'
import { slotRoutes, SlotTracker } from '../src/services/slots/slot-tracker.ts'
import { systemClock, systemRandom } from '../src/system-ports.ts'

type Body = Record<string, unknown>
interface Target { readonly method: string; readonly path: string; readonly body: Body }

const target = (path: string, body: Body, method = 'POST'): Target => ({ method, path, body })
const prompt = { token_ids: [1, 2, 3, 4, 5], lora_name: 'l', cache_salt: 's', is_eagle: false, block_mm_infos: [{ mm_objects: [{ mm_hash: 7, offsets: [[0, 2]] }] }] }
const hashes = { block_hashes: [1, -(2n ** 60n)], sequence_hashes: [3, 4], isl_tokens: 9 }
const choice = {
  model_name: 'm', routing_group: 'g', selection_id: 'a', router_config_override: { overlap_score_credit: 1, router_temperature: 0, track_prefill_tokens: true }, expected_output_tokens: 5,
  priority_jump: 1.5, strict_priority: 1, session_id: 's', session_context: { session_id: 's', session_final: true, input_trigger: 'other', agent_headers: { h: ['v'] } },
  affinity_target: { worker_id: 1, dp_rank: null }, pinned_worker: { worker_id: 1, dp_rank: 0 }, allowed_worker_ids: [1, 2], advisory: true,
  routing_constraints: { required_taints: ['a'], preferred_taints: { a: 0.5 } },
}
const registration = {
  worker_id: 1, model_name: 'm', routing_group: 'g', endpoint: 'http://w', kv_events_endpoints: { 0: 'tcp://127.0.0.1:5' }, replay_endpoint: 'tcp://127.0.0.1:6', block_size: 4,
  data_parallel_start_rank: 0, data_parallel_size: 1, max_num_batched_tokens: 100, total_kv_blocks: 10, stable_routing_id: 'x', is_eagle: false, taints: ['a'], topology_domains: { zone: 'z' },
  kv_transfer_domain: 'zone', kv_transfer_enforcement: 'required', kv_transfer_preferred_weight: 0.5, router_hint_worker_type: 'decode', router_hint_source_control_endpoints: { 0: 'tcp://w' },
}
const selectionTargets = [
  target('/workers', registration), target('/workers/1', registration, 'PATCH'), target('/select', { ...choice, ...prompt }), target('/select_and_reserve', { ...choice, ...hashes, selection_id: 'b' }),
  target('/reservations', { model_name: 'm', routing_group: 'g', selection_id: 'c', worker_id: 1, dp_rank: 0, ...prompt, effective_prefill_tokens: 2, track_prefill_tokens: true, expected_output_tokens: 3 }),
  target('/reservations/c/output_block', { decay_fraction: 0.5 }), target('/potential_loads', { model_name: 'm', routing_group: 'g', ...prompt }), target('/overlap_scores', { model_name: 'm', routing_group: 'g', ...hashes }),
]
const slotTargets = [
  target('/register', { worker_id: 1, model_name: 'm', routing_group: 'g', block_size: 4, dp_start: 0, dp_size: 2 }), target('/unregister', { worker_id: 1, model_name: 'm', routing_group: 'g' }),
  target('/add', { model_name: 'm', routing_group: 'g', request_id: 'r', worker_id: 1, dp_rank: 0, sequence_hashes: [1, -2], new_isl_tokens: 8 }),
  target('/prefill_complete', { model_name: 'm', routing_group: 'g', request_id: 'r' }), target('/free', { model_name: 'm', routing_group: 'g', request_id: 'r' }),
  target('/potential_loads', { model_name: 'm', routing_group: 'g', sequence_hashes: [1], new_isl_tokens: 8 }),
]
const indexerTargets = [
  target('/register', { instance_id: 1, endpoint: 'tcp://127.0.0.1:5', model_name: 'm', routing_group: 'g', block_size: 4, dp_rank: 0, replay_endpoint: 'tcp://127.0.0.1:6' }),
  target('/unregister', { instance_id: 1, model_name: 'm', routing_group: 'g', dp_rank: 0 }), target('/query', { model_name: 'm', routing_group: 'g', token_ids: [1, 2, 3, 4, 5], lora_name: 'l', cache_salt: 's' }),
  target('/query_by_hash', { model_name: 'm', routing_group: 'g', block_hashes: [1, 2] }), target('/register_peer', { url: 'http://p' }), target('/deregister_peer', { url: 'http://p' }),
]

function servicesUnderTest(): { readonly routes: Routes; readonly targets: readonly Target[] }[] {
  let ids = 0
  const selection = (isQueued: boolean): Route[] => selectionRoutes(new SelectionService({
    clock: systemClock(), random: systemRandom(), affinityTtlMs: 60_000, replication: null, events: null, newId: () => `made-${ids += 1}`,
    settingsFor: (_key, blockSize, isEagle) => ({
      ...defaultRouterSettings, blockSize, isEagle, useKvEvents: false,
      ...(isQueued ? { queue: { profile: singleClassProfile(0), overlapRefreshAfterSeconds: 10, timeoutSeconds: null } } : {}),
    }),
    pending: { ttlMs: 60_000, entriesMax: 100, bytesMax: 1_000_000 }, busy: { decode: 0.5, prefill: 0.5 },
  }), null)
  const slots = new SlotTracker({ nowMs: () => 0, expirySeconds: 300, replication: null })
  const indexer = new IndexerService({ listen: () => ({ status: 'active', lastError: null, close: () => undefined }) })
  return [
    { routes: new Routes(selection(false)), targets: selectionTargets }, { routes: new Routes(selection(true)), targets: selectionTargets },
    { routes: new Routes(slotRoutes(slots, null)), targets: slotTargets }, { routes: new Routes(indexerRoutes(indexer)), targets: indexerTargets },
  ]
}

/** Paths of all values inside a body. */
function pathsOf(value: unknown, path: readonly (string | number)[] = []): (readonly (string | number)[])[] {
  if (typeof value !== 'object' || value === null) return [path]
  return [path, ...Object.entries(value).flatMap(([key, item]) => pathsOf(item, [...path, Array.isArray(value) ? Number(key) : key]))]
}

/** The body with something else at a path. */
function replaced(value: unknown, [first, ...rest]: readonly (string | number)[], by: unknown): unknown {
  if (first === undefined) return by
  if (Array.isArray(value)) return value.map((item: unknown, index) => (index === first ? replaced(item, rest, by) : item))
  return { ...(value as Body), [first]: replaced((value as Body)[first], rest, by) }
}

const nested = (depth: number): unknown => Array.from({ length: depth }).reduce<unknown>((inner) => [inner], 1)
const hostile = fc.oneof(
  fc.constantFrom<unknown>(
    null, true, false, 0, -1, 0.5, 1e308, -1e308, 2 ** 32, 2 ** 53, -(2 ** 53), 2n ** 63n, 2n ** 64n - 1n, 2n ** 64n, -(2n ** 63n), 2n ** 200n, '', 'x', '\u0000', '__proto__', 'constructor', '😀'.repeat(50),
    'x'.repeat(100_000), [], {}, [null], [[]], { length: 3 }, { __proto__: null, toString: 1 }, [1, 'a', null, 2n ** 70n], nested(500), Array.from({ length: 5000 }, (_, index) => index),
    Object.fromEntries(Array.from({ length: 500 }, (_, index) => [`k${index}`, index])),
  ),
  fc.jsonValue({ maxDepth: 3 }), fc.bigInt(), fc.double({ noNaN: true, noDefaultInfinity: true }), fc.string(),
)

interface Shot { readonly service: number; readonly at: number; readonly where: number; readonly by: unknown; readonly kind: 'one' | 'extra' | 'missing' | 'whole' | 'cut' }
const shots = fc.array(fc.record<Shot>({
  service: fc.nat(3), at: fc.nat(20), where: fc.nat(200), by: hostile, kind: fc.constantFrom('one', 'one', 'one', 'one', 'extra', 'missing', 'whole', 'cut'),
}), { minLength: 20, maxLength: 20 })

function textOf({ body }: Target, { where, by, kind }: Shot): { readonly text: string; readonly field: string | null } {
  const paths = pathsOf(body)
  const path = paths[where % paths.length]!
  const whole = stringifyJson(body)
  switch (kind) {
    case 'one': return { text: stringifyJson(replaced(body, path, by)), field: typeof path[0] === 'string' ? path[0] : null }
    case 'extra': return { text: stringifyJson({ ...body, [`unknown_${where}`]: by }), field: null }
    case 'missing': return { text: stringifyJson(Object.fromEntries(Object.entries(body).filter((_, index) => index !== where % Object.keys(body).length))), field: null }
    case 'whole': return { text: stringifyJson(by), field: null }
    case 'cut': return { text: whole.slice(0, where % whole.length), field: null }
  }
}

async function answerOf(routes: Routes, method: string, path: string, body: string): Promise<Answer | 'waits'> {
  const gone = new AbortController()
  const reply = routes.answer({ method, path, query: new Map(), headers: { 'content-type': 'application/json' }, body, signal: gone.signal })
  if (!(reply instanceof Promise)) return reply
  const first = await Promise.race([reply, new Promise<'waits'>((resolve) => { setImmediate(() => resolve('waits')) })])
  if (first === 'waits') {
    gone.abort()
    await reply.catch(() => undefined)
  }
  return first
}

test('bodies with something wrong are answered with what it is, and the services go on', async () => {
  const services = servicesUnderTest()
  const statuses = new Map<number | 'waits', number>()
  await fc.assert(fc.asyncProperty(shots, async (round) => {
    for (const shot of round) {
      const { routes, targets } = services[shot.service]!
      const aim = targets[shot.at % targets.length]!
      const { text, field } = textOf(aim, shot)
      const answer = await answerOf(routes, aim.method, aim.path, text)
      const status = answer === 'waits' ? answer : answer.status
      statuses.set(status, (statuses.get(status) ?? 0) + 1)
      if (answer === 'waits' || answer.status < 400) continue
      const told = `${aim.path} ${text.slice(0, 200)}: ${answer.status} ${stringifyJson(answer.body).slice(0, 300)}`
      assert.ok(answer.status < 500 || answer.status === 503, told)
      const { error } = answer.body as { error?: unknown }
      assert.ok(typeof error === 'string' && error !== '' && error.length < 1000, told)
      if (answer.status === 422 && field !== null) assert.ok(error.includes(field), told)
    }
  }), { numRuns: 250, includeErrorInReport: true, endOnFailure: true })
  for (const status of [200, 201, 400, 404, 409, 422]) assert.ok((statuses.get(status) ?? 0) > 0, `no shot was answered with ${status}: ${JSON.stringify([...statuses])}`)
  for (const { routes, targets } of services) {
    const health = await answerOf(routes, 'GET', '/health', '')
    assert.ok(health !== 'waits' && health.status === 200)
    const first = await answerOf(routes, 'POST', targets[0]!.path, stringifyJson({ ...targets[0]!.body, model_name: 'another', worker_id: 77, instance_id: 77 }))
    assert.ok(first !== 'waits' && first.status === 201, stringifyJson(first))
  }
})

test('over HTTP: too large, too deep, cut short, not JSON, no text at all; the service goes on', async (context) => {
  const service = servicesUnderTest()[0]!
  const errors: string[] = []
  const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: (_fields: unknown, text: string) => { errors.push(text) } }
  const server = await startServiceServer({ host: '127.0.0.1', port: 0, log, routes: service.routes })
  context.after(() => server.close(0))
  const url = `http://127.0.0.1:${server.port}`
  const post = async (body: string | Uint8Array, type = 'application/json', path = '/select'): Promise<[number, string]> => {
    const response = await fetch(`${url}${path}`, { method: 'POST', headers: { 'content-type': type }, body: body as string })
    return [response.status, await response.text()]
  }
  for (const [name, expected, body, type] of [
    ['deep', 400, `{"token_ids":${'['.repeat(1_000_000)}`, undefined], ['deep and closed', 400, `{"token_ids":${'['.repeat(2000)}${']'.repeat(2000)}}`, undefined],
    ['not text', 400, Uint8Array.from([0xff, 0xfe, 0x00]), undefined], ['empty', 400, '', undefined], ['a list', 422, '[]', undefined], ['a form', 415, 'a=b', 'application/x-www-form-urlencoded'],
    ['a large number', 422, `{"token_ids":[${'9'.repeat(100_000)}]}`, undefined], ['a long id', 422, `{"model_name":"${'m'.repeat(1_000_000)}","token_ids":[1]}`, undefined],
  ] as const) {
    const [status, text] = await post(body, type)
    assert.equal(status, expected, `${name}: ${text.slice(0, 200)}`)
    assert.match(text, /^\{"error":".+"\}$/, name)
    assert.ok(text.length < 1000, name)
  }
  const tooLarge = await post('x'.repeat(9 * 1024 * 1024)).then(([status]) => status, () => 413)
  assert.equal(tooLarge, 413)
  for (const path of ['/reservations/%zz', '/workers/-1', `/workers/${'9'.repeat(500)}`, `/${'x/'.repeat(500)}`, '/select/../select']) {
    const { status } = await fetch(`${url}${path}`, { method: 'DELETE' })
    assert.ok(status >= 400 && status < 500, `${path}: ${status}`)
  }
  const socket = connect(server.port, '127.0.0.1')
  socket.on('error', () => undefined)
  socket.end('POST /select HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\ncontent-type: application/json\r\n\r\n{"model')
  await new Promise((resolve) => { socket.once('close', resolve).resume() })
  assert.equal((await fetch(`${url}/health`)).status, 200)
  assert.deepEqual(errors, [])
})
