/**
 * The paged KV cache of one rank: which blocks it holds, who uses them, which one goes first.
 *
 * A block is anonymous while it fills (one owner) and named by its hash once full (shared by reference count). Named blocks
 * without a user stay until room is needed; the one unused for longest goes first. Sequences give back their last block
 * first, so a block always goes before its parent.
 */

/** Pure state; one writer (the rank). */
export class BlockCache {
  readonly capacity: number
  readonly #onRemoved: (hash: bigint) => void
  /** Users per named block; 0 = only kept. */
  readonly #users = new Map<bigint, number>()
  /** Named blocks without a user, oldest first. */
  readonly #unused = new Set<bigint>()
  #anonymous = 0

  /** `onRemoved` is told of every named block that leaves. */
  constructor(capacity: number, onRemoved: (hash: bigint) => void) {
    this.capacity = capacity
    this.#onRemoved = onRemoved
  }

  /** Named blocks, used or kept. */
  get cachedBlocks(): number {
    return this.#users.size
  }

  /** Blocks that some sequence uses. */
  get usedBlocks(): number {
    return this.#users.size - this.#unused.size + this.#anonymous
  }

  /** Blocks that `reserve` could give now. */
  get freeBlocks(): number {
    return this.capacity - this.usedBlocks
  }

  has(hash: bigint): boolean {
    return this.#users.has(hash)
  }

  hashes(): IterableIterator<bigint> {
    return this.#users.keys()
  }

  /** Takes a use of a named block. False: not cached. */
  acquire(hash: bigint): boolean {
    const users = this.#users.get(hash)
    if (users === undefined) return false
    this.#users.set(hash, users + 1)
    this.#unused.delete(hash)
    return true
  }

  /** Takes anonymous blocks, dropping unused named ones where needed. False: not enough, nothing changes. */
  reserve(count: number): boolean {
    if (count > this.freeBlocks) return false
    for (let toEvict = this.#users.size + this.#anonymous + count - this.capacity; toEvict > 0; toEvict -= 1) this.#evictOldest()
    this.#anonymous += count
    return true
  }

  /** An anonymous block is full and gets its name. False: such a block exists; its use is taken and the anonymous one given back. */
  name(hash: bigint): boolean {
    this.#giveBack(1)
    if (this.acquire(hash)) return false
    this.#users.set(hash, 1)
    return true
  }

  /** Ends a use of a named block; it stays as the most recently used one. */
  release(hash: bigint): void {
    const users = this.#users.get(hash)
    if (users === undefined || users === 0) throw new Error(`block ${hash} is released without a use`)
    this.#users.set(hash, users - 1)
    if (users === 1) this.#unused.add(hash)
  }

  /** Gives back anonymous blocks. */
  discard(count: number): void {
    this.#giveBack(count)
  }

  /** Drops every block that nobody uses; each is told to `onRemoved`. */
  dropUnused(): void {
    while (this.#unused.size > 0) this.#evictOldest()
  }

  #giveBack(count: number): void {
    if (count > this.#anonymous) throw new Error(`${count} anonymous blocks are given back, ${this.#anonymous} are out`)
    this.#anonymous -= count
  }

  #evictOldest(): void {
    for (const hash of this.#unused) {
      this.#unused.delete(hash)
      this.#users.delete(hash)
      this.#onRemoved(hash)
      return
    }
  }
}
