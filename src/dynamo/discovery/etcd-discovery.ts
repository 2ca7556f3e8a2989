/**
 * Discovery over etcd, as Dynamo keeps it: one lease per process, whose id is the instance id and on which all its records hang.
 *
 * A lease that is gone is granted again under its id, and the records are written again: other processes see this one leave and
 * come back as the same. Until then the process goes on serving who knows it.
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
const firstRegainMs = 250
const lastRegainMs = 2_000
/** How long a record waits for a lost lease. */
const putWaitMs = 5_000
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
  /** What stands, or is to stand again, by full key. */
  readonly #own = new Map<string, string>()
  #saidWaiting = false
  readonly #followers = new Map<string, EtcdFollower>()
  readonly #watches = new Set<Watch>()
  #lease: EtcdLease | null = null
  /** Stands while the lease is gone; resolves when it is back with all records. */
  #regained: Promise<void> | null = null
  #regainCount = 0
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
    // An identity in etcd can be had again, however long it was gone.
    this.lost = new Promise(() => {})
  }

  /** How often the lease was lost and granted again. */
  get regainCount(): number {
    return this.#regainCount
  }

  get instanceId(): bigint {
    return this.#leaseNow().id
  }

  async start(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.#lease !== null) return
    await this.#connection.load()
    const aborted = onAbort(signal)
    const waiting = this.#clock.setTimer(sayWaitingAfterMs, () => { if (!this.#saidWaiting) this.#sayWaiting(null) })
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
    if (this.#regained !== null) await this.#inTime(this.#regained, `cannot put ${full}: the etcd lease is lost and not granted again yet`)
    const text = stringifyJson(value)
    const lease = this.#leaseNow()
    try {
      await this.#write(full, text, lease)
    } catch (error) {
      if (this.#connection.isLeaseLoss(error)) lease.lose(error as Error)
      if (error instanceof RecordTaken) throw error
      throw new Error(`etcd at ${this.#address()} did not take the record ${full}: ${(error as Error).message}`, { cause: error })
    }
    this.#own.set(full, text)
  }

  /** Creates the record, or replaces it when it hangs on our lease. */
  async #write(full: string, text: string, lease: EtcdLease): Promise<void> {
    const name = Buffer.from(full)
    const write = { key: name, value: Buffer.from(text), lease: lease.idText }
    const created = await this.#connection.call((client) => client.kv.txn({
      compare: [{ key: name, target: 'Version', result: 'Equal', version: 0 }],
      success: [{ request_put: write }],
      failure: [{ request_range: { key: name } }],
    }))
    if (created.succeeded) return
    const standing = created.responses[0]?.response_range.kvs[0]
    // Also ours: what an attempt wrote whose answer was lost.
    if (standing !== undefined && standing.lease !== lease.idText) throw new RecordTaken(`cannot put ${full}: the record belongs to another process`)
    await this.#connection.call((client) => client.kv.put(write))
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
          connection: this.#connection, clock: this.#clock, log: this.#log, onLost: (error) => this.#regain(error),
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

  /** Asks for the lost lease until it is granted, then writes all own records again. */
  #regain(loss: Error): void {
    if (this.#closed || this.#regained !== null) return
    const idText = this.#leaseNow().idText
    this.#log.error({ stage: 'discovery', reason: loss.message }, 'the lease in etcd is lost: this process cannot be found; registering again under the same id')
    this.#regained = this.#regainLease(idText).then(() => {
      this.#regained = null
      if (this.#closed) return
      this.#regainCount += 1
      this.#log.info({ stage: 'discovery', instance_id: idText, records: this.#own.size }, 'registered again in etcd')
    })
  }

  async #regainLease(idText: string): Promise<void> {
    let isSaid = false
    for (let delayMs = firstRegainMs; !this.#closed; delayMs = Math.min(delayMs * 2, lastRegainMs)) {
      try {
        // A lease that is lost again while records are written: the loop goes on with it.
        const lost: Error[] = []
        const lease = await EtcdLease.grant(this.#options.leaseTtlSeconds, {
          connection: this.#connection, clock: this.#clock, log: this.#log,
          onLost: (error) => { if (this.#lease === lease && this.#regained === null) this.#regain(error); else lost.push(error) },
        }, idText)
        if (this.#closed) return lease.end()
        this.#lease = lease
        await this.#writeAll(lease)
        if (lost.length === 0) return
      } catch (error) {
        this.#lease?.end()
        const said = isSaid ? 'debug' : 'warn'
        isSaid = true
        this.#log[said]({ stage: 'discovery', reason: (error as Error).message }, 'etcd does not take the registration yet; trying until it does')
      }
      await this.#delay(delayMs)
    }
  }

  async #writeAll(lease: EtcdLease): Promise<void> {
    for (const [full, text] of this.#own) {
      try {
        await this.#write(full, text, lease)
        // Removed meanwhile: it must not come back.
        if (!this.#own.has(full)) await this.#connection.call((client) => client.kv.deleteRange({ key: Buffer.from(full) }))
      } catch (error) {
        if (!(error instanceof RecordTaken)) throw error
        this.#own.delete(full)
        this.#log.error({ stage: 'discovery', key: full, reason: error.message }, 'a record is not written again')
      }
    }
  }

  /** Errors: `message` when it does not come within `putWaitMs`. */
  async #inTime(promise: Promise<void>, message: string): Promise<void> {
    let timer: TimerHandle | undefined
    const late = new Promise<never>((_resolve, reject) => {
      timer = this.#clock.setTimer(putWaitMs, () => reject(new Error(message)))
    })
    await Promise.race([promise, late]).finally(() => timer?.cancel())
  }

  #delay(delayMs: number): Promise<void> {
    return new Promise((resolve) => void this.#clock.setTimer(delayMs, resolve))
  }

  #address(): string {
    return this.#options.endpoints.join(', ')
  }

  #sayWaiting(error: Error | null): void {
    if (this.#lease !== null) return
    this.#saidWaiting = true
    this.#log.warn(
      { endpoint: this.#address(), reason: error?.message ?? 'no answer' },
      `etcd is not reachable at ${this.#address()}; trying for ${this.#options.startupTimeoutSeconds} s. ${wayOut}`,
    )
  }
}

/** A record under our key that hangs on another lease. */
class RecordTaken extends Error {}

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
