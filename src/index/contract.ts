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
