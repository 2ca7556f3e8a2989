/** Which messages have come lately, by publisher and sequence. */

/** Bounds: remembers at least the last half of `limit` and at most `limit`; two sets, the older one dropped whole. Cost: one string per message. */
export class RecentMessages {
  readonly #half: number
  #young = new Set<string>()
  #old = new Set<string>()

  constructor(limit: number) {
    this.#half = Math.max(1, limit >> 1)
  }

  /** True the first time. */
  isNew(publisherId: bigint, sequence: bigint): boolean {
    const key = `${publisherId.toString(36)} ${sequence.toString(36)}`
    if (this.#young.has(key) || this.#old.has(key)) return false
    if (this.#young.size >= this.#half) {
      this.#old = this.#young
      this.#young = new Set()
    }
    this.#young.add(key)
    return true
  }
}
