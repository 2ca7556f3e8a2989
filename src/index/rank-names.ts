/**
 * Names of blocks that differ from rule: by rule, a rank that covers a block knows it by the first writer's name.
 *
 * Kept here, per rank: its own names (an engine with another hash seed), names that moved to another block, and names that it
 * has lost while it still covers the block. Empty while all publishers of a pool agree, and then costs one comparison.
 * Invariants: of two blocks that a rank covers under one name, a record says which is meant; a rank with any own name for a
 * block knows it by exactly the recorded names; a name without a block (block 0) exists only while a covered block has it by rule.
 */
import { mixHash } from './hash-buckets.ts'
import { HashTable } from './hash-table.ts'
import { RecordArena } from './record-arena.ts'
import { block, content } from './tree-store.ts'
import type { TreeStore } from './tree-store.ts'

/** Fields of a name record. 16 bytes. `block` 0: the rank does not know this name. */
const N = { stride: 4, slot: 0, low: 1, high: 2, block: 3 } as const

export class RankNames {
  readonly #store: TreeStore
  readonly #records = new RecordArena(N.stride)
  readonly #byName = new HashTable()
  readonly #byBlock = new HashTable()
  #counts = new Uint32Array(16)
  /** While a store gives names: the blocks of this edge from this depth on are covered, but not named yet. */
  #unnamedEdge = 0
  #unnamedDepth = 0

  constructor(store: TreeStore) {
    this.#store = store
  }

  get recordCount(): number {
    return this.#records.liveCount
  }

  get bytesReserved(): number {
    return this.#records.bytesReserved + this.#byName.bytesReserved + this.#byBlock.bytesReserved
  }

  /** Whether a rank has any record, so that the rule alone does not decide. */
  hasAny(slot: number): boolean {
    return (this.#counts[slot] ?? 0) > 0
  }

  /** The block that a rank knows by this name and covers, or 0. */
  resolve(slot: number, low: number, high: number): number {
    if (!this.hasAny(slot)) return this.#byRule(slot, low, high)
    const record = this.#find(slot, low, high)
    if (record !== 0) return this.#records.ints[record * N.stride + N.block]!
    for (let id = this.#store.firstNamed(low, high); id !== 0; id = this.#store.nextNamed(id)) {
      if (this.#holds(slot, id) && this.#firstOf(slot, id) === 0) return id
    }
    return 0
  }

  #byRule(slot: number, low: number, high: number): number {
    let id = this.#store.firstNamed(low, high)
    while (id !== 0 && !this.#holds(slot, id)) id = this.#store.nextNamed(id)
    return id
  }

  /**
   * Names `count` blocks from `first` on, in one edge, as a store does; `hashes[from …]` are the names given. The rank covers them.
   * `known`: it covered them before this store; those are named before the others become covered, so that one name on two blocks
   * stays apart. Returns the block after the last, 0 at the end of the edge.
   */
  give(slot: number, first: number, known: boolean, hashes: Uint32Array, from: number, count: number): number {
    let id = first
    for (let i = 0; i < count; i += 1) {
      const words = this.#store.blocks.ints
      const base = id * block.stride
      const low = hashes[2 * (from + i)]! | 0
      const high = hashes[2 * (from + i) + 1]! | 0
      if (!known) {
        this.#unnamedEdge = words[base + block.edge]!
        this.#unnamedDepth = words[base + block.depth]! + 1
      }
      const byRule = words[base + block.hashLow] === low && words[base + block.hashHigh] === high
      if (!byRule) this.#giveOwn(slot, id, known, low, high)
      else if (this.hasAny(slot) || this.#store.duplicateNames > 0) this.#giveRule(slot, id, low, high)
      id = this.#store.contents.ints[id * content.stride + content.next]!
    }
    this.#unnamedEdge = 0
    return id
  }

  /** As `give`, for blocks that this store has made and so named itself. */
  giveNew(slot: number, first: number, hashes: Uint32Array, from: number, count: number): void {
    if (this.hasAny(slot) || this.#store.duplicateNames > 0) this.give(slot, first, false, hashes, from, count)
  }

  /** Whether a rank covers a block and has named it. */
  #holds(slot: number, id: number): boolean {
    const words = this.#store.blocks.ints
    const unnamed = words[id * block.stride + block.edge] === this.#unnamedEdge && words[id * block.stride + block.depth]! >= this.#unnamedDepth
    return !unnamed && this.#store.covers(slot, id)
  }

  #giveRule(slot: number, id: number, low: number, high: number): void {
    const record = this.#find(slot, low, high)
    if (record === 0 && this.#firstOf(slot, id) === 0 && !this.#coversOther(slot, id, low, high)) return
    this.#point(slot, low, high, id)
  }

  #giveOwn(slot: number, id: number, known: boolean, low: number, high: number): void {
    const words = this.#store.blocks.ints
    const ruleLow = words[id * block.stride + block.hashLow]!
    const ruleHigh = words[id * block.stride + block.hashHigh]!
    if (known && this.#firstOf(slot, id) === 0 && this.resolve(slot, ruleLow, ruleHigh) === id) this.#add(slot, ruleLow, ruleHigh, id)
    this.#point(slot, low, high, id)
  }

  /** Lets a name mean a block from now on. */
  #point(slot: number, low: number, high: number, id: number): void {
    const record = this.#find(slot, low, high)
    const before = record === 0 ? 0 : this.#records.ints[record * N.stride + N.block]!
    if (record !== 0 && before === id) return
    if (record !== 0) this.#drop(record)
    this.#add(slot, low, high, id)
    if (before !== 0) this.#hideRule(slot, before)
  }

  /** A block that lost its last own name, but is still covered, must not become known by rule. */
  #hideRule(slot: number, id: number): void {
    const words = this.#store.blocks.ints
    const low = words[id * block.stride + block.hashLow]!
    const high = words[id * block.stride + block.hashHigh]!
    if (this.#firstOf(slot, id) !== 0 || this.#find(slot, low, high) !== 0) return
    let other = this.#store.firstNamed(low, high)
    while (other !== 0 && (other === id || !this.#holds(slot, other) || this.#firstOf(slot, other) !== 0)) other = this.#store.nextNamed(other)
    this.#add(slot, low, high, other)
  }

  #coversOther(slot: number, except: number, low: number, high: number): boolean {
    for (let id = this.#store.firstNamed(low, high); id !== 0; id = this.#store.nextNamed(id)) {
      if (id !== except && this.#holds(slot, id)) return true
    }
    return false
  }

  /** Forgets one name of a rank, whose block it is about to leave. Only for ranks with records. */
  forgetName(slot: number, low: number, high: number): void {
    const record = this.#find(slot, low, high)
    const id = record === 0 ? 0 : this.#records.ints[record * N.stride + N.block]!
    if (record !== 0) this.#drop(record)
    if (this.#coversOther(slot, 0, low, high)) this.#add(slot, low, high, 0)
    if (id !== 0) this.#hideRule(slot, id)
  }

  /** Forgets the names of `count` blocks from `first` on, which the rank has just ceased to cover. */
  forget(slot: number, first: number, count: number): void {
    let id = first
    for (let i = 0; i < count && this.hasAny(slot); i += 1) {
      const words = this.#store.blocks.ints
      const low = words[id * block.stride + block.hashLow]!
      const high = words[id * block.stride + block.hashHigh]!
      for (let record = this.#firstOf(slot, id); record !== 0; record = this.#firstOf(slot, id)) {
        const ownLow = this.#records.ints[record * N.stride + N.low]!
        const ownHigh = this.#records.ints[record * N.stride + N.high]!
        this.#drop(record)
        if (this.#coversOther(slot, id, ownLow, ownHigh)) this.#add(slot, ownLow, ownHigh, 0)
      }
      this.#forgetRule(slot, id, low, high)
      id = this.#store.contents.ints[id * content.stride + content.next]!
    }
  }

  /** The first writer's name goes, too, even when the rank means another block by it: as in the original. */
  #forgetRule(slot: number, id: number, low: number, high: number): void {
    const record = this.#find(slot, low, high)
    const other = record === 0 ? 0 : this.#records.ints[record * N.stride + N.block]!
    if (record !== 0) this.#drop(record)
    if (this.#coversOther(slot, id, low, high)) this.#add(slot, low, high, 0)
    if (other !== 0) this.#hideRule(slot, other)
  }

  /** Writes the name by which a rank knows a block that it covers to `out[0]`, `out[1]`. */
  nameOf(slot: number, id: number, out: Uint32Array): void {
    const words = this.#store.blocks.ints
    const ruleLow = words[id * block.stride + block.hashLow]!
    const ruleHigh = words[id * block.stride + block.hashHigh]!
    out[0] = ruleLow
    out[1] = ruleHigh
    if (!this.hasAny(slot) || this.resolve(slot, ruleLow, ruleHigh) === id) return
    let chosen = 0
    for (let record = this.#firstOf(slot, id); record !== 0; record = this.#nextOf(record)) {
      const base = record * N.stride
      const low = this.#records.words[base + N.low]!
      const high = this.#records.words[base + N.high]!
      // The order of records is not fixed; the smallest name is.
      if (chosen !== 0 && (high > out[1]! || (high === out[1] && low > out[0]!))) continue
      chosen = record
      out[0] = low
      out[1] = high
    }
  }

  #find(slot: number, low: number, high: number): number {
    const words = this.#records.ints
    const hash = mixHash(low, high, 1 + slot)
    for (let id = this.#byName.first(hash); id !== 0; id = this.#byName.after(id, hash)) {
      const base = id * N.stride
      if (words[base + N.low] === low && words[base + N.high] === high && words[base + N.slot] === slot) return id
    }
    return 0
  }

  /** A record of a rank for a block, or 0; go on with `#nextOf`. */
  #firstOf(slot: number, blockId: number): number {
    const hash = mixHash(blockId, slot, 0)
    return this.#matchingBlock(this.#byBlock.first(hash), hash, slot, blockId)
  }

  #nextOf(record: number): number {
    const words = this.#records.ints
    const base = record * N.stride
    const slot = words[base + N.slot]!
    const blockId = words[base + N.block]!
    const hash = mixHash(blockId, slot, 0)
    return this.#matchingBlock(this.#byBlock.after(record, hash), hash, slot, blockId)
  }

  #matchingBlock(from: number, hash: number, slot: number, blockId: number): number {
    const words = this.#records.ints
    let id = from
    while (id !== 0 && (words[id * N.stride + N.block] !== blockId || words[id * N.stride + N.slot] !== slot)) id = this.#byBlock.after(id, hash)
    return id
  }

  #add(slot: number, low: number, high: number, blockId: number): void {
    const id = this.#records.allocate()
    const words = this.#records.ints
    const base = id * N.stride
    words[base + N.slot] = slot
    words[base + N.low] = low
    words[base + N.high] = high
    words[base + N.block] = blockId
    this.#byName.insert(id, mixHash(low, high, 1 + slot))
    if (blockId !== 0) this.#byBlock.insert(id, mixHash(blockId, slot, 0))
    if (slot >= this.#counts.length) {
      const grown = new Uint32Array(Math.max(slot + 1, 2 * this.#counts.length))
      grown.set(this.#counts)
      this.#counts = grown
    }
    this.#counts[slot] = this.#counts[slot]! + 1
  }

  #drop(id: number): void {
    const words = this.#records.ints
    const base = id * N.stride
    const slot = words[base + N.slot]!
    const blockId = words[base + N.block]!
    this.#byName.remove(id, mixHash(words[base + N.low]!, words[base + N.high]!, 1 + slot))
    if (blockId !== 0) this.#byBlock.remove(id, mixHash(blockId, slot, 0))
    this.#counts[slot] = this.#counts[slot]! - 1
    this.#records.release(id)
  }
}
