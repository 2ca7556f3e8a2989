/** One listening TCP socket with the connections that it took. */
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import type { Log } from '../../ports.ts'
import { chooseBindHost } from './bind-host.ts'

/** Where and how to listen. */
export interface ListenOptions {
  /** An IP, a wildcard or an interface name; left out, see `chooseBindHost`. */
  readonly host?: string | undefined
  /** 0 or left out: any free port. */
  readonly port?: number | undefined
  readonly backlog?: number | undefined
  /** Connections beyond are dropped as they come. */
  readonly connectionsMax: number
}

/** Bounds: `connectionsMax`; what is dropped for it is counted in `dropped`. */
export class Listener {
  readonly sockets: Set<Socket> = new Set()
  dropped = 0
  /** The advertised address. Empty and 0 before `start` has resolved. */
  host = ''
  port = 0
  readonly #options: ListenOptions
  readonly #log: Log
  readonly #server: Server

  constructor(options: ListenOptions, log: Log, onConnection: (socket: Socket) => void) {
    this.#options = options
    this.#log = log
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      this.sockets.add(socket)
      socket.once('close', () => this.sockets.delete(socket))
      onConnection(socket)
    })
    this.#server.maxConnections = options.connectionsMax
    this.#server.on('drop', () => { this.dropped += 1 })
  }

  /** Binds. Errors: the address is taken or not ours; the abort's reason. */
  async start(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    const { bind, advertise } = chooseBindHost(this.#options.host)
    await new Promise<void>((resolve, reject) => {
      const settle = (finish: () => void): void => {
        this.#server.removeListener('error', failed)
        signal.removeEventListener('abort', aborted)
        finish()
      }
      const failed = (error: Error): void => settle(() => reject(error))
      const aborted = (): void => settle(() => {
        this.#server.close()
        reject(signal.reason as Error)
      })
      this.#server.once('error', failed)
      signal.addEventListener('abort', aborted)
      this.#server.listen({ host: bind, port: this.#options.port ?? 0, backlog: this.#options.backlog ?? 4096 }, () => settle(resolve))
    })
    this.#server.on('error', (error) => this.#log.error({ stage: 'listen', reason: error.message }, 'listening socket failed'))
    this.host = advertise
    this.port = (this.#server.address() as AddressInfo).port
  }

  /** Destroys all connections and stops listening. */
  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy()
    if (!this.#server.listening) return
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
  }
}
