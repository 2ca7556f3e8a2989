/** The prefix index of one pool: device tree, tiers below, and the clockwork of approximate ranks behind one contract. */
import type { HashList } from '../model/hash-list.ts'
import type { ApplyStatus, KvEventData, StorageTier, StoredBlocks } from '../model/kv-event.ts'
import type { RankSlot } from '../model/worker.ts'
import type { ApproximatePrefixIndex, OverlapScores, PrefixIndexOptions } from './contract.ts'
import { DeviceTree } from './device-tree.ts'
import { ExpiryQueue } from './expiry-queue.ts'
import { LowerTier } from './lower-tier.ts'
import { growOverlapScores } from './overlap-scores.ts'
import { OwnerSets } from './owner-sets.ts'

const defaultEntriesMax = 2 ** 26
const defaultTtlMs = 120_000
/** Share of the byte budget beyond which nothing is reserved any more: arrays grow by an eighth. */
const usableShare = 7 / 8
/** Blocks evicted at once at least, so that not every store has to. */
const evictionMin = 256
/** Stores between two looks at the bytes reserved. */
const storesPerLook = 16

export class TieredPrefixIndex implements ApproximatePrefixIndex {
  readonly #owners = new OwnerSets()
  readonly #device = new DeviceTree(this.#owners)
  readonly #host = new LowerTier(this.#owners)
  readonly #disk = new LowerTier(this.#owners)
  readonly #external = new LowerTier(this.#owners)
  readonly #expiries = new ExpiryQueue()
  readonly #entriesMax: number
  readonly #ttlMs: number
  readonly #bytesMax: number
  #storesUntilLook = 0
  #isBudgetUsed = false
  #slotCount = 0
  readonly #name = new Uint32Array(2)
  capacityRefusals = 0
  evictedCount = 0

  constructor(options: PrefixIndexOptions = {}) {
    this.#entriesMax = options.entriesMax ?? defaultEntriesMax
    this.#ttlMs = options.ttlMs ?? defaultTtlMs
    this.#bytesMax = usableShare * (options.bytesMax ?? Infinity)
  }

  get entryCount(): number {
    return this.#device.entryCount + this.#host.entryCount + this.#disk.entryCount + this.#external.entryCount
  }

  get bytesReserved(): number {
    return (
      this.#owners.bytesReserved + this.#device.bytesReserved + this.#host.bytesReserved + this.#disk.bytesReserved +
      this.#external.bytesReserved + this.#expiries.bytesReserved
    )
  }

  get recordedCount(): number {
    return this.#expiries.pairCount
  }

  /** Records kept for the entries: blocks of the trees and names apart from rule. 0 when no rank holds anything. */
  get recordCount(): number {
    return this.#device.recordCount + this.#host.recordCount + this.#disk.recordCount + this.#external.recordCount
  }

  apply(slot: RankSlot, tier: StorageTier, data: KvEventData): ApplyStatus {
    this.#slotCount = Math.max(this.#slotCount, slot + 1)
    if (data.kind === 'stored') return this.#stored(slot, tier, data.parentHash, data.blockHashes, data.tokensHashes)
    if (data.kind === 'cleared') {
      this.dropRank(slot)
      return 'ok'
    }
    if (tier === 'device') return this.#device.removed(slot, data.blockHashes)
    this.#tier(tier).removed(slot, data.blockHashes)
    return 'ok'
  }

  #tier(tier: Exclude<StorageTier, 'device'>): LowerTier {
    if (tier === 'host_pinned') return this.#host
    return tier === 'disk' ? this.#disk : this.#external
  }

  #stored(slot: RankSlot, tier: StorageTier, parentHash: bigint | null, hashes: HashList, locals: HashList): ApplyStatus {
    if (hashes.length !== locals.length) return 'invalid_block'
    const count = hashes.length >>> 1
    let status: ApplyStatus = 'capacity_exhausted'
    if (this.#isWithinBudget(slot, tier, parentHash, count) && this.entryCount + count <= this.#entriesMax && this.recordCount + count <= this.#entriesMax) {
      const target = tier === 'device' ? this.#device : this.#tier(tier)
      status = target.stored(slot, parentHash, hashes, locals)
    }
    if (status === 'capacity_exhausted') this.capacityRefusals += 1
    return status
  }

  /** Makes room on the device where the byte budget is used up; tiers below are refused more. */
  #isWithinBudget(slot: RankSlot, tier: StorageTier, parentHash: bigint | null, count: number): boolean {
    if (this.#bytesMax === Infinity) return true
    if (!this.#isBudgetUsed && this.#storesUntilLook <= 0) {
      this.#isBudgetUsed = this.bytesReserved >= this.#bytesMax
      this.#storesUntilLook = storesPerLook
    }
    this.#storesUntilLook -= 1
    if (!this.#isBudgetUsed) return true
    if (tier !== 'device') return false
    if (this.#device.spareBlocks < count) this.evictedCount += this.#device.evict(Math.max(count, evictionMin), this.#device.edgeNamed(slot, parentHash))
    return this.#device.spareBlocks >= count
  }

  find(localHashes: HashList, scores: OverlapScores): void {
    this.#find(localHashes, scores, false)
  }

  /** Like `find`, but the device walk ends at the edge where one rank is left, as the original's test interface can. */
  findEarly(localHashes: HashList, scores: OverlapScores): void {
    this.#find(localHashes, scores, true)
  }

  #find(localHashes: HashList, scores: OverlapScores, earlyExit: boolean): void {
    growOverlapScores(scores, this.#slotCount)
    scores.slotCount = this.#slotCount
    scores.device.fill(0)
    scores.host.fill(0)
    scores.disk.fill(0)
    const reachesBelow = this.#host.entryCount + this.#disk.entryCount + this.#external.entryCount > 0
    this.#device.find(localHashes, scores.device, reachesBelow, earlyExit)
    if (!reachesBelow) return
    this.#host.beginQuery(localHashes)
    this.#disk.beginQuery(localHashes)
    this.#external.beginQuery(localHashes)
    for (let slot = 0; slot < this.#slotCount; slot += 1) {
      if (this.#host.count(slot) + this.#disk.count(slot) + this.#external.count(slot) > 0) this.#extend(slot, localHashes, scores)
    }
  }

  /** Goes on below the device, from the rank's own name of the last block it matched there. */
  #extend(slot: number, locals: HashList, scores: OverlapScores): void {
    const name = this.#name
    const start = scores.device[slot]!
    name.fill(0)
    if (start > 0) this.#device.pathName(slot, start - 1, name)
    const host = this.#follow(this.#host, slot, start, locals)
    const disk = this.#follow(this.#disk, slot, host, locals)
    const external = this.#follow(this.#external, slot, disk, locals)
    scores.host[slot] = host - start
    scores.disk[slot] = external - host
  }

  /** Follows one tier from `position` and the name in `#name`; returns the position reached. */
  #follow(tier: LowerTier, slot: number, start: number, locals: HashList): number {
    if (tier.count(slot) === 0) return start
    const name = this.#name
    let position = start
    while (2 * position < locals.length) {
      if (!tier.step(slot, position, name[0]!, name[1]!)) break
      name[0] = tier.reachedLow
      name[1] = tier.reachedHigh
      position += 1
    }
    return position
  }

  prefixNames(slot: RankSlot, localHashes: HashList): HashList {
    const device = new Uint32Array(Math.max(this.#slotCount, slot + 1))
    this.#device.find(localHashes, device, true, false)
    this.#host.beginQuery(localHashes)
    const name = this.#name.fill(0)
    const names = new Uint32Array(localHashes.length)
    let position = 0
    for (; position < device[slot]!; position += 1) {
      this.#device.pathName(slot, position, name)
      names.set(name, 2 * position)
    }
    if (this.#host.count(slot) === 0) return names.subarray(0, 2 * position)
    for (; 2 * position < localHashes.length && this.#host.step(slot, position, name[0]!, name[1]!); position += 1) {
      name[0] = this.#host.reachedLow
      name[1] = this.#host.reachedHigh
      names.set(name, 2 * position)
    }
    return names.subarray(0, 2 * position)
  }

  dropRank(slot: RankSlot): void {
    this.#device.drop(slot)
    this.#host.drop(slot)
    this.#disk.drop(slot)
    this.#external.drop(slot)
    this.#expiries.drop(slot)
  }

  blockCount(slot: RankSlot, tier: StorageTier): number {
    return tier === 'device' ? this.#device.coveredCount(slot) : this.#tier(tier).count(slot)
  }

  dump(slot: RankSlot): { readonly tier: StorageTier; readonly data: StoredBlocks }[] {
    const events: { tier: StorageTier; data: StoredBlocks }[] = this.#device.dump(slot).map((data) => ({ tier: 'device', data }))
    for (const tier of ['host_pinned', 'disk', 'external'] as const) {
      for (const data of this.#tier(tier).dump(slot)) events.push({ tier, data })
    }
    return events
  }

  record(slot: RankSlot, localHashes: HashList, sequenceHashes: HashList, nowMs: number): ApplyStatus {
    this.#slotCount = Math.max(this.#slotCount, slot + 1)
    if (!this.#expiries.reserve(sequenceHashes.length >>> 1)) {
      this.capacityRefusals += 1
      return 'capacity_exhausted'
    }
    const status = this.#stored(slot, 'device', null, sequenceHashes, localHashes)
    if (status === 'ok') this.#expiries.schedule(slot, sequenceHashes, nowMs + this.#ttlMs)
    return status
  }

  recordedEnds(slot: RankSlot, lists: readonly HashList[]): Float64Array[] {
    return this.#expiries.ends(slot, lists)
  }

  prune(count: number): number {
    return this.#expiries.prune(count, (slot, hashes) => this.#device.removed(slot, hashes))
  }

  expire(nowMs: number): number {
    return this.#expiries.expire(nowMs, (slot, hashes) => this.#device.removed(slot, hashes))
  }
}

/** An empty index. */
export const createPrefixIndex = (options: PrefixIndexOptions = {}): TieredPrefixIndex => new TieredPrefixIndex(options)
