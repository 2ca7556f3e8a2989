/**
 * What a worker tells of one rank's KV cache: blocks stored, removed, all cleared; said by the engine's program, or read from its event socket.
 *
 * A block stored twice is removed for routers when it was removed twice, as engines count. Events are normalised, merged and numbered
 * as Dynamo does it; routers that missed some ask the recovery endpoint.
 */
import { createKvEventPublisher, type KvEventPublisher as Publisher } from '../dynamo/kv-state/kv-event-publisher.ts'
import { PublisherPipeline } from '../kv-events/publisher-pipeline.ts'
import { RawEventNormaliser } from '../kv-events/raw-event-normaliser.ts'
import type { RawEvent, RawEventBatch, RawPlacement } from '../kv-events/raw-event.ts'
import { hashCount, hashListOf, type HashList } from '../model/hash-list.ts'
import type { BlockMmInfo } from '../model/kv-event.ts'
import type { Endpoint } from './endpoint.ts'
import { followEngineEvents, type EngineEventsFollower, type EngineEventsStats } from './engine-events.ts'
import { ArgumentError } from './errors.ts'

export interface KvEventPublisherOptions {
  /** The worker endpoint. */
  readonly endpoint: Endpoint
  /** Tokens per block; blocks of another size are not published. */
  readonly kvBlockSize: number
  /** Default 0. */
  readonly dpRank?: number
  /** Routers may ask for what they missed. False: a router that misses an event forgets the rank. Default true. */
  readonly enableLocalIndexer?: boolean
  /** The engine's event socket, such as `tcp://127.0.0.1:5557`; then nothing is published by hand. */
  readonly zmqEndpoint?: string
  /** Topic of that socket. Default: all. */
  readonly zmqTopic?: string
  /** Placeholder tokens of images and videos, for routing by their content. */
  readonly imageTokenId?: number
  readonly videoTokenId?: number
}

/** 64-bit block hashes; negative values are taken as two's complement. */
export type BlockHashes = readonly (bigint | number)[] | BigUint64Array | BigInt64Array

/** A chain of blocks that the rank now holds. */
export interface StoredEvent {
  /** The tokens of all blocks, one block after the other. */
  readonly tokenIds: Uint32Array | readonly number[]
  /** Tokens of each block. Default: the publisher's block size for all. */
  readonly numBlockTokens?: readonly number[]
  /** The engine's own hash of each block. */
  readonly blockHashes: BlockHashes
  /** The engine's hash of the block before the first. */
  readonly parentHash?: bigint | number | null
  readonly blockMmInfos?: readonly (BlockMmInfo | null)[] | null
  readonly loraName?: string | null
  /** Blocks overlap by one token: `tokenIds` has one more at the end. */
  readonly isEagle?: boolean
  readonly cacheSalt?: string | null
}

/** One event of a batch. */
export type KvEventInput =
  | ({ readonly type: 'stored' } & StoredEvent)
  | { readonly type: 'removed'; readonly blockHashes: BlockHashes }
  | { readonly type: 'cleared' }

/** Plain counters. */
export interface KvPublisherStats {
  /** Events that routers were told. */
  readonly events: number
  /** Blocks not published: another size, or too few tokens. */
  readonly refusedBlocks: number
  /** Of the engine's socket; null without one. */
  readonly engine: EngineEventsStats | null
}

const place = 'KvEventPublisher'

export class KvEventPublisher {
  readonly #publisher: Publisher
  readonly #options: KvEventPublisherOptions
  readonly #dpRank: number
  readonly #normaliser: RawEventNormaliser
  readonly #pipeline = new PublisherPipeline()
  #engine: EngineEventsFollower | null = null
  #closed = false

  private constructor(publisher: Publisher, options: KvEventPublisherOptions) {
    const { endpoint, kvBlockSize, imageTokenId = null, videoTokenId = null } = options
    this.#publisher = publisher
    this.#options = options
    this.#dpRank = options.dpRank ?? 0
    this.#normaliser = new RawEventNormaliser({ workerId: endpoint.connectionId(), blockSize: kvBlockSize, imageTokenId, videoTokenId })
  }

  /** Registers the source of one rank; it ends with the runtime. Errors: `ArgumentError`; event plane, discovery. */
  static async create(options: KvEventPublisherOptions): Promise<KvEventPublisher> {
    const { endpoint, kvBlockSize, dpRank = 0, zmqEndpoint, enableLocalIndexer = true } = options
    if (!Number.isInteger(kvBlockSize) || kvBlockSize < 1) throw new ArgumentError(place, 'kvBlockSize', kvBlockSize, 'give the tokens of one block, a whole number from 1')
    if (!Number.isInteger(dpRank) || dpRank < 0 || dpRank > 4_294_967_295) throw new ArgumentError(place, 'dpRank', dpRank, 'give a rank, a whole number from 0')
    if (zmqEndpoint !== undefined && !/^(tcp|ipc|inproc):\/\/./.test(zmqEndpoint)) throw new ArgumentError(place, 'zmqEndpoint', zmqEndpoint, 'give an address such as tcp://127.0.0.1:5557')
    const { runtime } = endpoint
    const { server, codec } = runtime.servingParts
    const publisher = await createKvEventPublisher({
      plane: runtime.eventPlane, discovery: runtime.discovery, log: runtime.log, endpoint: endpoint.id, rank: { workerId: runtime.instanceId, dpRank },
      server: enableLocalIndexer ? server : null, codec,
    })
    const made = new KvEventPublisher(publisher, options)
    endpoint.onClose(() => made.shutdown())
    if (zmqEndpoint !== undefined) {
      made.#engine = await followEngineEvents({ address: zmqEndpoint, topic: options.zmqTopic ?? '', log: runtime.log, sink: (batch) => made.#take(batch) })
    }
    return made
  }

  /** The id under which routers know this source. */
  get publisherId(): bigint {
    return this.#publisher.publisherId
  }

  get stats(): KvPublisherStats {
    return { events: this.#publisher.stats.events, refusedBlocks: this.#normaliser.refusedBlocks, engine: this.#engine?.stats ?? null }
  }

  /** The rank now holds these blocks. Errors: `ArgumentError` when the lists do not fit each other. */
  publishStored(event: StoredEvent): void {
    this.publishBatch([{ type: 'stored', ...event }])
  }

  /** The rank holds these blocks no more. */
  publishRemoved(blockHashes: BlockHashes): void {
    this.publishBatch([{ type: 'removed', blockHashes }])
  }

  /** The rank holds nothing any more. */
  allBlocksCleared(): void {
    this.publishBatch([{ type: 'cleared' }])
  }

  /** Several events in order, checked before any is published; neighbours are merged. */
  publishBatch(events: readonly KvEventInput[]): void {
    if (this.#options.zmqEndpoint !== undefined) throw new ArgumentError(place, 'zmqEndpoint', this.#options.zmqEndpoint, 'this publisher reads the engine\'s socket; make one without it to publish by hand')
    const raw = events.map((event, index) => rawEvent(event, this.#options.kvBlockSize, events.length === 1 ? '' : `[${index}]`))
    this.publishRaw(raw)
  }

  /** Events as engines emit them, of this rank. For engines that run in this process. */
  publishRaw(events: readonly RawEvent[]): void {
    this.#take({ dpRank: this.#dpRank, events })
  }

  /** Takes the source back: routers drop what they know of the rank. */
  async shutdown(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await this.#engine?.close()
    await this.#publisher.close()
  }

  #take(batch: RawEventBatch): void {
    // One engine may tell of all its ranks on one socket; each rank has a publisher of its own.
    if (this.#closed || (batch.dpRank !== null && batch.dpRank !== this.#dpRank)) return
    const changes = this.#pipeline.push(this.#normaliser.normalise(batch, { eventId: 0n, defaultDpRank: this.#dpRank }))
    if (changes.length > 0) this.#publisher.publish(changes)
  }
}

const device: RawPlacement = { medium: null, locality: null, ownership: null, groupIndex: null, attentionKind: null }

function rawEvent(event: KvEventInput, blockSize: number, at: string): RawEvent {
  switch (event.type) {
    case 'stored': return rawStored(event, blockSize, at)
    case 'removed': return { kind: 'removed', ...device, blockHashes: hashesOf(event.blockHashes, `blockHashes${at}`) }
    case 'cleared': return { kind: 'cleared', ownership: null }
    default: throw new ArgumentError('publishBatch', `type${at}`, (event as { readonly type: unknown }).type, 'give stored, removed or cleared')
  }
}

function rawStored(event: StoredEvent, blockSize: number, at: string): RawEvent {
  const bad = (field: string, value: unknown, mend: string): ArgumentError => new ArgumentError('publishStored', `${field}${at}`, value, mend)
  const blockHashes = hashesOf(event.blockHashes, `blockHashes${at}`)
  const count = hashCount(blockHashes)
  const sizes = event.numBlockTokens
  if (sizes !== undefined && sizes.length !== count) throw bad('numBlockTokens', sizes.length, `there are ${count} blockHashes; give the tokens of each`)
  const isEagle = event.isEagle ?? false
  const tokens = tokensOf(event.tokenIds, bad)
  const needed = (sizes === undefined ? count * blockSize : sizes.reduce((sum, size) => sum + size, 0)) + (isEagle && count > 0 ? 1 : 0)
  if (tokens.length < needed) throw bad('tokenIds', `${tokens.length} tokens`, `${count} blocks have ${needed}`)
  // From the first block of another size on, nothing is published: the router's hashes speak of whole blocks.
  const odd = sizes?.findIndex((size) => size !== blockSize) ?? -1
  const { parentHash = null } = event
  return {
    kind: 'stored', ...device, blockHashes, tokens: odd < 0 ? tokens : tokens.subarray(0, odd * blockSize), blockSize, isEagle,
    parentHash: parentHash === null ? null : BigInt.asUintN(64, BigInt(parentHash)),
    loraName: event.loraName ?? null, cacheNamespace: event.cacheSalt ?? null, mmInfos: event.blockMmInfos ?? null, sessionId: null,
  }
}

function tokensOf(given: StoredEvent['tokenIds'], bad: (field: string, value: unknown, mend: string) => ArgumentError): Uint32Array {
  if (given instanceof Uint32Array) return given.slice()
  const wrong = given.find((token) => !Number.isInteger(token) || token < 0 || token > 4_294_967_295)
  if (wrong !== undefined) throw bad('tokenIds', wrong, 'give token ids from 0 to 4294967295')
  return Uint32Array.from(given)
}

function hashesOf(given: BlockHashes, field: string): HashList {
  const values: bigint[] = []
  for (const hash of given) {
    if (typeof hash === 'number' && !Number.isSafeInteger(hash)) throw new ArgumentError(place, field, hash, 'give bigints for hashes beyond 2^53')
    values.push(BigInt.asUintN(64, BigInt(hash)))
  }
  return hashListOf(values)
}
