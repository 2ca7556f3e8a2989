/**
 * One way to an etcd cluster: a gRPC client of one endpoint at a time, the next endpoint after a failure.
 *
 * The client library is used for its stubs, authentication and TLS only; retries, leases and watches are ours, so that their times are.
 */
import type { Etcd3, IOptions } from 'etcd3'
import { readFile } from 'node:fs/promises'
import type { EtcdBackendOptions } from './discovery-options.ts'
import { DiscoveryOptionError } from './discovery-options.ts'

/** Deadline of one call that names none. */
const callTimeoutMs = 5_000
/** A listing of a large deployment is one message. */
const maxMessageBytes = 256 * 1024 * 1024

type Library = typeof import('etcd3')
type GlobalPolicy = NonNullable<NonNullable<IOptions['faultHandling']>['global']>

/** Calls through, without the library's own retries and circuit breakers. */
const passThrough = {
  execute: async <T>(call: (context: { signal: AbortSignal }) => PromiseLike<T> | T): Promise<T> => call({ signal: new AbortController().signal }),
  onSuccess: () => ({ dispose() {} }),
  onFailure: () => ({ dispose() {} }),
  _altReturn: undefined as never,
} as unknown as GlobalPolicy

/** A client, and what to end when it is given up: closing it does not end its open streams. */
export interface EtcdSession {
  readonly client: Etcd3
  readonly endpoint: string
  readonly streams: Set<(reason: Error) => void>
}

export interface EtcdClientSettings extends EtcdBackendOptions {
  /** Which endpoint and what error, each time one fails. */
  readonly onFailure?: (endpoint: string, error: Error) => void
}

/** Text of a PEM setting that is text or a path. */
async function readPem(variable: string, setting: string): Promise<Buffer> {
  if (setting.includes('-----BEGIN')) return Buffer.from(setting)
  try {
    return await readFile(setting)
  } catch (error) {
    throw new DiscoveryOptionError(variable, setting.slice(0, 200), `neither PEM text nor a file that can be read (${(error as NodeJS.ErrnoException).code ?? 'error'})`)
  }
}

export class EtcdConnection {
  readonly #settings: EtcdClientSettings
  #library: Library | null = null
  #credentials: IOptions['credentials']
  #next = 0
  #session: EtcdSession | null = null
  #closed = false

  constructor(settings: EtcdClientSettings) {
    this.#settings = settings
  }

  /** Loads the library and the certificates. Errors: DiscoveryOptionError for a certificate that cannot be read. */
  async load(): Promise<void> {
    const { tls } = this.#settings
    if (tls !== undefined) {
      this.#credentials = {
        rootCertificate: await readPem('ETCD_AUTH_CA', tls.ca),
        ...(tls.clientKey === undefined ? {} : { privateKey: await readPem('ETCD_AUTH_CLIENT_KEY', tls.clientKey) }),
        ...(tls.clientCert === undefined ? {} : { certChain: await readPem('ETCD_AUTH_CLIENT_CERT', tls.clientCert) }),
      }
    }
    this.#library = await import('etcd3')
  }

  /** True for an error that trying again cannot mend: wrong user, password or rights. */
  isRefusal(error: unknown): boolean {
    const library = this.#library
    if (library === null) return false
    const { EtcdAuthenticationFailedError, EtcdPermissionDeniedError, GRPCUnauthenticatedError } = library
    if (error instanceof EtcdAuthenticationFailedError || error instanceof EtcdPermissionDeniedError || error instanceof GRPCUnauthenticatedError) return true
    return error instanceof Error && /authentication is not enabled|user name is empty/.test(error.message)
  }

  isLeaseLoss(error: unknown): boolean {
    return this.#library !== null && error instanceof this.#library.EtcdLeaseInvalidError
  }

  /**
   * Makes one call, on each endpoint in turn until one answers; a client that has been in use gets a second chance as a new one.
   * The call must be safe to repeat. Rejects with the last endpoint's error, or etcd's own refusal.
   */
  async call<T>(work: (client: Etcd3) => Promise<T>): Promise<T> {
    let last: unknown
    const attempts = this.#settings.endpoints.length + (this.#session === null ? 0 : 1)
    for (let attempt = 0; attempt < attempts; attempt += 1) {
      const session = this.session()
      try {
        return await work(session.client)
      } catch (error) {
        last = error
        if (!this.#isFailure(error)) throw error
        this.giveUp(session, error as Error)
      }
    }
    throw last
  }

  /** The client to use now. Errors: after `close`. */
  session(): EtcdSession {
    if (this.#library === null || this.#closed) throw new Error('the etcd connection is closed')
    if (this.#session === null) {
      const { endpoints } = this.#settings
      const endpoint = endpoints[this.#next % endpoints.length] ?? ''
      this.#session = { client: new this.#library.Etcd3(this.#clientOptions(endpoint)), endpoint, streams: new Set() }
    }
    return this.#session
  }

  /** Ends a client and its streams; the next call takes the next endpoint. */
  giveUp(session: EtcdSession, error: Error): void {
    if (this.#session !== session) return
    this.#session = null
    this.#next += 1
    this.#settings.onFailure?.(session.endpoint, error)
    end(session, error)
  }

  close(): void {
    this.#closed = true
    const session = this.#session
    this.#session = null
    if (session !== null) end(session, new Error('the etcd connection is closed'))
  }

  /** True when another endpoint, or the same later, may answer; false for an answer of etcd. */
  #isFailure(error: unknown): boolean {
    const library = this.#library
    if (library === null || !(error instanceof Error)) return false
    return library.isRecoverableError(error) || error instanceof library.ClientClosedError || isTokenEnd(error, library)
  }

  #clientOptions(endpoint: string): IOptions {
    const { auth, keepaliveIntervalSeconds, keepaliveTimeoutSeconds } = this.#settings
    return {
      hosts: [endpoint],
      ...(this.#credentials === undefined ? {} : { credentials: this.#credentials }),
      ...(auth === undefined ? {} : { auth }),
      faultHandling: { host: () => passThrough, global: passThrough },
      defaultCallOptions: (context) => (context.isStream ? {} : { deadline: Date.now() + callTimeoutMs }),
      grpcOptions: {
        'grpc.max_receive_message_length': maxMessageBytes,
        ...(keepaliveIntervalSeconds === 0 ? {} : {
          'grpc.keepalive_time_ms': keepaliveIntervalSeconds * 1_000,
          'grpc.keepalive_timeout_ms': keepaliveTimeoutSeconds * 1_000,
          'grpc.keepalive_permit_without_calls': 1,
        }),
      },
    }
  }
}

/** A token that ended, or is of rights that have changed since: a new client gets a new one. The library has no class for the latter. */
const isTokenEnd = (error: Error, library: Library): boolean =>
  error instanceof library.EtcdInvalidAuthTokenError || error.message.includes('revision of auth store is old')

function end(session: EtcdSession, reason: Error): void {
  for (const stop of session.streams) stop(reason)
  session.streams.clear()
  session.client.close()
}
