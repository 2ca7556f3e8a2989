/** Discovery inside one process: several handles over one store, each a process of its own to the others. */
import { randomBytes } from 'node:crypto'
import type { Bucket, Discovery, DiscoveryEvent, JsonObject, Log, Watch } from '../../ports.ts'
import { stringifyJson } from '../wire/json.ts'
import { RecordView } from './record-view.ts'

/** The records that handles share. */
export class MemoryStore {
  readonly #log: Log
  readonly #views = new Map<Bucket, RecordView>()
  readonly owners = new Map<string, MemoryDiscovery>()

  constructor(log: Log) {
    this.#log = log
  }

  view(bucket: Bucket): RecordView {
    let view = this.#views.get(bucket)
    if (view === undefined) {
      view = new RecordView(bucket, this.#log)
      view.markSynced()
      this.#views.set(bucket, view)
    }
    return view
  }
}

/** A random u64 that is not zero, as file and memory backends name a process. */
export function randomInstanceId(): bigint {
  const id = randomBytes(8).readBigUInt64BE()
  return id === 0n ? 1n : id
}

export class MemoryDiscovery implements Discovery {
  readonly kind = 'memory'
  /** Never: a store inside the process cannot lose it. */
  readonly lost = new Promise<Error>(() => {})
  readonly #store: MemoryStore
  readonly #watches = new Set<Watch>()
  readonly #id: bigint
  #started = false
  #closed = false

  constructor(store: MemoryStore, instanceId: bigint = randomInstanceId()) {
    this.#store = store
    this.#id = instanceId
  }

  get instanceId(): bigint {
    if (!this.#started) throw new Error('discovery has no instance id before start() has resolved')
    return this.#id
  }

  async start(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    this.#started = true
  }

  async put(bucket: Bucket, key: string, value: JsonObject): Promise<void> {
    if (this.#closed) throw new Error(`cannot put ${bucket}/${key}: discovery is closed`)
    const owned = `${bucket}/${key}`
    const owner = this.#store.owners.get(owned)
    if (owner !== undefined && owner !== this) throw new Error(`cannot put ${owned}: the record belongs to another process`)
    this.#store.owners.set(owned, this)
    this.#store.view(bucket).put(key, stringifyJson(value))
  }

  async remove(bucket: Bucket, key: string): Promise<void> {
    if (this.#store.owners.get(`${bucket}/${key}`) !== this) return
    this.#store.owners.delete(`${bucket}/${key}`)
    this.#store.view(bucket).delete(key)
  }

  async list(bucket: Bucket, prefix: string): Promise<ReadonlyMap<string, JsonObject>> {
    return this.#store.view(bucket).snapshot(prefix)
  }

  watch(bucket: Bucket, prefix: string, listener: (event: DiscoveryEvent) => void): Watch {
    const watch = this.#store.view(bucket).follow(prefix, listener, () => this.#watches.delete(watch))
    this.#watches.add(watch)
    return watch
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const watch of this.#watches) watch.close()
    for (const [owned, owner] of this.#store.owners) {
      if (owner !== this) continue
      const bucket = owned.split('/', 2).join('/') as Bucket
      await this.remove(bucket, owned.slice(bucket.length + 1))
    }
  }
}
