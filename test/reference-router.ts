/**
 * A router of plain objects: slow and obviously right, the oracle of the property tests. Not for production.
 *
 * It knows events, decisions as assumed or predicted blocks, loads, eligibility and costs; it never chooses, but says what is acceptable.
 */
import { localBlockHashes, sequenceHashes } from '../src/hashing/block-hashes.ts'
import { createOverlapScores } from '../src/index/overlap-scores.ts'
import { ReferenceIndex } from '../src/index/reference-index.ts'
import { hashesToBigints } from '../src/model/hash-list.ts'
import type { ApplyStatus, RouterEvent } from '../src/model/kv-event.ts'
import type { RoutingRequest } from '../src/model/routing-request.ts'
import type { WorkerDescription, WorkerId, WorkerRank } from '../src/model/worker.ts'
import type { SharedCache } from '../src/ports.ts'
import { referenceAcceptable, referenceScores, referenceTwoTier } from '../src/scheduling/reference-selector.ts'
import type { ReferenceRank, ReferenceScore } from '../src/scheduling/reference-selector.ts'
import type { RouterSettings } from '../src/router/contract.ts'

interface PlainBooking {
  readonly rank: string
  readonly sequence: readonly bigint[]
  prefillTokens: number
  outputBlocks: number
}

const keyOf = ({ workerId, dpRank }: WorkerRank): string => `${workerId}.${dpRank}`

export class ReferenceRouter {
  readonly #settings: RouterSettings
  readonly #sharedCache: SharedCache | undefined
  readonly #workers = new Map<WorkerId, WorkerDescription>()
  /** Slots are never used again here. */
  readonly #slots = new Map<string, number>()
  #nextSlot = 0
  /** Stands for a block that no other request has. */
  #nextOwn = 1n
  readonly #index: ReferenceIndex
  readonly #predicted: ReferenceIndex | null
  readonly #bookings = new Map<string, PlainBooking>()

  constructor(settings: RouterSettings, sharedCache?: SharedCache) {
    this.#settings = settings
    this.#sharedCache = sharedCache
    this.#index = new ReferenceIndex({ ttlMs: 1000 * settings.ttlSeconds })
    this.#predicted = settings.predictedTtlSeconds === null ? null : new ReferenceIndex({ ttlMs: 1000 * settings.predictedTtlSeconds })
  }

  upsertWorker(worker: WorkerDescription): void {
    const before = this.#workers.get(worker.workerId)
    this.#workers.set(worker.workerId, worker)
    const kept = new Set(ranksOf(worker).map(keyOf))
    for (const rank of before === undefined ? [] : ranksOf(before)) if (!kept.has(keyOf(rank))) this.#forget(keyOf(rank))
    for (const key of kept) if (!this.#slots.has(key)) this.#slots.set(key, this.#nextSlot++)
  }

  removeWorker(workerId: WorkerId): void {
    const worker = this.#workers.get(workerId)
    this.#workers.delete(workerId)
    for (const rank of worker === undefined ? [] : ranksOf(worker)) this.#forget(keyOf(rank))
  }

  #forget(key: string): void {
    const slot = this.#slots.get(key)
    this.#slots.delete(key)
    for (const [id, booking] of this.#bookings) if (booking.rank === key) this.#bookings.delete(id)
    if (slot === undefined) return
    this.#index.dropRank(slot)
    this.#predicted?.dropRank(slot)
  }

  applyEvent(event: RouterEvent): ApplyStatus {
    const slot = this.#slots.get(keyOf(event))
    if (slot === undefined || !this.#settings.useKvEvents) return 'invalid_block'
    return this.#index.apply(slot, event.storageTier, event.data)
  }

  /** Eligible ranks with their costs, by worker id, then rank; cost 0 or 1 under the policy of two tiers. */
  scores(request: RoutingRequest): ReferenceScore[] {
    const { settings, ranks } = { settings: this.#settings, ranks: this.#ranks(request) }
    const policy = settings.selectionPolicy
    const trackPrefillTokens = request.override?.trackPrefillTokens ?? settings.trackPrefillTokens
    const plain = { ...request, promptTokens: request.tokens.length, trackPrefillTokens }
    const parameters = policy?.type === 'dynamo-default-cost-fn' ? policy.parameters : {}
    const sharedCacheMultiplier = this.#sharedCache === undefined ? 0 : settings.sharedCacheMultiplier ?? 0.5
    const role = settings.role === 'encode' ? 'aggregated' : settings.role
    const pool = { weights: { ...settings, sharedCacheMultiplier, ...parameters }, hitWeights: settings, blockSize: settings.blockSize, role }
    const pinned = request.pin === undefined ? ranks : ranks.filter((rank) => rank.workerId === request.pin?.workerId && rank.dpRank === request.pin.dpRank)
    const there = referenceScores(pinned, plain, pool).map(({ rank }) => rank)
      .filter((rank) => rank.workerId === request.affinity?.workerId && (request.affinity.dpRank ?? rank.dpRank) === rank.dpRank)
    const considered = there.length > 0 && policy?.type !== 'dynamo-two-tier-cost-fn' ? there : pinned
    return policy?.type === 'dynamo-two-tier-cost-fn' ? referenceTwoTier(considered, plain, settings.blockSize, policy.parameters) : referenceScores(considered, plain, pool)
  }

  /** Ranks any of which may be chosen. */
  acceptable(request: RoutingRequest): string[] {
    return referenceAcceptable(this.scores(request)).map(({ rank }) => keyOf(rank))
  }

  /** Takes over a choice: books it and remembers the prompt where that is done. */
  book(request: RoutingRequest, rank: WorkerRank, nowMs: number): void {
    const settings = this.#settings
    const slot = this.#slots.get(keyOf(rank))!
    const local = this.#local(request)
    const shares = request.override?.assumeKvReuse ?? settings.assumeKvReuse
    const cached = this.#cachedTokens(request, slot)
    const tracked = request.override?.trackPrefillTokens ?? settings.trackPrefillTokens
    const blocks = hashesToBigints(sequenceHashes(local))
    this.#bookings.set(request.requestId, {
      rank: keyOf(rank), outputBlocks: 0, prefillTokens: tracked ? request.tokens.length - Math.min(cached, request.tokens.length) : 0,
      sequence: !settings.trackActiveBlocks ? [] : shares ? blocks : blocks.map(() => -(this.#nextOwn++)),
    })
    if (local.length === 0) return
    const index = settings.useKvEvents ? this.#predicted : this.#index
    index?.record(slot, local, sequenceHashes(local), nowMs)
  }

  prefillCompleted(requestId: string): boolean {
    const booking = this.#bookings.get(requestId)
    if (booking !== undefined) booking.prefillTokens = 0
    return booking !== undefined
  }

  outputBlock(requestId: string): boolean {
    const booking = this.#bookings.get(requestId)
    if (booking !== undefined) booking.outputBlocks += 1
    return booking !== undefined
  }

  free(requestId: string): boolean {
    return this.#bookings.delete(requestId)
  }

  expire(nowMs: number): void {
    this.#index.expire(nowMs)
    this.#predicted?.expire(nowMs)
  }

  get bookingCount(): number {
    return this.#bookings.size
  }

  /** Whether a request is booked. */
  has(requestId: string): boolean {
    return this.#bookings.has(requestId)
  }

  #local(request: RoutingRequest) {
    const { blockSize, isEagle } = this.#settings
    return localBlockHashes(request.tokens, { blockSize, isEagle, loraName: request.loraName, cacheNamespace: request.cacheNamespace, blockMmInfos: request.blockMmInfos })
  }

  /** Device, host and disk blocks of a slot. */
  #tiers(request: RoutingRequest): (slot: number) => readonly [number, number, number] {
    const { settings, local } = { settings: this.#settings, local: this.#local(request) }
    if (settings.role === 'decode' && settings.selectionPolicy?.type !== 'dynamo-two-tier-cost-fn') return () => [0, 0, 0]
    const [reported, predicted] = [createOverlapScores(0), createOverlapScores(0)]
    this.#index.find(local, reported)
    this.#predicted?.find(local, predicted)
    return (slot) => [Math.max(reported.device[slot] ?? 0, predicted.device[slot] ?? 0), reported.host[slot] ?? 0, reported.disk[slot] ?? 0]
  }

  #cachedTokens(request: RoutingRequest, slot: number): number {
    const [device, host, disk] = this.#tiers(request)(slot)
    return Math.round((device + this.#settings.hostCacheHitWeight * host + this.#settings.diskCacheHitWeight * disk) * this.#settings.blockSize)
  }

  #ranks(request: RoutingRequest): ReferenceRank[] {
    const workers = [...this.#workers.values()].sort((a, b) => (a.workerId < b.workerId ? -1 : 1))
    const withAdapter = workers.filter(({ loraNames }) => loraNames?.includes(request.loraName ?? '') === true)
    const tiers = this.#tiers(request)
    const preferred = request.pin === undefined && this.#anyEligible(withAdapter, request) ? withAdapter : workers
    return preferred.flatMap((worker) => ranksOf(worker).map((rank) => this.#rankOf(worker, rank, request, tiers(this.#slots.get(keyOf(rank))!))))
  }

  #anyEligible(workers: readonly WorkerDescription[], request: RoutingRequest): boolean {
    return workers.some(({ workerId, taints, dpStart, dpSize }) => (request.allowedWorkerIds?.has(workerId) ?? true) && !(request.excludedWorkerIds?.has(workerId) ?? false) &&
      (request.requiredTaints ?? []).every((taint) => taints.includes(taint)) && (request.dpRank === undefined || (request.dpRank >= dpStart && request.dpRank < dpStart + dpSize)))
  }

  #rankOf(worker: WorkerDescription, rank: WorkerRank, request: RoutingRequest, [deviceBlocks, hostBlocks, diskBlocks]: readonly [number, number, number]): ReferenceRank {
    const settings = this.#settings
    const own = [...this.#bookings.values()].filter((booking) => booking.rank === keyOf(rank))
    const paths = new Set(own.flatMap(({ sequence }) => sequence.map((_, depth) => sequence.slice(0, depth + 1).join())))
    const blocks = hashesToBigints(sequenceHashes(this.#local(request)))
    const shares = settings.trackActiveBlocks && (request.override?.assumeKvReuse ?? settings.assumeKvReuse)
    const isNew = blocks.filter((_, depth) => !shares || !paths.has(blocks.slice(0, depth + 1).join())).length
    const shared = this.#sharedCache?.hits({ ...request, blockSize: settings.blockSize })
    return {
      ...rank, taints: worker.taints, deviceBlocks, hostBlocks, diskBlocks,
      sharedBlocks: (shared?.ranges ?? []).flatMap(([start, end]) => Array.from({ length: end - start }, (_, index) => start + index)).filter((position) => position >= deviceBlocks).length,
      activePrefillTokens: own.reduce((sum, booking) => sum + booking.prefillTokens, 0),
      activeRequests: own.length,
      potentialDecodeBlocks: paths.size + own.reduce((sum, booking) => sum + booking.outputBlocks, 0) + (settings.trackActiveBlocks ? isNew : 0),
    }
  }
}

const ranksOf = (worker: WorkerDescription): WorkerRank[] =>
  Array.from({ length: worker.dpSize }, (_, index) => ({ workerId: worker.workerId, dpRank: worker.dpStart + index }))
