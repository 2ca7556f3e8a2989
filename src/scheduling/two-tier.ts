/** The policy `dynamo-two-tier-cost-fn`: even out the load first, then follow the cache. Source: router-algorithm 9.4. */
import type { CandidateTable } from './candidate-table.ts'
import { cachedTokens } from './cost.ts'
import type { CostInput } from './cost.ts'
import type { TwoTierParameters } from './selection-policy.ts'

/**
 * Fills the columns of the table: cost 0 for the rows that the policy takes, 1 for all others. Taint preferences do not count.
 *
 * Cost: two passes, no allocation.
 */
export function scoreTwoTier(table: CandidateTable, input: CostInput, parameters: TwoTierParameters): void {
  const { count, activeRequests, deviceBlocks } = table
  const hitWeights = input.hitWeights ?? input.weights
  let least = Infinity
  let most = 0
  let longest = 0
  for (let row = 0; row < count; row++) {
    least = Math.min(least, activeRequests[row]!)
    most = Math.max(most, activeRequests[row]!)
    longest = Math.max(longest, deviceBlocks[row]!)
  }
  const isUneven = most - least > parameters.balanceAbsThreshold && most > parameters.balanceRelThreshold * least
  const requestBlocks = Math.max(1, Math.ceil(input.promptTokens / input.blockSize))
  const byCache = !isUneven && longest / requestBlocks > parameters.cacheThreshold
  let leastTaken = Infinity
  for (let row = 0; row < count; row++) {
    if (!byCache || deviceBlocks[row] === longest) leastTaken = Math.min(leastTaken, activeRequests[row]!)
  }
  for (let row = 0; row < count; row++) {
    const isTaken = activeRequests[row] === leastTaken && (!byCache || deviceBlocks[row] === longest)
    table.cachedTokens[row] = cachedTokens(deviceBlocks[row]!, table.hostBlocks[row]!, table.diskBlocks[row]!, hitWeights, input.blockSize)
    table.credit[row] = byCache ? deviceBlocks[row]! : 0
    table.prefillTerm[row] = 0
    table.decodeTerm[row] = 0
    table.requestTerm[row] = activeRequests[row]!
    table.cost[row] = isTaken ? 0 : 1
  }
}
