/**
 * Prompt work that shrinks while it is done: of each rank's prompts the oldest is taken to be in work. Source: router-algorithm 8.
 *
 * Only that one, the anchor, decays, and by no more than its own tokens. A prompt that ends out of turn was computed along with it:
 * the anchor's time is moved forward by what that one was expected to take.
 */
import type { RankSlot } from '../model/worker.ts'
import type { PrefillDurations } from './prefill-durations.ts'

interface Prefill {
  readonly slot: RankSlot
  readonly tokens: number
  readonly expectedMs: number | null
}

interface RankPrefills {
  /** In order of arrival; the first is the anchor. */
  readonly byId: Map<string, Prefill>
  anchorStartMs: number
  unmodelled: number
}

/** Bounds: one entry per booking with prompt work. */
export class PrefillDecay {
  readonly #durations: PrefillDurations
  readonly #slotOf = new Map<string, RankSlot>()
  readonly #ranks = new Map<RankSlot, RankPrefills>()

  constructor(durations: PrefillDurations) {
    this.#durations = durations
  }

  get activeCount(): number {
    return this.#slotOf.size
  }

  /** A booked prompt of `tokens` > 0 that the rank must compute. */
  begin(requestId: string, slot: RankSlot, tokens: number, nowMs: number): void {
    if (this.#slotOf.has(requestId)) return
    let rank = this.#ranks.get(slot)
    if (rank === undefined) this.#ranks.set(slot, rank = { byId: new Map(), anchorStartMs: nowMs, unmodelled: 0 })
    if (rank.byId.size === 0) rank.anchorStartMs = nowMs
    const expected = this.#durations.expectedMs(slot, tokens)
    const expectedMs = expected !== null && expected > 0 ? expected : null
    if (expectedMs === null) rank.unmodelled += 1
    rank.byId.set(requestId, { slot, tokens, expectedMs })
    this.#slotOf.set(requestId, slot)
  }

  /** The prompt is computed (`isComplete`), or given up. Unknown ids: nothing. */
  end(requestId: string, isComplete: boolean, nowMs: number): void {
    const slot = this.#slotOf.get(requestId)
    const rank = slot === undefined ? undefined : this.#ranks.get(slot)
    const prefill = rank?.byId.get(requestId)
    if (slot === undefined || rank === undefined || prefill === undefined) return
    const isAnchor = rank.byId.keys().next().value === requestId
    this.#slotOf.delete(requestId)
    rank.byId.delete(requestId)
    if (prefill.expectedMs === null) rank.unmodelled -= 1
    if (isAnchor) {
      if (isComplete) this.#durations.observed(slot, prefill.tokens, nowMs - rank.anchorStartMs)
      rank.anchorStartMs = nowMs
    } else if (prefill.expectedMs !== null) rank.anchorStartMs = Math.min(nowMs, rank.anchorStartMs + prefill.expectedMs)
  }

  /** Prompt tokens that a rank still has to compute. `total`: of all its prompts, as booked. */
  remaining(slot: RankSlot, total: number, nowMs: number): number {
    const rank = this.#ranks.get(slot)
    const anchor = rank?.byId.values().next().value
    if (rank === undefined || anchor === undefined || anchor.expectedMs === null) return total
    const share = Math.min(1, Math.max(0, nowMs - rank.anchorStartMs) / anchor.expectedMs)
    if (rank.unmodelled === 0) return total - Math.floor(anchor.tokens * share)
    return total - anchor.tokens + Math.ceil(anchor.tokens * (1 - share))
  }

  /** Forgets a rank. */
  dropSlot(slot: RankSlot): void {
    const rank = this.#ranks.get(slot)
    if (rank !== undefined) for (const requestId of rank.byId.keys()) this.#slotOf.delete(requestId)
    this.#ranks.delete(slot)
    this.#durations.dropSlot(slot)
  }
}
