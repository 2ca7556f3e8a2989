/** What a pool's ranks hold as the router knows it: by their events, by its own decisions, or by both. Source: router-algorithm 4 to 6. */
import type { ApproximatePrefixIndex, OverlapScores } from '../index/contract.ts'
import { createOverlapScores } from '../index/overlap-scores.ts'
import { createPrefixIndex } from '../index/prefix-index.ts'
import type { HashList } from '../model/hash-list.ts'
import type { ApplyStatus, KvEventData, StorageTier } from '../model/kv-event.ts'
import type { RankSlot } from '../model/worker.ts'

export type IndexMode = 'events' | 'approximate'

/** How blocks that the router assumes age. */
export interface PoolIndexSettings {
  readonly ttlSeconds: number
  /** Null: blocks of ranks with events count when their event arrives. */
  readonly predictedTtlSeconds: number | null
}

/**
 * The prefix index of a pool and, beside it, the blocks that were routed to ranks with events but not yet reported.
 *
 * A predicted block counts on the device until its time is over; tiers below go on from the reported blocks alone.
 */
export class PoolIndex {
  readonly #main: ApproximatePrefixIndex
  readonly #predicted: ApproximatePrefixIndex | null
  readonly #predictedScores: OverlapScores = createOverlapScores(16)
  /** Ranks fed by routing decisions. */
  readonly #approximate = new Set<RankSlot>()

  constructor(settings: PoolIndexSettings) {
    this.#main = createPrefixIndex({ ttlMs: 1000 * settings.ttlSeconds })
    this.#predicted = settings.predictedTtlSeconds === null ? null : createPrefixIndex({ ttlMs: 1000 * settings.predictedTtlSeconds })
  }

  isApproximate(slot: RankSlot): boolean {
    return this.#approximate.has(slot)
  }

  /** Ranks fed by routing decisions. */
  get approximateCount(): number {
    return this.#approximate.size
  }

  /** Changes how a rank is fed and forgets its blocks; false when it is fed so already. */
  setMode(slot: RankSlot, mode: IndexMode): boolean {
    if (this.#approximate.has(slot) === (mode === 'approximate')) return false
    this.clear(slot)
    if (mode === 'approximate') this.#approximate.add(slot)
    else this.#approximate.delete(slot)
    return true
  }

  /** One event of a rank that is fed by events. */
  apply(slot: RankSlot, tier: StorageTier, data: KvEventData): ApplyStatus {
    if (data.kind === 'cleared') {
      this.clear(slot)
      return 'ok'
    }
    return this.#main.apply(slot, tier, data)
  }

  /** Overlap of a prompt with every rank. */
  find(local: HashList, scores: OverlapScores): void {
    this.#main.find(local, scores)
    if (this.#predicted !== null && this.#predicted.entryCount > 0) this.#addPredicted(this.#predicted, local, scores)
  }

  #addPredicted(index: ApproximatePrefixIndex, local: HashList, scores: OverlapScores): void {
    const predicted = this.#predictedScores
    index.find(local, predicted)
    growScores(scores, predicted.slotCount)
    for (let slot = 0; slot < predicted.slotCount; slot++) {
      if (predicted.device[slot]! > scores.device[slot]!) scores.device[slot] = predicted.device[slot]!
    }
  }

  /** Whether `record` has any use for a prompt that goes to this rank. */
  wantsRecord(slot: RankSlot): boolean {
    return this.#predicted !== null || this.#approximate.has(slot)
  }

  /** Notes that a prompt was routed to a rank. `sequence`: its public sequence hashes. */
  record(slot: RankSlot, local: HashList, sequence: HashList, nowMs: number): void {
    const index = this.#approximate.has(slot) ? this.#main : this.#predicted
    index?.record(slot, local, sequence, nowMs)
  }

  /** Forgets all blocks of a rank, reported and assumed. */
  clear(slot: RankSlot): void {
    this.#main.dropRank(slot)
    this.#predicted?.dropRank(slot)
  }

  /** Forgets a rank for good: its slot may be used again. */
  drop(slot: RankSlot): void {
    this.clear(slot)
    this.#approximate.delete(slot)
  }

  /** Forgets assumed blocks whose time is over. */
  expire(nowMs: number): void {
    this.#main.expire(nowMs)
    this.#predicted?.expire(nowMs)
  }

  deviceBlocks(slot: RankSlot): number {
    return this.#main.blockCount(slot, 'device')
  }

  get entryCount(): number {
    return this.#main.entryCount + (this.#predicted?.entryCount ?? 0)
  }

  get bytesReserved(): number {
    return this.#main.bytesReserved + (this.#predicted?.bytesReserved ?? 0)
  }

  get capacityRefusals(): number {
    return this.#main.capacityRefusals + (this.#predicted?.capacityRefusals ?? 0)
  }
}

/** Makes room for slots that only the predicted index has reached; values in use stay. */
function growScores(scores: OverlapScores, slotCount: number): void {
  if (scores.slotCount >= slotCount) return
  if (scores.device.length < slotCount) {
    for (const name of ['device', 'host', 'disk'] as const) {
      const grown = new Uint32Array(2 * slotCount)
      grown.set(scores[name].subarray(0, scores.slotCount))
      scores[name] = grown
    }
  }
  for (const name of ['device', 'host', 'disk'] as const) scores[name].fill(0, scores.slotCount, slotCount)
  scores.slotCount = slotCount
}
