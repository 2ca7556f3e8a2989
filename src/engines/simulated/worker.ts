/**
 * A simulated engine as a Dynamo worker: endpoint, model card, KV events with recovery, load reports.
 *
 * Start: handler, publishers, card, and last the instance record that callers find. Drain: the reverse.
 */
import { serveStream, type RequestContext } from '../../dynamo/endpoint.ts'
import { instanceKey } from '../../dynamo/discovery/store-key.ts'
import { createKvEventPublisher, type KvEventPublisher } from '../../dynamo/kv-state/kv-event-publisher.ts'
import { createKvMetricsPublisher, type KvMetricsPublisher } from '../../dynamo/kv-state/kv-metrics-publisher.ts'
import { encodeInstanceRecord } from '../../dynamo/wire/instance-record.ts'
import { PublisherPipeline } from '../../kv-events/publisher-pipeline.ts'
import { RawEventNormaliser } from '../../kv-events/raw-event-normaliser.ts'
import type { RawEvent } from '../../kv-events/raw-event.ts'
import { FailureError } from '../../model/failure.ts'
import type { Clock, Codec, Discovery, EndpointId, EventPlane, JsonObject, Log, RequestPlaneClient, RequestPlaneServer, ServedEndpoint, TimerHandle } from '../../ports.ts'
import { SimulatedEngine } from './engine.ts'
import { cardRecord, simulatedCard, type SimulatedRole } from './model-card.ts'
import type { ModelFiles } from '../../worker/model-files.ts'
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
}

export interface SimulatedWorker {
  readonly instanceId: bigint
  readonly engine: SimulatedEngine
  /** Requests whose stream has not ended. */
  readonly inflight: number
  /** Removes the records; after `graceMs` refuses new requests; streams may finish within `timeoutMs`, then they are aborted. */
  drain(limits: { readonly graceMs: number; readonly timeoutMs: number }): Promise<void>
}

/** How often loads are looked at, and how often they are told although nothing changed. Units: ms. */
const loadEveryMs = 100
const loadRepeatMs = 2000

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

class Worker implements SimulatedWorker {
  readonly instanceId: bigint
  readonly engine: SimulatedEngine
  readonly #options: SimulatedWorkerOptions
  readonly #parts: SimulatedWorkerParts
  readonly #publishesEvents: boolean
  readonly #hop: PrefillHop | null
  readonly #ranks = new Map<number, RankPublisher>()
  readonly #open = new Set<AbortController>()
  #served: ServedEndpoint | null = null
  #metrics: KvMetricsPublisher | null = null
  #timer: TimerHandle | null = null
  #onIdle: (() => void) | null = null
  readonly #toldBlocks = new Map<number, number>()
  #toldAtMs = 0
  #draining: Promise<void> | null = null

  constructor(options: SimulatedWorkerOptions, parts: SimulatedWorkerParts) {
    const { settings, prefillRouter } = options
    this.#options = options
    this.#parts = parts
    this.instanceId = parts.discovery.instanceId
    this.#publishesEvents = options.kvEvents && options.role !== 'decode' && (prefillRouter ?? null) === null
    this.engine = new SimulatedEngine(settings, {
      clock: parts.clock,
      ...(this.#publishesEvents ? { events: (dpRank, events) => this.#ranks.get(dpRank)?.take(events) } : {}),
    })
    if (prefillRouter === undefined || prefillRouter === null) this.#hop = null
    else if (parts.client === undefined) throw new Error('a prefill router needs a request plane client')
    else this.#hop = new PrefillHop({ ...parts, client: parts.client, endpoint: prefillRouter })
  }

  get inflight(): number {
    return this.#open.size
  }

  async start(): Promise<void> {
    const { endpoint, codec = 'msgpack' } = this.#options
    const { discovery, server, eventPlane } = this.#parts
    this.#served = serveStream(server, endpoint, this.instanceId, (body, context) => this.#answer(body, context))
    await this.#served.ready
    this.#metrics = await createKvMetricsPublisher(eventPlane, endpoint)
    if (this.#publishesEvents) await this.#startPublishers()
    const key = instanceKey(endpoint, this.instanceId)
    await discovery.put('v1/mdc', key, cardRecord(endpoint, this.instanceId, this.#card()))
    await discovery.put('v1/instances', key, encodeInstanceRecord({ ...endpoint, instanceId: this.instanceId, transport: this.#served.transport, codec, deviceType: 'cpu' }))
    this.#reportLoads()
  }

  drain(limits: { readonly graceMs: number; readonly timeoutMs: number }): Promise<void> {
    this.#draining ??= this.#drain(limits)
    return this.#draining
  }

  #card(): JsonObject {
    const { modelName, role, settings, files, prefillRouter } = this.#options
    const shownRole = prefillRouter === undefined || prefillRouter === null ? role : 'aggregated'
    return simulatedCard({ modelName, role: shownRole, settings, kvEvents: this.#publishesEvents, files: files ?? null })
  }

  async #startPublishers(): Promise<void> {
    const { endpoint, settings, codec = 'msgpack' } = this.#options
    const { eventPlane, discovery, log, server } = this.#parts
    for (let dpRank = settings.dpStart; dpRank < settings.dpStart + settings.dpSize; dpRank += 1) {
      const rank = { workerId: this.instanceId, dpRank }
      const publisher = await createKvEventPublisher({ plane: eventPlane, discovery, log, endpoint, rank, server, codec })
      this.#ranks.set(dpRank, new RankPublisher(this.instanceId, dpRank, settings.blockSize, publisher))
    }
  }

  async *#answer(value: BodyValue, context: RequestContext): AsyncGenerator<JsonObject, void, undefined> {
    const controller = new AbortController()
    const abort = (): void => controller.abort()
    context.signal.addEventListener('abort', abort, { once: true })
    if (context.signal.aborted) abort()
    this.#open.add(controller)
    try {
      const received = bodyObject(value)
      const body = this.#hop === null || received['prefill_result'] !== undefined ? received : await this.#hop.prefill(received, context)
      for await (const output of this.engine.generate(engineRequest(context.id, body), controller.signal)) yield this.#output(output, body)
      if (controller.signal.aborted && !context.signal.aborted) throw new FailureError({ class: 'Unavailable', reason: 'backend.engine_shutdown', message: 'the worker is going down' })
    } finally {
      context.signal.removeEventListener('abort', abort)
      this.#open.delete(controller)
      if (this.#open.size === 0) this.#onIdle?.()
    }
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

  /** Tells routers how many blocks are in use, when that changed and now and then for those that came later. */
  #reportLoads(): void {
    const nowMs = this.#parts.clock.nowMs()
    const repeat = nowMs - this.#toldAtMs >= loadRepeatMs
    if (repeat) this.#toldAtMs = nowMs
    for (const { dpRank, usedBlocks } of this.engine.loads) {
      if (!repeat && this.#toldBlocks.get(dpRank) === usedBlocks) continue
      this.#toldBlocks.set(dpRank, usedBlocks)
      this.#metrics?.report({ workerId: this.instanceId, dpRank }, { kvUsedBlocks: usedBlocks })
    }
    this.#timer = this.#parts.clock.setTimer(loadEveryMs, () => this.#reportLoads())
  }

  async #drain({ graceMs, timeoutMs }: { readonly graceMs: number; readonly timeoutMs: number }): Promise<void> {
    const { discovery, clock, log } = this.#parts
    const key = instanceKey(this.#options.endpoint, this.instanceId)
    await Promise.all([discovery.remove('v1/instances', key), discovery.remove('v1/mdc', key)]).catch((error: unknown) => {
      log.warn({ stage: 'drain', reason: String(error) }, 'records could not be removed; they end with the lease')
    })
    if (graceMs > 0) await new Promise<void>((resolve) => clock.setTimer(graceMs, resolve))
    this.#served?.close()
    await this.#idle(timeoutMs)
    this.#timer?.cancel()
    this.engine.close()
    this.#hop?.close()
    for (const rank of this.#ranks.values()) await rank.publisher.close()
    await this.#metrics?.close()
  }

  async #idle(timeoutMs: number): Promise<void> {
    if (this.#open.size === 0) return
    const { clock, log } = this.#parts
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve
      clock.setTimer(timeoutMs, () => {
        if (this.#open.size > 0) log.warn({ stage: 'drain', open: this.#open.size, reason: 'timeout' }, 'drain time is over; open requests are ended')
        for (const controller of this.#open) controller.abort()
        resolve()
      })
    })
  }
}

/** One rank's events on their way out: normalised, merged, counted, published. */
class RankPublisher {
  readonly publisher: KvEventPublisher
  readonly #dpRank: number
  readonly #normaliser: RawEventNormaliser
  readonly #pipeline = new PublisherPipeline()

  constructor(workerId: bigint, dpRank: number, blockSize: number, publisher: KvEventPublisher) {
    this.publisher = publisher
    this.#dpRank = dpRank
    this.#normaliser = new RawEventNormaliser({ workerId, blockSize })
  }

  take(events: readonly RawEvent[]): void {
    const changes = this.#pipeline.push(this.#normaliser.normalise({ dpRank: this.#dpRank, events }, { eventId: 0n }))
    if (changes.length > 0) this.publisher.publish(changes)
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
