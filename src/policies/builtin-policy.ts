/** The built-in cost, written as a policy of one's own: to build upon, and to hold the fast path against. Source: router-algorithm 9.2. */
import type { CostWeights } from '../scheduling/cost.ts'
import { definePolicy, type PolicyCandidate, type PolicyRequest, type ScoringPolicy } from './contract.ts'

/** Weights of Dynamo 1.6.1 where no option is given. */
const defaultWeights: CostWeights = {
  overlapScoreCredit: 1, overlapScoreCreditDecay: 0, prefillLoadScale: 1, decodeActiveRequestWeight: 0, hostCacheHitWeight: 0.75, diskCacheHitWeight: 0.25,
}

/** Scores as the built-in policy with these weights does, bit for bit. `sharedCacheMultiplier` left out: 0. */
export function costPolicy(changes: Partial<CostWeights> = {}, name = 'cost'): ScoringPolicy {
  const weights = { ...defaultWeights, sharedCacheMultiplier: 0, ...changes }
  return definePolicy({
    name,
    score(candidate, request) {
      const credit = creditBlocks(candidate, request, weights)
      const perRequest = weights.decodeActiveRequestWeight * candidate.activeRequests
      const [prefill, decode] = workBlocks(candidate, request, weights, credit)
      return (prefill + decode + perRequest) * candidate.taintFactor
    },
  })
}

/** A plain decode pool goes by load alone. */
const isLoadOnly = (request: PolicyRequest, { overlapScoreCredit }: CostWeights): boolean => request.role === 'decode' || overlapScoreCredit === 0

/** What the cached prefix is worth, in blocks. */
function creditBlocks(candidate: PolicyCandidate, request: PolicyRequest, weights: CostWeights & { readonly sharedCacheMultiplier: number }): number {
  if (isLoadOnly(request, weights)) return 0
  const excess = (candidate.activePrefillTokens - request.leastActivePrefillTokens) / request.blockSize / request.promptBlocks
  const fades = request.trackPrefillTokens && weights.overlapScoreCreditDecay > 0
  const decay = fades ? 1 / (1 + weights.overlapScoreCreditDecay * excess) : 1
  const tiers = weights.overlapScoreCredit * decay * candidate.deviceBlocks + weights.hostCacheHitWeight * candidate.hostBlocks + weights.diskCacheHitWeight * candidate.diskBlocks
  return weights.sharedCacheMultiplier > 0 ? tiers + weights.sharedCacheMultiplier * candidate.sharedBlocks : tiers
}

/** Prompt work still to do and decode blocks, each less the credit where it counts. */
function workBlocks(candidate: PolicyCandidate, request: PolicyRequest, weights: CostWeights, credit: number): readonly [prefill: number, decode: number] {
  const blocks = candidate.potentialDecodeBlocks
  if (request.role !== 'prefill' && !request.trackPrefillTokens && !isLoadOnly(request, weights)) return [0, Math.max(0, blocks - credit)]
  const { cachedTokens } = candidate
  const tokens = request.trackPrefillTokens ? candidate.activePrefillTokens + Math.max(0, request.promptTokens - cachedTokens) + cachedTokens : 0
  return [weights.prefillLoadScale * Math.max(0, tokens / request.blockSize - credit), blocks]
}
