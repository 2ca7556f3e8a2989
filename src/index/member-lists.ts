/**
 * Per rank slot, the ids of what it joined, so that a rank is dropped without scanning everything.
 *
 * Lists may hold ids that the rank has left, or twice: readers check. Compacted when more than half is stale.
 */
export class MemberLists {
  readonly #isMember: (slot: number, id: number) => boolean
  readonly #lists: Uint32Array[] = []
  #lengths = new Uint32Array(16)
  #live = new Uint32Array(16)

  constructor(isMember: (slot: number, id: number) => boolean) {
    this.#isMember = isMember
  }

  get bytesReserved(): number {
    let bytes = 0
    for (const list of this.#lists) bytes += list.byteLength
    return bytes
  }

  /** Notes that `slot` joined `id`; called once per joining. */
  join(slot: number, id: number): void {
    while (this.#lists.length <= slot) this.#lists.push(new Uint32Array(0))
    if (slot >= this.#live.length) {
      this.#live = grown(this.#live, slot + 1)
      this.#lengths = grown(this.#lengths, slot + 1)
    }
    if (this.#lengths[slot] === this.#lists[slot]!.length) this.#makeRoom(slot)
    this.#lists[slot]![this.#lengths[slot]!] = id
    this.#lengths[slot] = this.#lengths[slot]! + 1
    this.#live[slot] = this.#live[slot]! + 1
  }

  leave(slot: number): void {
    this.#live[slot] = this.#live[slot]! - 1
  }

  /** Memberships of a rank. */
  count(slot: number): number {
    return this.#live[slot] ?? 0
  }

  #makeRoom(slot: number): void {
    const list = this.#lists[slot]!
    const length = this.#lengths[slot]!
    if (length < 2 * this.#live[slot]! + 16) {
      this.#lists[slot] = grown(list, length + 16)
      return
    }
    list.sort()
    let kept = 0
    let previous = 0
    for (let i = 0; i < length; i += 1) {
      const id = list[i]!
      if (id === previous || !this.#isMember(slot, id)) continue
      previous = id
      list[kept] = id
      kept += 1
    }
    this.#lengths[slot] = kept
  }

  /** The list of a rank, stale ids and doubles included; valid until the next `join`. */
  list(slot: number): Uint32Array {
    return (this.#lists[slot] ?? new Uint32Array(0)).subarray(0, this.#lengths[slot] ?? 0)
  }

  /** Takes the list of a rank that is dropped. The caller calls `leave` for every real member. */
  take(slot: number): Uint32Array {
    const list = this.#lists[slot]
    if (list === undefined) return new Uint32Array(0)
    const length = this.#lengths[slot]!
    this.#lists[slot] = new Uint32Array(0)
    this.#lengths[slot] = 0
    return list.subarray(0, length)
  }
}

function grown(array: Uint32Array, length: number): Uint32Array<ArrayBuffer> {
  const larger = new Uint32Array(Math.max(length, 2 * array.length))
  larger.set(array)
  return larger
}
