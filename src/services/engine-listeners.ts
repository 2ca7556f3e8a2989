/**
 * Event sockets of engines: one SUB per rank, and a DEALER to the engine's replay socket while a gap is filled.
 *
 * Lossy like the socket itself; what is missed and not replayed is counted. Source: router-algorithm 3.6.
 */
import type { Dealer, Subscriber } from 'zeromq'
import { readMessages, socketLimits, type ZmqLibrary } from '../dynamo/event-plane/zmq-library.ts'
import { decodeRawMessage } from '../engines/raw-kv-events.ts'
import type { RouterEvent } from '../model/kv-event.ts'
import type { WorkerRank } from '../model/worker.ts'
import type { Log } from '../ports.ts'
import { createFeedStats, EngineFeed, type FeedStats } from './engine-feed.ts'
import type { EventSources } from './event-sources.ts'
import { eventEndpointsOf, type WorkerRecord } from './selection/worker-record.ts'

export type ListenerStatus = 'pending' | 'active' | 'failed'

export interface ListenerSettings {
  readonly rank: WorkerRank
  readonly endpoint: string
  /** Null: what is missed is lost. */
  readonly replayEndpoint: string | null
  readonly blockSize: number
  onEvent(event: RouterEvent): void
}

/** Longest silence of a replay. */
const replaySilenceMs = 5000

/** One rank's socket, from `start` to `close`. */
export class EngineListener {
  readonly settings: ListenerSettings
  readonly #library: ZmqLibrary
  readonly #log: Log
  readonly #stats: FeedStats
  readonly #feed: EngineFeed
  #socket: Subscriber | null = null
  #isClosed = false
  status: ListenerStatus = 'pending'
  lastError: string | null = null

  constructor(settings: ListenerSettings, library: ZmqLibrary, log: Log, stats: FeedStats) {
    this.settings = settings
    this.#library = library
    this.#log = log
    this.#stats = stats
    this.#feed = new EngineFeed(settings.rank, settings.blockSize, stats, (event) => settings.onEvent(event))
  }

  start(): void {
    this.#run().catch((error: unknown) => {
      if (this.#isClosed) return
      this.status = 'failed'
      this.lastError = error instanceof Error ? error.message : String(error)
      this.#log.error({ ...this.#fields, reason: this.lastError }, 'events of an engine cannot be read')
    })
  }

  close(): void {
    this.#isClosed = true
    this.#socket?.close()
  }

  get #fields() {
    const { rank, endpoint } = this.settings
    return { stage: 'engine-events', worker_id: rank.workerId.toString(), dp_rank: rank.dpRank, address: endpoint }
  }

  async #run(): Promise<void> {
    const { zmq, context } = await this.#library.load()
    if (this.#isClosed) return
    const socket = new zmq.Subscriber({
      context, receiveHighWaterMark: socketLimits.highWaterMark, linger: 0, reconnectInterval: 100, reconnectMaxInterval: 2000, tcpKeepalive: 1,
      ipv6: this.settings.endpoint.includes('['),
    })
    this.#socket = socket
    socket.connect(this.settings.endpoint)
    socket.subscribe('')
    this.status = 'active'
    if (this.settings.replayEndpoint === null) {
      await readMessages(socket, () => !this.#isClosed, (frames) => this.#live(frames))
      return
    }
    // A replay comes before the message that showed its gap.
    for await (const frames of socket) {
      if (this.#isClosed) return
      const message = decodeRawMessage(frames)
      const gap = message.kind === 'message' ? this.#feed.gapBefore(message.sequence) : null
      if (gap !== null && message.kind === 'message') await this.#replay(gap, message.sequence, this.settings.replayEndpoint)
      this.#live(frames)
    }
  }

  #live(frames: readonly Uint8Array[]): void {
    const message = decodeRawMessage(frames)
    if (message.kind === 'refused') {
      this.#stats.malformed += 1
      return
    }
    const gap = this.#feed.gapBefore(message.sequence)
    if (gap !== null) {
      this.#stats.gaps += 1
      this.#stats.lost += Number(message.sequence - gap)
      this.#log.warn({ ...this.#fields, reason: `${message.sequence - gap} messages before ${message.sequence}` }, 'events of an engine were lost; some cached blocks are unknown, or known for too long')
    }
    this.#feed.accept(message.sequence, message.payload)
  }

  /** Asks for the messages from `start` on; each moves the cursor. */
  async #replay(start: bigint, end: bigint, endpoint: string): Promise<void> {
    const { zmq, context } = await this.#library.load()
    const socket: Dealer = new zmq.Dealer({ context, linger: 0, receiveTimeout: replaySilenceMs, sendTimeout: replaySilenceMs, ipv6: endpoint.includes('[') })
    try {
      socket.connect(endpoint)
      const asked = new Uint8Array(8)
      new DataView(asked.buffer).setBigUint64(0, start)
      await socket.send([new Uint8Array(0), asked])
      for (;;) {
        if (this.#isClosed) return
        const frames: readonly Uint8Array[] = await socket.receive()
        // vLLM sends the topic, too; SGLang does not.
        const [sequence, payload] = frames.length === 4 ? frames.slice(2) : frames.slice(1)
        if (payload === undefined || sequence?.length !== 8 || payload.length === 0) break
        this.#feed.accept(new DataView(sequence.buffer, sequence.byteOffset, 8).getBigUint64(0), payload, true)
      }
    } catch (error) {
      this.#stats.failedReplays += 1
      this.#log.warn({ ...this.#fields, reason: error instanceof Error ? error.message : String(error) }, `messages ${start} to ${end} of an engine were not replayed`)
    } finally {
      socket.close()
    }
  }
}

/** Listeners of all workers of a selection service. */
export class EngineListeners implements EventSources {
  readonly #library: ZmqLibrary
  readonly #log: Log
  readonly stats: FeedStats = createFeedStats()
  readonly #byWorker = new Map<bigint, Map<number, EngineListener>>()

  constructor(library: ZmqLibrary, log: Log) {
    this.#library = library
    this.#log = log
  }

  get count(): number {
    let count = 0
    for (const ranks of this.#byWorker.values()) count += ranks.size
    return count
  }

  follow(record: WorkerRecord, blockSize: number, onEvent: (event: RouterEvent) => void, onReset: (rank: WorkerRank) => void): void {
    const { workerId, replayEndpoint } = record
    const ranks = this.#byWorker.get(workerId) ?? new Map<number, EngineListener>()
    this.#byWorker.set(workerId, ranks)
    const endpoints = eventEndpointsOf(record)
    for (const [dpRank, listener] of ranks) {
      const isSame = endpoints.get(dpRank) === listener.settings.endpoint && listener.settings.replayEndpoint === replayEndpoint
      if (isSame) continue
      listener.close()
      ranks.delete(dpRank)
      onReset({ workerId, dpRank })
    }
    for (const [dpRank, endpoint] of endpoints) {
      if (ranks.has(dpRank)) continue
      const listener = new EngineListener({ rank: { workerId, dpRank }, endpoint, replayEndpoint, blockSize, onEvent }, this.#library, this.#log, this.stats)
      ranks.set(dpRank, listener)
      listener.start()
    }
  }

  leave(workerId: bigint): void {
    for (const listener of this.#byWorker.get(workerId)?.values() ?? []) listener.close()
    this.#byWorker.delete(workerId)
  }

  close(): void {
    for (const workerId of this.#byWorker.keys()) this.leave(workerId)
  }
}
