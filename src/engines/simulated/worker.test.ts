/** A simulated worker on memory discovery, TCP and ZMQ over loopback: what callers, routers and discovery see of it. */
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import assert from 'node:assert/strict'
import { MemoryDiscovery, MemoryStore } from '../../dynamo/discovery/memory-discovery.ts'
import { callStream, serveStream } from '../../dynamo/endpoint.ts'
import { createZmqEventPlane } from '../../dynamo/event-plane/zmq-event-plane.ts'
import { createTcpRequestClient } from '../../dynamo/request-plane/tcp-client.ts'
import { createTcpRequestServer } from '../../dynamo/request-plane/tcp-server.ts'
import { decodeInstanceRecord, encodeInstanceRecord } from '../../dynamo/wire/instance-record.ts'
import type { WireValue } from '../../dynamo/wire/body.ts'
import { FailureError } from '../../model/failure.ts'
import type { InstanceRecord, Json, JsonObject, Log } from '../../ports.ts'
import { systemClock, systemRandom } from '../../system-ports.ts'
import { fixturePath } from '../../../test/repo-root.ts'
import { modelCard } from '../../worker/model-card.ts'
import { simulatedModel, type SimulatedRole } from './model-card.ts'
import { readModelFiles } from '../../worker/model-files.ts'
import { engineSettings, type EngineSettings } from './settings.ts'
import { startSimulatedWorker, type SimulatedWorker, type SimulatedWorkerOptions } from './worker.ts'
import { until } from '../../../test/until.ts'

const log: Log = { debug() {}, info() {}, warn() {}, error() {} }
const clock = systemClock()
const store = new MemoryStore(log)
const closing: (() => Promise<void>)[] = []
after(async () => {
  for (const close of closing.reverse()) await close()
})

const endpoint = { namespace: 'test', component: 'backend', endpoint: 'generate' } as const
const signal = AbortSignal.timeout(30_000)

async function parts() {
  const discovery = new MemoryDiscovery(store)
  const server = createTcpRequestServer({ clock, log, host: '127.0.0.1' })
  const client = createTcpRequestClient({ clock, log, host: '127.0.0.1' })
  await Promise.all([discovery.start(signal), server.start(signal), client.start(signal)])
  const eventPlane = createZmqEventPlane({ discovery, clock, log, random: systemRandom(), ioThreads: 1 })
  closing.push(() => discovery.close(), () => server.close(), () => client.close(), () => eventPlane.close())
  return { discovery, server, client, eventPlane, clock, log }
}

type Parts = Awaited<ReturnType<typeof parts>>

async function start(own: Parts, more: Partial<SimulatedWorkerOptions> = {}, settings: Partial<EngineSettings> = {}): Promise<{ worker: SimulatedWorker; record: InstanceRecord }> {
  const options: SimulatedWorkerOptions = { endpoint, modelName: 'm', role: 'aggregated', kvEvents: true, settings: engineSettings({ blockSize: 4, speedup: 100, ...settings }), ...more }
  const worker = await startSimulatedWorker(options, own)
  closing.push(() => worker.drain({ graceMs: 0, timeoutMs: 0 }))
  const { namespace, component, endpoint: name } = options.endpoint
  const value = [...(await own.discovery.list('v1/instances', `${namespace}/${component}/${name}/${worker.instanceId.toString(16)}`)).values()][0]
  assert.ok(value)
  return { worker, record: decodeInstanceRecord(value) }
}

async function all(stream: AsyncIterable<WireValue>): Promise<JsonObject[]> {
  const values: JsonObject[] = []
  for await (const value of stream) values.push(value as JsonObject)
  return values
}

/** The member at a path; undefined where there is none. */
const at = (value: Json | undefined, ...path: string[]): Json | undefined =>
  path.reduce<Json | undefined>((member, name) => (member !== null && typeof member === 'object' ? (member as JsonObject)[name] : undefined), value)

const prompt = Array.from({ length: 13 }, (_, index) => index)

test('serves outputs, and publishes instance, card, source and channel records', async () => {
  const own = await parts()
  const { worker, record } = await start(own, {}, { dpStart: 2, dpSize: 2 })
  const outputs = await all(callStream(own.client, record, { token_ids: prompt, stop_conditions: { max_tokens: 3 }, routing: { dp_rank: 3 } }))
  assert.equal(outputs.length, 3)
  assert.equal(outputs[2]?.['finish_reason'], 'length')
  assert.deepEqual(outputs[2]?.['completion_usage'], { prompt_tokens: 13, completion_tokens: 3, total_tokens: 16, prompt_tokens_details: { audio_tokens: null, cached_tokens: 0 } })
  assert.deepEqual(worker.engine.loads.map((load) => load.cachedBlocks), [0, 3], 'the rank asked for did the work')
  const sources = [...(await own.discovery.list('v1/event_sources', '')).values()].filter((source) => at(source, 'metadata', 'worker', 'worker_id') === worker.instanceId)
  assert.equal(sources.length, 2)
  assert.ok(sources.every((source) => at(source, 'metadata', 'recovery_target') !== undefined))
  const card = (await own.discovery.list('v1/mdc', `test/backend/generate/${worker.instanceId.toString(16)}`)).values().next().value as JsonObject
  const runtime = at(card, 'card_json', 'runtime_config') as JsonObject
  assert.deepEqual([runtime['data_parallel_start_rank'], runtime['data_parallel_size'], runtime['kv_event_publishing_enabled']], [2, 2, true])
  await worker.drain({ graceMs: 0, timeoutMs: 1000 })
  for (const bucket of ['v1/instances', 'v1/mdc', 'v1/event_sources', 'v1/event_channels'] as const) {
    assert.deepEqual([...(await own.discovery.list(bucket, '')).keys()], [], `${bucket} is empty after the drain`)
  }
})

test('the recovery endpoint tells exactly what is cached', async () => {
  const own = await parts()
  const { worker, record } = await start(own)
  await all(callStream(own.client, record, { token_ids: prompt, stop_conditions: { max_tokens: 1 } }))
  const source = [...(await own.discovery.list('v1/event_sources', '')).values()][0] as JsonObject
  const target = decodeInstanceRecord(at(source, 'metadata', 'recovery_target'))
  const question = { worker_id: worker.instanceId, dp_rank: 0, start_event_id: null, end_event_id: null, supports_tree_dump_failed: true, kind: 'recovery' }
  const [answer] = await all(callStream(own.client, target, question, { annotated: false }))
  const events = at(answer, 'TreeDump', 'events') as JsonObject[]
  const hashes = events.flatMap((event) => at(event, 'event', 'data', 'stored', 'blocks') as JsonObject[]).map((block) => BigInt(block['block_hash'] as bigint))
  assert.deepEqual(hashes.sort(), worker.engine.cachedHashes(0).sort())
  assert.equal(hashes.length, 3)
  await worker.drain({ graceMs: 0, timeoutMs: 0 })
})

test('bad requests are InvalidRequest and name the field', async () => {
  const own = await parts()
  const { worker, record } = await start(own)
  const cases: [WireValue, RegExp][] = [
    [[1, 2], /must be a map/],
    [{}, /missing field token_ids/],
    [{ token_ids: 'x' }, /token_ids must be an array/],
    [{ token_ids: [1, -1] }, /token_ids\[1\] must be an integer/],
    [{ token_ids: [] }, /token_ids is empty/],
    [{ token_ids: [1], stop_conditions: { max_tokens: 'x' } }, /stop_conditions\.max_tokens must be an integer/],
    [{ token_ids: [1], routing: { dp_rank: 9 } }, /routing\.dp_rank is 9/],
  ]
  for (const [body, message] of cases) {
    await assert.rejects(all(callStream(own.client, record, body)), (error: unknown) => {
      assert.ok(error instanceof FailureError)
      assert.equal(error.failure.class, 'InvalidRequest')
      assert.match(error.failure.message, message)
      return true
    })
  }
  const packed = await all(callStream(own.client, record, { token_ids: new Uint8Array(new Uint32Array([1, 2, 3]).buffer), stop_conditions: { max_tokens: 1 } }))
  assert.equal(at(packed[0], 'completion_usage', 'prompt_tokens'), 3)
  await worker.drain({ graceMs: 0, timeoutMs: 0 })
})

test('a caller that stops or leaves frees its blocks at once', async () => {
  const own = await parts()
  const { worker, record } = await start(own, {}, { speedup: 1 })
  const call = callStream(own.client, record, { token_ids: prompt, stop_conditions: { max_tokens: 10_000 } })
  await call.next()
  assert.equal(worker.inflight, 1)
  assert.ok((worker.engine.loads[0]?.usedBlocks ?? 0) > 0)
  await call.return()
  await until(() => worker.inflight === 0)
  assert.equal(worker.engine.loads[0]?.usedBlocks, 0)
  await worker.drain({ graceMs: 0, timeoutMs: 0 })
})

test('draining removes the record first, refuses new requests, and lets streams finish', async () => {
  const own = await parts()
  const { worker, record } = await start(own, {}, { speedup: 10 })
  const call = callStream(own.client, record, { token_ids: prompt, stop_conditions: { max_tokens: 200 } })
  await call.next()
  const drained = worker.drain({ graceMs: 0, timeoutMs: 20_000 })
  await until(() => worker.inflight === 1)
  assert.equal((await own.discovery.list('v1/instances', 'test/backend/generate')).size, 0)
  await assert.rejects(all(callStream(own.client, record, { token_ids: [1] })), (error: unknown) => error instanceof FailureError && error.failure.class === 'Unavailable')
  const rest = await all(call)
  assert.equal(rest.at(-1)?.['finish_reason'], 'length')
  await drained
})

test('a drain that takes too long ends its streams as unavailable', async () => {
  const own = await parts()
  const { worker, record } = await start(own, {}, { speedup: 1 })
  const call = callStream(own.client, record, { token_ids: prompt, stop_conditions: { max_tokens: 10_000 } })
  await call.next()
  const [outcome] = await Promise.allSettled([all(call), worker.drain({ graceMs: 0, timeoutMs: 20 })])
  assert.equal(outcome.status, 'rejected')
  assert.equal((outcome as PromiseRejectedResult).reason.failure.class, 'Unavailable')
})

test('a decode worker asks the prefill endpoint first and takes what it hands over', async () => {
  const own = await parts()
  const prefillEndpoint = { ...endpoint, component: 'prefill' }
  const prefill = await start(await parts(), { endpoint: prefillEndpoint, role: 'prefill' })
  const decode = await start(own, { role: 'decode', prefillRouter: prefillEndpoint })
  const body = { token_ids: prompt, stop_conditions: { max_tokens: 2 }, routing: { dp_rank: 0, backend_instance_id: 5 } }
  const first = await all(callStream(own.client, decode.record, body))
  const second = await all(callStream(own.client, decode.record, body))
  assert.equal(prefill.worker.engine.loads[0]?.promptTokens, 26, 'both prompts were computed there')
  assert.equal(first.length, 2)
  assert.ok(first.every((output) => output['disaggregated_params'] === undefined))
  assert.equal(at(second.at(-1), 'completion_usage', 'prompt_tokens_details', 'cached_tokens'), 12)
  const card = (await own.discovery.list('v1/mdc', 'test/backend')).values().next().value as JsonObject
  assert.equal(at(card, 'card_json', 'worker_type'), 'aggregated')
  await prefill.worker.drain({ graceMs: 0, timeoutMs: 0 })
  const alone = await all(callStream(own.client, decode.record, body))
  assert.deepEqual(alone.map((output) => output['token_ids']), first.map((output) => output['token_ids']), 'without it the worker computes the prompt itself')
  await decode.worker.drain({ graceMs: 0, timeoutMs: 0 })
})

test('what the prefill endpoint hands over may be any value', async () => {
  const own = await parts()
  const other = await parts()
  const prefillEndpoint = { ...endpoint, component: 'scripted' }
  const seen: JsonObject[] = []
  const served = serveStream(other.server, prefillEndpoint, other.discovery.instanceId, async function* (value) {
    seen.push(value as JsonObject)
    yield { token_ids: [1], disaggregated_params: 'dummy' }
  })
  await other.discovery.put('v1/instances', `test/scripted/generate/${other.discovery.instanceId.toString(16)}`, encodeInstanceRecord({ ...prefillEndpoint, instanceId: other.discovery.instanceId, transport: served.transport, codec: 'json', deviceType: null }))
  const decode = await start(own, { role: 'decode', prefillRouter: prefillEndpoint })
  const outputs = await all(callStream(own.client, decode.record, { token_ids: prompt, stop_conditions: { max_tokens: 2, min_tokens: 2 }, routing: { decode_worker_id: 5, lora_name: 'x' }, extra_args: { kept: true } }))
  assert.equal(outputs.length, 2)
  assert.deepEqual(seen[0]?.['stop_conditions'], { max_tokens: 1, min_tokens: null })
  assert.deepEqual([seen[0]?.['routing'], seen[0]?.['extra_args']], [{ lora_name: 'x' }, { kept: true }])
  await decode.worker.drain({ graceMs: 0, timeoutMs: 0 })
})

test('the card has the shape of a real worker\'s', async () => {
  const rows = JSON.parse(readFileSync(fixturePath('wire', 'file-store-snapshot.json'), 'utf8')) as { file: string; content: string }[]
  const real = (JSON.parse(rows.find((row) => row.file.startsWith('v1/mdc/'))?.content ?? '{}') as { card_json: Record<string, JsonObject> }).card_json
  const card = (role: SimulatedRole, kvEvents: boolean) => modelCard(simulatedModel({ modelName: 'tiny', role, settings: engineSettings({}), kvEvents, files: null })) as Promise<Record<string, JsonObject>>
  const own = await card('aggregated', true)
  const missing = Object.keys(real).filter((name) => own[name] === undefined)
  assert.deepEqual(missing, ['prompt_formatter', 'gen_config', 'architectural_max_context_length'], 'without files')
  assert.deepEqual(Object.keys(own).filter((name) => real[name] === undefined), [])
  assert.deepEqual(Object.keys(real['runtime_config'] ?? {}).filter((name) => !(name in (own['runtime_config'] ?? {}))), ['runtime_data'], 'left out when empty')
  assert.deepEqual(Object.keys(own['runtime_config'] ?? {}).filter((name) => !(name in (real['runtime_config'] ?? {}))), [])
  const [prefill, decode] = await Promise.all([card('prefill', false), card('decode', false)])
  assert.deepEqual([prefill['worker_type'], prefill['model_type'], decode['needs']], ['prefill', 'Prefill', [['prefill']]])
})

test('model files are named with size and BLAKE3 checksum', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'warmpath-model-'))
  try {
    await assert.rejects(readModelFiles(folder), /is no model folder: config\.json cannot be read/)
    await writeFile(join(folder, 'config.json'), '{"vocab_size":600,"max_position_embeddings":2048}')
    await writeFile(join(folder, 'tokenizer.json'), '{"model":{"vocab":{"a":0,"b":1}}}')
    await writeFile(join(folder, 'generation_config.json'), 'abc')
    const files = await readModelFiles(folder)
    assert.deepEqual([files.contextLengthMax, files.vocabularySize], [2048, 2])
    assert.deepEqual(files.sections['gen_config'], {
      hf_generation_config_json: { path: join(folder, 'generation_config.json'), checksum: 'blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85', size: 3 },
    })
    assert.equal(files.sections['prompt_formatter'], null)
  } finally {
    await rm(folder, { recursive: true })
  }
})
