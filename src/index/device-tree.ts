/**
 * The device tier: which rank holds which prefix of which prompt.
 *
 * Applies stored, removed and drop to the tree and answers queries in one walk. Events of different ranks are independent.
 * Source: the semantics of router-algorithm 4, with a rank's own names beyond the original.
 */
import { hashListOf } from '../model/hash-list.ts'
import type { HashList } from '../model/hash-list.ts'
import type { ApplyStatus, StoredBlocks } from '../model/kv-event.ts'
import { MatchKernel } from './match-kernel.ts'
import type { OwnerSets } from './owner-sets.ts'
import { RankNames } from './rank-names.ts'
import { block as B, content as K, cut as C, edgeField as E, TreeStore } from './tree-store.ts'

/** A name as int32 halves, without a bigint in between. */
const wide = new BigUint64Array(1)
const halves = new Int32Array(wide.buffer)

export class DeviceTree {
  readonly #store: TreeStore
  readonly #names: RankNames
  readonly #kernel: MatchKernel
  /** Block per position along the last query, `[0, pathLength)`. */
  path = new Uint32Array(256)
  pathLength = 0
  /** Where the eviction goes on. */
  #hand = 1
  #active = new Uint32Array(64)
  #cutCounts = new Uint32Array(64)
  #resolved = new Uint32Array(64)

  constructor(owners: OwnerSets) {
    this.#store = new TreeStore(owners)
    this.#names = new RankNames(this.#store)
    this.#kernel = new MatchKernel(this.#store.contents)
  }

  /** (rank, block) pairs. */
  get entryCount(): number {
    return this.#store.coveredTotal
  }

  /** Records that the entries bound limits: blocks of the tree and names apart from rule. */
  get recordCount(): number {
    return this.#store.contents.liveCount + this.#names.recordCount
  }

  get bytesReserved(): number {
    return this.#store.bytesReserved + this.#names.bytesReserved
  }

  /** Blocks that a rank holds, also those that a query can no longer reach. */
  coveredCount(slot: number): number {
    return this.#store.coveredCounts[slot] ?? 0
  }

  /** Writes a rank's name of the block at `position` of the last query's path to `out`. */
  pathName(slot: number, position: number, out: Uint32Array): void {
    this.#names.nameOf(slot, this.path[position]!, out)
  }

  // ---- Events ----------------------------------------------------------------------------------------------------------------

  stored(slot: number, parentHash: bigint | null, hashes: HashList, locals: HashList): ApplyStatus {
    const store = this.#store
    const count = hashes.length >>> 1
    if (!store.reserve(count)) return 'capacity_exhausted'
    if (parentHash === null) {
      this.#storeBelow(slot, store.root, hashes, locals, 0)
      return 'ok'
    }
    wide[0] = parentHash
    const low = halves[0]!
    const high = halves[1]!
    for (let i = 0; i < count; i += 1) if ((hashes[2 * i]! | 0) === low && (hashes[2 * i + 1]! | 0) === high) return 'invalid_block'
    const parent = this.#names.resolve(slot, low, high)
    if (parent === 0) return 'parent_block_not_found'
    const words = store.blocks.ints
    // A parent known by the rank's own name comes from a chain with other names: there content alone decides.
    const ownName = words[parent * B.stride + B.hashLow] !== low || words[parent * B.stride + B.hashHigh] !== high
    const edge = words[parent * B.stride + B.edge]!
    store.edges.ints[edge * E.stride + E.used] ||= 1
    const after = store.offsetOf(parent) + 1
    const edges = store.edges.ints
    const rest = edges[edge * E.stride + E.length]! - after
    const following = store.contents.ints[parent * K.stride + K.next]!
    if (following === 0 && count > 0 && edges[edge * E.stride + E.internal] === 0) {
      // The parent ends a leaf, as where a conversation goes on.
      const appended = store.append(edge, slot, locals, hashes, 0)
      this.#names.giveNew(slot, appended, hashes, 0, count)
      return 'ok'
    }
    const same = this.#sameRun(following, hashes, locals, ownName)
    if (same === count) {
      this.#coverAndName(slot, edge, following, after, count, hashes, 0)
    } else if (same === rest && edges[edge * E.stride + E.internal] === 0) {
      const known = store.coverage(edge, slot) - after
      const next = this.#names.give(slot, following, true, hashes, 0, known)
      const appended = store.append(edge, slot, locals, hashes, same)
      if (next === 0) this.#names.giveNew(slot, appended, hashes, known, count - known)
      else this.#names.give(slot, next, false, hashes, known, count - known)
    } else {
      this.#storeBelow(slot, rest > 0 ? store.split(edge, after) : edge, hashes, locals, 0)
    }
    return 'ok'
  }

  /** How many blocks from `first` on equal the event's, to the end of the edge or of the event. */
  #sameRun(first: number, hashes: HashList, locals: HashList, localOnly: boolean): number {
    const words = this.#store.blocks.ints
    const contents = this.#store.contents.ints
    const count = hashes.length >>> 1
    let id = first
    let i = 0
    while (id !== 0 && i < count) {
      const at = id * K.stride
      if (contents[at + K.localLow] !== (locals[2 * i]! | 0) || contents[at + K.localHigh] !== (locals[2 * i + 1]! | 0)) break
      const base = id * B.stride
      if (!localOnly && (words[base + B.hashLow] !== (hashes[2 * i]! | 0) || words[base + B.hashHigh] !== (hashes[2 * i + 1]! | 0))) break
      id = contents[at + K.next]!
      i += 1
    }
    return i
  }

  /** Extends a rank's coverage over `count` blocks from `first`, at `offset` of the edge, and names them. */
  #coverAndName(slot: number, edge: number, first: number, offset: number, count: number, hashes: HashList, from: number): void {
    const known = Math.min(count, Math.max(0, this.#store.coverage(edge, slot) - offset))
    const next = this.#names.give(slot, first, true, hashes, from, known)
    if (known === count) return
    this.#store.setCoverage(edge, slot, offset + count)
    this.#names.give(slot, next, false, hashes, from + known, count - known)
  }

  #storeBelow(slot: number, start: number, hashes: HashList, locals: HashList, start0: number): void {
    const store = this.#store
    const count = hashes.length >>> 1
    let edge = start
    let from = start0
    while (from < count) {
      const child = store.childOf(edge, locals[2 * from]! | 0, locals[2 * from + 1]! | 0)
      const edges = store.edges.ints
      if (child === 0) {
        const leaf = edge !== store.root && edges[edge * E.stride + E.internal] === 0 && store.owners.has(edges[edge * E.stride + E.full]!, slot)
        const first = leaf ? store.append(edge, slot, locals, hashes, from) : store.addLeaf(edge, slot, locals, hashes, from)
        this.#names.giveNew(slot, first, hashes, from, count - from)
        return
      }
      const common = this.#commonLocals(child, locals, from)
      const length = edges[child * E.stride + E.length]!
      const target = from + common < count && common < length ? store.split(child, common) : child
      this.#coverAndName(slot, target, store.edges.ints[target * E.stride + E.head]!, 0, common, hashes, from)
      from += common
      edge = target
    }
  }

  #commonLocals(edge: number, locals: HashList, from: number): number {
    const contents = this.#store.contents.ints
    const count = locals.length >>> 1
    let id = this.#store.edges.ints[edge * E.stride + E.head]!
    let i = from
    while (id !== 0 && i < count) {
      const at = id * K.stride
      if (contents[at + K.localLow] !== (locals[2 * i]! | 0) || contents[at + K.localHigh] !== (locals[2 * i + 1]! | 0)) break
      id = contents[at + K.next]!
      i += 1
    }
    return i - from
  }

  removed(slot: number, hashes: HashList): ApplyStatus {
    const count = hashes.length >>> 1
    if (this.#resolved.length < count) this.#resolved = new Uint32Array(2 * count)
    if (!this.#names.hasAny(slot)) return this.#removedByRule(slot, hashes, count)
    const resolved = this.#resolved
    let status: ApplyStatus = 'ok'
    for (let i = 0; i < count; i += 1) {
      resolved[i] = this.#names.resolve(slot, hashes[2 * i]! | 0, hashes[2 * i + 1]! | 0)
      if (resolved[i] === 0) status = 'block_not_found'
    }
    for (let i = 0; i < count; i += 1) {
      const id = this.#stillKnown(slot, hashes, i)
      if (id === 0) continue
      const edge = this.#store.blocks.ints[id * B.stride + B.edge]!
      let first = id
      this.#names.forgetName(slot, hashes[2 * i]! | 0, hashes[2 * i + 1]! | 0)
      for (; i + 1 < count; i += 1) {
        const next = this.#stillKnown(slot, hashes, i + 1)
        if (next === 0 || this.#store.blocks.ints[next * B.stride + B.edge] !== edge) break
        this.#names.forgetName(slot, hashes[2 * i + 2]! | 0, hashes[2 * i + 3]! | 0)
        if (this.#store.offsetOf(next) < this.#store.offsetOf(first)) first = next
      }
      this.#uncover(slot, edge, first)
    }
    return status
  }

  /** The block of the event's hash `i` if the event has not made the rank forget it so far, else 0. */
  #stillKnown(slot: number, hashes: HashList, i: number): number {
    return this.#names.resolve(slot, hashes[2 * i]! | 0, hashes[2 * i + 1]! | 0)
  }

  /** For a rank without names of its own. Events mostly remove runs of one edge: what the edge says is kept from block to block. */
  #removedByRule(slot: number, hashes: HashList, count: number): ApplyStatus {
    const store = this.#store
    const resolved = this.#resolved
    const blocks = store.blocks.ints
    let status: ApplyStatus = 'ok'
    let edge = 0
    let end = 0
    // Chains mostly have neighbouring records, and go last block first. A name that only one record has needs no looking up then.
    let step = -1
    let last = store.duplicateNames === 0 ? 0 : -1
    for (let i = 0; i < count; i += 1) {
      const low = hashes[2 * i]! | 0
      const high = hashes[2 * i + 1]! | 0
      if (last > 1) {
        const base = (last + step) * B.stride
        if (blocks[base + B.hashLow] === low && blocks[base + B.hashHigh] === high && blocks[base + B.edge] === edge && edge !== 0 && blocks[base + B.depth]! < end) {
          last += step
          resolved[i] = last
          continue
        }
      }
      let id = store.firstNamed(low, high)
      if (last >= 0) {
        step = id === last + 1 ? 1 : -1
        last = id
      }
      for (; id !== 0; id = store.nextNamed(id)) {
        const base = id * B.stride
        if (blocks[base + B.edge] !== edge) {
          edge = blocks[base + B.edge]!
          end = store.coveredDepth(edge, slot)
        }
        if (blocks[base + B.depth]! < end) break
      }
      resolved[i] = id
      if (id === 0) status = 'block_not_found'
    }
    for (let i = 0; i < count;) {
      const id = resolved[i]!
      i += 1
      if (id === 0 || blocks[id * B.stride + B.edge] === 0) continue
      edge = blocks[id * B.stride + B.edge]!
      end = store.coveredDepth(edge, slot)
      if (blocks[id * B.stride + B.depth]! >= end) continue
      let first = id
      for (; i < count; i += 1) {
        const base = resolved[i]! * B.stride
        if (base === 0 || blocks[base + B.edge] !== edge) break
        if (blocks[base + B.depth]! < blocks[first * B.stride + B.depth]!) first = resolved[i]!
      }
      this.#uncover(slot, edge, first)
    }
    return status
  }

  /** The rank keeps only what lies before `first` on this edge. */
  #uncover(slot: number, edge: number, first: number): void {
    const offset = this.#store.offsetOf(first)
    const covered = this.#store.coverage(edge, slot)
    this.#store.setCoverage(edge, slot, offset)
    this.#names.forget(slot, first, covered - offset)
    this.#store.prune(edge)
  }

  /** Forgets everything of a rank. */
  drop(slot: number): void {
    const store = this.#store
    const edges = store.members.take(slot)
    for (let i = 0; i < edges.length; i += 1) {
      const edge = edges[i]!
      if (store.edges.ints[edge * E.stride + E.length] === 0 || store.coverage(edge, slot) === 0) continue
      this.#uncover(slot, edge, store.edges.ints[edge * E.stride + E.head]!)
    }
  }

  // ---- Eviction --------------------------------------------------------------------------------------------------------------

  /** Blocks that still fit into the memory that is reserved. */
  get spareBlocks(): number {
    return this.#store.contents.spareCount
  }

  /**
   * Forgets edges without children, for all ranks, until `blocks` have gone: in the order of their records, passing by once those that
   * a later store has come by since, twice those that a query has; unreachable ones at once. `kept`: an edge that stays.
   * Returns how many (rank, block) pairs went.
   */
  evict(blocks: number, kept: number): number {
    const store = this.#store
    const before = store.coveredTotal
    const until = store.contents.liveCount - blocks
    // The first times around may only take marks off.
    for (let left = 3 * store.edges.idEnd; left > 0 && store.contents.liveCount > until; left -= 1) {
      this.#hand = this.#hand + 1 < store.edges.idEnd ? this.#hand + 1 : store.root + 1
      const base = this.#hand * E.stride
      const edges = store.edges.ints
      if (this.#hand >= store.edges.idEnd || edges[base + E.length] === 0 || edges[base + E.child] !== 0 || this.#hand === kept) continue
      if (edges[base + E.used] === 0 || edges[base + E.parent] === 0) this.#forgetEdge(this.#hand)
      else edges[base + E.used]! -= 1
    }
    return before - store.coveredTotal
  }

  /** The edge of the block that a rank knows by this name, or 0. */
  edgeNamed(slot: number, name: bigint | null): number {
    if (name === null) return 0
    wide[0] = name
    return this.#store.blocks.ints[this.#names.resolve(slot, halves[0]!, halves[1]!) * B.stride + B.edge]!
  }

  #forgetEdge(edge: number): void {
    const store = this.#store
    const base = edge * E.stride
    const first = store.edges.ints[base + E.head]!
    const full = store.edges.ints[base + E.full]!
    const slots = new Uint32Array(store.owners.size(full))
    store.owners.collect(full, slots)
    for (const slot of slots) this.#uncover(slot, edge, first)
    while (store.edges.ints[base + E.length] !== 0) {
      this.#uncover(store.cuts.ints[store.edges.ints[base + E.cuts]! * C.stride + C.slot]!, edge, first)
    }
  }

  // ---- Queries ---------------------------------------------------------------------------------------------------------------

  /**
   * Writes each rank's covered prefix blocks to `device[slot]`, which must be zero and reach all slots. `withPath`: fills `path`, too.
   * `earlyExit`: stops at the edge where one rank is left, as the original's test interface can.
   */
  find(locals: HashList, device: Uint32Array, withPath: boolean, earlyExit: boolean): void {
    const store = this.#store
    const count = locals.length >>> 1
    this.#prepare(count, device.length)
    this.pathLength = 0
    if (count === 0) return
    let edge = store.childOf(store.root, locals[0]! | 0, locals[1]! | 0)
    if (edge === 0) return
    this.#kernel.begin(locals)
    let activeCount = -1
    while (edge !== 0) {
      const depth = this.pathLength
      const matched = this.#matchEdge(edge, count, depth, withPath)
      activeCount = activeCount < 0 ? this.#enter(edge, matched, device) : this.#narrow(edge, depth, matched, activeCount, device)
      if (activeCount === 0 || matched < store.edges.ints[edge * E.stride + E.length]!) break
      if (this.pathLength === count || (earlyExit && activeCount === 1)) break
      edge = store.childOf(edge, locals[2 * this.pathLength]! | 0, locals[2 * this.pathLength + 1]! | 0)
    }
    for (let i = 0; i < activeCount; i += 1) device[this.#active[i]!] = this.pathLength
  }

  #prepare(count: number, slots: number): void {
    if (this.path.length < count) this.path = new Uint32Array(2 * count)
    if (this.#active.length < slots) {
      this.#active = new Uint32Array(slots)
      this.#cutCounts = new Uint32Array(slots)
    }
  }

  /** Matches the edge's blocks against the query and goes on along the path. Returns how many are equal. */
  #matchEdge(edge: number, count: number, depth: number, withPath: boolean): number {
    const base = edge * E.stride
    const edges = this.#store.edges.ints
    const head = edges[base + E.head]!
    edges[base + E.used] = 2
    const matched = this.#kernel.run(head, depth, Math.min(edges[base + E.length]!, count - depth))
    if (withPath) this.#appendPath(head, depth, matched)
    this.pathLength = depth + matched
    return matched
  }

  #appendPath(head: number, depth: number, length: number): void {
    const contents = this.#store.contents.ints
    let id = head
    for (let i = 0; i < length; i += 1) {
      this.path[depth + i] = id
      id = contents[id * K.stride + K.next]!
    }
  }

  /** First edge: its full ranks become active, ranks with a cut are scored at once. */
  #enter(edge: number, matched: number, device: Uint32Array): number {
    const edges = this.#store.edges.ints
    const cuts = this.#store.cuts.ints
    for (let id = edges[edge * E.stride + E.cuts]!; id !== 0; id = cuts[id * C.stride + C.next]!) {
      device[cuts[id * C.stride + C.slot]!] = Math.min(cuts[id * C.stride + C.count]!, matched)
    }
    return this.#store.owners.collect(edges[edge * E.stride + E.full]!, this.#active)
  }

  /** A later edge: active ranks that do not cover all of it leave with their score. Returns how many stay. */
  #narrow(edge: number, depth: number, matched: number, activeCount: number, device: Uint32Array): number {
    const { owners } = this.#store
    const edges = this.#store.edges.ints
    const cuts = this.#store.cuts.ints
    const full = edges[edge * E.stride + E.full]!
    const firstCut = edges[edge * E.stride + E.cuts]!
    const active = this.#active
    const cutCounts = this.#cutCounts
    for (let id = firstCut; id !== 0; id = cuts[id * C.stride + C.next]!) cutCounts[cuts[id * C.stride + C.slot]!] = cuts[id * C.stride + C.count]!
    let kept = 0
    for (let i = 0; i < activeCount; i += 1) {
      const slot = active[i]!
      if (owners.has(full, slot)) {
        active[kept] = slot
        kept += 1
      } else device[slot] = depth + Math.min(cutCounts[slot]!, matched)
    }
    for (let id = firstCut; id !== 0; id = cuts[id * C.stride + C.next]!) cutCounts[cuts[id * C.stride + C.slot]!] = 0
    return kept
  }

  // ---- Dump ------------------------------------------------------------------------------------------------------------------

  /** Stored events that make up a rank's reachable blocks, parents before children. Cost: the whole tree is walked. */
  dump(slot: number): StoredBlocks[] {
    const edges = this.#store.edges.ints
    const events: StoredBlocks[] = []
    const pending = [this.#store.root]
    for (let edge = pending.pop(); edge !== undefined; edge = pending.pop()) {
      const covered = edge === this.#store.root ? 0 : this.#store.coverage(edge, slot)
      if (covered > 0) events.push(this.#dumpEdge(slot, edge, covered))
      for (let child = edges[edge * E.stride + E.child]!; child !== 0; child = edges[child * E.stride + E.sibling]!) pending.push(child)
    }
    return events
  }

  #dumpEdge(slot: number, edge: number, covered: number): StoredBlocks {
    const edges = this.#store.edges.ints
    const words = this.#store.contents.ints
    const blockHashes = new Uint32Array(2 * covered)
    const tokensHashes = new Uint32Array(2 * covered)
    const name = hashListOf([0n])
    let id = edges[edge * E.stride + E.head]!
    for (let i = 0; i < covered; i += 1) {
      this.#names.nameOf(slot, id, name)
      blockHashes.set(name, 2 * i)
      tokensHashes[2 * i] = words[id * K.stride + K.localLow]!
      tokensHashes[2 * i + 1] = words[id * K.stride + K.localHigh]!
      id = words[id * K.stride + K.next]!
    }
    const parent = edges[edge * E.stride + E.parent]!
    let parentHash: bigint | null = null
    if (parent !== this.#store.root) {
      this.#names.nameOf(slot, edges[parent * E.stride + E.tail]!, name)
      parentHash = (BigInt(name[1]!) << 32n) | BigInt(name[0]!)
    }
    return { kind: 'stored', parentHash, startPosition: null, blockHashes, tokensHashes, mmInfos: null }
  }
}
