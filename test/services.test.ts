/** Goal: the services answer over HTTP as the recorded ones, follow engines and tell replicas. Method: processes' parts on loopback ports. */
import { encode } from '@msgpack/msgpack'
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { test, type TestContext } from 'node:test'
import { isSafeNumber, parse } from 'lossless-json'
import { parse as parseYaml } from 'yaml'
import { readPolicyProfiles } from '../src/config/policy-profiles.ts'
import { ZmqLibrary } from '../src/dynamo/event-plane/zmq-library.ts'
import { stringifyJson } from '../src/dynamo/wire/json.ts'
import { difference } from '../src/golden/json-compare.ts'
import { singleClassProfile, type PolicyProfile, type QueuePolicy } from '../src/queue/policy-profile.ts'
import type { RouterSettings } from '../src/router/contract.ts'
import { defaultRouterSettings } from '../src/router/settings.ts'
import { createFeedStats } from '../src/services/engine-feed.ts'
import { EngineListener, EngineListeners } from '../src/services/engine-listeners.ts'
import { startServiceServer } from '../src/services/http-server.ts'
import { IndexerService, indexerRoutes } from '../src/services/indexer/indexer-service.ts'
import { readPeerDump } from '../src/services/peer-dump.ts'
import { ReplicaMesh } from '../src/services/replica-mesh.ts'
import { Routes, type Route } from '../src/services/routes.ts'
import { selectionRoutes } from '../src/services/selection/selection-routes.ts'
import { SelectionService } from '../src/services/selection/selection-service.ts'
import { slotRoutes, SlotTracker } from '../src/services/slots/slot-tracker.ts'
import { systemClock, systemRandom } from '../src/system-ports.ts'
import { fixturePath } from './repo-root.ts'
import { until } from './until.ts'

const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined }
const library = new ZmqLibrary(1)

const lossless = (text: string): unknown => parse(text, undefined, (number) => (/^-?\d+$/.test(number) && !isSafeNumber(number) ? BigInt(number) : Number(number)))

interface Reply { readonly status: number; readonly body: unknown }
type Call = (method: string, path: string, body?: unknown, headers?: Readonly<Record<string, string>>) => Promise<Reply>

async function serve(context: TestContext, routes: readonly Route[]): Promise<Call & { readonly url: string }> {
  const server = await startServiceServer({ host: '127.0.0.1', port: 0, log, routes: new Routes(routes) })
  context.after(() => server.close(0))
  const url = `http://127.0.0.1:${server.port}`
  const call: Call = async (method, path, body, headers = {}) => {
    const response = await fetch(`${url}${path}`, {
      method, headers: { ...headers, ...(body === undefined ? {} : { 'content-type': 'application/json' }) }, ...(body === undefined ? {} : { body: stringifyJson(body) }),
    })
    const text = await response.text()
    return { status: response.status, body: text === '' ? null : lossless(text) }
  }
  return Object.assign(call, { url })
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise<void>((resolve) => server.close(() => resolve()))
  return port
}

function selection(settings: Partial<RouterSettings> = {}, more: Partial<ConstructorParameters<typeof SelectionService>[0]> = {}): SelectionService {
  let ids = 0
  return new SelectionService({
    clock: systemClock(), random: systemRandom(), affinityTtlMs: null, replication: null, events: null, newId: () => `made-${ids += 1}`,
    settingsFor: (_key, blockSize, isEagle) => ({ ...defaultRouterSettings, blockSize, isEagle, useKvEvents: false, ...settings }),
    pending: { ttlMs: 60_000, entriesMax: 100, bytesMax: 1_000_000 }, busy: { decode: null, prefill: null }, ...more,
  })
}

const worker = (id: number, more: object = {}) => ({ worker_id: id, endpoint: `http://w${id}`, block_size: 4, max_num_batched_tokens: 100, ...more })

// ---- Recorded ----------------------------------------------------------------------------------------------------------------

test('recorded calls of the slot tracker are answered the same over HTTP', async (context) => {
  const document = lossless(readFileSync(fixturePath('router', 'slots.json'), 'utf8')) as { cases: { steps: { method: string; path: string; request?: unknown; status: number; response: unknown }[] }[] }
  for (const item of document.cases.slice(0, 12)) {
    const call = await serve(context, slotRoutes(new SlotTracker({ nowMs: () => 0, expirySeconds: 300, replication: null }), null))
    for (const [index, step] of item.steps.entries()) {
      const { status, body } = await call(step.method, step.path, step.request)
      assert.deepEqual([status, difference(step.response, body, true)], [step.status, null], `step ${index} ${step.path}`)
    }
  }
})

interface QueueCase {
  readonly env: Readonly<Record<string, string>>
  readonly max_num_batched_tokens: number
  readonly fill_isl: number
  readonly requests: readonly { readonly label: string; readonly isl: number; readonly priority_jump: number | null; readonly strict_priority: number | null; readonly policy_class: string | null }[]
  readonly after_submit: { readonly pending_count: number; readonly pending_isl_tokens: number; readonly granted_immediately: readonly string[]; readonly rejected: readonly { readonly label: string; readonly status: number; readonly response: unknown }[] }
  readonly releases: readonly { readonly free: string; readonly granted: readonly string[] }[]
  readonly config: string
}

function profileOf(env: QueueCase['env']): PolicyProfile {
  const file = env['DYN_ROUTER_POLICY_CONFIG']
  if (file !== undefined) return readPolicyProfiles('policy', parseYaml(file) as Record<string, unknown>).root ?? singleClassProfile(null)
  const threshold = env['DYN_ROUTER_QUEUE_THRESHOLD']
  return singleClassProfile(threshold === undefined ? null : Number(threshold), (env['DYN_ROUTER_QUEUE_POLICY'] ?? 'fcfs') as QueuePolicy)
}

async function queueScript(context: TestContext, item: QueueCase): Promise<void> {
  // The recording sent requests 20 ms apart; so does this clock.
  let nowMs = 0
  const service = selection(
    { queue: { profile: profileOf(item.env), overlapRefreshAfterSeconds: 10, timeoutSeconds: null } },
    { clock: { nowMs: () => nowMs, epochMs: () => nowMs, setTimer: () => ({ cancel: () => undefined }) } },
  )
  const call = await serve(context, selectionRoutes(service, null))
  await call('POST', '/workers', { ...worker(1), max_num_batched_tokens: item.max_num_batched_tokens })
  let token = 1
  const granted: string[] = []
  const rejected: { label: string; status: number; response: unknown }[] = []
  const open: Promise<unknown>[] = []
  const submit = (request: QueueCase['requests'][number]): void => {
    const headers = request.policy_class === null ? {} : { 'x-dynamo-meta-policy-class': request.policy_class }
    const body = {
      selection_id: request.label, token_ids: Array.from({ length: request.isl }, () => token++),
      ...(request.priority_jump === null ? {} : { priority_jump: request.priority_jump }), ...(request.strict_priority === null ? {} : { strict_priority: request.strict_priority }),
    }
    open.push(call('POST', '/select_and_reserve', body, headers).then(({ status, body: answer }) => {
      if (status === 200) granted.push(request.label)
      else rejected.push({ label: request.label, status, response: answer })
    }))
  }
  const settled = (count: number): Promise<true> => until(`${count} of ${item.config} are answered or wait`, async () => {
    const [{ pending_count: waiting }] = (await call('GET', '/loads')).body as [{ pending_count: number }]
    return granted.length + rejected.length + waiting === count
  })
  submit({ label: 'fill', isl: item.fill_isl, priority_jump: null, strict_priority: null, policy_class: null })
  await settled(1)
  for (const [index, request] of item.requests.entries()) {
    nowMs += 20
    submit(request)
    await settled(index + 2)
  }
  const [report] = (await call('GET', '/loads')).body as [{ pending_count: number; pending_isl_tokens: number }]
  const after = { pending_count: report.pending_count, pending_isl_tokens: report.pending_isl_tokens, granted_immediately: granted.splice(0).slice(1), rejected }
  assert.equal(difference(item.after_submit, after), null, item.config)
  for (const release of item.releases) {
    nowMs += 20
    await call('DELETE', `/reservations/${release.free}`)
    await until(`the release of ${release.free}`, () => granted.length >= release.granted.length)
    assert.deepEqual(granted.splice(0), release.granted, `${item.config}: ${release.free}`)
  }
  service.close()
  await Promise.all(open)
}

test('recorded scripts of waiting requests go the same way over HTTP', async (context) => {
  const document = lossless(readFileSync(fixturePath('router', 'queue.json'), 'utf8')) as { cases: QueueCase[] }
  const seen = new Map<string, number>()
  for (const item of document.cases) {
    const count = (seen.get(item.config) ?? 0) + 1
    seen.set(item.config, count)
    if (count <= 2) await queueScript(context, item)
  }
})

// ---- Beyond the recording ----------------------------------------------------------------------------------------------------

test('what is wrong with a call is told with the original\'s status', async (context) => {
  const service = selection()
  const call = await serve(context, selectionRoutes(service, null))
  const statuses = async (...calls: readonly (readonly [string, string, unknown?])[]): Promise<number[]> => Promise.all(calls.map(async ([method, path, body]) => (await call(method, path, body)).status))
  assert.deepEqual(await statuses(['GET', '/none'], ['PUT', '/workers', {}], ['POST', '/select', {}], ['GET', '/ready'], ['DELETE', '/workers/x'], ['POST', '/workers', []]), [404, 405, 503, 503, 400, 422])
  assert.equal((await fetch(`${call.url}/select`, { method: 'POST', body: '{}' })).status, 415)
  assert.equal((await fetch(`${call.url}/select`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{' })).status, 400)
  const huge = await fetch(`${call.url}/select`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: 'x'.repeat(8 * 1024 * 1024 + 1) }).then(({ status }) => status, () => 413)
  assert.equal(huge, 413)
})

test('a caller that leaves the queue takes its request along', async (context) => {
  const service = selection({ queue: { profile: singleClassProfile(0.5), overlapRefreshAfterSeconds: null, timeoutSeconds: null } })
  const call = await serve(context, selectionRoutes(service, null))
  await call('POST', '/workers', worker(1))
  await call('POST', '/select_and_reserve', { selection_id: 'fill', token_ids: Array.from({ length: 60 }, (_, index) => index) })
  const leave = new AbortController()
  const waiting = fetch(`${call.url}/select_and_reserve`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"selection_id":"gone","token_ids":[1,2,3]}', signal: leave.signal,
  }).catch(() => 'left')
  await until('it waits', () => service.reading.parked === 1)
  leave.abort()
  assert.equal(await waiting, 'left')
  await until('it is gone', () => service.reading.parked === 0 && service.reading.reservations === 1)
  const again = call('POST', '/select_and_reserve', { selection_id: 'gone', token_ids: [1, 2, 3] })
  await until('the next waits', () => service.reading.parked === 1)
  await call('DELETE', '/reservations/fill')
  assert.equal((await again).status, 200)
})

test('a session stays on its worker until that is gone; a second request of a new session waits for the first', async (context) => {
  const service = selection({}, { affinityTtlMs: 60_000 })
  const call = await serve(context, selectionRoutes(service, null))
  for (const id of [1, 2, 3]) await call('POST', '/workers', worker(id))
  const ask = async (id: string): Promise<unknown> => ((await call('POST', '/select_and_reserve', { selection_id: id, session_id: 's', token_ids: [1, 2, 3, 4, 5] })).body as { worker_id: unknown }).worker_id
  const workers = new Set(await Promise.all(['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'].map(ask)))
  assert.equal(workers.size, 1)
  const [bound] = workers
  const { status, body } = await call('POST', '/select_and_reserve', { session_id: 's', token_ids: [1], allowed_worker_ids: [1, 2, 3].filter((id) => id !== bound) })
  assert.equal(status, 400)
  assert.match((body as { error: string }).error, /^session s is bound to worker/)
  await call('DELETE', `/workers/${String(bound)}`)
  assert.notEqual(await ask('later'), bound)
})

test('a rank that a session refuses holds nothing of the prompt; the one it is booked on does', async (context) => {
  const call = await serve(context, selectionRoutes(selection({}, { affinityTtlMs: 60_000 }), null))
  for (const id of [1, 2]) await call('POST', '/workers', worker(id))
  const held = async (token_ids: readonly number[]): Promise<unknown> =>
    ((await call('POST', '/overlap_scores', { token_ids })).body as { workers: { device_blocks: number }[] }).workers.map((row) => row.device_blocks)
  const first = [1, 2, 3, 4]
  await call('POST', '/select_and_reserve', { session_id: 's', token_ids: first, allowed_worker_ids: [1] })
  assert.deepEqual(await held(first), [1, 0])
  const other = [5, 6, 7, 8]
  assert.equal((await call('POST', '/select_and_reserve', { session_id: 's', token_ids: other, allowed_worker_ids: [2] })).status, 400)
  assert.deepEqual(await held(other), [0, 0])
  const later = [9, 10, 11, 12]
  await call('POST', '/select', { selection_id: 'later', session_id: 't', token_ids: later, allowed_worker_ids: [1] })
  await call('POST', '/select_and_reserve', { session_id: 't', token_ids: first, allowed_worker_ids: [2] })
  assert.equal((await call('POST', '/reservations', { selection_id: 'later' })).status, 400)
  assert.deepEqual(await held(later), [0, 0])
})

async function engine(context: TestContext) {
  const { zmq, context: sockets } = await library.load()
  const publisher = new zmq.Publisher({ context: sockets, linger: 0 })
  const router = new zmq.Router({ context: sockets, linger: 0 })
  await publisher.bind('tcp://127.0.0.1:*')
  await router.bind('tcp://127.0.0.1:*')
  context.after(() => { publisher.close(); router.close() })
  const sent: Buffer[] = []
  const batch = (tokens: readonly number[], hashes: readonly number[]): Buffer => {
    sent.push(Buffer.from(encode([0.5, [['BlockStored', hashes, null, tokens, 4]], null])))
    return sent.at(-1)!
  }
  const sequenceOf = (sequence: number): Buffer => {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64BE(BigInt(sequence))
    return bytes
  }
  // Answers questions for what was missed, as vLLM does.
  void (async () => {
    for await (const [peer, , start] of router) {
      for (let at = Number((start as Buffer).readBigUInt64BE()); at < sent.length; at++) await router.send([peer as Buffer, '', 'topic', sequenceOf(at), sent[at]!])
      await router.send([peer as Buffer, '', 'topic', sequenceOf(0), ''])
    }
  })().catch(() => undefined)
  return {
    address: publisher.lastEndpoint as string, replay: router.lastEndpoint as string, batch,
    send: (sequence: number, payload: Buffer) => publisher.send(['', sequenceOf(sequence), payload]),
  }
}

test('engines are followed, what was missed is asked for, and a peer\'s index is read at start', async (context) => {
  const stats = createFeedStats()
  const indexer = new IndexerService({
    listen: (request) => {
      const listener = new EngineListener(request, library, log, stats)
      listener.start()
      return listener
    },
  })
  context.after(() => indexer.close())
  const call = await serve(context, indexerRoutes(indexer))
  const source = await engine(context)
  const missed = source.batch([1, 2, 3, 4], [11])
  assert.ok(missed.length > 0)
  assert.equal((await call('POST', '/register', { instance_id: 5, endpoint: source.address, replay_endpoint: source.replay, model_name: 'm', block_size: 4 })).status, 201)
  const hits = async (tokens: readonly number[]): Promise<unknown> => ((await call('POST', '/query', { model_name: 'm', token_ids: tokens })).body as { scores: unknown }).scores
  let sequence = 1
  await until('both blocks are known', async () => {
    await source.send(sequence++, source.batch([5, 6, 7, 8], [12]))
    return difference({ 5: { 0: 4 } }, await hits([5, 6, 7, 8])) === null
  })
  assert.deepEqual(await hits([1, 2, 3, 4]), { 5: { 0: 4 } }, 'the message before the subscription came by replay')
  assert.equal(stats.lost, 0)
  assert.ok(stats.replayed > 0)
  const copy = new IndexerService({ listen: () => ({ status: 'active', lastError: null, close: () => undefined }) })
  copy.recover(await readPeerDump(['http://127.0.0.1:1', call.url], log, AbortSignal.timeout(5000)) ?? [])
  assert.equal(copy.entryCount, indexer.entryCount)
  const second = await serve(context, indexerRoutes(copy))
  assert.deepEqual((await second('POST', '/query', { model_name: 'm', token_ids: [1, 2, 3, 4] })).body, (await call('POST', '/query', { model_name: 'm', token_ids: [1, 2, 3, 4] })).body)
})

test('the selection service drops what a rank held when its socket changes', async (context) => {
  const listeners = new EngineListeners(library, log)
  context.after(() => listeners.close())
  const service = selection({ useKvEvents: true }, { events: listeners })
  const call = await serve(context, selectionRoutes(service, null))
  const [first, second] = [await engine(context), await engine(context)]
  const registered = await call('POST', '/workers', worker(1))
  assert.deepEqual((registered.body as { not_schedulable_reasons: unknown }).not_schedulable_reasons, ['kv_events endpoint is required for dp_rank 0'])
  await call('PATCH', '/workers/1', { kv_events_endpoint: first.address })
  const held = async (): Promise<unknown> => ((await call('POST', '/overlap_scores', { token_ids: [1, 2, 3, 4] })).body as { workers: { device_blocks: number }[] }).workers[0]?.device_blocks
  let sequence = 0
  await until('the block is known', async () => {
    await first.send(sequence++, first.batch([1, 2, 3, 4], [11]))
    return await held() === 1
  })
  await call('PATCH', '/workers/1', { total_kv_blocks: 9 })
  assert.equal(await held(), 1, 'another property leaves the socket alone')
  await call('PATCH', '/workers/1', { kv_events_endpoint: second.address })
  assert.equal(await held(), 0)
})

test('replicas tell each other of bookings and bindings', async (context) => {
  const ports = [await freePort(), await freePort()]
  const sides = await Promise.all(ports.map(async (port, index) => {
    const mesh = await ReplicaMesh.start(library, port, BigInt(index + 1), log)
    const service = selection({}, { replication: mesh, affinityTtlMs: 60_000 })
    mesh.listen({ onBooking: (key, size, event) => service.applyReplicaEvent(key, size, event), onBinding: (key, update) => service.applyReplicaBinding(key, update) })
    const call = await serve(context, selectionRoutes(service, mesh))
    for (const id of [1, 2]) await call('POST', '/workers', worker(id))
    context.after(() => mesh.close())
    return { call, mesh }
  }))
  const [one, two] = sides as [(typeof sides)[0], (typeof sides)[0]]
  assert.equal((await one.call('POST', '/replica_sync/register_peer', { endpoint: 'nowhere' })).status, 400)
  for (const [side, port] of [[one, ports[1]], [two, ports[0]]] as const) {
    assert.equal((await side.call('POST', '/replica_sync/register_peer', { endpoint: `tcp://127.0.0.1:${port}` })).status, 201)
    assert.equal((await side.call('POST', '/replica_sync/register_peer', { endpoint: `tcp://127.0.0.1:${port}` })).status, 200)
  }
  const loads = async (side: typeof one): Promise<unknown> => (await side.call('GET', '/loads')).body
  let probe = 0
  await until('they hear each other', async () => {
    for (const side of sides) await side.call('POST', '/select_and_reserve', { selection_id: `probe-${probe++}`, token_ids: [1] })
    return one.mesh.stats.received > 0 && two.mesh.stats.received > 0
  })
  for (let id = 0; id < probe; id++) for (const side of sides) await side.call('DELETE', `/reservations/probe-${id}`)
  const { body } = await one.call('POST', '/select_and_reserve', { selection_id: 'shared', session_id: 's', token_ids: [1, 2, 3, 4, 5, 6, 7, 8, 9] })
  await until('the booking is mirrored', async () => difference(await loads(one), await loads(two)) === null && (stringifyJson(await loads(two))).includes('"active_requests":1'))
  assert.equal((await two.call('POST', '/select_and_reserve', { selection_id: 'shared', token_ids: [1] })).status, 409)
  assert.equal((await two.call('POST', '/reservations/shared/prefill_complete')).status, 200)
  await until('its prompt is done at home, too', async () => difference(await loads(one), await loads(two)) === null && (stringifyJson(await loads(one))).includes('"potential_prefill_tokens":0'))
  const there = (await two.call('POST', '/select_and_reserve', { selection_id: 'next', session_id: 's', token_ids: [1] })).body as { worker_id: unknown }
  assert.equal(there.worker_id, (body as { worker_id: unknown }).worker_id, 'the session is bound at the replica')
  assert.equal((await two.call('DELETE', '/reservations/shared')).status, 200)
  await until('it has ended at home', async () => (await one.call('DELETE', '/reservations/shared')).status === 404)
  assert.equal((await one.call('POST', '/replica_sync/deregister_peer', { endpoint: `tcp://127.0.0.1:${ports[1]}` })).status, 200)
  assert.deepEqual((await one.call('GET', '/replica_sync/peers')).body, [])
})
