/** Words that grow without being copied once they are many, so that no event waits for a copy of a large index. */

/** A larger array is moved once, into memory that the engine extends in place. */
const inPlaceWords = 1 << 18
const pageWords = 1 << 14
const pagesMax = 1 << 16

/** Memory of the engine; its `buffer` is another one after it has grown. */
export interface GrowingMemory {
  readonly buffer: ArrayBuffer
  grow(pages: number): number
}

// The DOM library declares WebAssembly; Node's types do not.
interface MemoryGlobal {
  readonly WebAssembly?: { readonly Memory: new (limits: { initial: number; maximum: number }) => GrowingMemory }
}

/**
 * One growing array, seen as unsigned and as signed words. Both views are replaced when it grows: hot code reads them again.
 *
 * New words are zero. Cost: below 1 MiB it doubles by copying; beyond, it grows by an eighth in place, up to 4 GiB.
 */
export class GrowingWords {
  words: Uint32Array
  /** The same words as int32: small integers to the engine, whatever their highest bit. */
  ints: Int32Array
  #memory: GrowingMemory | null = null

  /** `inPlace`: from the beginning, and then `memory` is there. Errors: RangeError when it is refused. */
  constructor(length: number, inPlace = false) {
    this.words = new Uint32Array(inPlace ? 0 : length)
    this.ints = new Int32Array(this.words.buffer)
    if (inPlace) this.#move(length)
  }

  /** Null while the words are in an ordinary array. */
  get memory(): GrowingMemory | null {
    return this.#memory
  }

  get byteLength(): number {
    return this.words.byteLength
  }

  /** Makes the array at least `length` words long; false when memory is refused. */
  reserve(length: number): boolean {
    if (length <= this.words.length) return true
    try {
      if (this.#memory !== null) this.#extend(this.#memory, length)
      else if (length < inPlaceWords) this.#view(this.#copyTo(new ArrayBuffer(4 * Math.max(length, 2 * this.words.length))))
      else this.#move(length)
    } catch (error) {
      if (error instanceof RangeError) return false
      throw error
    }
    return true
  }

  #move(length: number): void {
    const { WebAssembly } = globalThis as unknown as MemoryGlobal
    if (WebAssembly !== undefined) {
      try {
        this.#memory = new WebAssembly.Memory({ initial: Math.ceil(length / pageWords), maximum: pagesMax })
        this.#view(this.#copyTo(this.#memory.buffer))
        return
      } catch (error) {
        // No address space for it: copying still works, except where the memory itself is asked for.
        if (!(error instanceof RangeError)) throw error
        this.#memory = null
      }
    }
    this.#view(this.#copyTo(new ArrayBuffer(4 * Math.max(length, 2 * this.words.length))))
  }

  #extend(memory: GrowingMemory, length: number): void {
    const pages = this.words.length / pageWords
    const needed = Math.ceil(length / pageWords) - pages
    const wanted = Math.min(pagesMax - pages, Math.max(needed, pages >>> 3))
    memory.grow(Math.max(needed, wanted))
    this.#view(memory.buffer)
  }

  #copyTo(buffer: ArrayBuffer): ArrayBuffer {
    new Uint32Array(buffer).set(this.words)
    return buffer
  }

  #view(buffer: ArrayBuffer): void {
    this.words = new Uint32Array(buffer)
    this.ints = new Int32Array(buffer)
  }
}
