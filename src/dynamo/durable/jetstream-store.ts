/**
 * The stream, the consumers and the snapshot object of one component's durable KV events, over one NATS session.
 *
 * Stateless but for the session: a new session needs a new store. Every call has the library's deadline. Source: Dynamo 1.1 to 1.3.
 */
import type { NatsConnection } from '@nats-io/transport-node'
import type { DurableNames } from './names.ts'

type JetStream = typeof import('@nats-io/jetstream')
type ObjectStores = typeof import('@nats-io/obj')

export interface StreamState {
  readonly messages: number
  readonly firstSequence: number
}

export interface ConsumerState {
  readonly name: string
  /** All messages up to this sequence are acknowledged; 0: none yet. */
  readonly ackFloor: number
}

/** One message, not acknowledged yet. */
export interface DurableMessage {
  readonly data: Uint8Array
  readonly sequence: number
  ack(): void
}

/** JetStream is not enabled on the server, or not for this account. */
export class NoJetStreamError extends Error {
  override readonly name = 'NoJetStreamError'
}

const requestTimeoutMs = 5_000
const chunkBytes = 131_072
const nanosPerMs = 1_000_000
/** How a pull is asked for, as by the routers of 1.1 and 1.3. */
const pull = { max_messages: 200, expires: 30_000, idle_heartbeat: 15_000 } as const

export class JetStreamStore {
  readonly #names: DurableNames
  readonly #session: NatsConnection
  readonly #library: JetStream
  readonly #objects: ObjectStores
  readonly #manager: Awaited<ReturnType<JetStream['jetstreamManager']>>

  private constructor(names: DurableNames, session: NatsConnection, libraries: { jetstream: JetStream; objects: ObjectStores }, manager: Awaited<ReturnType<JetStream['jetstreamManager']>>) {
    this.#names = names
    this.#session = session
    this.#library = libraries.jetstream
    this.#objects = libraries.objects
    this.#manager = manager
  }

  /** Errors: `NoJetStreamError`; no answer in time. */
  static async open(session: NatsConnection, names: DurableNames): Promise<JetStreamStore> {
    const [jetstream, objects] = await Promise.all([import('@nats-io/jetstream'), import('@nats-io/obj')])
    try {
      const manager = await jetstream.jetstreamManager(session, { timeout: requestTimeoutMs, checkAPI: true })
      return new JetStreamStore(names, session, { jetstream, objects }, manager)
    } catch (error) {
      if (error instanceof Error && /jetstream|no responders|503/i.test(`${error.name} ${error.message}`) && !session.isClosed()) {
        throw new NoJetStreamError(error.message, { cause: error })
      }
      throw error
    }
  }

  /** Creates the stream where there is none; one that stands is left as it is. */
  async ensureStream(maxAgeSeconds: number): Promise<void> {
    const { stream, subjects } = this.#names
    try {
      await this.#manager.streams.info(stream)
    } catch (error) {
      if (!this.#isMissing(error)) throw error
      const { RetentionPolicy, StorageType, DiscardPolicy } = this.#library
      await this.#manager.streams.add({
        name: stream, subjects: [...subjects], retention: RetentionPolicy.Limits, storage: StorageType.File, discard: DiscardPolicy.Old, num_replicas: 1,
        max_age: maxAgeSeconds * 1000 * nanosPerMs, duplicate_window: 120_000 * nanosPerMs, allow_direct: false,
      })
    }
  }

  /** From the stream's start on. False: it stood already, and goes on where it was. */
  async addConsumer(name: string): Promise<boolean> {
    const { AckPolicy, DeliverPolicy, ReplayPolicy } = this.#library
    try {
      await this.#manager.consumers.info(this.#names.stream, name)
      return false
    } catch (error) {
      if (!this.#isMissing(error)) throw error
    }
    await this.#manager.consumers.add(this.#names.stream, {
      durable_name: name, deliver_policy: DeliverPolicy.All, ack_policy: AckPolicy.Explicit, ack_wait: 30_000 * nanosPerMs, max_deliver: -1,
      replay_policy: ReplayPolicy.Instant, max_ack_pending: 1000, max_waiting: 512, inactive_threshold: 300_000 * nanosPerMs,
    })
    return true
  }

  /** False: it was not there. */
  async deleteConsumer(name: string): Promise<boolean> {
    try {
      return await this.#manager.consumers.delete(this.#names.stream, name)
    } catch (error) {
      if (this.#isMissing(error)) return false
      throw error
    }
  }

  async consumers(): Promise<readonly ConsumerState[]> {
    const found: ConsumerState[] = []
    // One that goes while it is listed is listed as null.
    for await (const info of this.#manager.consumers.list(this.#names.stream) as AsyncIterable<{ readonly name: string; readonly ack_floor: { readonly stream_seq: number } } | null>) {
      if (info !== null) found.push({ name: info.name, ackFloor: info.ack_floor.stream_seq })
    }
    return found
  }

  async streamState(): Promise<StreamState> {
    const { state } = await this.#manager.streams.info(this.#names.stream)
    return { messages: state.messages, firstSequence: state.first_seq }
  }

  /** Removes messages up to `sequence`; null: all. */
  async purge(sequence: number | null): Promise<void> {
    await this.#manager.streams.purge(this.#names.stream, sequence === null ? undefined : { seq: sequence + 1 })
  }

  /** Deletes the snapshot with its bucket; none is fine. */
  async deleteSnapshot(): Promise<void> {
    try {
      await this.#manager.streams.delete(`OBJ_${this.#names.bucket}`)
    } catch (error) {
      if (!this.#isMissing(error)) throw error
    }
  }

  /** Null: there is no snapshot. */
  async readSnapshot(): Promise<Uint8Array | null> {
    try {
      const bucket = await this.#bucket('open')
      return await bucket.getBlob(this.#names.object)
    } catch (error) {
      if (this.#isMissing(error)) return null
      throw error
    }
  }

  /** Replaces the snapshot. */
  async writeSnapshot(bytes: Uint8Array): Promise<void> {
    const bucket = await this.#bucket('create')
    await bucket.putBlob({ name: this.#names.object, options: { max_chunk_size: chunkBytes } }, bytes)
  }

  /** Messages of one pull; ends when it expires, or with `stop`. Errors: the consumer is gone. */
  async pull(consumer: string): Promise<{ readonly messages: AsyncIterable<DurableMessage>; stop(): void }> {
    const handle = await this.#library.jetstream(this.#session, { timeout: requestTimeoutMs }).consumers.get(this.#names.stream, consumer)
    const batch = await handle.fetch(pull)
    return {
      messages: (async function* () {
        for await (const message of batch) yield { data: message.data, sequence: message.seq, ack: () => message.ack() }
      })(),
      stop: () => batch.stop(),
    }
  }

  #bucket(how: 'open' | 'create') {
    const manager = new this.#objects.Objm(this.#library.jetstream(this.#session, { timeout: requestTimeoutMs }))
    return how === 'open' ? manager.open(this.#names.bucket) : manager.create(this.#names.bucket, { storage: this.#library.StorageType.File })
  }

  /** Stream, consumer or object not found. */
  #isMissing(error: unknown): boolean {
    return isMissing(error)
  }
}

/** Whether JetStream said that a stream, consumer or object is not there. */
export const isMissing = (error: unknown): boolean =>
  error instanceof Error && (/not found/i.test(error.message) || (error as { code?: unknown }).code === 404)
