/** What the follower of KV events counts; read by metrics. */
import type { ApplyStatus, KvEventData } from '../../model/kv-event.ts'
import type { WorkerRank } from '../../model/worker.ts'
import { createCursorStats } from './rank-cursor.ts'
import type { CursorStats } from './rank-cursor.ts'
import type { RecoveryPhase, RecoveryStats } from './recovery.ts'
import type { ReuseStep } from './reuse-watch.ts'

/** Why a batch of events was dropped whole. */
export const batchDropReasons = ['queue_full', 'malformed', 'unknown_source', 'ambiguous_source', 'unexpected_rank', 'foreign_rank'] as const
export type BatchDropReason = (typeof batchDropReasons)[number]

const applyStatuses: readonly ApplyStatus[] = [
  'ok', 'parent_block_not_found', 'block_not_found', 'invalid_block', 'capacity_exhausted', 'unsupported_residency_domain',
]

/** Counters; they only grow. */
export interface KvStateCounters {
  /** Batches received, dropped ones included. */
  batches: number
  readonly applied: Readonly<Record<KvEventData['kind'], Record<ApplyStatus, number>>>
  readonly dropped: Record<BatchDropReason, number>
  /** Source records that could not be used. */
  malformedSources: number
  /** Times that a rank's blocks were forgotten. */
  resets: number
  readonly cursor: CursorStats
  /** Answers with less of the prompt in the cache than expected, by what they led to. */
  readonly shortfalls: Record<Exclude<ReuseStep, 'none'>, number>
}

export interface KvStateStats extends Readonly<KvStateCounters> {
  readonly recoveries: Readonly<RecoveryStats>
  /** Gauges. */
  readonly sources: number
  readonly ambiguousRanks: number
  /** Sources of a worker or rank that discovery does not know. */
  readonly unexpectedSources: number
  readonly approximateRanks: number
  /** Live events that wait for a recovery. */
  readonly buffered: number
  readonly queuedBatches: number
  readonly queuedBytes: number
}

/** A recovery on its way. */
export interface RecoveryProgress {
  readonly rank: WorkerRank
  readonly phase: RecoveryPhase
  readonly attempts: number
  /** Null: a full dump. */
  readonly startEventId: bigint | null
  readonly appliedEvents: number
  /** Null before the answer came. */
  readonly totalEvents: number | null
  readonly durationMs: number
}

const statusCounts = (): Record<ApplyStatus, number> =>
  Object.fromEntries(applyStatuses.map((status) => [status, 0])) as Record<ApplyStatus, number>

export const createKvStateCounters = (): KvStateCounters => ({
  batches: 0,
  applied: { stored: statusCounts(), removed: statusCounts(), cleared: statusCounts() },
  dropped: Object.fromEntries(batchDropReasons.map((reason) => [reason, 0])) as Record<BatchDropReason, number>,
  malformedSources: 0, resets: 0, cursor: createCursorStats(), shortfalls: { tail: 0, dump: 0, lose: 0 },
})
