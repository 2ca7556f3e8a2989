/** A hash table from 32-bit hashes to record ids, in flat memory, that never stops for a whole rehash. */
import { GrowingWords } from './growing-words.ts'

const slotBits = 9
const segmentSlots = 1 << slotBits
const segmentWords = 2 * segmentSlots
const slotMask = segmentSlots - 1
const slotShift = 32 - slotBits
/** A segment with more entries is split, so that probes stay short. */
const splitAbove = 384
/** Directory entries per segment beyond which a crowded segment overflows instead: hashes then are not spread, or chosen. */
const directoryPerSegment = 16

/**
 * Extendible hashing: a directory of segments of 512 slots, each slot an entry's whole hash and its id (0: free). A segment
 * that fills is split alone, by the hashes in its slots; records are not looked at.
 *
 * Hashes are int32, best well mixed. Equal hashes may occur: `first` and `after` go through them in no particular order, the
 * caller compares keys. Cost: mostly one cache line per look-up; a split moves at most 511 entries. Bytes: 10 to 20 per entry.
 */
export class HashTable {
  readonly #slots = new GrowingWords(segmentWords)
  #directory = new Int32Array(1)
  #mask = 0
  #segments = 1
  /** Entries and, from bit 16 on, hash bits that tell the segment apart. */
  #infos = new Int32Array(16)
  /** Entries of segments that are full and cannot be split: ids by hash. */
  readonly #overflow = new Map<number, number[]>()

  get bytesReserved(): number {
    return this.#slots.byteLength + this.#directory.byteLength + this.#infos.byteLength + 64 * this.#overflow.size
  }

  /** Makes room for the splits of `count` insertions; false when memory is refused. */
  reserve(count: number): boolean {
    // New segments only come from full ones; one more than the mean for each started batch is ample.
    return this.#slots.reserve((this.#segments + 2 + Math.ceil(count / (splitAbove >>> 1))) * segmentWords)
  }

  /**
   * Reads the slot where this hash begins, for nothing but that the memory answers: reads of many hashes in a row go on side by side,
   * where look-ups one after the other wait for each. The result says nothing; it must be used, or the read is left out.
   */
  touch(hash: number): number {
    return this.#slots.ints[this.#directory[hash & this.#mask]! * segmentWords + 2 * (hash >>> slotShift)]!
  }

  /** An id under this hash, or 0; go on with `after`. */
  first(hash: number): number {
    const { ints } = this.#slots
    const base = this.#directory[hash & this.#mask]! * segmentWords
    for (let slot = hash >>> slotShift; ; slot = (slot + 1) & slotMask) {
      const id = ints[base + 2 * slot + 1]!
      if (id === 0) return this.#overflow.size === 0 ? 0 : this.#overflow.get(hash)?.[0] ?? 0
      if (ints[base + 2 * slot] === hash) return id
    }
  }

  /** The id that follows `id` under the same hash, or 0. */
  after(id: number, hash: number): number {
    const { ints } = this.#slots
    const base = this.#directory[hash & this.#mask]! * segmentWords
    let passed = false
    for (let slot = hash >>> slotShift; ints[base + 2 * slot + 1] !== 0; slot = (slot + 1) & slotMask) {
      if (ints[base + 2 * slot] !== hash) continue
      if (passed) return ints[base + 2 * slot + 1]!
      passed = ints[base + 2 * slot + 1] === id
    }
    const ids = this.#overflow.size === 0 ? undefined : this.#overflow.get(hash)
    return ids === undefined ? 0 : ids[passed ? 0 : ids.indexOf(id) + 1] ?? 0
  }

  /**
   * Adds an id, which is not 0, under a hash. Returns an id that was there under the same hash, or 0.
   * Errors: RangeError when memory is refused; `reserve` prevents it.
   */
  insert(id: number, hash: number): number {
    let segment = this.#directory[hash & this.#mask]!
    while ((this.#infos[segment]! & 0xffff) >= splitAbove && this.#split(segment, hash)) segment = this.#directory[hash & this.#mask]!
    if ((this.#infos[segment]! & 0xffff) >= slotMask) return this.#insertOverflow(id, hash)
    const { ints } = this.#slots
    const base = segment * segmentWords
    let same = 0
    let at = base + 2 * (hash >>> slotShift)
    for (let found = ints[at + 1]!; found !== 0; found = ints[at + 1]!) {
      if (ints[at] === hash) same = found
      at += 2
      if (at === base + segmentWords) at = base
    }
    ints[at] = hash
    ints[at + 1] = id
    this.#infos[segment]! += 1
    return same === 0 && this.#overflow.size > 0 ? this.#overflow.get(hash)?.[0] ?? 0 : same
  }

  #insertOverflow(id: number, hash: number): number {
    const same = this.first(hash)
    const ids = this.#overflow.get(hash)
    if (ids === undefined) this.#overflow.set(hash, [id])
    else ids.push(id)
    return same
  }

  /** Takes an entry out; it must be there. */
  remove(id: number, hash: number): void {
    const { ints } = this.#slots
    const segment = this.#directory[hash & this.#mask]!
    const base = segment * segmentWords
    let slot = hash >>> slotShift
    for (;; slot = (slot + 1) & slotMask) {
      const found = ints[base + 2 * slot + 1]!
      if (found === 0) return this.#removeOverflow(id, hash)
      if (found === id && ints[base + 2 * slot] === hash) break
    }
    this.#infos[segment]! -= 1
    // Entries behind move up, so that no probe ends too early.
    for (let next = (slot + 1) & slotMask; ints[base + 2 * next + 1] !== 0; next = (next + 1) & slotMask) {
      const home = ints[base + 2 * next]! >>> slotShift
      if (((next - home) & slotMask) < ((next - slot) & slotMask)) continue
      ints[base + 2 * slot] = ints[base + 2 * next]!
      ints[base + 2 * slot + 1] = ints[base + 2 * next + 1]!
      slot = next
    }
    ints[base + 2 * slot + 1] = 0
  }

  #removeOverflow(id: number, hash: number): void {
    const ids = this.#overflow.get(hash)
    const index = ids?.indexOf(id) ?? -1
    if (ids === undefined || index < 0) return
    ids.splice(index, 1)
    if (ids.length === 0) this.#overflow.delete(hash)
  }

  /** Moves the entries with one more hash bit set to a new segment; false when the directory may not grow for it. */
  #split(segment: number, hash: number): boolean {
    const bits = this.#infos[segment]! >>> 16
    if (1 << bits > this.#mask) {
      if (this.#directory.length >= directoryPerSegment * this.#segments) return false
      const doubled = new Int32Array(2 * this.#directory.length)
      doubled.set(this.#directory)
      doubled.set(this.#directory, this.#directory.length)
      this.#directory = doubled
      this.#mask = doubled.length - 1
    }
    const added = this.#segments
    if (!this.#slots.reserve((added + 1) * segmentWords)) throw new RangeError('no memory for the prefix index')
    this.#segments = added + 1
    if (added >= this.#infos.length) {
      const infos = new Int32Array(2 * this.#infos.length)
      infos.set(this.#infos)
      this.#infos = infos
    }
    const step = 1 << bits
    for (let at = (hash & (step - 1)) | step; at < this.#directory.length; at += 2 * step) this.#directory[at] = added
    this.#infos[segment]! += 1 << 16
    this.#infos[added] = (bits + 1) << 16
    this.#distribute(segment, added, step)
    return true
  }

  /** Puts the entries of a segment where the hash bit `step` says. They come in the order of their slots, so each goes to the end of those before. */
  #distribute(segment: number, added: number, step: number): void {
    const { ints } = this.#slots
    const base = segment * segmentWords
    const addedBase = added * segmentWords
    scratch.set(ints.subarray(base, base + segmentWords))
    ints.fill(0, base, base + segmentWords)
    // From a free slot on: no run of entries is cut.
    let start = 0
    while (scratch[start + 1] !== 0) start += 2
    let moved = 0
    for (let offset = 0; offset < segmentWords; offset += 2) {
      const from = (start + offset) & (segmentWords - 1)
      const id = scratch[from + 1]!
      if (id === 0) continue
      const hash = scratch[from]!
      const target = (hash & step) === 0 ? base : addedBase
      let slot = 2 * (hash >>> slotShift)
      while (ints[target + slot + 1] !== 0) slot = (slot + 2) & (segmentWords - 1)
      ints[target + slot] = hash
      ints[target + slot + 1] = id
      if (target === addedBase) moved += 1
    }
    this.#infos[segment] = (this.#infos[segment]! & ~0xffff) | (this.#infos[segment]! & 0xffff) - moved
    this.#infos[added]! += moved
  }
}

/** Entries of the segment that is being split. */
const scratch = new Int32Array(segmentWords)
