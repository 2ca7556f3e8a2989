/** The router's heart as the services see it. `KvRouter` (kv-router.ts) implements it. */
import type { Decision, OnDecided, Parked, Refusal } from '../model/decision.ts'
import type { OverloadThresholds } from '../load/overload-monitor.ts'
import type { DurationPoint } from '../load/prefill-durations.ts'
import type { HashList } from '../model/hash-list.ts'
import type { ApplyStatus, RouterEvent, StorageTier } from '../model/kv-event.ts'
import type { RouterConfigOverride, RoutingRequest } from '../model/routing-request.ts'
import type { WorkerDescription, WorkerId, WorkerRank, WorkerRole } from '../model/worker.ts'
import type { SharedHits } from '../model/shared-cache.ts'
import type { Clock, Random, SharedCache } from '../ports.ts'
import type { Bookings } from './bookings.ts'
import type { RankBlocks } from './rank-blocks.ts'
import type { RemoteOverlap } from './remote-overlap.ts'
import type { QueueListener, QueueReport, QueueSettings } from './admission.ts'
import type { PolicyPlaces } from '../policies/policy-slot.ts'
import type { SelectionMode } from '../scheduling/mode-choice.ts'
import type { SelectionPolicySettings } from '../scheduling/selection-policy.ts'

/** Settings of one router, already validated. Names follow Dynamo's options. */
export interface RouterSettings {
  readonly blockSize: number
  readonly isEagle: boolean
  /** Role of the pool; a plain `decode` pool is routed by load alone. */
  readonly role: WorkerRole
  /** How workers are chosen instead of by cost; left out: by cost. Caches are then not looked at. */
  readonly selectionMode?: SelectionMode
  /** The named policy that chooses; left out: the builtin cost with the settings below. */
  readonly selectionPolicy?: SelectionPolicySettings
  readonly overlapScoreCredit: number
  readonly overlapScoreCreditDecay: number
  readonly prefillLoadScale: number
  readonly decodeActiveRequestWeight: number
  readonly hostCacheHitWeight: number
  readonly diskCacheHitWeight: number
  readonly temperature: number
  readonly useKvEvents: boolean
  readonly trackActiveBlocks: boolean
  readonly trackOutputBlocks: boolean
  readonly assumeKvReuse: boolean
  readonly trackPrefillTokens: boolean
  readonly tracking: TrackingHashSettings
  readonly ttlSeconds: number
  /** Blocks of a routed request count before their event arrives, for this long; null: not. */
  readonly predictedTtlSeconds: number | null
  /** How assumed blocks age: by time, or, where a worker tells its capacity, when room is needed. */
  readonly approximateCachePolicy: 'ttl' | 'lru'
  /** Bytes that the index may reserve (where blocks are predicted, two indexes, each so many); null or left out: no budget. */
  readonly indexMemoryBytes?: number | null
  /** Most assumed blocks that age by time; null: no bound. */
  readonly maxTreeSize: number | null
  /** Share of `maxTreeSize` that pruning leaves. */
  readonly pruneTargetRatio: number
  /** How prompt work decays while it is done; null: it counts whole until it is done. */
  readonly prefillLoadModel: PrefillLoadModel | null
  /** What a block in a shared cache is worth beside one on the device; null: 0.5 where there is such a cache. */
  readonly sharedCacheMultiplier: number | null
  /** A booking without a sign of life for this long is dropped. */
  readonly activeRequestExpirySeconds: number
  /** Busy thresholds; null = off. Source: router-algorithm 9.6. */
  readonly activeDecodeBlocksThreshold: number | null
  readonly activePrefillTokensThreshold: number | null
  readonly activePrefillTokensThresholdFraction: number | null
  /** How requests wait while every worker is busy; left out: they do not. */
  readonly queue?: QueueSettings
}

/** Settings that may change while the router runs: the cost, named policies, and how requests wait. */
export type ChangeableSettings = Partial<Pick<RouterSettings,
  | 'overlapScoreCredit' | 'overlapScoreCreditDecay' | 'prefillLoadScale' | 'decodeActiveRequestWeight' | 'hostCacheHitWeight' | 'diskCacheHitWeight'
  | 'sharedCacheMultiplier' | 'temperature' | 'selectionPolicy' | 'queue'
>>

/** Where expected durations of prompts come from: a table, or what was measured. */
export type PrefillLoadModel = { readonly kind: 'measured' } | { readonly kind: 'table'; readonly points: readonly DurationPoint[] }

export type TrackingHashSettings =
  | { readonly mode: 'public-xxh3-v1' }
  | { readonly mode: 'keyed-xxh3-v1'; readonly key: Uint8Array; readonly keyId: string; readonly routingGroup: string }

export interface OverlapRow extends WorkerRank {
  readonly deviceBlocks: number
  readonly hostExtensionBlocks: number
  readonly diskExtensionBlocks: number
}

export interface OverlapReport {
  readonly blockSize: number
  /** Complete blocks of the prompt. */
  readonly blockCount: number
  /** One row per registered rank, zeros included, sorted by worker id, then rank. */
  readonly rows: readonly OverlapRow[]
  /** What a cache shared by all workers holds of the prompt; null: there is none, or it was not asked for. */
  readonly shared: SharedHits | null
}

export interface LoadRow extends WorkerRank {
  readonly activePrefillTokens: number
  readonly activeDecodeBlocks: number
  readonly activeRequests: number
  readonly cachedBlocks: number
}

/** Told of everything the router does; logs, metrics and journals are listeners. All members optional, none may throw. */
export interface RouterListener extends QueueListener {
  onDecision?(decision: Decision, request: RoutingRequest): void
  onRefusal?(refusal: Refusal, request: RoutingRequest): void
  onEventApplied?(kind: 'stored' | 'removed' | 'cleared', tier: StorageTier, status: ApplyStatus): void
  /** A worker is new, or its ranks have changed. */
  onWorkerAdded?(worker: WorkerDescription): void
  onWorkerRemoved?(workerId: WorkerId): void
  onBookingExpired?(requestId: string, rank: WorkerRank): void
  /** A rank changed between event-driven and approximate indexing; an approximate rank that its worker gave up says `events` last. */
  onIndexMode?(rank: WorkerRank, mode: 'events' | 'approximate'): void
}

export interface KvRouterPorts {
  readonly clock: Clock
  readonly random: Random
  /** A cache that all workers share; left out: none. */
  readonly sharedCache?: SharedCache
  /** Another router's index, asked before each call; left out: an own one. */
  readonly remoteOverlap?: RemoteOverlap
  /** Policies of one's own; left out: the built-in policy decides. Not asked where `selectionMode` is set. */
  readonly policies?: PolicyPlaces
  readonly listener?: RouterListener
}

/** The router: a pure function with memory. No method awaits, throws for bad requests, or does I/O. */
export interface Router {
  readonly settings: RouterSettings
  /** Adds a worker, or applies a changed description; ranks that are gone are dropped. */
  upsertWorker(worker: WorkerDescription): void
  removeWorker(workerId: WorkerId): void
  worker(workerId: WorkerId): WorkerDescription | undefined
  readonly workers: Iterable<WorkerDescription>
  readonly workerCount: number

  /** Applies an event of a known rank. Unknown ranks: `invalid_block`, nothing changes. */
  applyEvent(event: RouterEvent): ApplyStatus
  /** Forgets all blocks of a rank (recovery, source gone). */
  resetRank(rank: WorkerRank): void
  /** Blocks of a rank, whole: to be kept elsewhere, and to be put back. */
  readonly rankBlocks: Pick<RankBlocks, 'dump' | 'assume' | 'lives' | 'isApproximate' | 'bounded'>
  /** Whether a rank is fed by its events or by routing decisions (approximate). */
  setIndexMode(rank: WorkerRank, mode: 'events' | 'approximate'): void

  /** Chooses without any change of state. */
  select(request: RoutingRequest): Decision | Refusal
  /** Chooses and books in one step; an approximate rank records the prompt's blocks. */
  route(request: RoutingRequest): Decision | Refusal
  /**
   * Like `route`, in the order of the queue: at once where a worker has room, else parked. `onDecided` hears of parked requests
   * only, from within another call of this router. `book` false: like `select`, in the order of the queue.
   */
  submit(request: RoutingRequest, onDecided: OnDecided, book?: boolean): Decision | Refusal | Parked
  /** Requests that wait. */
  readonly parkedCount: number
  /** What waits, per policy class; empty when nothing ever does. */
  queueReport(): readonly QueueReport[]
  /** Refuses what waits, and from now on what would have to. */
  closeQueue(): void
  /** First output: the request's prefill tokens are no longer load. Unknown ids: false. */
  prefillCompleted(requestId: string): boolean
  /** More output tokens of a booked request; books output blocks when `trackOutputBlocks`. A sign of life. */
  outputTokens(requestId: string, totalOutputTokens: number, tokens?: readonly number[]): void
  /** Whether `outputTokens` has any use for the tokens themselves. */
  readonly wantsOutputTokens: boolean
  /** Ends a booking. Unknown ids: false. */
  free(requestId: string): boolean

  /** Own bookings for those who share them, and where bookings of other routers are made. */
  readonly bookings: Pick<Bookings, 'listener' | 'bookPeer' | 'peerPrefillCompleted' | 'freePeer' | 'touchPeer' | 'recordPrompt'>

  overlap(query: OverlapQuery): OverlapReport
  loads(): readonly LoadRow[]
  /** Loads of a worker as it says itself (kv_metrics); null leaves the old value. */
  reportLoad(rank: WorkerRank, load: { activeDecodeBlocks: number | null; activePrefillTokens: number | null; kvUsedBlocks: number | null }): void

  /** Other busy thresholds from now on; what workers reported of themselves counts again with their next report. */
  setBusyThresholds(thresholds: OverloadThresholds): void

  /**
   * Other settings from the next decision on, waiting requests included: they keep their place in the order of arrival, and none is
   * refused by a lower limit. Call it also after a policy of one's own was given or taken away.
   */
  changeSettings(changes: ChangeableSettings): void

  /** Drops expired bookings and approximate blocks; call at least every second. */
  tick(): void
  readonly bookingCount: number
  readonly indexEntryCount: number
  readonly indexBytes: number
  readonly boundCounts: BoundCounts
}

/** How often each bound has bitten since the start. */
export interface BoundCounts {
  /** Requests that were routed without being counted as load. */
  readonly refusedBookings: number
  /** Bookings without their prompt blocks. */
  readonly pathlessBookings: number
  readonly refusedIndexEntries: number
  /** Assumed blocks given up because a rank was over its capacity. */
  readonly evictedBlocks: number
  /** Assumed blocks given up because there were more than `maxTreeSize`. */
  readonly prunedBlocks: number
  /** (rank, block) pairs forgotten because the index had used up its memory. */
  readonly memoryEvictions: number
}

export interface OverlapQuery {
  readonly tokens: Uint32Array
  /** Its local hashes, where they are known: then tokens are not read. */
  readonly local?: HashList
  readonly loraName?: string
  readonly cacheNamespace?: string
  readonly blockMmInfos?: RoutingRequest['blockMmInfos']
  /** False: a shared cache is not asked. */
  readonly includeShared?: boolean
  /** Rows of this worker only. */
  readonly workerId?: WorkerId
}

export type { HashList, RouterConfigOverride }
