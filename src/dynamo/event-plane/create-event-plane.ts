/**
 * The event plane of a process: publishes the way it is told to, and hears publishers the way each of them can be heard.
 *
 * Direct ZMQ publishers and those that say they are on NATS are found by their records, whatever this process publishes over. Publishers
 * behind brokers have no records: brokers must be named, here as there.
 */
import type { Clock, Discovery, EventEnvelope, EventPlane, EventPublisher, EventScope, Log, Random, Watch } from '../../ports.ts'
import type { NatsLink } from '../nats/nats-link.ts'
import { newEventPlaneStats, type EventPlaneStats } from './event-plane-stats.ts'
import { publisherOverNats, subscribeOverNats, type NatsEventParts } from './nats-event-plane.ts'
import { publisherOverBrokers, subscribeOverBrokers, type BrokerParts, type BrokerSource } from './zmq-broker.ts'
import { createZmqEventPlane, type DirectZmqPlane } from './zmq-event-plane.ts'
import { ZmqLibrary } from './zmq-library.ts'

export interface EventPlaneOptions {
  /** How this process publishes, and where publishers without records are looked for. */
  readonly kind: 'zmq' | 'nats'
  /** Opened when a publisher or the kind asks for it. */
  readonly link: NatsLink
  /** Null: publishers are connected to directly. */
  readonly broker: BrokerSource | null
  readonly discovery: Discovery
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** See `createZmqEventPlane`. */
  readonly host: string
  /** Default 4. */
  readonly ioThreads?: number
}

/** An event plane that can be observed. */
export interface MixedEventPlane extends EventPlane {
  readonly stats: EventPlaneStats
}

/** Makes a plane; nothing is opened before it is used. Errors: a `host` that is a wildcard. */
export function createEventPlane(options: EventPlaneOptions): MixedEventPlane {
  return new Plane(options)
}

class Plane implements MixedEventPlane {
  readonly kind: 'zmq' | 'nats'
  readonly stats = newEventPlaneStats()
  readonly #direct: DirectZmqPlane
  readonly #nats: NatsEventParts
  readonly #broker: BrokerParts | null
  readonly #open = new Set<{ close(): Promise<void> | void }>()

  constructor(options: EventPlaneOptions) {
    const { kind, link, broker, discovery, clock, random, log, host, ioThreads } = options
    this.kind = kind
    const shared = { discovery, clock, random, log, stats: this.stats }
    const library = new ZmqLibrary(ioThreads ?? 4)
    this.#direct = createZmqEventPlane({ ...shared, host, library })
    this.#nats = { ...shared, link }
    this.#broker = broker === null ? null : { ...shared, library, source: broker }
  }

  subscribe(scope: EventScope, topic: string, listener: (envelope: EventEnvelope) => void, onResumed: () => void = () => {}): Watch {
    const subscription = { scope, topic, listener, onResumed }
    const fixed: Watch[] = []
    if (this.kind === 'nats') fixed.push(subscribeOverNats(this.#nats, subscription))
    if (this.#broker !== null) fixed.push(subscribeOverBrokers(this.#broker, subscription))
    // Publishers over NATS that were found while this process itself uses ZMQ.
    const found = new Set<string>()
    let overNats: Watch | null = null
    fixed.push(this.#direct.subscribe(scope, topic, listener, onResumed, (key, transport) => {
      if (transport !== 'Nats' && !found.has(key)) return false
      if (transport === 'Nats') found.add(key)
      else found.delete(key)
      if (this.kind === 'nats') return transport === 'Nats'
      if (found.size > 0) overNats ??= subscribeOverNats(this.#nats, subscription)
      else {
        overNats?.close()
        overNats = null
      }
      return transport === 'Nats'
    }))
    const watch: Watch = {
      close: () => {
        this.#open.delete(watch)
        for (const part of fixed) part.close()
        overNats?.close()
      },
    }
    this.#open.add(watch)
    return watch
  }

  async publisher(scope: EventScope, topic: string): Promise<EventPublisher> {
    if (this.kind === 'zmq' && this.#broker === null) return this.#direct.publisher(scope, topic)
    const publisher = this.kind === 'nats' ? await publisherOverNats(this.#nats, scope, topic) : await publisherOverBrokers(this.#broker as BrokerParts, scope, topic)
    this.#open.add(publisher)
    return {
      publisherId: publisher.publisherId,
      publish: (payload) => publisher.publish(payload),
      close: () => {
        this.#open.delete(publisher)
        return publisher.close()
      },
    }
  }

  async close(): Promise<void> {
    const open = [...this.#open]
    this.#open.clear()
    await Promise.all([...open.map((part) => part.close()), this.#direct.close()])
  }
}
