/** Library entry `warmpath`: the router's heart for programs that bring their own workers. */
export { KvRouter } from './router/kv-router.ts'
export { defaultRouterSettings } from './router/settings.ts'
export { systemClock, systemPorts, systemRandom } from './system-ports.ts'
export { localBlockHashes, sequenceHashes, type BlockHashOptions } from './hashing/block-hashes.ts'
export { hashAt, hashCount, hashesToBigints, hashListOf, noHashes, type HashList } from './model/hash-list.ts'
export type {
  BoundCounts, ChangeableSettings, KvRouterPorts, LoadRow, OverlapQuery, OverlapReport, OverlapRow, PrefillLoadModel, Router, RouterListener, RouterSettings, TrackingHashSettings,
} from './router/contract.ts'
export type {
  Candidate, Decision, DecisionExplanation, Exclusion, ExclusionReason, PolicyVerdict, Refusal, RefusalReason, TierOverlap,
} from './model/decision.ts'
export type {
  ApplyStatus, BlockMmInfo, ClearedBlocks, KvEventData, MmObject, RemovedBlocks, RouterEvent, StorageTier, StoredBlocks,
} from './model/kv-event.ts'
export type { RouterConfigOverride, RoutingRequest } from './model/routing-request.ts'
export type { RankSlot, WorkerDescription, WorkerId, WorkerRank, WorkerRole } from './model/worker.ts'
export type { Clock, Random, SharedCache, SharedCacheQuery, TimerHandle } from './ports.ts'
export type { HicacheLayout, SharedHits } from './model/shared-cache.ts'
export { definePolicy, type Policy, type PolicyCandidate, type PolicyRequest, type ScoringPolicy, type SelectingPolicy } from './policies/contract.ts'
export { costPolicy } from './policies/builtin-policy.ts'
export { policyPlaces, type PolicyFailure, type PolicyListener, type PolicyPlaces, type PolicySlot, type ShadowComparison } from './policies/policy-slot.ts'
export { openPolicies, type PolicyPaths } from './policy-files/policy-files.ts'
export { loadPolicy, PolicyFileError } from './policy-files/load-policy.ts'
export { selectionPolicyFrom, type SelectionPolicySettings } from './scheduling/selection-policy.ts'
