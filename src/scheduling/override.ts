/** Per-request settings: ranges of all, effect of two. Source: router-algorithm 0.3, 15 and 19. */
import type { RouterConfigOverride } from '../model/routing-request.ts'

const nonNegative = [
  ['overlapScoreCredit', 'overlap_score_credit'],
  ['prefillLoadScale', 'prefill_load_scale'],
  ['overlapScoreWeight', 'overlap_score_weight'],
  ['routerTemperature', 'router_temperature'],
] as const

/** The text of the first value out of range, with its wire name and the range; null when all are in range. */
export function overrideError(override: RouterConfigOverride): string | null {
  for (const [key, wireName] of nonNegative) {
    const value = override[key]
    if (value === undefined || (Number.isFinite(value) && value >= 0)) continue
    return `router_config_override.${wireName} must be a finite, non-negative number, got ${value}`
  }
  const multiplier = override.sharedCacheMultiplier
  if (multiplier === undefined || (multiplier >= 0 && multiplier <= 1)) return null
  return `router_config_override.shared_cache_multiplier must be between 0 and 1, got ${multiplier}`
}
