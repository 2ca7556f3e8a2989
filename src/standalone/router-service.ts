/**
 * The standalone router: discovery in, endpoints out, everything between put together here.
 *
 * Start: identity, listeners, workers, endpoints, and only then the records that callers find. Drain: the reverse.
 */
import type { AffinityRules } from '../affinity/affinity-table.ts'
import type { Clock, Codec, Discovery, EndpointId, EventPlane, Json, JsonObject, Log, Random, RequestHandler, RequestPlaneClient, RequestPlaneServer, ServedEndpoint, TimerHandle } from '../ports.ts'
import type { Router } from '../router/contract.ts'
import { renamedCard } from '../dynamo/cards/renamed-card.ts'
import { instanceKey } from '../dynamo/discovery/store-key.ts'
import { encodeInstanceRecord } from '../dynamo/wire/instance-record.ts'
import type { HttpService } from '../http/service.ts'
import { callInProcess } from './in-process-call.ts'
import { refuseOccupiedName, targetMark } from './occupied-name.ts'
import type { PoolFacts } from './pool.ts'
import { afterOverlap, answerOnce, bestWorker, chosen, explanationAnswer, overlapAnswer, queryOf, withOverlap, type Query } from './query-endpoints.ts'
import type { RequestObserver } from '../model/request-observer.ts'
import { ServedIndex } from '../replicas/served-index.ts'
import { RoutedPool, type RoutedPoolParts } from './routed-pool.ts'
import type { DurableEvents, DurableSink } from '../dynamo/durable/durable-events.ts'
import { peerEndpoint } from '../dynamo/durable/router-peers.ts'
import { RoutedGenerate, type RoutedGenerateOptions } from './routed-generate.ts'

export interface StandaloneRouterOptions extends RoutedGenerateOptions {
  /** Where the router serves: three endpoints under this name. */
  readonly namespace: string
  readonly component: string
  /** Whose workers it routes to. */
  readonly workers: EndpointId
  /** Workers that compute prompts first; null: one stage. */
  readonly prefillWorkers: EndpointId | null
  /** How sessions are bound to workers; null: not. */
  readonly sessionAffinity: AffinityRules | null
  readonly blockSize: number | null
  readonly strictBlockSize: boolean
  readonly useKvEvents: boolean
  readonly kvEventGraceMs: number
  readonly replicaSync?: boolean
  readonly useRemoteIndexer?: boolean
  /** Other routers may ask this one for overlap. */
  readonly serveIndexer?: boolean
  readonly minInitialWorkers: number
  readonly registerModel: string | null
  /** Start although the name is taken. */
  readonly force: boolean
  readonly shutdownTimeoutMs: number
  /** From removing the records to refusing new requests. */
  readonly shutdownGraceMs: number
  /** Codec that callers are told to use. */
  readonly codec: Codec
}

export interface StandaloneRouterParts {
  readonly options: StandaloneRouterOptions
  readonly discovery: Discovery
  readonly server: RequestPlaneServer
  readonly client: RequestPlaneClient
  /** Null: no KV events are followed. */
  readonly eventPlane: EventPlane | null
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly observer: RequestObserver
  /** Wraps each served endpoint, for request-plane metrics. */
  readonly measured: (endpoint: string, handler: RequestHandler) => RequestHandler
  createRouter(facts: PoolFacts): Router
  /** Follows durable KV events; `transport`: an address of this process. Null or left out: not. */
  durableEvents?: ((endpoint: EndpointId, transport: ServedEndpoint['transport'], sink: DurableSink) => DurableEvents) | null
  /** See `RoutedPoolParts`. */
  readonly stateOf?: RoutedPoolParts['stateOf']
  readonly onUnread?: RoutedPoolParts['onUnread']
  /** For the prefill stage: without active block tracking. */
  createPrefillRouter(facts: PoolFacts): Router
  /** How sessions are bound in the prefill stage, which a card may say. */
  prefillAffinity(facts: PoolFacts): AffinityRules | null
}

const endpointNames = ['generate', 'best_worker_id', 'get_overlap_scores'] as const
const tickMs = 1000
export type ServiceState = 'starting' | 'ready' | 'draining' | 'stopped'

export class StandaloneRouter {
  readonly generate: RoutedGenerate
  readonly workers: RoutedPool
  /** Workers that compute prompts for `workers`, with `--prefill-endpoint`. */
  readonly prefill: RoutedPool | null = null
  readonly #parts: StandaloneRouterParts
  readonly #served: ServedEndpoint[] = []
  readonly #indexes: readonly ServedIndex[]
  #timer: TimerHandle | null = null
  #state: ServiceState = 'starting'
  #cardPublished = false
  /** A hand-over of SGLang's kind was seen: decode workers here cannot compute a prompt themselves. */
  #needsBootstrap = false

  constructor(parts: StandaloneRouterParts) {
    this.#parts = parts
    const { options, discovery, client, eventPlane, clock, random, log } = parts
    this.workers = new RoutedPool({
      endpoint: options.workers, discovery, client, eventPlane, clock, random, log, options,
      stateOf: parts.stateOf ?? null, onUnread: parts.onUnread ?? null, createRouter: (facts) => parts.createRouter(facts), durableEvents: this.#durableOf(),
      affinityOf: () => options.sessionAffinity,
    })
    this.generate = new RoutedGenerate({ pool: this.workers, prefillPool: () => this.#usablePrefill(), needsBootstrap: () => this.#needsBootstrap, onHandOver: (kind) => { this.#needsBootstrap ||= kind === 'bootstrap' }, client, clock, random, log, observer: parts.observer, options })
    this.workers.onGone = (workerId) => this.generate.instanceGone(this.workers, workerId)
    if (options.prefillWorkers !== null) {
      const prefill = new RoutedPool({
        endpoint: options.prefillWorkers, discovery, client, eventPlane, clock, random, log, options,
        stateOf: parts.stateOf ?? null, onUnread: parts.onUnread ?? null, createRouter: (facts) => parts.createPrefillRouter(facts), durableEvents: this.#durableOf(),
        affinityOf: (facts) => parts.prefillAffinity(facts),
      })
      prefill.onGone = (workerId) => this.generate.instanceGone(prefill, workerId)
      this.prefill = prefill
    }
    this.workers.onWorker = () => void this.#publishCard()
    this.#indexes = options.serveIndexer !== true ? [] : [this.workers, ...(this.prefill === null ? [] : [this.prefill])].map((pool) => new ServedIndex({
      ...parts, workers: pool.endpoint, codec: options.codec, isApproximate: !options.useKvEvents, routerOf: (name) => (pool.pool.facts?.modelName === name ? pool.router : null),
    }))
  }

  /** Peers look for a record under the workers' component; what it names is never called. */
  #durableOf(): NonNullable<RoutedPoolParts['durableEvents']> | null {
    const { durableEvents, server, discovery } = this.#parts
    if (durableEvents === undefined || durableEvents === null) return null
    return (endpoint, sink) => {
      const served = server.serve(peerEndpoint(endpoint), discovery.instanceId, (_request, response) => response.fail({
        class: 'Unavailable', reason: 'backend.unavailable', message: 'this endpoint is a sign of life and takes no requests',
      }))
      return durableEvents(endpoint, served.transport, sink)
    }
  }

  #usablePrefill(): RoutedPool | null {
    return this.prefill !== null && ((this.prefill.router?.workerCount ?? 0) > 0 || this.#needsBootstrap) ? this.prefill : null
  }

  get state(): ServiceState {
    return this.#state
  }

  get served(): readonly ServedEndpoint[] {
    return this.#served
  }

  /** Resolves when the endpoints are registered. Errors: the name is taken; what discovery or a listener rejects with. */
  async start(signal: AbortSignal): Promise<void> {
    const { discovery, server, client, options, log, clock } = this.#parts
    await Promise.all([server.start(signal), client.start(signal), discovery.start(signal)])
    await refuseOccupiedName({ discovery, log, namespace: options.namespace, component: options.component, target: this.#targetName(), force: options.force })
    await Promise.all([this.workers.state?.load(), this.prefill?.state?.load()])
    this.workers.start()
    this.prefill?.start()
    await Promise.all([this.workers.firstSync, this.prefill?.firstSync])
    await Promise.all([this.workers.startDurable(signal), this.prefill?.startDurable(signal)])
    await this.#enoughWorkers(signal)
    this.#serve('generate', (request, response) => this.generate.handle(request, response))
    this.#serve('best_worker_id', (request, response) => withOverlap(this.workers.remote, request, () => answerOnce(request, response, (value) => {
      const query = queryOf(value)
      return chosen(bestWorker(this.workers.router, query, request.id, this.workers.setAsideIds())).workerId
    })))
    this.#serve('get_overlap_scores', (request, response) => withOverlap(this.workers.remote, request, () => answerOnce(request, response, (value) => this.#overlap(value))))
    for (const index of this.#indexes) await index.start()
    await this.#register()
    const arm = (): void => {
      this.#timer = clock.setTimer(tickMs, () => {
        this.#tick()
        arm()
      })
    }
    arm()
    this.#state = 'ready'
    await this.#publishCard()
    log.info({ stage: 'start', instance_id: discovery.instanceId.toString(), target: this.#targetName(), workers: this.workers.router?.workerCount ?? 0 },
      `Registered endpoint '${options.namespace}.${options.component}.generate'`)
  }

  /** Removes the records, refuses new requests, lets streams finish, then ends the rest. */
  async drain(): Promise<void> {
    if (this.#state === 'draining' || this.#state === 'stopped') return
    this.#state = 'draining'
    const { discovery, options, log, clock } = this.#parts
    const open = this.generate.activeCount
    log.info({ stage: 'drain', open }, `draining: records removed, ${open} open requests may finish within ${options.shutdownTimeoutMs / 1000} s`)
    await this.#unregister()
    // Callers that have not seen the record go are still served for a moment.
    if (options.shutdownGraceMs > 0) await new Promise<void>((resolve) => clock.setTimer(options.shutdownGraceMs, resolve))
    for (const served of [...this.#served, ...this.#indexes]) served.close()
    // What still waits is told at once, so that it can go elsewhere.
    this.workers.router?.closeQueue()
    this.prefill?.router?.closeQueue()
    if (this.generate.activeCount > 0) {
      await new Promise<void>((resolve) => {
        const timer = clock.setTimer(options.shutdownTimeoutMs, () => {
          log.error({ stage: 'drain', open: this.generate.activeCount, reason: 'timeout' }, 'drain time is over; open requests are ended')
          this.generate.abortAll()
          resolve()
        })
        this.generate.onIdle = () => { timer.cancel(); resolve() }
      })
    }
    this.#timer?.cancel()
    await Promise.all([this.workers.endDurable(), this.prefill?.endDurable()])
    this.workers.close()
    this.prefill?.close()
    await this.#parts.eventPlane?.close()
    await Promise.all([this.#parts.server.close(), this.#parts.client.close()])
    await discovery.close(2000)
    this.#state = 'stopped'
  }

  #targetName(): string {
    const { namespace, component, endpoint } = this.#parts.options.workers
    return `${namespace}.${component}.${endpoint}`
  }

  async #enoughWorkers(signal: AbortSignal): Promise<void> {
    const { options, log, clock } = this.#parts
    const missing = (): boolean => (this.workers.router?.workerCount ?? 0) < options.minInitialWorkers
    if (missing()) log.info({ stage: 'start', wanted: options.minInitialWorkers }, `waiting for ${options.minInitialWorkers} workers of ${this.#targetName()}`)
    while (missing()) {
      signal.throwIfAborted()
      await new Promise<void>((resolve) => clock.setTimer(100, resolve))
    }
  }

  #serve(name: (typeof endpointNames)[number], handler: RequestHandler): void {
    const { server, discovery, measured } = this.#parts
    this.#served.push(server.serve(this.#endpoint(name), discovery.instanceId, measured(name, handler)))
  }

  #endpoint(endpoint: string): EndpointId {
    const { namespace, component } = this.#parts.options
    return { namespace, component, endpoint }
  }

  async #register(): Promise<void> {
    const { discovery } = this.#parts
    // `generate` last: who finds it finds the others too.
    for (const index of [1, 2, 0]) {
      const endpoint = this.#endpoint(endpointNames[index] as string)
      const served = this.#served[index] as ServedEndpoint
      await served.ready
      const record = encodeInstanceRecord({ ...endpoint, instanceId: discovery.instanceId, transport: served.transport, codec: this.#parts.options.codec, deviceType: 'cpu' })
      await discovery.put('v1/instances', instanceKey(endpoint, discovery.instanceId), { ...record, ...targetMark(this.#targetName()) })
    }
  }

  async #unregister(): Promise<void> {
    const { discovery, log } = this.#parts
    try {
      if (this.#cardPublished) await discovery.remove('v1/mdc', instanceKey(this.#endpoint('generate'), discovery.instanceId))
      for (const index of this.#indexes) await index.unregister()
      for (const name of endpointNames) await discovery.remove('v1/instances', instanceKey(this.#endpoint(name), discovery.instanceId))
    } catch (error) {
      log.warn({ stage: 'drain', reason: String(error) }, 'records could not be removed; they end with the lease')
    }
  }

  /** The card of `--register-model`, made from the first worker's card. */
  async #publishCard(): Promise<void> {
    const { options, discovery, log } = this.#parts
    if (options.registerModel === null || this.#cardPublished || this.#state !== 'ready') return
    const card = [...(this.workers.directory?.instances() ?? [])].map((instance) => instance.card).find((each) => each !== null)
    if (card === undefined || card === null) return
    this.#cardPublished = true
    const endpoint = this.#endpoint('generate')
    try {
      await discovery.put('v1/mdc', instanceKey(endpoint, discovery.instanceId), renamedCard(card, { name: options.registerModel, endpoint, instanceId: discovery.instanceId, runsBothStages: options.prefillWorkers !== null }))
      log.info({ stage: 'start', model: options.registerModel }, `registered model ${options.registerModel}`)
    } catch (error) {
      this.#cardPublished = false
      log.error({ stage: 'start', model: options.registerModel, reason: String(error) }, 'the model card could not be published; trying again with the next change')
    }
  }

  #tick(): void {
    this.workers.tick()
    this.prefill?.tick()
    this.generate.tick()
    void this.#publishCard()
  }

  #overlap(value: Parameters<typeof queryOf>[0]): JsonObject {
    const query = queryOf(value)
    const router = this.workers.router
    if (router === null) {
      const blockSize = this.#parts.options.blockSize
      return overlapAnswer({ blockSize: blockSize ?? 0, blockCount: blockSize === null ? 0 : Math.floor(query.tokens.length / blockSize), rows: [], shared: null })
    }
    return overlapAnswer(router.overlap({ ...query.routing, tokens: query.tokens, ...(query.includeShared === undefined ? {} : { includeShared: query.includeShared }) }))
  }

  async #afterOverlap<Answer>(request: JsonObject, answer: (query: Query) => Answer): Promise<Answer> {
    const query = queryOf(request as never)
    return afterOverlap(this.workers.remote, query, () => answer(query))
  }

  /** The same endpoints for callers of this process. */
  httpService(metrics: HttpService['metrics']): HttpService {
    const { clock } = this.#parts
    return {
      generate: (request, call) => callInProcess((incoming, response) => this.generate.handle(incoming, response), request, call, clock, 'json') as AsyncIterable<Json>,
      bestWorkerId: (request, call) => this.#afterOverlap(request, (query) => chosen(bestWorker(this.workers.router, query, call.id, this.workers.setAsideIds())).workerId),
      overlapScores: (request) => this.#afterOverlap(request, () => this.#overlap(request as never)),
      explain: (request, call) => this.#afterOverlap(request, (query) => explanationAnswer(bestWorker(this.workers.router, query, call.id, this.workers.setAsideIds()))),
      health: () => ({ ready: this.#state === 'ready', detail: { state: this.#state, workers: this.workers.router?.workerCount ?? 0 } as { [key: string]: Json } }),
      ...(metrics === undefined ? {} : { metrics }),
    }
  }
}
