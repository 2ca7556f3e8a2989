/** Instances that are not chosen for a while, after a failure of theirs. Bounded; time comes from the clock. */
import type { Clock } from '../../ports.ts'

/** Entries at most; beyond, the one that would end first goes. */
export const maxSetAside = 4_096

export class SetAside {
  readonly #clock: Clock
  readonly #max: number
  readonly #untilMs = new Map<bigint, number>()
  #evictions = 0

  constructor(clock: Clock, max: number = maxSetAside) {
    this.#clock = clock
    this.#max = max
  }

  /** Entries that have not ended. */
  get size(): number {
    this.#dropEnded()
    return this.#untilMs.size
  }

  /** How often the bound has let one go early. */
  get evictions(): number {
    return this.#evictions
  }

  /** Sets an instance aside for `forMs` from now; never shortens. 0 or less does nothing. */
  add(id: bigint, forMs: number): void {
    if (!(forMs > 0)) return
    const until = this.#clock.nowMs() + forMs
    if (until <= (this.#untilMs.get(id) ?? 0)) return
    if (!this.#untilMs.has(id) && this.#untilMs.size >= this.#max) this.#makeRoom()
    this.#untilMs.set(id, until)
  }

  has(id: bigint): boolean {
    const until = this.#untilMs.get(id)
    if (until === undefined) return false
    if (this.#clock.nowMs() < until) return true
    this.#untilMs.delete(id)
    return false
  }

  delete(id: bigint): void {
    this.#untilMs.delete(id)
  }

  #dropEnded(): void {
    const now = this.#clock.nowMs()
    for (const [id, until] of this.#untilMs) if (until <= now) this.#untilMs.delete(id)
  }

  #makeRoom(): void {
    this.#dropEnded()
    if (this.#untilMs.size < this.#max) return
    let first: bigint | null = null
    let firstUntil = Infinity
    for (const [id, until] of this.#untilMs) {
      if (until < firstUntil) [first, firstUntil] = [id, until]
    }
    if (first !== null) this.#untilMs.delete(first)
    this.#evictions += 1
  }
}
