/** The worker's side of `kv_metrics`: how many KV blocks each rank uses. */
import type { EndpointId, EventPlane } from '../../ports.ts'
import type { WorkerRank } from '../../model/worker.ts'
import { encodeKvMetrics } from '../wire/kv-metrics.ts'
import { kvMetricsTopic } from './load-events.ts'

export interface KvLoad {
  readonly activeDecodeBlocks?: number | null
  readonly activePrefillTokens?: number | null
  readonly kvUsedBlocks?: number | null
}

export interface KvMetricsPublisher {
  /** Publishes a rank's load; fields left out are null. Lossy: report again when it changes. */
  report(rank: WorkerRank, load: KvLoad): void
  close(): Promise<void>
}

/** Binds and registers a publisher for all ranks of a worker. Errors: of event plane and discovery. */
export async function createKvMetricsPublisher(plane: EventPlane, endpoint: EndpointId): Promise<KvMetricsPublisher> {
  const publisher = await plane.publisher(endpoint, kvMetricsTopic)
  return {
    report(rank, load) {
      publisher.publish(encodeKvMetrics({
        workerId: rank.workerId, dpRank: rank.dpRank, activeDecodeBlocks: load.activeDecodeBlocks ?? null,
        activePrefillTokens: load.activePrefillTokens ?? null, kvUsedBlocks: load.kvUsedBlocks ?? null,
      }))
    },
    close: () => publisher.close(),
  }
}
