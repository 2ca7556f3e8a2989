/** One per request of the API: ends it. The platform's controllers do the same at many times the cost. */
import type { StopSignal } from '../ports.ts'

export class Cut implements StopSignal {
  #listeners: Set<() => void> | null = null
  #aborted = false
  #reason: unknown

  get aborted(): boolean {
    return this.#aborted
  }

  get reason(): unknown {
    return this.#reason
  }

  get signal(): StopSignal {
    return this
  }

  /** Once; listeners hear it at once, in their order, and no more afterwards. */
  abort(reason: unknown): void {
    if (this.#aborted) return
    this.#aborted = true
    this.#reason = reason
    const listeners = this.#listeners
    this.#listeners = null
    for (const listener of listeners ?? []) listener()
  }

  /** Errors: the reason. */
  throwIfAborted(): void {
    if (this.#aborted) throw this.#reason
  }

  /** Every listener hears it once; one that is added afterwards hears nothing. */
  addEventListener(_type: 'abort', listener: () => void): void {
    if (!this.#aborted) (this.#listeners ??= new Set()).add(listener)
  }

  removeEventListener(_type: 'abort', listener: () => void): void {
    this.#listeners?.delete(listener)
  }
}
