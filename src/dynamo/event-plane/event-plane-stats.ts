/** What an event plane counts, whatever it travels over. */
import { eventDropReasons, type EventDropReason } from './envelope.ts'

/** Plain counters; the parts of one plane write them. */
export interface EventPlaneStats {
  received: number
  readonly dropped: Record<EventDropReason, number>
  published: number
  /** Messages that the transport would not take at once. */
  publishDropped: number
  /** Messages that came over another broker before. */
  duplicates: number
  /** SUB sockets: one per discovered publisher, and one per topic behind brokers. */
  subscriberSockets: number
  publisherSockets: number
  natsSubscriptions: number
  /** Channel records that could not be used. */
  unusableChannels: number
}

export const newEventPlaneStats = (): EventPlaneStats => ({
  received: 0, dropped: Object.fromEntries(eventDropReasons.map((reason) => [reason, 0])) as Record<EventDropReason, number>,
  published: 0, publishDropped: 0, duplicates: 0, subscriberSockets: 0, publisherSockets: 0, natsSubscriptions: 0, unusableChannels: 0,
})
