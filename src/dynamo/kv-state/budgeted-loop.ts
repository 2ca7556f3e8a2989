/** Work done in slices between other work of the process, so that a flood of events does not delay routing decisions. */
import type { Clock } from '../../ports.ts'

/** One piece of work after the other; false when there is none at present. */
export type WorkSource = () => boolean

export interface BudgetedLoopOptions {
  readonly clock: Clock
  /** Time of one slice. */
  readonly budgetMs: number
  /** Takes turns, one piece each. */
  readonly sources: readonly WorkSource[]
}

/** Runs its sources until they have nothing to do; `wake` after adding work. */
export class BudgetedLoop {
  readonly #options: BudgetedLoopOptions
  #handle: NodeJS.Immediate | null = null
  #closed = false

  constructor(options: BudgetedLoopOptions) {
    this.#options = options
  }

  wake(): void {
    if (this.#handle === null && !this.#closed) this.#handle = setImmediate(() => this.#slice())
  }

  close(): void {
    this.#closed = true
    if (this.#handle !== null) clearImmediate(this.#handle)
  }

  #slice(): void {
    const { clock, budgetMs, sources } = this.#options
    const until = clock.nowMs() + budgetMs
    let hasWork = true
    do {
      hasWork = false
      for (const source of sources) if (source()) hasWork = true
    } while (hasWork && !this.#closed && clock.nowMs() < until)
    this.#handle = null
    if (hasWork) this.wake()
  }
}
