/**
 * Durable KV events of a component: a consumer of its own on the shared stream, the snapshot that goes before it, and their upkeep.
 *
 * Order of a start, which the routers of 1.1 and 1.3 rely on: record `router-discovery`, stream, consumer, snapshot, clean-up,
 * and, once a worker is known, the events from the stream's start on. A message is acknowledged before it is applied, so applying
 * must bear repetition. Source: Dynamo 1.1.1 and 1.3.1.
 */
import type { RouterEvent } from '../../model/kv-event.ts'
import type { WorkerId } from '../../model/worker.ts'
import type { Clock, Discovery, EndpointId, InstanceRecord, Log, Random, TimerHandle, Watch } from '../../ports.ts'
import type { NatsLink } from '../nats/nats-link.ts'
import { parseJsonBytes } from '../wire/json.ts'
import { routerEventFromValue } from '../wire/kv-events.ts'
import { WireError } from '../wire/wire-error.ts'
import { isMissing, JetStreamStore } from './jetstream-store.ts'
import { durableNames, type DurableNames } from './names.ts'
import { RouterPeers } from './router-peers.ts'
import { SnapshotKeeper } from './snapshot-keeper.ts'
import { decodeSnapshot, SnapshotError, type SnapshotLayout } from './snapshot-codec.ts'
import { UnknownWorkers } from './unknown-workers.ts'

/** Where durable events end up. */
export interface DurableSink {
  /** `unknown`: the worker, or the rank, is not known yet. `refused`: the rank is fed by events that are not durable. */
  apply(event: RouterEvent): 'applied' | 'unknown' | 'refused'
  /** Any worker can be routed to. */
  hasWorkers(): boolean
  /** Ranks whose blocks come from here: their stored events, parents before children, rank by rank. */
  dump(): Iterable<readonly RouterEvent[]>
  /** All workers that are known publish on the event plane, and none durably. */
  hearsOthersOnly(): boolean
  /** Forgets the blocks of these ranks. */
  reset(): void
  /** A worker of 1.1 is known. */
  hasOldestWorker(): boolean
}

export interface DurableEventsOptions {
  /** A snapshot is made when the stream holds more messages. */
  readonly snapshotThreshold: number
  /** Forget stream and snapshot at the start. */
  readonly resetStates: boolean
  /** Age at which the stream drops messages, where we make it. Units: s. */
  readonly maxAgeSeconds: number
}

export interface DurableEventsParts {
  /** The worker endpoint. */
  readonly endpoint: EndpointId
  readonly link: NatsLink
  readonly discovery: Discovery
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly options: DurableEventsOptions
  /** Any address of this process, for the record that peers look for. */
  readonly transport: InstanceRecord['transport']
  readonly sink: DurableSink
}

/** Counters, and two gauges at the end. */
export interface DurableEventsStats {
  messages: number
  applied: number
  refused: number
  malformed: number
  /** Events of workers that never became known. */
  unknownDropped: number
  snapshotsWritten: number
  snapshotsFailed: number
  /** Times that the consumer had to be made anew. */
  consumersLost: number
  peersRemoved: number
  unknownWaiting: number
  streamMessages: number
}

const snapshotTries = 10
const snapshotRereadMs = 100
const sliceMs = 2
const retryMs = 1_000
/** Seconds in a row that nobody published durably, until it is said. */
const unusedSeconds = 10

export class DurableEvents {
  readonly #parts: DurableEventsParts
  readonly #names: DurableNames
  readonly #peers: RouterPeers
  readonly #unknown = new UnknownWorkers()
  readonly #keeper: SnapshotKeeper
  readonly #stats: DurableEventsStats = {
    messages: 0, applied: 0, refused: 0, malformed: 0, unknownDropped: 0, snapshotsWritten: 0, snapshotsFailed: 0, consumersLost: 0, peersRemoved: 0,
    unknownWaiting: 0, streamMessages: 0,
  }
  #store: JetStreamStore | null = null
  #watch: Watch | null = null
  #timer: TimerHandle | null = null
  #stopPull: (() => void) | null = null
  #closed = false
  #running: Promise<void> = Promise.resolve()
  #lastSequence = 0
  /** Counts up to `unusedSeconds`, once. */
  #unused = 0

  constructor(parts: DurableEventsParts) {
    this.#parts = parts
    this.#names = durableNames(parts.endpoint)
    this.#peers = new RouterPeers(parts.discovery, parts.endpoint)
    this.#keeper = new SnapshotKeeper({
      threshold: parts.options.snapshotThreshold, log: parts.log, stats: this.#stats,
      store: () => this.#store, lastSequence: () => this.#lastSequence,
      dump: () => parts.sink.dump(), layout: () => this.#layout(), isWaiting: () => this.#unknown.count > 0,
    })
  }

  /** Resolves when the state of before is known and this router is one of the stream's. Errors: no server, `NoJetStreamError`, abort. */
  async start(signal: AbortSignal): Promise<void> {
    const { link, options, transport, log } = this.#parts
    await this.#peers.register(transport)
    await link.start(signal)
    const session = link.session
    if (session === null) throw new Error('the connection to NATS was lost during the start')
    const store = await JetStreamStore.open(session, this.#names)
    this.#store = store
    await store.ensureStream(options.maxAgeSeconds)
    if (options.resetStates) await store.purge(null)
    await store.addConsumer(this.#peers.ownName)
    if (options.resetStates) {
      await store.deleteSnapshot()
      log.info({ stage: 'durable', stream: this.#names.stream }, 'durable KV events and their snapshot were removed, as --router-reset-states asks')
    } else await this.#loadSnapshot(store, false)
    this.#watch = this.#peers.onGone((name) => void this.#peerGone(name))
    void this.#removeOrphans(store)
    this.#running = this.#run()
    this.#arm()
    log.info({ stage: 'durable', stream: this.#names.stream, consumer: this.#peers.ownName }, 'following durable KV events')
  }

  /** A worker can be routed to from now on. */
  workerKnown(workerId: WorkerId): void {
    for (const event of this.#unknown.take(workerId)) this.#apply(event)
  }

  stats(): Readonly<DurableEventsStats> {
    this.#stats.unknownDropped = this.#unknown.dropped
    this.#stats.unknownWaiting = this.#unknown.count
    return this.#stats
  }

  /** Gives back the consumer and the record. Errors: none. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#timer?.cancel()
    this.#watch?.close()
    this.#stopPull?.()
    try {
      await this.#peers.unregister()
      await this.#store?.deleteConsumer(this.#peers.ownName)
    } catch (error) {
      this.#parts.log.debug({ stage: 'durable', reason: (error as Error).message }, 'the consumer could not be removed; it ends by itself')
    }
    await this.#running
  }

  // ---- Events --------------------------------------------------------------------------------------------------------------

  async #run(): Promise<void> {
    const { sink, link, log } = this.#parts
    while (!this.#closed && !sink.hasWorkers()) await this.#sleep(100)
    while (!this.#closed) {
      try {
        const store = this.#store
        if (store === null || !link.connected) await this.#reopen()
        else await this.#pull(store)
      } catch (error) {
        if (this.#closed) return
        if (isMissing(error)) await this.#consumerLost()
        else {
          log.debug({ stage: 'durable', reason: (error as Error).message }, 'durable KV events pause')
          this.#store = null
          await this.#sleep(retryMs)
        }
      }
    }
  }

  /** One pull: as many messages as come, in slices so that decisions do not wait. */
  async #pull(store: JetStreamStore): Promise<void> {
    const { clock } = this.#parts
    const { messages, stop } = await store.pull(this.#peers.ownName)
    this.#stopPull = stop
    let until = clock.nowMs() + sliceMs
    for await (const message of messages) {
      message.ack()
      this.#onMessage(message.data)
      this.#lastSequence = message.sequence
      if (clock.nowMs() < until) continue
      await new Promise<void>((resolve) => setImmediate(resolve))
      until = clock.nowMs() + sliceMs
    }
    this.#stopPull = null
    // A pull that ends early ends because the session, or the consumer, is gone.
    if (!this.#closed && !this.#parts.link.connected) this.#store = null
  }

  #onMessage(data: Uint8Array): void {
    this.#stats.messages += 1
    try {
      this.#apply(routerEventFromValue(parseJsonBytes(data) as never))
    } catch (error) {
      if (!(error instanceof WireError) && !(error instanceof RangeError)) throw error
      this.#stats.malformed += 1
      this.#parts.log.debug({ stage: 'durable', reason: error.message }, 'durable KV event not readable')
    }
  }

  #apply(event: RouterEvent): void {
    const result = this.#parts.sink.apply(event)
    if (result === 'unknown') this.#unknown.hold(event, this.#parts.clock.nowMs())
    else this.#stats[result] += 1
  }

  /** After a lost connection: the consumer stands, or is made anew. */
  async #reopen(): Promise<void> {
    const { link, options } = this.#parts
    const { session } = link
    if (session === null) return this.#sleep(retryMs / 4)
    const store = await JetStreamStore.open(session, this.#names)
    await store.ensureStream(options.maxAgeSeconds)
    if (await store.addConsumer(this.#peers.ownName)) await this.#beginAnew(store)
    this.#store = store
  }

  /** Removed by a peer that took us for dead, or unused for too long, or gone with the stream. */
  async #consumerLost(): Promise<void> {
    const { log, options } = this.#parts
    try {
      const store = this.#store
      if (store === null) return
      await store.ensureStream(options.maxAgeSeconds)
      await store.addConsumer(this.#peers.ownName)
      await this.#beginAnew(store)
    } catch (error) {
      log.warn({ stage: 'durable', reason: (error as Error).message }, 'the consumer could not be made; trying again')
      this.#store = null
      await this.#sleep(retryMs)
    }
  }

  /** A new consumer reads all that stands: what is known here is replaced by it, as at a start. What was purged meanwhile is in the snapshot. */
  async #beginAnew(store: JetStreamStore): Promise<void> {
    this.#stats.consumersLost += 1
    this.#lastSequence = 0
    this.#parts.log.warn({ stage: 'durable', consumer: this.#peers.ownName }, 'our consumer of the durable KV events was gone; it is made anew, and the snapshot and the stream are read again')
    await this.#loadSnapshot(store, true)
  }

  // ---- Snapshot ------------------------------------------------------------------------------------------------------------

  /** Read until it stands still: another router may be replacing it. `replaces`: what is known goes for it, or for nothing. */
  async #loadSnapshot(store: JetStreamStore, replaces: boolean): Promise<void> {
    const { log, sink } = this.#parts
    let bytes = await store.readSnapshot()
    for (let attempt = 1; bytes !== null && attempt < snapshotTries; attempt += 1) {
      await this.#sleep(snapshotRereadMs)
      const again: Uint8Array | null = await store.readSnapshot().catch(() => bytes)
      const isStable = again !== null && Buffer.compare(again, bytes) === 0
      bytes = again
      if (isStable) break
    }
    if (replaces) sink.reset()
    if (bytes === null) return
    try {
      const { events, layout } = decodeSnapshot(bytes)
      for (const event of events) this.#apply(event)
      log.info({ stage: 'durable', events: events.length, layout }, 'snapshot of the durable KV events was read')
    } catch (error) {
      if (!(error instanceof SnapshotError)) throw error
      log.warn({ stage: 'durable', object: this.#names.bucket, reason: error.message }, 'the snapshot in the object store is not one of a router of 1.1 or 1.3; starting from the stream alone')
    }
  }

  async #layout(): Promise<SnapshotLayout> {
    return this.#parts.sink.hasOldestWorker() || await this.#peers.hasOldest() ? '1.1' : '1.3'
  }

  #arm(): void {
    const { clock, random } = this.#parts
    this.#timer = clock.setTimer(1000 + 100 * (2 * random.float() - 1), () => {
      this.#unknown.tick(clock.nowMs())
      this.#noteUnused()
      void this.#keeper.check(clock.nowMs()).finally(() => { if (!this.#closed) this.#arm() })
    })
  }

  #noteUnused(): void {
    if (this.#unused >= unusedSeconds) return
    this.#unused = this.#stats.messages === 0 && this.#parts.sink.hearsOthersOnly() ? this.#unused + 1 : 0
    if (this.#unused < unusedSeconds) return
    this.#parts.log.warn({ stage: 'durable', stream: this.#names.stream }, '--router-durable-kv-events: the workers publish their KV events on the event plane, which is read too, and none in JetStream; leave the option out, or start workers of 1.1 to 1.3 with --durable-kv-events')
  }

  // ---- Peers ---------------------------------------------------------------------------------------------------------------

  async #peerGone(name: string): Promise<void> {
    try {
      if (await this.#store?.deleteConsumer(name) !== true) return
      this.#stats.peersRemoved += 1
      this.#parts.log.info({ stage: 'durable', consumer: name }, 'a router is gone; its consumer was removed')
    } catch (error) {
      this.#parts.log.warn({ stage: 'durable', consumer: name, reason: (error as Error).message }, 'the consumer of a router that is gone could not be removed')
    }
  }

  /** Consumers without a router, left by those that died while nobody watched. Routers that start now have a moment to register. */
  async #removeOrphans(store: JetStreamStore): Promise<void> {
    try {
      const consumers = await store.consumers()
      await this.#sleep(1000)
      if (this.#closed) return
      const alive = await this.#peers.names()
      for (const { name } of consumers) if (/^\d+$/.test(name) && name !== this.#peers.ownName && !alive.has(name)) await this.#peerGone(name)
    } catch (error) {
      this.#parts.log.warn({ stage: 'durable', reason: (error as Error).message }, 'consumers without a router could not be looked for')
    }
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => { this.#parts.clock.setTimer(ms, resolve) })
  }
}

