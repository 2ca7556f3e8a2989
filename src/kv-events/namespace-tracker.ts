/**
 * Which cache namespace an engine's block hashes belong to: later events of a chain do not repeat it.
 *
 * Un-namespaced blocks are not remembered, so a chain whose beginning was not heard counts as un-namespaced.
 * Source: router-algorithm 3.2, step 7.
 */
import { hashAt, hashCount, type HashList } from '../model/hash-list.ts'

/** In place of a namespace: the hash was seen under two of them. */
export const ambiguous: unique symbol = Symbol('ambiguous')

/** One per listener. */
export class NamespaceTracker {
  readonly #hashesMax: number
  readonly #stateByRank = new Map<number, Map<bigint, string | typeof ambiguous>>()
  #size = 0
  /** Hashes not remembered because the bound was reached. */
  forgotten = 0

  constructor(hashesMax = 4_000_000) {
    this.#hashesMax = hashesMax
  }

  /** Hashes remembered. */
  get size(): number {
    return this.#size
  }

  /** Takes note of a stored event; returns its namespace, null for none, or `ambiguous` when its parent's is not certain. */
  stored(dpRank: number, hashes: HashList, parentHash: bigint | null, ownNamespace: string | null): string | null | typeof ambiguous {
    const states = this.#stateByRank.get(dpRank)
    let namespace = ownNamespace === '' ? null : ownNamespace
    if (namespace === null && parentHash !== null) {
      const inherited = states?.get(parentHash)
      if (inherited === ambiguous) return ambiguous
      namespace = inherited ?? null
    }
    if (namespace !== null) this.#remember(dpRank, hashes, namespace)
    else if (states !== undefined && states.size > 0) {
      for (let index = 0; index < hashCount(hashes); index += 1) {
        const hash = hashAt(hashes, index)
        if (states.has(hash)) states.set(hash, ambiguous)
      }
    }
    return namespace
  }

  /** Forgets removed hashes, except ambiguous ones. */
  removed(dpRank: number, hashes: HashList): void {
    const states = this.#stateByRank.get(dpRank)
    if (states === undefined) return
    for (let index = 0; index < hashCount(hashes) && states.size > 0; index += 1) {
      const hash = hashAt(hashes, index)
      if (states.get(hash) !== ambiguous && states.delete(hash)) this.#size -= 1
    }
  }

  cleared(dpRank: number): void {
    this.#size -= this.#stateByRank.get(dpRank)?.size ?? 0
    this.#stateByRank.delete(dpRank)
  }

  #remember(dpRank: number, hashes: HashList, namespace: string): void {
    let states = this.#stateByRank.get(dpRank)
    if (states === undefined) {
      states = new Map()
      this.#stateByRank.set(dpRank, states)
    }
    for (let index = 0; index < hashCount(hashes); index += 1) {
      const hash = hashAt(hashes, index)
      const known = states.get(hash)
      if (known === undefined) {
        if (this.#size >= this.#hashesMax) { this.forgotten += 1; continue }
        this.#size += 1
        states.set(hash, namespace)
      } else if (known !== namespace) states.set(hash, ambiguous)
    }
  }
}
