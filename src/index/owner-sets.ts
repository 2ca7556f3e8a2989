/**
 * Sets of rank slots, many small and a few large, named by one 32-bit handle each.
 *
 * A handle's low two bits say the form: 0 the empty set (handle 0), 1 one slot inline, 2 a short list of up to 7 slots,
 * 3 a bit set as wide as the largest slot seen. Changing a set may change its handle: keep the one returned.
 * A handle has one owner; `copy` makes another set.
 */
import { RecordArena } from './record-arena.ts'

const listMax = 7
/** A bit set this small becomes a list again; lower than `listMax` so that a set at the border does not flip. */
const listAgain = 4

/** The set of one slot, as an int32. */
export const onlyOwner = (slot: number): number => (slot << 2) | 1

export class OwnerSets {
  /** Word 0 is the count, then the slots. */
  readonly #lists = new RecordArena(listMax + 1)
  /** Word 0 is the count, then the bits. */
  #bits = new RecordArena(3)

  get bytesReserved(): number {
    return this.#lists.bytesReserved + this.#bits.bytesReserved
  }

  has(handle: number, slot: number): boolean {
    const form = handle & 3
    if (form === 1) return handle >>> 2 === slot
    if (form === 0) return false
    if (form === 2) return this.#listIndex(handle >>> 2, slot) >= 0
    const word = 1 + (slot >>> 5)
    return word < this.#bits.stride && (this.#bits.words[(handle >>> 2) * this.#bits.stride + word]! & (1 << (slot & 31))) !== 0
  }

  size(handle: number): number {
    const form = handle & 3
    if (form < 2) return form
    const arena = form === 2 ? this.#lists : this.#bits
    return arena.words[(handle >>> 2) * arena.stride]!
  }

  #listIndex(id: number, slot: number): number {
    const { words } = this.#lists
    const base = id * (listMax + 1)
    for (let i = words[base]!; i > 0; i -= 1) if (words[base + i] === slot) return i
    return -1
  }

  /** Writes the members to `out` and returns how many; `out` must be long enough. */
  collect(handle: number, out: Uint32Array): number {
    const form = handle & 3
    if (form === 0) return 0
    if (form === 1) {
      out[0] = handle >>> 2
      return 1
    }
    if (form === 2) {
      const base = (handle >>> 2) * (listMax + 1)
      const count = this.#lists.words[base]!
      for (let i = 0; i < count; i += 1) out[i] = this.#lists.words[base + 1 + i]!
      return count
    }
    const { words, stride } = this.#bits
    const base = (handle >>> 2) * stride
    let count = 0
    for (let word = 1; word < stride; word += 1) {
      for (let bits = words[base + word]!; bits !== 0; bits &= bits - 1) {
        out[count] = (word - 1) * 32 + (31 - Math.clz32(bits & -bits))
        count += 1
      }
    }
    return count
  }

  /** The set with `slot`. */
  add(handle: number, slot: number): number {
    const form = handle & 3
    if (form === 0) return ((slot << 2) | 1) >>> 0
    if (this.has(handle, slot)) return handle
    if (form === 1) {
      const id = this.#lists.allocate()
      const base = id * (listMax + 1)
      this.#lists.words[base] = 2
      this.#lists.words[base + 1] = handle >>> 2
      this.#lists.words[base + 2] = slot
      return ((id << 2) | 2) >>> 0
    }
    if (form === 2) {
      const id = handle >>> 2
      const base = id * (listMax + 1)
      const count = this.#lists.words[base]!
      if (count < listMax) {
        this.#lists.words[base + 1 + count] = slot
        this.#lists.words[base] = count + 1
        return handle
      }
      return this.#toBits(id, slot)
    }
    this.#widen(slot)
    this.#setBit(handle >>> 2, slot)
    return handle
  }

  #setBit(id: number, slot: number): void {
    const { words, stride } = this.#bits
    const at = id * stride + 1 + (slot >>> 5)
    words[at] = words[at]! | (1 << (slot & 31))
    words[id * stride] = words[id * stride]! + 1
  }

  #toBits(listId: number, slot: number): number {
    const base = listId * (listMax + 1)
    let largest = slot
    for (let i = 1; i <= listMax; i += 1) largest = Math.max(largest, this.#lists.words[base + i]!)
    this.#widen(largest)
    const id = this.#bits.allocate()
    this.#bits.words.fill(0, id * this.#bits.stride, (id + 1) * this.#bits.stride)
    this.#setBit(id, slot)
    for (let i = 1; i <= listMax; i += 1) this.#setBit(id, this.#lists.words[base + i]!)
    this.#lists.release(listId)
    return ((id << 2) | 3) >>> 0
  }

  /** Makes every bit set wide enough for `slot`; doubling, so rare. */
  #widen(slot: number): void {
    const old = this.#bits
    const bitWords = old.stride - 1
    if (slot >>> 5 < bitWords) return
    let width = bitWords
    while (slot >>> 5 >= width) width *= 2
    this.#bits = old.restrided(width + 1)
  }

  /** The set without `slot`. */
  remove(handle: number, slot: number): number {
    const form = handle & 3
    if (form === 1) return handle >>> 2 === slot ? 0 : handle
    if (form === 0) return 0
    const id = handle >>> 2
    if (form === 2) {
      const index = this.#listIndex(id, slot)
      if (index < 0) return handle
      const base = id * (listMax + 1)
      const count = this.#lists.words[base]!
      this.#lists.words[base + index] = this.#lists.words[base + count]!
      this.#lists.words[base] = count - 1
      if (count > 2) return handle
      const last = this.#lists.words[base + 1]!
      this.#lists.release(id)
      return ((last << 2) | 1) >>> 0
    }
    if (!this.has(handle, slot)) return handle
    const { words, stride } = this.#bits
    const at = id * stride + 1 + (slot >>> 5)
    words[at] = words[at]! & ~(1 << (slot & 31))
    words[id * stride] = words[id * stride]! - 1
    return words[id * stride]! > listAgain ? handle : this.#toList(handle)
  }

  #toList(handle: number): number {
    const id = this.#lists.allocate()
    const base = id * (listMax + 1)
    this.#lists.words[base] = this.collect(handle, this.#lists.words.subarray(base + 1, base + 1 + listMax))
    this.#bits.release(handle >>> 2)
    return ((id << 2) | 2) >>> 0
  }

  /** A second set with the same members. */
  copy(handle: number): number {
    const form = handle & 3
    if (form < 2) return handle
    const arena = form === 2 ? this.#lists : this.#bits
    const id = arena.allocate()
    const from = (handle >>> 2) * arena.stride
    arena.words.copyWithin(id * arena.stride, from, from + arena.stride)
    return ((id << 2) | form) >>> 0
  }

  /** Gives the set's memory back; the handle must not be used again. */
  release(handle: number): void {
    const form = handle & 3
    if (form === 2) this.#lists.release(handle >>> 2)
    else if (form === 3) this.#bits.release(handle >>> 2)
  }
}
