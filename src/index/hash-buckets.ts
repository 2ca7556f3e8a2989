/** A chained hash table whose entries are arena records and whose links lie inside them. */
import type { RecordArena } from './record-arena.ts'

/** Mixes a 64-bit hash and a discriminator into an int32. */
export function mixHash(low: number, high: number, salt: number): number {
  let mixed = Math.imul(low ^ Math.imul(high ^ Math.imul(salt, 0x9e3779b1), 0x85ebca77), 0xc2b2ae3d)
  mixed ^= mixed >>> 15
  mixed = Math.imul(mixed, 0x27d4eb2f)
  return mixed ^ (mixed >>> 13)
}

/**
 * Linear hashing: one bucket is split per insertion, so that growth never stops the router for a whole rehash.
 *
 * Keys live in the records; equal keys may occur. Order: within a chain unspecified.
 */
export class HashBuckets {
  readonly #arena: RecordArena
  readonly #linkField: number
  readonly #hashOf: (id: number) => number
  #heads = new Uint32Array(64)
  /** Buckets `[0, base + split)` are in use; those below `split` and beyond `base` use one hash bit more. */
  #base = 16
  #split = 0
  #count = 0

  constructor(arena: RecordArena, linkField: number, hashOf: (id: number) => number) {
    this.#arena = arena
    this.#linkField = linkField
    this.#hashOf = hashOf
  }

  get bytesReserved(): number {
    return this.#heads.byteLength
  }

  #bucketOf(hash: number): number {
    const wide = hash & (2 * this.#base - 1)
    return wide < this.#base + this.#split ? wide : wide & (this.#base - 1)
  }

  /** First record of the chain that holds all records of this hash; follow the link field, 0 ends it. */
  first(hash: number): number {
    return this.#heads[this.#bucketOf(hash)]!
  }

  insert(id: number, hash: number): void {
    const bucket = this.#bucketOf(hash)
    this.#arena.words[id * this.#arena.stride + this.#linkField] = this.#heads[bucket]!
    this.#heads[bucket] = id
    this.#count += 1
    if (this.#count > this.#base + this.#split) this.#splitOne()
  }

  remove(id: number, hash: number): void {
    const { words, stride } = this.#arena
    const bucket = this.#bucketOf(hash)
    const next = words[id * stride + this.#linkField]!
    let at = this.#heads[bucket]!
    this.#count -= 1
    if (at === id) {
      this.#heads[bucket] = next
      return
    }
    for (;;) {
      const link = at * stride + this.#linkField
      at = words[link]!
      if (at === id) {
        words[link] = next
        return
      }
    }
  }

  #splitOne(): void {
    const { words, stride } = this.#arena
    const from = this.#split
    const to = this.#base + this.#split
    if (to >= this.#heads.length) {
      const grown = new Uint32Array(2 * this.#heads.length)
      grown.set(this.#heads)
      this.#heads = grown
    }
    let stay = 0
    let move = 0
    let at = this.#heads[from]!
    while (at !== 0) {
      const link = at * stride + this.#linkField
      const next = words[link]!
      if ((this.#hashOf(at) & this.#base) === 0) {
        words[link] = stay
        stay = at
      } else {
        words[link] = move
        move = at
      }
      at = next
    }
    this.#heads[from] = stay
    this.#heads[to] = move
    this.#split += 1
    if (this.#split === this.#base) {
      this.#base *= 2
      this.#split = 0
    }
  }
}
