/**
 * The snapshot of an index in the object store: a list of router events in bincode 1.3 (fixed width, little endian, u64 lengths).
 *
 * Two layouts exist: routers of 1.3 write one field more per stored event than those of 1.1. Nothing in the bytes names the layout,
 * so both are tried; exactly one fits, unless there is no stored event at all. Source: Dynamo 1.1.1 and 1.3.1.
 */
import { hashCount, type HashList } from '../../model/hash-list.ts'
import type { BlockMmInfo, KvEventData, MmObject, RouterEvent, StorageTier, StoredBlocks } from '../../model/kv-event.ts'

export type SnapshotLayout = '1.1' | '1.3'

const tiers: readonly StorageTier[] = ['device', 'host_pinned', 'disk', 'external']
const variants = { stored: 0, removed: 1, cleared: 2 } as const

/** Bytes that are no snapshot, by what does not fit and where. */
export class SnapshotError extends Error {
  override readonly name = 'SnapshotError'
}

/** Reads a snapshot of either layout. Errors: `SnapshotError` when neither fits. */
export function decodeSnapshot(bytes: Uint8Array): { readonly layout: SnapshotLayout; readonly events: RouterEvent[] } {
  const reasons: string[] = []
  for (const layout of ['1.3', '1.1'] as const) {
    try {
      return { layout, events: new Reader(bytes, layout).events() }
    } catch (error) {
      if (!(error instanceof SnapshotError)) throw error
      reasons.push(`as ${layout}: ${error.message}`)
    }
  }
  throw new SnapshotError(reasons.join('; '))
}

class Reader {
  readonly #view: DataView
  readonly #bytes: Uint8Array
  readonly #layout: SnapshotLayout
  #offset = 0

  constructor(bytes: Uint8Array, layout: SnapshotLayout) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#layout = layout
  }

  events(): RouterEvent[] {
    // The least event: worker, tier, id, variant, rank.
    const events = Array.from({ length: this.#length(28) }, () => this.#event())
    if (this.#offset !== this.#bytes.length) throw this.#bad(`${this.#bytes.length - this.#offset} bytes are left`)
    return events
  }

  #event(): RouterEvent {
    const workerId = this.#u64()
    const storageTier = tiers[this.#u32()]
    if (storageTier === undefined) throw this.#bad('an unknown storage tier')
    const eventId = this.#u64()
    const data = this.#data()
    return { workerId, storageTier, residencyDomain: 'absent', eventId, data, dpRank: this.#u32() }
  }

  #data(): KvEventData {
    switch (this.#u32()) {
      case variants.stored: return this.#stored()
      case variants.removed: {
        const count = this.#length(8)
        const blockHashes = new Uint32Array(2 * count)
        for (let index = 0; index < count; index += 1) this.#hash(blockHashes, index)
        return { kind: 'removed', blockHashes }
      }
      case variants.cleared: return { kind: 'cleared' }
      default: throw this.#bad('an unknown kind of event')
    }
  }

  #stored(): StoredBlocks {
    const parentHash = this.#isPresent() ? this.#u64() : null
    const startPosition = this.#layout === '1.3' && this.#isPresent() ? this.#u32() : null
    const count = this.#length(17)
    const blockHashes = new Uint32Array(2 * count)
    const tokensHashes = new Uint32Array(2 * count)
    let mmInfos: (BlockMmInfo | null)[] | null = null
    for (let index = 0; index < count; index += 1) {
      this.#hash(blockHashes, index)
      this.#hash(tokensHashes, index)
      if (!this.#isPresent()) continue
      mmInfos ??= Array.from({ length: count }, () => null)
      mmInfos[index] = { mmObjects: Array.from({ length: this.#length(16) }, () => this.#mmObject()) }
    }
    return { kind: 'stored', parentHash, startPosition, blockHashes, tokensHashes, mmInfos }
  }

  #mmObject(): MmObject {
    const mmHash = this.#u64()
    return { mmHash, offsets: Array.from({ length: this.#length(16) }, () => [this.#small(), this.#small()] as const) }
  }

  /** A count of things of at least `least` bytes each. */
  #length(least: number): number {
    const count = this.#u64()
    if (count > BigInt(Math.floor((this.#bytes.length - this.#offset) / least))) throw this.#bad(`a length of ${count}`)
    return Number(count)
  }

  #isPresent(): boolean {
    this.#need(1)
    const tag = this.#bytes[this.#offset]
    this.#offset += 1
    if (tag !== 0 && tag !== 1) throw this.#bad('an option tag that is neither 0 nor 1')
    return tag === 1
  }

  #hash(list: HashList, index: number): void {
    this.#need(8)
    list[2 * index] = this.#view.getUint32(this.#offset, true)
    list[2 * index + 1] = this.#view.getUint32(this.#offset + 4, true)
    this.#offset += 8
  }

  #u64(): bigint {
    this.#need(8)
    this.#offset += 8
    return this.#view.getBigUint64(this.#offset - 8, true)
  }

  #u32(): number {
    this.#need(4)
    this.#offset += 4
    return this.#view.getUint32(this.#offset - 4, true)
  }

  /** A position within a block. */
  #small(): number {
    const value = this.#u64()
    if (value > 0xffffffffn) throw this.#bad(`a position of ${value}`)
    return Number(value)
  }

  #need(count: number): void {
    if (this.#offset + count > this.#bytes.length) throw this.#bad('the end comes too early')
  }

  #bad(what: string): SnapshotError {
    return new SnapshotError(`${what} at byte ${this.#offset}`)
  }
}

/** Writes a snapshot. What the layout has no room for (residency, session, in 1.1 positions) is left out. */
export function encodeSnapshot(events: readonly RouterEvent[], layout: SnapshotLayout): Uint8Array {
  const writer = new Writer(layout)
  writer.u64(BigInt(events.length))
  for (const event of events) writer.event(event)
  return writer.finish()
}

class Writer {
  readonly #layout: SnapshotLayout
  #bytes = new Uint8Array(65_536)
  #view = new DataView(this.#bytes.buffer)
  #offset = 0

  constructor(layout: SnapshotLayout) {
    this.#layout = layout
  }

  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#offset)
  }

  event({ workerId, storageTier, eventId, data, dpRank }: RouterEvent): void {
    this.u64(workerId)
    this.#u32(tiers.indexOf(storageTier))
    this.u64(eventId)
    this.#u32(variants[data.kind])
    if (data.kind === 'stored') this.#stored(data)
    else if (data.kind === 'removed') {
      const count = hashCount(data.blockHashes)
      this.u64(BigInt(count))
      for (let index = 0; index < count; index += 1) this.#hash(data.blockHashes, index)
    }
    this.#u32(dpRank)
  }

  #stored({ parentHash, startPosition, blockHashes, tokensHashes, mmInfos }: StoredBlocks): void {
    this.#u8(parentHash === null ? 0 : 1)
    if (parentHash !== null) this.u64(parentHash)
    if (this.#layout === '1.3') {
      this.#u8(startPosition === null ? 0 : 1)
      if (startPosition !== null) this.#u32(startPosition)
    }
    const count = hashCount(blockHashes)
    this.u64(BigInt(count))
    for (let index = 0; index < count; index += 1) {
      this.#hash(blockHashes, index)
      this.#hash(tokensHashes, index)
      const info = mmInfos?.[index] ?? null
      this.#u8(info === null ? 0 : 1)
      if (info === null) continue
      this.u64(BigInt(info.mmObjects.length))
      for (const { mmHash, offsets } of info.mmObjects) {
        this.u64(mmHash)
        this.u64(BigInt(offsets.length))
        for (const [start, end] of offsets) {
          this.u64(BigInt(start))
          this.u64(BigInt(end))
        }
      }
    }
  }

  u64(value: bigint): void {
    this.#room(8)
    this.#view.setBigUint64(this.#offset, value, true)
    this.#offset += 8
  }

  #hash(list: HashList, index: number): void {
    this.#room(8)
    this.#view.setUint32(this.#offset, list[2 * index] as number, true)
    this.#view.setUint32(this.#offset + 4, list[2 * index + 1] as number, true)
    this.#offset += 8
  }

  #u32(value: number): void {
    this.#room(4)
    this.#view.setUint32(this.#offset, value, true)
    this.#offset += 4
  }

  #u8(value: number): void {
    this.#room(1)
    this.#bytes[this.#offset] = value
    this.#offset += 1
  }

  #room(count: number): void {
    if (this.#offset + count <= this.#bytes.length) return
    const grown = new Uint8Array(2 * this.#bytes.length)
    grown.set(this.#bytes)
    this.#bytes = grown
    this.#view = new DataView(grown.buffer)
  }
}
