/** A routing decision as a value: every candidate with its cost terms, the choice, and why others were excluded. */
import type { RankSlot, WorkerId } from './worker.ts'

/** Blocks of the request's prefix that a rank holds, per tier. Host and disk are extensions beyond the tier before. */
export interface TierOverlap {
  readonly deviceBlocks: number
  readonly hostExtensionBlocks: number
  /** Disk and external together. */
  readonly diskExtensionBlocks: number
}

/** One eligible rank and what its cost is made of. Source: router-algorithm 9.2. */
export interface Candidate extends TierOverlap {
  readonly slot: RankSlot
  readonly workerId: WorkerId
  readonly dpRank: number
  readonly cachedTokens: number
  readonly activePrefillTokens: number
  readonly activeRequests: number
  readonly potentialDecodeBlocks: number
  readonly credit: number
  readonly prefillTerm: number
  readonly decodeTerm: number
  readonly requestTerm: number
  readonly taintFactor: number
  readonly cost: number
  /** Score of a policy of one's own; left out: there is none. */
  readonly policyScore?: number
}

export type ExclusionReason =
  | 'not-allowed'
  | 'set-aside'
  | 'overloaded'
  | 'missing-taint'
  | 'rank-not-asked'
  | 'not-pinned'
  | 'lacks-adapter'

export interface Exclusion {
  readonly workerId: WorkerId
  readonly dpRank: number | null
  readonly reason: ExclusionReason
  /** The taint, rank or threshold that excluded it. */
  readonly detail?: string
}

export interface Decision extends TierOverlap {
  readonly kind: 'chosen'
  readonly requestId: string
  readonly slot: RankSlot
  readonly workerId: WorkerId
  readonly dpRank: number
  readonly pinned: boolean
  readonly cost: number
  readonly promptTokens: number
  /** Complete blocks of the prompt. */
  readonly promptBlocks: number
  readonly cachedTokens: number
  /** Largest `cachedTokens` among the candidates. */
  readonly bestCachedTokens: number
  /** Largest device overlap among the candidates. */
  readonly bestDeviceBlocks: number
  /** Prefill tokens that the booking counts: prompt minus cached, or 0 when prefill is not tracked. */
  readonly effectivePrefillTokens: number
  readonly trackPrefillTokens: boolean
  /** Of the chosen rank, before the request. */
  readonly activePrefillTokens: number
  /** Blocks that the chosen rank carries with the request. */
  readonly potentialDecodeBlocks: number
  readonly booked: boolean
  /** What a cache shared by all workers holds: blocks of the prompt, and of them those beyond the chosen rank's device. Left out: it was not looked at. */
  readonly shared?: { readonly blocks: number; readonly beyondDevice: number }
  /** The policy of one's own that was to decide, and whether it did; left out: there is none, or it was not asked. `cost` is the built-in one either way. */
  readonly policy?: PolicyVerdict
  /** Made when asked for: all candidates and exclusions. Valid until the router's next call. */
  readonly explain: () => DecisionExplanation
}

/** What a policy of one's own had to do with a decision. */
export interface PolicyVerdict {
  readonly name: string
  /** False: the built-in policy decided. */
  readonly decided: boolean
  /** Why it did not decide. */
  readonly why: 'exception' | 'invalid' | 'set-aside' | null
  /** Its score of the chosen rank; null: it selects, or did not decide. */
  readonly score: number | null
}

export interface DecisionExplanation {
  readonly candidates: readonly Candidate[]
  readonly exclusions: readonly Exclusion[]
  /** `policy`: by a policy of one's own. */
  readonly choice: 'minimum' | 'tie' | 'sampled' | 'pinned' | 'policy'
  readonly temperature: number
  /** As in the decision. */
  readonly policy?: PolicyVerdict
}

export type RefusalReason =
  | 'no-workers'
  | 'none-eligible'
  | 'all-overloaded'
  | 'pinned-unknown'
  | 'pinned-not-allowed'
  | 'pinned-rank'
  | 'pinned-overloaded'
  | 'pinned-set-aside'
  | 'session-conflict'
  | 'duplicate-request'
  | 'invalid-override'
  | 'non-finite-cost'
  | 'queue-limit'
  | 'queue-full'
  | 'queue-timeout'
  | 'queue-closed'

/** Why no worker was chosen: a value, not an exception. */
export interface Refusal {
  readonly kind: 'refused'
  readonly requestId: string
  readonly reason: RefusalReason
  /** Text for the caller, in Dynamo's words where it has some, with ids and the mend. */
  readonly message: string
  readonly exclusions: readonly Exclusion[]
  /** With `queue-limit`: what is reached. */
  readonly queueLimit?: QueueLimit
}

/** A limit of a policy class that a request ran into. */
export interface QueueLimit {
  readonly policyClass: string
  readonly kind: 'requests' | 'raw_isl_tokens' | 'cached_tokens'
  readonly current: number
  readonly limit: number
}

/** A request that waits for a worker with room: its one answer comes later, unless it is cancelled first. */
export interface Parked {
  readonly kind: 'parked'
  readonly requestId: string
  /** The request leaves the queue; no answer comes. Without effect after the answer. */
  cancel(): void
}

/**
 * Takes the answer to a parked request. Called at most once. Must not throw. `keepsOverlap`: the decision took the overlap that was found on
 * arrival, and did not look again.
 */
export type OnDecided = (answer: Decision | Refusal, keepsOverlap?: boolean) => void
