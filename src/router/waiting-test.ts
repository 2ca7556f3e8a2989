/** What the queue asks of collected candidates. Source: router-algorithm 10. */
import { busyLimit, type PolicyClass } from '../queue/policy-profile.ts'
import { defaultPrefillTokenCapacity } from '../load/overload-monitor.ts'
import type { CandidateTable } from '../scheduling/candidate-table.ts'
import { cachedTokens, type HitWeights } from '../scheduling/cost.ts'
import type { WorkerDirectory } from './worker-directory.ts'

/** Whether every candidate has more active prefill tokens than its class allows. Needs the column of slots only. */
export function areAllBusy(table: CandidateTable, policyClass: PolicyClass, directory: WorkerDirectory, prefillTokens: Float64Array): boolean {
  for (let row = 0; row < table.count; row++) {
    const slot = table.slot[row]!
    const capacity = directory.ownerOf(slot).description.maxNumBatchedTokens ?? defaultPrefillTokenCapacity
    if (prefillTokens[slot]! <= busyLimit(policyClass, capacity)) return false
  }
  return true
}

/** Most prompt tokens that a candidate has cached. Needs the columns of overlap. */
export function bestCachedTokens(table: CandidateTable, weights: HitWeights, blockSize: number): number {
  let best = 0
  for (let row = 0; row < table.count; row++) {
    const cached = cachedTokens(table.deviceBlocks[row]!, table.hostBlocks[row]!, table.diskBlocks[row]!, weights, blockSize)
    if (cached > best) best = cached
  }
  return best
}
