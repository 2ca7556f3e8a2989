/** What a handler knows of its request besides the value, and what a caller may say of its call: id, metadata, trace, the wish to end. */
import { randomUUID } from 'node:crypto'

export interface ContextOptions {
  /** Default: a new UUID. */
  readonly id?: string
  /** Travels with the request, and with what is called on its behalf. */
  readonly metadata?: Readonly<Record<string, string>>
  /** Frame headers as they came: traceparent, tracestate, x-request-id ... */
  readonly headers?: Readonly<Record<string, string>>
}

/** Headers that are passed on to an engine or to a further call. */
const traceNames = ['traceparent', 'tracestate', 'x-request-id', 'request-id'] as const
const traceparent = /^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}/

/**
 * One request's context. State: running, then stopped (a graceful end is asked for), then killed; each at most once.
 * Calls that are given this context end with it.
 */
export class Context {
  readonly id: string
  /** May be changed; calls made with this context carry it as it is then. */
  readonly metadata: Record<string, string>
  readonly headers: Readonly<Record<string, string>>
  readonly #stop = new AbortController()
  readonly #kill = new AbortController()
  #onFirstToken: (() => void) | null = null

  constructor(options: ContextOptions = {}) {
    this.id = options.id ?? randomUUID()
    this.metadata = { ...options.metadata }
    this.headers = options.headers ?? {}
  }

  /** Aborted when the request is stopped or killed. */
  get signal(): AbortSignal {
    return this.#stop.signal
  }

  /** Aborted when the request is killed: the caller has left, or the worker goes down. */
  get killSignal(): AbortSignal {
    return this.#kill.signal
  }

  isStopped(): boolean {
    return this.#stop.signal.aborted
  }

  isKilled(): boolean {
    return this.#kill.signal.aborted
  }

  /** Asks for a graceful end of the request. */
  stopGenerating(): void {
    this.#stop.abort(new Error(`request ${this.id} is stopped`))
  }

  /** Ends the request at once. */
  kill(): void {
    this.stopGenerating()
    this.#kill.abort(new Error(`request ${this.id} is killed`))
  }

  /** Resolves when the request is stopped or killed. */
  async killedOrStopped(): Promise<void> {
    if (this.isStopped()) return
    await new Promise<void>((resolve) => this.signal.addEventListener('abort', () => resolve(), { once: true }))
  }

  /** The first output token exists: a bound `FirstTokenSource` tells routers that the prompt is computed. Once; later calls do nothing. */
  notifyFirstToken(): void {
    const listener = this.#onFirstToken
    this.#onFirstToken = null
    listener?.()
  }

  /** True while a bound source waits for the first token. */
  get awaitsFirstToken(): boolean {
    return this.#onFirstToken !== null
  }

  /** For `FirstTokenSource`: what `notifyFirstToken` calls. */
  bindFirstToken(listener: () => void): void {
    this.#onFirstToken = listener
  }

  get traceId(): string | null {
    return traceparent.exec(this.headers['traceparent'] ?? '')?.[1] ?? null
  }

  /** The span of the caller. */
  get parentSpanId(): string | null {
    return traceparent.exec(this.headers['traceparent'] ?? '')?.[2] ?? null
  }

  /** W3C trace headers to pass on; null when the request has none. */
  traceHeaders(): Record<string, string> | null {
    const found: Record<string, string> = {}
    for (const name of traceNames) {
      const value = this.headers[name]
      if (value !== undefined) found[name] = value
    }
    return found['traceparent'] === undefined ? null : found
  }

  /** Same trace and metadata, another id, an end of its own. */
  detached(id: string): Context {
    return new Context({ id, metadata: this.metadata, headers: this.headers })
  }
}
