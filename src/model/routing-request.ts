/** What routing needs to know of a request: a plain value, without its payload. */
import type { HashList } from './hash-list.ts'
import type { BlockMmInfo } from './kv-event.ts'
import type { WorkerId } from './worker.ts'

/** Per-request settings (wire name `router_config_override`). Unknown keys are ignored; ranges as in the options. */
export interface RouterConfigOverride {
  readonly overlapScoreCredit?: number
  readonly prefillLoadScale?: number
  readonly overlapScoreWeight?: number
  readonly routerTemperature?: number
  readonly assumeKvReuse?: boolean
  readonly trackPrefillTokens?: boolean
  readonly sharedCacheMultiplier?: number
}

/** A prompt that the caller has hashed itself. */
export interface HashedPrompt {
  /** Public local hashes of the complete blocks. */
  readonly local: HashList
  /** Identities of the blocks for load tracking; null: blocks are not tracked. */
  readonly tracking: HashList | null
  readonly promptTokens: number
  /** The caller says after the booking whether its blocks are to be assumed (`Bookings.assume`); left out: they are. */
  readonly assumesLater?: boolean
}

export interface RoutingRequest {
  readonly requestId: string
  readonly model: string
  /** Empty with `hashed`. */
  readonly tokens: Uint32Array
  /** Instead of tokens. */
  readonly hashed?: HashedPrompt
  readonly loraName?: string
  readonly cacheNamespace?: string
  readonly blockMmInfos?: readonly (BlockMmInfo | null)[]
  /** The caller's choice of worker: no scoring. A missing rank means the worker's only one. */
  readonly pin?: { readonly workerId: WorkerId; readonly dpRank: number | null }
  /**
   * Where the request belongs: chosen alone if it is eligible there, otherwise it does not count. Whether the request waits does not depend
   * on it, and named policies are not bound by it. Null rank: any of the worker's.
   */
  readonly affinity?: { readonly workerId: WorkerId; readonly dpRank: number | null }
  /** A rank asked for without a worker: only such ranks are eligible. */
  readonly dpRank?: number
  readonly allowedWorkerIds?: ReadonlySet<WorkerId>
  /** Workers that must not be chosen: failed attempts of this request and inhibited instances. */
  readonly excludedWorkerIds?: ReadonlySet<WorkerId>
  /** Workers that are chosen only when nobody else may take the request. May change while the request waits. */
  readonly avoidedWorkerIds?: ReadonlySet<WorkerId>
  readonly requiredTaints?: readonly string[]
  /** Taint to weight (f32 widened). */
  readonly preferredTaints?: ReadonlyMap<string, number>
  readonly override?: RouterConfigOverride
  readonly expectedOutputTokens?: number
  readonly priorityJumpSeconds?: number
  readonly strictPriority?: number
  /** Name of a policy class or family; unknown names mean the default one. */
  readonly policyClass?: string
  /** Monotonic milliseconds after which the request may not wait any longer; the earliest goes first. */
  readonly queueDeadlineMs?: number
}

/** Length of a request's prompt in tokens. */
export const promptTokensOf = (request: RoutingRequest): number => request.hashed?.promptTokens ?? request.tokens.length
