/**
 * The metrics of a router: Dynamo's names and labels where it has some that this router can fill truthfully, `warmpath_*` for the rest.
 *
 * Families of mechanisms that are not in use are left out, not shown as zero.
 */
import type { Decision } from '../model/decision.ts'
import type { RequestObserver } from '../model/request-observer.ts'
import type { WorkerId, WorkerRole } from '../model/worker.ts'
import type { EndpointId } from '../ports.ts'
import type { RouterListener } from '../router/contract.ts'
import type { HistogramCell, NumberCell } from './metric-families.ts'
import { MetricSet, addProcessMetrics } from './metric-set.ts'
import { queueListener } from './queue-metrics.ts'
import { createEndpointMetrics } from './request-plane-metrics.ts'
import type { EndpointMeter } from './request-plane-metrics.ts'

const firstTokenBounds = [0, 0.0022, 0.0047, 0.01, 0.022, 0.047, 0.1, 0.22, 0.47, 1, 2.2, 4.7, 10, 22, 48, 100, 220, 480]
const interTokenBounds = [0, 0.0019, 0.0035, 0.0067, 0.013, 0.024, 0.045, 0.084, 0.16, 0.3, 0.56, 1.1, 2]
const inputBounds = [0, 100, 210, 430, 870, 1800, 3600, 7400, 15000, 31000, 63000, 130000]
const outputBounds = [0, 100, 210, 430, 880, 1800, 3700, 7600, 16000, 32000]
const sharedBlocksBounds = Array.from({ length: 12 }, (_, step) => 2 ** step)
const lostBlocksBounds = [0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192]
// The sums with their rounding, as Dynamo prints them: 0.15000000000000002 is the label.
const ratioBounds = Array.from({ length: 21 }, (_, step) => step * 0.05)
/** Model names come from callers; beyond this many they are counted together. */
const modelLimit = 64

export interface RouterMetricsOptions {
  readonly version: string
  /** Where the router serves. */
  readonly namespace: string
  readonly component: string
  /** The workers' endpoint. */
  readonly workers: EndpointId
  readonly routerId: bigint
  readonly role: WorkerRole
}

/** Gauges to be set in an `onScrape` callback, and counters of others to be copied there. */
export interface RouterGauges {
  readonly workers: NumberCell
  readonly activeRequests: NumberCell
  readonly indexEntries: NumberCell
  readonly indexBytes: NumberCell
  readonly bookingsEntries: NumberCell
  readonly bookingRefusals: NumberCell
  readonly indexRefusals: NumberCell
  readonly assumedBlocksEvicted: NumberCell
  readonly assumedBlocksPruned: NumberCell
  readonly indexEvictions: NumberCell
  readonly sharedCacheObjects: NumberCell
  readonly sharedCacheGaps: NumberCell
  readonly sharedCacheOverflows: NumberCell
  readonly sharedCacheBadMessages: NumberCell
  readonly setAsideInstances: NumberCell
  readonly sessionAffinityEntries: NumberCell
  readonly blockSizeMismatchWorkers: NumberCell
  readonly eventQueueEntries: NumberCell
  readonly eventQueueDrops: NumberCell
  readonly eventGaps: NumberCell
  readonly logDroppedLines: NumberCell
  readonly ready: NumberCell
}

export interface RouterMetrics {
  readonly set: MetricSet
  /** Give it to the router. */
  readonly listener: Required<RouterListener>
  /** Give it to the service. */
  readonly requests: RequestObserver
  /** For one pool of a process that has several: labels tell its role and its model. */
  ofPool(role: WorkerRole, model: string): { readonly listener: Required<RouterListener>; readonly requests: RequestObserver }
  readonly gauges: RouterGauges
  endpoint(name: string): EndpointMeter
  /** The pool's role as its cards tell it; label `phase` of what is counted from now on. */
  setRole(role: WorkerRole): void
  /** Set from the follower of KV events, in an `onScrape` callback. */
  readonly kvEvents: {
    setBatches(total: number): void
    setSources(count: number): void
    setDrops(reason: string, total: number): void
    setRecoveries(state: 'started' | 'succeeded' | 'failed', total: number): void
  }
  onScrape(callback: () => void): void
  readonly contentType: string
  text(): Promise<string>
}

export function createRouterMetrics(options: RouterMetricsOptions): RouterMetrics {
  const set = new MetricSet()
  const instanceHex = options.routerId.toString(16)
  const base = { dynamo_namespace: options.workers.namespace, dynamo_component: options.workers.component, worker_id: instanceHex }
  const context: Context = { set, base, router: { ...base, router_id: options.routerId.toString() }, role: options.role, models: new Set(), approximateRanks: new Map() }
  set.gauge('warmpath_build_info', 'Version of the running code', {}, ['version']).with(options.version).set(1)
  const uptime = set.gauge('dynamo_component_uptime_seconds', 'Seconds since the start of the process', { worker_id: instanceHex }).with()
  set.onScrape(() => uptime.set(process.uptime()))
  addProcessMetrics(set)
  const requests = requestMetrics(context)
  const events = kvEventMetrics(context)
  return {
    set,
    listener: {
      ...decisionListener(context), ...workerListener(context, options.workers), onEventApplied: events.onEventApplied,
      ...queueListener(set, (model) => [modelLabel(context, model), workerType(context.role)]),
    },
    requests,
    gauges: gaugesOf(set),
    endpoint: createEndpointMetrics(set, { namespace: options.namespace, component: options.component, instanceHex, service: 'router' }),
    ofPool: (role, model) => {
      const own = { ...context, role }
      const listener = { ...decisionListener(own), ...workerListener(own, options.workers, model), onEventApplied: events.onEventApplied, ...queueListener(set, (name) => [modelLabel(own, name), workerType(role)]) }
      return { listener, requests: requestMetrics(own) }
    },
    setRole: (role) => { context.role = role },
    kvEvents: events.ingress,
    onScrape: (callback) => set.onScrape(callback),
    get contentType() { return set.contentType },
    text: () => set.text(),
  }
}

interface Context {
  readonly set: MetricSet
  readonly base: Readonly<Record<string, string>>
  readonly router: Readonly<Record<string, string>>
  role: WorkerRole
  readonly models: Set<string>
  /** By pool. */
  readonly approximateRanks: Map<object, number>
}

/** Dynamo's label `worker_type`: an aggregated pool shows as decode. */
const workerType = (role: WorkerRole): string => (role === 'aggregated' ? 'decode' : role)

function modelLabel({ models }: Context, model: string): string {
  if (models.has(model)) return model
  if (models.size >= modelLimit) return 'other'
  models.add(model)
  return model
}

interface ModelCells {
  readonly input: HistogramCell
  readonly best: NumberCell
  readonly selected: NumberCell
}

function requestMetrics(context: Context): RequestObserver {
  const { set, router } = context
  const prefix = 'dynamo_component_router_'
  const perModel = ['model', 'phase']
  const started = set.counter(`${prefix}requests_started_total`, 'Requests that came to the router', router).with()
  const ended = set.counter(`${prefix}requests_total`, 'Requests whose answer has ended', router).with()
  const firstToken = set.histogram(`${prefix}time_to_first_token_seconds`, 'From a request to its first output', firstTokenBounds, router).with()
  const interToken = set.histogram(`${prefix}inter_token_latency_seconds`, 'Between two outputs of a request', interTokenBounds, router).with()
  const output = set.histogram(`${prefix}output_sequence_tokens`, 'Output tokens of a request', outputBounds, router).with()
  const hitRate = set.histogram(`${prefix}kv_hit_rate`, 'Share of the prompt that the chosen worker is expected to have cached', ratioBounds, router).with()
  const input = set.histogram(`${prefix}input_sequence_tokens`, 'Prompt tokens of a request', inputBounds, router, perModel)
  const best = set.counter(`${prefix}kv_best_eligible_cached_prefix_tokens_total`, 'Cached prompt tokens on the warmest eligible worker', router, perModel)
  const selected = set.counter(`${prefix}kv_selected_cached_prefix_tokens_total`, 'Cached prompt tokens on the chosen worker', router, perModel)
  const reused = set.counter(`${prefix}kv_worker_reused_tokens_total`, 'Cached prompt tokens as workers report them', router, perModel)
  const outcomes = set.counter('warmpath_requests_total', 'Requests whose answer has ended, by outcome', {}, ['outcome'])
  const failures = set.counter('warmpath_failures_total', 'Requests that failed, by class and reason', {}, ['class', 'reason'])
  const retries = set.counter('warmpath_retries_total', 'Attempts that failed and were followed by another', {}, ['class', 'reason'])
  const migrations = set.counter('warmpath_migrations_total', 'Requests that went on elsewhere after their worker was lost', {}, ['class', 'reason'])
  const fallbacks = set.counter('warmpath_prefill_fallback_total', 'Requests whose prompt the decode worker computed because the prefill stage failed', {}, ['reason'])
  const conditional = set.counter('warmpath_conditional_disagg_total', 'Requests that conditional disaggregation looked at, by outcome and reason', {}, ['outcome', 'reason'])
  const sessions = set.counter('warmpath_session_affinity_total', "What a session's binding meant for the choice of a worker", {}, ['stage', 'outcome'])
  const unconstrained = set.counter('warmpath_kv_transfer_unconstrained_total', 'Hand-overs whose topology rule could not be applied', {}).with()
  const success = outcomes.with('success')
  const lost = overlapLost(context)
  const shared = sharedCacheUse(context)

  const cells = new Map<string, ModelCells>()
  const cellsOf = (model: string, role = context.role): ModelCells => {
    const key = `${role} ${model}`
    const known = cells.get(key)
    if (known !== undefined) return known
    const label = modelLabel(context, model)
    const made = { input: input.with(label, role), best: best.with(label, role), selected: selected.with(label, role) }
    if (cells.size < modelLimit * 4) cells.set(key, made)
    return made
  }
  return {
    onWorkerReused: (model, tokens) => reused.with(modelLabel(context, model), context.role).inc(tokens),
    onStarted: (promptTokens, model) => {
      started.inc()
      cellsOf(model).input.observe(promptTokens)
    },
    onFirstOutput: (seconds) => firstToken.observe(seconds),
    onNextOutput: (seconds) => interToken.observe(seconds),
    onRouted: (_requestId, decision, model) => {
      const forModel = cellsOf(model)
      forModel.best.inc(decision.bestCachedTokens)
      forModel.selected.inc(decision.cachedTokens)
      hitRate.observe(decision.promptTokens === 0 ? 0 : Math.min(1, decision.cachedTokens / decision.promptTokens))
      lost(decision)
      shared(decision)
    },
    onPrefillRouted: (decision, model) => {
      const forModel = cellsOf(model, 'prefill')
      forModel.input.observe(decision.promptTokens)
      forModel.best.inc(decision.bestCachedTokens)
      forModel.selected.inc(decision.cachedTokens)
    },
    // Counted where the router refuses, so that refused queries count too.
    onRefused: () => {},
    onRetry: (failure) => retries.with(failure.class, failure.reason).inc(),
    onMigration: (failure) => migrations.with(failure.class, failure.reason).inc(),
    onPrefillFallback: (reason) => fallbacks.with(reason).inc(),
    onConditional: (outcome, reason) => conditional.with(outcome, reason).inc(),
    onSession: (stage, outcome) => sessions.with(stage, outcome).inc(),
    onUnconstrained: () => unconstrained.inc(),
    onEnded: (outcome, outputTokens, _seconds, failure) => {
      ended.inc()
      if (outcome === 'success') success.inc()
      else outcomes.with(outcome).inc()
      if (outputTokens > 0) output.observe(outputTokens)
      if (failure !== null) failures.with(failure.class, failure.reason).inc()
    },
  }
}

function overlapLost(context: Context): (decision: Decision) => void {
  const { set, router } = context
  const prefix = 'dynamo_component_router_'
  const selections = set.counter(`${prefix}non_max_overlap_selections_total`, 'Choices of a worker with less of the prompt cached than another', router, ['worker_type'])
  const blocks = set.histogram(`${prefix}overlap_blocks_lost`, 'Cached blocks that the warmest worker had more than the chosen one', lostBlocksBounds, router, ['worker_type'])
  return (decision) => {
    const lostTokens = decision.bestCachedTokens - decision.cachedTokens
    if (lostTokens <= 0 || decision.promptBlocks === 0) return
    selections.with(workerType(context.role)).inc()
    blocks.with(workerType(context.role)).observe(lostTokens / Math.max(1, Math.floor(decision.promptTokens / decision.promptBlocks)))
  }
}

/** Of requests for which a shared cache was looked at; the families come with the first of them. */
function sharedCacheUse({ set, router }: Context): (decision: Decision) => void {
  const prefix = 'dynamo_component_router_shared_cache_'
  let cells: { readonly hitRate: HistogramCell; readonly beyond: HistogramCell } | null = null
  return ({ shared, promptBlocks }) => {
    if (shared === undefined) return
    cells ??= {
      hitRate: set.histogram(`${prefix}hit_rate`, 'Share of the blocks of the prompt that the shared cache holds', ratioBounds, router).with(),
      beyond: set.histogram(`${prefix}beyond_blocks`, 'Blocks that the shared cache holds beyond what the chosen worker has on its device', sharedBlocksBounds, router).with(),
    }
    cells.hitRate.observe(promptBlocks === 0 ? 0 : shared.blocks / promptBlocks)
    cells.beyond.observe(shared.beyondDevice)
  }
}

/** Why the worker was chosen, in one word. */
export function decisionReason(decision: Decision): 'pinned' | 'warmest' | 'less-loaded' | 'cold' {
  if (decision.pinned) return 'pinned'
  if (decision.bestCachedTokens <= 0) return 'cold'
  return decision.cachedTokens >= decision.bestCachedTokens ? 'warmest' : 'less-loaded'
}

function decisionListener({ set }: Context): Required<Pick<RouterListener, 'onDecision' | 'onRefusal' | 'onBookingExpired'>> {
  const decisions = set.counter('warmpath_decisions_total', 'Choices of a worker, by what decided', {}, ['kind', 'reason'])
  const refusals = set.counter('warmpath_refusals_total', 'Requests for which no worker was chosen', {}, ['reason'])
  const expired = set.counter('warmpath_bookings_expired_total', 'Bookings that showed no sign of life', {}).with()
  const cells = {
    pinned: decisions.with('route', 'pinned'), warmest: decisions.with('route', 'warmest'),
    'less-loaded': decisions.with('route', 'less-loaded'), cold: decisions.with('route', 'cold'),
  }
  return {
    onDecision: (decision) => {
      const reason = decisionReason(decision)
      if (decision.booked) cells[reason].inc()
      else decisions.with('query', reason).inc()
    },
    onRefusal: (refusal) => refusals.with(refusal.reason).inc(),
    onBookingExpired: () => expired.inc(),
  }
}

function workerListener(context: Context, target: EndpointId, model = 'unknown'): Required<Pick<RouterListener, 'onWorkerAdded' | 'onWorkerRemoved' | 'onIndexMode'>> {
  const { set, base } = context
  const registered = set.gauge('dynamo_component_router_worker_registered', 'One for each rank that can be routed to', base, ['router_worker_id', 'dp_rank', 'worker_type'])
  const approximate = set.gauge('warmpath_approximate_ranks', 'Ranks whose cache is assumed from what was routed to them', {}).with()
  const mismatch = set.gauge(
    'dynamo_component_router_kv_event_source_mismatch_workers', 'Workers that publish no cache events although they are asked for',
    { ...base, target_namespace: target.namespace, target_component: target.component, target_endpoint: target.endpoint },
    ['model', 'worker_type'],
  )
  const ranks = new Map<WorkerId, (readonly [string, string, string])[]>()
  const approximateRanks = new Map<WorkerId, Set<number>>()
  const show = (): void => {
    let count = 0
    for (const set of approximateRanks.values()) count += set.size
    if (count === 0) context.approximateRanks.delete(ranks)
    else context.approximateRanks.set(ranks, count)
    approximate.set([...context.approximateRanks.values()].reduce((sum, each) => sum + each, 0))
    mismatch.with(model, workerType(context.role)).set(approximateRanks.size)
  }
  const remove = (workerId: WorkerId): void => {
    for (const labels of ranks.get(workerId) ?? []) registered.drop(...labels)
    ranks.delete(workerId)
  }
  show()
  return {
    onWorkerAdded: ({ workerId, dpStart, dpSize }) => {
      remove(workerId)
      const labels = Array.from({ length: dpSize }, (_, index) => [workerId.toString(), String(dpStart + index), workerType(context.role)] as const)
      ranks.set(workerId, labels)
      for (const set of labels) registered.with(...set).set(1)
    },
    onWorkerRemoved: (workerId) => {
      remove(workerId)
      approximateRanks.delete(workerId)
      show()
    },
    onIndexMode: ({ workerId, dpRank }, mode) => {
      const set = approximateRanks.get(workerId) ?? new Set<number>()
      if (mode === 'approximate') set.add(dpRank)
      else set.delete(dpRank)
      if (set.size > 0) approximateRanks.set(workerId, set)
      else approximateRanks.delete(workerId)
      show()
    },
  }
}

function kvEventMetrics({ set, base }: Context): { onEventApplied: NonNullable<RouterListener['onEventApplied']>; ingress: RouterMetrics['kvEvents'] } {
  const applied = set.counter('dynamo_component_kv_cache_events_applied', 'Cache events applied to the index, by what became of them', base, ['event_type', 'status'])
  const prefix = 'dynamo_component_router_kv_zmq_ingress_'
  const batches = set.counter(`${prefix}batches_total`, 'Event messages that were taken', base).with()
  const sources = set.gauge(`${prefix}sources`, 'Event sources by state', base, ['state']).with('active')
  const drops = set.counter('warmpath_event_drops_total', 'Batches of cache events that were dropped whole', {}, ['reason'])
  const recoveries = set.counter('warmpath_recoveries_total', 'Questions to workers for lost events or a full dump', {}, ['state'])
  const fine = { stored: applied.with('stored', 'ok'), removed: applied.with('removed', 'ok'), cleared: applied.with('cleared', 'ok') }
  return {
    onEventApplied: (kind, _tier, status) => {
      if (status === 'ok') fine[kind].inc()
      else applied.with(kind, status).inc()
    },
    ingress: {
      setBatches: (total) => batches.set(total),
      setSources: (count) => sources.set(count),
      setDrops: (reason, total) => drops.with(reason).set(total),
      setRecoveries: (state, total) => recoveries.with(state).set(total),
    },
  }
}

function gaugesOf(set: MetricSet): RouterGauges {
  const gauge = (name: string, help: string): NumberCell => set.gauge(`warmpath_${name}`, help, {}).with()
  const counter = (name: string, help: string): NumberCell => set.counter(`warmpath_${name}`, help, {}).with()
  return {
    workers: gauge('workers', 'Workers that can be routed to'),
    activeRequests: gauge('active_requests', 'Requests whose answer has not ended'),
    indexEntries: gauge('index_entries', 'Blocks in the prefix index, once per rank that holds them'),
    indexBytes: gauge('index_bytes', 'Memory of the prefix index'),
    bookingsEntries: gauge('bookings_entries', 'Requests that are counted as load'),
    bookingRefusals: counter('booking_refusals_total', 'Requests that were not counted as load, or without their blocks, because a bound was reached'),
    indexRefusals: counter('index_refusals_total', 'Events and assumed prompts that the prefix index refused because it is full'),
    assumedBlocksEvicted: counter('assumed_blocks_evicted_total', "Assumed blocks given up because a worker's capacity was used up"),
    assumedBlocksPruned: counter('assumed_blocks_pruned_total', 'Assumed blocks given up because there were more than --router-max-tree-size'),
    indexEvictions: counter('index_evictions_total', 'Blocks of workers that the prefix index forgot to stay within --index-memory'),
    sessionAffinityEntries: gauge('session_affinity_entries', 'Sessions that are bound to a worker, over all pools'),
    sharedCacheObjects: gauge('shared_cache_objects', 'Objects that a shared cache is known to hold'),
    sharedCacheGaps: counter('shared_cache_gaps_total', 'Gaps in the events of a shared cache, each of which forgets its objects'),
    sharedCacheOverflows: counter('shared_cache_overflows_total', 'How often too many objects of a shared cache made all be forgotten'),
    sharedCacheBadMessages: counter('shared_cache_bad_messages_total', 'Messages of a shared cache that could not be read'),
    setAsideInstances: gauge('set_aside_instances', 'Workers that get no requests because one failed there'),
    blockSizeMismatchWorkers: gauge('block_size_mismatch_workers', 'Workers whose block size differs from the one that was set'),
    eventQueueEntries: gauge('event_queue_entries', 'Cache events that wait to be applied'),
    eventQueueDrops: counter('event_queue_drops_total', 'Cache events given up because too many waited'),
    eventGaps: counter('event_gaps_total', 'Gaps in the events of a rank, each recovered from its worker'),
    logDroppedLines: counter('log_dropped_lines_total', 'Log lines given up because their reader was slow'),
    ready: gauge('ready', 'One while requests are served'),
  }
}
