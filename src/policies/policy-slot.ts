/** The places that policies hold in a process: the one that decides, and the one that runs beside it. Shared by all routers. */
import type { Policy } from './contract.ts'

/** Why a decision was not made by the policy. */
export type PolicyFailure =
  /** It threw. */
  | 'exception'
  /** A score that is no number, or a choice that is no candidate. */
  | 'invalid'

/** Told of what goes wrong. Must not throw. */
export interface PolicyListener {
  onFailure?(slot: PolicySlot, failure: PolicyFailure, reason: string): void
  /** One call was over the budget. */
  onOverBudget?(slot: PolicySlot, tookUs: number): void
  /** The policy is not asked any more until it is loaded again. */
  onSetAside?(slot: PolicySlot, tookUs: number): void
}

/** Calls over the budget, one after the other, after which a policy is set aside. */
export const strikesMax = 3

/** One place: what is loaded there, and how it has fared since the start. */
export class PolicySlot {
  readonly place: 'live' | 'shadow'
  /** Longest time of one decision. Units: microseconds. */
  budgetUs: number
  readonly counts = { decisions: 0, exception: 0, invalid: 0, overBudget: 0, setAside: 0 }
  readonly #listener: PolicyListener
  #policy: Policy | null = null
  #isSetAside = false
  #strikes = 0

  constructor(place: 'live' | 'shadow', budgetUs: number, listener: PolicyListener = {}) {
    this.place = place
    this.budgetUs = budgetUs
    this.#listener = listener
  }

  /** What is loaded, also when it is set aside. */
  get policy(): Policy | null {
    return this.#policy
  }

  get isSetAside(): boolean {
    return this.#isSetAside
  }

  /** The policy to ask; null: none. */
  get active(): Policy | null {
    return this.#isSetAside ? null : this.#policy
  }

  /** From the next decision on; what was set aside is forgiven. */
  load(policy: Policy | null): void {
    this.#policy = policy
    this.#isSetAside = false
    this.#strikes = 0
  }

  failed(failure: PolicyFailure, reason: string): void {
    this.counts[failure] += 1
    this.#listener.onFailure?.(this, failure, reason)
  }

  /** Counts a call and how long it took. */
  took(us: number): void {
    this.counts.decisions += 1
    if (us <= this.budgetUs) {
      this.#strikes = 0
      return
    }
    this.counts.overBudget += 1
    this.#strikes += 1
    this.#listener.onOverBudget?.(this, us)
    if (this.#strikes < strikesMax) return
    this.#isSetAside = true
    this.counts.setAside += 1
    this.#listener.onSetAside?.(this, us)
  }
}

/** What the shadow policy would have done, told once per compared decision. Must not throw. */
export interface ShadowComparison {
  readonly agrees: boolean
  /** By the shadow's own scores: the live choice minus its best; null for policies that select, and for infinite scores. */
  readonly regret: number | null
  /** By the built-in cost: the shadow's choice minus the live one. Units: blocks. */
  readonly costGapBlocks: number
}

/** Both places, and who hears of comparisons. */
export interface PolicyPlaces {
  readonly live: PolicySlot
  readonly shadow: PolicySlot
  onCompared?(comparison: ShadowComparison): void
}

/** Default of `--policy-budget-us`. */
export const defaultBudgetUs = 1000

/** The places for one policy, for programs that embed the router. `shadow`: runs beside it and never decides. */
export function policyPlaces(
  { live = null, shadow = null, budgetUs = defaultBudgetUs, listener = {}, onCompared }: {
    readonly live?: Policy | null; readonly shadow?: Policy | null; readonly budgetUs?: number
    readonly listener?: PolicyListener; readonly onCompared?: (comparison: ShadowComparison) => void
  },
): PolicyPlaces {
  const places = { live: new PolicySlot('live', budgetUs, listener), shadow: new PolicySlot('shadow', budgetUs, listener), ...(onCompared === undefined ? {} : { onCompared }) }
  places.live.load(live)
  places.shadow.load(shadow)
  return places
}
