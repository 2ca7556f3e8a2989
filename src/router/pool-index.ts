/** What a pool's ranks hold as the router knows it: by their events, by its own decisions, or by both. Source: router-algorithm 4 to 6. */
import type { ApproximatePrefixIndex, OverlapScores } from '../index/contract.ts'
import { CapacityBound, type BoundState } from '../index/capacity-bound.ts'
import { createOverlapScores } from '../index/overlap-scores.ts'
import { createPrefixIndex } from '../index/prefix-index.ts'
import type { HashList } from '../model/hash-list.ts'
import type { ApplyStatus, KvEventData, StorageTier } from '../model/kv-event.ts'
import type { RankSlot } from '../model/worker.ts'
import type { OverlapQuery } from './contract.ts'
import { GrowingPrompts } from './growing-prompts.ts'
import { readRemoteOverlap, type RemoteOverlap } from './remote-overlap.ts'
import type { WorkerDirectory } from './worker-directory.ts'

export type IndexMode = 'events' | 'approximate'

/** How blocks that the router assumes age. */
export interface PoolIndexSettings {
  readonly blockSize: number
  readonly isEagle: boolean
  readonly ttlSeconds: number
  /** Null: blocks of ranks with events count when their event arrives. */
  readonly predictedTtlSeconds: number | null
  /** `lru`: assumed blocks of a rank that advertises its capacity stay until room is needed; of others by time. */
  readonly approximateCachePolicy: 'ttl' | 'lru'
  /** Bytes that the index may reserve; left out or null: no budget. */
  readonly indexMemoryBytes?: number | null
  /** Most assumed blocks of all ranks that age by time; null: no bound. */
  readonly maxTreeSize: number | null
  /** Share of `maxTreeSize` that pruning leaves. */
  readonly pruneTargetRatio: number
}

/** A prompt that was booked on a rank. */
export interface BookedPrompt {
  readonly requestId: string
  readonly slot: RankSlot
  readonly query: OverlapQuery
  readonly local: HashList
  /** Public sequence hashes. */
  readonly sequence: HashList
  /** False: nobody will tell when the request ends. */
  readonly isTracked: boolean
}

/** Ranks that are bounded by their capacity (`approximateCachePolicy` lru), and those that cannot be. */
export interface BoundedRanks extends BoundState {
  /** Copies given up, and how often some were. */
  readonly evicted: number
  readonly evictions: number
  /** How often a live request got further complete blocks. */
  readonly extensions: number
  /** Ranks whose capacity is not known: their blocks age by time; and how often a rank became one. */
  readonly agingRanks: number
  readonly agings: number
}

/**
 * The prefix index of a pool and, beside it, the blocks that were routed to ranks with events but not yet reported.
 *
 * A predicted block counts on the device until its time is over; tiers below go on from the reported blocks alone.
 */
export class PoolIndex {
  readonly #main: ApproximatePrefixIndex
  readonly #lifeMs: number
  readonly #predicted: ApproximatePrefixIndex | null
  readonly #predictedScores: OverlapScores = createOverlapScores(16)
  /** Ranks fed by routing decisions. */
  readonly #approximate = new Set<RankSlot>()
  readonly #bound: CapacityBound | null
  readonly #growing: GrowingPrompts | null
  readonly #blockSize: number
  readonly #pruneAbove: number
  readonly #pruneTo: number
  readonly #remote: { readonly overlap: RemoteOverlap; readonly directory: WorkerDirectory } | null
  /** Assumed blocks given up because there were more than `maxTreeSize`. */
  prunedCount = 0
  #restored = 0
  /** Ranks without a known capacity where others are bounded by theirs: their blocks age. */
  readonly #aging = new Set<RankSlot>()
  #agingCount = 0

  /** `remote`: what another index found, instead of what this one would. */
  constructor(settings: PoolIndexSettings, remote: { readonly overlap: RemoteOverlap; readonly directory: WorkerDirectory } | null = null) {
    this.#remote = remote
    this.#blockSize = settings.blockSize
    this.#pruneAbove = settings.maxTreeSize ?? Infinity
    this.#pruneTo = Math.floor((settings.maxTreeSize ?? 0) * settings.pruneTargetRatio)
    const isBounded = settings.approximateCachePolicy === 'lru'
    this.#bound = isBounded ? new CapacityBound((slot, blockHashes) => { this.#main.apply(slot, 'device', { kind: 'removed', blockHashes }) }) : null
    this.#growing = isBounded ? new GrowingPrompts(settings) : null
    const bytesMax = settings.indexMemoryBytes ?? Infinity
    this.#lifeMs = 1000 * settings.ttlSeconds
    this.#main = createPrefixIndex({ ttlMs: this.#lifeMs, bytesMax })
    this.#predicted = settings.predictedTtlSeconds === null ? null : createPrefixIndex({ ttlMs: 1000 * settings.predictedTtlSeconds, bytesMax })
  }

  isApproximate(slot: RankSlot): boolean {
    return this.#approximate.has(slot)
  }

  /** Ranks fed by routing decisions. */
  get approximateCount(): number {
    return this.#approximate.size
  }

  /** Changes how a rank is fed and forgets its blocks; false when it is fed so already. */
  setMode(slot: RankSlot, mode: IndexMode): boolean {
    if (this.#approximate.has(slot) === (mode === 'approximate')) return false
    this.clear(slot)
    if (mode === 'approximate') this.#approximate.add(slot)
    else this.#approximate.delete(slot)
    return true
  }

  /** One event of a rank that is fed by events. What was routed and not yet reported stays, as in the original: events know nothing of it. */
  apply(slot: RankSlot, tier: StorageTier, data: KvEventData): ApplyStatus {
    return this.#main.apply(slot, tier, data)
  }

  /** Overlap of a prompt with every rank. */
  find(local: HashList, scores: OverlapScores): void {
    if (this.#remote === null) this.#main.find(local, scores)
    else readRemoteOverlap(this.#remote.overlap, this.#remote.directory, scores)
    if (this.#predicted !== null && this.#predicted.entryCount > 0) this.#addPredicted(this.#predicted, local, scores)
  }

  #addPredicted(index: ApproximatePrefixIndex, local: HashList, scores: OverlapScores): void {
    const predicted = this.#predictedScores
    index.find(local, predicted)
    growScores(scores, predicted.slotCount)
    for (let slot = 0; slot < predicted.slotCount; slot++) {
      if (predicted.device[slot]! > scores.device[slot]!) scores.device[slot] = predicted.device[slot]!
    }
  }

  /** Whether `record` has any use for a prompt that goes to this rank. */
  wantsRecord(slot: RankSlot): boolean {
    return this.#predicted !== null || (this.#approximate.has(slot) && (this.#remote === null || this.#remote.overlap.record !== undefined))
  }

  /** Whether generated tokens are of use: blocks of the output are assumed, too. */
  get wantsOutputTokens(): boolean {
    return this.#bound !== null
  }

  /** The capacity of a rank, in blocks; null or 0: unknown. Without one, or once without one, a rank's blocks age by time. */
  setCapacity(slot: RankSlot, blocks: number | null): void {
    if (this.#bound === null) return
    if (blocks !== null && blocks > 0) {
      if (this.#bound.has(slot) || this.#main.blockCount(slot, 'device') === 0) this.#bound.bind(slot, blocks)
    } else if (this.#bound.has(slot)) {
      this.clear(slot)
      this.#bound.drop(slot)
    }
    if (this.#bound.has(slot)) this.#aging.delete(slot)
    else if (!this.#aging.has(slot)) {
      this.#aging.add(slot)
      this.#agingCount += 1
    }
  }

  /** What ranks hold that are bounded by their capacity; null: none are to be. */
  get bounded(): BoundedRanks | null {
    const bound = this.#bound
    if (bound === null) return null
    return {
      ...bound.state, evicted: bound.evictedCount, evictions: bound.evictionCount, extensions: bound.extensionCount,
      agingRanks: this.#aging.size, agings: this.#agingCount,
    }
  }

  /** Notes that a prompt was routed to a rank. */
  record(prompt: BookedPrompt, nowMs: number): void {
    const { slot, local, sequence } = prompt
    if (this.#remote !== null) this.#remote.overlap.record?.(this.#remote.directory.rankOf(slot), local, sequence)
    if (this.#remote !== null || !this.#approximate.has(slot)) this.#predicted?.record(slot, local, sequence, nowMs)
    else if (this.#bound?.has(slot) === true) this.#lease(prompt, this.#bound)
    else {
      this.#main.record(slot, local, sequence, nowMs)
      if (this.#main.recordedCount > this.#pruneAbove) this.prunedCount += this.#main.prune(this.#pruneTo)
    }
  }

  #lease({ requestId, slot, query, local, sequence, isTracked }: BookedPrompt, bound: CapacityBound): void {
    const status = this.#main.apply(slot, 'device', storedOf(null, local, sequence))
    if (status !== 'ok') return
    const alone = Math.max(0, Math.ceil(query.tokens.length / this.#blockSize) - sequence.length / 2)
    bound.lease(requestId, slot, sequence, alone)
    if (isTracked) this.#growing?.begin(requestId, query, sequence)
    else bound.release(requestId)
  }

  /** Generated tokens of a booked request. */
  grow(requestId: string, tokens: readonly number[]): void {
    const slot = this.#bound?.slotOf(requestId) ?? -1
    if (slot < 0) return
    const grown = this.#growing?.append(requestId, tokens) ?? null
    if (grown === null) return
    const status = this.#main.apply(slot, 'device', storedOf(grown.parentHash, grown.local, grown.sequence))
    if (status === 'ok') this.#bound?.extend(requestId, grown.sequence, grown.begun)
  }

  /** A booked request is over. */
  release(requestId: string): void {
    if (this.#bound === null) return
    this.#growing?.end(requestId)
    this.#bound.release(requestId)
  }

  /** Blocks of a prompt that was routed to an approximate rank at `sinceMs`, by a router before this one. */
  assume(slot: RankSlot, local: HashList, sequence: HashList, sinceMs: number): boolean {
    if (this.#bound?.has(slot) !== true) return this.#main.record(slot, local, sequence, sinceMs) === 'ok'
    this.#restored += 1
    const requestId = `restored ${this.#restored}`
    if (this.#main.apply(slot, 'device', storedOf(null, local, sequence)) !== 'ok') return false
    this.#bound.lease(requestId, slot, sequence, 0)
    this.#bound.release(requestId)
    return true
  }

  /** Forgets all blocks of a rank, reported and assumed. */
  clear(slot: RankSlot): void {
    this.#main.dropRank(slot)
    this.#predicted?.dropRank(slot)
    this.#bound?.clear(slot)
  }

  /** Forgets a rank for good: its slot may be used again. */
  drop(slot: RankSlot): void {
    this.clear(slot)
    this.#bound?.drop(slot)
    this.#aging.delete(slot)
    this.#approximate.delete(slot)
  }

  /** Forgets assumed blocks whose time is over. */
  expire(nowMs: number): void {
    this.#main.expire(nowMs)
    this.#predicted?.expire(nowMs)
  }

  /** A rank's own names of the leading blocks of a prompt that it holds on the device and in host memory; without what is only predicted. */
  prefixNames(slot: RankSlot, local: HashList): HashList {
    return this.#main.prefixNames(slot, local)
  }

  /** Stored events of a rank, parents before children; without what is only predicted. */
  dump(slot: RankSlot): ReturnType<ApproximatePrefixIndex['dump']> {
    return this.#main.dump(slot)
  }

  /** When assumed blocks of a rank end; null: they do not age by time. See `recordedEnds` of the index. */
  recordedEnds(slot: RankSlot, lists: readonly HashList[]): Float64Array[] | null {
    return this.#bound?.has(slot) === true ? null : this.#main.recordedEnds(slot, lists)
  }

  /** How long assumed blocks live. Units: ms. */
  get lifeMs(): number {
    return this.#lifeMs
  }

  deviceBlocks(slot: RankSlot): number {
    return this.#main.blockCount(slot, 'device')
  }

  get entryCount(): number {
    return this.#main.entryCount + (this.#predicted?.entryCount ?? 0)
  }

  /** Assumed blocks given up because a rank was over its capacity. */
  get evictedCount(): number {
    return this.#bound?.evictedCount ?? 0
  }

  get bytesReserved(): number {
    return this.#main.bytesReserved + (this.#bound?.bytesReserved ?? 0) + (this.#predicted?.bytesReserved ?? 0)
  }

  /** (rank, block) pairs forgotten because the index had used up its memory. */
  get memoryEvictions(): number {
    return this.#main.evictedCount + (this.#predicted?.evictedCount ?? 0)
  }

  get capacityRefusals(): number {
    return this.#main.capacityRefusals + (this.#predicted?.capacityRefusals ?? 0)
  }
}

const storedOf = (parentHash: bigint | null, tokensHashes: HashList, blockHashes: HashList): KvEventData =>
  ({ kind: 'stored', parentHash, startPosition: null, blockHashes, tokensHashes, mmInfos: null })

/** Makes room for slots that only the predicted index has reached; values in use stay. */
function growScores(scores: OverlapScores, slotCount: number): void {
  if (scores.slotCount >= slotCount) return
  if (scores.device.length < slotCount) {
    for (const name of ['device', 'host', 'disk'] as const) {
      const grown = new Uint32Array(2 * slotCount)
      grown.set(scores[name].subarray(0, scores.slotCount))
      scores[name] = grown
    }
  }
  for (const name of ['device', 'host', 'disk'] as const) scores[name].fill(0, scores.slotCount, slotCount)
  scores.slotCount = slotCount
}
