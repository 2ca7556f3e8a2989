/**
 * The records of one bucket (or a prefix of it) as this process knows them, and who follows them.
 *
 * All backends feed one of these; it parses, compares, keeps a known good value over an unreadable one, and tells followers in order.
 */
import type { Bucket, DiscoveryEvent, JsonObject, Log, Watch } from '../../ports.ts'
import { isObject, parseJson } from '../wire/json.ts'
import { malformed } from '../wire/wire-error.ts'
import { isUnderPrefix } from './store-key.ts'

/** Records kept per view; further ones are refused with a warning. */
export const maxRecords = 65_536
/** Longest record text, in UTF-16 units; longer ones are skipped with a warning. */
export const maxRecordLength = 8 * 1024 * 1024

/** Reads a record. Errors: `WireError` for text that is no JSON object or too long. */
export function parseRecord(text: string): JsonObject {
  if (text.length > maxRecordLength) throw malformed(`longer than ${maxRecordLength} characters`)
  const value = parseJson(text)
  if (!isObject(value)) throw malformed('not a JSON object')
  return value
}

interface KnownRecord {
  readonly text: string
  readonly value: JsonObject
}

interface Follower {
  readonly prefix: string
  readonly listener: (event: DiscoveryEvent) => void
  /** False until it was given the standing records. */
  active: boolean
  closed: boolean
}

export class RecordView {
  readonly #bucket: Bucket
  readonly #log: Log
  readonly #records = new Map<string, KnownRecord>()
  /** Unreadable text last warned of, per key, so that each is said once. Bounded by `maxRecords`. */
  readonly #unreadable = new Map<string, string>()
  readonly #followers = new Set<Follower>()
  readonly #pending: (() => void)[] = []
  #draining = false
  #synced = false
  #fullWarned = false

  constructor(bucket: Bucket, log: Log) {
    this.#bucket = bucket
    this.#log = log
  }

  get followerCount(): number {
    return this.#followers.size
  }

  get synced(): boolean {
    return this.#synced
  }

  keys(): string[] {
    return [...this.#records.keys()]
  }

  /** Values under a prefix. */
  snapshot(prefix: string): Map<string, JsonObject> {
    const found = new Map<string, JsonObject>()
    for (const [key, record] of this.#records) if (isUnderPrefix(key, prefix)) found.set(key, record.value)
    return found
  }

  /** A record was seen. Unreadable text leaves what was known; returns false then. */
  put(key: string, text: string): boolean {
    const known = this.#records.get(key)
    if (known?.text === text) return true
    if (known === undefined && this.#records.size >= maxRecords) return this.#refuse(key)
    const value = this.#parse(key, text)
    if (value === null) return false
    this.#records.set(key, { text, value })
    this.#tell({ kind: 'put', key, value })
    return true
  }

  delete(key: string): void {
    this.#unreadable.delete(key)
    if (this.#records.delete(key)) this.#tell({ kind: 'delete', key })
  }

  /** A complete listing: what is not in it is gone. The first one completes the first sync. */
  replaceAll(texts: ReadonlyMap<string, string>): void {
    for (const key of this.keys()) if (!texts.has(key)) this.delete(key)
    for (const [key, text] of texts) this.put(key, text)
    this.markSynced()
  }

  markSynced(): void {
    if (this.#synced) return
    this.#synced = true
    for (const follower of this.#followers) this.#enqueue(() => this.#activate(follower))
  }

  /** Follows records under a prefix. Nothing is delivered before this returns. */
  follow(prefix: string, listener: (event: DiscoveryEvent) => void, onClose: () => void): Watch {
    const follower: Follower = { prefix, listener, active: false, closed: false }
    this.#followers.add(follower)
    queueMicrotask(() => {
      if (this.#synced) this.#enqueue(() => this.#activate(follower))
    })
    return {
      close: () => {
        if (follower.closed) return
        follower.closed = true
        this.#followers.delete(follower)
        onClose()
      },
    }
  }

  #activate(follower: Follower): void {
    if (follower.active || follower.closed) return
    follower.active = true
    for (const [key, value] of this.snapshot(follower.prefix)) this.#deliver(follower, { kind: 'put', key, value })
    this.#deliver(follower, { kind: 'synced' })
  }

  #tell(event: Extract<DiscoveryEvent, { key: string }>): void {
    const followers = [...this.#followers].filter((follower) => follower.active && isUnderPrefix(event.key, follower.prefix))
    for (const follower of followers) this.#enqueue(() => this.#deliver(follower, event))
  }

  #deliver(follower: Follower, event: DiscoveryEvent): void {
    if (follower.closed) return
    try {
      follower.listener(event)
    } catch (error) {
      this.#log.error({ bucket: this.#bucket, reason: String(error) }, 'a discovery listener threw')
    }
  }

  /** Runs deliveries one after the other, also when a listener causes the next. */
  #enqueue(delivery: () => void): void {
    this.#pending.push(delivery)
    if (this.#draining) return
    this.#draining = true
    for (let next = this.#pending.shift(); next !== undefined; next = this.#pending.shift()) next()
    this.#draining = false
  }

  #parse(key: string, text: string): JsonObject | null {
    try {
      const value = parseRecord(text)
      this.#unreadable.delete(key)
      return value
    } catch (error) {
      if (this.#unreadable.get(key) !== text && this.#unreadable.size < maxRecords) {
        this.#unreadable.set(key, text)
        const mend = this.#records.has(key) ? 'its last good value is kept' : 'it is skipped'
        this.#log.warn({ bucket: this.#bucket, key, reason: (error as Error).message }, `discovery record cannot be read; ${mend}`)
      }
      return null
    }
  }

  #refuse(key: string): boolean {
    if (!this.#fullWarned) {
      this.#fullWarned = true
      this.#log.warn({ bucket: this.#bucket, key, limit: maxRecords }, 'too many discovery records; further ones are not seen')
    }
    return false
  }
}
