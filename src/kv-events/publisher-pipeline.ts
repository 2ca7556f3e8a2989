/**
 * What a worker publishes of its events: neighbours merged, repeated stores counted, ids given.
 *
 * Source: router-algorithm 3.4 and, for the size of messages, 2.
 */
import { hashAt, hashCount, type HashList } from '../model/hash-list.ts'
import type { BlockMmInfo, RouterEvent } from '../model/kv-event.ts'

/** A pending event of this many hashes is not merged any further. */
const mergedHashesMax = 128
const publishedEventsMax = 128
const publishedBlocksMax = 8192

/** Event being merged; the lists are joined when it is complete. */
interface Pending {
  readonly first: RouterEvent
  readonly parts: RouterEvent[]
  hashCount: number
}

/** Merging, reference counts and event ids of one publisher. */
export class PublisherPipeline {
  readonly #references: BlockReferences
  #pending: Pending | null = null
  #nextEventId = 1n

  constructor(references: BlockReferences = new BlockReferences()) {
    this.#references = references
  }

  /** Id of the last event that was emitted; 0 before the first. */
  get lastEventId(): bigint {
    return this.#nextEventId - 1n
  }

  /**
   * Takes the events of one engine message; returns what is to be published now. Ids of the input are not used.
   * `keepTail`: the last event may wait for the next message, or for `flush`.
   */
  push(events: readonly RouterEvent[], options: { readonly keepTail?: boolean } = {}): RouterEvent[] {
    const out: RouterEvent[] = []
    for (const event of events) {
      if (event.data.kind === 'cleared') {
        this.#flushInto(out)
        this.#references.clear(event.dpRank)
        out.push({ ...event, eventId: this.#takeId() })
        continue
      }
      if (this.#pending !== null && isMergeable(this.#pending, event)) {
        this.#pending.parts.push(event)
        this.#pending.hashCount += hashCount(event.data.blockHashes)
      } else {
        this.#flushInto(out)
        this.#pending = { first: event, parts: [event], hashCount: hashCount(event.data.blockHashes) }
      }
      if (this.#pending.hashCount >= mergedHashesMax) this.#flushInto(out)
    }
    if (options.keepTail !== true) this.#flushInto(out)
    return out
  }

  /** Publishes what waits. */
  flush(): RouterEvent[] {
    const out: RouterEvent[] = []
    this.#flushInto(out)
    return out
  }

  #flushInto(out: RouterEvent[]): void {
    const pending = this.#pending
    if (pending === null) return
    this.#pending = null
    const merged = joined(pending)
    const { data } = merged
    if (data.kind === 'stored') this.#references.add(merged, data.blockHashes)
    else if (data.kind === 'removed') {
      const blockHashes = this.#references.release(merged, data.blockHashes)
      if (blockHashes.length === 0) return
      out.push({ ...merged, eventId: this.#takeId(), data: { kind: 'removed', blockHashes } })
      return
    }
    out.push({ ...merged, eventId: this.#takeId() })
  }

  #takeId(): bigint {
    const id = this.#nextEventId
    this.#nextEventId += 1n
    return id
  }
}

function isMergeable(pending: Pending, event: RouterEvent): boolean {
  const { first } = pending
  const last = pending.parts.at(-1)?.data
  if (
    first.dpRank !== event.dpRank || first.storageTier !== event.storageTier || first.residencyDomain !== event.residencyDomain ||
    first.workerId !== event.workerId || first.sessionId !== event.sessionId || last === undefined
  ) return false
  if (event.data.kind === 'removed') return last.kind === 'removed'
  // A pending event without blocks has no last hash, which equals the absent parent: both merge, as in Dynamo.
  return event.data.kind === 'stored' && last.kind === 'stored' && lastHash(pending) === event.data.parentHash
}

/** Last block hash of a pending stored event; parts without blocks are passed over. */
function lastHash(pending: Pending): bigint | null {
  for (let index = pending.parts.length - 1; index >= 0; index -= 1) {
    const data = pending.parts[index]?.data
    if (data?.kind === 'stored' && data.blockHashes.length > 0) return hashAt(data.blockHashes, hashCount(data.blockHashes) - 1)
  }
  return null
}

function joined({ first, parts }: Pending): RouterEvent {
  if (parts.length === 1) return first
  if (first.data.kind === 'removed') {
    return { ...first, data: { kind: 'removed', blockHashes: joinedLists(parts.map(({ data }) => data.kind === 'removed' ? data.blockHashes : new Uint32Array(0))) } }
  }
  if (first.data.kind !== 'stored') return first
  const stored = parts.flatMap(({ data }) => data.kind === 'stored' ? [data] : [])
  const hasInfos = stored.some(({ mmInfos }) => mmInfos !== null)
  return {
    ...first,
    data: {
      ...first.data,
      blockHashes: joinedLists(stored.map(({ blockHashes }) => blockHashes)),
      tokensHashes: joinedLists(stored.map(({ tokensHashes }) => tokensHashes)),
      mmInfos: hasInfos
        ? stored.flatMap(({ mmInfos, blockHashes }): readonly (BlockMmInfo | null)[] => mmInfos ?? Array.from({ length: hashCount(blockHashes) }, () => null))
        : null,
    },
  }
}

function joinedLists(lists: readonly HashList[]): HashList {
  const all = new Uint32Array(lists.reduce((sum, list) => sum + list.length, 0))
  let at = 0
  for (const list of lists) {
    all.set(list, at)
    at += list.length
  }
  return all
}

/** How often each block of a rank was stored per tier: a removal counts only when it is the last one. */
export class BlockReferences {
  readonly #blocksMax: number
  /** Counts by rank, then by tier and domain, then by block hash. */
  readonly #countsByRank = new Map<number, Map<string, Map<bigint, number>>>()
  #size = 0
  /** Stored blocks not counted because the bound was reached; their removals pass at once. */
  uncounted = 0

  constructor(blocksMax = 8_000_000) {
    this.#blocksMax = blocksMax
  }

  /** Blocks counted. */
  get size(): number {
    return this.#size
  }

  add(place: RouterEvent, hashes: HashList): void {
    let places = this.#countsByRank.get(place.dpRank)
    if (places === undefined) this.#countsByRank.set(place.dpRank, (places = new Map()))
    const key = placeKey(place)
    let counts = places.get(key)
    if (counts === undefined) places.set(key, (counts = new Map()))
    for (let index = 0; index < hashCount(hashes); index += 1) {
      const hash = hashAt(hashes, index)
      const known = counts.get(hash)
      if (known === undefined && this.#size >= this.#blocksMax) { this.uncounted += 1; continue }
      if (known === undefined) this.#size += 1
      counts.set(hash, (known ?? 0) + 1)
    }
  }

  /** The hashes that are gone for good: their last reference, or unknown. */
  release(place: RouterEvent, hashes: HashList): HashList {
    const counts = this.#countsByRank.get(place.dpRank)?.get(placeKey(place))
    if (counts === undefined) return hashes
    const gone = new Uint32Array(hashes.length)
    let kept = 0
    for (let index = 0; index < hashCount(hashes); index += 1) {
      const hash = hashAt(hashes, index)
      const known = counts.get(hash)
      if (known !== undefined && known > 1) { counts.set(hash, known - 1); continue }
      if (known !== undefined) {
        counts.delete(hash)
        this.#size -= 1
      }
      gone[kept] = hashes[2 * index] as number
      gone[kept + 1] = hashes[2 * index + 1] as number
      kept += 2
    }
    return kept === gone.length ? gone : gone.slice(0, kept)
  }

  clear(dpRank: number): void {
    for (const counts of this.#countsByRank.get(dpRank)?.values() ?? []) this.#size -= counts.size
    this.#countsByRank.delete(dpRank)
  }
}

const placeKey = (event: RouterEvent): string => `${event.storageTier} ${event.residencyDomain}`

/** Events as messages: at most 128 events or 8192 blocks each; one event beyond that goes alone. */
export function publishGroups(events: readonly RouterEvent[]): RouterEvent[][] {
  const groups: RouterEvent[][] = []
  let group: RouterEvent[] = []
  let blocks = 0
  for (const event of events) {
    const size = event.data.kind === 'cleared' ? 0 : hashCount(event.data.blockHashes)
    if (group.length > 0 && (group.length >= publishedEventsMax || blocks + size > publishedBlocksMax)) {
      groups.push(group)
      group = []
      blocks = 0
    }
    group.push(event)
    blocks += size
  }
  if (group.length > 0) groups.push(group)
  return groups
}
