/**
 * The records of the device tier: blocks, edges and who covers them.
 *
 * An edge-compressed tree over local hashes. An edge is a run of blocks; a rank covers its first `k` blocks: all of them
 * (the rank is in the edge's `full` set) or fewer (it is in the edge's list of cuts). An edge that nobody covers does not exist;
 * one that was detached from its parent lives on, out of reach, until its last rank leaves it.
 * Invariant: a block record belongs to exactly one edge, and its depth never changes.
 */
import { HashBuckets, mixHash } from './hash-buckets.ts'
import { MemberLists } from './member-lists.ts'
import type { OwnerSets } from './owner-sets.ts'
import { RecordArena } from './record-arena.ts'

/** Fields of a block record: one block of content below one parent chain. 32 bytes. */
export const block = {
  stride: 8, localLow: 0, localHigh: 1,
  /** The first writer's name (engine hash). */
  hashLow: 2, hashHigh: 3,
  /** 0 once released. */
  edge: 4,
  /** Position counted from the root, 0 for the first block of a prompt. */
  depth: 5,
  /** Next block of the same edge. */
  next: 6, link: 7,
} as const

/** Fields of an edge record. 48 bytes. */
export const edgeField = {
  stride: 12, head: 0, tail: 1, length: 2, depth: 3,
  /** 0 when detached, and for the root. */
  parent: 4,
  full: 5, cuts: 6,
  /** 1 when it had children once. */
  internal: 7,
  child: 8, previous: 9, sibling: 10, link: 11,
} as const

/** Fields of a cut: a rank that covers only the first `count` blocks of an edge. */
export const cut = { stride: 3, slot: 0, count: 1, next: 2 } as const

const B = block
const E = edgeField

export class TreeStore {
  readonly blocks = new RecordArena(B.stride)
  readonly edges = new RecordArena(E.stride)
  readonly cuts = new RecordArena(cut.stride)
  readonly owners: OwnerSets
  readonly root: number
  /** Blocks by first writer's name. */
  readonly #names: HashBuckets
  /** Edges by parent and first local hash. */
  readonly #children: HashBuckets
  readonly members: MemberLists
  /** Covered blocks per slot. */
  coveredCounts = new Uint32Array(16)
  coveredTotal = 0
  /** Block records whose name was taken when they came; while 0, names are unique. Never lowered below what is true. */
  duplicateNames = 0
  #slots = new Uint32Array(16)

  constructor(owners: OwnerSets) {
    this.owners = owners
    this.#names = new HashBuckets(this.blocks, B.link, (id) => this.#nameHash(id))
    this.#children = new HashBuckets(this.edges, E.link, (id) => this.#childHash(id))
    this.members = new MemberLists((slot, edge) => this.edges.words[edge * E.stride + E.length] !== 0 && this.coverage(edge, slot) > 0)
    this.root = this.#newEdge(0, 0)
    this.edges.words[this.root * E.stride + E.internal] = 1
  }

  get bytesReserved(): number {
    return (
      this.blocks.bytesReserved + this.edges.bytesReserved + this.cuts.bytesReserved + this.#names.bytesReserved +
      this.#children.bytesReserved + this.members.bytesReserved + this.coveredCounts.byteLength
    )
  }

  #nameHash(id: number): number {
    const { words } = this.blocks
    return mixHash(words[id * B.stride + B.hashLow]!, words[id * B.stride + B.hashHigh]!, 0)
  }

  #childHash(id: number): number {
    const edges = this.edges.words
    const head = edges[id * E.stride + E.head]! * B.stride
    return mixHash(this.blocks.words[head + B.localLow]!, this.blocks.words[head + B.localHigh]!, edges[id * E.stride + E.parent]!)
  }

  #newEdge(parent: number, depth: number): number {
    const id = this.edges.allocate()
    const base = id * E.stride
    this.edges.words.fill(0, base, base + E.stride)
    this.edges.words[base + E.parent] = parent
    this.edges.words[base + E.depth] = depth
    return id
  }

  // ---- Reading ---------------------------------------------------------------------------------------------------------------

  /** The child edge of `parent` whose first block has this local hash, or 0. */
  childOf(parent: number, low: number, high: number): number {
    const edges = this.edges.words
    const blocks = this.blocks.words
    let id = this.#children.first(mixHash(low, high, parent))
    while (id !== 0) {
      const base = id * E.stride
      const head = edges[base + E.head]! * B.stride
      if (edges[base + E.parent] === parent && blocks[head + B.localLow] === low && blocks[head + B.localHigh] === high) return id
      id = edges[base + E.link]!
    }
    return 0
  }

  /** First block record with this name, or 0; go on with `nextNamed`. */
  firstNamed(low: number, high: number): number {
    return this.#matching(this.#names.first(mixHash(low, high, 0)), low, high)
  }

  nextNamed(id: number): number {
    const { words } = this.blocks
    const base = id * B.stride
    return this.#matching(words[base + B.link]!, words[base + B.hashLow]!, words[base + B.hashHigh]!)
  }

  #matching(from: number, low: number, high: number): number {
    const { words } = this.blocks
    let id = from
    while (id !== 0) {
      const base = id * B.stride
      if (words[base + B.hashLow] === low && words[base + B.hashHigh] === high) return id
      id = words[base + B.link]!
    }
    return 0
  }

  /** How many leading blocks of the edge a rank covers. */
  coverage(edge: number, slot: number): number {
    const edges = this.edges.words
    const base = edge * E.stride
    if (this.owners.has(edges[base + E.full]!, slot)) return edges[base + E.length]!
    const cuts = this.cuts.words
    for (let id = edges[base + E.cuts]!; id !== 0; id = cuts[id * cut.stride + cut.next]!) {
      if (cuts[id * cut.stride + cut.slot] === slot) return cuts[id * cut.stride + cut.count]!
    }
    return 0
  }

  /** Position of a block in its edge. */
  offsetOf(id: number): number {
    const { words } = this.blocks
    const edge = words[id * B.stride + B.edge]!
    return words[id * B.stride + B.depth]! - this.edges.words[edge * E.stride + E.depth]!
  }

  /** Whether a rank covers a block. */
  covers(slot: number, id: number): boolean {
    const edge = this.blocks.words[id * B.stride + B.edge]!
    return edge !== 0 && this.offsetOf(id) < this.coverage(edge, slot)
  }

  // ---- Coverage --------------------------------------------------------------------------------------------------------------

  /** Sets a rank's coverage of an edge to exactly `count` blocks; 0 takes it out. Does not prune. */
  setCoverage(edge: number, slot: number, count: number): void {
    const before = this.coverage(edge, slot)
    if (before === count) return
    const base = edge * E.stride
    const length = this.edges.words[base + E.length]!
    if (before === length) this.edges.words[base + E.full] = this.owners.remove(this.edges.words[base + E.full]!, slot)
    else if (before > 0) this.#dropCut(edge, slot)
    if (count === length) this.edges.words[base + E.full] = this.owners.add(this.edges.words[base + E.full]!, slot)
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
    const { words } = this.cuts
    words[id * cut.stride + cut.slot] = slot
    words[id * cut.stride + cut.count] = count
    words[id * cut.stride + cut.next] = this.edges.words[edge * E.stride + E.cuts]!
    this.edges.words[edge * E.stride + E.cuts] = id
  }

  #dropCut(edge: number, slot: number): void {
    const { words } = this.cuts
    let previous = 0
    for (let id = this.edges.words[edge * E.stride + E.cuts]!; id !== 0; ) {
      const next = words[id * cut.stride + cut.next]!
      if (words[id * cut.stride + cut.slot] === slot) {
        if (previous === 0) this.edges.words[edge * E.stride + E.cuts] = next
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
    const depth = this.edges.words[parentBase + E.depth]! + this.edges.words[parentBase + E.length]!
    const leaf = this.#newEdge(parent, depth)
    const first = this.append(leaf, slot, locals, hashes, from)
    this.#attach(leaf)
    this.edges.words[parentBase + E.internal] = 1
    return first
  }

  /** Appends blocks `[from, end)` of an event to an edge; `slot` covers all of it, other full ranks keep what they had. Returns the first new block. */
  append(edge: number, slot: number, locals: Uint32Array, hashes: Uint32Array, from: number): number {
    const end = locals.length >>> 1
    const base = edge * E.stride
    const length = this.edges.words[base + E.length]!
    const before = this.coverage(edge, slot)
    if (length > 0) this.#fullToCuts(edge, slot, length)
    const first = this.#newBlocks(edge, this.edges.words[base + E.depth]! + length, locals, hashes, from, end)
    if (length === 0) this.edges.words[base + E.head] = first
    else this.blocks.words[this.edges.words[base + E.tail]! * B.stride + B.next] = first
    this.edges.words[base + E.tail] = this.#lastNew
    this.edges.words[base + E.length] = length + end - from
    // A coverage equal to the old length must not be read as a full one now.
    if (before > 0) {
      if (before < length) this.#dropCut(edge, slot)
      this.edges.words[base + E.full] = this.owners.add(this.edges.words[base + E.full]!, slot)
      this.#count(slot, length + end - from - before)
    } else this.setCoverage(edge, slot, length + end - from)
    return first
  }

  #lastNew = 0

  #newBlocks(edge: number, depth: number, locals: Uint32Array, hashes: Uint32Array, from: number, end: number): number {
    let first = 0
    let previous = 0
    for (let i = from; i < end; i += 1) {
      const id = this.blocks.allocate()
      const { words } = this.blocks
      const base = id * B.stride
      const low = hashes[2 * i]!
      const high = hashes[2 * i + 1]!
      words[base + B.localLow] = locals[2 * i]!
      words[base + B.localHigh] = locals[2 * i + 1]!
      words[base + B.hashLow] = low
      words[base + B.hashHigh] = high
      words[base + B.edge] = edge
      words[base + B.depth] = depth + i - from
      words[base + B.next] = 0
      const hash = mixHash(low, high, 0)
      if (this.#matching(this.#names.first(hash), low, high) !== 0) this.duplicateNames += 1
      this.#names.insert(id, hash)
      if (previous === 0) first = id
      else words[previous * B.stride + B.next] = id
      previous = id
    }
    this.#lastNew = previous
    return first
  }

  /** Full ranks but `except` become cut at `length`, because the edge is about to grow. */
  #fullToCuts(edge: number, except: number, length: number): void {
    const base = edge * E.stride
    const full = this.edges.words[base + E.full]!
    const count = this.owners.collect(full, this.slotScratch(this.owners.size(full)))
    this.owners.release(full)
    this.edges.words[base + E.full] = 0
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
    const edges = this.edges.words
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
    const edges = this.edges.words
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
    const parent = this.edges.words[oldBase + E.parent]!
    this.#detach(edge)
    const prefix = this.#newEdge(parent, this.edges.words[oldBase + E.depth]!)
    const edges = this.edges.words
    const base = prefix * E.stride
    const blocks = this.blocks.words
    let last = edges[oldBase + E.head]!
    edges[base + E.head] = last
    blocks[last * B.stride + B.edge] = prefix
    for (let i = 1; i < length; i += 1) {
      last = blocks[last * B.stride + B.next]!
      blocks[last * B.stride + B.edge] = prefix
    }
    edges[base + E.tail] = last
    edges[base + E.length] = length
    edges[base + E.internal] = 1
    edges[oldBase + E.head] = blocks[last * B.stride + B.next]!
    edges[oldBase + E.length] = edges[oldBase + E.length]! - length
    edges[oldBase + E.depth] = edges[oldBase + E.depth]! + length
    blocks[last * B.stride + B.next] = 0
    this.#splitOwners(edge, prefix, length)
    if (parent !== 0) this.#attach(prefix)
    this.edges.words[oldBase + E.parent] = prefix
    this.#attach(edge)
    this.prune(edge)
    return prefix
  }

  #splitOwners(rest: number, prefix: number, length: number): void {
    const restBase = rest * E.stride
    const base = prefix * E.stride
    let full = this.owners.copy(this.edges.words[restBase + E.full]!)
    const count = this.owners.collect(full, this.slotScratch(this.owners.size(full)))
    for (let i = 0; i < count; i += 1) this.members.join(this.#slots[i]!, prefix)
    let id = this.edges.words[restBase + E.cuts]!
    this.edges.words[restBase + E.cuts] = 0
    while (id !== 0) {
      const cuts = this.cuts.words
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
    this.edges.words[base + E.full] = full
  }

  #moveCut(id: number, edge: number): void {
    this.cuts.words[id * cut.stride + cut.next] = this.edges.words[edge * E.stride + E.cuts]!
    this.edges.words[edge * E.stride + E.cuts] = id
  }

  /** Without a full rank an edge loses its children; without any rank it goes. Parents are left as they are. */
  prune(edge: number): void {
    const base = edge * E.stride
    if (this.edges.words[base + E.full] !== 0) return
    for (let child = this.edges.words[base + E.child]!; child !== 0; child = this.edges.words[base + E.child]!) this.#detach(child)
    if (this.edges.words[base + E.cuts] !== 0) return
    this.#detach(edge)
    let id = this.edges.words[base + E.head]!
    while (id !== 0) {
      const next = this.blocks.words[id * B.stride + B.next]!
      this.#releaseBlock(id)
      id = next
    }
    this.edges.words[base + E.length] = 0
    this.edges.words[base + E.full] = 0
    this.edges.release(edge)
  }

  #releaseBlock(id: number): void {
    this.#names.remove(id, this.#nameHash(id))
    const { words } = this.blocks
    words[id * B.stride + B.edge] = 0
    if (this.duplicateNames > 0) {
      const low = words[id * B.stride + B.hashLow]!
      const high = words[id * B.stride + B.hashHigh]!
      if (this.firstNamed(low, high) !== 0) this.duplicateNames -= 1
    }
    this.blocks.release(id)
  }
}
