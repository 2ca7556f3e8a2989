/** Loads and first-token marks that workers publish, on their way to a router. */
import type { WorkerRank } from '../../model/worker.ts'
import type { EndpointId, EventEnvelope, EventPlane, Log, Watch } from '../../ports.ts'
import { MsgpackError } from '../../msgpack/cursor.ts'
import { namespaceScope } from '../event-plane/event-keys.ts'
import { decodeActiveSequences, type ActiveSequenceEvent } from '../wire/active-sequences.ts'
import { decodeKvMetrics } from '../wire/kv-metrics.ts'
import { WireError } from '../wire/wire-error.ts'

export const kvMetricsTopic = 'kv_metrics'
export const activeSequencesTopic = 'active_sequences_events'

export interface LoadEventsSink {
  reportLoad(rank: WorkerRank, load: { activeDecodeBlocks: number | null; activePrefillTokens: number | null; kvUsedBlocks: number | null }): void
  prefillCompleted(requestId: string): boolean
  /** Takes bookings of other routers, and gives the marks that are for own requests; left out: nothing is shared with other routers. */
  sequences?(envelope: EventEnvelope, events: readonly ActiveSequenceEvent[]): readonly ActiveSequenceEvent[]
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
 * without replica sync uses of them; with it, `sequences` sees everything first.
 */
export function followLoadEvents(parts: LoadEventsParts): LoadEventsFollower {
  const { plane, endpoint, log, sink } = parts
  const stats: LoadEventsStats = { loads: 0, prefillMarks: 0, unknownMarks: 0, malformed: 0 }
  const guarded = (topic: string, apply: (envelope: EventEnvelope) => void) => (envelope: EventEnvelope): void => {
    try {
      apply(envelope)
    } catch (error) {
      if (!(error instanceof MsgpackError) && !(error instanceof WireError)) throw error
      stats.malformed += 1
      log.debug({ topic, reason: error.message }, 'event not readable')
    }
  }
  const onLoad = guarded(kvMetricsTopic, ({ payload }) => {
    const { workerId, dpRank, ...load } = decodeKvMetrics(payload)
    stats.loads += 1
    sink.reportLoad({ workerId, dpRank }, load)
  })
  const onSequences = guarded(activeSequencesTopic, (envelope) => {
    const events = decodeActiveSequences(envelope.payload)
    for (const event of sink.sequences?.(envelope, events) ?? events) {
      if (event.data.kind !== 'mark_prefill_completed') continue
      stats.prefillMarks += 1
      if (!sink.prefillCompleted(event.requestId)) stats.unknownMarks += 1
    }
  })
  const watches: Watch[] = [
    plane.subscribe(endpoint, kvMetricsTopic, onLoad),
    // Before 1.6; workers of other components are unknown to the sink.
    plane.subscribe(namespaceScope(endpoint), kvMetricsTopic, onLoad),
    plane.subscribe(endpoint, activeSequencesTopic, onSequences),
  ]
  return {
    stats,
    close() {
      for (const watch of watches) watch.close()
    },
  }
}
