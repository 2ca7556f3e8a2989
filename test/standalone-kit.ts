/** A small deployment in one process: memory discovery, TCP on loopback, scripted workers, the router and a caller. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { parseCommand, type ParsedConfig } from '../src/config/parse-command.ts'
import { LiveSettings } from '../src/cli/live-settings.ts'
import { assembleRouter, type AssembledRouter } from '../src/cli/assemble-router.ts'
import { MemoryDiscovery, MemoryStore } from '../src/dynamo/discovery/memory-discovery.ts'
import { instanceKey } from '../src/dynamo/discovery/store-key.ts'
import { callStream, type CallOptions } from '../src/dynamo/endpoint.ts'
import { createTcpRequestClient, type TcpRequestClient } from '../src/dynamo/request-plane/tcp-client.ts'
import { createTcpRequestServer } from '../src/dynamo/request-plane/tcp-server.ts'
import type { WireValue } from '../src/dynamo/wire/body.ts'
import { decodeInstanceRecord, encodeInstanceRecord } from '../src/dynamo/wire/instance-record.ts'
import { createLog, type ProcessLog } from '../src/observability/log.ts'
import { FailureError, type Failure } from '../src/model/failure.ts'
import type { Codec, Discovery, EndpointId, EventPlane, JsonObject, RequestHandler } from '../src/ports.ts'
import { systemClock, systemRandom } from '../src/system-ports.ts'

export const prefillEndpoint: EndpointId = { namespace: 'dynamo', component: 'prefill', endpoint: 'generate' }
export const workersEndpoint: EndpointId = { namespace: 'dynamo', component: 'backend', endpoint: 'generate' }

/** No events: routing by what was routed, which the tests here do not look at. */
const silentPlane: EventPlane = {
  kind: 'zmq', subscribe: () => ({ close() {} }), publisher: () => Promise.reject(new Error('no publishers here')), close: () => Promise.resolve(),
}

export interface ScriptedWorker {
  readonly id: bigint
  /** Requests in the order in which they came. */
  readonly seen: { readonly id: string; readonly metadata: Readonly<Record<string, string>>; readonly headers: Readonly<Record<string, string>>; readonly body: Uint8Array; readonly codec: Codec }[]
  /** Takes the record and the server away, as a process that dies: open streams break. */
  kill(): Promise<void>
  /** Only the record goes. */
  leave(): Promise<void>
  publishCard(card: JsonObject): Promise<void>
}

export class SmallDeployment {
  readonly clock = systemClock()
  readonly lines: string[] = []
  readonly log: ProcessLog = createLog({ level: 'debug', jsonl: false, stream: { write: (text: string) => { this.lines.push(text); return true } } as never })
  readonly store = new MemoryStore(this.log)
  readonly #closing: (() => Promise<void>)[] = []
  #caller: TcpRequestClient | null = null

  async worker(handler: RequestHandler, options: { codec?: Codec; card?: JsonObject | null; endpoint?: EndpointId } = {}): Promise<ScriptedWorker> {
    const endpoint = options.endpoint ?? workersEndpoint
    const discovery = new MemoryDiscovery(this.store)
    await discovery.start(AbortSignal.timeout(5000))
    const server = createTcpRequestServer({ clock: this.clock, log: this.log, host: '127.0.0.1' })
    await server.start(AbortSignal.timeout(5000))
    const seen: ScriptedWorker['seen'] = []
    const served = server.serve(endpoint, discovery.instanceId, (request, response) => {
      seen.push(request)
      return handler(request, response)
    })
    const key = instanceKey(endpoint, discovery.instanceId)
    const publishCard = (card: JsonObject): Promise<void> => discovery.put('v1/mdc', key, { type: 'Model', ...endpoint, instance_id: discovery.instanceId, card_json: card })
    if (options.card !== null) await publishCard(options.card ?? plainCard())
    await discovery.put('v1/instances', key, encodeInstanceRecord({ ...endpoint, instanceId: discovery.instanceId, transport: served.transport, codec: options.codec ?? 'msgpack', deviceType: null }))
    this.#closing.push(() => server.close(), () => discovery.close())
    return {
      id: discovery.instanceId, seen, publishCard,
      kill: async () => { await server.close() },
      leave: async () => { await discovery.remove('v1/instances', key) },
    }
  }

  /** A router over the workers. `argv`: flags besides the endpoint. */
  async router(argv: readonly string[] = [], env: Readonly<Record<string, string>> = {}, planeOf: (discovery: Discovery) => EventPlane = () => silentPlane): Promise<AssembledRouter> {
    return this.#start(argv, env, planeOf, () => new Uint8Array(), () => null)
  }

  /** A router whose settings can change; files are read. */
  async liveRouter(argv: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<AssembledRouter & { readonly live: LiveSettings<'router'> }> {
    const made: LiveSettings<'router'>[] = []
    const assembled = await this.#start(argv, env, () => silentPlane, (path) => readFileSync(path), async (config) => {
      const live = new LiveSettings({ config, argv: ['--endpoint', 'dynamo.backend.generate', ...argv], env, log: this.log })
      made.push(live)
      this.#closing.push(async () => live.close())
      await live.start()
      return live
    })
    return { ...assembled, live: made[0]! }
  }

  async #start(
    argv: readonly string[], env: Readonly<Record<string, string>>, planeOf: (discovery: Discovery) => EventPlane, readFile: (path: string) => Uint8Array,
    liveOf: (config: ParsedConfig<'router'>) => Promise<LiveSettings<'router'>> | null,
  ): Promise<AssembledRouter> {
    const config = await parseCommand('router', ['--endpoint', 'dynamo.backend.generate', ...argv], env, readFile)
    if (config.kind !== 'config') throw new Error('no configuration')
    const discovery = new MemoryDiscovery(this.store)
    await discovery.start(AbortSignal.timeout(5000))
    const assembled = assembleRouter(config, {
      discovery, clock: this.clock, log: this.log, random: systemRandom(), eventPlane: planeOf(discovery),
      server: createTcpRequestServer({ clock: this.clock, log: this.log, host: '127.0.0.1' }),
      client: createTcpRequestClient({ clock: this.clock, log: this.log, host: '127.0.0.1', connectTimeoutMs: 1000, ackTimeoutMs: 1000 }),
    }, { shutdownGraceMs: 0 }, await liveOf(config))
    this.#closing.push(() => assembled.service.drain())
    await assembled.service.start(AbortSignal.timeout(5000))
    return assembled
  }

  /** Calls an endpoint of the router; gives the values, or throws `FailureError`. */
  async call(endpoint: string, value: WireValue, options: CallOptions & { readonly codec?: Codec; readonly onValue?: (value: WireValue) => void } = {}): Promise<WireValue[]> {
    this.#caller ??= await this.#startCaller()
    const discovery = new MemoryDiscovery(this.store)
    const [namespace, component, name] = endpoint.split('.') as [string, string, string]
    const records = [...(await discovery.list('v1/instances', `${namespace}/${component}/${name}`)).values()].map(decodeInstanceRecord)
    const record = records[0]
    if (record === undefined) throw new Error(`nobody serves ${endpoint}`)
    const values: WireValue[] = []
    for await (const item of callStream(this.#caller, { ...record, codec: options.codec ?? record.codec }, value, options)) {
      values.push(item)
      options.onValue?.(item)
    }
    return values
  }

  async #startCaller(): Promise<TcpRequestClient> {
    const caller = createTcpRequestClient({ clock: this.clock, log: this.log, host: '127.0.0.1' })
    await caller.start(AbortSignal.timeout(5000))
    this.#closing.push(() => caller.close())
    return caller
  }

  async close(): Promise<void> {
    for (const close of this.#closing.reverse()) await close()
  }
}

/** The least that a model card may say. */
export const plainCard = (more: JsonObject = {}, runtime: JsonObject = {}): JsonObject => ({
  display_name: 'tiny', slug: 'tiny', kv_cache_block_size: 16, model_type: 'Chat', model_input: 'Tokens', worker_type: 'aggregated', needs: [],
  runtime_config: { total_kv_blocks: 100, max_num_batched_tokens: 8192, data_parallel_start_rank: 0, data_parallel_size: 1, enable_local_indexer: false, kv_event_publishing_enabled: false, ...runtime },
  ...more,
})

/** The failure that a call ends with; another end fails the test. */
export async function failureOf(promise: Promise<unknown>): Promise<Failure> {
  try {
    await promise
  } catch (error) {
    assert.ok(error instanceof FailureError, String(error))
    return error.failure
  }
  throw new assert.AssertionError({ message: 'no failure' })
}
