/**
 * From an engine's raw KV events to the plane's: filters, namespaces, and the router's own block hashes.
 *
 * Pure: decoded batches in, `RouterEvent`s out. A dropped event takes no event id. Source: router-algorithm 3.2, 3.3 and 3.6.
 */
import { localBlockHashes } from '../hashing/block-hashes.ts'
import { padToken } from '../hashing/multimodal.ts'
import { hashCount, noHashes, type HashList } from '../model/hash-list.ts'
import type { BlockMmInfo, KvEventData, RouterEvent, StorageTier } from '../model/kv-event.ts'
import type { WorkerId } from '../model/worker.ts'
import { EventFilter, type DropReason } from './event-filter.ts'
import { ambiguous, NamespaceTracker } from './namespace-tracker.ts'
import type { RawEventBatch, RawStored } from './raw-event.ts'

export interface NormaliserSettings {
  readonly workerId: WorkerId
  /** The router's block size; blocks of another size are not published. */
  readonly blockSize: number
  /** Placeholder tokens of images and videos, which are replaced by pad tokens of the objects. */
  readonly imageTokenId?: number | null
  readonly videoTokenId?: number | null
}

/** Turns the batches of one listener into events; keeps what it learned of groups and namespaces. */
export class RawEventNormaliser {
  readonly #settings: NormaliserSettings
  readonly #filter = new EventFilter()
  readonly #namespaces: NamespaceTracker
  readonly #dropped = new Map<DropReason, number>()
  #refusedBlocks = 0

  constructor(settings: NormaliserSettings, namespaces: NamespaceTracker = new NamespaceTracker()) {
    if (!Number.isInteger(settings.blockSize) || settings.blockSize < 1) throw new RangeError(`blockSize ${settings.blockSize} is not a positive whole number`)
    this.#settings = settings
    this.#namespaces = namespaces
  }

  /** Events dropped so far, by reason. */
  get dropped(): ReadonlyMap<DropReason, number> {
    return this.#dropped
  }

  /** Blocks that were not published because of their size or missing tokens. */
  get refusedBlocks(): number {
    return this.#refusedBlocks
  }

  /**
   * The events of one engine message. All get `eventId`: the message's sequence where events are consumed directly;
   * `PublisherPipeline` gives its own. `defaultDpRank` stands in when the batch names no rank.
   */
  normalise(batch: RawEventBatch, message: { readonly eventId: bigint; readonly defaultDpRank?: number }): RouterEvent[] {
    const dpRank = batch.dpRank ?? message.defaultDpRank ?? 0
    const events: RouterEvent[] = []
    for (const raw of batch.events) {
      const outcome = this.#filter.judge(raw, dpRank)
      if ('dropped' in outcome) { this.#drop(outcome.dropped); continue }
      const { tier } = outcome
      if (raw.kind === 'stored') {
        const namespace = isTracked(tier)
          ? this.#namespaces.stored(dpRank, raw.blockHashes, raw.parentHash, raw.cacheNamespace)
          : raw.cacheNamespace
        if (namespace === ambiguous) { this.#drop('ambiguous_cache_namespace'); continue }
        events.push(this.#event(dpRank, tier, message.eventId, this.#convertStored(raw, namespace), raw.sessionId))
      } else if (raw.kind === 'removed') {
        if (isTracked(tier)) this.#namespaces.removed(dpRank, raw.blockHashes)
        events.push(this.#event(dpRank, tier, message.eventId, { kind: 'removed', blockHashes: raw.blockHashes }, null))
      } else {
        this.#namespaces.cleared(dpRank)
        events.push(this.#event(dpRank, tier, message.eventId, { kind: 'cleared' }, null))
      }
    }
    return events
  }

  #drop(reason: DropReason): void {
    this.#dropped.set(reason, (this.#dropped.get(reason) ?? 0) + 1)
  }

  #event(dpRank: number, storageTier: StorageTier, eventId: bigint, data: KvEventData, sessionId: string | null): RouterEvent {
    const event: RouterEvent = { workerId: this.#settings.workerId, dpRank, storageTier, residencyDomain: 'worker', eventId, data }
    return sessionId === null ? event : { ...event, sessionId }
  }

  #convertStored(raw: RawStored, cacheNamespace: string | null): KvEventData {
    // A chain that meets itself would make a cycle; it is published as nothing.
    if (hasRepeatedHash(raw.blockHashes, raw.parentHash)) return { kind: 'removed', blockHashes: noHashes }
    const { blockSize } = this.#settings
    const offered = hashCount(raw.blockHashes)
    const window = blockSize + (raw.isEagle ? 1 : 0)
    const complete = raw.tokens.length < window ? 0 : Math.floor((raw.tokens.length - window) / blockSize) + 1
    const count = raw.blockSize === blockSize ? Math.min(offered, complete) : 0
    this.#refusedBlocks += offered - count
    const mmInfos = raw.mmInfos?.slice(0, count) ?? null
    return {
      kind: 'stored', parentHash: raw.parentHash, startPosition: null,
      blockHashes: count === offered ? raw.blockHashes : raw.blockHashes.slice(0, 2 * count),
      tokensHashes: this.#tokensHashes(raw, cacheNamespace, count, mmInfos),
      mmInfos: mmInfos?.some((info) => info !== null) === true ? padded(mmInfos, count) : null,
    }
  }

  #tokensHashes(raw: RawStored, cacheNamespace: string | null, count: number, mmInfos: readonly (BlockMmInfo | null)[] | null): HashList {
    const { blockSize, imageTokenId = null, videoTokenId = null } = this.#settings
    if (count === 0) return noHashes
    const window = blockSize + (raw.isEagle ? 1 : 0)
    const options = { blockSize, isEagle: raw.isEagle, loraName: raw.loraName, cacheNamespace }
    const tokens = raw.tokens.subarray(0, (count - 1) * blockSize + window)
    const hashes = localBlockHashes(tokens, { ...options, blockMmInfos: mmInfos })
    if (mmInfos === null || (imageTokenId === null && videoTokenId === null)) return hashes
    mmInfos.forEach((info, block) => {
      if (info === null || info.mmObjects.length === 0) return
      const content = tokens.subarray(block * blockSize, block * blockSize + window)
      const mmHashes = info.mmObjects.map((object) => object.mmHash)
      const replaced = videoTokenId === null
        ? withImagePads(content, imageTokenId, mmHashes)
        : withMediaPads(content, imageTokenId, videoTokenId, mmHashes)
      if (replaced !== null) hashes.set(localBlockHashes(replaced, options), 2 * block)
    })
    return hashes
  }
}

/** Disk and external events carry no namespaces. */
const isTracked = (tier: StorageTier): boolean => tier === 'device' || tier === 'host_pinned'

function padded(infos: readonly (BlockMmInfo | null)[], count: number): (BlockMmInfo | null)[] {
  return Array.from({ length: count }, (_, block) => infos[block] ?? null)
}

function hasRepeatedHash(hashes: HashList, parentHash: bigint | null): boolean {
  const count = hashCount(hashes)
  if (count === 0 || (count === 1 && parentHash === null)) return false
  const seen = new Set<bigint>()
  if (parentHash !== null) seen.add(parentHash)
  for (let index = 0; index < hashes.length; index += 2) {
    seen.add((BigInt(hashes[index + 1] as number) << 32n) | BigInt(hashes[index] as number))
  }
  return seen.size !== count + (parentHash === null ? 0 : 1)
}

/** Every run of image tokens becomes the pad of the next object, the last one for surplus runs; null without any run. */
function withImagePads(tokens: Uint32Array, imageTokenId: number | null, mmHashes: readonly bigint[]): Uint32Array | null {
  if (imageTokenId === null || !tokens.includes(imageTokenId)) return null
  const result = tokens.slice()
  let run = -1
  tokens.forEach((token, index) => {
    if (token !== imageTokenId) return
    if (index === 0 || tokens[index - 1] !== imageTokenId) run += 1
    result[index] = padToken(mmHashes[Math.min(run, mmHashes.length - 1)] as bigint)
  })
  return result
}

/** As `withImagePads`, with videos of several runs; null unless runs and objects match one to one. */
function withMediaPads(tokens: Uint32Array, imageTokenId: number | null, videoTokenId: number, mmHashes: readonly bigint[]): Uint32Array | null {
  if (imageTokenId === videoTokenId) return null
  const result = tokens.slice()
  let objectCount = 0
  let previousRun: number | null = null
  tokens.forEach((token, index) => {
    if (token !== imageTokenId && token !== videoTokenId) return
    const continues = index > 0 && tokens[index - 1] === token
    if (!continues && (token === imageTokenId || previousRun !== videoTokenId)) objectCount += 1
    previousRun = token
    if (objectCount <= mmHashes.length) result[index] = padToken(mmHashes[objectCount - 1] as bigint)
  })
  return objectCount > 0 && objectCount === mmHashes.length ? result : null
}
