/**
 * One connection to NATS that all planes of the process share: opened when first needed, kept for good.
 *
 * The client library gives one session; its end, the next try, and what is subscribed again are ours, so that their times and words are.
 */
import type { Msg, MsgHdrs, NatsConnection, Subscription } from '@nats-io/transport-node'
import type { Clock, Log } from '../../ports.ts'
import { identityOf, NatsSettingError, type NatsSettings } from './nats-settings.ts'

type Library = typeof import('@nats-io/transport-node')

/** `up`: connected, subscriptions sent. `down`: an established connection is lost. `failed`: an attempt to connect has failed. */
export type LinkState = 'up' | 'down' | 'failed'

/** What became of a message: `full`: more waits for the server than may. */
export type PublishResult = 'sent' | 'disconnected' | 'full' | 'too_large'

/** A subscription that outlives connections. */
export interface LinkSubscription {
  /** No more messages. */
  close(): void
  /** No new messages; resolves when those under way have come, or there is no connection. */
  drain(): Promise<void>
}

export interface NatsLinkParts {
  readonly settings: NatsSettings
  readonly clock: Clock
  readonly log: Log
  /** What to do without NATS, for the log line when no server answers. */
  readonly wayOut: string
}

/** Plain counters; the link alone writes them. */
export interface NatsLinkStats {
  connects: number
  disconnects: number
  failedAttempts: number
  /** Messages refused because too much waited for the server. */
  full: number
  /** Callbacks of subscriptions that threw. */
  listenerErrors: number
}

interface Entry {
  readonly subject: string
  readonly queue: string | null
  readonly listener: (message: Msg) => void
  current: Subscription | null
}

/** Per attempt, to connect and be greeted. */
const attemptTimeoutMs = 2_000
const firstDelayMs = 100
const delayMaxMs = 2_000
/** After an attempt without any answer: its socket is not free at once. */
const silentDelayMs = 10_000
/** Between two lines about a server that does not answer. */
const lineEveryMs = 30_000
/** A connection that is silently dead is found within three of these, before a request over it is taken for not acknowledged (10 s). */
const pingIntervalMs = 3_000
/** Bytes that may wait for the server. */
const unflushedMax = 67_108_864
/** Bytes after which the server is asked how far it has read. */
const flushEvery = 1_048_576

/** State: the session, and the subscriptions that the next session gets too. Bounds: `unflushedMax` bytes unsent. */
export class NatsLink {
  readonly stats: NatsLinkStats = { connects: 0, disconnects: 0, failedAttempts: 0, full: 0, listenerErrors: 0 }
  readonly #parts: NatsLinkParts
  readonly #entries = new Set<Entry>()
  readonly #listeners = new Set<(state: LinkState, error: Error | null) => void>()
  #library: Library | null = null
  #session: NatsConnection | null = null
  #loop: Promise<void> | null = null
  #closed = false
  #wake: (() => void) | null = null
  #unflushed = 0
  #flushing = false
  #lastLineMs = -Infinity
  /** Servers that a cluster told of. */
  #gossip: readonly string[] = []

  constructor(parts: NatsLinkParts) {
    this.#parts = parts
  }

  /** The session of now, for JetStream; another one after each reconnection. */
  get session(): NatsConnection | null {
    return this.#session
  }

  get connected(): boolean {
    return this.#session !== null
  }

  get everConnected(): boolean {
    return this.stats.connects > 0
  }

  /** Bytes of payload that the server takes at most. */
  get payloadBytesMax(): number {
    return this.#session?.info?.max_payload ?? 1_048_576
  }

  /** The servers by name, for messages. */
  get servers(): string {
    return this.#parts.settings.servers.join(', ')
  }

  /** Begins to connect, once; goes on until `close`. */
  open(): void {
    if (this.#loop !== null || this.#closed) return
    this.#loop = this.#run()
  }

  /**
   * Opens and waits until connected. Errors: no server within the startup time; a server that refuses us; the abort's reason;
   * `NatsSettingError` for a file that cannot be read.
   */
  async start(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    this.open()
    if (this.connected) return
    const { clock, settings } = this.#parts
    await new Promise<void>((resolve, reject) => {
      let last: Error | null = null
      const settle = (finish: () => void): void => {
        watch.close()
        timer.cancel()
        signal.removeEventListener('abort', aborted)
        finish()
      }
      const aborted = (): void => settle(() => reject(signal.reason as Error))
      const timer = clock.setTimer(settings.startupTimeoutMs, () => settle(() => reject(new Error(
        `no NATS server at ${this.servers} within ${settings.startupTimeoutMs / 1000} s${last === null ? '' : ` (${last.message})`}; ${this.#parts.wayOut}`, { cause: last },
      ))))
      const watch = this.onState((state, error) => {
        last = error
        if (state === 'up') settle(resolve)
        else if (error !== null && this.#isRefusal(error)) settle(() => reject(error instanceof NatsSettingError ? error : refused(this.servers, error)))
      })
      signal.addEventListener('abort', aborted)
    })
  }

  /** Tells of connections from now on. */
  onState(listener: (state: LinkState, error: Error | null) => void): { close(): void } {
    this.#listeners.add(listener)
    return { close: () => void this.#listeners.delete(listener) }
  }

  /** Headers for `publish`. Errors: a name or value that cannot be sent. Only while connected. */
  headers(fields: Readonly<Record<string, string>>): MsgHdrs {
    if (this.#library === null) throw new Error('NATS is not connected')
    const headers = this.#library.headers()
    for (const [name, value] of Object.entries(fields)) headers.append(name, value)
    return headers
  }

  /** Hands a message to the connection. The payload is not copied at once and must not change. */
  publish(subject: string, payload: Uint8Array, options: { readonly reply?: string; readonly headers?: MsgHdrs } = {}): PublishResult {
    const session = this.#session
    if (session === null) return 'disconnected'
    if (payload.length + 4096 > this.payloadBytesMax && payload.length + (options.headers?.toString().length ?? 0) > this.payloadBytesMax) return 'too_large'
    if (this.#unflushed > unflushedMax) {
      this.stats.full += 1
      return 'full'
    }
    try {
      session.publish(subject, payload, options)
    } catch (error) {
      // Closed under our hands; what else the library refuses is the caller's mistake.
      if (session.isClosed()) return 'disconnected'
      throw error
    }
    this.#unflushed += payload.length + 128
    if (this.#unflushed > flushEvery && !this.#flushing) this.#watchFlush(session)
    return 'sent'
  }

  /** Subscribes now and after each reconnection. `queue`: one of its members gets each message. */
  subscribe(subject: string, queue: string | null, listener: (message: Msg) => void): LinkSubscription {
    const entry: Entry = { subject, queue, listener, current: null }
    this.#entries.add(entry)
    this.open()
    if (this.#session !== null) this.#attach(entry, this.#session)
    return {
      close: () => {
        this.#entries.delete(entry)
        if (this.#session !== null) entry.current?.unsubscribe()
        entry.current = null
      },
      drain: async () => {
        this.#entries.delete(entry)
        const { current } = entry
        entry.current = null
        if (this.#session !== null) await current?.drain().catch(() => {})
      },
    }
  }

  /** Resolves when the server has taken all that was sent before, or the connection is lost. Errors: none. */
  async flush(): Promise<void> {
    await this.#session?.flush().catch(() => {})
  }

  /** Ends the connection; what was published is sent, for a second at most. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#wake?.()
    const session = this.#session
    if (session !== null) {
      await Promise.race([this.flush(), new Promise<void>((resolve) => { this.#parts.clock.setTimer(1000, resolve) })])
      await session.close()
    }
    await this.#loop
    this.#listeners.clear()
    this.#entries.clear()
  }

  // ---- Connecting ----------------------------------------------------------------------------------------------------------

  async #run(): Promise<void> {
    let delayMs = firstDelayMs
    while (!this.#closed) {
      const startedMs = this.#parts.clock.nowMs()
      try {
        const session = await this.#connect()
        delayMs = firstDelayMs
        await this.#live(session)
      } catch (error) {
        const isSilent = this.#parts.clock.nowMs() - startedMs >= attemptTimeoutMs - 100
        this.#failed(error instanceof Error ? error : new Error(String(error)))
        await this.#sleep(isSilent ? Math.min(silentDelayMs, delayMs * 5) : delayMs)
        delayMs = Math.min(delayMaxMs, delayMs * 2)
      }
    }
  }

  async #connect(): Promise<NatsConnection> {
    this.#library ??= await import('@nats-io/transport-node')
    const { settings } = this.#parts
    const servers = [...new Set([...settings.servers, ...this.#gossip])]
    const identity = await identityOf(settings, this.#library, servers)
    return this.#library.connect({
      ...identity, servers, name: 'warmpath', reconnect: false, timeout: attemptTimeoutMs, pingInterval: pingIntervalMs, maxPingOut: 2,
      ignoreClusterUpdates: true, noAsyncTraces: true,
    })
  }

  /** One session, from its subscriptions to its end. */
  async #live(session: NatsConnection): Promise<void> {
    if (this.#closed) return void await session.close()
    this.#session = session
    this.#unflushed = 0
    this.#flushing = false
    this.stats.connects += 1
    this.#gossip = (session.info?.connect_urls ?? []).slice(0, 64)
    this.#lastLineMs = -Infinity
    this.#parts.log.info({ stage: 'nats', server: session.getServer() }, this.stats.connects === 1 ? 'connected to NATS' : 'connected to NATS again')
    for (const entry of this.#entries) this.#attach(entry, session)
    void this.#watchStatus(session)
    this.#tell('up', null)
    const reason = await session.closed()
    this.#session = null
    for (const entry of this.#entries) entry.current = null
    if (this.#closed) return
    this.stats.disconnects += 1
    this.#parts.log.warn({ stage: 'nats', reason: reason instanceof Error ? reason.message : 'the server closed the connection' }, `the connection to NATS at ${this.servers} is lost; trying again`)
    this.#tell('down', reason instanceof Error ? reason : null)
  }

  #attach(entry: Entry, session: NatsConnection): void {
    try {
      entry.current = session.subscribe(entry.subject, {
        ...(entry.queue === null ? {} : { queue: entry.queue }),
        // What a listener throws would end the library's reader.
        callback: (error, message) => {
          if (error !== null) return this.#parts.log.error({ stage: 'nats', subject: entry.subject, reason: error.message }, 'a NATS subscription has ended')
          try {
            entry.listener(message)
          } catch (thrown) {
            this.stats.listenerErrors += 1
            this.#parts.log.error({ stage: 'nats', subject: entry.subject, reason: thrown instanceof Error ? thrown.message : String(thrown) }, 'a NATS message could not be handled; it is lost')
          }
        },
      })
    } catch (error) {
      this.#parts.log.error({ stage: 'nats', subject: entry.subject, reason: (error as Error).message }, 'NATS subject cannot be subscribed')
    }
  }

  async #watchStatus(session: NatsConnection): Promise<void> {
    for await (const status of session.status()) {
      if (status.type === 'error') this.#parts.log.error({ stage: 'nats', reason: status.error.message }, 'the NATS server reports an error')
    }
  }

  #watchFlush(session: NatsConnection): void {
    this.#flushing = true
    const before = this.#unflushed
    session.flush().then(() => {
      if (this.#session !== session) return
      this.#unflushed -= before
      this.#flushing = false
    }, () => {})
  }

  #failed(error: Error): void {
    this.stats.failedAttempts += 1
    const nowMs = this.#parts.clock.nowMs()
    if (nowMs - this.#lastLineMs >= lineEveryMs && !this.#closed) {
      this.#lastLineMs = nowMs
      const { log, wayOut } = this.#parts
      log.warn({ stage: 'nats', reason: error.message }, `NATS at ${this.servers} ${this.#isRefusal(error) ? 'refuses us' : 'is not reachable'}; trying on. ${wayOut}`)
    }
    this.#tell('failed', error)
  }

  #isRefusal(error: Error): boolean {
    return error instanceof NatsSettingError || (this.#library !== null && (error instanceof this.#library.AuthorizationError || error instanceof this.#library.UserAuthenticationExpiredError))
  }

  #tell(state: LinkState, error: Error | null): void {
    for (const listener of Array.from(this.#listeners)) listener(state, error)
  }

  async #sleep(ms: number): Promise<void> {
    if (this.#closed) return
    await new Promise<void>((resolve) => {
      const timer = this.#parts.clock.setTimer(ms, resolve)
      this.#wake = () => {
        timer.cancel()
        resolve()
      }
    })
    this.#wake = null
  }
}

const refused = (servers: string, error: Error): Error =>
  new Error(`NATS at ${servers} refuses us (${error.message}); see NATS_AUTH_USERNAME with NATS_AUTH_PASSWORD, NATS_AUTH_TOKEN, NATS_AUTH_NKEY, NATS_AUTH_CREDENTIALS_FILE`, { cause: error })
