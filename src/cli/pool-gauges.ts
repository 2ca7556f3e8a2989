/** Gauges and counters of a process, over all its routed pools, set at each scrape. */
import type { ProcessLog } from '../observability/log.ts'
import type { RouterMetrics } from '../observability/router-metrics.ts'
import type { SharedCaches } from './shared-caches.ts'
import type { RoutedPool } from '../standalone/routed-pool.ts'

export interface GaugeSource {
  readonly metrics: RouterMetrics
  readonly log: ProcessLog
  pools(): Iterable<RoutedPool>
  readonly sharedCaches: SharedCaches
  activeRequests(): number
  isReady(): boolean
}

export function showGauges({ metrics, log, pools, sharedCaches, activeRequests, isReady }: GaugeSource): void {
  const { gauges, kvEvents } = metrics
  metrics.onScrape(() => {
    const total = { workers: 0, indexEntries: 0, indexBytes: 0, bookings: 0, mismatched: 0, setAside: 0, sessions: 0, bookingRefusals: 0, indexRefusals: 0, evicted: 0, pruned: 0, forgotten: 0, sources: 0, queued: 0, batches: 0, gaps: 0 }
    const drops = new Map<string, number>()
    const recoveries = { started: 0, succeeded: 0, failed: 0 }
    for (const routed of pools()) {
      const { router } = routed
      total.workers += router?.workerCount ?? 0
      total.indexEntries += router?.indexEntryCount ?? 0
      total.indexBytes += router?.indexBytes ?? 0
      total.bookings += router?.bookingCount ?? 0
      const bounds = router?.boundCounts
      total.bookingRefusals += (bounds?.refusedBookings ?? 0) + (bounds?.pathlessBookings ?? 0)
      total.indexRefusals += bounds?.refusedIndexEntries ?? 0
      total.evicted += bounds?.evictedBlocks ?? 0
      total.pruned += bounds?.prunedBlocks ?? 0
      total.forgotten += bounds?.memoryEvictions ?? 0
      total.mismatched += routed.pool.mismatchedCount
      total.setAside += routed.setAsideIds().size
      total.sessions += routed.affinity?.table.size ?? 0
      const follower = routed.follower?.stats()
      if (follower === undefined) continue
      total.sources += follower.sources
      total.queued += follower.queuedBatches
      total.batches += follower.batches
      total.gaps += follower.cursor.gaps
      for (const [reason, count] of Object.entries(follower.dropped)) drops.set(reason, (drops.get(reason) ?? 0) + count)
      for (const state of ['started', 'succeeded', 'failed'] as const) recoveries[state] += follower.recoveries[state]
    }
    gauges.workers.set(total.workers)
    gauges.activeRequests.set(activeRequests())
    gauges.indexEntries.set(total.indexEntries)
    gauges.indexBytes.set(total.indexBytes)
    gauges.bookingsEntries.set(total.bookings)
    gauges.bookingRefusals.set(total.bookingRefusals)
    gauges.indexRefusals.set(total.indexRefusals)
    gauges.assumedBlocksEvicted.set(total.evicted)
    gauges.assumedBlocksPruned.set(total.pruned)
    gauges.indexEvictions.set(total.forgotten)
    const shared = sharedCaches.stats()
    gauges.sharedCacheObjects.set(shared.objects)
    gauges.sharedCacheGaps.set(shared.gaps)
    gauges.sharedCacheOverflows.set(shared.overflows)
    gauges.sharedCacheBadMessages.set(shared.badMessages)
    gauges.setAsideInstances.set(total.setAside)
    gauges.sessionAffinityEntries.set(total.sessions)
    gauges.blockSizeMismatchWorkers.set(total.mismatched)
    gauges.eventQueueEntries.set(total.queued)
    gauges.eventQueueDrops.set(drops.get('queue_full') ?? 0)
    gauges.eventGaps.set(total.gaps)
    gauges.logDroppedLines.set(log.droppedLines)
    gauges.ready.set(isReady() ? 1 : 0)
    kvEvents.setSources(total.sources)
    kvEvents.setBatches(total.batches)
    for (const [reason, count] of drops) kvEvents.setDrops(reason, count)
    for (const state of ['started', 'succeeded', 'failed'] as const) kvEvents.setRecoveries(state, recoveries[state])
  })
}
