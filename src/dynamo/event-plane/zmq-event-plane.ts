/**
 * The event plane over ZeroMQ without a broker: publishers bind, subscribers connect to every discovered publisher.
 *
 * Lossy by design: nothing waits for a slow peer, every drop is counted. `zeromq` is loaded when first needed.
 * Source: Dynamo 1.6.1 event plane, direct ZMQ transport.
 */
import type { Context, Publisher, Subscriber } from 'zeromq'
import type {
  Clock, Discovery, DiscoveryEvent, EventEnvelope, EventPlane, EventPublisher, EventScope, JsonObject, Log, Random, Watch,
} from '../../ports.ts'
import { decodeEventFrames, encodeEventFrames } from './envelope.ts'
import { channelRecord, eventKey, eventTopicPrefix, newPublisherId, publisherIdOfKey } from './event-keys.ts'
import { newEventPlaneStats, type EventPlaneStats } from './event-plane-stats.ts'
import { deliver, type TopicSubscription } from './topic-subscription.ts'
import { readMessages, socketLimits, ZmqLibrary } from './zmq-library.ts'

type Zmq = typeof import('zeromq')

export interface ZmqEventPlaneOptions {
  readonly discovery: Discovery
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** Address that publishers bind and advertise, an IP and no wildcard. Default: loopback. */
  readonly host?: string
  /** Default 4. */
  readonly ioThreads?: number
  /** Shared with other parts of a plane; new ones when left out. */
  readonly library?: ZmqLibrary
  readonly stats?: EventPlaneStats
}

/** What follows channels that are not direct ZMQ: their key and transport kind, or null when one has gone. True: taken care of. */
export type OtherChannels = (key: string, kind: string | null) => boolean

export interface ZmqEventPlane extends EventPlane {
  readonly kind: 'zmq'
  readonly stats: EventPlaneStats
}

/** An event plane of this process. Errors: a `host` that is a wildcard. */
export function createZmqEventPlane(options: ZmqEventPlaneOptions): DirectZmqPlane {
  const host = options.host ?? '127.0.0.1'
  if (['0.0.0.0', '::', '[::]', '*', ''].includes(host)) {
    throw new Error(`event plane host ${JSON.stringify(host)} cannot be advertised: give an IP address that subscribers can reach`)
  }
  return new DirectZmqPlane(options, host)
}

/** See `createZmqEventPlane`. */
export class DirectZmqPlane implements ZmqEventPlane {
  readonly kind = 'zmq'
  readonly stats: EventPlaneStats
  readonly #options: ZmqEventPlaneOptions
  readonly #host: string
  readonly #open = new Set<{ close(): Promise<void> | void }>()
  readonly #library: ZmqLibrary
  #closed = false

  constructor(options: ZmqEventPlaneOptions, host: string) {
    this.#options = options
    this.#host = host
    this.#library = options.library ?? new ZmqLibrary(options.ioThreads ?? 4)
    this.stats = options.stats ?? newEventPlaneStats()
  }

  /** `others` hears of channels over other transports; without it they are not usable. Each publisher has a connection of its own: nothing is resumed for all. */
  subscribe(scope: EventScope, topic: string, listener: (envelope: EventEnvelope) => void, _onResumed?: () => void, others: OtherChannels | null = null): Watch {
    const subscription = new Subscription(this, this.#options, { scope, topic, listener }, others)
    this.#open.add(subscription)
    subscription.start()
    return {
      close: () => {
        this.#open.delete(subscription)
        subscription.close()
      },
    }
  }

  async publisher(scope: EventScope, topic: string): Promise<EventPublisher> {
    const { zmq, context } = await this.load()
    if (this.#closed) throw new Error('the event plane is closed')
    const { random, discovery } = this.#options
    const publisherId = newPublisherId(random)
    const isIpv6 = this.#host.includes(':')
    const socket = new zmq.Publisher({ context, sendHighWaterMark: socketLimits.highWaterMark, sendTimeout: 0, linger: 0, ipv6: isIpv6 })
    const address = isIpv6 ? `[${this.#host.replace(/[[\]]/g, '')}]` : this.#host
    const key = eventKey(scope, topic, publisherId)
    try {
      await socket.bind(`tcp://${address}:*`)
      await discovery.put('v1/event_channels', key, channelRecord(scope, topic, publisherId, { kind: 'Zmq', config: { endpoint: socket.lastEndpoint as string } }))
    } catch (error) {
      socket.close()
      throw new Error(`no event publisher for ${topic} on ${address}: ${(error as Error).message}; set DYN_EVENT_PLANE_HOST to an address of this machine`, { cause: error })
    }
    const publisher = new ZmqPublisher({ socket, publisherId, topic, clock: this.#options.clock, stats: this.stats }, async () => {
      this.#open.delete(publisher)
      await discovery.remove('v1/event_channels', key)
    })
    this.#open.add(publisher)
    return publisher
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all(Array.from(this.#open, (item) => item.close()))
    this.#open.clear()
  }

  load(): Promise<{ readonly zmq: Zmq; readonly context: Context }> {
    return this.#library.load()
  }
}

class Subscription {
  readonly #plane: DirectZmqPlane
  readonly #options: ZmqEventPlaneOptions
  readonly #topic: TopicSubscription
  readonly #others: OtherChannels | null
  /** Whether ids of frames and record must agree. */
  readonly #isStrict: boolean
  readonly #sockets = new Map<bigint, Subscriber>()
  /** Endpoints that were discovered before the library was loaded. */
  readonly #waiting = new Map<bigint, string>()
  #library: { readonly zmq: Zmq; readonly context: Context } | null = null
  #watch: Watch | null = null
  #closed = false

  constructor(plane: DirectZmqPlane, options: ZmqEventPlaneOptions, topic: TopicSubscription, others: OtherChannels | null) {
    this.#others = others
    this.#plane = plane
    this.#options = options
    this.#topic = topic
    this.#isStrict = topic.topic === 'kv-events'
  }

  start(): void {
    const { scope, topic } = this.#topic
    this.#watch = this.#options.discovery.watch('v1/event_channels', eventTopicPrefix(scope, topic), (event) => this.#onRecord(event))
    this.#plane.load().then((library) => {
      if (this.#closed) return
      this.#library = library
      for (const [publisherId, endpoint] of this.#waiting) this.#connect(publisherId, endpoint)
      this.#waiting.clear()
    }, (error: unknown) => {
      this.#options.log.error({ topic, reason: (error as Error).message }, 'no events: the zeromq package cannot be loaded on this platform')
    })
  }

  close(): void {
    this.#closed = true
    this.#watch?.close()
    this.#waiting.clear()
    for (const publisherId of this.#sockets.keys()) this.#disconnect(publisherId)
  }

  #onRecord(event: DiscoveryEvent): void {
    if (this.#closed || event.kind === 'synced') return
    const publisherId = publisherIdOfKey(event.key)
    if (publisherId === null) return this.#unusable(event.key, 'the key does not end in a publisher id')
    if (event.kind === 'delete') {
      this.#waiting.delete(publisherId)
      this.#disconnect(publisherId)
      this.#others?.(event.key, null)
      return
    }
    const endpoint = zmqEndpointOf(event.value)
    if (endpoint === null && this.#others?.(event.key, transportKindOf(event.value)) === true) return
    if (endpoint === null) return this.#unusable(event.key, 'not a direct ZMQ channel')
    if (this.#library === null) this.#waiting.set(publisherId, endpoint)
    else this.#connect(publisherId, endpoint)
  }

  #connect(publisherId: bigint, endpoint: string): void {
    if (this.#library === null || this.#sockets.has(publisherId)) return
    const { zmq, context } = this.#library
    let socket: Subscriber | null = null
    try {
      socket = new zmq.Subscriber({
        context, receiveHighWaterMark: socketLimits.highWaterMark, linger: 0, reconnectInterval: 100, reconnectMaxInterval: 2000,
        tcpKeepalive: 1, ipv6: endpoint.includes('['),
      })
      socket.subscribe(this.#topic.topic)
      socket.connect(endpoint)
    } catch (error) {
      socket?.close()
      return this.#unusable(endpoint, (error as Error).message)
    }
    this.#sockets.set(publisherId, socket)
    this.#plane.stats.subscriberSockets += 1
    void this.#receive(socket, publisherId)
  }

  #disconnect(publisherId: bigint): void {
    const socket = this.#sockets.get(publisherId)
    if (socket === undefined) return
    this.#sockets.delete(publisherId)
    this.#plane.stats.subscriberSockets -= 1
    socket.close()
  }

  async #receive(socket: Subscriber, publisherId: bigint): Promise<void> {
    const isWanted = (): boolean => this.#sockets.get(publisherId) === socket
    const { stats } = this.#plane
    const { topic } = this.#topic
    try {
      await readMessages(socket, isWanted, (frames) =>
        deliver(decodeEventFrames(frames, topic, this.#isStrict ? publisherId : null), this.#topic, stats, this.#options.log))
    } catch (error) {
      if (!isWanted()) return
      this.#disconnect(publisherId)
      this.#unusable(publisherId.toString(16), (error as Error).message)
    }
  }

  #unusable(what: string, reason: string): void {
    this.#plane.stats.unusableChannels += 1
    this.#options.log.warn({ topic: this.#topic.topic, channel: what, reason }, 'event channel not usable: its events are not received')
  }
}

interface PublisherParts {
  readonly socket: Publisher
  readonly publisherId: bigint
  readonly topic: string
  readonly clock: Clock
  readonly stats: EventPlaneStats
}

class ZmqPublisher implements EventPublisher {
  readonly publisherId: bigint
  readonly #parts: PublisherParts
  readonly #unregister: () => Promise<void>
  #sequence = 0n
  #closing: Promise<void> | null = null

  constructor(parts: PublisherParts, unregister: () => Promise<void>) {
    this.#parts = parts
    this.publisherId = parts.publisherId
    this.#unregister = unregister
    parts.stats.publisherSockets += 1
  }

  publish(payload: Uint8Array): void {
    const { socket, topic, clock, stats } = this.#parts
    if (this.#closing !== null) return
    const envelope = { publisherId: this.publisherId, sequence: this.#sequence, publishedAtMs: Math.floor(clock.epochMs()), topic, payload }
    // Counted on also when the message is lost, so that subscribers can see the gap.
    this.#sequence += 1n
    stats.published += 1
    socket.send(encodeEventFrames(envelope)).catch(() => { stats.publishDropped += 1 })
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#parts.stats.publisherSockets -= 1
    try {
      await this.#unregister()
    } finally {
      this.#parts.socket.close()
    }
  }
}

/** The kind that a record names, or '' when it names none. */
function transportKindOf(record: JsonObject): string {
  const transport = record['transport']
  const kind = isObject(transport) ? transport['kind'] : null
  return typeof kind === 'string' ? kind : ''
}

function zmqEndpointOf(record: JsonObject): string | null {
  const transport = record['transport']
  if (!isObject(transport) || transport['kind'] !== 'Zmq') return null
  const config = transport['config']
  const endpoint = isObject(config) ? config['endpoint'] : null
  return typeof endpoint === 'string' && endpoint.startsWith('tcp://') ? endpoint : null
}

const isObject = (value: unknown): value is JsonObject => typeof value === 'object' && value !== null && !Array.isArray(value)
