/**
 * A payload of the event plane as flat words, read by a WebAssembly kernel; an event becomes an object only when it is asked for.
 *
 * The kernel (source: `kernel/event-scan.ts`) knows the one encoding that Dynamo gives events without multimodal content, session or
 * future fields. Whatever is otherwise, damaged bytes included, is read whole by `kv-events.ts`: results and errors are the same.
 */
import { hashAt, type HashList } from '../../model/hash-list.ts'
import type { KvEventData, RouterEvent, StorageTier } from '../../model/kv-event.ts'
import type { WorkerId } from '../../model/worker.ts'
import { eventScanBase64 } from './event-scan-bytes.ts'
import { decodeKvEvents } from './kv-events.ts'

interface Exports {
  /** Addresses in bytes. */
  scanEvents(payload: number, end: number, records: number, hashes: number): number
}

// The DOM library declares WebAssembly; Node's types do not.
interface WebAssemblyGlobal {
  readonly WebAssembly: {
    readonly Module: new (bytes: Uint8Array) => object
    readonly Memory: new (limits: { initial: number }) => { readonly buffer: ArrayBuffer }
    readonly Instance: new (module: object, imports: object) => { readonly exports: unknown }
  }
}

/**
 * Words of an event's record: kind, tier, domain and flags as bytes; rank; worker, event and parent ids as halves; start position;
 * blocks; first word of its hashes among all hashes. One is left over.
 */
const R = { stride: 12, what: 0, dpRank: 1, workerId: 2, eventId: 4, parent: 6, start: 8, count: 9, hashes: 10 } as const
const hasParent = 1 << 24
const hasStart = 2 << 24
const tiers: readonly StorageTier[] = ['device', 'host_pinned', 'disk', 'external']
const domains = ['worker', 'cache_owner', 'absent'] as const

/** Publishers stop at 8192 blocks, which is half as much. */
const payloadBytesMax = 1 << 20
/** The kernel looks at most so far beyond the end. */
const slackBytes = 512
const pageBytes = 1 << 16

let compiled: object | null = null

/** Events of one payload. What `event` returns stays; the rest holds until the decoder's next payload. */
export interface KvEventBatch {
  readonly length: number
  /** Whether all events name this rank. */
  isOf(workerId: WorkerId, dpRank: number): boolean
  /** Event `index`, of `[0, length)`, made anew at each call. */
  event(index: number): RouterEvent
}

/**
 * Reads payloads one after the other; each makes the batch before it void. Bounds: memory of three to six times the largest
 * payload, about 3 MiB at most. Cost: nothing is allocated per event until it is asked for.
 */
export class KvEventDecoder {
  #scan: Exports['scanEvents'] = () => -1
  #bytes = new Uint8Array(0)
  /** Where payload and hashes begin, in bytes; records begin at 0. */
  #payloadAt = 0
  #hashesAt = 0
  #batch: WordBatch | null = null
  /** Larger payloads are read in general. */
  #lengthMax = payloadBytesMax

  /** Errors: WireError that names the offset. */
  decode(payload: Uint8Array): KvEventBatch {
    const { length } = payload
    if (length <= this.#lengthMax && (length + slackBytes <= this.#bytes.length - this.#payloadAt || this.#reserve(length))) {
      this.#bytes.set(payload, this.#payloadAt)
      const count = this.#scan(this.#payloadAt, this.#payloadAt + length, 0, this.#hashesAt)
      if (count >= 0 && this.#batch !== null) {
        this.#batch.length = count
        return this.#batch
      }
    }
    return new EventBatch(decodeKvEvents(payload))
  }

  /** Takes memory for payloads of `length` bytes; false when it is refused. */
  #reserve(length: number): boolean {
    const { WebAssembly } = globalThis as unknown as WebAssemblyGlobal
    // A record is less than its event in bytes, as are the hashes.
    const room = Math.max(pageBytes, 2 ** Math.ceil(Math.log2(length)))
    try {
      compiled ??= new WebAssembly.Module(Uint8Array.from(atob(eventScanBase64), (unit) => unit.charCodeAt(0)))
      const memory = new WebAssembly.Memory({ initial: (3 * room) / pageBytes + 1 })
      this.#scan = (new WebAssembly.Instance(compiled, { env: { memory } }).exports as Exports).scanEvents
      this.#hashesAt = room
      this.#payloadAt = 2 * room
      this.#bytes = new Uint8Array(memory.buffer)
      this.#batch = new WordBatch(memory.buffer, room >>> 2)
      return true
    } catch (error) {
      if (!(error instanceof RangeError)) throw error
      this.#lengthMax = length - 1
      return false
    }
  }
}

class WordBatch implements KvEventBatch {
  length = 0
  readonly #words: Uint32Array
  readonly #wide: BigUint64Array
  readonly #hashBase: number
  /** The last id made, and its halves: mostly all events of a payload name one worker. */
  #workerId = 0n
  #workerLow = 0
  #workerHigh = 0

  constructor(memory: ArrayBuffer, hashBase: number) {
    this.#words = new Uint32Array(memory)
    this.#wide = new BigUint64Array(memory)
    this.#hashBase = hashBase
  }

  isOf(workerId: WorkerId, dpRank: number): boolean {
    const words = this.#words
    const low = Number(workerId & 0xffffffffn)
    const high = Number(workerId >> 32n)
    for (let at = 0; at < this.length * R.stride; at += R.stride) {
      if (words[at + R.workerId] !== low || words[at + R.workerId + 1] !== high || words[at + R.dpRank] !== dpRank) return false
    }
    return true
  }

  event(index: number): RouterEvent {
    if (index >= this.length) throw new RangeError(`event ${index} of ${this.length}`)
    const words = this.#words
    const at = index * R.stride
    const low = words[at + R.workerId]!
    const high = words[at + R.workerId + 1]!
    if (low !== this.#workerLow || high !== this.#workerHigh) {
      this.#workerLow = low
      this.#workerHigh = high
      this.#workerId = hashAt(words, (at + R.workerId) >>> 1)
    }
    const what = words[at + R.what]!
    return {
      workerId: this.#workerId, dpRank: words[at + R.dpRank]!, storageTier: tiers[(what >>> 8) & 0xff]!,
      residencyDomain: domains[(what >>> 16) & 0xff]!, eventId: this.#wide[(at + R.eventId) >>> 1]!, data: this.#data(at, what),
    }
  }

  #data(at: number, what: number): KvEventData {
    const words = this.#words
    const count = words[at + R.count]!
    const from = this.#hashBase + words[at + R.hashes]!
    const kind = what & 0xff
    if (kind === 0) {
      return {
        kind: 'stored', parentHash: (what & hasParent) === 0 ? null : this.#wide[(at + R.parent) >>> 1]!,
        startPosition: (what & hasStart) === 0 ? null : words[at + R.start]!,
        blockHashes: this.#hashes(from, count), tokensHashes: this.#hashes(from + 2 * count, count), mmInfos: null,
      }
    }
    return kind === 1 ? { kind: 'removed', blockHashes: this.#hashes(from, count) } : { kind: 'cleared' }
  }

  #hashes(from: number, count: number): HashList {
    const words = this.#words
    if (count > 8) return words.slice(from, from + 2 * count)
    // Small arrays are made faster than copied.
    const list = new Uint32Array(2 * count)
    for (let word = 0; word < 2 * count; word += 1) list[word] = words[from + word]!
    return list
  }
}

/** Events that were read in general. */
class EventBatch implements KvEventBatch {
  readonly #events: readonly RouterEvent[]

  constructor(events: readonly RouterEvent[]) {
    this.#events = events
  }

  get length(): number {
    return this.#events.length
  }

  isOf(workerId: WorkerId, dpRank: number): boolean {
    return this.#events.every((event) => event.workerId === workerId && event.dpRank === dpRank)
  }

  event(index: number): RouterEvent {
    const event = this.#events[index]
    if (event === undefined) throw new RangeError(`event ${index} of ${this.length}`)
    return event
  }
}
