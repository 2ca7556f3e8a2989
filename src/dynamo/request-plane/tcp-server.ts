/**
 * The TCP request plane, serving: one listener for all endpoints of the process, told apart by path.
 *
 * Each request is acknowledged in order before any work, then answered over a connection of its own (`response-stream.ts`).
 */
import type { Socket } from 'node:net'
import type { Clock, EndpointId, Log, RequestHandler, RequestPlaneServer, ServedEndpoint } from '../../ports.ts'
import { formatTcpAddress, instancePath } from '../wire/endpoint-path.ts'
import { decodeRequestFrame, encodeAck, RequestFrameAssembler, requestFrameBytesMaxDefault, type RequestFrame } from '../wire/frames.ts'
import { IncomingRequests, Served, type IncomingRequestCounts, type IncomingRequestsOptions } from './incoming-requests.ts'
import { Listener } from './listener.ts'
import { plainTcp, type TcpTls } from './tcp-tls.ts'

/** How a server is made. All but clock and log may be left out. */
export interface TcpRequestServerOptions extends IncomingRequestsOptions {
  readonly clock: Clock
  readonly log: Log
  /** An IP, a wildcard or an interface name; left out, the first usable address that is not loopback. */
  readonly host?: string | undefined
  /** 0 or left out: any free port. */
  readonly port?: number | undefined
  /** Larger request frames close their connection. */
  readonly frameBytesMax?: number
  /** Open connections of callers. */
  readonly connectionsMax?: number
  /** Left out: plain TCP. */
  readonly tls?: TcpTls
}

/** Counters since the start, and what is open now. */
export interface TcpRequestServerStats extends Readonly<IncomingRequestCounts> {
  readonly connections: number
  readonly connectionsDropped: number
  readonly handshakeFailures: number
  readonly openStreams: number
}

/** A request plane server that can be observed. */
export interface TcpRequestServer extends RequestPlaneServer {
  /** The advertised address. Errors: before `start` has resolved. */
  readonly address: { readonly host: string; readonly port: number }
  stats(): TcpRequestServerStats
}

/** Makes a server; nothing is bound before `start`. */
export function createTcpRequestServer(options: TcpRequestServerOptions): TcpRequestServer {
  return new Server(options)
}

const overloadedAck = encodeAck('Server overloaded: worker at capacity')
const acceptedAck = encodeAck('')

interface Work {
  readonly served: Served
  readonly frame: RequestFrame
}

class Server implements TcpRequestServer {
  readonly #options: TcpRequestServerOptions
  readonly #listener: Listener
  readonly #requests: IncomingRequests
  readonly #servedByPath = new Map<string, Served>()

  constructor(options: TcpRequestServerOptions) {
    this.#options = options
    const { host, port, clock, log, tls = plainTcp } = options
    this.#requests = new IncomingRequests(options, clock, log, tls.client)
    this.#listener = new Listener({ host, port, variables: 'DYN_TCP_RPC', connectionsMax: options.connectionsMax ?? 16_384, tls: tls.server }, log, (socket) => this.#connected(socket))
  }

  get address(): { readonly host: string; readonly port: number } {
    const { host, port } = this.#listener
    if (port === 0) throw new Error('the request server has not been started')
    return { host, port }
  }

  start(signal: AbortSignal): Promise<void> {
    return this.#listener.start(signal)
  }

  serve(endpoint: EndpointId, instanceId: bigint, handler: RequestHandler): ServedEndpoint {
    const { host, port } = this.address
    const path = instancePath(endpoint, instanceId)
    if (this.#servedByPath.has(path)) throw new Error(`endpoint ${path} is served already`)
    const served = new Served({ tcp: formatTcpAddress(host, port, path) }, handler, () => {
      if (this.#servedByPath.get(path) === served) this.#servedByPath.delete(path)
    })
    this.#servedByPath.set(path, served)
    return served
  }

  stats(): TcpRequestServerStats {
    const { sockets, dropped, handshakeFailures } = this.#listener
    return { connections: sockets.size, connectionsDropped: dropped, handshakeFailures, openStreams: this.#requests.openStreams, ...this.#requests.counts }
  }

  async close(): Promise<void> {
    this.#servedByPath.clear()
    this.#requests.leaveAll()
    await this.#listener.close()
    await this.#requests.close()
  }

  // ---- A caller's connection ---------------------------------------------------------------------------------------------

  #connected(socket: Socket): void {
    const assembler = new RequestFrameAssembler(this.#options.frameBytesMax ?? requestFrameBytesMaxDefault)
    let broken = false
    socket.on('data', (chunk: Buffer) => {
      if (broken) return
      const acks: Uint8Array[] = []
      const work: Work[] = []
      try {
        assembler.push(chunk, (bytes) => acks.push(this.#admit(decodeRequestFrame(bytes), work)))
      } catch (error) {
        broken = true
        acks.push(this.#refuse(socket, error))
      }
      if (acks.length > 0 && !socket.write(acks.length === 1 ? acks[0] as Uint8Array : Buffer.concat(acks))) {
        // A caller that does not read its acknowledgements is not read either.
        socket.pause()
        socket.once('drain', () => socket.resume())
      }
      if (broken) socket.destroySoon()
      for (const { served, frame } of work) this.#requests.begin(served, frame)
    })
    socket.on('end', () => socket.end())
    socket.on('error', () => socket.destroy())
  }

  /** The acknowledgement of a request; an accepted one is added to `work`. */
  #admit(frame: RequestFrame, work: Work[]): Uint8Array {
    const served = this.#servedByPath.get(frame.path)
    if (served === undefined) {
      this.#requests.counts.refusedUnknown += 1
      return encodeAck(`Server unavailable: unknown endpoint ${frame.path}`)
    }
    if (!this.#requests.admit(served)) return overloadedAck
    work.push({ served, frame })
    return acceptedAck
  }

  #refuse(socket: Socket, error: unknown): Uint8Array {
    const message = error instanceof Error ? error.message : String(error)
    this.#requests.counts.malformedFrames += 1
    this.#options.log.warn({ stage: 'request-frame', reason: message, peer: socket.remoteAddress }, 'closed a connection that sent a malformed request')
    return encodeAck(`Read error: ${message}`)
  }
}
