/** Loads and first-token marks that workers publish, on their way to a router. */
import type { WorkerRank } from '../../model/worker.ts'
import type { EndpointId, EventPlane, Log, Watch } from '../../ports.ts'
import { MsgpackError } from '../../msgpack/cursor.ts'
import { namespaceScope } from '../event-plane/event-keys.ts'
import { decodeActiveSequences } from '../wire/active-sequences.ts'
import { decodeKvMetrics } from '../wire/kv-metrics.ts'
import { WireError } from '../wire/wire-error.ts'

export const kvMetricsTopic = 'kv_metrics'
export const activeSequencesTopic = 'active_sequences_events'

export interface LoadEventsSink {
  reportLoad(rank: WorkerRank, load: { activeDecodeBlocks: number | null; activePrefillTokens: number | null; kvUsedBlocks: number | null }): void
  prefillCompleted(requestId: string): boolean
}

/** Plain counters. */
export interface LoadEventsStats {
  loads: number
  prefillMarks: number
  /** Marks of requests that this router has not booked. */
  unknownMarks: number
  malformed: number
}

export interface LoadEventsFollower {
  readonly stats: LoadEventsStats
  close(): void
}

export interface LoadEventsParts {
  readonly plane: EventPlane
  /** The worker endpoint. */
  readonly endpoint: EndpointId
  readonly log: Log
  readonly sink: LoadEventsSink
}

/**
 * Follows `kv_metrics` and, of `active_sequences_events`, the `MarkPrefillCompleted` that workers publish: what a router
 * without replica sync uses of them.
 */
export function followLoadEvents(parts: LoadEventsParts): LoadEventsFollower {
  const { plane, endpoint, log, sink } = parts
  const stats: LoadEventsStats = { loads: 0, prefillMarks: 0, unknownMarks: 0, malformed: 0 }
  const guarded = (topic: string, apply: (payload: Uint8Array) => void) => (payload: Uint8Array): void => {
    try {
      apply(payload)
    } catch (error) {
      if (!(error instanceof MsgpackError) && !(error instanceof WireError)) throw error
      stats.malformed += 1
      log.debug({ topic, reason: error.message }, 'event not readable')
    }
  }
  const onLoad = guarded(kvMetricsTopic, (payload) => {
    const { workerId, dpRank, ...load } = decodeKvMetrics(payload)
    stats.loads += 1
    sink.reportLoad({ workerId, dpRank }, load)
  })
  const onSequences = guarded(activeSequencesTopic, (payload) => {
    for (const event of decodeActiveSequences(payload)) {
      if (event.data.kind !== 'mark_prefill_completed') continue
      stats.prefillMarks += 1
      if (!sink.prefillCompleted(event.requestId)) stats.unknownMarks += 1
    }
  })
  const watches: Watch[] = [
    plane.subscribe(endpoint, kvMetricsTopic, ({ payload }) => onLoad(payload)),
    // Before 1.6; workers of other components are unknown to the sink.
    plane.subscribe(namespaceScope(endpoint), kvMetricsTopic, ({ payload }) => onLoad(payload)),
    plane.subscribe(endpoint, activeSequencesTopic, ({ payload }) => onSequences(payload)),
  ]
  return {
    stats,
    close() {
      for (const watch of watches) watch.close()
    },
  }
}
