/** What is told of policies: failures in the log, not one line for each, and a line per minute of what a shadow policy would have done. */
import type { PolicyFailure, PolicyListener, PolicySlot, ShadowComparison } from '../policies/policy-slot.ts'
import type { Log } from '../ports.ts'

/** Hears of every comparison, for metrics. Must not throw. */
export type OnCompared = (comparison: ShadowComparison) => void

const reportMs = 60_000

interface Noted {
  readonly slot: PolicySlot
  readonly kind: string
  readonly reason: string
  count: number
}

const optionOf = ({ place }: PolicySlot): string => (place === 'live' ? '--policy' : '--policy-shadow')

/** The first failure of a kind is logged at once, those of the minute after it in one line. */
export class PolicyReports implements PolicyListener {
  readonly #log: Log
  readonly #onCompared: OnCompared
  readonly #timer: NodeJS.Timeout
  readonly #noted = new Map<string, Noted>()
  #window = { compared: 0, disagreed: 0, regret: 0, regrets: 0, costGap: 0 }
  readonly #shadowName: () => string

  constructor(log: Log, shadowName: () => string, onCompared: OnCompared = () => {}) {
    this.#log = log
    this.#shadowName = shadowName
    this.#onCompared = onCompared
    this.#timer = setInterval(() => this.report(), reportMs)
    this.#timer.unref()
  }

  onFailure(slot: PolicySlot, failure: PolicyFailure, reason: string): void {
    this.#note(slot, failure, reason, () => `${optionOf(slot)}: the policy ${slot.policy?.name} failed (${reason}); ${slot.place === 'live' ? 'the built-in policy decides' : 'it is not compared'}`)
  }

  onOverBudget(slot: PolicySlot, tookUs: number): void {
    this.#note(slot, 'over_budget', `${Math.round(tookUs)} us`, () => `${optionOf(slot)}: the policy ${slot.policy?.name} took ${Math.round(tookUs)} us, its budget is ${slot.budgetUs} (--policy-budget-us)`)
  }

  onSetAside(slot: PolicySlot, tookUs: number): void {
    this.#log.error({ stage: 'policy', reason: 'over_budget' }, `${optionOf(slot)}: the policy ${slot.policy?.name} was over its budget three times in a row (${Math.round(tookUs)} us of ${slot.budgetUs}) and is set aside until it is loaded again; ${slot.place === 'live' ? 'the built-in policy decides' : 'nothing is compared'}`)
  }

  readonly onCompared = (comparison: ShadowComparison): void => {
    const window = this.#window
    window.compared += 1
    if (!comparison.agrees) window.disagreed += 1
    if (comparison.regret !== null) {
      window.regret += comparison.regret
      window.regrets += 1
    }
    window.costGap += comparison.costGapBlocks
    this.#onCompared(comparison)
  }

  /** Writes what the last minute held, and begins anew. */
  report(): void {
    for (const [key, noted] of this.#noted) {
      if (noted.count === 0) this.#noted.delete(key)
      else this.#log.warn({ stage: 'policy', reason: noted.kind }, `${optionOf(noted.slot)}: ${noted.count} more in the last minute like this: ${noted.reason}`)
      noted.count = 0
    }
    const { compared, disagreed, regret, regrets, costGap } = this.#window
    this.#window = { compared: 0, disagreed: 0, regret: 0, regrets: 0, costGap: 0 }
    if (compared === 0) return
    const mean = (sum: number, count: number): string => (sum / count).toPrecision(3)
    this.#log.info({ stage: 'policy', reason: 'shadow' }, `the shadow policy ${this.#shadowName()} would have chosen otherwise in ${disagreed} of ${compared} decisions of the last minute; ` +
      `mean regret of the live choice by its scores ${regrets === 0 ? 'unknown' : mean(regret, regrets)}, mean cost of its choice above the live one ${mean(costGap, compared)} blocks`)
  }

  close(): void {
    clearInterval(this.#timer)
    this.report()
  }

  #note(slot: PolicySlot, kind: string, reason: string, text: () => string): void {
    const key = `${slot.place} ${kind}`
    const noted = this.#noted.get(key)
    if (noted !== undefined) {
      noted.count += 1
      return
    }
    this.#noted.set(key, { slot, kind, reason, count: 0 })
    this.#log.warn({ stage: 'policy', reason: kind }, text())
  }
}
