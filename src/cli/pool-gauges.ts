/** Gauges and counters of a process, over all its routed pools, set at each scrape. */
import type { KvStateStats } from '../dynamo/kv-state/kv-state-stats.ts'
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

type Gauge = keyof RouterMetrics['gauges']

/** Gauges that are a sum over the pools. */
const poolSums: readonly (readonly [Gauge, (routed: RoutedPool) => number | undefined])[] = [
  ['workers', ({ router }) => router?.workerCount],
  ['indexEntries', ({ router }) => router?.indexEntryCount],
  ['indexBytes', ({ router }) => router?.indexBytes],
  ['bookingsEntries', ({ router }) => router?.bookingCount],
  ['bookingRefusals', ({ router }) => router === null ? 0 : router.boundCounts.refusedBookings + router.boundCounts.pathlessBookings],
  ['indexRefusals', ({ router }) => router?.boundCounts.refusedIndexEntries],
  ['assumedBlocksEvicted', ({ router }) => router?.boundCounts.evictedBlocks],
  ['assumedBlocksPruned', ({ router }) => router?.boundCounts.prunedBlocks],
  ['indexEvictions', ({ router }) => router?.boundCounts.memoryEvictions],
  ['blockSizeMismatchWorkers', ({ pool }) => pool.mismatchedCount],
  ['setAsideInstances', (routed) => routed.setAsideIds().size],
  ['sessionAffinityEntries', ({ affinity }) => affinity?.table.size],
]
const recoveryStates = ['started', 'succeeded', 'failed'] as const

export function showGauges({ metrics, log, pools, sharedCaches, activeRequests, isReady }: GaugeSource): void {
  const { gauges } = metrics
  metrics.onScrape(() => {
    const all = [...pools()]
    for (const [gauge, read] of poolSums) gauges[gauge].set(all.reduce((sum, routed) => sum + (read(routed) ?? 0), 0))
    showEvents(metrics, all.flatMap(({ follower }) => follower?.stats() ?? []))
    const shared = sharedCaches.stats()
    gauges.sharedCacheObjects.set(shared.objects)
    gauges.sharedCacheGaps.set(shared.gaps)
    gauges.sharedCacheOverflows.set(shared.overflows)
    gauges.sharedCacheBadMessages.set(shared.badMessages)
    gauges.activeRequests.set(activeRequests())
    gauges.logDroppedLines.set(log.droppedLines)
    gauges.ready.set(isReady() ? 1 : 0)
  })
}

function showEvents({ gauges, kvEvents }: RouterMetrics, stats: readonly KvStateStats[]): void {
  const sum = (read: (each: KvStateStats) => number): number => stats.reduce((total, each) => total + read(each), 0)
  const drops = new Map<string, number>()
  for (const { dropped } of stats) for (const [reason, count] of Object.entries(dropped)) drops.set(reason, (drops.get(reason) ?? 0) + count)
  gauges.eventQueueEntries.set(sum(({ queuedBatches }) => queuedBatches))
  gauges.eventQueueDrops.set(drops.get('queue_full') ?? 0)
  gauges.eventGaps.set(sum(({ cursor }) => cursor.gaps))
  kvEvents.setSources(sum(({ sources }) => sources))
  kvEvents.setBatches(sum(({ batches }) => batches))
  for (const [reason, count] of drops) kvEvents.setDrops(reason, count)
  for (const state of recoveryStates) kvEvents.setRecoveries(state, sum(({ recoveries }) => recoveries[state]))
}
