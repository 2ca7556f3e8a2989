/**
 * Replicas of a service tell each other of bookings and bindings: each publishes on a port of its own and listens to the others. Best
 * effort: nothing waits for a slow peer, drops are counted. Source: router-algorithm 13, captured from Dynamo 1.6.1's services.
 */
import type { Publisher, Subscriber } from 'zeromq'
import { readMessages, socketLimits, type ZmqLibrary } from '../dynamo/event-plane/zmq-library.ts'
import type { AffinityUpdate } from '../affinity/affinity-table.ts'
import type { ActiveSequenceEvent } from '../dynamo/wire/active-sequences.ts'
import type { WorkerRank } from '../model/worker.ts'
import type { Log } from '../ports.ts'
import type { BookingListener } from '../router/bookings.ts'
import type { PartitionKey } from './partition-key.ts'
import type { PeerBook } from './peer-routes.ts'
import { affinityTopic, bookingTopic, decodeReplicaMessage, encodeBinding, encodeBooking } from './replica-wire.ts'
import type { Replication } from './replication.ts'

/** Messages that wait to be sent; further ones are dropped. */
const outboxMax = 100_000

export interface ReplicaStats {
  sent: number
  /** Not sent because the outbox was full or the socket refused. */
  dropped: number
  received: number
  malformed: number
  /** Understood, but of unknown partitions, workers or requests. */
  passedOver: number
}

export interface ReplicaSink {
  onBooking(key: PartitionKey, blockSize: number, event: ActiveSequenceEvent): boolean
  /** Left out: bindings are not listened to. */
  onBinding?(key: PartitionKey, update: AffinityUpdate): boolean
}

export class ReplicaMesh implements Replication, PeerBook {
  readonly writerId: bigint
  readonly stats: ReplicaStats = { sent: 0, dropped: 0, received: 0, malformed: 0, passedOver: 0 }
  readonly #log: Log
  readonly #publisher: Publisher
  readonly #subscriber: Subscriber
  readonly #outbox: [string, Uint8Array][] = []
  readonly #peers = new Set<string>()
  #isSending = false
  #isClosed = false

  private constructor(writerId: bigint, publisher: Publisher, subscriber: Subscriber, log: Log) {
    this.writerId = writerId
    this.#publisher = publisher
    this.#subscriber = subscriber
    this.#log = log
  }

  /** Binds the port on all addresses. Errors: an `Error` that names the port. */
  static async start(library: ZmqLibrary, port: number, writerId: bigint, log: Log): Promise<ReplicaMesh> {
    const { zmq, context } = await library.load()
    const publisher = new zmq.Publisher({ context, sendHighWaterMark: socketLimits.highWaterMark, sendTimeout: 0, linger: 0 })
    try {
      await publisher.bind(`tcp://*:${port}`)
    } catch (error) {
      publisher.close()
      throw new Error(`--replica-sync-port ${port} cannot be bound: ${error instanceof Error ? error.message : String(error)}; give another port`, { cause: error })
    }
    const subscriber = new zmq.Subscriber({ context, receiveHighWaterMark: socketLimits.highWaterMark, linger: 0, reconnectInterval: 100, reconnectMaxInterval: 2000 })
    return new ReplicaMesh(writerId, publisher, subscriber, log)
  }

  /** Listens to the peers from now on. */
  listen(sink: ReplicaSink): void {
    this.#subscriber.subscribe(bookingTopic)
    if (sink.onBinding !== undefined) this.#subscriber.subscribe(affinityTopic)
    readMessages(this.#subscriber, () => !this.#isClosed, (frames) => this.#received(frames, sink)).catch((error: unknown) => {
      if (!this.#isClosed) this.#log.error({ stage: 'replicas', reason: error instanceof Error ? error.message : String(error) }, 'replicas cannot be listened to any more')
    })
  }

  #received(frames: readonly Uint8Array[], sink: ReplicaSink): void {
    const message = decodeReplicaMessage(frames)
    if (message === null) {
      this.stats.malformed += 1
      return
    }
    if (message.writerId === this.writerId) return
    this.stats.received += 1
    const isApplied = message.kind === 'booking' ? sink.onBooking(message.key, message.blockSize, message.event) : sink.onBinding?.(message.key, message.update)
    if (isApplied !== true) this.stats.passedOver += 1
  }

  // ---- Peers ---------------------------------------------------------------------------------------------------------------

  get endpoints(): readonly string[] {
    return [...this.#peers].sort()
  }

  add(endpoint: string): boolean {
    if (this.#peers.has(endpoint)) return false
    this.#subscriber.connect(endpoint)
    this.#peers.add(endpoint)
    return true
  }

  remove(endpoint: string): boolean {
    if (!this.#peers.has(endpoint)) return false
    this.#subscriber.disconnect(endpoint)
    this.#peers.delete(endpoint)
    return true
  }

  // ---- Telling -------------------------------------------------------------------------------------------------------------

  listener(key: PartitionKey, blockSize: number, rankOf: (requestId: string) => WorkerRank | null): BookingListener {
    // Where a request was booked: it must be told when the booking has gone already.
    const ranks = new Map<string, WorkerRank & { readonly loraName: string | null }>()
    const tell = (requestId: string, rank: WorkerRank & { readonly loraName: string | null }, data: ActiveSequenceEvent['data']): void =>
      this.#send(bookingTopic, encodeBooking(key, blockSize, { requestId, workerId: rank.workerId, dpRank: rank.dpRank, data, routerId: this.writerId, loraName: rank.loraName }))
    const placeOf = (requestId: string) => {
      const rank = rankOf(requestId)
      return ranks.get(requestId) ?? (rank === null ? null : { ...rank, loraName: null })
    }
    return {
      onBooked: (note) => {
        const place = { ...note.rank, loraName: note.loraName }
        ranks.set(note.requestId, place)
        tell(note.requestId, place, {
          kind: 'add_request', tokenSequence: note.sequence, trackPrefillTokens: note.trackPrefillTokens, expectedOutputTokens: note.expectedOutputTokens,
          prefillLoadHint: note.prefillTokens > 0 || note.trackPrefillTokens ? { initialEffectivePrefillTokens: note.prefillTokens, expectedPrefillDuration: null } : null,
        })
      },
      onPrefillCompleted: (requestId) => {
        const place = placeOf(requestId)
        if (place !== null) tell(requestId, place, { kind: 'mark_prefill_completed' })
      },
      onEnded: (requestId) => {
        const place = placeOf(requestId)
        ranks.delete(requestId)
        if (place !== null) tell(requestId, place, { kind: 'free' })
      },
    }
  }

  tellBinding(key: PartitionKey, update: AffinityUpdate): void {
    this.#send(affinityTopic, encodeBinding(key, update))
  }

  #send(topic: string, payload: Uint8Array): void {
    if (this.#outbox.length >= outboxMax || this.#isClosed) {
      this.stats.dropped += 1
      return
    }
    this.#outbox.push([topic, payload])
    if (!this.#isSending) void this.#drain()
  }

  async #drain(): Promise<void> {
    this.#isSending = true
    try {
      while (this.#outbox.length > 0) {
        const batch = this.#outbox.splice(0)
        for (const message of batch) {
          try {
            await this.#publisher.send(message)
            this.stats.sent += 1
          } catch {
            this.stats.dropped += 1
          }
        }
      }
    } finally {
      this.#isSending = false
    }
  }

  close(): void {
    this.#isClosed = true
    this.#publisher.close()
    this.#subscriber.close()
  }
}
