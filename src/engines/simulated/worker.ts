/**
 * A simulated engine as a Dynamo worker: endpoint, model card, KV events with recovery, load reports. Built on the worker SDK.
 *
 * Start: publishers, card, and last the endpoint that callers find.
 */
import type { Clock, Codec, Discovery, EndpointId, EventPlane, JsonObject, Log, RequestPlaneClient, RequestPlaneServer, TimerHandle } from '../../ports.ts'
import { systemRandom } from '../../system-ports.ts'
import type { Context } from '../../worker/context.ts'
import type { HealthCheckSettings } from '../../worker/health-probe.ts'
import { KvEventPublisher } from '../../worker/kv-event-publisher.ts'
import type { ModelFiles } from '../../worker/model-files.ts'
import { registerModel } from '../../worker/register-model.ts'
import { DistributedRuntime } from '../../worker/runtime.ts'
import { WorkerMetricsPublisher } from '../../worker/worker-metrics-publisher.ts'
import { SimulatedEngine } from './engine.ts'
import { simulatedModel, type SimulatedRole } from './model-card.ts'
import type { EngineOutput } from './output-queue.ts'
import { PrefillHop } from './prefill-hop.ts'
import { bodyObject, engineRequest, outputMap, type BodyObject, type BodyValue } from './preprocessed-request.ts'
import type { EngineSettings } from './settings.ts'

export interface SimulatedWorkerParts {
  /** Started; its instance id is the worker's. */
  readonly discovery: Discovery
  /** Started. */
  readonly server: RequestPlaneServer
  /** Started; needed only with `prefillRouter`. */
  readonly client?: RequestPlaneClient
  readonly eventPlane: EventPlane
  readonly clock: Clock
  readonly log: Log
}

export interface SimulatedWorkerOptions {
  readonly endpoint: EndpointId
  readonly modelName: string
  readonly role: SimulatedRole
  readonly settings: EngineSettings
  /** Whether cache events are published. Workers of the role decode never publish any. */
  readonly kvEvents: boolean
  readonly files?: ModelFiles | null
  /** A decode worker that calls this endpoint for the prompt itself; frontends see it as aggregated. */
  readonly prefillRouter?: EndpointId | null
  /** Codec that callers are told to use. Default msgpack. */
  readonly codec?: Codec
  /** Left out: the engine is not probed. */
  readonly healthCheck?: HealthCheckSettings | null
}

export interface SimulatedWorker {
  readonly instanceId: bigint
  readonly engine: SimulatedEngine
  /** Requests whose stream has not ended. */
  readonly inflight: number
  /** What it is built on: its health, its metrics. */
  readonly runtime: DistributedRuntime
  /** Removes the records; after `graceMs` refuses new requests; streams may finish within `timeoutMs`, then they are aborted. */
  drain(limits: { readonly graceMs: number; readonly timeoutMs: number }): Promise<void>
}

/** How often loads are looked at. Units: ms. */
const loadEveryMs = 100

/** Starts a worker; resolves when its record is published. Errors: of discovery and event plane; nothing stays registered then. */
export async function startSimulatedWorker(options: SimulatedWorkerOptions, parts: SimulatedWorkerParts): Promise<SimulatedWorker> {
  const worker = new Worker(options, parts)
  try {
    await worker.start()
  } catch (error) {
    await worker.drain({ graceMs: 0, timeoutMs: 0 })
    throw error
  }
  return worker
}

/** A prompt that no engine refuses. */
const probe: JsonObject = { token_ids: [1], stop_conditions: { max_tokens: 1 } }

class Worker implements SimulatedWorker {
  readonly instanceId: bigint
  readonly engine: SimulatedEngine
  readonly runtime: DistributedRuntime
  readonly #options: SimulatedWorkerOptions
  readonly #clock: Clock
  readonly #publishesEvents: boolean
  readonly #ranks = new Map<number, KvEventPublisher>()
  readonly #metrics = new WorkerMetricsPublisher()
  #hop: PrefillHop | null = null
  #timer: TimerHandle | null = null

  constructor(options: SimulatedWorkerOptions, parts: SimulatedWorkerParts) {
    const { settings, prefillRouter = null } = options
    const { client } = parts
    if (prefillRouter !== null && client === undefined) throw new Error('a prefill router needs a request plane client')
    this.#options = options
    this.#clock = parts.clock
    this.runtime = new DistributedRuntime(
      { ...parts, random: systemRandom(), client: client === undefined ? null : () => Promise.resolve(client) },
      { codec: options.codec ?? 'msgpack', graceMs: 0, timeoutMs: 0, inhibitedMs: 0, healthCheck: options.healthCheck ?? null },
    )
    this.instanceId = this.runtime.instanceId
    this.#publishesEvents = options.kvEvents && options.role !== 'decode' && prefillRouter === null
    this.engine = new SimulatedEngine(settings, {
      clock: parts.clock,
      ...(this.#publishesEvents ? { events: (dpRank, events) => this.#ranks.get(dpRank)?.publishRaw(events) } : {}),
    })
  }

  get inflight(): number {
    return this.runtime.inflight
  }

  async start(): Promise<void> {
    const { endpoint: id, modelName, role, settings, files = null, prefillRouter = null } = this.#options
    const endpoint = this.runtime.endpoint(id)
    if (prefillRouter !== null) this.#hop = new PrefillHop(await this.runtime.endpoint(prefillRouter).client(), this.runtime)
    await this.#metrics.createEndpoint(endpoint)
    if (this.#publishesEvents) {
      for (let dpRank = settings.dpStart; dpRank < settings.dpStart + settings.dpSize; dpRank += 1) {
        this.#ranks.set(dpRank, await KvEventPublisher.create({ endpoint, kvBlockSize: settings.blockSize, dpRank }))
      }
    }
    const shownRole = prefillRouter === null ? role : 'aggregated'
    await registerModel({ ...simulatedModel({ modelName, role: shownRole, settings, kvEvents: this.#publishesEvents, files }), endpoint })
    const served = endpoint.serveEndpoint((body: BodyValue, context) => this.#answer(body, context), { healthCheckPayload: probe })
    await Promise.race([endpoint.registered(), served])
    this.#reportLoads()
  }

  async drain(limits: { readonly graceMs: number; readonly timeoutMs: number }): Promise<void> {
    await this.runtime.shutdown(limits)
    this.#timer?.cancel()
    this.engine.close()
  }

  async *#answer(value: BodyValue, context: Context): AsyncGenerator<JsonObject, void, undefined> {
    const received = bodyObject(value)
    const body = this.#hop === null || received['prefill_result'] !== undefined ? received : await this.#hop.prefill(received, context)
    for await (const output of this.engine.generate(engineRequest(context.id, body), context.signal)) yield this.#output(output, body)
  }

  #output(output: EngineOutput, body: BodyObject): JsonObject {
    const map = outputMap(output, remoteDetails(body))
    const isFirst = output.outputTokens === output.tokens.length
    if (this.#options.role !== 'prefill' || !isFirst) return map
    return { ...map, disaggregated_params: this.#handOver(output) }
  }

  /** What a decode worker needs to fetch the prompt's KV, in the form of a vLLM prefill worker. */
  #handOver(output: EngineOutput): JsonObject {
    const blocks = Math.ceil(output.promptTokens / this.#options.settings.blockSize)
    return {
      kv_transfer_params: {
        do_remote_prefill: true,
        do_remote_decode: false,
        remote_block_ids: Array.from({ length: Math.min(blocks, 1024) }, (_, index) => index),
        remote_engine_id: this.instanceId.toString(16),
        remote_host: '127.0.0.1',
        remote_port: 5600,
        tp_size: 1,
      },
    }
  }

  #reportLoads(): void {
    for (const { dpRank, usedBlocks } of this.engine.loads) this.#metrics.publish({ dpRank, kvUsedBlocks: usedBlocks })
    this.#timer = this.#clock.setTimer(loadEveryMs, () => this.#reportLoads())
  }
}

/** Cached prompt tokens as the prefill worker counted them, for the usage of the decode worker. */
function remoteDetails(body: BodyObject): number | null {
  const result = body['prefill_result']
  if (result === null || typeof result !== 'object' || Array.isArray(result)) return null
  const details = (result as BodyObject)['prompt_tokens_details']
  const cached = details !== null && typeof details === 'object' ? (details as BodyObject)['cached_tokens'] : null
  return typeof cached === 'number' ? cached : null
}
