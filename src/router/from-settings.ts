/** The parts of a router that its settings decide. */
import { MeasuredDurations, TableDurations } from '../load/prefill-durations.ts'
import type { PrefillDurations } from '../load/prefill-durations.ts'
import type { CostWeights } from '../scheduling/cost.ts'
import type { TwoTierParameters } from '../scheduling/selection-policy.ts'
import type { RouterSettings } from './contract.ts'

/** How a pool scores and draws. */
export interface ScoringSettings {
  readonly weights: CostWeights
  readonly temperature: number
  /** Not null: by that policy instead of the cost. */
  readonly twoTier: TwoTierParameters | null
  /** Whether decisions look at caches at all. */
  readonly readsCaches: boolean
  /** No cache terms in the cost. */
  readonly isLoadOnly: boolean
}

/** The named policy's parameters count before the router's own settings. `hasPolicy`: one's own decides, and may ask for caches. */
export function scoringOf(settings: RouterSettings, hasSharedCache: boolean, hasPolicy = false): ScoringSettings {
  const policy = settings.selectionPolicy
  const { temperature = settings.temperature, ...parameters } = policy?.type === 'dynamo-default-cost-fn' ? policy.parameters : {}
  const weights = { ...ownWeights(settings), sharedCacheMultiplier: settings.sharedCacheMultiplier ?? 0.5, ...parameters }
  const twoTier = policy?.type === 'dynamo-two-tier-cost-fn' ? policy.parameters : null
  return {
    weights: hasSharedCache ? weights : { ...weights, sharedCacheMultiplier: 0 },
    temperature, twoTier,
    readsCaches: settings.role !== 'decode' || twoTier !== null || hasPolicy,
    isLoadOnly: twoTier === null && (settings.role === 'decode' || weights.overlapScoreCredit === 0),
  }
}

const ownWeights = (settings: RouterSettings): CostWeights => ({
  overlapScoreCredit: settings.overlapScoreCredit,
  overlapScoreCreditDecay: settings.overlapScoreCreditDecay,
  prefillLoadScale: settings.prefillLoadScale,
  decodeActiveRequestWeight: settings.decodeActiveRequestWeight,
  hostCacheHitWeight: settings.hostCacheHitWeight,
  diskCacheHitWeight: settings.diskCacheHitWeight,
})

/** Expected durations of prompts; none: prompt work counts until it is done. */
export function durationsOf({ prefillLoadModel }: RouterSettings): { readonly prefillDurations?: PrefillDurations } {
  if (prefillLoadModel === null) return {}
  return { prefillDurations: prefillLoadModel.kind === 'measured' ? new MeasuredDurations() : new TableDurations(prefillLoadModel.points) }
}
