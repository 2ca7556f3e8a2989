/** What a policy of one's own is: a score for each worker that may take a request, or a choice among all of them. */
import type { WorkerDescription, WorkerId, WorkerRole } from '../model/worker.ts'

/**
 * One eligible rank as a policy sees it. A view of the router's own columns: read it during the call, keep values, not the object.
 *
 * Units: blocks of the pool's block size, tokens.
 */
export interface PolicyCandidate {
  readonly workerId: WorkerId
  readonly dpRank: number
  /** What is known of the worker: capacity, taints, topology, adapters. */
  readonly worker: WorkerDescription
  /** Blocks of the prompt's prefix in device memory; host and disk are what these tiers add to it. */
  readonly deviceBlocks: number
  readonly hostBlocks: number
  readonly diskBlocks: number
  /** Blocks that a cache shared by all workers holds beyond the device; 0 without one. */
  readonly sharedBlocks: number
  /** Prompt tokens that need no computing here, all tiers weighed. */
  readonly cachedTokens: number
  /** Prompt tokens that the rank has still to process. */
  readonly activePrefillTokens: number
  readonly activeRequests: number
  /** Blocks in use once this request runs here. */
  readonly potentialDecodeBlocks: number
  /** 1, or the factor of the request's preferred taints. */
  readonly taintFactor: number
  /** What the built-in policy makes of it: lower is better. */
  readonly builtinCost: number
}

/** The request as a policy sees it; the same object for every call of one decision, then used again. */
export interface PolicyRequest {
  readonly requestId: string
  readonly model: string
  readonly role: WorkerRole
  readonly blockSize: number
  readonly promptTokens: number
  /** Prompt in blocks, the last one counted whole; at least 1. */
  readonly promptBlocks: number
  /** False behind a hand-over: the prompt is no work any more. */
  readonly trackPrefillTokens: boolean
  readonly expectedOutputTokens: number | null
  readonly loraName: string | null
  readonly policyClass: string | null
  readonly strictPriority: number
  readonly priorityJumpSeconds: number
  /** Least `activePrefillTokens` of the candidates. */
  readonly leastActivePrefillTokens: number
  /** The answer is asked for and not used: nothing will run. Policies that count turns pass over it. */
  readonly isPreview: boolean
}

/** Scores every candidate; the lowest score is taken, equal ones by chance, or by `--router-temperature` above 0. */
export interface ScoringPolicy {
  readonly name: string
  /** A number, not NaN. */
  score(candidate: PolicyCandidate, request: PolicyRequest): number
}

/** Chooses among all candidates. */
export interface SelectingPolicy {
  readonly name: string
  /** One of the candidates, or its index. There is at least one. */
  select(candidates: readonly PolicyCandidate[], request: PolicyRequest): PolicyCandidate | number
}

export type Policy = ScoringPolicy | SelectingPolicy

/** Names are labels of metrics. */
const namePattern = /^[A-Za-z0-9_.-]{1,64}$/

/** The name that decisions without a policy of one's own carry. */
export const builtinName = 'builtin'

/** What is wrong with a value that should be a policy, with the mend; null: nothing. */
export function policyProblem(value: unknown): string | null {
  if (typeof value !== 'object' || value === null) return `is ${value === null ? 'null' : `a ${typeof value}`}; expected an object with name and score or select, as definePolicy takes it`
  const { name, score, select } = value as Readonly<Record<string, unknown>>
  if (typeof name !== 'string' || !namePattern.test(name)) return `has the name ${JSON.stringify(name) ?? 'undefined'}; expected 1 to 64 letters, digits, ., - and _`
  if (name === builtinName) return `has the name ${builtinName}, which is reserved; give it another one`
  for (const [field, member] of [['score', score], ['select', select]] as const) {
    if (member !== undefined && typeof member !== 'function') return `has a ${field} that is ${member === null ? 'null' : `a ${typeof member}`}; expected a function`
  }
  if (score === undefined && select === undefined) return 'has neither score nor select; give one'
  return score !== undefined && select !== undefined ? 'has both score and select; keep one' : null
}

/**
 * A policy of one's own, checked. Lower scores are better.
 *
 * Errors: TypeError that names the field and the mend.
 */
export function definePolicy<Defined extends Policy>(policy: Defined): Defined {
  const problem = policyProblem(policy)
  if (problem !== null) throw new TypeError(`definePolicy: the policy ${problem}`)
  return policy
}
