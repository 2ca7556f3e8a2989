/** What a part of the plane needs to know of a subscription, and how a message reaches its listener. */
import type { EventEnvelope, EventScope, Log } from '../../ports.ts'
import type { EventDropReason } from './envelope.ts'
import type { EventPlaneStats } from './event-plane-stats.ts'

export interface TopicSubscription {
  readonly scope: EventScope
  readonly topic: string
  readonly listener: (envelope: EventEnvelope) => void
  /** The connection that publishers share was lost and is back. */
  readonly onResumed?: () => void
}

/** Gives a message to its listener and counts; a listener that throws loses that message only. */
export function deliver(envelope: EventEnvelope | EventDropReason, { topic, listener }: TopicSubscription, stats: EventPlaneStats, log: Log): void {
  stats.received += 1
  if (typeof envelope === 'string') {
    stats.dropped[envelope] += 1
    return
  }
  try {
    listener(envelope)
  } catch (error) {
    stats.dropped.listener += 1
    log.error({ topic, reason: (error as Error).message }, 'an event listener failed; its message is lost')
  }
}
