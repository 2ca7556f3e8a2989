/**
 * The event plane over ZeroMQ brokers: publishers and subscribers connect to every broker, the frames carry the full subject.
 *
 * Brokers are named by `DYN_ZMQ_BROKER_URL`, or found as records of the component `zmq_broker` of the namespace. With several brokers each
 * message comes once from each; the first one counts. Source: Dynamo 1.6.1 event plane, ZMQ broker mode.
 */
import type { Publisher, Subscriber } from 'zeromq'
import type { Clock, Discovery, EventPublisher, EventScope, JsonObject, Log, Random, Watch } from '../../ports.ts'
import { decodeEventFrames, encodeEventFrames } from './envelope.ts'
import { brokerPrefix, eventSubject, newPublisherId } from './event-keys.ts'
import type { EventPlaneStats } from './event-plane-stats.ts'
import { RecentMessages } from './recent-messages.ts'
import { deliver, type TopicSubscription } from './topic-subscription.ts'
import { readMessages, socketLimits, type ZmqLibrary } from './zmq-library.ts'

/** Where brokers listen: publishers connect to `xsub`, subscribers to `xpub`. */
export interface BrokerEndpoints {
  readonly xsub: readonly string[]
  readonly xpub: readonly string[]
}

/** `discovered`: those that are registered, as they come and go. */
export type BrokerSource = { readonly kind: 'fixed'; readonly endpoints: BrokerEndpoints } | { readonly kind: 'discovered' }

/** Messages whose first coming is remembered. */
const rememberedMax = 100_000

/** Reads `xsub=URL[;URL...],xpub=URL[;URL...]`. Errors: an `Error` that names variable, value and form. */
export function parseBrokerUrl(text: string): BrokerEndpoints {
  const found: Record<string, string[]> = {}
  for (const part of text.split(',')) {
    const [name = '', ...rest] = part.trim().split('=')
    found[name.trim()] = rest.join('=').split(';').map((url) => url.trim()).filter((url) => url !== '')
  }
  const { xsub, xpub, ...others } = found
  const isUrl = (url: string): boolean => /^(tcp|ipc|inproc):\/\/./.test(url)
  if (xsub === undefined || xpub === undefined || xsub.length === 0 || xpub.length === 0 || Object.keys(others).length > 0 || ![...xsub, ...xpub].every(isUrl)) {
    throw new Error(`DYN_ZMQ_BROKER_URL=${JSON.stringify(text.slice(0, 200))}: expected xsub=tcp://HOST:PORT[;...],xpub=tcp://HOST:PORT[;...]`)
  }
  return { xsub, xpub }
}

export interface BrokerParts {
  readonly library: ZmqLibrary
  readonly source: BrokerSource
  readonly discovery: Discovery
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly stats: EventPlaneStats
}

/** Subscribes to a topic at all brokers. */
export function subscribeOverBrokers(parts: BrokerParts, subscription: TopicSubscription): Watch {
  const subject = eventSubject(subscription.scope, subscription.topic)
  const recent = new RecentMessages(rememberedMax)
  const { stats, log } = parts
  let endpointCount = 0
  let socket: Subscriber | null = null
  const deliverFrames = (frames: readonly Uint8Array[]): void => {
    const envelope = decodeEventFrames(frames, subscription.topic, null, subject)
    if (typeof envelope !== 'string' && endpointCount > 1 && !recent.isNew(envelope.publisherId, envelope.sequence)) {
      stats.duplicates += 1
      return
    }
    deliver(envelope, subscription, stats, log)
  }
  const connection = new BrokerConnection(parts, subscription.scope, 'xpub', {
    open: (zmq, context) => {
      const opened = new zmq.Subscriber({ context, receiveHighWaterMark: socketLimits.highWaterMark, linger: 0, reconnectInterval: 100, reconnectMaxInterval: 2000, tcpKeepalive: 1 })
      socket = opened
      opened.subscribe(subject)
      stats.subscriberSockets += 1
      void readMessages(opened, () => socket === opened, deliverFrames).catch((error: unknown) => {
        if (socket === opened) log.error({ topic: subscription.topic, reason: (error as Error).message }, 'no more events from the brokers')
      })
      return opened
    },
    changed: (count) => { endpointCount = count },
  })
  return {
    close: () => {
      if (socket !== null) stats.subscriberSockets -= 1
      socket = null
      connection.close()
    },
  }
}

/** A publisher that is connected to all brokers. It has no channel record: the brokers are known. */
export async function publisherOverBrokers(parts: BrokerParts, scope: EventScope, topic: string): Promise<EventPublisher> {
  const { stats, clock } = parts
  const publisherId = newPublisherId(parts.random)
  const subject = eventSubject(scope, topic)
  let socket: Publisher | null = null
  const connection = new BrokerConnection(parts, scope, 'xsub', {
    open: (zmq, context) => {
      socket = new zmq.Publisher({ context, sendHighWaterMark: socketLimits.highWaterMark, sendTimeout: 0, linger: 0, reconnectInterval: 100, reconnectMaxInterval: 2000, tcpKeepalive: 1 })
      stats.publisherSockets += 1
      return socket
    },
    changed: () => {},
  })
  await connection.opened
  let sequence = 0n
  return {
    publisherId,
    publish: (payload) => {
      if (connection.isClosed) return
      const envelope = { publisherId, sequence, publishedAtMs: Math.floor(clock.epochMs()), topic, payload }
      sequence += 1n
      stats.published += 1
      socket?.send(encodeEventFrames(envelope, subject)).catch(() => { stats.publishDropped += 1 })
    },
    close: async () => {
      if (connection.isClosed) return
      if (socket !== null) stats.publisherSockets -= 1
      connection.close()
    },
  }
}

interface SocketUse<Socket> {
  open(zmq: Awaited<ReturnType<ZmqLibrary['load']>>['zmq'], context: Awaited<ReturnType<ZmqLibrary['load']>>['context']): Socket
  /** How many brokers are connected to now. */
  changed(count: number): void
}

/** One socket that follows the brokers of a namespace. */
class BrokerConnection {
  /** Resolves when there is a socket, connected to the brokers that are known. Errors: the library cannot be loaded. */
  readonly opened: Promise<void>
  isClosed = false
  readonly #parts: BrokerParts
  readonly #side: keyof BrokerEndpoints
  readonly #use: SocketUse<Publisher | Subscriber>
  readonly #scope: EventScope
  #socket: Publisher | Subscriber | null = null
  #watch: Watch | null = null
  /** Addresses by record. */
  readonly #wanted = new Map<string, readonly string[]>()
  readonly #connected = new Set<string>()

  constructor(parts: BrokerParts, scope: EventScope, side: keyof BrokerEndpoints, use: SocketUse<Publisher | Subscriber>) {
    this.#parts = parts
    this.#scope = scope
    this.#side = side
    this.#use = use
    this.opened = this.#open()
    this.opened.catch((error: unknown) => parts.log.error({ stage: 'event-broker', reason: (error as Error).message }, 'no events: the zeromq package cannot be loaded on this platform'))
  }

  close(): void {
    this.isClosed = true
    this.#watch?.close()
    this.#socket?.close()
    this.#socket = null
  }

  async #open(): Promise<void> {
    const { library, source, discovery } = this.#parts
    const { zmq, context } = await library.load()
    if (this.isClosed) return
    this.#socket = this.#use.open(zmq, context)
    if (source.kind === 'fixed') {
      this.#wanted.set('', source.endpoints[this.#side])
      return this.#reconcile()
    }
    const prefix = brokerPrefix(this.#scope.namespace)
    this.#watch = discovery.watch('v1/event_channels', prefix, (event) => {
      if (event.kind === 'synced') {
        if (this.#wanted.size === 0) this.#parts.log.warn({ stage: 'event-broker' }, `DYN_ZMQ_BROKER_ENABLED is set, but no broker is registered under ${prefix}; waiting for one`)
        return
      }
      const endpoints = event.kind === 'put' ? brokerEndpointsOf(event.value) : null
      if (endpoints === null) this.#wanted.delete(event.key)
      else this.#wanted.set(event.key, endpoints[this.#side])
      this.#reconcile()
    })
  }

  #reconcile(): void {
    const socket = this.#socket
    if (socket === null) return
    const wanted = new Set([...this.#wanted.values()].flat())
    for (const endpoint of this.#connected) if (!wanted.has(endpoint)) this.#try(endpoint, () => { this.#connected.delete(endpoint); socket.disconnect(endpoint) })
    for (const endpoint of wanted) if (!this.#connected.has(endpoint)) this.#try(endpoint, () => { socket.connect(endpoint); this.#connected.add(endpoint) })
    this.#use.changed(this.#connected.size)
  }

  #try(endpoint: string, work: () => void): void {
    try {
      work()
    } catch (error) {
      this.#parts.stats.unusableChannels += 1
      this.#parts.log.warn({ stage: 'event-broker', channel: endpoint, reason: (error as Error).message }, 'event broker not usable')
    }
  }
}

function brokerEndpointsOf(record: JsonObject): BrokerEndpoints | null {
  const transport = record['transport'] as JsonObject | undefined
  if (typeof transport !== 'object' || transport === null || transport['kind'] !== 'ZmqBroker') return null
  const config = transport['config'] as JsonObject | undefined
  if (typeof config !== 'object' || config === null) return null
  const listOf = (value: unknown): string[] => (Array.isArray(value) ? value.filter((item): item is string => typeof item === 'string' && item.startsWith('tcp://')) : [])
  return { xsub: listOf(config['xsub_endpoints']), xpub: listOf(config['xpub_endpoints']) }
}
