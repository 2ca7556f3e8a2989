/** One listening TCP socket with the connections that it took. */
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import type { Log } from '../../ports.ts'
import { chooseBindHost, type BindHost } from './bind-host.ts'
import type { ServerTls } from './tcp-tls.ts'

/** Where and how to listen. */
export interface ListenOptions {
  /** An IP, a wildcard or an interface name; left out, see `chooseBindHost`. */
  readonly host?: string | undefined
  /** 0 or left out: any free port. */
  readonly port?: number | undefined
  /** What the variables of host and port begin with, for errors. */
  readonly variables?: string
  readonly backlog?: number | undefined
  /** Connections beyond are dropped as they come. */
  readonly connectionsMax: number
  /** Null or left out: plain TCP. */
  readonly tls?: ServerTls | null | undefined
}

/** Between two log lines about peers that do not complete the handshake. */
const handshakeLineEveryMs = 10_000

/** Bounds: `connectionsMax`; what is dropped for it is counted in `dropped`. */
export class Listener {
  readonly sockets: Set<Socket> = new Set()
  dropped = 0
  /** Connections that ended before TLS was established. */
  handshakeFailures = 0
  /** The advertised address. Empty and 0 before `start` has resolved. */
  host = ''
  port = 0
  readonly #options: ListenOptions
  readonly #log: Log
  readonly #server: Server
  #lastHandshakeLineMs = -Infinity

  constructor(options: ListenOptions, log: Log, onConnection: (socket: Socket) => void) {
    this.#options = options
    this.#log = log
    const { tls } = options
    if (tls === null || tls === undefined) {
      this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
        this.#keep(socket)
        onConnection(socket)
      })
    } else {
      this.#server = createTlsServer({ ...tls.options, allowHalfOpen: true, noDelay: true }, onConnection)
      // Before the handshake, so that closing ends those too.
      this.#server.on('connection', (socket: Socket) => this.#keep(socket))
      this.#server.on('tlsClientError', (error: Error, socket: Socket) => this.#handshakeFailed(error, socket))
    }
    this.#server.maxConnections = options.connectionsMax
    this.#server.on('drop', () => { this.dropped += 1 })
  }

  #chooseHost(): BindHost {
    try {
      return chooseBindHost(this.#options.host)
    } catch (error) {
      const { variables } = this.#options
      throw variables === undefined ? error : new Error(`${variables}_HOST: ${(error as Error).message}`, { cause: error })
    }
  }

  #bindError(error: NodeJS.ErrnoException, host: string, port: number): Error {
    const { variables } = this.#options
    const mend = variables === undefined ? '' : error.code === 'EADDRNOTAVAIL' ? `; set ${variables}_HOST to an address of this machine` : `; set ${variables}_PORT to another port, 0 for a free one`
    return new Error(`cannot listen on ${host}:${port} (${error.code ?? error.message})${mend}`, { cause: error })
  }

  /** Binds. Errors: the address is taken or not ours; the abort's reason. */
  async start(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    const { bind, advertise } = this.#chooseHost()
    const port = this.#options.port ?? 0
    await new Promise<void>((resolve, reject) => {
      const settle = (finish: () => void): void => {
        this.#server.removeListener('error', failed)
        signal.removeEventListener('abort', aborted)
        finish()
      }
      const failed = (error: Error): void => settle(() => reject(this.#bindError(error, bind, port)))
      const aborted = (): void => settle(() => {
        this.#server.close()
        reject(signal.reason as Error)
      })
      this.#server.once('error', failed)
      signal.addEventListener('abort', aborted)
      this.#server.listen({ host: bind, port, backlog: this.#options.backlog ?? 4096 }, () => settle(resolve))
    })
    this.#server.on('error', (error) => this.#log.error({ stage: 'listen', reason: error.message }, 'listening socket failed'))
    this.host = advertise
    this.port = (this.#server.address() as AddressInfo).port
  }

  #keep(socket: Socket): void {
    this.sockets.add(socket)
    socket.once('close', () => this.sockets.delete(socket))
  }

  #handshakeFailed(error: Error, socket: Socket): void {
    this.handshakeFailures += 1
    const peer = socket.remoteAddress
    socket.destroy()
    const nowMs = performance.now()
    if (nowMs - this.#lastHandshakeLineMs < handshakeLineEveryMs) return
    this.#lastHandshakeLineMs = nowMs
    this.#log.warn({ stage: 'tls', peer, reason: error.message }, 'a peer did not complete the TLS handshake; see DYN_TCP_TLS_CA_CERT_PATH there, and DYN_TCP_TLS_CLIENT_CERT_PATH when we ask for one')
  }

  /** Destroys all connections and stops listening. */
  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy()
    if (!this.#server.listening) return
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
  }
}
