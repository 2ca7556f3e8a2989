/** Storage for the result of one index query. */
import type { OverlapScores } from './contract.ts'

/** Scores for slots `[0, slotCapacity)`; reused from query to query, so that a query allocates nothing. */
export function createOverlapScores(slotCapacity: number): OverlapScores {
  return {
    device: new Uint32Array(slotCapacity),
    host: new Uint32Array(slotCapacity),
    disk: new Uint32Array(slotCapacity),
    slotCount: slotCapacity,
  }
}

/** Grows `scores` in place to hold at least `slotCapacity` slots; values are zero afterwards. */
export function growOverlapScores(scores: OverlapScores, slotCapacity: number): void {
  if (scores.device.length < slotCapacity) {
    const length = Math.max(slotCapacity, 2 * scores.device.length)
    scores.device = new Uint32Array(length)
    scores.host = new Uint32Array(length)
    scores.disk = new Uint32Array(length)
  }
  scores.slotCount = Math.max(scores.slotCount, slotCapacity)
}
