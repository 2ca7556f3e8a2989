/**
 * Bookings shared with the other routers of one worker endpoint: publishes own ones, hears those of others, and asks replicas for what was missed.
 *
 * Routers of releases before 1.6 use the scope of the component: they are heard there, and once one has spoken, told there, too.
 * Nothing waits for a peer. Source: router-algorithm 13 for the bookings; the second topic is this router's own.
 */
import { activeSequenceBatchMax, decodeActiveSequences, encodeActiveSequence, encodeActiveSequenceBatch, type ActiveSequenceEvent } from '../dynamo/wire/active-sequences.ts'
import { decodeReplicaMessage, encodeReplicaMessage, replicaStateTopic, type ReplicaMessage } from '../dynamo/wire/replica-state.ts'
import { WireError } from '../dynamo/wire/wire-error.ts'
import { componentScope, eventTopicPrefix, publisherIdOfKey } from '../dynamo/event-plane/event-keys.ts'
import { activeSequencesTopic } from '../dynamo/kv-state/load-events.ts'
import type { WorkerId } from '../model/worker.ts'
import type { Clock, Discovery, EndpointId, EventEnvelope, EventPlane, EventPublisher, Log, TimerHandle, Watch } from '../ports.ts'
import type { BookingListener, BookingNote } from '../router/bookings.ts'
import type { Router } from '../router/contract.ts'
import { OwnBookings } from './own-bookings.ts'
import { PeerTable } from './peer-table.ts'
import type { ReplicaStats } from './replica-stats.ts'

export interface ReplicaLinkParts {
  /** The worker endpoint whose load is shared. */
  readonly endpoint: EndpointId
  readonly plane: EventPlane
  /** Started. */
  readonly discovery: Discovery
  readonly clock: Clock
  readonly log: Log
  readonly stats: ReplicaStats
  /** Null while there is none. */
  router(): Router | null
}

/** Longest wait of an event for others that go with it. */
const batchMs = 1
const beatMs = 1000
const retryMs = 5000
/** Answers go to all replicas, so one is enough for questions that come together. */
const answerPauseMs = 200
const partBytesMax = 512 * 1024
/** Events that wait for their publisher. */
const outgoingMax = 8192

export class ReplicaLink implements BookingListener {
  readonly #parts: ReplicaLinkParts
  readonly #own: OwnBookings
  readonly #peers: PeerTable
  readonly #watches: Watch[]
  readonly #isBatched: boolean
  #publisher: EventPublisher | null = null
  #speaker: EventPublisher | null = null
  /** Where routers of earlier releases listen; opened when one is heard. */
  #earlier: EventPublisher | 'opening' | null = null
  #outgoing: ActiveSequenceEvent[] = []
  #flushTimer: TimerHandle | null = null
  #beatTimer: TimerHandle | null = null
  #answerTimer: TimerHandle | null = null
  #sequence = 0n
  #round = 0
  #lastBeatMs = -Infinity
  #closed = false

  constructor(parts: ReplicaLinkParts) {
    this.#parts = parts
    const { endpoint, plane, discovery, clock, log, stats } = parts
    this.#isBatched = plane.kind === 'zmq'
    this.#own = new OwnBookings(discovery.instanceId, () => this.#blockSize, stats)
    this.#peers = new PeerTable(discovery.instanceId, {
      book: (booking) => parts.router()?.bookings.bookPeer(booking, clock.nowMs()) ?? 'unknown-rank',
      prefillCompleted: (key) => parts.router()?.bookings.peerPrefillCompleted(key) ?? false,
      free: (key) => parts.router()?.bookings.freePeer(key) ?? false,
      touch: (key) => parts.router()?.bookings.touchPeer(key) ?? false,
      ask: (publisherId) => this.#say({ kind: 'ask', routerId: discovery.instanceId, publisherId }),
    }, stats)
    this.#watches = [
      plane.subscribe(endpoint, replicaStateTopic, ({ payload }) => this.#hear(payload)),
      plane.subscribe(componentScope(endpoint), activeSequencesTopic, (envelope) => this.#hearEarlier(envelope)),
      ...[endpoint, componentScope(endpoint)].map((scope) => discovery.watch('v1/event_channels', eventTopicPrefix(scope, activeSequencesTopic), (event) => {
        const publisherId = event.kind === 'delete' ? publisherIdOfKey(event.key) : null
        if (publisherId !== null && this.#peers.gone(publisherId)) log.info({ stage: 'replicas', publisher: publisherId.toString(16) }, 'a router left: its bookings end')
      })),
    ]
    void this.#open()
  }

  get peerCount(): number {
    return this.#peers.peerCount
  }

  get bookingCount(): number {
    return this.#peers.bookingCount
  }

  get waitingCount(): number {
    return this.#peers.waitingCount
  }

  get #blockSize(): number {
    return this.#parts.router()?.settings.blockSize ?? 0
  }

  // ---- Own bookings --------------------------------------------------------------------------------------------------------

  onBooked(note: BookingNote): void {
    this.#send(this.#own.booked(note), 'add')
  }

  onPrefillCompleted(requestId: string): void {
    const event = this.#own.prefillCompleted(requestId)
    if (event !== null) this.#send(event, 'mark')
  }

  onEnded(requestId: string): void {
    const event = this.#own.ended(requestId)
    if (event !== null) this.#send(event, 'free')
  }

  // ---- Others --------------------------------------------------------------------------------------------------------------

  /** Takes the events of one message. Gives the marks of own requests, sent by the worker that has them. */
  apply({ publisherId, sequence }: EventEnvelope, events: readonly ActiveSequenceEvent[]): readonly ActiveSequenceEvent[] {
    if (publisherId === this.#publisher?.publisherId) return []
    const { clock, discovery } = this.#parts
    this.#peers.apply(publisherId, sequence, events, this.#blockSize, clock.nowMs())
    return events.filter(({ data, requestId, workerId, routerId }) =>
      data.kind === 'mark_prefill_completed' && routerId !== discovery.instanceId && this.#own.workerOf(requestId) === workerId)
  }

  workerAdded(workerId: WorkerId): void {
    this.#peers.workerAdded(workerId)
  }

  workerGone(workerId: WorkerId): void {
    this.#own.dropWorker(workerId)
    this.#peers.workerGone(workerId)
  }

  /** The router was made anew. */
  reset(): void {
    this.#own.clear()
    this.#peers.reset(this.#parts.clock.nowMs())
  }

  close(): void {
    this.#flush()
    this.#closed = true
    for (const timer of [this.#flushTimer, this.#beatTimer, this.#answerTimer]) timer?.cancel()
    for (const watch of this.#watches) watch.close()
    for (const publisher of [this.#publisher, this.#speaker, this.#earlier === 'opening' ? null : this.#earlier]) {
      publisher?.close().catch((error: unknown) => this.#parts.log.debug({ stage: 'replicas', reason: String(error) }, 'publisher not closed cleanly'))
    }
  }

  // ---- Publishing ----------------------------------------------------------------------------------------------------------

  async #open(): Promise<void> {
    const { plane, endpoint, log, clock } = this.#parts
    try {
      this.#publisher ??= await plane.publisher(endpoint, activeSequencesTopic)
      this.#speaker ??= await plane.publisher(endpoint, replicaStateTopic)
    } catch (error) {
      if (this.#closed) return
      log.error({ stage: 'replicas', reason: (error as Error).message }, 'bookings cannot be shared: no publisher; trying again')
      this.#beatTimer = clock.setTimer(retryMs, () => void this.#open())
      return
    }
    if (this.#closed) {
      await Promise.allSettled([this.#publisher.close(), this.#speaker.close()])
      return
    }
    this.#flush()
    this.#tick()
  }

  #send(event: ActiveSequenceEvent, kind: 'add' | 'mark' | 'free'): void {
    const { stats, clock } = this.#parts
    if (this.#outgoing.length >= outgoingMax) {
      stats.refused.outgoing += 1
      return
    }
    stats.sent[kind] += 1
    this.#outgoing.push(event)
    if (this.#publisher === null) return
    if (!this.#isBatched || this.#outgoing.length >= activeSequenceBatchMax) this.#flush()
    else this.#flushTimer ??= clock.setTimer(batchMs, () => this.#flush())
  }

  #flush(): void {
    this.#flushTimer?.cancel()
    this.#flushTimer = null
    const publisher = this.#publisher
    if (publisher === null || this.#closed) return
    const events = this.#outgoing
    this.#outgoing = []
    this.#tellEarlier(events)
    const size = this.#isBatched ? activeSequenceBatchMax : 1
    for (let start = 0; start < events.length; start += size) {
      const batch = events.slice(start, start + size)
      publisher.publish(this.#isBatched ? encodeActiveSequenceBatch(batch) : encodeActiveSequence(batch[0] as ActiveSequenceEvent))
      this.#sequence += 1n
    }
  }

  // ---- Routers of earlier releases -----------------------------------------------------------------------------------------

  #hearEarlier({ publisherId, sequence, payload }: EventEnvelope): void {
    const { clock, stats, log } = this.#parts
    if (this.#earlier !== null && this.#earlier !== 'opening' && publisherId === this.#earlier.publisherId) return
    try {
      const isNews = this.#peers.applyEarlier(publisherId, sequence, decodeActiveSequences(payload), this.#blockSize, clock.nowMs())
      if (isNews && this.#earlier === null) void this.#openEarlier()
    } catch (error) {
      if (!(error instanceof WireError)) throw error
      stats.malformed += 1
      log.debug({ stage: 'replicas', reason: error.message }, 'event not readable')
    }
  }

  /** Begins with what stands. */
  async #openEarlier(): Promise<void> {
    const { plane, endpoint, log, clock } = this.#parts
    this.#earlier = 'opening'
    try {
      const publisher = await plane.publisher(componentScope(endpoint), activeSequencesTopic)
      if (this.#closed) return void publisher.close().catch(() => {})
      this.#earlier = publisher
      log.info({ stage: 'replicas' }, 'a router of an earlier release shares its load: it is told ours at the scope of the component')
      // Where subscribers connect to publishers, they need a moment to find this one.
      clock.setTimer(plane.kind === 'zmq' ? 500 : 0, () => this.#tellEarlier(this.#own.parts(Infinity, Infinity).flat()))
    } catch (error) {
      this.#earlier = null
      log.error({ stage: 'replicas', reason: (error as Error).message }, 'bookings cannot be shared with a router of an earlier release: no publisher')
    }
  }

  /** One event per message. */
  #tellEarlier(events: readonly ActiveSequenceEvent[]): void {
    const publisher = this.#earlier
    if (publisher === null || publisher === 'opening' || this.#closed) return
    for (const event of events) publisher.publish(encodeActiveSequence(event))
  }

  // ---- Replicas of this router ---------------------------------------------------------------------------------------------

  #tick(): void {
    if (this.#closed) return
    const { clock, log } = this.#parts
    for (const routerId of this.#peers.tick(clock.nowMs())) log.warn({ stage: 'replicas', router_id: routerId.toString() }, 'no sign of life from a replica: its bookings end')
    this.#beat()
    this.#beatTimer = clock.setTimer(beatMs, () => this.#tick())
  }

  #beat(): void {
    const { discovery, clock } = this.#parts
    if (this.#publisher === null) return
    // What is told as published must be on its way.
    this.#flush()
    this.#lastBeatMs = clock.nowMs()
    this.#say({ kind: 'beat', routerId: discovery.instanceId, publisherId: this.#publisher.publisherId, sequence: this.#sequence, bookings: this.#own.size })
  }

  #say(message: ReplicaMessage): void {
    this.#speaker?.publish(encodeReplicaMessage(message))
  }

  #hear(payload: Uint8Array): void {
    const { clock, stats, log } = this.#parts
    try {
      const message = decodeReplicaMessage(payload)
      if (message.kind === 'ask') this.#onAsk(message.publisherId)
      else if (message.kind === 'state') this.#peers.state(message, this.#blockSize, clock.nowMs())
      else if (this.#peers.beat(message, clock.nowMs()) && clock.nowMs() - this.#lastBeatMs > 100) this.#beat()
    } catch (error) {
      if (!(error instanceof WireError)) throw error
      stats.malformed += 1
      log.debug({ stage: 'replicas', reason: error.message }, 'replica message not readable')
    }
  }

  #onAsk(publisherId: bigint): void {
    const { clock } = this.#parts
    if (this.#publisher?.publisherId !== publisherId || this.#closed) return
    this.#answerTimer ??= clock.setTimer(this.#round === 0 ? 0 : answerPauseMs, () => {
      this.#answerTimer = null
      this.#answer()
    })
  }

  #answer(): void {
    const { discovery, stats } = this.#parts
    const publisher = this.#publisher
    if (publisher === null || this.#closed) return
    this.#flush()
    this.#round += 1
    stats.statesSent += 1
    const parts = this.#own.parts(activeSequenceBatchMax, partBytesMax)
    for (const [part, events] of parts.entries()) {
      this.#say({ kind: 'state', routerId: discovery.instanceId, publisherId: publisher.publisherId, sequence: this.#sequence, round: this.#round, part, parts: parts.length, events })
    }
  }
}
