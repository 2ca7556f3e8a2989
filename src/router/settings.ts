/** Defaults of Dynamo 1.6.1 for one router. */
import type { RouterSettings } from './contract.ts'

/** What `python -m dynamo.router` uses when no option is given. */
export const defaultRouterSettings: RouterSettings = {
  blockSize: 128,
  isEagle: false,
  role: 'aggregated',
  overlapScoreCredit: 1,
  overlapScoreCreditDecay: 0,
  prefillLoadScale: 1,
  decodeActiveRequestWeight: 0,
  hostCacheHitWeight: 0.75,
  diskCacheHitWeight: 0.25,
  temperature: 0,
  useKvEvents: true,
  trackActiveBlocks: true,
  trackOutputBlocks: false,
  assumeKvReuse: true,
  trackPrefillTokens: true,
  tracking: { mode: 'public-xxh3-v1' },
  ttlSeconds: 120,
  predictedTtlSeconds: null,
  approximateCachePolicy: 'ttl',
  maxTreeSize: null,
  pruneTargetRatio: 0.8,
  prefillLoadModel: null,
  sharedCacheMultiplier: null,
  activeRequestExpirySeconds: 300,
  activeDecodeBlocksThreshold: null,
  activePrefillTokensThreshold: null,
  activePrefillTokensThresholdFraction: null,
}
