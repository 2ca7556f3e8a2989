/** Records of fixed size in one growing array of words, with a free list. */
import { GrowingWords, type GrowingMemory } from './growing-words.ts'

const initialRecords = 64

/**
 * Hands out record ids `1, 2, …`; 0 means none. Field `f` of record `id` is `words[id * stride + f]`.
 *
 * `words` and `ints` are replaced when the arena grows: hot code reads them again after `allocate`. Record contents are not
 * cleared. Released records are used again, memory is never given back. Cost of growth: see `GrowingWords`.
 */
export class RecordArena {
  readonly #store: GrowingWords
  readonly stride: number
  readonly #first: number
  #end: number
  #free = 0
  #live = 0

  /** `firstId`: the words before that record are the owner's. `inPlace`: see `GrowingWords`. */
  constructor(stride: number, { firstId = 1, inPlace = false } = {}) {
    this.stride = stride
    this.#first = firstId
    this.#end = firstId
    this.#store = new GrowingWords(stride * (firstId + initialRecords), inPlace)
  }

  /** Null unless the words were asked for in place, or are many. */
  get memory(): GrowingMemory | null {
    return this.#store.memory
  }

  get words(): Uint32Array {
    return this.#store.words
  }

  /** The same words as int32. */
  get ints(): Int32Array {
    return this.#store.ints
  }

  /** Records in use. */
  get liveCount(): number {
    return this.#live
  }

  /** One more than the largest id ever given out. */
  get idEnd(): number {
    return this.#end
  }

  get bytesReserved(): number {
    return this.#store.byteLength
  }

  /** Records that fit before the arena must grow. */
  get spareCount(): number {
    return Math.floor(this.words.length / this.stride) - this.#first - this.#live
  }

  /** One more than the largest id in use or free after `count` more allocations. */
  endAfter(count: number): number {
    return this.#end + Math.max(0, count - (this.#end - this.#first - this.#live))
  }

  /** Makes room for `count` more records; false when memory is refused. */
  reserve(count: number): boolean {
    return this.#store.reserve((this.endAfter(count) + 1) * this.stride)
  }

  allocate(): number {
    this.#live += 1
    const id = this.#free
    if (id !== 0) {
      this.#free = this.words[id * this.stride]!
      return id
    }
    if ((this.#end + 1) * this.stride > this.words.length && !this.reserve(1)) throw new RangeError('no memory for the prefix index')
    this.#end += 1
    return this.#end - 1
  }

  /**
   * Gives back `count` records that are linked in their first word from `first` to `last`; they are used again in this order.
   */
  releaseChain(first: number, last: number, count: number): void {
    this.words[last * this.stride] = this.#free
    this.#free = first
    this.#live -= count
  }

  /** Gives a record back; its first word becomes the free list's link. */
  release(id: number): void {
    this.words[id * this.stride] = this.#free
    this.#free = id
    this.#live -= 1
  }

  /** The same records, ids kept, with wider records; new fields are zero. The old arena must not be used again. */
  restrided(stride: number): RecordArena {
    const wide = new RecordArena(stride)
    if (!wide.#store.reserve((this.#end + 1) * stride)) throw new RangeError('no memory for the prefix index')
    for (let id = 0; id < this.#end; id += 1) {
      wide.words.set(this.words.subarray(id * this.stride, (id + 1) * this.stride), id * stride)
    }
    wide.#end = this.#end
    wide.#free = this.#free
    wide.#live = this.#live
    return wide
  }
}
