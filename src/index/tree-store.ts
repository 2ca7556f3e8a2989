/**
 * The records of the device tier: blocks, edges and who covers them.
 *
 * An edge-compressed tree over local hashes. An edge is a run of blocks; a rank covers its first `k` blocks: all of them
 * (the rank is in the edge's `full` set) or fewer (it is in the edge's list of cuts). An edge that nobody covers does not exist;
 * one that was detached from its parent lives on, out of reach, until its last rank leaves it.
 * Invariant: a block record belongs to exactly one edge, and its depth never changes.
 */
import { GrowingWords } from './growing-words.ts'
import { mixHash } from './hash-buckets.ts'
import { HashTable } from './hash-table.ts'
import { windowRecords } from './match-kernel.ts'
import { MemberLists } from './member-lists.ts'
import { onlyOwner, type OwnerSets } from './owner-sets.ts'
import { RecordArena } from './record-arena.ts'

/** What a query reads of a block: fields of 12 bytes, so that a long edge is little memory. The match kernel knows them, too. */
export const content = {
  stride: 3,
  /** Next block of the same edge. */
  next: 0, localLow: 1, localHigh: 2,
} as const

/** What events read of a block, beside its content under the same id. 16 bytes. */
export const block = {
  stride: 4,
  /** The first writer's name (engine hash). */
  hashLow: 0, hashHigh: 1,
  /** 0 once released. */
  edge: 2,
  /** Position counted from the root, 0 for the first block of a prompt. */
  depth: 3,
} as const

/** Fields of an edge record. 48 bytes. */
export const edgeField = {
  stride: 12, head: 0, tail: 1, length: 2, depth: 3,
  /** 0 when detached, and for the root. */
  parent: 4,
  full: 5, cuts: 6,
  /** 1 when it had children once. */
  internal: 7,
  child: 8, previous: 9, sibling: 10,
  /** How often the eviction passes it by: 2 after a query, 1 after a later store, one less each time. */
  used: 11,
} as const

/** Fields of a cut: a rank that covers only the first `count` blocks of an edge. */
export const cut = { stride: 3, slot: 0, count: 1, next: 2 } as const

/** Edges, splits included, that one event can add. */
const edgesPerEvent = 4
/** Names whose places in the table are read ahead: so many lines stay in the cache until they are needed. */
const touchedMax = 256

const B = block
const K = content
const E = edgeField

export class TreeStore {
  /** Contents of the blocks; it gives out their ids. */
  readonly contents = new RecordArena(K.stride, { firstId: windowRecords, inPlace: true })
  /** Names and places of the blocks, by the same ids. */
  readonly blocks = new GrowingWords((windowRecords + 64) * B.stride)
  readonly edges = new RecordArena(E.stride)
  readonly cuts = new RecordArena(cut.stride)
  readonly owners: OwnerSets
  readonly root: number
  /** Blocks by first writer's name. */
  readonly #names = new HashTable()
  /** Edges by parent and first local hash. */
  readonly #children = new HashTable()
  readonly members: MemberLists
  /** Covered blocks per slot. */
  coveredCounts = new Uint32Array(16)
  coveredTotal = 0
  /** Block records whose name was taken when they came; while 0, names are unique. Never lowered below what is true. */
  duplicateNames = 0
  #slots = new Uint32Array(16)
  /** Where reads go that are made for the memory's sake alone. */
  touched = 0

  constructor(owners: OwnerSets) {
    this.owners = owners
    this.members = new MemberLists((slot, edge) => this.edges.ints[edge * E.stride + E.length] !== 0 && this.coverage(edge, slot) > 0)
    this.root = this.#newEdge(0, 0)
    this.edges.ints[this.root * E.stride + E.internal] = 1
  }

  get bytesReserved(): number {
    return (
      this.contents.bytesReserved + this.blocks.byteLength + this.edges.bytesReserved + this.cuts.bytesReserved + this.#names.bytesReserved +
      this.#children.bytesReserved + this.members.bytesReserved + this.coveredCounts.byteLength
    )
  }

  /** Makes room for what one event of `count` blocks can add; false when memory is refused. */
  reserve(count: number): boolean {
    return this.contents.reserve(count) && this.blocks.reserve(this.contents.endAfter(count) * B.stride) && this.#names.reserve(count) &&
      this.edges.reserve(edgesPerEvent) && this.#children.reserve(edgesPerEvent)
  }

  #childHash(id: number): number {
    const edges = this.edges.ints
    const head = edges[id * E.stride + E.head]! * K.stride
    return mixHash(this.contents.ints[head + K.localLow]!, this.contents.ints[head + K.localHigh]!, edges[id * E.stride + E.parent]!)
  }

  #newEdge(parent: number, depth: number): number {
    const id = this.edges.allocate()
    const base = id * E.stride
    this.edges.ints.fill(0, base, base + E.stride)
    this.edges.ints[base + E.parent] = parent
    this.edges.ints[base + E.depth] = depth
    return id
  }

  // ---- Reading ---------------------------------------------------------------------------------------------------------------

  /** The child edge of `parent` whose first block has this local hash (int32 halves), or 0. */
  childOf(parent: number, low: number, high: number): number {
    const edges = this.edges.ints
    const contents = this.contents.ints
    const hash = mixHash(low, high, parent)
    for (let id = this.#children.first(hash); id !== 0; id = this.#children.after(id, hash)) {
      const base = id * E.stride
      const head = edges[base + E.head]! * K.stride
      if (edges[base + E.parent] === parent && contents[head + K.localLow] === low && contents[head + K.localHigh] === high) return id
    }
    return 0
  }

  /** First block record with this name (int32 halves), or 0; go on with `nextNamed`. */
  firstNamed(low: number, high: number): number {
    const hash = mixHash(low, high, 0)
    return this.#matching(this.#names.first(hash), hash, low, high)
  }

  nextNamed(id: number): number {
    const { ints } = this.blocks
    const low = ints[id * B.stride + B.hashLow]!
    const high = ints[id * B.stride + B.hashHigh]!
    const hash = mixHash(low, high, 0)
    return this.#matching(this.#names.after(id, hash), hash, low, high)
  }

  #matching(from: number, hash: number, low: number, high: number): number {
    const { ints } = this.blocks
    let id = from
    while (id !== 0 && (ints[id * B.stride + B.hashLow] !== low || ints[id * B.stride + B.hashHigh] !== high)) id = this.#names.after(id, hash)
    return id
  }

  /** How many leading blocks of the edge a rank covers. */
  coverage(edge: number, slot: number): number {
    const edges = this.edges.ints
    const base = edge * E.stride
    if (this.owners.has(edges[base + E.full]!, slot)) return edges[base + E.length]!
    const cuts = this.cuts.ints
    for (let id = edges[base + E.cuts]!; id !== 0; id = cuts[id * cut.stride + cut.next]!) {
      if (cuts[id * cut.stride + cut.slot] === slot) return cuts[id * cut.stride + cut.count]!
    }
    return 0
  }

  /** Position of a block in its edge. */
  offsetOf(id: number): number {
    const words = this.blocks.ints
    const edge = words[id * B.stride + B.edge]!
    return words[id * B.stride + B.depth]! - this.edges.ints[edge * E.stride + E.depth]!
  }

  /** Depth of the first block of an edge that a rank does not cover. */
  coveredDepth(edge: number, slot: number): number {
    return this.edges.ints[edge * E.stride + E.depth]! + this.coverage(edge, slot)
  }

  /** Whether a rank covers a block. */
  covers(slot: number, id: number): boolean {
    const edge = this.blocks.ints[id * B.stride + B.edge]!
    return edge !== 0 && this.offsetOf(id) < this.coverage(edge, slot)
  }

  // ---- Coverage --------------------------------------------------------------------------------------------------------------

  /** Sets a rank's coverage of an edge to exactly `count` blocks; 0 takes it out. Does not prune. */
  setCoverage(edge: number, slot: number, count: number): void {
    const before = this.coverage(edge, slot)
    if (before === count) return
    const base = edge * E.stride
    const length = this.edges.ints[base + E.length]!
    if (before === length) this.edges.ints[base + E.full] = this.owners.remove(this.edges.ints[base + E.full]!, slot)
    else if (before > 0) this.#dropCut(edge, slot)
    if (count === length) this.edges.ints[base + E.full] = this.owners.add(this.edges.ints[base + E.full]!, slot)
    else if (count > 0) this.#addCut(edge, slot, count)
    if (before === 0) this.members.join(slot, edge)
    if (count === 0) this.members.leave(slot)
    this.#count(slot, count - before)
  }

  #count(slot: number, change: number): void {
    if (slot >= this.coveredCounts.length) {
      const grown = new Uint32Array(Math.max(slot + 1, 2 * this.coveredCounts.length))
      grown.set(this.coveredCounts)
      this.coveredCounts = grown
    }
    this.coveredCounts[slot] = this.coveredCounts[slot]! + change
    this.coveredTotal += change
  }

  #addCut(edge: number, slot: number, count: number): void {
    const id = this.cuts.allocate()
    const words = this.cuts.ints
    words[id * cut.stride + cut.slot] = slot
    words[id * cut.stride + cut.count] = count
    words[id * cut.stride + cut.next] = this.edges.ints[edge * E.stride + E.cuts]!
    this.edges.ints[edge * E.stride + E.cuts] = id
  }

  #dropCut(edge: number, slot: number): void {
    const words = this.cuts.ints
    let previous = 0
    for (let id = this.edges.ints[edge * E.stride + E.cuts]!; id !== 0; ) {
      const next = words[id * cut.stride + cut.next]!
      if (words[id * cut.stride + cut.slot] === slot) {
        if (previous === 0) this.edges.ints[edge * E.stride + E.cuts] = next
        else words[previous * cut.stride + cut.next] = next
        this.cuts.release(id)
        return
      }
      previous = id
      id = next
    }
  }

  // ---- Shape -----------------------------------------------------------------------------------------------------------------

  /** A new leaf below `parent` with blocks `[from, end)` of an event, covered by `slot`. Returns its first block. */
  addLeaf(parent: number, slot: number, locals: Uint32Array, hashes: Uint32Array, from: number): number {
    const parentBase = parent * E.stride
    const depth = this.edges.ints[parentBase + E.depth]! + this.edges.ints[parentBase + E.length]!
    const leaf = this.#newEdge(parent, depth)
    const first = this.append(leaf, slot, locals, hashes, from)
    this.#attach(leaf)
    this.edges.ints[parentBase + E.internal] = 1
    return first
  }

  /** Appends blocks `[from, end)` of an event to an edge; `slot` covers all of it, other full ranks keep what they had. Returns the first new block. */
  append(edge: number, slot: number, locals: Uint32Array, hashes: Uint32Array, from: number): number {
    const end = locals.length >>> 1
    const base = edge * E.stride
    const length = this.edges.ints[base + E.length]!
    const isAlone = length > 0 && this.edges.ints[base + E.full] === onlyOwner(slot)
    const before = isAlone ? length : this.coverage(edge, slot)
    if (length > 0 && !isAlone) this.#fullToCuts(edge, slot, length)
    const first = this.#newBlocks(edge, this.edges.ints[base + E.depth]! + length, locals, hashes, from, end)
    if (length === 0) this.edges.ints[base + E.head] = first
    else this.contents.ints[this.edges.ints[base + E.tail]! * K.stride + K.next] = first
    this.edges.ints[base + E.tail] = this.#lastNew
    this.edges.ints[base + E.length] = length + end - from
    // A coverage equal to the old length must not be read as a full one now.
    if (isAlone) this.#count(slot, end - from)
    else if (before > 0) {
      if (before < length) this.#dropCut(edge, slot)
      this.edges.ints[base + E.full] = this.owners.add(this.edges.ints[base + E.full]!, slot)
      this.#count(slot, length + end - from - before)
    } else this.setCoverage(edge, slot, length + end - from)
    return first
  }

  #lastNew = 0

  #newBlocks(edge: number, depth: number, locals: Uint32Array, hashes: Uint32Array, from: number, end: number): number {
    let first = 0
    let previous = 0
    if (!this.blocks.reserve(this.contents.endAfter(end - from) * B.stride)) throw new RangeError('no memory for the prefix index')
    const blocks = this.blocks.ints
    if (end - from > 2) this.#touchNames(hashes, from, end)
    for (let i = from; i < end; i += 1) {
      const id = this.contents.allocate()
      const contents = this.contents.ints
      const low = hashes[2 * i]! | 0
      const high = hashes[2 * i + 1]! | 0
      const at = id * K.stride
      contents[at + K.next] = 0
      contents[at + K.localLow] = locals[2 * i]!
      contents[at + K.localHigh] = locals[2 * i + 1]!
      const base = id * B.stride
      blocks[base + B.hashLow] = low
      blocks[base + B.hashHigh] = high
      blocks[base + B.edge] = edge
      blocks[base + B.depth] = depth + i - from
      const hash = mixHash(low, high, 0)
      if (this.#names.insert(id, hash) !== 0 && this.#isNamedTwice(hash, low, high)) this.duplicateNames += 1
      if (previous === 0) first = id
      else contents[previous * K.stride + K.next] = id
      previous = id
    }
    this.#lastNew = previous
    return first
  }

  /** Brings the places of these names in the table near. Of so many that they stay near until they are needed. */
  #touchNames(hashes: Uint32Array, from: number, end: number): void {
    const until = Math.min(end, from + touchedMax)
    let touched = 0
    for (let i = from; i < until; i += 1) touched ^= this.#names.touch(mixHash(hashes[2 * i]! | 0, hashes[2 * i + 1]! | 0, 0))
    this.touched = touched
  }

  #isNamedTwice(hash: number, low: number, high: number): boolean {
    const first = this.#matching(this.#names.first(hash), hash, low, high)
    return this.#matching(this.#names.after(first, hash), hash, low, high) !== 0
  }

  /** Full ranks but `except` become cut at `length`, because the edge is about to grow. */
  #fullToCuts(edge: number, except: number, length: number): void {
    const base = edge * E.stride
    const full = this.edges.ints[base + E.full]!
    const count = this.owners.collect(full, this.slotScratch(this.owners.size(full)))
    this.owners.release(full)
    this.edges.ints[base + E.full] = 0
    for (let i = 0; i < count; i += 1) {
      const slot = this.#slots[i]!
      if (slot !== except) this.#addCut(edge, slot, length)
    }
  }

  /** A scratch list of at least `count` slots, used until the next call. */
  slotScratch(count: number): Uint32Array {
    if (this.#slots.length < count) this.#slots = new Uint32Array(Math.max(count, 2 * this.#slots.length))
    return this.#slots
  }

  #attach(edge: number): void {
    const edges = this.edges.ints
    const base = edge * E.stride
    const parentBase = edges[base + E.parent]! * E.stride
    const first = edges[parentBase + E.child]!
    edges[base + E.previous] = 0
    edges[base + E.sibling] = first
    if (first !== 0) edges[first * E.stride + E.previous] = edge
    edges[parentBase + E.child] = edge
    this.#children.insert(edge, this.#childHash(edge))
  }

  #detach(edge: number): void {
    const edges = this.edges.ints
    const base = edge * E.stride
    const parent = edges[base + E.parent]!
    if (parent === 0) return
    this.#children.remove(edge, this.#childHash(edge))
    const previous = edges[base + E.previous]!
    const sibling = edges[base + E.sibling]!
    if (previous === 0) edges[parent * E.stride + E.child] = sibling
    else edges[previous * E.stride + E.sibling] = sibling
    if (sibling !== 0) edges[sibling * E.stride + E.previous] = previous
    edges[base + E.parent] = 0
  }

  /**
   * Cuts an edge in two after `length` blocks and prunes the rest when nobody covers it.
   * Returns the prefix, a new edge in the old one's place; the rest keeps the id, the children and the blocks' records.
   */
  split(edge: number, length: number): number {
    const oldBase = edge * E.stride
    const parent = this.edges.ints[oldBase + E.parent]!
    this.#detach(edge)
    const prefix = this.#newEdge(parent, this.edges.ints[oldBase + E.depth]!)
    const edges = this.edges.ints
    const base = prefix * E.stride
    const blocks = this.blocks.ints
    const contents = this.contents.ints
    let last = edges[oldBase + E.head]!
    edges[base + E.head] = last
    blocks[last * B.stride + B.edge] = prefix
    for (let i = 1; i < length; i += 1) {
      last = contents[last * K.stride + K.next]!
      blocks[last * B.stride + B.edge] = prefix
    }
    edges[base + E.tail] = last
    edges[base + E.length] = length
    edges[base + E.internal] = 1
    edges[oldBase + E.head] = contents[last * K.stride + K.next]!
    edges[oldBase + E.length] = edges[oldBase + E.length]! - length
    edges[oldBase + E.depth] = edges[oldBase + E.depth]! + length
    contents[last * K.stride + K.next] = 0
    this.#splitOwners(edge, prefix, length)
    if (parent !== 0) this.#attach(prefix)
    this.edges.ints[oldBase + E.parent] = prefix
    this.#attach(edge)
    this.prune(edge)
    return prefix
  }

  #splitOwners(rest: number, prefix: number, length: number): void {
    const restBase = rest * E.stride
    const base = prefix * E.stride
    let full = this.owners.copy(this.edges.ints[restBase + E.full]!)
    const count = this.owners.collect(full, this.slotScratch(this.owners.size(full)))
    for (let i = 0; i < count; i += 1) this.members.join(this.#slots[i]!, prefix)
    let id = this.edges.ints[restBase + E.cuts]!
    this.edges.ints[restBase + E.cuts] = 0
    while (id !== 0) {
      const cuts = this.cuts.ints
      const next = cuts[id * cut.stride + cut.next]!
      const slot = cuts[id * cut.stride + cut.slot]!
      const covered = cuts[id * cut.stride + cut.count]!
      if (covered > length) cuts[id * cut.stride + cut.count] = covered - length
      if (covered >= length) full = this.owners.add(full, slot)
      if (covered === length) this.cuts.release(id)
      else this.#moveCut(id, covered > length ? rest : prefix)
      // Joined only now: joining may tidy the rank's list by looking at these very edges.
      this.members.join(slot, prefix)
      if (covered <= length) this.members.leave(slot)
      id = next
    }
    this.edges.ints[base + E.full] = full
  }

  #moveCut(id: number, edge: number): void {
    this.cuts.ints[id * cut.stride + cut.next] = this.edges.ints[edge * E.stride + E.cuts]!
    this.edges.ints[edge * E.stride + E.cuts] = id
  }

  /** Without a full rank an edge loses its children; without any rank it goes. Parents are left as they are. */
  prune(edge: number): void {
    const base = edge * E.stride
    if (this.edges.ints[base + E.full] !== 0) return
    for (let child = this.edges.ints[base + E.child]!; child !== 0; child = this.edges.ints[base + E.child]!) this.#detach(child)
    if (this.edges.ints[base + E.cuts] !== 0) return
    this.#detach(edge)
    this.#releaseBlocks(edge)
    this.edges.ints[base + E.length] = 0
    this.edges.ints[base + E.full] = 0
    this.edges.release(edge)
  }

  #releaseBlocks(edge: number): void {
    const base = edge * E.stride
    const contents = this.contents.ints
    const words = this.blocks.ints
    const first = this.edges.ints[base + E.head]!
    let last = first
    let touched = 0
    for (let id = first, left = touchedMax; id !== 0 && left > 0; id = contents[id * K.stride + K.next]!, left -= 1) {
      touched ^= this.#names.touch(mixHash(words[id * B.stride + B.hashLow]!, words[id * B.stride + B.hashHigh]!, 0))
    }
    this.touched = touched
    for (let id = first; id !== 0; id = contents[id * K.stride + K.next]!) {
      const at = id * B.stride
      const low = words[at + B.hashLow]!
      const high = words[at + B.hashHigh]!
      words[at + B.edge] = 0
      this.#names.remove(id, mixHash(low, high, 0))
      if (this.duplicateNames > 0 && this.firstNamed(low, high) !== 0) this.duplicateNames -= 1
      last = id
    }
    this.contents.releaseChain(first, last, this.edges.ints[base + E.length]!)
  }
}
