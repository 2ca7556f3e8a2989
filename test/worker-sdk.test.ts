/** Goal: a worker and a caller made with the SDK, as their programs see each other. Method: two runtimes on memory discovery, TCP and ZMQ over loopback. */
import { readFileSync } from 'node:fs'
import { after, test } from 'node:test'
import assert from 'node:assert/strict'
import { Publisher } from 'zeromq'
import { encode } from '@msgpack/msgpack'
import { callStream } from '../src/dynamo/endpoint.ts'
import { activeSequencesTopic, kvMetricsTopic } from '../src/dynamo/kv-state/load-events.ts'
import { decodeActiveSequences } from '../src/dynamo/wire/active-sequences.ts'
import { failureToWire } from '../src/dynamo/wire/errors.ts'
import { decodeInstanceRecord } from '../src/dynamo/wire/instance-record.ts'
import { decodeKvMetrics } from '../src/dynamo/wire/kv-metrics.ts'
import type { JsonObject, Log } from '../src/ports.ts'
import {
  ArgumentError, CannotConnect, Cancelled, ConnectionTimeout, Context, createRuntime, Disconnected, DynamoError, EngineShutdown, HttpError, InvalidArgument, KvEventPublisher, MemoryDiscovery,
  MemoryStore, ModelInput, ModelType, registerModel, StreamIncomplete, Unknown, unregisterModel, updateModelTaints, WorkerMetricsPublisher, WorkerType, WorkerUnavailable,
  type Client, type DistributedRuntime, type Endpoint, type RuntimeOptions, type WireValue,
} from '../src/worker.ts'
import { fixturePath } from './repo-root.ts'
import { until } from './until.ts'

const log: Log = { debug() {}, info() {}, warn() {}, error() {} }
const runtimes: DistributedRuntime[] = []
after(() => Promise.all(runtimes.map((runtime) => runtime.shutdown({ graceMs: 0, timeoutMs: 0 }))))

async function deployment(count: number, env: RuntimeOptions['env'] = {}): Promise<{ store: MemoryStore; runtimes: DistributedRuntime[] }> {
  const store = new MemoryStore(log)
  const made = await Promise.all(Array.from({ length: count }, () => createRuntime({ env: { DYN_SYSTEM_HOST: '127.0.0.1', ...env }, discovery: new MemoryDiscovery(store), host: '127.0.0.1', log })))
  runtimes.push(...made)
  return { store, runtimes: made }
}

/** A worker runtime and one that calls; `serve` serves at the worker's endpoint and gives a client of it. */
async function pair(env?: RuntimeOptions['env']): Promise<{ worker: DistributedRuntime; caller: DistributedRuntime; endpoint: Endpoint; serve(...args: Parameters<Endpoint['serveEndpoint']>): Promise<Client> }> {
  const [worker, caller] = (await deployment(2, env)).runtimes as [DistributedRuntime, DistributedRuntime]
  const endpoint = worker.endpoint('test.backend.generate')
  return {
    worker, caller, endpoint,
    async serve(...args) {
      void endpoint.serveEndpoint(...args)
      await endpoint.registered()
      const client = await caller.endpoint('test.backend.generate').client()
      await client.waitForInstances({ timeoutMs: 5000 })
      return client
    },
  }
}

async function all(stream: AsyncIterable<WireValue> | Promise<AsyncIterable<WireValue>>): Promise<WireValue[]> {
  const values: WireValue[] = []
  for await (const value of await stream) values.push(value)
  return values
}

const request = { token_ids: [1, 2, 3] }

test('a path has three parts', async () => {
  const { runtimes: [runtime] } = await deployment(1)
  for (const path of ['a.b', 'a.b.c.d', 'a/b/c', 'a..c', '']) assert.throws(() => runtime?.endpoint(path), (error: unknown) => error instanceof ArgumentError && /namespace\.component\.endpoint/.test(error.message), path)
  assert.deepEqual(runtime?.endpoint('dyn://a.b.c').id, { namespace: 'a', component: 'b', endpoint: 'c' })
  assert.equal(runtime?.endpoint('a.b.c'), runtime?.endpoint('dyn://a.b.c'))
})

test('settings that cannot be used are refused by name', async () => {
  await assert.rejects(createRuntime({ env: { DYN_DISCOVERY_BACKEND: 'nonsense' } }), /DYN_DISCOVERY_BACKEND/)
  await assert.rejects(createRuntime({ env: { DYN_DISCOVERY_BACKEND: 'mem', DYN_EVENT_PLANE: 'carrier-pigeon' } }), /DYN_EVENT_PLANE/)
})

test('instances are asked in turn, at random, or by id', async () => {
  const { runtimes: [first, second, caller] } = await deployment(3) as unknown as { runtimes: [DistributedRuntime, DistributedRuntime, DistributedRuntime] }
  for (const runtime of [first, second]) {
    const endpoint = runtime.endpoint('test.backend.generate')
    void endpoint.serveEndpoint(async function* () { yield { id: runtime.instanceId } })
    await endpoint.registered()
  }
  const client = await caller.endpoint('test.backend.generate').client()
  await until('both are known', () => client.instanceIds().length === 2)
  const idOf = async (stream: ReturnType<Client['random']>): Promise<bigint> => ((await all(stream))[0] as { id: bigint }).id
  const turns = [await idOf(client.roundRobin(request)), await idOf(client.roundRobin(request)), await idOf(client.generate(request))]
  assert.equal(turns[0], turns[2])
  assert.notEqual(turns[0], turns[1])
  assert.equal(await idOf(client.direct(request, second.instanceId)), second.instanceId)
  const seen = new Set<bigint>()
  for (let round = 0; round < 40; round += 1) seen.add(await idOf(client.random(request)))
  assert.equal(seen.size, 2)
  await assert.rejects(client.direct(request, 5n), (error: unknown) => error instanceof CannotConnect && error.message === 'instance_id=5 not found for endpoint test/backend/generate')
  const nobody = await caller.endpoint('test.nobody.generate').client()
  await assert.rejects(nobody.roundRobin(request), (error: unknown) => error instanceof DynamoError && error.failure.class === 'Unavailable' && /No workers available for endpoint test\/nobody\/generate/.test(error.message))
  await assert.rejects(nobody.waitForInstances({ timeoutMs: 20 }), /not within 20 ms/)
  await assert.rejects(nobody.waitForInstances({ signal: AbortSignal.timeout(20) }))
})

test('the handler knows id, metadata and trace, and what it calls on its behalf carries them on', async () => {
  const { runtimes: [front, back, caller] } = await deployment(3) as unknown as { runtimes: [DistributedRuntime, DistributedRuntime, DistributedRuntime] }
  const seen: Context[] = []
  const behind = back.endpoint('test.back.generate')
  void behind.serveEndpoint(async function* (_request, context) {
    seen.push(context)
    yield 'deep'
    await context.killedOrStopped()
  })
  const next = await front.endpoint('test.back.generate').client()
  const before = front.endpoint('test.front.generate')
  void before.serveEndpoint(async function* (_request, context) {
    seen.push(context)
    context.metadata['hop'] = '1'
    yield* await next.roundRobin({}, { context })
  })
  await Promise.all([behind.registered(), before.registered(), next.waitForInstances({ timeoutMs: 5000 })])
  const client = await caller.endpoint('test.front.generate').client()
  await client.waitForInstances({ timeoutMs: 5000 })
  const traceparent = `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`
  const context = new Context({ id: 'one', metadata: { tenant: 'blue' }, headers: { traceparent, other: 'x' } })
  const stream = await client.roundRobin(request, { context })
  const items: WireValue[] = []
  for await (const item of stream) {
    items.push(item)
    context.stopGenerating()
  }
  assert.deepEqual(items, ['deep'])
  assert.deepEqual(seen.map(({ id, traceId, parentSpanId }) => [id, traceId, parentSpanId]), Array.from({ length: 2 }, () => ['one', 'a'.repeat(32), 'b'.repeat(16)]))
  assert.deepEqual(seen[1]?.metadata, { tenant: 'blue', hop: '1' })
  await until('the stop came through both', () => seen.every((each) => each.isStopped()))
  assert.deepEqual(seen[0]?.detached('two').metadata, { tenant: 'blue', hop: '1' })
  await assert.rejects(client.roundRobin(request, { context }), Cancelled, 'a stopped context starts nothing')
})

test('stop, kill, abort and leaving reach the handler, each as what it is', async () => {
  const { serve } = await pair()
  let last: Context | null = null
  const client = await serve(async function* (_request, context) {
    last = context
    for (let index = 0; !context.isStopped(); index += 1) {
      yield index
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
  })
  const heard = async (killed: boolean): Promise<void> => {
    await until('the handler hears', () => last?.isStopped() === true)
    assert.equal(last?.isKilled(), killed)
  }
  const stopped = await client.random(request)
  for await (const value of stopped) if (value === 3) stopped.stop()
  await heard(false)
  const killed = await client.random(request)
  await assert.rejects(async () => { for await (const value of killed) if (value === 3) killed.kill() }, Cancelled)
  await heard(true)
  const end = new AbortController()
  await assert.rejects(async () => { for await (const value of await client.random(request, { signal: end.signal })) if (value === 3) end.abort() }, Cancelled)
  await heard(true)
  for await (const value of await client.random(request)) if (value === 3) break
  await heard(true)
})

/** Exceptions of Python by name, and what a TypeScript handler throws in their place. */
const exceptions: Readonly<Record<string, () => Error>> = {
  Cancelled: () => new Cancelled('Cancelled msg'), CannotConnect: () => new CannotConnect('CannotConnect msg'), ConnectionTimeout: () => new ConnectionTimeout('ConnectionTimeout msg'),
  Disconnected: () => new Disconnected('Disconnected msg'), EngineShutdown: () => new EngineShutdown('EngineShutdown msg'), InvalidArgument: () => new InvalidArgument('InvalidArgument msg'),
  StreamIncomplete: () => new StreamIncomplete('StreamIncomplete msg'), Unknown: () => new Unknown('Unknown msg'), WorkerUnavailable: () => new WorkerUnavailable('WorkerUnavailable msg'),
  HttpError: () => new HttpError(422, 'http msg'), TypeError: () => new TypeError('t'),
}

test('errors are written as those of Python workers, and come back by class', async () => {
  const recorded = JSON.parse(readFileSync(fixturePath('wire', 'python-exception-mapping.json'), 'utf8')) as Record<string, [{ error: unknown }]>
  for (const [name, make] of Object.entries(exceptions)) {
    const error = make()
    if (error instanceof DynamoError) assert.deepEqual(failureToWire(error.failure), recorded[name]?.[0].error, name)
  }
  const { serve } = await pair()
  const client = await serve(async function* (body: { name: string; early: boolean }) {
    if (!body.early) yield 1
    throw (exceptions[body.name] as () => Error)()
  } as Parameters<typeof serve>[0])
  for (const [name, make] of Object.entries(exceptions)) {
    for (const early of [true, false]) {
      const items: WireValue[] = []
      await assert.rejects(async () => { for await (const item of await client.random({ name, early })) items.push(item) }, (error: unknown) => {
        assert.ok(error instanceof DynamoError)
        const kind = name === 'HttpError' || name === 'TypeError' ? InvalidArgument : (make().constructor as typeof DynamoError)
        assert.ok(error instanceof kind, `${name} came as ${error.name}`)
        return true
      })
      assert.equal(items.length, early ? 0 : 1, name)
    }
  }
})

test('a worker that sleeps is not found, and found again when it wakes', async () => {
  const { endpoint, serve } = await pair()
  await assert.rejects(endpoint.registerEndpointInstance(), /serveEndpoint first/)
  const client = await serve(async function* () { yield 1 })
  await assert.rejects(endpoint.serveEndpoint(async function* () { yield 1 }), /served already/)
  await endpoint.unregisterEndpointInstance()
  await until('it is gone', () => client.instanceIds().length === 0)
  await endpoint.registerEndpointInstance()
  assert.deepEqual(await client.waitForInstances({ timeoutMs: 5000 }), [endpoint.connectionId()])
})

test('a shutdown loses no request: records first, then refusal, streams to their end', async () => {
  const { worker, caller, endpoint, serve } = await pair()
  let taken = 0
  let done = 0
  const client = await serve(async function* () {
    taken += 1
    for (let index = 0; index < 20; index += 1) {
      yield index
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
    done += 1
  })
  let drained = false
  worker.onDrain(() => { drained = true })
  const loops = Array.from({ length: 4 }, async () => {
    let count = 0
    while (client.instanceIds().length > 0) {
      assert.equal((await all(client.roundRobin(request))).length, 20)
      count += 1
    }
    return count
  })
  await until('requests come', () => taken > 8)
  const long = await client.direct(request, worker.instanceId)
  await worker.shutdown({ graceMs: 50, timeoutMs: 5000 })
  assert.ok((await Promise.all(loops)).every((count) => count > 0))
  assert.equal((await all(long)).length, 20)
  assert.deepEqual([taken, endpoint.inflight, drained], [done, 0, true])
  await worker.closed
  assert.deepEqual(await caller.discovery.list('v1/instances', ''), new Map())
})

test('a shutdown that takes too long, or is not graceful, ends streams as an engine shutdown', async () => {
  for (const [gracefulShutdown, timeoutMs] of [[true, 20], [false, 60_000]] as const) {
    const { worker, serve } = await pair()
    let context: Context | null = null
    const client = await serve(async function* (_request, own) {
      context = own
      yield 1
      await new Promise(() => {})
    }, { gracefulShutdown })
    const [outcome] = await Promise.allSettled([all(await client.random(request)), worker.shutdown({ graceMs: 0, timeoutMs })])
    assert.ok(outcome.status === 'rejected' && outcome.reason instanceof EngineShutdown, String((outcome as PromiseRejectedResult).reason))
    assert.equal((context as Context | null)?.isKilled(), true)
  }
})

async function fetchText(port: number | null, path: string, init: RequestInit = {}): Promise<{ status: number; text: string }> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { ...init, signal: AbortSignal.timeout(5000) })
  return { status: response.status, text: await response.text() }
}

test('health, metrics and routes of the engine on the system port', async () => {
  const { worker, serve } = await pair({ DYN_SYSTEM_PORT: '0' })
  assert.equal((await fetchText(worker.systemPort, '/health')).status, 503, 'nothing is served yet')
  const client = await serve(async function* (body: { fail?: boolean }) {
    yield 1
    if (body.fail === true) throw new Error('no')
  } as Parameters<typeof serve>[0], { metricsLabels: { model: 'tiny' } })
  const { status, text } = await fetchText(worker.systemPort, '/health')
  assert.deepEqual([status, (JSON.parse(text) as { endpoints: unknown }).endpoints], [200, { generate: 'ready' }])
  await all(client.random({}))
  await assert.rejects(all(client.random({ fail: true })))
  const labels = `dynamo_namespace="test",dynamo_component="backend",worker_id="${worker.instanceId.toString(16)}",model="tiny",dynamo_endpoint="generate"`
  await until('both are counted', async () => (await fetchText(worker.systemPort, '/metrics')).text.includes(`dynamo_component_requests_total{${labels}} 2`))
  const metrics = (await fetchText(worker.systemPort, '/metrics')).text
  assert.ok(metrics.includes(`dynamo_component_errors_total{${labels},error_type="generate"} 1`), metrics)
  worker.registerEngineRoute('control/sleep', async (body) => ({ got: body }))
  assert.deepEqual(await fetchText(worker.systemPort, '/engine/control/sleep', { method: 'POST', body: '{"level":1}' }), { status: 200, text: '{"got":{"level":1}}' })
  assert.equal((await fetchText(worker.systemPort, '/engine/control/sleep', { method: 'POST', body: '[]' })).status, 400)
  assert.equal((await fetchText(worker.systemPort, '/engine/other')).status, 404)
  worker.setHealthStatus(false)
  assert.equal((await fetchText(worker.systemPort, '/health')).status, 503)
})

test('a handler that does not answer its probe is not ready', async () => {
  const { worker, serve } = await pair({ DYN_SYSTEM_PORT: '0', DYN_HEALTH_CHECK_ENABLED: '1', DYN_CANARY_WAIT_TIME: '0.02', DYN_HEALTH_CHECK_REQUEST_TIMEOUT: '0.05' })
  let stuck = true
  let probes = 0
  await serve(async function* (body: { probe?: boolean }, context: Context) {
    if (body.probe === true) probes += 1
    if (stuck) await context.killedOrStopped()
    yield 1
  } as Parameters<typeof serve>[0], { healthCheckPayload: { probe: true } })
  await until('health says so', async () => (await fetchText(worker.systemPort, '/health')).status === 503)
  stuck = false
  await until('and that it answers again', async () => (await fetchText(worker.systemPort, '/health')).status === 200)
  assert.ok(probes >= 2)
})

const at = (value: unknown, ...path: (string | number)[]): unknown => path.reduce<unknown>((member, name) => (member as Record<string | number, unknown> | undefined)?.[name], value)

/** The blocks that a source's recovery endpoint tells of, as [engine hash, parent of the chain]. */
async function dump(caller: DistributedRuntime, worker: bigint, dpRank: number): Promise<string[]> {
  const sources = [...(await caller.discovery.list('v1/event_sources', '')).values()]
  const source = sources.find((each) => at(each, 'metadata', 'worker', 'dp_rank') === dpRank)
  const target = decodeInstanceRecord(at(source, 'metadata', 'recovery_target') as JsonObject)
  const question = { worker_id: worker, dp_rank: dpRank, start_event_id: null, end_event_id: null, supports_tree_dump_failed: true, kind: 'recovery' }
  const { client } = await caller.clientParts()
  const [answer] = await all(callStream(client, target, question, { annotated: false }))
  return (at(answer, 'TreeDump', 'events') as unknown[]).flatMap((event) => at(event, 'event', 'data', 'stored', 'blocks') as unknown[]).map((block) => BigInt(at(block, 'block_hash') as number).toString(16)).sort()
}

test('cache events by hand: what is held can be asked for; lists that do not fit are refused', async () => {
  const { worker, caller, endpoint } = await pair()
  await assert.rejects(KvEventPublisher.create({ endpoint, kvBlockSize: 0 }), /kvBlockSize is 0/)
  await assert.rejects(KvEventPublisher.create({ endpoint, kvBlockSize: 16, zmqEndpoint: 'nonsense' }), /zmqEndpoint is "nonsense"/)
  const publisher = await KvEventPublisher.create({ endpoint, kvBlockSize: 2, dpRank: 1 })
  publisher.publishStored({ tokenIds: [1, 2, 3, 4], numBlockTokens: [2, 2], blockHashes: [0xa, -1n] })
  publisher.publishStored({ tokenIds: Uint32Array.of(5, 6), blockHashes: BigUint64Array.of(0xcn), parentHash: -1n })
  assert.deepEqual(await dump(caller, worker.instanceId, 1), ['a', 'c', 'ffffffffffffffff'])
  publisher.publishRemoved([0xc])
  assert.deepEqual(await dump(caller, worker.instanceId, 1), ['a', 'ffffffffffffffff'])
  for (const [event, field] of [
    [{ tokenIds: [1, 2], numBlockTokens: [2], blockHashes: [1, 2] }, /numBlockTokens is 1; there are 2 blockHashes/], [{ tokenIds: [1, 2, 3], blockHashes: [1, 2] }, /tokenIds is "3 tokens"; 2 blocks have 4/],
    [{ tokenIds: [1, -2], blockHashes: [1] }, /tokenIds is -2/], [{ tokenIds: [1, 2], blockHashes: [2 ** 60] }, /bigints for hashes beyond/],
  ] as const) assert.throws(() => publisher.publishStored(event), field)
  assert.throws(() => publisher.publishBatch([{ type: 'removed', blockHashes: [0xa] }, { type: 'bogus' } as never]), /type\[1\] is "bogus"/)
  assert.deepEqual(await dump(caller, worker.instanceId, 1), ['a', 'ffffffffffffffff'], 'nothing of a refused batch is published')
  publisher.publishStored({ tokenIds: [7, 8, 9], numBlockTokens: [2, 1], blockHashes: [0xd, 0xe] })
  assert.deepEqual(await dump(caller, worker.instanceId, 1), ['a', 'd', 'ffffffffffffffff'], 'a block of another size ends the chain')
  assert.equal(publisher.stats.refusedBlocks, 1)
  publisher.allBlocksCleared()
  assert.deepEqual(await dump(caller, worker.instanceId, 1), [])
  await publisher.shutdown()
  assert.deepEqual(await caller.discovery.list('v1/event_sources', ''), new Map())
})

test('cache events of an engine\'s socket, each rank from its own publisher', async () => {
  const { worker, caller, endpoint } = await pair()
  const socket = new Publisher({ linger: 0 })
  await socket.bind('tcp://127.0.0.1:*')
  const address = socket.lastEndpoint as string
  try {
    const publishers = await Promise.all([0, 1].map((dpRank) => KvEventPublisher.create({ endpoint, kvBlockSize: 2, dpRank, zmqEndpoint: address })))
    assert.throws(() => publishers[0]?.publishRemoved([1]), /reads the engine's socket/)
    let sequence = 0n
    const send = async (payload: Uint8Array): Promise<void> => {
      const number = Buffer.alloc(8)
      number.writeBigUInt64BE(sequence)
      sequence += 1n
      await socket.send(['', number, payload])
    }
    const stored = (hash: number, dpRank: number): Uint8Array => encode([0, [['BlockStored', [hash], null, [hash, 2], 2, null]], dpRank])
    await until('the engine is heard', async () => {
      await send(stored(0xa, 0))
      return publishers.every(({ stats }) => (stats.engine?.messages ?? 0) > 0)
    })
    await send(stored(0xb, 1))
    await send(Uint8Array.of(0xc1))
    sequence += 3n
    await send(stored(0xc, 1))
    await until('all is read', () => publishers.every(({ stats }) => stats.engine?.missed === 3))
    assert.equal(publishers[1]?.stats.engine?.malformed, 1)
    assert.deepEqual([await dump(caller, worker.instanceId, 0), await dump(caller, worker.instanceId, 1)], [['a'], ['b', 'c']])
  } finally {
    socket.close()
  }
})

test('loads are sent when they change, and again for those that come later', async () => {
  const { worker, caller, endpoint } = await pair()
  const loads = new WorkerMetricsPublisher()
  loads.publish({ dpRank: 1, kvUsedBlocks: 7, activeDecodeBlocks: 3 })
  assert.throws(() => loads.publish({ kvUsedBlocks: -1 }), /kvUsedBlocks is -1/)
  const seen: unknown[] = []
  caller.eventPlane.subscribe(endpoint.id, kvMetricsTopic, ({ payload }) => seen.push(decodeKvMetrics(payload)))
  await loads.createEndpoint(endpoint)
  await assert.rejects(loads.createEndpoint(endpoint), /has one already/)
  await until('the load comes', () => seen.length > 0)
  assert.deepEqual(seen[0], { workerId: worker.instanceId, dpRank: 1, activeDecodeBlocks: 3, activePrefillTokens: null, kvUsedBlocks: 7 })
})

test('the first tokens of a request are told to routers, once', async () => {
  const { worker, caller, endpoint, serve } = await pair()
  const source = await endpoint.firstTokenSource(WorkerType.Decode)
  assert.deepEqual([await endpoint.firstTokenSource(WorkerType.Prefill), await endpoint.firstTokenSource(WorkerType.Encode)], [null, null])
  const seen: { requestId: string; dpRank: number; routerId: bigint; data: { kind: string } }[] = []
  caller.eventPlane.subscribe(endpoint.id, activeSequencesTopic, ({ payload }) => seen.push(...decodeActiveSequences(payload)))
  const client = await serve(async function* (_request, context) {
    source?.bind(context, 3)
    yield { token_ids: [] }
    yield { token_ids: [1] }
    yield { token_ids: [2] }
    context.notifyFirstToken()
  })
  const ids: string[] = []
  // Subscribing takes a moment; marks before it are lost.
  await until('a mark comes', async () => {
    const context = new Context()
    ids.push(context.id)
    await all(client.random(request, { context }))
    return seen.length > 0
  })
  assert.deepEqual(seen[0], { requestId: ids.find((id) => id === seen[0]?.requestId), workerId: worker.instanceId, dpRank: 3, data: { kind: 'mark_prefill_completed' }, routerId: worker.instanceId, loraName: null })
  assert.equal(new Set(seen.map(({ requestId }) => requestId)).size, seen.length, 'one mark for each request')
})

test('models, adapters and taints come and go; clients find workers by their data', async () => {
  const { worker, caller, endpoint, serve } = await pair()
  const model = { endpoint, modelInput: ModelInput.Tokens, modelType: ModelType.Chat, modelName: 'tiny', workerType: WorkerType.Aggregated, runtimeConfig: { topologyDomains: { zone: 'a' }, taints: ['p'], runtimeData: { pool: 'x' } } } as const
  await assert.rejects(updateModelTaints(endpoint, ['q']), /registerModel first/)
  await assert.rejects(unregisterModel(endpoint), /nothing is registered/)
  await registerModel(model)
  await registerModel(model)
  await assert.rejects(registerModel({ ...model, kvCacheBlockSize: 8 }), /another card already/)
  const client = await serve(async function* () { yield 1 })
  assert.equal(await client.waitForInstanceByRuntimeData('pool', 'x', { timeoutMs: 5000 }), worker.instanceId)
  await assert.rejects(client.waitForInstancesByRuntimeData('pool', 'x', 2, { timeoutMs: 20 }), /not within 20 ms: 2 instances with pool=x/)
  const key = `test/backend/generate/${worker.instanceId.toString(16)}`
  const card = async (suffix = ''): Promise<JsonObject | undefined> => (await caller.discovery.list('v1/mdc', key)).get(key + suffix)
  await updateModelTaints(endpoint, new Set(['q', 'r']))
  assert.deepEqual(at(await card(), 'card_json', 'runtime_config', 'taints'), ['q', 'r', 'dynamo.topology/zone=a'])
  await assert.rejects(updateModelTaints(endpoint, ['dynamo.topology/x=1']), /made from topologyDomains/)
  await registerModel({ ...model, loraName: 'Style One', baseModelPath: 'base', skipModelAssets: true })
  assert.deepEqual([at(await card('/style_one'), 'model_suffix'), at(await card('/style_one'), 'card_json', 'lora')], ['style_one', { name: 'Style One' }])
  await unregisterModel(endpoint, 'Style One')
  assert.equal(await card('/style_one'), undefined)
  await worker.shutdown({ graceMs: 0 })
  assert.equal((await caller.discovery.list('v1/mdc', key)).size, 0)
})
