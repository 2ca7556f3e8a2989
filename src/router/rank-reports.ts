/** What a router tells of its ranks: overlap of a prompt, loads, and loads as they would be with a prompt. */
import { createOverlapScores } from '../index/overlap-scores.ts'
import type { OverlapScores } from '../index/contract.ts'
import type { ActiveSequences } from '../load/active-sequences.ts'
import type { HashList } from '../model/hash-list.ts'
import type { RouterEvent } from '../model/kv-event.ts'
import type { RankSlot, WorkerId, WorkerRank } from '../model/worker.ts'
import type { HashedPrompt } from '../model/routing-request.ts'
import type { SharedCache } from '../ports.ts'
import { cachedTokens } from '../scheduling/cost.ts'
import type { BoundCounts, LoadRow, OverlapQuery, OverlapReport, OverlapRow, RouterSettings } from './contract.ts'
import type { PoolIndex } from './pool-index.ts'
import type { WorkerDirectory, WorkerRecord } from './worker-directory.ts'

export interface RankReportsParts {
  /** As they are now. */
  settings(): RouterSettings
  readonly directory: WorkerDirectory
  readonly index: PoolIndex
  readonly loads: ActiveSequences
  readonly sharedCache: SharedCache | undefined
  hash(query: OverlapQuery): HashList
}

/** A rank's load with one more prompt. Source: router-algorithm 8. */
export interface ProjectedLoad extends WorkerRank {
  readonly activePrefillTokens: number
  readonly potentialDecodeBlocks: number
  readonly activeRequests: number
  /** Prompt tokens that the rank has cached, all tiers by their weights. */
  readonly cachedTokens: number
}

/** Reads only. Rows come by worker id, then rank. */
export class RankReports {
  readonly #parts: RankReportsParts
  readonly #scores: OverlapScores = createOverlapScores(16)

  constructor(parts: RankReportsParts) {
    this.#parts = parts
  }

  /** How often each bound has bitten since the start. */
  get boundCounts(): BoundCounts {
    const { loads, index } = this.#parts
    return {
      refusedBookings: loads.refusedBookings,
      pathlessBookings: loads.pathlessBookings,
      refusedIndexEntries: index.capacityRefusals,
      evictedBlocks: index.evictedCount,
      prunedBlocks: index.prunedCount,
      memoryEvictions: index.memoryEvictions,
    }
  }

  overlap(query: OverlapQuery): OverlapReport {
    const { sharedCache } = this.#parts
    const { blockSize } = this.#parts.settings()
    const local = query.local ?? this.#parts.hash(query)
    const rows = this.#overlapRows(local, query.workerId)
    const shared = sharedCache === undefined || query.includeShared === false ? null : sharedCache.hits({ ...query, blockSize })
    return { blockSize, blockCount: local.length >>> 1, rows, shared }
  }

  #overlapRows(local: HashList, only?: WorkerId): OverlapRow[] {
    const scores = this.#scores
    this.#parts.index.find(local, scores)
    const reach = Math.min(scores.slotCount, scores.device.length)
    return this.#mapRanks((slot, workerId, dpRank): OverlapRow => {
      const known = slot < reach
      return {
        workerId, dpRank,
        deviceBlocks: known ? scores.device[slot]! : 0,
        hostExtensionBlocks: known ? scores.host[slot]! : 0,
        diskExtensionBlocks: known ? scores.disk[slot]! : 0,
      }
    }, only)
  }

  loads(): readonly LoadRow[] {
    const { loads, index } = this.#parts
    return this.#mapRanks((slot, workerId, dpRank): LoadRow => ({
      workerId, dpRank,
      activePrefillTokens: loads.prefillTokens[slot]!,
      activeDecodeBlocks: loads.activeBlocks(slot),
      activeRequests: loads.requests[slot]!,
      cachedBlocks: index.deviceBlocks(slot),
    }))
  }

  project({ local, tracking }: HashedPrompt): readonly ProjectedLoad[] {
    const { loads } = this.#parts
    const settings = this.#parts.settings()
    const overlap = this.#overlapRows(local)
    const blocks = tracking === null ? 0 : tracking.length >>> 1
    const live = tracking === null ? 0 : loads.match(tracking)
    let row = 0
    return this.#mapRanks((slot, workerId, dpRank): ProjectedLoad => {
      const { deviceBlocks, hostExtensionBlocks, diskExtensionBlocks } = overlap[row++]!
      return {
        workerId, dpRank,
        activePrefillTokens: loads.prefillTokens[slot]!,
        potentialDecodeBlocks: loads.activeBlocks(slot) + blocks - (live > 0 ? loads.livePrefix(slot) : 0),
        activeRequests: loads.requests[slot]!,
        cachedTokens: cachedTokens(deviceBlocks, hostExtensionBlocks, diskExtensionBlocks, settings, settings.blockSize),
      }
    })
  }

  /** Everything that the index knows, rank by rank, as events that would make it. */
  *dump(): Iterable<RouterEvent> {
    let eventId = 0n
    for (const { workerId, dpStart, slots } of this.#parts.directory.ordered) {
      for (const [at, slot] of slots.entries()) {
        for (const { tier, data } of this.#parts.index.dump(slot)) {
          yield { workerId, dpRank: dpStart + at, storageTier: tier, residencyDomain: 'worker', eventId, data }
          eventId += 1n
        }
      }
    }
  }

  #mapRanks<Row>(row: (slot: RankSlot, workerId: WorkerId, dpRank: number) => Row, only?: WorkerId): Row[] {
    const { directory } = this.#parts
    const worker = only === undefined ? undefined : directory.get(only)
    const workers = only === undefined ? directory.ordered : worker === undefined ? [] : [worker]
    return workers.flatMap((each: WorkerRecord) => each.slots.map((slot, index) => row(slot, each.workerId, each.dpStart + index)))
  }
}
