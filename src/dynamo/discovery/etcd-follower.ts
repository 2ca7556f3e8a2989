/**
 * A prefix of etcd, followed: listed, then watched from the revision after; listed and compared again after every break.
 *
 * Between a break and the next listing the last known records stand.
 */
import type { IWatchResponse } from 'etcd3'
import type { Bucket, Clock, Log, TimerHandle } from '../../ports.ts'
import type { EtcdConnection, EtcdSession } from './etcd-connection.ts'
import type { RecordView } from './record-view.ts'

const firstRetryMs = 250
const lastRetryMs = 5_000
/** Keys per page of a listing. */
const pageSize = 1_000

export interface EtcdListing {
  readonly texts: Map<string, string>
  readonly revision: bigint
}

/** The end of the range of keys that start with `prefix`, which must not end in 0xff. */
export function rangeEnd(prefix: Buffer): Buffer {
  const end = Buffer.from(prefix)
  end[end.length - 1] = (end[end.length - 1] ?? 0) + 1
  return end
}

/** All records whose full key starts with `{bucket}/{prefix}`, by bucket-relative key, of one revision. */
export async function listEtcd(connection: EtcdConnection, bucket: Bucket, prefix: string): Promise<EtcdListing> {
  const first = Buffer.from(`${bucket}/${prefix}`)
  const end = rangeEnd(first)
  const texts = new Map<string, string>()
  let from = first
  let revision = '0'
  for (;;) {
    const page = await connection.call((client) => client.kv.range({ key: from, range_end: end, limit: pageSize, revision }))
    if (revision === '0') ({ revision } = page.header)
    for (const { key, value } of page.kvs) texts.set(key.toString().slice(bucket.length + 1), value.toString())
    const last = page.kvs.at(-1)
    if (!page.more || last === undefined) return { texts, revision: BigInt(revision) }
    from = Buffer.concat([last.key, Buffer.from([0])])
  }
}

export interface EtcdFollowerOptions {
  readonly connection: EtcdConnection
  readonly bucket: Bucket
  readonly prefix: string
  readonly view: RecordView
  readonly clock: Clock
  readonly log: Log
}

export class EtcdFollower {
  readonly view: RecordView
  readonly #options: EtcdFollowerOptions
  #closed = false
  #failures = 0
  #stop: ((reason: Error) => void) | null = null
  #timer: TimerHandle | null = null

  constructor(options: EtcdFollowerOptions) {
    this.#options = options
    this.view = options.view
    void this.#follow()
  }

  close(): void {
    this.#closed = true
    this.#timer?.cancel()
    this.#stop?.(new Error('closed'))
  }

  /** One listing and the watch after it; comes back when they broke. */
  async #follow(): Promise<void> {
    const { connection, bucket, prefix } = this.#options
    try {
      const listing = await listEtcd(connection, bucket, prefix)
      if (this.#closed) return
      this.view.replaceAll(listing.texts)
      await this.#watch(listing.revision + 1n)
    } catch (error) {
      this.#broken(error as Error)
    }
  }

  #broken(error: Error): void {
    if (this.#closed) return
    const { clock, log, bucket, prefix } = this.#options
    const delayMs = Math.min(firstRetryMs * 2 ** this.#failures, lastRetryMs)
    if (this.#failures === 0) log.warn({ bucket, prefix, reason: error.message }, 'etcd watch broke; listing again')
    this.#failures = Math.min(this.#failures + 1, 16)
    this.#timer = clock.setTimer(delayMs, () => void this.#follow())
  }

  /** Never resolves while the watch stands; rejects when it broke. */
  async #watch(startRevision: bigint): Promise<never> {
    const session = this.#options.connection.session()
    try {
      return await this.#watchOn(session, startRevision)
    } catch (error) {
      if (!this.#closed && !(error instanceof WatchCanceled)) this.#options.connection.giveUp(session, error as Error)
      throw error
    }
  }

  async #watchOn(session: EtcdSession, startRevision: bigint): Promise<never> {
    const key = Buffer.from(`${this.#options.bucket}/${this.#options.prefix}`)
    const stream = await session.client.watchClient.watch()
    let stop: (reason: Error) => void = () => {}
    try {
      return await new Promise<never>((_resolve, reject) => {
        stop = reject
        if (this.#closed) return reject(new Error('closed'))
        this.#stop = stop
        session.streams.add(stop)
        stream.on('data', (reply) => {
          try {
            this.#take(reply)
          } catch (error) {
            reject(error as Error)
          }
        })
        stream.on('error', reject)
        stream.on('end', () => reject(new Error('the watch stream ended')))
        stream.write({ create_request: { key, range_end: rangeEnd(key), start_revision: String(startRevision) } })
      })
    } finally {
      session.streams.delete(stop)
      this.#stop = null
      // Ended first: the library takes the cancelling of an open stream for a failure of the endpoint and closes all its channels.
      stream.end()
      stream.cancel()
    }
  }

  #take(reply: IWatchResponse): void {
    if (reply.canceled) {
      const compacted = reply.compact_revision === '0' ? '' : ` (compacted at ${reply.compact_revision})`
      throw new WatchCanceled(`etcd ended the watch${compacted} ${reply.cancel_reason ?? ''}`.trim())
    }
    if (reply.created) this.#failures = 0
    for (const event of reply.events) {
      const key = event.kv.key.toString().slice(this.#options.bucket.length + 1)
      if (event.type === 'Delete') this.view.delete(key)
      else this.view.put(key, event.kv.value.toString())
    }
  }
}

/** The server ended the watch and still answers: the connection is good. */
class WatchCanceled extends Error {}
