/**
 * The catalog of the HTTP API over the model directory: pools, text models and pipelines of every model, made as its workers appear.
 *
 * One writer: `#reconcile`, called for a model after each change of it. A model is listed when discovery says that it is ready, its text
 * side is loaded and the pools that a request would go through have a worker.
 */
import type { Clock, Discovery, EndpointId, EventPlane, JsonObject, Log, Random, RequestPlaneClient, TimerHandle } from '../ports.ts'
import type { Router } from '../router/contract.ts'
import type { AffinityRules } from '../affinity/affinity-table.ts'
import type { CardRouterConfig } from '../config/card-router-config.ts'
import type { ModelCard } from '../dynamo/cards/model-card.ts'
import type { BusyThresholds, ModelCatalog, ServedModel } from '../openai/catalog.ts'
import type { PoolFacts } from '../standalone/pool.ts'
import type { RequestObserver } from '../model/request-observer.ts'
import type { WorkerRole } from '../model/worker.ts'
import { RoutedGenerate, type RoutedGenerateOptions } from '../standalone/routed-generate.ts'
import { FrontendModel } from './frontend-model.ts'
import { LivePool } from './live-pool.ts'
import { warnOfParsers } from './parser-names.ts'
import type { ModelDirectory } from './model-directory.ts'
import type { ModelState, NamespaceState } from './model-state.ts'
import { isEmbeddingOnly } from './readiness.ts'
import { readinessReport } from './readiness-report.ts'
import type { ServedEntry } from './served-entry.ts'
import { SingleCalls } from './single-call.ts'
import { fileKey, TextModels, type LoadText } from './text-models.ts'
import { differences, type PoolKind, type WorkerPoolState } from './worker-pools.ts'

/** What a pool is for, for the settings of its router. */
export type PoolStage = 'whole' | 'decode' | 'prefill'

export interface FrontendModelsOptions extends RoutedGenerateOptions {
  readonly blockSize: number | null
  readonly useKvEvents: boolean
  readonly kvEventGraceMs: number
  readonly replicaSync: boolean
  readonly useRemoteIndexer: boolean
  readonly minInitialWorkers: number
  readonly busyThresholds: BusyThresholds
  /** How sessions are bound to workers; null: not. */
  readonly sessionAffinity: AffinityRules | null
}

export interface FrontendModelsParts {
  readonly directory: ModelDirectory
  readonly discovery: Discovery
  readonly client: RequestPlaneClient
  readonly eventPlane: EventPlane | null
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly observer: RequestObserver
  /** That of one kind of pool of one model; default: `observer`. */
  readonly observerOf?: (role: WorkerRole, model: string) => RequestObserver
  readonly options: FrontendModelsOptions
  readonly loadText: LoadText
  createRouter(facts: PoolFacts, stage: PoolStage): Router
  /** See `RoutedPoolParts`. */
  onUnread?: ((endpoint: EndpointId) => void) | null
  /** Pools, or their endpoints, have come or gone. */
  onPools?(): void
  /** What a prefill worker's card says of the stage before it; null: nothing. */
  prefillConfig(card: ModelCard): CardRouterConfig | null
}

interface ModelEntry {
  readonly name: string
  readonly createdSeconds: number
  readonly entries: Map<string, ServedEntry>
  served: FrontendModel | null
  thresholds: BusyThresholds
  reason: string
  /** Namespaces whose other files or surface were said in the log. */
  readonly excludedSaid: Set<string>
}

const tickMs = 1000
const retryAfterSeconds = 5
/** Nothing of an embedding is cached in blocks; a pool wants a size all the same, and these cards need not have one. */
const embeddingBlockSize = 16

export class FrontendModels implements ModelCatalog {
  /** Called when the last request has ended. */
  onIdle: (() => void) | null = null
  readonly #parts: FrontendModelsParts
  readonly #texts: TextModels
  readonly #singleCalls: SingleCalls
  readonly #models = new Map<string, ModelEntry>()
  /** Models that are served, in the order in which they became so. */
  readonly #listed = new Set<ModelEntry>()
  /** Models that are adapters of others and live from their pools. */
  readonly #adapters = new Set<string>()
  readonly #pools = new Map<string, LivePool>()
  #busyThresholds: BusyThresholds
  /** Pipelines whose pool is gone while answers still run. */
  readonly #retired = new Set<RoutedGenerate>()
  readonly #watch: { close(): void }
  #timer: TimerHandle | null = null

  constructor(parts: FrontendModelsParts) {
    this.#parts = parts
    this.#busyThresholds = parts.options.busyThresholds
    this.#texts = new TextModels({ load: parts.loadText, clock: parts.clock, log: parts.log, onSettled: (name) => this.#reconcile(name) })
    const { retryLimit, inhibitedMs, activeRequestsMax, firstOutputTimeoutMs } = parts.options
    this.#singleCalls = new SingleCalls({ ...parts, options: { retryLimit, inhibitedMs, activeRequestsMax, answerTimeoutMs: firstOutputTimeoutMs } })
    this.#watch = parts.directory.onChange((name) => this.#reconcile(name))
    for (const { name } of parts.directory.models()) this.#reconcile(name)
    this.#arm()
  }

  // ---- The catalog ----

  list(): readonly ServedModel[] {
    return [...this.#listed].flatMap(({ served }) => (served === null ? [] : [served]))
  }

  /** What the cards of the listed models say, for the metrics. */
  figures(): readonly ({ readonly name: string; readonly contextLength: number | null } & FrontendModel['figures'])[] {
    return [...this.#listed].flatMap(({ served }) => {
      if (served === null) return []
      const { blockSize, totalKvBlocks, maxNumSeqs, maxNumBatchedTokens } = served.figures
      return [{ name: served.name, contextLength: served.contextLength, blockSize, totalKvBlocks, maxNumSeqs, maxNumBatchedTokens }]
    })
  }

  find(name: string): ServedModel | { readonly notReady: string; readonly retryAfterSeconds: number } | undefined {
    const model = this.#models.get(name) ?? this.#byAlias(name)
    if (model === undefined || this.#parts.directory.get(model.name)?.hadSurface !== true) return undefined
    if (model.served !== null) return model.served
    return { notReady: `Model \`${name}\` is not ready to serve requests yet: ${model.reason}. Start what is missing, or retry shortly.`, retryAfterSeconds }
  }

  health(): ReturnType<ModelCatalog['health']> {
    const instances = this.#parts.directory.instanceRecords().map(({ type: _type, ...record }): JsonObject => record)
    const endpoints = new Set(instances.map(({ namespace, component, endpoint }) => `dyn://${String(namespace)}.${String(component)}.${String(endpoint)}`))
    return { ready: this.list().length > 0, endpoints: [...endpoints], instances }
  }

  readiness(name: string): JsonObject | undefined {
    const model = this.#models.get(name) ?? this.#byAlias(name)
    const state = model === undefined ? undefined : this.#parts.directory.get(model.name)
    return model === undefined || state === undefined || !state.hadSurface ? undefined : readinessReport(name, state, model.served === null ? model.reason : null)
  }

  busyThresholds(name: string): BusyThresholds | undefined {
    return this.#models.get(name)?.thresholds
  }

  /** For all models, those to come too; what was set for one of them goes. */
  changeBusyThresholds(thresholds: BusyThresholds): void {
    this.#busyThresholds = thresholds
    for (const name of this.#models.keys()) this.setBusyThresholds(name, thresholds)
  }

  setBusyThresholds(name: string, thresholds: Partial<BusyThresholds>): boolean {
    const model = this.#models.get(name)
    if (model === undefined) return false
    model.thresholds = { ...model.thresholds, ...thresholds }
    for (const entry of model.entries.values()) for (const pool of [entry.pool, entry.prefill]) applyThresholds(pool?.routed.router ?? null, model.thresholds)
    return true
  }

  /** An entry of a served model that can take requests; null name: of the model that was ready first. */
  entry(name: string | null): ServedEntry | null {
    const [first] = this.#listed
    const model = name === null ? first : (this.#models.get(name) ?? this.#byAlias(name) ?? first)
    return [...(model?.entries.values() ?? [])].find(({ pool }) => pool.isUsable) ?? null
  }

  /** Requests whose answer has not ended. */
  get activeCount(): number {
    return this.#pipelines().reduce((sum, generate) => sum + generate.activeCount, 0)
  }

  /** Pools of all models, for gauges. */
  get pools(): Iterable<LivePool> {
    return this.#pools.values()
  }

  /** Requests that wait for a worker with room are refused. */
  closeQueues(): void {
    for (const { routed } of this.#pools.values()) routed.router?.closeQueue()
  }

  abortAll(): void {
    for (const generate of this.#pipelines()) generate.abortAll()
  }

  async close(): Promise<void> {
    this.#timer?.cancel()
    this.#watch.close()
    for (const pool of this.#pools.values()) pool.close()
    this.#pools.clear()
    await this.#texts.close()
  }

  #byAlias(name: string): ModelEntry | undefined {
    for (const state of this.#parts.directory.models()) if (state.aliases.includes(name)) return this.#models.get(state.name)
    return undefined
  }

  #pipelines(): RoutedGenerate[] {
    const all = new Set(this.#retired)
    for (const { entries } of this.#models.values()) for (const { generate } of entries.values()) all.add(generate)
    return [...all]
  }

  // ---- From discovery to pools and entries ----

  #reconcile(name: string): void {
    const state = this.#parts.directory.get(name)
    const model = this.#models.get(name)
    if (state === undefined) {
      if (model !== undefined) this.#drop(model)
      return
    }
    const entry = model ?? this.#add(name)
    const pools = [...state.namespaces.values()].flatMap((namespace) => namespace.pools)
    for (const pool of pools) if (pool.loraName === null && pool.kind !== 'encode') this.#follow(pool, name)
    this.#dropPools(name, new Set(pools.map(({ key }) => key)))
    this.#parts.onPools?.()
    const ready = [...state.namespaces.values()].flatMap((namespace) => this.#entriesOf(entry, namespace))
    this.#settle(entry, state, ready)
    if (entry.served === null) this.#listed.delete(entry)
    else this.#listed.add(entry)
    if (pools.some(({ loraName }) => loraName !== null)) this.#adapters.add(name)
    else for (const adapter of this.#adapters) this.#reconcile(adapter)
  }

  #add(name: string): ModelEntry {
    const { clock } = this.#parts
    const model: ModelEntry = {
      name, createdSeconds: Math.floor(clock.epochMs() / 1000), entries: new Map(), served: null, thresholds: this.#busyThresholds,
      reason: 'its workers are being looked at', excludedSaid: new Set(),
    }
    this.#models.set(name, model)
    return model
  }

  #drop(model: ModelEntry): void {
    this.#models.delete(model.name)
    this.#listed.delete(model)
    this.#adapters.delete(model.name)
    for (const entry of model.entries.values()) this.#retire(entry)
    this.#dropPools(model.name, new Set())
    this.#parts.onPools?.()
    this.#texts.release(model.name)
  }

  #retire({ generate }: ServedEntry): void {
    if (generate.activeCount > 0) this.#retired.add(generate)
  }

  #follow(state: WorkerPoolState, model: string): void {
    const known = this.#pools.get(state.key)
    if (known !== undefined) return known.update(state)
    const { discovery, client, eventPlane, clock, random, log, options, createRouter } = this.#parts
    const stage = stageOf(state.kind)
    const own = stage === 'prefill' ? this.#parts.prefillConfig(state.card) : null
    const pool = new LivePool(state, {
      discovery, client, eventPlane, clock, random, log,
      options: { blockSize: options.blockSize ?? (isEmbeddingOnly(state.card) ? embeddingBlockSize : null), strictBlockSize: false, useKvEvents: own === null ? this.#followsEvents(stage) : own.mode === null && own.settings.useKvEvents, kvEventGraceMs: options.kvEventGraceMs, replicaSync: options.replicaSync, useRemoteIndexer: options.useRemoteIndexer && this.#followsEvents(stage) },
      onUnread: this.#parts.onUnread ?? null,
      affinityOf: () => (own === null ? options.sessionAffinity : own.affinity),
      createRouter: (facts) => {
        const router = createRouter(facts, stage)
        if (own === null) applyThresholds(router, this.#models.get(model)?.thresholds ?? this.#busyThresholds)
        return router
      },
    }, () => this.#reconcile(model))
    pool.routed.onGone = (workerId) => { for (const generate of this.#pipelines()) generate.instanceGone(pool.routed, workerId) }
    pool.routed.onWorker = () => { if (this.#models.get(model)?.served === null) queueMicrotask(() => this.#reconcile(model)) }
    this.#pools.set(state.key, pool)
  }

  /** A plain decode stage is routed by load alone. */
  #followsEvents(stage: PoolStage): boolean {
    const { useKvEvents, conditional } = this.#parts.options
    return useKvEvents && (stage !== 'decode' || conditional !== null)
  }

  /** Pools of this model that discovery does not know any more. */
  #dropPools(model: string, present: ReadonlySet<string>): void {
    for (const [key, pool] of this.#pools) {
      if (pool.model !== model || present.has(key)) continue
      this.#pools.delete(key)
      pool.close()
    }
  }

  #entriesOf(model: ModelEntry, namespace: NamespaceState): ServedEntry[] {
    return namespace.entries.flatMap(({ pool: state, prefill }) => {
      const pool = state.loraName === null ? this.#pools.get(state.key) : this.#poolOfAdapter(state)
      if (pool === undefined) return []
      let entry = model.entries.get(state.key)
      if (entry === undefined || entry.pool !== pool) {
        if (entry !== undefined) this.#retire(entry)
        entry = this.#entry(state, pool)
        model.entries.set(state.key, entry)
      }
      entry.state = state
      entry.needsBootstrap = namespace.needsBootstrap
      entry.prefill = prefill === null ? null : ((prefill.loraName === null ? this.#pools.get(prefill.key) : this.#poolOfAdapter(prefill)) ?? null)
      return [entry]
    })
  }

  #entry(state: WorkerPoolState, pool: LivePool): ServedEntry {
    const { client, clock, random, log, options } = this.#parts
    const observer = this.#parts.observerOf?.(state.card.role, state.model) ?? this.#parts.observer
    const entry: ServedEntry = {
      key: state.key, pool, state, prefill: null, needsBootstrap: false,
      generate: new RoutedGenerate({
        pool: pool.routed, client, clock, random, log, observer, options,
        // One without workers is asked too where a decode worker could do nothing alone: it then refuses by name.
        needsBootstrap: () => entry.needsBootstrap,
        onHandOver: (kind) => { if (kind === 'bootstrap' && !entry.needsBootstrap) this.#parts.directory.noteBootstrap(state.model, state.namespace) },
        prefillPool: () => (entry.prefill !== null && (entry.prefill.isUsable || entry.needsBootstrap) ? entry.prefill.routed : null),
      }),
    }
    entry.generate.onIdle = () => {
      this.#retired.delete(entry.generate)
      if (this.activeCount === 0) this.onIdle?.()
    }
    return entry
  }

  /** An adapter is served by the pool of its base model. */
  #poolOfAdapter({ namespace, kind, workers }: WorkerPoolState): LivePool | undefined {
    for (const pool of this.#pools.values()) {
      if (pool.key.startsWith(`${namespace}/${kind}/`) && workers.some(({ card }) => pool.has(card))) return pool
    }
    return undefined
  }

  /** Makes the model available, or says why it is not. */
  #settle(model: ModelEntry, state: ModelState, ready: readonly ServedEntry[]): void {
    const before = model.served
    const main = ready.find(({ key }) => key === before?.poolKey) ?? ready[0]
    model.served = null
    if (main === undefined) {
      model.reason = state.reason ?? 'its workers are being looked at'
      return
    }
    for (const [key, entry] of model.entries) {
      if (ready.includes(entry)) continue
      model.entries.delete(key)
      this.#retire(entry)
    }
    const { text, problem } = this.#texts.use(model.name, main.state.card)
    if (text === null) {
      model.reason = problem ?? 'its tokenizer is being loaded'
      return
    }
    const alike = ready.filter((entry) => this.#sameSurface(model, main, entry))
    const { minInitialWorkers } = this.#parts.options
    const usable = (): ServedEntry[] => alike.filter(({ pool }) => pool.isUsable)
    const workers = usable().reduce((sum, { pool }) => sum + pool.workerCount, 0)
    const waitsForPrefill = before === null && alike.some(({ prefill }) => prefill !== null && !prefill.isUsable)
    if (workers < Math.max(1, before === null ? minInitialWorkers : 1) || waitsForPrefill) {
      model.reason = workers < minInitialWorkers ? `${workers} of ${minInitialWorkers} workers are there (--router-min-initial-workers)` : 'its workers are being connected'
      return
    }
    const { clock, random } = this.#parts
    const files = fileKey(main.state.card)
    const entries = (): ServedEntry[] => [...model.entries.values()].filter(({ pool, state: { card } }) => pool.isUsable && fileKey(card) === files)
    const same = before !== null && before.text === text && before.describes(main.state)
    model.served = same ? before : new FrontendModel({ name: model.name, createdSeconds: model.createdSeconds, text, state: main.state, clock, random, singleCalls: this.#singleCalls, entries })
    if (before === null) warnOfParsers(model.name, main.state.card, this.#parts.log)
  }

  /** Namespaces may differ in block size, not in what clients see of the model. */
  #sameSurface(model: ModelEntry, main: ServedEntry, entry: ServedEntry): boolean {
    if (entry === main || fileKey(entry.state.card) === fileKey(main.state.card)) return true
    if (!model.excludedSaid.has(entry.key)) {
      model.excludedSaid.add(entry.key)
      const reason = differences(entry.state.traits, main.state.traits).join('; ')
      this.#parts.log.error({ stage: 'discovery', model: model.name, reason }, `workers of ${entry.key} get no requests: their model files differ from those of ${main.key} (${reason}); give the model another name there`)
    }
    return false
  }

  #arm(): void {
    this.#timer = this.#parts.clock.setTimer(tickMs, () => {
      for (const pool of this.#pools.values()) pool.routed.tick()
      for (const generate of this.#pipelines()) generate.tick()
      this.#arm()
    })
  }
}

const stageOf = (kind: PoolKind): PoolStage => (kind === 'prefill' ? 'prefill' : kind === 'decode' ? 'decode' : 'whole')

function applyThresholds(router: Router | null, { activeDecodeBlocks, activePrefillTokens, activePrefillTokensFraction }: BusyThresholds): void {
  router?.setBusyThresholds({ decodeBlocks: activeDecodeBlocks, prefillTokens: activePrefillTokens, prefillTokensFraction: activePrefillTokensFraction })
}
