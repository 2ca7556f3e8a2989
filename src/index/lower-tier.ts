/**
 * One tier below the device: single blocks, each an edge from its parent's name by its content to its own name.
 *
 * Parents need not be known: a tier holds pieces. A rank has at most one edge per (parent, content) and per name; ranks that use the
 * same names share records. Source: router-algorithm 5, where another rank's different name for the same content was refused.
 */
import { noHashes } from '../model/hash-list.ts'
import type { HashList } from '../model/hash-list.ts'
import type { ApplyStatus, StoredBlocks } from '../model/kv-event.ts'
import { HashBuckets, mixHash } from './hash-buckets.ts'
import { MemberLists } from './member-lists.ts'
import type { OwnerSets } from './owner-sets.ts'
import { RecordArena } from './record-arena.ts'

/** Fields of a record. 40 bytes. `parented` 0: the block is the first of a prompt, its parent words are 0. */
const R = {
  stride: 10, parentLow: 0, parentHigh: 1, parented: 2, localLow: 3, localHigh: 4, childLow: 5, childHigh: 6,
  owners: 7, edgeLink: 8, childLink: 9,
} as const

const edgeHash = (parentLow: number, parentHigh: number, parented: number, localLow: number, localHigh: number): number =>
  mixHash(localLow, localHigh, mixHash(parentLow, parentHigh, parented))

export class LowerTier {
  readonly #owners: OwnerSets
  readonly #records = new RecordArena(R.stride)
  readonly #byEdge: HashBuckets
  readonly #byChild: HashBuckets
  readonly #members: MemberLists
  /** (rank, block) pairs. */
  entryCount = 0
  /** The name reached by `step`. */
  reachedLow = 0
  reachedHigh = 0

  #query: HashList = noHashes
  #queryId = 0
  #memoParents = new Uint32Array(64)
  #memoRecords = new Uint32Array(32)
  #memoQueries = new Float64Array(32)

  constructor(owners: OwnerSets) {
    this.#owners = owners
    this.#byEdge = new HashBuckets(this.#records, R.edgeLink, (id) => {
      const { words } = this.#records
      const base = id * R.stride
      return edgeHash(words[base + R.parentLow]!, words[base + R.parentHigh]!, words[base + R.parented]!, words[base + R.localLow]!, words[base + R.localHigh]!)
    })
    this.#byChild = new HashBuckets(this.#records, R.childLink, (id) => {
      const { words } = this.#records
      return mixHash(words[id * R.stride + R.childLow]!, words[id * R.stride + R.childHigh]!, 0)
    })
    this.#members = new MemberLists((slot, id) => owners.has(this.#records.words[id * R.stride + R.owners]!, slot))
  }

  get recordCount(): number {
    return this.#records.liveCount
  }

  get bytesReserved(): number {
    return this.#records.bytesReserved + this.#byEdge.bytesReserved + this.#byChild.bytesReserved + this.#members.bytesReserved
  }

  /** Blocks of a rank. */
  count(slot: number): number {
    return this.#members.count(slot)
  }

  stored(slot: number, parentHash: bigint | null, hashes: HashList, locals: HashList): ApplyStatus {
    const count = hashes.length >>> 1
    if (!this.#records.reserve(count)) return 'capacity_exhausted'
    let parentLow = parentHash === null ? 0 : Number(parentHash & 0xffffffffn)
    let parentHigh = parentHash === null ? 0 : Number((parentHash >> 32n) & 0xffffffffn)
    let parented = parentHash === null ? 0 : 1
    for (let i = 0; i < count; i += 1) {
      const childLow = hashes[2 * i]!
      const childHigh = hashes[2 * i + 1]!
      if (!this.#storeOne(slot, parentLow, parentHigh, parented, locals[2 * i]!, locals[2 * i + 1]!, childLow, childHigh)) return 'invalid_block'
      parentLow = childLow
      parentHigh = childHigh
      parented = 1
    }
    return 'ok'
  }

  /** False when it contradicts what the rank already holds. */
  #storeOne(slot: number, parentLow: number, parentHigh: number, parented: number, localLow: number, localHigh: number, childLow: number, childHigh: number): boolean {
    const own = this.#ownOf(slot, childLow, childHigh)
    if (own !== 0) return this.#hasKey(own, parentLow, parentHigh, parented, localLow, localHigh)
    const { words } = this.#records
    const hash = edgeHash(parentLow, parentHigh, parented, localLow, localHigh)
    let shared = 0
    for (let id = this.#byEdge.first(hash); id !== 0; id = words[id * R.stride + R.edgeLink]!) {
      if (!this.#hasKey(id, parentLow, parentHigh, parented, localLow, localHigh)) continue
      if (this.#owners.has(words[id * R.stride + R.owners]!, slot)) return false
      if (words[id * R.stride + R.childLow] === childLow && words[id * R.stride + R.childHigh] === childHigh) shared = id
    }
    const id = shared === 0 ? this.#newRecord(hash, parentLow, parentHigh, parented, localLow, localHigh, childLow, childHigh) : shared
    this.#records.words[id * R.stride + R.owners] = this.#owners.add(this.#records.words[id * R.stride + R.owners]!, slot)
    this.#members.join(slot, id)
    this.entryCount += 1
    return true
  }

  #newRecord(hash: number, parentLow: number, parentHigh: number, parented: number, localLow: number, localHigh: number, childLow: number, childHigh: number): number {
    const id = this.#records.allocate()
    const { words } = this.#records
    const base = id * R.stride
    words[base + R.parentLow] = parentLow
    words[base + R.parentHigh] = parentHigh
    words[base + R.parented] = parented
    words[base + R.localLow] = localLow
    words[base + R.localHigh] = localHigh
    words[base + R.childLow] = childLow
    words[base + R.childHigh] = childHigh
    words[base + R.owners] = 0
    this.#byEdge.insert(id, hash)
    this.#byChild.insert(id, mixHash(childLow, childHigh, 0))
    return id
  }

  #hasKey(id: number, parentLow: number, parentHigh: number, parented: number, localLow: number, localHigh: number): boolean {
    const { words } = this.#records
    const base = id * R.stride
    return (
      words[base + R.localLow] === localLow && words[base + R.localHigh] === localHigh && words[base + R.parentLow] === parentLow &&
      words[base + R.parentHigh] === parentHigh && words[base + R.parented] === parented
    )
  }

  /** The record that a rank holds under this name, or 0. */
  #ownOf(slot: number, childLow: number, childHigh: number): number {
    const { words } = this.#records
    for (let id = this.#byChild.first(mixHash(childLow, childHigh, 0)); id !== 0; id = words[id * R.stride + R.childLink]!) {
      const base = id * R.stride
      if (words[base + R.childLow] === childLow && words[base + R.childHigh] === childHigh && this.#owners.has(words[base + R.owners]!, slot)) return id
    }
    return 0
  }

  /** Forgets single blocks; unknown ones are no error, since tiers below evict on their own. */
  removed(slot: number, hashes: HashList): void {
    for (let i = 0; 2 * i < hashes.length; i += 1) {
      const id = this.#ownOf(slot, hashes[2 * i]!, hashes[2 * i + 1]!)
      if (id !== 0) this.#leave(slot, id)
    }
  }

  #leave(slot: number, id: number): void {
    const { words } = this.#records
    const base = id * R.stride
    const owners = this.#owners.remove(words[base + R.owners]!, slot)
    words[base + R.owners] = owners
    this.#members.leave(slot)
    this.entryCount -= 1
    if (owners !== 0) return
    this.#byEdge.remove(id, edgeHash(words[base + R.parentLow]!, words[base + R.parentHigh]!, words[base + R.parented]!, words[base + R.localLow]!, words[base + R.localHigh]!))
    this.#byChild.remove(id, mixHash(words[base + R.childLow]!, words[base + R.childHigh]!, 0))
    this.#records.release(id)
  }

  drop(slot: number): void {
    const ids = this.#members.take(slot)
    for (let i = 0; i < ids.length; i += 1) {
      const id = ids[i]!
      if (this.#owners.has(this.#records.words[id * R.stride + R.owners]!, slot)) this.#leave(slot, id)
    }
  }

  /** Starts a query; `step` then follows its contents. */
  beginQuery(locals: HashList): void {
    this.#query = locals
    this.#queryId += 1
    if (this.#memoParents.length < locals.length) {
      this.#memoParents = new Uint32Array(2 * locals.length)
      this.#memoRecords = new Uint32Array(locals.length)
      this.#memoQueries = new Float64Array(locals.length)
    }
  }

  /**
   * Follows a rank's edge by the query's content at `position` from its parent's name (ignored at position 0).
   * True puts the rank's name of that block in `reachedLow`, `reachedHigh`.
   */
  step(slot: number, position: number, parentLow: number, parentHigh: number): boolean {
    const { words } = this.#records
    for (let id = this.#firstAt(position, parentLow, parentHigh); id !== 0; id = this.#sameEdge(words[id * R.stride + R.edgeLink]!, position, parentLow, parentHigh)) {
      if (!this.#owners.has(words[id * R.stride + R.owners]!, slot)) continue
      this.reachedLow = words[id * R.stride + R.childLow]!
      this.reachedHigh = words[id * R.stride + R.childHigh]!
      return true
    }
    return false
  }

  /** First record of this edge. Ranks of one engine ask the same, so the last answer per position is kept. */
  #firstAt(position: number, parentLow: number, parentHigh: number): number {
    const memo = this.#memoParents
    if (this.#memoQueries[position] === this.#queryId && memo[2 * position] === parentLow && memo[2 * position + 1] === parentHigh) {
      return this.#memoRecords[position]!
    }
    const hash = edgeHash(parentLow, parentHigh, position === 0 ? 0 : 1, this.#query[2 * position]!, this.#query[2 * position + 1]!)
    const id = this.#sameEdge(this.#byEdge.first(hash), position, parentLow, parentHigh)
    memo[2 * position] = parentLow
    memo[2 * position + 1] = parentHigh
    this.#memoRecords[position] = id
    this.#memoQueries[position] = this.#queryId
    return id
  }

  #sameEdge(from: number, position: number, parentLow: number, parentHigh: number): number {
    const { words } = this.#records
    const parented = position === 0 ? 0 : 1
    let id = from
    while (id !== 0 && !this.#hasKey(id, parentLow, parentHigh, parented, this.#query[2 * position]!, this.#query[2 * position + 1]!)) id = words[id * R.stride + R.edgeLink]!
    return id
  }

  /** Stored events that make up a rank's blocks of this tier, one block each, in no order. */
  dump(slot: number): StoredBlocks[] {
    const events: StoredBlocks[] = []
    const { words } = this.#records
    for (const id of new Set(this.#members.list(slot))) {
      const base = id * R.stride
      if (!this.#owners.has(words[base + R.owners]!, slot)) continue
      const parent = (BigInt(words[base + R.parentHigh]!) << 32n) | BigInt(words[base + R.parentLow]!)
      events.push({
        kind: 'stored', parentHash: words[base + R.parented] === 0 ? null : parent, startPosition: null, mmInfos: null,
        blockHashes: Uint32Array.of(words[base + R.childLow]!, words[base + R.childHigh]!),
        tokensHashes: Uint32Array.of(words[base + R.localLow]!, words[base + R.localHigh]!),
      })
    }
    return events
  }
}
