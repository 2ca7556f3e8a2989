/**
 * The global router: one model in front of pools that each have a router of their own. It looks like one prefill and one decode
 * worker (or one aggregated one) to frontends, chooses a pool for each request, and forwards it.
 */
import type { Clock, Codec, Discovery, EndpointId, IncomingRequest, JsonObject, Log, RequestHandler, RequestPlaneClient, RequestPlaneServer, ResponseWriter, ServedEndpoint, TimerHandle, Watch } from '../ports.ts'
import { FailureError, type Failure } from '../model/failure.ts'
import type { MsgpackValue } from '../msgpack/cursor.ts'
import { instanceKey } from '../dynamo/discovery/store-key.ts'
import { decodeGenerateRequest, type GenerateRequest, type RequestEdits } from '../dynamo/wire/generate-request.ts'
import { encodeInstanceRecord } from '../dynamo/wire/instance-record.ts'
import { answerFailure } from '../standalone/routed-generate.ts'
import { followWorkerCard } from './card-source.ts'
import { ForwardedRequest, type ForwardingOptions } from './forwarded-request.ts'
import type { GlobalRouterConfig } from './pool-config.ts'
import { poolOf, retryOrder } from './pool-grid.ts'
import { PoolRouters } from './pool-routers.ts'
import { PrefillNotes, type PrefillNote } from './prefill-notes.ts'
import { stagesOf, type Stage, type StageKind } from './stage.ts'
import { stageCard } from './stage-card.ts'

export interface GlobalRouterOptions extends ForwardingOptions {
  readonly namespace: string
  readonly component: string
  readonly modelName: string
  readonly config: GlobalRouterConfig
  /** For requests without a target of their own; null: the middle of the grid. */
  readonly defaultTtftTargetMs: number | null
  readonly defaultItlTargetMs: number | null
  readonly activeRequestsMax: number
  readonly shutdownTimeoutMs: number
  readonly shutdownGraceMs: number
  readonly codec: Codec
}

/** Told of what is forwarded; metrics listen. */
export interface GlobalRouterObserver {
  onSent(kind: StageKind, pool: string): void
  onRetry(kind: StageKind, from: string, to: string): void
  onEnded(kind: StageKind, failure: Failure | null): void
}

export interface GlobalRouterParts {
  readonly options: GlobalRouterOptions
  readonly discovery: Discovery
  readonly server: RequestPlaneServer
  readonly client: RequestPlaneClient
  readonly clock: Clock
  readonly log: Log
  readonly observer: GlobalRouterObserver
  /** `card_json` of a model folder; null: taken from a worker of the pools. */
  readonly card: JsonObject | null
  readonly measured: (endpoint: string, handler: RequestHandler) => RequestHandler
}

interface ServedStage {
  readonly stage: Stage
  readonly pools: readonly PoolRouters[]
  served: ServedEndpoint | null
}

type ServiceState = 'starting' | 'ready' | 'draining' | 'stopped'
const tickMs = 1000
const graceTicks = 5
const mapOf = (value: MsgpackValue | undefined): { readonly [key: string]: MsgpackValue } =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array) ? (value as { readonly [key: string]: MsgpackValue }) : {}
const numberOf = (value: MsgpackValue | undefined): number | null => (typeof value === 'number' || typeof value === 'bigint' ? Number(value) : null)

export class GlobalRouter {
  readonly notes = new PrefillNotes()
  readonly #parts: GlobalRouterParts
  readonly #stages: readonly ServedStage[]
  readonly #active = new Set<ForwardedRequest>()
  #cardSource: Watch | null = null
  #card: JsonObject | null
  #published = false
  #publishing = false
  #timer: TimerHandle | null = null
  #ticks = 0
  #state: ServiceState = 'starting'
  #onIdle: (() => void) | null = null

  constructor(parts: GlobalRouterParts) {
    this.#parts = parts
    this.#card = parts.card
    this.#stages = stagesOf(parts.options.config).map((stage) => ({
      stage, served: null, pools: stage.pools.namespaces.map((namespace) => new PoolRouters({ namespace, discovery: parts.discovery, client: parts.client, clock: parts.clock, log: parts.log })),
    }))
  }

  get state(): ServiceState {
    return this.#state
  }

  get activeCount(): number {
    return this.#active.size
  }

  /** Names of the served endpoints. */
  get endpoints(): readonly string[] {
    return this.#stages.map(({ stage }) => stage.endpoint)
  }

  /** Routers known per pool, in the order of the configuration. */
  poolSizes(): readonly { readonly kind: StageKind; readonly pool: string; readonly routers: number }[] {
    return this.#stages.flatMap(({ stage, pools }) => pools.map((pool) => ({ kind: stage.kind, pool: pool.namespace, routers: pool.size })))
  }

  /** Resolves when the endpoints are registered; the model card follows as soon as it is known. Discovery is started already. */
  async start(signal: AbortSignal): Promise<void> {
    const { server, client, discovery, options, log, clock } = this.#parts
    await Promise.all([server.start(signal), client.start(signal)])
    await Promise.all(this.#stages.flatMap(({ pools }) => pools.map(({ firstSync }) => firstSync)))
    for (const served of this.#stages) {
      const endpoint = this.#endpoint(served.stage)
      const handler = this.#parts.measured(endpoint.endpoint, (request, response) => this.#handle(served, request, response))
      served.served = server.serve(endpoint, discovery.instanceId, handler)
      await served.served.ready
      const record = encodeInstanceRecord({ ...endpoint, instanceId: discovery.instanceId, transport: served.served.transport, codec: options.codec, deviceType: 'cpu' })
      await discovery.put('v1/instances', instanceKey(endpoint, discovery.instanceId), record)
      log.info({ stage: 'start' }, `Registered endpoint '${endpoint.namespace}.${endpoint.component}.${endpoint.endpoint}'`)
    }
    this.#state = 'ready'
    if (this.#card === null) this.#awaitCard()
    await this.#publishCards()
    const arm = (): void => {
      this.#timer = clock.setTimer(tickMs, () => { this.#tick(); arm() })
    }
    arm()
    log.info({ stage: 'start', model: options.modelName, instance_id: discovery.instanceId.toString(), mode: options.config.mode, pools: this.poolSizes().length }, 'Global Router ready')
  }

  #awaitCard(): void {
    const { discovery, options } = this.#parts
    const namespaces = this.#stages.flatMap(({ stage }) => stage.pools.namespaces)
    this.#cardSource = followWorkerCard(discovery, namespaces, options.modelName, (card) => {
      this.#card = card
      void this.#publishCards()
    })
  }

  async #publishCards(): Promise<void> {
    const { discovery, options, log } = this.#parts
    if (this.#card === null || this.#published || this.#publishing || this.#state !== 'ready') return
    this.#publishing = true
    try {
      for (const { stage } of this.#stages) {
        const endpoint = this.#endpoint(stage)
        await discovery.put('v1/mdc', instanceKey(endpoint, discovery.instanceId), stageCard(this.#card, stage, options.modelName, endpoint, discovery.instanceId))
      }
      this.#published = true
      log.info({ stage: 'start', model: options.modelName }, `registered model ${options.modelName}`)
    } catch (error) {
      log.error({ stage: 'start', model: options.modelName, reason: String(error) }, 'the model cards could not be published; trying again')
    } finally {
      this.#publishing = false
    }
  }

  // ---- Requests ------------------------------------------------------------------------------------------------------------

  #handle(served: ServedStage, request: IncomingRequest, response: ResponseWriter): void {
    const { options } = this.#parts
    if (this.#active.size >= options.activeRequestsMax) {
      answerFailure(response, { class: 'CapacityExhausted', reason: 'capacity.exhausted', message: `the global router carries ${this.#active.size} requests, its limit; try again later, or raise --active-requests-max` })
      return
    }
    let generate: GenerateRequest
    try {
      generate = decodeGenerateRequest(request.body, request.codec)
    } catch (error) {
      answerFailure(response, error instanceof FailureError ? error.failure : { class: 'InvalidRequest', reason: 'request.invalid', message: String(error) })
      return
    }
    const forwarded = this.#forwarded(served, request, response, generate)
    this.#active.add(forwarded)
    forwarded.start()
  }

  #forwarded({ stage, pools }: ServedStage, request: IncomingRequest, response: ResponseWriter, generate: GenerateRequest): ForwardedRequest {
    const { options, log, clock, client, observer } = this.#parts
    const selected = this.#select(stage, generate)
    const order = options.config.retriesFasterPools ? retryOrder(selected, stage.pools.priorities) : [selected]
    const prefill = stage.kind === 'decode' ? this.notes.of(request.id) : null
    const edits = this.#edits(generate, prefill)
    log.debug({ request_id: request.id, stage: stage.kind, pool: stage.pools.namespaces[selected], tokens: generate.tokens.length }, 'pool chosen')
    const forwarded: ForwardedRequest = new ForwardedRequest({
      kind: stage.kind, options, prefill, pools: order.map((index) => pools[index] as PoolRouters),
      nowMs: () => clock.nowMs(),
      bodyFor: (instance) => generate.forWorker(edits, instance.codec),
      call: (instance, body, headers, listener) => client.call(instance, { id: request.id, headers, metadata: request.metadata, codec: instance.codec, body }, listener),
      onSent: (pool) => observer.onSent(stage.kind, pool.namespace),
      onRetry: (from, to, failure) => {
        observer.onRetry(stage.kind, from.namespace, to.namespace)
        log.warn({ request_id: request.id, stage: stage.kind, reason: failure.reason }, `pool ${from.namespace} failed before its first output (${failure.message}); trying pool ${to.namespace}`)
      },
      onWorker: (note) => { if (stage.kind === 'prefill') this.notes.keep(request.id, note) },
      onOver: (failure) => {
        this.#active.delete(forwarded)
        if (stage.kind === 'decode' && failure === null) this.notes.drop(request.id)
        observer.onEnded(stage.kind, failure)
        if (failure !== null && failure.class !== 'Cancelled') log.warn({ request_id: request.id, stage: stage.kind, reason: failure.reason }, failure.message)
        if (this.#active.size === 0) this.#onIdle?.()
      },
    }, request, generate, response)
    return forwarded
  }

  /** Index of the pool that the grid gives. */
  #select({ kind, pools }: Stage, generate: GenerateRequest): number {
    const { options } = this.#parts
    const targets = mapOf(generate.field('router'))
    const ttft = numberOf(targets['ttft_target']) ?? options.defaultTtftTargetMs
    const itl = numberOf(targets['itl_target']) ?? options.defaultItlTargetMs
    const priority = numberOf(mapOf(generate.field('routing'))['priority'])
    const length = generate.tokens.length
    const values = kind === 'prefill' ? [length, ttft] : kind === 'decode' ? [length, itl] : pools.strategy.axes.length === 3 ? [length, ttft, itl] : [ttft, itl]
    return poolOf(pools.strategy, values, priority)
  }

  /** What frontends say of this router is nothing that a pool could know; the decode worker learns who computed the prompt. */
  #edits(generate: GenerateRequest, prefill: PrefillNote | null): RequestEdits {
    const routing = mapOf(generate.field('routing'))
    const own = this.#parts.discovery.instanceId
    const isOwn = (name: string): boolean => (typeof routing[name] === 'bigint' || typeof routing[name] === 'number') && BigInt(routing[name]) === own
    const routingWithout = ['dp_rank', 'prefill_dp_rank', ...['prefill_worker_id', 'decode_worker_id', 'backend_instance_id'].filter(isOwn)]
    return { routing: prefill === null || !isOwn('prefill_worker_id') ? {} : { prefill_worker_id: prefill.workerId }, routingWithout }
  }

  // ---- End -----------------------------------------------------------------------------------------------------------------

  /** Removes the records, refuses new requests, lets streams finish, then ends the rest. */
  async drain(): Promise<void> {
    if (this.#state === 'draining' || this.#state === 'stopped') return
    const wasReady = this.#state === 'ready'
    this.#state = 'draining'
    const { discovery, options, log, clock, server, client } = this.#parts
    log.info({ stage: 'drain', open: this.#active.size }, `draining: records removed, ${this.#active.size} open requests may finish within ${options.shutdownTimeoutMs / 1000} s`)
    this.#cardSource?.close()
    await this.#unregister()
    if (wasReady && options.shutdownGraceMs > 0) await new Promise<void>((resolve) => clock.setTimer(options.shutdownGraceMs, resolve))
    for (const { served } of this.#stages) served?.close()
    if (this.#active.size > 0) {
      await new Promise<void>((resolve) => {
        const timer = clock.setTimer(options.shutdownTimeoutMs, () => {
          log.error({ stage: 'drain', open: this.#active.size, reason: 'timeout' }, 'drain time is over; open requests are ended')
          for (const request of this.#active) request.abort()
          resolve()
        })
        this.#onIdle = () => { timer.cancel(); resolve() }
      })
    }
    this.#timer?.cancel()
    for (const { pools } of this.#stages) for (const pool of pools) pool.close()
    await Promise.all([server.close(), client.close()])
    await discovery.close(2000)
    this.#state = 'stopped'
  }

  async #unregister(): Promise<void> {
    const { discovery, log } = this.#parts
    try {
      for (const { stage, served } of this.#stages) {
        const key = instanceKey(this.#endpoint(stage), discovery.instanceId)
        if (this.#published) await discovery.remove('v1/mdc', key)
        if (served !== null) await discovery.remove('v1/instances', key)
      }
    } catch (error) {
      log.warn({ stage: 'drain', reason: String(error) }, 'records could not be removed; they end with the lease')
    }
  }

  #tick(): void {
    const { clock, log, options } = this.#parts
    const nowMs = clock.nowMs()
    for (const request of this.#active) request.tick(nowMs)
    this.#ticks += 1
    if (this.#ticks >= graceTicks) for (const { pools } of this.#stages) for (const pool of pools) pool.warnIfEmpty()
    if (this.#ticks === graceTicks && this.#card === null) {
      log.warn({ stage: 'discovery', model: options.modelName, reason: 'no-card' },
        `no worker of the pools has a card of model ${options.modelName}, so frontends do not see it yet; start one, or give --model-name the folder of the model`)
    }
    void this.#publishCards()
  }

  #endpoint({ endpoint }: Stage): EndpointId {
    const { namespace, component } = this.#parts.options
    return { namespace, component, endpoint }
  }
}
