/**
 * The router's knowledge of its workers' caches: event sources are discovered, their events ordered and applied to a sink.
 *
 * Events wait in one bounded queue and are applied in slices of a few milliseconds. What is lost, by the network or because
 * the queue is full, is seen as a gap and asked for from the worker.
 */
import { MsgpackError } from '../../msgpack/cursor.ts'
import type { ApplyStatus, RouterEvent } from '../../model/kv-event.ts'
import type { WorkerDescription, WorkerId, WorkerRank } from '../../model/worker.ts'
import type {
  Clock, Discovery, DiscoveryEvent, EndpointId, EventEnvelope, EventPlane, Log, Random, RequestPlaneClient, TimerHandle, Watch,
} from '../../ports.ts'
import { componentScope, eventTopicPrefix, publisherIdOfKey } from '../event-plane/event-keys.ts'
import { KvEventDecoder } from '../wire/kv-event-batch.ts'
import type { KvEventBatch } from '../wire/kv-event-batch.ts'
import { WireError } from '../wire/wire-error.ts'
import { BudgetedLoop } from './budgeted-loop.ts'
import { decodeEventSource, kvEventsTopic } from './event-source.ts'
import type { EventSource } from './event-source.ts'
import { FollowedRank } from './followed-rank.ts'
import type { IndexMode, KeptBlocks, RankContext } from './followed-rank.ts'
import { followOlderSources } from './older-sources.ts'
import { createKvStateCounters } from './kv-state-stats.ts'
import type { KvStateCounters, KvStateStats, RecoveryProgress } from './kv-state-stats.ts'
import type { RankCursor } from './rank-cursor.ts'
import { RecoveryScheduler } from './recovery.ts'
import type { RecoveryLimits } from './recovery.ts'
import type { RecoveryTask } from './recovery-task.ts'
import type { ReuseReport } from './reuse-watch.ts'

/** Where events end up: a router. */
export interface KvStateSink {
  applyEvent(event: RouterEvent): ApplyStatus
  resetRank(rank: WorkerRank): void
  setIndexMode(rank: WorkerRank, mode: IndexMode): void
}

export interface KvStateFollowerParts {
  /** The worker endpoint, the scope of sources and topics. */
  readonly endpoint: EndpointId
  readonly discovery: Discovery
  readonly plane: EventPlane
  /** Started by the caller. */
  readonly client: RequestPlaneClient
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly sink: KvStateSink
  readonly limits?: Partial<KvStateLimits>
  /** What was kept of a rank whose source cannot be asked; left out: nothing is. */
  takeKept?(rank: WorkerRank): KeptBlocks | null
}

export interface KvStateLimits extends RecoveryLimits {
  /** A worker without a usable source for so long is indexed approximately. */
  readonly graceMs: number
  /** A source that is quiet for so long is asked whether its last events were lost, and ever more rarely while it stays quiet; 0: never. */
  readonly quietMs: number
  /** Time of one slice of applying events. */
  readonly budgetMs: number
  readonly queuedBatchesMax: number
  readonly queuedBytesMax: number
  readonly sourcesMax: number
}

const defaults = {
  graceMs: 5000, quietMs: 1500, budgetMs: 2, queuedBatchesMax: 32_768, queuedBytesMax: 64 * 1024 * 1024, sourcesMax: 65_536,
}

export interface KvStateFollower {
  /** Begins to watch sources and to subscribe. */
  start(): void
  /** A worker is known, or its description has changed. Tell the sink first. */
  upsertWorker(worker: WorkerDescription): void
  /** A worker is gone; the sink must have dropped it. */
  removeWorker(workerId: WorkerId): void
  /** A call to a worker has failed: its ranks are asked whether they still hold what is known of them. */
  doubt(workerId: WorkerId, sign: DoubtSign): void
  /** What an answer of a rank says of its cache, against what was expected of it. */
  reused(rank: WorkerRank, report: ReuseReport): void
  /** A durable event. `unknown`: its rank is not known yet; `refused`: the rank has a source of its own. */
  applyDurable(event: RouterEvent): 'applied' | 'unknown' | 'refused'
  /** A rank was indexed approximately before a restart. */
  wasApproximate(rank: WorkerRank): void
  /** Newest event of a rank whose source cannot be asked; null: it has no such source. */
  liveOnlyEventId(rank: WorkerRank): bigint | null
  /** Ranks that are fed by durable events. */
  durableRanks(): readonly WorkerRank[]
  /** Counters and gauges as of now. */
  stats(): KvStateStats
  /** The recoveries that run or wait. */
  recoveries(): readonly RecoveryProgress[]
  close(): void
}

/** How a call failed: `unreachable` when nobody listens at the worker's address, `disconnected` when a connection ended. */
export type DoubtSign = 'failed' | 'disconnected' | 'unreachable'

export const createKvStateFollower = (parts: KvStateFollowerParts): KvStateFollower => new Follower(parts)

interface Queued {
  readonly envelope: EventEnvelope
  /** Came in the form of 1.1 and 1.3: the payload alone says whose it is. */
  readonly isOlder: boolean
}

interface Batch {
  readonly cursor: RankCursor
  readonly rank: FollowedRank
  /** Of the follower's decoder: only one batch is in work at a time. */
  readonly events: KvEventBatch
  position: number
}

const quietSweepMs = 500

class Follower implements KvStateFollower {
  readonly #parts: KvStateFollowerParts
  readonly #limits: typeof defaults
  readonly #counters: KvStateCounters = createKvStateCounters()
  readonly #scheduler: RecoveryScheduler
  readonly #context: RankContext
  readonly #loop: BudgetedLoop
  readonly #ranks = new Map<string, FollowedRank>()
  readonly #workers = new Map<WorkerId, WorkerDescription>()
  readonly #rankByPublisher = new Map<bigint, FollowedRank>()
  readonly #tasks: RecoveryTask[] = []
  readonly #watches: Watch[] = []
  /** Workers whose approximate indexing was logged. */
  readonly #approximateLogged = new Set<WorkerId>()
  #queue: Queued[] = []
  #queueHead = 0
  #queuedBytes = 0
  #batch: Batch | null = null
  readonly #decoder = new KvEventDecoder()
  #nextTask = 0
  #sweep: TimerHandle | null = null

  constructor(parts: KvStateFollowerParts) {
    const { clock, random, log, client, sink } = parts
    this.#parts = parts
    this.#limits = { ...defaults, ...parts.limits }
    this.#scheduler = new RecoveryScheduler({ client, clock, random, log, ...(parts.limits === undefined ? {} : { limits: parts.limits }) })
    this.#loop = new BudgetedLoop({ clock, budgetMs: this.#limits.budgetMs, sources: [() => this.#stepEvents(), () => this.#stepRecoveries()] })
    this.#context = {
      clock, log, scheduler: this.#scheduler, cursorStats: this.#counters.cursor, graceMs: this.#limits.graceMs, quietMs: this.#limits.quietMs,
      apply: (event) => { this.#counters.applied[event.data.kind][sink.applyEvent(event)] += 1 },
      reset: (rank) => {
        this.#counters.resets += 1
        sink.resetRank(rank)
      },
      setMode: (rank, mode, reason) => this.#setMode(rank, mode, reason),
      takeKept: (rank) => parts.takeKept?.(rank) ?? null,
      addTask: (task) => {
        this.#tasks.push(task)
        this.#loop.wake()
      },
    }
  }

  start(): void {
    const { discovery, plane, endpoint } = this.#parts
    // Subscribed first: events that arrive before their source is known are counted, and part of the first dump.
    this.#watches.push(plane.subscribe(endpoint, kvEventsTopic, (envelope) => this.#enqueue(envelope, false), () => this.#resumed()))
    this.#watches.push(plane.subscribe(componentScope(endpoint), kvEventsTopic, (envelope) => this.#enqueue(envelope, true)))
    this.#watches.push(followOlderSources({
      discovery, endpoint, log: this.#parts.log,
      onSource: (source) => this.#rank(source.rank).setOlder(source),
      onGone: (source) => this.#olderGone(source.rank),
      onUnusable: (key, reason) => this.#refuseSource(key, reason),
    }))
    this.#watches.push(discovery.watch('v1/event_sources', eventTopicPrefix(endpoint, kvEventsTopic), (event) => this.#onRecord(event)))
    this.#armSweep()
  }

  upsertWorker(worker: WorkerDescription): void {
    const before = this.#workers.get(worker.workerId)
    this.#workers.set(worker.workerId, worker)
    if (before !== undefined) {
      for (let dpRank = before.dpStart; dpRank < before.dpStart + before.dpSize; dpRank += 1) {
        if (dpRank < worker.dpStart || dpRank >= worker.dpStart + worker.dpSize) this.#forget({ workerId: worker.workerId, dpRank })
      }
    }
    for (let dpRank = worker.dpStart; dpRank < worker.dpStart + worker.dpSize; dpRank += 1) {
      this.#rank({ workerId: worker.workerId, dpRank }).expect(worker.publishesKvEvents ?? null)
    }
  }

  removeWorker(workerId: WorkerId): void {
    const worker = this.#workers.get(workerId)
    if (worker === undefined) return
    this.#workers.delete(workerId)
    this.#approximateLogged.delete(workerId)
    for (let dpRank = worker.dpStart; dpRank < worker.dpStart + worker.dpSize; dpRank += 1) this.#forget({ workerId, dpRank })
  }

  doubt(workerId: WorkerId, sign: DoubtSign): void {
    const worker = this.#workers.get(workerId)
    if (worker === undefined) return
    for (let dpRank = worker.dpStart; dpRank < worker.dpStart + worker.dpSize; dpRank += 1) this.#ranks.get(rankKey({ workerId, dpRank }))?.doubt(sign)
  }

  reused(rank: WorkerRank, report: ReuseReport): void {
    const step = this.#ranks.get(rankKey(rank))?.reused(report) ?? 'none'
    if (step === 'none') return
    this.#counters.shortfalls[step] += 1
    this.#parts.log.debug({ ...rankFields(rank), step, expected_tokens: report.expectedTokens, reported_tokens: report.reportedTokens }, 'a worker had less of a prompt in its cache than expected')
  }

  applyDurable(event: RouterEvent): 'applied' | 'unknown' | 'refused' {
    const rank = this.#ranks.get(rankKey(event))
    if (rank === undefined || !rank.isExpected) return 'unknown'
    return rank.onDurable(event) ? 'applied' : 'refused'
  }

  wasApproximate(rank: WorkerRank): void {
    this.#ranks.get(rankKey(rank))?.wasApproximate()
  }

  liveOnlyEventId(rank: WorkerRank): bigint | null {
    return this.#ranks.get(rankKey(rank))?.liveOnlyEventId ?? null
  }

  durableRanks(): readonly WorkerRank[] {
    return [...this.#ranks.values()].filter((rank) => rank.isDurable).map(({ rank }) => rank)
  }

  stats(): KvStateStats {
    const gauges = { sources: 0, ambiguousRanks: 0, unexpectedSources: 0, approximateRanks: 0, buffered: 0 }
    for (const rank of this.#ranks.values()) {
      gauges.sources += rank.sourceCount
      if (rank.sources.size > 1) gauges.ambiguousRanks += 1
      if (!rank.isExpected) gauges.unexpectedSources += rank.sourceCount
      if (rank.mode === 'approximate') gauges.approximateRanks += 1
      gauges.buffered += rank.cursor?.bufferedCount ?? 0
    }
    const { batches, applied, dropped, malformedSources, resets, cursor, shortfalls } = this.#counters
    return {
      batches, applied, dropped, malformedSources, resets, cursor, shortfalls, ...gauges, recoveries: { ...this.#scheduler.stats },
      queuedBatches: this.#queue.length - this.#queueHead, queuedBytes: this.#queuedBytes,
    }
  }

  recoveries(): readonly RecoveryProgress[] {
    const nowMs = this.#parts.clock.nowMs()
    const progress: RecoveryProgress[] = []
    for (const { rank, recovery } of this.#ranks.values()) {
      if (recovery === null) continue
      const { phase, attempts, startEventId, appliedEvents, totalEvents } = recovery
      progress.push({ rank, phase, attempts, startEventId, appliedEvents, totalEvents, durationMs: nowMs - recovery.startedAtMs })
    }
    return progress
  }

  close(): void {
    for (const watch of this.#watches.splice(0)) watch.close()
    this.#sweep?.cancel()
    this.#loop.close()
    for (const rank of this.#ranks.values()) rank.forget()
    this.#ranks.clear()
    this.#rankByPublisher.clear()
    this.#workers.clear()
    this.#queue = []
    this.#queueHead = 0
    this.#queuedBytes = 0
    this.#batch = null
  }

  /** Events may have been lost for good. */
  #resumed(): void {
    for (const rank of this.#ranks.values()) rank.resumed()
  }

  #rank(rank: WorkerRank): FollowedRank {
    const key = rankKey(rank)
    let followed = this.#ranks.get(key)
    if (followed === undefined) {
      followed = new FollowedRank({ workerId: rank.workerId, dpRank: rank.dpRank }, this.#context)
      this.#ranks.set(key, followed)
    }
    return followed
  }

  #forget(rank: WorkerRank): void {
    const followed = this.#ranks.get(rankKey(rank))
    followed?.forget()
    if (followed?.isEmpty) this.#ranks.delete(rankKey(rank))
  }

  #onRecord(event: DiscoveryEvent): void {
    if (event.kind === 'synced') return
    if (event.kind === 'delete') {
      const publisherId = publisherIdOfKey(event.key)
      if (publisherId !== null) this.#removeSource(publisherId)
      return
    }
    let source: EventSource
    try {
      source = decodeEventSource(event.value)
    } catch (error) {
      if (!(error instanceof WireError)) throw error
      return this.#refuseSource(event.key, error.message)
    }
    if (publisherIdOfKey(event.key) !== source.publisherId) return this.#refuseSource(event.key, 'key and publisher_id differ')
    const known = this.#rankByPublisher.get(source.publisherId)
    if (known === undefined && this.#rankByPublisher.size >= this.#limits.sourcesMax) return this.#refuseSource(event.key, 'too many sources')
    if (known !== undefined && rankKey(known.rank) !== rankKey(source.rank)) this.#removeSource(source.publisherId)
    const rank = this.#rank(source.rank)
    this.#rankByPublisher.set(source.publisherId, rank)
    rank.putSource(source)
    if (rank.sources.size > 1) {
      this.#parts.log.warn({ ...rankFields(source.rank), sources: rank.sources.size }, 'several event sources claim one rank; its events wait until one is left')
    }
  }

  #refuseSource(key: string, reason: string): void {
    this.#counters.malformedSources += 1
    this.#parts.log.warn({ source: key, reason }, 'event source record not usable')
  }

  #removeSource(publisherId: bigint): void {
    const rank = this.#rankByPublisher.get(publisherId)
    if (rank === undefined) return
    this.#rankByPublisher.delete(publisherId)
    rank.removeSource(publisherId)
    if (rank.isEmpty) this.#ranks.delete(rankKey(rank.rank))
  }

  #olderGone(rank: WorkerRank): void {
    const followed = this.#ranks.get(rankKey(rank))
    followed?.setOlder(null)
    if (followed?.isEmpty) this.#ranks.delete(rankKey(rank))
  }

  #enqueue(envelope: EventEnvelope, isOlder: boolean): void {
    const { queuedBatchesMax, queuedBytesMax } = this.#limits
    this.#counters.batches += 1
    if (this.#queue.length - this.#queueHead >= queuedBatchesMax || this.#queuedBytes + envelope.payload.length > queuedBytesMax) {
      this.#counters.dropped.queue_full += 1
      return
    }
    this.#queue.push({ envelope, isOlder })
    this.#queuedBytes += envelope.payload.length
    this.#loop.wake()
  }

  /** Applies one event of the batch in work, or takes the next batch. */
  #stepEvents(): boolean {
    const batch = this.#batch
    if (batch === null) return this.#takeBatch()
    if (batch.position >= batch.events.length || batch.rank.cursor !== batch.cursor) {
      this.#batch = null
      return true
    }
    batch.position += 1
    batch.rank.onEvent(batch.events.event(batch.position - 1))
    return true
  }

  #takeBatch(): boolean {
    const queued = this.#queue[this.#queueHead]
    if (queued === undefined) return false
    const { envelope } = queued
    this.#queueHead += 1
    if (this.#queueHead === this.#queue.length || this.#queueHead >= 4096) {
      this.#queue = this.#queue.slice(this.#queueHead)
      this.#queueHead = 0
    }
    this.#queuedBytes -= envelope.payload.length
    if (queued.isOlder) {
      this.#batch = this.#openOlder(envelope.payload)
      return true
    }
    const { dropped } = this.#counters
    const rank = this.#rankByPublisher.get(envelope.publisherId)
    if (rank === undefined) dropped.unknown_source += 1
    else if (rank.cursor === null) dropped[rank.sources.size > 1 ? 'ambiguous_source' : 'unexpected_rank'] += 1
    else this.#batch = this.#openBatch(rank, rank.cursor, envelope)
    return true
  }

  #openBatch(rank: FollowedRank, cursor: RankCursor, envelope: EventEnvelope): Batch | null {
    const events = this.#decode(envelope.payload)
    if (events === null) return null
    const { workerId, dpRank } = rank.rank
    if (events.isOf(workerId, dpRank)) return { cursor, rank, events, position: 0 }
    this.#counters.dropped.foreign_rank += 1
    return null
  }

  /** Events in the form of 1.1 and 1.3: of the rank that they name themselves. */
  #openOlder(payload: Uint8Array): Batch | null {
    const events = this.#decode(payload)
    if (events === null || events.length === 0) return null
    const first = events.event(0)
    const { dropped } = this.#counters
    const rank = this.#ranks.get(rankKey(first))
    rank?.heardOlder()
    if (rank === undefined || rank.cursor === null) dropped[rank !== undefined && rank.sourceCount > 1 ? 'ambiguous_source' : 'unexpected_rank'] += 1
    else if (rank.sources.size > 0) dropped.unknown_source += 1
    else if (!events.isOf(first.workerId, first.dpRank)) dropped.foreign_rank += 1
    else return { cursor: rank.cursor, rank, events, position: 0 }
    return null
  }

  #decode(payload: Uint8Array): KvEventBatch | null {
    try {
      return this.#decoder.decode(payload)
    } catch (error) {
      if (!(error instanceof MsgpackError) && !(error instanceof WireError)) throw error
      this.#counters.dropped.malformed += 1
      this.#parts.log.debug({ endpoint: this.#parts.endpoint.endpoint, reason: error.message }, 'KV events not readable')
      return null
    }
  }

  /** One step of one recovery, in turns. */
  #stepRecoveries(): boolean {
    if (this.#tasks.length === 0) return false
    this.#nextTask = this.#nextTask >= this.#tasks.length - 1 ? 0 : this.#nextTask + 1
    const task = this.#tasks[this.#nextTask] as RecoveryTask
    if (!task.step()) this.#tasks.splice(this.#tasks.indexOf(task), 1)
    return true
  }

  #setMode(rank: WorkerRank, mode: IndexMode, reason: string): void {
    this.#parts.sink.setIndexMode(rank, mode)
    const fields = { worker_id: rank.workerId.toString(), reason }
    if (mode === 'events') {
      if (this.#approximateLogged.delete(rank.workerId)) this.#parts.log.info(fields, 'worker is indexed by its KV events again')
    } else if (!this.#approximateLogged.has(rank.workerId)) {
      this.#approximateLogged.add(rank.workerId)
      this.#parts.log.warn(fields, 'worker is indexed approximately, by the requests routed to it: its KV events are not known')
    }
  }

  #armSweep(): void {
    if (this.#limits.quietMs === 0) return
    this.#sweep = this.#parts.clock.setTimer(Math.min(quietSweepMs, this.#limits.quietMs), () => {
      const nowMs = this.#parts.clock.nowMs()
      for (const rank of this.#ranks.values()) rank.checkQuiet(nowMs)
      this.#armSweep()
    })
  }
}

const rankKey = (rank: WorkerRank): string => `${rank.workerId}/${rank.dpRank}`

const rankFields = (rank: WorkerRank) => ({ worker_id: rank.workerId.toString(), dp_rank: rank.dpRank })
