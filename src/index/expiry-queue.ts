/**
 * When recorded (rank, hash) pairs end: one record per pair, in a list per 100 ms bucket.
 *
 * Recording again moves the record to its new bucket, so the queue is bounded by the live pairs. Buckets end in order.
 */
import { HashBuckets, mixHash } from './hash-buckets.ts'
import { RecordArena } from './record-arena.ts'

const bucketMs = 100

/** Fields of a record. 28 bytes. `live` is 1 for a pair, 0 for a released record and for a bucket's ring head. */
const X = { stride: 7, next: 0, previous: 1, slot: 2, low: 3, high: 4, live: 5, link: 6 } as const

export class ExpiryQueue {
  readonly #records = new RecordArena(X.stride)
  readonly #byPair: HashBuckets
  /** Bucket number to the ring head of its list, in order of time. */
  readonly #buckets = new Map<number, number>()
  #newest = 0
  #hashes = new Uint32Array(64)
  #counts = new Uint32Array(16)
  /** Pairs that wait. */
  pairCount = 0

  constructor() {
    this.#byPair = new HashBuckets(this.#records, X.link, (id) => {
      const { words } = this.#records
      return mixHash(words[id * X.stride + X.low]!, words[id * X.stride + X.high]!, words[id * X.stride + X.slot]!)
    })
  }

  get bytesReserved(): number {
    return this.#records.bytesReserved + this.#byPair.bytesReserved
  }

  /** Makes room for `count` more pairs; false when memory is refused. */
  reserve(count: number): boolean {
    return this.#records.reserve(count + 1)
  }

  /** Sets the end of each pair to `endMs`, rounded up to the bucket. An end before earlier ones costs a sort of the buckets. */
  schedule(slot: number, hashes: Uint32Array, endMs: number): void {
    const bucket = Math.ceil(endMs / bucketMs)
    let head = this.#buckets.get(bucket)
    if (head === undefined) {
      head = this.#records.allocate()
      const { words } = this.#records
      words.fill(0, head * X.stride, (head + 1) * X.stride)
      words[head * X.stride + X.next] = head
      words[head * X.stride + X.previous] = head
      this.#buckets.set(bucket, head)
      if (bucket < this.#newest) this.#sortBuckets()
      else this.#newest = bucket
    }
    for (let i = 0; 2 * i < hashes.length; i += 1) {
      const low = hashes[2 * i]!
      const high = hashes[2 * i + 1]!
      const known = this.#find(slot, low, high)
      if (known !== 0) this.#unlink(known)
      this.#linkLast(head, known === 0 ? this.#newPair(slot, low, high) : known)
    }
  }

  #sortBuckets(): void {
    const sorted = [...this.#buckets].sort(([a], [b]) => a - b)
    this.#buckets.clear()
    for (const [bucket, head] of sorted) this.#buckets.set(bucket, head)
  }

  /** When the pairs of a rank end, by the lists that were asked for; 0: not waiting. Cost: looks at every pair that waits. */
  ends(slot: number, lists: readonly Uint32Array[]): Float64Array[] {
    const endById = new Float64Array(this.#records.idEnd)
    for (const [bucket, head] of this.#buckets) for (let id = this.#next(head); id !== head; id = this.#next(id)) endById[id] = bucket * bucketMs
    return lists.map((hashes) => Float64Array.from({ length: hashes.length >>> 1 }, (_, index) => endById[this.#find(slot, hashes[2 * index]!, hashes[2 * index + 1]!)]!))
  }

  #newPair(slot: number, low: number, high: number): number {
    const id = this.#records.allocate()
    const { words } = this.#records
    const base = id * X.stride
    words[base + X.slot] = slot
    words[base + X.low] = low
    words[base + X.high] = high
    words[base + X.live] = 1
    this.#byPair.insert(id, mixHash(low, high, slot))
    this.pairCount += 1
    if (slot >= this.#counts.length) {
      const grown = new Uint32Array(Math.max(slot + 1, 2 * this.#counts.length))
      grown.set(this.#counts)
      this.#counts = grown
    }
    this.#counts[slot] = this.#counts[slot]! + 1
    return id
  }

  #find(slot: number, low: number, high: number): number {
    const { words } = this.#records
    for (let id = this.#byPair.first(mixHash(low, high, slot)); id !== 0; id = words[id * X.stride + X.link]!) {
      const base = id * X.stride
      if (words[base + X.low] === low && words[base + X.high] === high && words[base + X.slot] === slot) return id
    }
    return 0
  }

  #linkLast(head: number, id: number): void {
    const { words } = this.#records
    const last = words[head * X.stride + X.previous]!
    words[last * X.stride + X.next] = id
    words[id * X.stride + X.previous] = last
    words[id * X.stride + X.next] = head
    words[head * X.stride + X.previous] = id
  }

  #unlink(id: number): void {
    const { words } = this.#records
    const next = words[id * X.stride + X.next]!
    const previous = words[id * X.stride + X.previous]!
    words[previous * X.stride + X.next] = next
    words[next * X.stride + X.previous] = previous
  }

  #release(id: number): void {
    const { words } = this.#records
    const base = id * X.stride
    const slot = words[base + X.slot]!
    this.#byPair.remove(id, mixHash(words[base + X.low]!, words[base + X.high]!, slot))
    this.#unlink(id)
    words[base + X.live] = 0
    this.#records.release(id)
    this.#counts[slot] = this.#counts[slot]! - 1
    this.pairCount -= 1
  }

  /** Ends all buckets up to `nowMs`; `onExpired` gets runs of one rank's hashes, a view valid during the call. Returns the pairs ended. */
  expire(nowMs: number, onExpired: (slot: number, hashes: Uint32Array) => void): number {
    const before = this.pairCount
    for (const [bucket, head] of this.#buckets) {
      if (bucket * bucketMs > nowMs) break
      this.#buckets.delete(bucket)
      for (let id = this.#next(head); id !== head; id = this.#next(head)) {
        const slot = this.#records.words[id * X.stride + X.slot]!
        onExpired(slot, this.#takeRun(head, slot))
      }
      this.#records.release(head)
    }
    return before - this.pairCount
  }

  /** Ends pairs, the ones with the earliest end first and of those the last scheduled first, until `count` wait. Otherwise as `expire`. */
  prune(count: number, onExpired: (slot: number, hashes: Uint32Array) => void): number {
    const before = this.pairCount
    const name = new Uint32Array(2)
    for (const [bucket, head] of this.#buckets) {
      for (let id = this.#previous(head); id !== head && this.pairCount > count; id = this.#previous(head)) {
        const base = id * X.stride
        const slot = this.#records.words[base + X.slot]!
        name[0] = this.#records.words[base + X.low]!
        name[1] = this.#records.words[base + X.high]!
        this.#release(id)
        onExpired(slot, name)
      }
      if (this.#previous(head) !== head || this.pairCount <= count) break
      this.#buckets.delete(bucket)
      this.#records.release(head)
    }
    return before - this.pairCount
  }

  #previous(id: number): number {
    return this.#records.words[id * X.stride + X.previous]!
  }

  #next(id: number): number {
    return this.#records.words[id * X.stride + X.next]!
  }

  /** Releases the list's leading pairs of `slot` and returns their hashes. */
  #takeRun(head: number, slot: number): Uint32Array {
    const { words } = this.#records
    let length = 0
    for (let id = this.#next(head); id !== head && words[id * X.stride + X.slot] === slot; id = this.#next(head)) {
      if (length + 2 > this.#hashes.length) {
        const grown = new Uint32Array(2 * this.#hashes.length)
        grown.set(this.#hashes)
        this.#hashes = grown
      }
      this.#hashes[length] = words[id * X.stride + X.low]!
      this.#hashes[length + 1] = words[id * X.stride + X.high]!
      length += 2
      this.#release(id)
    }
    return this.#hashes.subarray(0, length)
  }

  /** Forgets the pairs of a rank. Cost: looks at every record when the rank has any. */
  drop(slot: number): void {
    for (let id = 1; (this.#counts[slot] ?? 0) > 0 && id < this.#records.idEnd; id += 1) {
      const base = id * X.stride
      const { words } = this.#records
      if (words[base + X.live] === 1 && words[base + X.slot] === slot) this.#release(id)
    }
  }
}
