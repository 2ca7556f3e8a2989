/** Open-addressing table of small integer ids; the owner keeps the keys and compares them. */

const empty = -1

/**
 * Finds ids by a 32-bit hash of a key that the owner stores beside each id.
 *
 * Shape: linear probing over a power of two of cells, at most half full. Cost: no allocation but for growth, 8 bytes per id.
 */
export class IdTable {
  /** Cells with an id, or -1. Probe with `(hash & mask)`, then upwards with wrap-around, up to the first -1. */
  cells: Int32Array
  mask: number
  #hashes: Uint32Array
  #size = 0

  constructor(capacity = 64) {
    this.cells = new Int32Array(2 * capacity).fill(empty)
    this.mask = 2 * capacity - 1
    this.#hashes = new Uint32Array(capacity)
  }

  get size(): number {
    return this.#size
  }

  get bytes(): number {
    return this.cells.byteLength + this.#hashes.byteLength
  }

  /** Adds an id that is not in the table. */
  insert(id: number, hash: number): void {
    if (id >= this.#hashes.length) {
      const hashes = new Uint32Array(Math.max(2 * this.#hashes.length, id + 1))
      hashes.set(this.#hashes)
      this.#hashes = hashes
    }
    this.#hashes[id] = hash
    this.#size += 1
    if (2 * this.#size > this.cells.length) this.#rebuild()
    this.#place(id, hash)
  }

  /** Takes out an id that is in the table; later ids of the same run move up, so that no gap breaks a probe. */
  remove(id: number): void {
    const { cells, mask } = this
    const hashes = this.#hashes
    let hole = hashes[id]! & mask
    while (cells[hole] !== id) hole = (hole + 1) & mask
    let next = (hole + 1) & mask
    while (cells[next] !== empty) {
      const other = cells[next]!
      const home = hashes[other]! & mask
      if (((next - home) & mask) >= ((next - hole) & mask)) {
        cells[hole] = other
        hole = next
      }
      next = (next + 1) & mask
    }
    cells[hole] = empty
    this.#size -= 1
  }

  #place(id: number, hash: number): void {
    let cell = hash & this.mask
    while (this.cells[cell] !== empty) cell = (cell + 1) & this.mask
    this.cells[cell] = id
  }

  #rebuild(): void {
    const old = this.cells
    this.cells = new Int32Array(2 * old.length).fill(empty)
    this.mask = this.cells.length - 1
    for (let cell = 0; cell < old.length; cell++) {
      const id = old[cell]!
      if (id !== empty) this.#place(id, this.#hashes[id]!)
    }
  }
}
