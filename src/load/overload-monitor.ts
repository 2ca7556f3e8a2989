/** Busy thresholds: which ranks are so loaded that no new request may go there. Source: router-algorithm 9.6. */
import type { RankSlot } from '../model/worker.ts'
import { grownFloat64, grownUint8 } from './typed-arrays.ts'

/** Thresholds; null = off. */
export interface OverloadThresholds {
  /** Part of the rank's KV blocks, 0..1. */
  readonly decodeBlocks: number | null
  readonly prefillTokens: number | null
  /** Part of `max_num_batched_tokens`. */
  readonly prefillTokensFraction: number | null
}

/** What the rank can hold; null = unknown. */
export interface RankCapacity {
  readonly totalKvBlocks: number | null
  readonly maxNumBatchedTokens: number | null
}

/** Taken for `max_num_batched_tokens` when a worker does not tell it. */
export const defaultPrefillTokenCapacity = 10_000_000

const unknown = -1

/** Latched overload state per rank slot, from own bookings and from what workers report. Signals that were never seen count as free. */
export class OverloadMonitor {
  readonly #thresholds: OverloadThresholds
  readonly enabled: boolean
  #decodeBlocks = new Float64Array(0)
  #kvUsedBlocks = new Float64Array(0)
  #prefillTokens = new Float64Array(0)
  #decodeLimit = new Float64Array(0)
  #prefillLimit = new Float64Array(0)
  #latched = new Uint8Array(0)

  constructor(thresholds: OverloadThresholds) {
    this.#thresholds = thresholds
    this.enabled =
      thresholds.decodeBlocks !== null || thresholds.prefillTokens !== null || thresholds.prefillTokensFraction !== null
  }

  /** Starts or changes a rank; a new rank has no observations. */
  setRank(slot: RankSlot, capacity: RankCapacity, isNew: boolean): void {
    if (!this.enabled) return
    if (slot >= this.#latched.length) this.#grow(slot + 1)
    const { decodeBlocks, prefillTokens, prefillTokensFraction } = this.#thresholds
    this.#decodeLimit[slot] =
      decodeBlocks === null || capacity.totalKvBlocks === null ? Infinity : decodeBlocks * capacity.totalKvBlocks
    const byFraction = prefillTokensFraction === null
      ? Infinity
      : Math.floor(prefillTokensFraction * (capacity.maxNumBatchedTokens ?? defaultPrefillTokenCapacity))
    this.#prefillLimit[slot] = Math.min(prefillTokens ?? Infinity, byFraction)
    if (isNew) {
      this.#decodeBlocks[slot] = unknown
      this.#kvUsedBlocks[slot] = unknown
      this.#prefillTokens[slot] = unknown
      this.#latched[slot] = 0
    } else this.#updateLatch(slot)
  }

  /** Takes new signals of a rank; null leaves the old value. */
  observe(slot: RankSlot, decodeBlocks: number | null, prefillTokens: number | null, kvUsedBlocks: number | null): void {
    if (!this.enabled || slot >= this.#latched.length) return
    if (decodeBlocks !== null) this.#decodeBlocks[slot] = decodeBlocks
    if (prefillTokens !== null) this.#prefillTokens[slot] = prefillTokens
    if (kvUsedBlocks !== null) this.#kvUsedBlocks[slot] = kvUsedBlocks
    this.#updateLatch(slot)
  }

  /** Whether a rank is above a threshold. A worker is overloaded when all its ranks are. */
  isOverloaded(slot: RankSlot): boolean {
    if (!this.enabled) return false
    return this.#latched[slot] === 1 || this.#prefillTokens[slot]! > this.#prefillLimit[slot]!
  }

  #updateLatch(slot: RankSlot): void {
    const limit = this.#decodeLimit[slot]!
    const blocks = this.#decodeBlocks[slot]!
    const used = this.#kvUsedBlocks[slot]!
    if (blocks > limit || used > limit) this.#latched[slot] = 1
    else if (blocks < limit && used < limit) this.#latched[slot] = 0
  }

  #grow(count: number): void {
    this.#decodeBlocks = grownFloat64(this.#decodeBlocks, count)
    this.#kvUsedBlocks = grownFloat64(this.#kvUsedBlocks, count)
    this.#prefillTokens = grownFloat64(this.#prefillTokens, count)
    this.#decodeLimit = grownFloat64(this.#decodeLimit, count)
    this.#prefillLimit = grownFloat64(this.#prefillLimit, count)
    this.#latched = grownUint8(this.#latched, count)
  }
}
