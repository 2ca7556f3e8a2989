/** A selector of plain objects: slow and obviously right, the oracle of the property tests. Source: router-algorithm 9. Not for production. */
import type { CostWeights, HitWeights } from './cost.ts'
import type { TwoTierParameters } from './selection-policy.ts'

/** One rank as the oracle sees it. */
export interface ReferenceRank {
  readonly workerId: bigint
  readonly dpRank: number
  readonly taints: readonly string[]
  readonly deviceBlocks: number
  readonly hostBlocks: number
  readonly diskBlocks: number
  /** Blocks beyond the device in a cache that all share; left out: 0. */
  readonly sharedBlocks?: number
  readonly activePrefillTokens: number
  readonly activeRequests: number
  readonly potentialDecodeBlocks: number
}

/** One request as the oracle sees it. */
export interface ReferenceRequest {
  readonly promptTokens: number
  readonly trackPrefillTokens: boolean
  readonly allowedWorkerIds?: ReadonlySet<bigint>
  readonly excludedWorkerIds?: ReadonlySet<bigint>
  readonly requiredTaints?: readonly string[]
  readonly preferredTaints?: ReadonlyMap<string, number>
  readonly dpRank?: number
}

/** The pool as the oracle sees it. */
export interface ReferencePool {
  readonly weights: CostWeights
  /** The router's own weights of tiers, when a policy has others. */
  readonly hitWeights?: HitWeights
  readonly blockSize: number
  readonly role: 'aggregated' | 'prefill' | 'decode'
}

export interface ReferenceScore {
  readonly rank: ReferenceRank
  readonly cost: number
}

/** All eligible ranks with their costs, in the order given. */
export function referenceScores(ranks: readonly ReferenceRank[], request: ReferenceRequest, pool: ReferencePool): ReferenceScore[] {
  const eligible = referenceEligible(ranks, request)
  const idlest = Math.min(...eligible.map((rank) => rank.activePrefillTokens))
  return eligible.map((rank) => ({ rank, cost: logit(rank, idlest, request, pool) * taintWeight(rank, request) }))
}

/** Ranks that may take the request. */
function referenceEligible(ranks: readonly ReferenceRank[], request: ReferenceRequest): ReferenceRank[] {
  return ranks.filter((rank) =>
    (request.allowedWorkerIds?.has(rank.workerId) ?? true) &&
    !(request.excludedWorkerIds?.has(rank.workerId) ?? false) &&
    (request.requiredTaints ?? []).every((taint) => rank.taints.includes(taint)) &&
    (request.dpRank === undefined || request.dpRank === rank.dpRank))
}

/** All eligible ranks under the policy of two tiers: cost 0 for those that it takes. */
export function referenceTwoTier(ranks: readonly ReferenceRank[], request: ReferenceRequest, blockSize: number, parameters: TwoTierParameters): ReferenceScore[] {
  const eligible = referenceEligible(ranks, request)
  const counts = eligible.map(({ activeRequests }) => activeRequests)
  const [least, most] = [Math.min(...counts), Math.max(...counts)]
  const longest = Math.max(...eligible.map(({ deviceBlocks }) => deviceBlocks))
  const uneven = most - least > parameters.balanceAbsThreshold && most > parameters.balanceRelThreshold * least
  const warm = longest / Math.max(1, Math.ceil(request.promptTokens / blockSize)) > parameters.cacheThreshold
  const group = !uneven && warm ? eligible.filter(({ deviceBlocks }) => deviceBlocks === longest) : eligible
  const idlest = Math.min(...group.map(({ activeRequests }) => activeRequests))
  return eligible.map((rank) => ({ rank, cost: group.includes(rank) && rank.activeRequests === idlest ? 0 : 1 }))
}

/** The ranks any of which may be chosen at temperature 0: all of exactly least cost. */
export function referenceAcceptable(scores: readonly ReferenceScore[]): ReferenceScore[] {
  const least = Math.min(...scores.map(({ cost }) => cost))
  return scores.filter(({ cost }) => cost === least)
}

/** The probability of each score at a temperature above 0. */
export function referenceProbabilities(scores: readonly ReferenceScore[], temperature: number): number[] {
  const costs = scores.map(({ cost }) => cost)
  const [least, most] = [Math.min(...costs), Math.max(...costs)]
  const weights = costs.map((cost) => (most === least ? 1 : Math.exp(-(cost - least) / ((most - least) * temperature))))
  const sum = weights.reduce((total, weight) => total + weight, 0)
  return weights.map((weight) => weight / sum)
}

function logit(rank: ReferenceRank, idlest: number, request: ReferenceRequest, { weights, hitWeights = weights, blockSize, role }: ReferencePool): number {
  const usesCache = role !== 'decode' && weights.overlapScoreCredit !== 0
  const requestBlocks = Math.max(1, Math.ceil(request.promptTokens / blockSize))
  const excess = (rank.activePrefillTokens - idlest) / blockSize / requestBlocks
  const decay = request.trackPrefillTokens && weights.overlapScoreCreditDecay > 0 ? 1 / (1 + weights.overlapScoreCreditDecay * excess) : 1
  const lower = [weights.hostCacheHitWeight * rank.hostBlocks, weights.diskCacheHitWeight * rank.diskBlocks] as const
  const shared = (weights.sharedCacheMultiplier ?? 0) * (rank.sharedBlocks ?? 0)
  const credit = usesCache ? weights.overlapScoreCredit * decay * rank.deviceBlocks + lower[0] + lower[1] + shared : 0
  const cached = Math.round((rank.deviceBlocks + hitWeights.hostCacheHitWeight * rank.hostBlocks + hitWeights.diskCacheHitWeight * rank.diskBlocks) * blockSize)
  const perRequest = weights.decodeActiveRequestWeight * rank.activeRequests
  if (role !== 'prefill' && !request.trackPrefillTokens && usesCache) {
    return Math.max(0, rank.potentialDecodeBlocks - credit) + perRequest
  }
  const tokens = request.trackPrefillTokens ? rank.activePrefillTokens + Math.max(0, request.promptTokens - cached) + cached : 0
  return weights.prefillLoadScale * Math.max(0, tokens / blockSize - credit) + rank.potentialDecodeBlocks + perRequest
}

function taintWeight(rank: ReferenceRank, request: ReferenceRequest): number {
  const liked = [...(request.preferredTaints ?? [])].filter(([taint]) => rank.taints.includes(taint))
  return liked.length === 0 ? 1 : Math.exp(-Math.tanh(liked.reduce((sum, [, weight]) => sum + weight, 0)))
}
