/**
 * Assumed blocks of ranks whose capacity is known: which ones live requests hold, and which go first when room is needed.
 *
 * A *copy* is one block on one rank. Live requests pin their copies; one that nobody pins any more joins the end of the rank's
 * line, the deepest of a prompt first. A rank over its capacity gives up copies from the head of its line.
 */
import type { HashList } from '../model/hash-list.ts'
import type { RankSlot } from '../model/worker.ts'
import { HashBuckets, mixHash } from './hash-buckets.ts'
import { RecordArena } from './record-arena.ts'

/** Fields of a copy, 28 bytes. `next` and `previous` are 0 while it is pinned. A line's head is a record, too. */
const C = { stride: 7, next: 0, previous: 1, slot: 2, low: 3, high: 4, pins: 5, link: 6 } as const

interface Lease {
  readonly slot: RankSlot
  /** Pinned copies, in order of depth. */
  readonly copies: number[]
  /** Blocks that are the request's alone: partial or not yet complete ones. */
  privateBlocks: number
}

interface BoundRank {
  readonly capacity: number
  readonly head: number
  copies: number
  /** Of them, those that nobody pins. */
  idleCopies: number
  privateBlocks: number
}

/** What bounded ranks hold, in blocks. */
export interface BoundState {
  readonly ranks: number
  /** Live requests. */
  readonly leases: number
  /** Copies that nobody pins. */
  readonly idle: number
  /** Blocks that are one request's alone. */
  readonly privateBlocks: number
  /** Copies and private blocks. */
  readonly resident: number
  /** What the ranks hold beyond their capacities, since all of it is in use. */
  readonly overCapacity: number
}

/** Takes the names of copies that a rank gives up, the deepest first; the list is valid during the call. */
export type OnEvicted = (slot: RankSlot, hashes: HashList) => void

/** Bounds each rank's assumed blocks by its capacity. Cost: one table look-up per block of a lease; nothing on look-ups of the index. */
export class CapacityBound {
  readonly #records = new RecordArena(C.stride)
  readonly #byName: HashBuckets
  readonly #ranks = new Map<RankSlot, BoundRank>()
  readonly #leases = new Map<string, Lease>()
  readonly #onEvicted: OnEvicted
  /** Copies given up because a rank was over its capacity. */
  evictedCount = 0
  /** How often a rank gave up copies. */
  evictionCount = 0
  /** How often a live request got further complete blocks. */
  extensionCount = 0

  constructor(onEvicted: OnEvicted) {
    this.#onEvicted = onEvicted
    this.#byName = new HashBuckets(this.#records, C.link, (id) => {
      const { words } = this.#records
      const base = id * C.stride
      return mixHash(words[base + C.low]!, words[base + C.high]!, words[base + C.slot]!)
    })
  }

  get bytesReserved(): number {
    return this.#records.bytesReserved + this.#byName.bytesReserved
  }

  /** Copies of all ranks. */
  get copyCount(): number {
    let count = 0
    for (const rank of this.#ranks.values()) count += rank.copies
    return count
  }

  get leaseCount(): number {
    return this.#leases.size
  }

  /** Cost: linear in the ranks. */
  get state(): BoundState {
    const sum = (read: (rank: BoundRank) => number): number => [...this.#ranks.values()].reduce((total, rank) => total + read(rank), 0)
    return {
      ranks: this.#ranks.size, leases: this.#leases.size, idle: sum(({ idleCopies }) => idleCopies), privateBlocks: sum(({ privateBlocks }) => privateBlocks),
      resident: sum(({ copies, privateBlocks }) => copies + privateBlocks), overCapacity: sum(({ copies, privateBlocks, capacity }) => Math.max(0, copies + privateBlocks - capacity)),
    }
  }

  /** Copies of one rank. */
  copiesOf(slot: RankSlot): number {
    return this.#ranks.get(slot)?.copies ?? 0
  }

  /** Whether a rank is bounded. */
  has(slot: RankSlot): boolean {
    return this.#ranks.has(slot)
  }

  /** Bounds a rank, or changes its bound; what it has too much goes at once. `capacity`: blocks, at least 1. */
  bind(slot: RankSlot, capacity: number): void {
    const before = this.#ranks.get(slot)
    if (before?.capacity === capacity) return
    const head = before?.head ?? this.#newHead()
    this.#ranks.set(slot, { capacity, head, copies: before?.copies ?? 0, idleCopies: before?.idleCopies ?? 0, privateBlocks: before?.privateBlocks ?? 0 })
    this.#evict(slot)
  }

  /** A request that runs on a bounded rank from now on. `hashes`: names of its complete blocks from the root; all of them are in the index. */
  lease(requestId: string, slot: RankSlot, hashes: HashList, privateBlocks: number): void {
    const rank = this.#ranks.get(slot)
    if (rank === undefined || this.#leases.has(requestId)) return
    const lease: Lease = { slot, copies: [], privateBlocks: 0 }
    this.#leases.set(requestId, lease)
    this.#pin(lease, rank, hashes, privateBlocks)
  }

  /** More blocks of a leased request: complete ones below those before, and how many it now has alone. Unknown ids: nothing. */
  extend(requestId: string, hashes: HashList, privateBlocks: number): void {
    const lease = this.#leases.get(requestId)
    const rank = lease === undefined ? undefined : this.#ranks.get(lease.slot)
    if (lease === undefined || rank === undefined) return
    if (hashes.length > 0) this.extensionCount += 1
    this.#pin(lease, rank, hashes, privateBlocks)
  }

  /** The request is over: what only it held may go. Unknown ids: nothing. */
  release(requestId: string): void {
    const lease = this.#leases.get(requestId)
    if (lease === undefined) return
    this.#leases.delete(requestId)
    const rank = this.#ranks.get(lease.slot)
    if (rank === undefined) return
    rank.privateBlocks -= lease.privateBlocks
    for (let index = lease.copies.length - 1; index >= 0; index--) this.#unpin(rank, lease.copies[index]!)
    this.#evict(lease.slot)
  }

  /** The rank that a leased request runs on, or -1. */
  slotOf(requestId: string): RankSlot | -1 {
    return this.#leases.get(requestId)?.slot ?? -1
  }

  /** The rank is not bounded any more; its copies and leases are forgotten. */
  drop(slot: RankSlot): void {
    const rank = this.#ranks.get(slot)
    if (rank === undefined) return
    this.clear(slot)
    this.#ranks.delete(slot)
    this.#records.release(rank.head)
  }

  /** Forgets a rank's copies and leases, without telling. Cost: linear in all copies and leases. */
  clear(slot: RankSlot): void {
    const rank = this.#ranks.get(slot)
    if (rank === undefined) return
    rank.privateBlocks = 0
    rank.idleCopies = 0
    for (const [requestId, lease] of this.#leases) if (lease.slot === slot) this.#leases.delete(requestId)
    const { words } = this.#records
    for (let id = 1; rank.copies > 0 && id < this.#records.idEnd; id++) {
      const base = id * C.stride
      if (words[base + C.slot] !== slot) continue
      // A released record may still show an old name: only what the table has counts.
      if (this.#find(slot, words[base + C.low]!, words[base + C.high]!) === id) this.#forget(rank, id)
    }
    words[rank.head * C.stride + C.next] = rank.head
    words[rank.head * C.stride + C.previous] = rank.head
  }

  #pin(lease: Lease, rank: BoundRank, hashes: HashList, privateBlocks: number): void {
    for (let word = 0; word < hashes.length; word += 2) {
      const low = hashes[word]!
      const high = hashes[word + 1]!
      let id = this.#find(lease.slot, low, high)
      if (id === 0) id = this.#newCopy(rank, lease.slot, low, high)
      else if (this.#records.words[id * C.stride + C.pins] === 0) this.#unlink(rank, id)
      this.#records.words[id * C.stride + C.pins]! += 1
      lease.copies.push(id)
    }
    rank.privateBlocks += privateBlocks - lease.privateBlocks
    lease.privateBlocks = privateBlocks
    this.#evict(lease.slot)
  }

  #unpin(rank: BoundRank, id: number): void {
    const { words } = this.#records
    const pins = words[id * C.stride + C.pins]! - 1
    words[id * C.stride + C.pins] = pins
    if (pins === 0) this.#linkLast(rank, id)
  }

  #evict(slot: RankSlot): void {
    const rank = this.#ranks.get(slot)
    if (rank === undefined) return
    const evicted: number[] = []
    while (rank.copies + rank.privateBlocks > rank.capacity) {
      const { words } = this.#records
      const id = words[rank.head * C.stride + C.next]!
      // All that is left is in use.
      if (id === rank.head) break
      evicted.push(words[id * C.stride + C.low]!, words[id * C.stride + C.high]!)
      this.#unlink(rank, id)
      this.#forget(rank, id)
    }
    if (evicted.length === 0) return
    this.evictedCount += evicted.length / 2
    this.evictionCount += 1
    this.#onEvicted(slot, Uint32Array.from(evicted))
  }

  #newHead(): number {
    const id = this.#records.allocate()
    const { words } = this.#records
    words.fill(0, id * C.stride, (id + 1) * C.stride)
    words[id * C.stride + C.next] = id
    words[id * C.stride + C.previous] = id
    return id
  }

  #newCopy(rank: BoundRank, slot: RankSlot, low: number, high: number): number {
    const id = this.#records.allocate()
    const { words } = this.#records
    const base = id * C.stride
    words.fill(0, base, base + C.stride)
    words[base + C.slot] = slot
    words[base + C.low] = low
    words[base + C.high] = high
    this.#byName.insert(id, mixHash(low, high, slot))
    rank.copies += 1
    return id
  }

  #forget(rank: BoundRank, id: number): void {
    const { words } = this.#records
    const base = id * C.stride
    this.#byName.remove(id, mixHash(words[base + C.low]!, words[base + C.high]!, words[base + C.slot]!))
    this.#records.release(id)
    rank.copies -= 1
  }

  #find(slot: RankSlot, low: number, high: number): number {
    const { words } = this.#records
    for (let id = this.#byName.first(mixHash(low, high, slot)); id !== 0; id = words[id * C.stride + C.link]!) {
      const base = id * C.stride
      if (words[base + C.low] === low && words[base + C.high] === high && words[base + C.slot] === slot) return id
    }
    return 0
  }

  #linkLast(rank: BoundRank, id: number): void {
    const { words } = this.#records
    const { head } = rank
    rank.idleCopies += 1
    const last = words[head * C.stride + C.previous]!
    words[last * C.stride + C.next] = id
    words[id * C.stride + C.previous] = last
    words[id * C.stride + C.next] = head
    words[head * C.stride + C.previous] = id
  }

  #unlink(rank: BoundRank, id: number): void {
    const { words } = this.#records
    rank.idleCopies -= 1
    const next = words[id * C.stride + C.next]!
    const previous = words[id * C.stride + C.previous]!
    words[previous * C.stride + C.next] = next
    words[next * C.stride + C.previous] = previous
  }
}
