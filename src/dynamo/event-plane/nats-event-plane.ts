/**
 * The event plane over NATS: the bare envelope on a subject made of scope and topic, plain publish and subscribe.
 *
 * Lossy like the others: what is published while the connection is lost is dropped and counted. Source: Dynamo 1.6.1 event plane.
 */
import type { Clock, Discovery, EventEnvelope, EventPublisher, EventScope, Log, Random, Watch } from '../../ports.ts'
import { MsgpackError } from '../../msgpack/cursor.ts'
import type { NatsLink } from '../nats/nats-link.ts'
import { decodeEnvelope, encodeEnvelope, type EventDropReason } from './envelope.ts'
import { channelRecord, eventKey, eventSubject, eventSubjectPrefix, newPublisherId } from './event-keys.ts'
import type { EventPlaneStats } from './event-plane-stats.ts'
import { deliver, type TopicSubscription } from './topic-subscription.ts'

export interface NatsEventParts {
  readonly link: NatsLink
  readonly discovery: Discovery
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly stats: EventPlaneStats
}

/** Subscribes to all publishers of a scope and topic, known or not. */
export function subscribeOverNats(parts: NatsEventParts, subscription: TopicSubscription): Watch {
  const { link, stats, log } = parts
  const { scope, topic } = subscription
  stats.natsSubscriptions += 1
  const open = link.subscribe(eventSubject(scope, topic), null, (message) => deliver(decodeMessage(message.data, topic), subscription, stats, log))
  let closed = false
  let wasDown = false
  const state = link.onState((now) => {
    if (now === 'up' && wasDown) subscription.onResumed?.()
    wasDown = now === 'down' || (wasDown && now !== 'up')
  })
  return {
    close: () => {
      if (closed) return
      closed = true
      stats.natsSubscriptions -= 1
      state.close()
      open.close()
    },
  }
}

/** Reads one message of a subscription to `topic`. Never throws: what cannot be used is named by its reason. */
export function decodeMessage(bytes: Uint8Array, topic: string): EventEnvelope | EventDropReason {
  try {
    const envelope = decodeEnvelope(bytes)
    return envelope.topic === topic ? envelope : 'topic'
  } catch (error) {
    if (error instanceof MsgpackError) return 'envelope'
    throw error
  }
}

/** Registers a publisher and opens the connection. Errors: those of discovery. */
export async function publisherOverNats(parts: NatsEventParts, scope: EventScope, topic: string): Promise<EventPublisher> {
  const { link, discovery, random } = parts
  const publisherId = newPublisherId(random)
  const key = eventKey(scope, topic, publisherId)
  link.open()
  await discovery.put('v1/event_channels', key, channelRecord(scope, topic, publisherId, { kind: 'Nats', config: { subject_prefix: eventSubjectPrefix(scope) } }))
  return new NatsPublisher(parts, { publisherId, topic, subject: eventSubject(scope, topic), unregister: () => discovery.remove('v1/event_channels', key) })
}

class NatsPublisher implements EventPublisher {
  readonly publisherId: bigint
  readonly #parts: NatsEventParts
  readonly #own: { readonly topic: string; readonly subject: string; readonly unregister: () => Promise<void> }
  #sequence = 0n
  #closing: Promise<void> | null = null

  constructor(parts: NatsEventParts, own: { publisherId: bigint; topic: string; subject: string; unregister: () => Promise<void> }) {
    this.#parts = parts
    this.publisherId = own.publisherId
    this.#own = own
  }

  publish(payload: Uint8Array): void {
    const { link, clock, stats } = this.#parts
    if (this.#closing !== null) return
    const { topic, subject } = this.#own
    const envelope = { publisherId: this.publisherId, sequence: this.#sequence, publishedAtMs: Math.floor(clock.epochMs()), topic, payload }
    // Counted on also when the message is lost, so that subscribers can see the gap.
    this.#sequence += 1n
    stats.published += 1
    if (link.publish(subject, encodeEnvelope(envelope)) !== 'sent') stats.publishDropped += 1
  }

  close(): Promise<void> {
    this.#closing ??= this.#own.unregister()
    return this.#closing
  }
}
