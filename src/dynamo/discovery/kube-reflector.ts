/** A collection of an API server, followed: listed in pages, then watched; listed again when the history is gone or the watch breaks. */
import type { Clock, Json, JsonObject, Log, TimerHandle } from '../../ports.ts'
import { isObject } from '../wire/json.ts'
import type { KubeClient } from './kube-client.ts'
import { KubeError } from './kube-error.ts'

const pageSize = 500
const firstRetryMs = 250
const lastRetryMs = 5_000
/** How long a watch may last before it is begun anew; the server ends it. */
const watchSeconds = 240
/** Objects of one collection at most; beyond, further ones are not seen and the log says so. */
export const kubeObjectsMax = 65_536

export interface KubeReflectorOptions {
  readonly client: KubeClient
  readonly clock: Clock
  readonly log: Log
  /** Path of the collection, without a query. */
  readonly path: string
  readonly labelSelector?: string
  /** Something changed; `objects` holds what stands. */
  readonly onChange: () => void
}

export class KubeReflector {
  /** By name. What stood last stands while the server is away. */
  readonly objects = new Map<string, JsonObject>()
  readonly #options: KubeReflectorOptions
  readonly #abort = new AbortController()
  #synced = false
  #failures = 0
  #timer: TimerHandle | null = null
  #fullSaid = false

  constructor(options: KubeReflectorOptions) {
    this.#options = options
    void this.#follow()
  }

  /** The collection has been listed once. */
  get synced(): boolean {
    return this.#synced
  }

  close(): void {
    this.#abort.abort(new Error('closed'))
    this.#timer?.cancel()
  }

  async #follow(): Promise<void> {
    try {
      let version = await this.#list()
      for (;;) version = await this.#watch(version)
    } catch (error) {
      this.#broken(error as Error)
    }
  }

  #broken(error: Error): void {
    if (this.#abort.signal.aborted) return
    const { clock, log, path } = this.#options
    const delayMs = Math.min(firstRetryMs * 2 ** this.#failures, lastRetryMs)
    if (this.#failures === 0) log.warn({ stage: 'discovery', path, reason: error.message }, 'the watch of the API server broke; listing again')
    this.#failures = Math.min(this.#failures + 1, 16)
    this.#timer = clock.setTimer(delayMs, () => void this.#follow())
  }

  #query(more: Readonly<Record<string, string>>): string {
    const { path, labelSelector } = this.#options
    const query = new URLSearchParams({ ...(labelSelector === undefined ? {} : { labelSelector }), ...more })
    return `${path}?${query.toString()}`
  }

  /** Gives the version to watch from. */
  async #list(): Promise<string> {
    const found = new Map<string, JsonObject>()
    let next = ''
    for (;;) {
      const page = await this.#options.client.call('GET', this.#query({ limit: String(pageSize), ...(next === '' ? {} : { continue: next }) }))
      for (const item of Array.isArray(page['items']) ? (page['items'] as readonly Json[]) : []) if (isObject(item)) this.#take(found, item as JsonObject)
      const metadata = (isObject(page['metadata']) ? page['metadata'] : {}) as JsonObject
      next = typeof metadata['continue'] === 'string' ? metadata['continue'] : ''
      if (next !== '') continue
      this.objects.clear()
      for (const [name, object] of found) this.objects.set(name, object)
      this.#synced = true
      this.#failures = 0
      this.#options.onChange()
      return String(metadata['resourceVersion'] ?? '')
    }
  }

  #take(into: Map<string, JsonObject>, object: JsonObject): void {
    const name = nameOf(object)
    if (name === null) return
    if (!into.has(name) && into.size >= kubeObjectsMax) {
      if (!this.#fullSaid) this.#options.log.warn({ stage: 'discovery', path: this.#options.path, limit: kubeObjectsMax }, 'too many objects; further ones are not seen')
      this.#fullSaid = true
      return
    }
    into.set(name, object)
  }

  /** Until the server ends the watch, as it does every few minutes. Gives the version to go on from. */
  async #watch(from: string): Promise<string> {
    const { client, onChange } = this.#options
    let version = from
    const beganMs = this.#options.clock.nowMs()
    const path = this.#query({ watch: '1', resourceVersion: from, allowWatchBookmarks: 'true', timeoutSeconds: String(watchSeconds) })
    for await (const event of client.watch(path, this.#abort.signal)) {
      const object = (isObject(event['object']) ? event['object'] : {}) as JsonObject
      if (event['type'] === 'ERROR') throw new KubeError(Number(object['code'] ?? 500), String(object['message'] ?? 'the watch ended with an error'))
      const metadata = (isObject(object['metadata']) ? object['metadata'] : {}) as JsonObject
      if (typeof metadata['resourceVersion'] === 'string') version = metadata['resourceVersion']
      this.#failures = 0
      if (event['type'] === 'BOOKMARK') continue
      if (event['type'] === 'DELETED') this.objects.delete(nameOf(object) ?? '')
      else this.#take(this.objects, object)
      onChange()
    }
    // A server that ends watches at once must not be asked without a pause.
    if (version === from && this.#options.clock.nowMs() - beganMs < 1_000) throw new Error('the watch ended at once')
    return version
  }
}

const nameOf = (object: JsonObject): string | null => {
  const metadata = object['metadata']
  const name = isObject(metadata) ? (metadata as JsonObject)['name'] : undefined
  return typeof name === 'string' ? name : null
}
