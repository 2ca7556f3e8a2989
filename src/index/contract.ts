/** What every prefix index offers. Implementations run the same contract suite. */
import type { HashList } from '../model/hash-list.ts'
import type { ApplyStatus, KvEventData, StorageTier } from '../model/kv-event.ts'
import type { RankSlot } from '../model/worker.ts'

/**
 * Overlap of one query with every rank, in dense arrays indexed by rank slot; reused from query to query.
 *
 * Shape: `device[slot]` = prefix blocks on the device; `host[slot]`, `disk[slot]` = blocks added beyond by that tier
 * (disk and external together). Entries of slots that the query did not reach are 0. Slots beyond the arrays are 0.
 */
export interface OverlapScores {
  device: Uint32Array
  host: Uint32Array
  disk: Uint32Array
  /** Number of leading entries in use. */
  slotCount: number
}

/** The prefix index of one pool: which rank holds which prefix, per tier. One writer; queries between events. */
export interface PrefixIndex {
  /** Applies one event of one rank. Ranks are independent of each other. Never throws for what a publisher can send. */
  apply(slot: RankSlot, tier: StorageTier, data: KvEventData): ApplyStatus
  /** Overlap of a prompt's local block hashes with every rank. */
  find(localHashes: HashList, scores: OverlapScores): void
  /** A rank's own names of the leading blocks of a prompt that it holds on the device and, further, in host memory. Cost: as `find` for one rank. */
  prefixNames(slot: RankSlot, localHashes: HashList): HashList
  /** Forgets everything of a rank, in all tiers. Afterwards the slot may be used again. */
  dropRank(slot: RankSlot): void
  /** Blocks owned by a rank in a tier. */
  blockCount(slot: RankSlot, tier: StorageTier): number
  /** Entries in all tiers and ranks, and bytes reserved for them. */
  readonly entryCount: number
  readonly bytesReserved: number
  /** Stored events of a rank, parents before children, as a full dump. */
  dump(slot: RankSlot): readonly { readonly tier: StorageTier; readonly data: KvEventData }[]
}

/**
 * A prefix index that also takes routing decisions, for ranks that publish no events (approximate mode, router-algorithm 6).
 *
 * A rank is fed either by events or by decisions; whoever changes that calls `dropRank` first.
 */
export interface ApproximatePrefixIndex extends PrefixIndex {
  /**
   * Notes that a prompt was routed to a rank: its blocks count as held on the device until `ttlMs` after `nowMs`,
   * rounded up to 100 ms. Recording again sets it anew. Both lists have one hash per complete block.
   */
  record(slot: RankSlot, localHashes: HashList, sequenceHashes: HashList, nowMs: number): ApplyStatus
  /** When a rank's recorded blocks end, by the lists of their hashes; 0 for what is not recorded. Units: ms, rounded up to 100. Cost: looks at all that is recorded. */
  recordedEnds(slot: RankSlot, lists: readonly HashList[]): Float64Array[]
  /** Forgets recorded blocks whose time is over; returns how many expiries were due. `nowMs` never runs back. */
  expire(nowMs: number): number
  /** Forgets recorded blocks before their time, those whose time is over first, until `count` are left; returns how many went. */
  prune(count: number): number
  /** Recorded (rank, block) pairs that wait for their expiry. */
  readonly recordedCount: number
  /** (rank, block) pairs forgotten to stay within `bytesMax`. */
  readonly evictedCount: number
  /** Events and recordings refused because a bound was reached. */
  readonly capacityRefusals: number
}

/** Bounds of one index. */
export interface PrefixIndexOptions {
  /** Most (rank, block) pairs, and most records kept for them. Beyond, stores answer `capacity_exhausted`. Default 64 Mi. */
  readonly entriesMax?: number
  /**
   * Bytes that the index may reserve; least-used ends of prompts go first, see the README of this folder. Reserved memory is only
   * asked for in steps, so seven eighths are used; below 8 MiB the steps
   * are too large for it to be kept. Default: no budget.
   */
  readonly bytesMax?: number
  /** Life of recorded blocks in milliseconds. Default 120 000. */
  readonly ttlMs?: number
}
