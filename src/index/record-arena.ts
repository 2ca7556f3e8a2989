/** Records of fixed size in one growing typed array, with a free list. */

const initialRecords = 64

/**
 * Hands out record ids `1, 2, …`; 0 means none. Field `f` of record `id` is `words[id * stride + f]`.
 *
 * `words` is replaced when the arena grows: hot code reads it again after `allocate`. Record contents are not cleared.
 * Cost: doubles when full; released records are used again, memory is never given back.
 */
export class RecordArena {
  words: Uint32Array
  readonly stride: number
  #end = 1
  #free = 0
  #live = 0

  constructor(stride: number) {
    this.stride = stride
    this.words = new Uint32Array(stride * initialRecords)
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
    return this.words.byteLength
  }

  /** Makes room for `count` more records; false when memory is refused. */
  reserve(count: number): boolean {
    const needed = (this.#end + count) * this.stride
    if (needed <= this.words.length) return true
    try {
      const grown = new Uint32Array(Math.max(needed, 2 * this.words.length))
      grown.set(this.words)
      this.words = grown
    } catch (error) {
      if (error instanceof RangeError) return false
      throw error
    }
    return true
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

  /** Gives a record back; its first word becomes the free list's link. */
  release(id: number): void {
    this.words[id * this.stride] = this.#free
    this.#free = id
    this.#live -= 1
  }

  /** The same records, ids kept, with wider records; new fields are zero. The old arena must not be used again. */
  restrided(stride: number): RecordArena {
    const wide = new RecordArena(stride)
    wide.words = new Uint32Array((this.words.length / this.stride) * stride)
    for (let id = 0; id < this.#end; id += 1) {
      wide.words.set(this.words.subarray(id * this.stride, (id + 1) * this.stride), id * stride)
    }
    wide.#end = this.#end
    wide.#free = this.#free
    wide.#live = this.#live
    return wide
  }
}
