/**
 * Discovery over etcd, as Dynamo keeps it: one lease per process, whose id is the instance id and on which all its records hang.
 *
 * The lease gone, the identity is gone: `lost` resolves, and the process should end its work and start anew.
 */
import type { Bucket, Clock, Discovery, DiscoveryEvent, JsonObject, Log, TimerHandle, Watch } from '../../ports.ts'
import { stringifyJson } from '../wire/json.ts'
import type { EtcdBackendOptions } from './discovery-options.ts'
import { EtcdConnection } from './etcd-connection.ts'
import { EtcdFollower, listEtcd } from './etcd-follower.ts'
import { EtcdLease } from './etcd-lease.ts'
import { RecordView } from './record-view.ts'
import { isUnderPrefix } from './store-key.ts'

const firstRetryMs = 1_000
const lastRetryMs = 30_000
/** Silence at start-up after which the log says what is waited for. */
const sayWaitingAfterMs = 2_000

export type EtcdDiscoveryOptions = EtcdBackendOptions & { readonly clock: Clock; readonly log: Log }

export class EtcdDiscovery implements Discovery {
  readonly kind = 'etcd'
  readonly lost: Promise<Error>
  readonly #options: EtcdDiscoveryOptions
  readonly #clock: Clock
  readonly #log: Log
  readonly #connection: EtcdConnection
  readonly #own = new Set<string>()
  readonly #followers = new Map<string, EtcdFollower>()
  readonly #watches = new Set<Watch>()
  #lose: (error: Error) => void = () => {}
  #lease: EtcdLease | null = null
  #closed = false

  constructor(options: EtcdDiscoveryOptions) {
    if (options.endpoints.length === 0) throw new RangeError('ETCD_ENDPOINTS names no endpoint')
    this.#options = options
    this.#clock = options.clock
    this.#log = options.log
    this.#connection = new EtcdConnection({
      ...options,
      onFailure: (endpoint, error) => this.#log.debug({ endpoint, reason: error.message }, 'etcd endpoint failed'),
    })
    this.lost = new Promise((resolve) => {
      this.#lose = resolve
    })
  }

  get instanceId(): bigint {
    return this.#leaseNow().id
  }

  async start(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    await this.#connection.load()
    const aborted = onAbort(signal)
    const waiting = this.#clock.setTimer(sayWaitingAfterMs, () => this.#sayWaiting(null))
    try {
      await this.#connect(aborted)
    } catch (error) {
      this.#connection.close()
      throw error
    } finally {
      waiting.cancel()
      aborted.release()
    }
  }

  async put(bucket: Bucket, key: string, value: JsonObject): Promise<void> {
    const full = `${bucket}/${key}`
    if (this.#closed) throw new Error(`cannot put ${full}: discovery is closed`)
    const lease = this.#leaseNow()
    const [name, text] = [Buffer.from(full), Buffer.from(stringifyJson(value))]
    const write = { key: name, value: text, lease: lease.idText }
    try {
      const created = await this.#connection.call((client) => client.kv.txn({
        compare: [{ key: name, target: 'Version', result: 'Equal', version: 0 }],
        success: [{ request_put: write }],
        failure: [{ request_range: { key: name } }],
      }))
      if (!created.succeeded) {
        const standing = created.responses[0]?.response_range.kvs[0]
        // Also ours: what an attempt wrote whose answer was lost.
        if (standing !== undefined && standing.lease !== lease.idText) throw new Error(`cannot put ${full}: the record belongs to another process`)
        await this.#connection.call((client) => client.kv.put(write))
      }
    } catch (error) {
      if (this.#connection.isLeaseLoss(error)) lease.lose(error as Error)
      throw error
    }
    this.#own.add(full)
  }

  async remove(bucket: Bucket, key: string): Promise<void> {
    const full = `${bucket}/${key}`
    if (!this.#own.delete(full)) return
    await this.#connection.call((client) => client.kv.deleteRange({ key: Buffer.from(full) }))
  }

  async list(bucket: Bucket, prefix: string): Promise<ReadonlyMap<string, JsonObject>> {
    const { texts } = await listEtcd(this.#connection, bucket, prefix)
    const view = new RecordView(bucket, this.#log)
    view.replaceAll(texts)
    return view.snapshot(prefix)
  }

  watch(bucket: Bucket, prefix: string, listener: (event: DiscoveryEvent) => void): Watch {
    const { follower, place } = this.#followerFor(bucket, prefix)
    const watch = follower.view.follow(prefix, listener, () => {
      this.#watches.delete(watch)
      if (follower.view.followerCount > 0 || this.#followers.get(place) !== follower) return
      this.#followers.delete(place)
      follower.close()
    })
    this.#watches.add(watch)
    return watch
  }

  async close(deadlineMs: number): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    for (const watch of this.#watches) watch.close()
    const lease = this.#lease
    if (lease !== null) {
      let timer: TimerHandle | undefined
      const late = new Promise<never>((_resolve, reject) => {
        timer = this.#clock.setTimer(deadlineMs, () => reject(new Error(`no answer within ${deadlineMs} ms`)))
      })
      await Promise.race([lease.revoke(), late]).catch((error: unknown) => {
        if (!this.#connection.isLeaseLoss(error)) this.#log.warn({ reason: (error as Error).message }, 'etcd lease not revoked; its records expire by themselves')
      })
      timer?.cancel()
    }
    this.#connection.close()
  }

  #leaseNow(): EtcdLease {
    if (this.#lease === null) throw new Error('discovery has no instance id before start() has resolved')
    return this.#lease
  }

  /** A follower of the place itself, or a standing one of a place above. */
  #followerFor(bucket: Bucket, prefix: string): { follower: EtcdFollower; place: string } {
    for (const [place, follower] of this.#followers) {
      if (place.startsWith(`${bucket} `) && isUnderPrefix(prefix, place.slice(bucket.length + 1))) return { follower, place }
    }
    const place = `${bucket} ${prefix}`
    const follower = new EtcdFollower({
      connection: this.#connection, bucket, prefix, view: new RecordView(bucket, this.#log), clock: this.#clock, log: this.#log,
    })
    this.#followers.set(place, follower)
    return { follower, place }
  }

  /** Asks for the lease until it is granted, refused, out of time or aborted. */
  async #connect(aborted: Abortion): Promise<void> {
    const endMs = this.#clock.nowMs() + this.#options.startupTimeoutSeconds * 1_000
    for (let delayMs = firstRetryMs; ; delayMs = Math.min(delayMs * 2, lastRetryMs)) {
      try {
        const granting = EtcdLease.grant(this.#options.leaseTtlSeconds, {
          connection: this.#connection, clock: this.#clock, log: this.#log, onLost: (error) => this.#lose(error),
        })
        granting.then((lease) => { if (aborted.signal.aborted) lease.end() }, () => {})
        this.#lease = await Promise.race([granting, aborted.promise])
        return
      } catch (error) {
        if (isAbort(error)) throw error.reason
        if (this.#connection.isRefusal(error)) {
          throw new Error(`etcd at ${this.#address()} refuses us: ${(error as Error).message}; check ETCD_AUTH_USERNAME and ETCD_AUTH_PASSWORD`, { cause: error })
        }
        const leftMs = endMs - this.#clock.nowMs()
        if (leftMs <= 0) {
          throw new Error(`etcd at ${this.#address()} was not reachable for ${this.#options.startupTimeoutSeconds} s (${(error as Error).message}); ${wayOut}`, { cause: error })
        }
        this.#sayWaiting(error as Error)
        await Promise.race([this.#delay(Math.min(delayMs, leftMs)), aborted.promise]).catch((reason: unknown) => {
          throw isAbort(reason) ? reason.reason : reason
        })
      }
    }
  }

  #delay(delayMs: number): Promise<void> {
    return new Promise((resolve) => void this.#clock.setTimer(delayMs, resolve))
  }

  #address(): string {
    return this.#options.endpoints.join(', ')
  }

  #sayWaiting(error: Error | null): void {
    if (this.#lease !== null) return
    this.#log.warn(
      { endpoint: this.#address(), reason: error?.message ?? 'no answer' },
      `etcd is not reachable at ${this.#address()}; trying for ${this.#options.startupTimeoutSeconds} s. ${wayOut}`,
    )
  }
}

const wayOut = 'Set ETCD_ENDPOINTS to its address, or do without etcd: DYN_DISCOVERY_BACKEND=file'

class Aborted extends Error {
  readonly reason: unknown
  constructor(reason: unknown) {
    super('aborted')
    this.reason = reason
  }
}

const isAbort = (error: unknown): error is Aborted => error instanceof Aborted

interface Abortion {
  readonly signal: AbortSignal
  /** Rejects with `Aborted` on abort. */
  readonly promise: Promise<never>
  /** Takes the listener away. */
  release(): void
}

function onAbort(signal: AbortSignal): Abortion {
  let listener = (): void => {}
  const promise = new Promise<never>((_resolve, reject) => {
    listener = () => reject(new Aborted(signal.reason))
    signal.addEventListener('abort', listener, { once: true })
  })
  promise.catch(() => {})
  return { signal, promise, release: () => signal.removeEventListener('abort', listener) }
}
