/** The lease that is this process's identity in etcd: granted, kept alive, lost and granted again under the same id, or given back. */
import type { Clock, Log, TimerHandle } from '../../ports.ts'
import type { EtcdConnection } from './etcd-connection.ts'

/** Wait before the next attempt after a keep-alive that failed. */
const retryMs = 500

export interface EtcdLeaseOptions {
  readonly connection: EtcdConnection
  readonly clock: Clock
  readonly log: Log
  readonly onLost: (error: Error) => void
}

export class EtcdLease {
  /** A positive int63. */
  readonly id: bigint
  /** The same, as the client writes it. */
  readonly idText: string
  readonly #ttlMs: number
  readonly #options: EtcdLeaseOptions
  /** When the server's last answer was asked for: from then on the TTL runs at the earliest. */
  #renewedMs: number
  #timer: TimerHandle | null = null
  #ended = false

  private constructor(idText: string, ttlMs: number, askedMs: number, options: EtcdLeaseOptions) {
    this.id = BigInt(idText)
    this.idText = idText
    this.#ttlMs = ttlMs
    this.#options = options
    this.#renewedMs = askedMs
  }

  /** `idText`: the id of a lease that was lost. A lease that still stands under it is taken up. */
  static async grant(ttlSeconds: number, options: EtcdLeaseOptions, idText?: string): Promise<EtcdLease> {
    const askedMs = options.clock.nowMs()
    const reply = await options.connection.call((client) => client.leaseClient.leaseGrant({ TTL: ttlSeconds, ...(idText === undefined ? {} : { ID: idText }) }))
      .catch((error: unknown) => {
        if (idText === undefined || !(error instanceof Error) || !/lease already exists/.test(error.message)) throw error
        return { ID: idText, TTL: String(ttlSeconds), error: '' }
      })
    if (reply.error !== '') throw new Error(`etcd grants no lease: ${reply.error}`)
    const lease = new EtcdLease(reply.ID, Number(reply.TTL) * 1_000, askedMs, options)
    // One that was taken up may be about to end.
    lease.#schedule(idText === undefined ? lease.#ttlMs / 3 : 0)
    return lease
  }

  /** Ends the lease at the server; all its keys go. Rejects when etcd does not answer: it then ends by itself. */
  async revoke(): Promise<void> {
    this.end()
    await this.#options.connection.call((client) => client.leaseClient.leaseRevoke({ ID: this.idText }))
  }

  /** Stops keeping it alive. */
  end(): void {
    this.#ended = true
    this.#timer?.cancel()
  }

  /** The lease was found to be gone. */
  lose(error: Error): void {
    if (this.#ended) return
    this.end()
    this.#options.onLost(error)
  }

  #schedule(delayMs: number): void {
    this.#timer = this.#options.clock.setTimer(delayMs, () => void this.#renew())
  }

  async #renew(): Promise<void> {
    const askedMs = this.#options.clock.nowMs()
    try {
      const ttl = await this.#askOnce()
      if (this.#ended) return
      if (ttl === 0) return this.lose(new Error(`etcd lease ${this.id.toString(16)} has expired`))
      this.#renewedMs = askedMs
      this.#schedule(this.#ttlMs / 3)
    } catch (error) {
      if (this.#ended) return
      if (this.#options.connection.isLeaseLoss(error)) return this.lose(error as Error)
      const silentMs = this.#options.clock.nowMs() - this.#renewedMs
      if (silentMs > this.#ttlMs) {
        return this.lose(new Error(`etcd lease ${this.id.toString(16)} could not be renewed for ${Math.round(silentMs / 1_000)} s`, { cause: error }))
      }
      this.#options.log.warn({ reason: (error as Error).message, duration_ms: Math.round(silentMs) }, 'etcd lease not renewed; trying again')
      this.#schedule(retryMs)
    }
  }

  /** One keep-alive on a stream of its own. Resolves to the seconds that the server now gives. */
  async #askOnce(): Promise<number> {
    const { connection, clock } = this.#options
    const session = connection.session()
    try {
      const stream = await session.client.leaseClient.leaseKeepAlive({ deadline: Date.now() + Math.max(1_000, Math.min(5_000, this.#ttlMs / 3)) })
      let timer: TimerHandle | undefined
      let stop: (reason: Error) => void = () => {}
      try {
        return await new Promise<number>((resolve, reject) => {
          timer = clock.setTimer(6_000, () => reject(new Error('no answer to a keep-alive')))
          stop = reject
          session.streams.add(stop)
          stream.on('data', (reply) => resolve(Number(reply.TTL)))
          stream.on('error', reject)
          stream.on('end', () => reject(new Error('the keep-alive stream ended')))
          stream.write({ ID: this.idText })
        })
      } finally {
        timer?.cancel()
        session.streams.delete(stop)
        stream.end()
      }
    } catch (error) {
      if (!connection.isLeaseLoss(error)) connection.giveUp(session, error as Error)
      throw error
    }
  }
}
