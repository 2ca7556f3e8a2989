/** Which pages a shared HiCache holds, from the events of its Mooncake master. */
import { MsgpackCursor } from '../../msgpack/cursor.ts'
import { noSharedHits, sharedHitsOf } from '../../model/shared-cache.ts'
import type { HicacheLayout, SharedHits } from '../../model/shared-cache.ts'
import type { WorkerId } from '../../model/worker.ts'
import type { SharedCache, SharedCacheQuery } from '../../ports.ts'
import { isSameLayout } from './hicache-layout.ts'
import { keyStart, objectSuffixes, pageHashes } from './hicache-keys.ts'

/** Objects kept at most; beyond, all are forgotten, as in the original. */
const objectsMax = 1_000_000

export interface HicacheStats {
  batches: number
  /** Messages that could not be read. */
  badMessages: number
  /** Jumps of the sequence number; each forgets everything. */
  gaps: number
  /** How often the bound on objects was reached. */
  overflows: number
}

/** An object came or went. */
export interface ObjectEvent {
  readonly kind: 'stored' | 'removed'
  readonly key: string
}

/** Reads a message: topic, 64-bit big-endian sequence, MessagePack `[timestamp, events, rank]`. Errors: text of what is wrong. */
export function readObjectEvents(frames: readonly Uint8Array[]): { readonly sequence: bigint; readonly events: readonly ObjectEvent[] } {
  const [, sequence, payload] = frames
  if (frames.length !== 3 || sequence?.length !== 8 || payload === undefined) throw new Error('a message of three frames, the second of 8 bytes, is expected')
  const body = new MsgpackCursor(payload).readValue()
  const events = Array.isArray(body) && body.length === 3 ? (body as readonly unknown[])[1] : null
  if (!Array.isArray(events)) throw new Error('[timestamp, events, rank] is expected')
  const read: ObjectEvent[] = []
  for (const event of events as readonly unknown[]) {
    if (typeof event !== 'object' || event === null) throw new Error('an event that is no map')
    const { event_type: kind, object_key: key, tenant_id: tenant } = event as Readonly<Record<string, unknown>>
    if (tenant !== undefined && tenant !== null && tenant !== '' && tenant !== 'default') continue
    if (typeof key === 'string' && (kind === 'stored' || kind === 'removed')) read.push({ kind, key })
  }
  return { sequence: Buffer.from(sequence).readBigUInt64BE(), events: read }
}

/** The objects of one pool's shared cache. Workers must agree on the layout, else nothing is found. */
export class HicacheIndex implements SharedCache {
  readonly stats: HicacheStats = { batches: 0, badMessages: 0, gaps: 0, overflows: 0 }
  /** Called when the address of the events has changed; null: there is none. */
  onEndpoint: ((endpoint: string | null) => void) | null = null
  readonly #layouts = new Map<WorkerId, HicacheLayout>()
  readonly #objects = new Set<string>()
  readonly #objectsMax: number
  #layout: HicacheLayout | null = null
  #suffixes: readonly string[] = []
  #endpoint: string | null = null
  #problem: string | null = null
  #last: bigint | null = null

  constructor(limits: { readonly objectsMax?: number } = {}) {
    this.#objectsMax = limits.objectsMax ?? objectsMax
  }

  get objectCount(): number {
    return this.#objects.size
  }

  setWorker(workerId: WorkerId, layout: HicacheLayout | null): void {
    if (layout === null) this.#layouts.delete(workerId)
    else this.#layouts.set(workerId, layout)
    this.#settle()
  }

  #settle(): void {
    const layouts = [...this.#layouts.values()]
    const first = layouts[0] ?? null
    const endpoints = new Set(layouts.flatMap(({ eventsEndpoint }) => (eventsEndpoint === null ? [] : [eventsEndpoint])))
    this.#problem = first === null ? 'no worker tells the layout of a shared cache'
      : layouts.some((layout) => !isSameLayout(layout, first)) ? 'the workers differ in the layout of their shared cache'
        : endpoints.size > 1 ? 'the workers name different addresses for the events of their shared cache'
          : first.backend !== 'mooncake' ? `the shared cache is kept by ${first.backend}, not by mooncake`
            : endpoints.size === 0 ? 'no worker names the address of the events of the shared cache' : null
    const layout = this.#problem === null ? first : null
    if (layout !== null && this.#layout !== null && !isSameLayout(layout, this.#layout)) this.clear()
    if (layout !== null) {
      this.#layout = layout
      this.#suffixes = objectSuffixes(layout)
    }
    const [endpoint = null] = this.#problem === null ? [...endpoints] : []
    if (endpoint === this.#endpoint) return
    this.#endpoint = endpoint
    this.clear()
    this.onEndpoint?.(endpoint)
  }

  /** One message of the master. A message that cannot be read is counted. */
  take(frames: readonly Uint8Array[]): void {
    try {
      const { sequence, events } = readObjectEvents(frames)
      this.#apply(sequence, events)
    } catch {
      this.stats.badMessages += 1
    }
  }

  #apply(sequence: bigint, events: readonly ObjectEvent[]): void {
    if (sequence === this.#last) return
    if (this.#last !== null && sequence !== this.#last + 1n) {
      this.stats.gaps += 1
      this.#objects.clear()
    }
    this.#last = sequence
    this.stats.batches += 1
    for (const { kind, key } of events) {
      if (kind === 'stored') this.#objects.add(key)
      else this.#objects.delete(key)
    }
    if (this.#objects.size <= this.#objectsMax) return
    this.stats.overflows += 1
    this.clear()
  }

  /** Forgets all objects. */
  clear(): void {
    this.#objects.clear()
    this.#last = null
  }

  hits(query: SharedCacheQuery): SharedHits {
    if (this.#problem !== null) return { ...noSharedHits, error: this.#problem }
    const layout = this.#layout
    // Keys hold no namespace: what is found could be another's.
    if (layout === null || (query.cacheNamespace ?? '') !== '') return noSharedHits
    if (layout.pageSize !== query.blockSize) {
      return { ...noSharedHits, error: `pages of ${layout.pageSize} tokens do not match blocks of ${query.blockSize}` }
    }
    if (this.#objects.size === 0) return noSharedHits
    const start = keyStart(layout)
    return sharedHitsOf(pageHashes(query.tokens, layout).map((hash) => this.#suffixes.every((suffix) => this.#objects.has(`${start}${hash}${suffix}`))))
  }
}
