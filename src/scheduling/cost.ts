/** The builtin cost of each candidate; smaller is better. Source: router-algorithm 9.1 and 9.2. */
import type { CandidateTable } from './candidate-table.ts'

/** Weights of tiers below the device, by which cached tokens are estimated. */
export interface HitWeights {
  readonly hostCacheHitWeight: number
  readonly diskCacheHitWeight: number
}

/** Weights of the cost, constant for a router. */
export interface CostWeights extends HitWeights {
  readonly overlapScoreCredit: number
  readonly overlapScoreCreditDecay: number
  readonly prefillLoadScale: number
  readonly decodeActiveRequestWeight: number
  /** What a block in a shared cache, beyond those on the device, is worth; left out: 0. */
  readonly sharedCacheMultiplier?: number
}

/** What the cost needs of the request and of the pool. */
export interface CostInput {
  readonly weights: CostWeights
  /** The router's own weights when a policy has others: estimates of cached tokens keep to them. */
  readonly hitWeights?: HitWeights
  readonly blockSize: number
  readonly promptTokens: number
  readonly trackPrefillTokens: boolean
  /** `prefill` counts prefill only; `decode` (all other roles) may score by decode blocks. */
  readonly poolLabel: 'prefill' | 'decode'
  /** No cache term: credit 0, or a plain decode pool. */
  readonly loadOnly: boolean
}

/** Prompt tokens that need no computing on a rank. `Math.round` rounds half away from zero for such non-negative values. */
export const cachedTokens = (deviceBlocks: number, hostBlocks: number, diskBlocks: number, weights: HitWeights, blockSize: number): number =>
  Math.round((deviceBlocks + weights.hostCacheHitWeight * hostBlocks + weights.diskCacheHitWeight * diskBlocks) * blockSize)

/**
 * Fills the cost columns of the table, in IEEE doubles and in the original's order of operations, so that ties are exact.
 *
 * Cost: no allocation. A non-finite cost is left in the column for the caller to refuse.
 */
export function scoreCandidates(table: CandidateTable, input: CostInput): void {
  const { weights, blockSize, promptTokens, trackPrefillTokens, loadOnly } = input
  const { hostCacheHitWeight, diskCacheHitWeight, prefillLoadScale, decodeActiveRequestWeight, overlapScoreCreditDecay } = weights
  const hitWeights = input.hitWeights ?? weights
  const sharedMultiplier = weights.sharedCacheMultiplier ?? 0
  const credit = loadOnly ? 0 : weights.overlapScoreCredit
  const scoreByDecode = input.poolLabel === 'decode' && !trackPrefillTokens && credit > 0
  const requestBlocks = Math.max(1, Math.ceil(promptTokens / blockSize))
  const { count, activePrefillTokens } = table
  let leastPrefill = Infinity
  for (let row = 0; row < count; row++) {
    if (activePrefillTokens[row]! < leastPrefill) leastPrefill = activePrefillTokens[row]!
  }
  const decays = trackPrefillTokens && overlapScoreCreditDecay > 0
  for (let row = 0; row < count; row++) {
    const device = table.deviceBlocks[row]!
    const host = table.hostBlocks[row]!
    const disk = table.diskBlocks[row]!
    const cached = cachedTokens(device, host, disk, hitWeights, blockSize)
    const prefill = activePrefillTokens[row]!
    const excess = (prefill - leastPrefill) / blockSize / requestBlocks
    const decay = decays ? 1 / (1 + overlapScoreCreditDecay * excess) : 1
    let rowCredit = loadOnly ? 0 : credit * decay * device + hostCacheHitWeight * host + diskCacheHitWeight * disk
    if (sharedMultiplier > 0 && !loadOnly) rowCredit += sharedMultiplier * table.sharedBlocks[row]!
    const blocks = table.potentialDecodeBlocks[row]!
    let prefillTerm = 0
    let decodeTerm = blocks
    if (scoreByDecode) decodeTerm = Math.max(0, blocks - rowCredit)
    else {
      const raw = trackPrefillTokens ? prefill + Math.max(0, promptTokens - cached) + cached : 0
      prefillTerm = prefillLoadScale * Math.max(0, raw / blockSize - rowCredit)
    }
    const requestTerm = decodeActiveRequestWeight * table.activeRequests[row]!
    table.cachedTokens[row] = cached
    table.credit[row] = rowCredit
    table.prefillTerm[row] = prefillTerm
    table.decodeTerm[row] = decodeTerm
    table.requestTerm[row] = requestTerm
    table.cost[row] = (prefillTerm + decodeTerm + requestTerm) * table.taintFactor[row]!
  }
}
