/** Selections that were not booked yet: what `/select` found, for a reservation that names it. Pure: moments come with each call. */
import type { HashList } from '../../model/hash-list.ts'
import type { WorkerRank } from '../../model/worker.ts'
import { keyText, type PartitionKey } from '../partition-key.ts'

export interface PendingSelection {
  readonly key: PartitionKey
  readonly rank: WorkerRank
  readonly tracking: HashList
  /** For ranks whose cache is assumed; null where events tell. */
  readonly local: HashList | null
  readonly promptTokens: number
  readonly effectivePrefillTokens: number
  readonly expectedOutputTokens: number | null
  readonly trackPrefillTokens: boolean
  readonly loraName: string | null
  readonly sessionId: string | null
}

export interface PendingLimits {
  readonly ttlMs: number
  readonly entriesMax: number
  /** Hashes and names of all entries together. */
  readonly bytesMax: number
}

interface Entry {
  readonly selection: PendingSelection
  readonly insertedMs: number
  readonly bytes: number
}

/** In order of insertion; the oldest go when a bound is reached, and `evictions` counts them. */
export class PendingSelections {
  readonly #limits: PendingLimits
  readonly #entries = new Map<string, Entry>()
  #bytes = 0
  /** Entries given up because of a bound, not of age. */
  evictions = 0

  constructor(limits: PendingLimits) {
    this.#limits = limits
  }

  get size(): number {
    return this.#entries.size
  }

  get bytes(): number {
    return this.#bytes
  }

  insert(selectionId: string, selection: PendingSelection, nowMs: number): void {
    this.expire(nowMs)
    const id = idOf(selection.key, selectionId)
    this.#drop(id)
    const bytes = bytesOf(selectionId, selection)
    this.#entries.set(id, { selection, insertedMs: nowMs, bytes })
    this.#bytes += bytes
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= this.#limits.entriesMax && this.#bytes <= this.#limits.bytesMax) break
      this.#drop(oldest)
      this.evictions += 1
    }
  }

  peek(key: PartitionKey, selectionId: string, nowMs: number): PendingSelection | null {
    const entry = this.#entries.get(idOf(key, selectionId))
    return entry === undefined || nowMs - entry.insertedMs > this.#limits.ttlMs ? null : entry.selection
  }

  /** Forgets a selection, unless a newer one has taken its id. */
  remove(key: PartitionKey, selectionId: string, selection: PendingSelection | null = null): void {
    const id = idOf(key, selectionId)
    if (selection === null || this.#entries.get(id)?.selection === selection) this.#drop(id)
  }

  /** Forgets what is too old. */
  expire(nowMs: number): void {
    for (const [id, { insertedMs }] of this.#entries) {
      if (nowMs - insertedMs <= this.#limits.ttlMs) return
      this.#drop(id)
    }
  }

  #drop(id: string): void {
    const entry = this.#entries.get(id)
    if (entry === undefined) return
    this.#entries.delete(id)
    this.#bytes -= entry.bytes
  }
}

const idOf = (key: PartitionKey, selectionId: string): string => `${keyText(key)}${selectionId}`

const bytesOf = (selectionId: string, { key, tracking, local, loraName, sessionId }: PendingSelection): number =>
  tracking.byteLength + (local?.byteLength ?? 0) + selectionId.length + key.model.length + key.group.length + (loraName?.length ?? 0) + (sessionId?.length ?? 0)
