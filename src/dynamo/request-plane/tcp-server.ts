/**
 * The TCP request plane, serving: one listener for all endpoints of the process, told apart by path.
 *
 * Each request is acknowledged in order before any work, then answered over a connection of its own (`response-stream.ts`).
 */
import type { Socket } from 'node:net'
import { FailureError } from '../../model/failure.ts'
import type { Clock, EndpointId, IncomingRequest, Log, RequestHandler, RequestPlaneServer, ServedEndpoint, TransportAddress } from '../../ports.ts'
import { formatTcpAddress, instancePath } from '../wire/endpoint-path.ts'
import { decodeEnvelope, type RequestEnvelope } from '../wire/envelope.ts'
import { decodeRequestFrame, encodeAck, RequestFrameAssembler, requestFrameBytesMaxDefault, type RequestFrame } from '../wire/frames.ts'
import { Listener } from './listener.ts'
import { ResponseStream, type ResponseStreamLimits, type ResponseStreamOwner } from './response-stream.ts'

/** How a server is made. All but clock and log may be left out. */
export interface TcpRequestServerOptions extends Partial<ResponseStreamLimits> {
  readonly clock: Clock
  readonly log: Log
  /** An IP, a wildcard or an interface name; left out, the first usable address that is not loopback. */
  readonly host?: string | undefined
  /** 0 or left out: any free port. */
  readonly port?: number | undefined
  /** Larger request frames close their connection. */
  readonly frameBytesMax?: number
  /** Requests under way in all endpoints; more are refused as overloaded. */
  readonly inflightMax?: number
  /** Open connections of callers. */
  readonly connectionsMax?: number
}

/** Counters since the start, and what is open now. */
export interface TcpRequestServerStats {
  readonly connections: number
  readonly connectionsDropped: number
  readonly openStreams: number
  readonly requests: number
  readonly refusedUnknown: number
  readonly refusedOverloaded: number
  readonly malformedFrames: number
  /** Accepted requests whose caller could not be told that they were not understood. */
  readonly unreadableRequests: number
  readonly dialFailures: number
  /** Streams given up because their caller did not read and their source did not pause. */
  readonly overflowedStreams: number
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

/** For ended streams to send their last bytes when the server closes. */
const flushTimeoutMs = 1_000
const overloadedAck = encodeAck('Server overloaded: worker at capacity')
const acceptedAck = encodeAck('')

class Served implements ServedEndpoint {
  inflight = 0
  readonly transport: TransportAddress
  readonly handler: RequestHandler
  readonly #close: () => void

  constructor(transport: TransportAddress, handler: RequestHandler, close: () => void) {
    this.transport = transport
    this.handler = handler
    this.#close = close
  }

  close(): void {
    this.#close()
  }
}

interface Work {
  readonly served: Served
  readonly frame: RequestFrame
}

class Server implements TcpRequestServer, ResponseStreamOwner {
  readonly #options: TcpRequestServerOptions
  readonly #limits: ResponseStreamLimits
  readonly #listener: Listener
  readonly #servedByPath = new Map<string, Served>()
  readonly #streams = new Map<ResponseStream, Served | null>()
  readonly #inflightMax: number
  #inflight = 0
  #onStreamsClosed: (() => void) | null = null
  readonly #counts = { requests: 0, refusedUnknown: 0, refusedOverloaded: 0, malformedFrames: 0, unreadableRequests: 0, dialFailures: 0, overflowedStreams: 0 }

  constructor(options: TcpRequestServerOptions) {
    this.#options = options
    this.#inflightMax = options.inflightMax ?? 50_000
    this.#limits = {
      connectTimeoutMs: options.connectTimeoutMs ?? 5_000,
      closeTimeoutMs: options.closeTimeoutMs ?? 10_000,
      bufferBytes: options.bufferBytes ?? 65_536,
      bufferBytesMax: options.bufferBytesMax ?? 67_108_864,
    }
    const { host, port, log } = options
    this.#listener = new Listener({ host, port, connectionsMax: options.connectionsMax ?? 16_384 }, log, (socket) => this.#connected(socket))
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
    return { connections: this.#listener.sockets.size, connectionsDropped: this.#listener.dropped, openStreams: this.#streams.size, ...this.#counts }
  }

  async close(): Promise<void> {
    this.#servedByPath.clear()
    for (const stream of this.#streams.keys()) stream.leave()
    await this.#listener.close()
    if (this.#streams.size === 0) return
    await new Promise<void>((resolve) => {
      const timer = this.#options.clock.setTimer(flushTimeoutMs, () => { for (const stream of this.#streams.keys()) stream.destroy() })
      this.#onStreamsClosed = () => {
        timer.cancel()
        resolve()
      }
    })
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
      for (const { served, frame } of work) this.#begin(served, frame)
    })
    socket.on('end', () => socket.end())
    socket.on('error', () => socket.destroy())
  }

  /** The acknowledgement of a request; an accepted one is added to `work`. */
  #admit(frame: RequestFrame, work: Work[]): Uint8Array {
    const served = this.#servedByPath.get(frame.path)
    if (served === undefined) {
      this.#counts.refusedUnknown += 1
      return encodeAck(`Server unavailable: unknown endpoint ${frame.path}`)
    }
    if (this.#inflight >= this.#inflightMax) {
      this.#counts.refusedOverloaded += 1
      return overloadedAck
    }
    this.#counts.requests += 1
    this.#inflight += 1
    served.inflight += 1
    work.push({ served, frame })
    return acceptedAck
  }

  #refuse(socket: Socket, error: unknown): Uint8Array {
    const message = error instanceof Error ? error.message : String(error)
    this.#counts.malformedFrames += 1
    this.#options.log.warn({ stage: 'request-frame', reason: message, peer: socket.remoteAddress }, 'closed a connection that sent a malformed request')
    return encodeAck(`Read error: ${message}`)
  }

  // ---- A request -----------------------------------------------------------------------------------------------------------

  #begin(served: Served, frame: RequestFrame): void {
    const receivedAtMs = this.#options.clock.nowMs()
    let envelope: RequestEnvelope
    let stream: ResponseStream
    try {
      envelope = decodeEnvelope(frame.payload)
      stream = this.#dial(envelope)
    } catch (error) {
      this.#left(served)
      this.#counts.unreadableRequests += 1
      this.#options.log.warn({ stage: 'request-envelope', reason: error instanceof Error ? error.message : String(error) }, 'accepted a request whose caller cannot be answered')
      return
    }
    this.#streams.set(stream, served)
    const { control, body, fault } = envelope
    if (fault !== null || control.codec === null) {
      stream.fail(fault ?? { class: 'InvalidRequest', reason: 'request.invalid', message: 'payload_codec is not known' })
      return
    }
    this.#handle(served, { id: control.id, headers: frame.headers, metadata: control.metadata, codec: control.codec, body, receivedAtMs }, stream)
  }

  #dial(envelope: RequestEnvelope): ResponseStream {
    const { control } = envelope
    const { callHome } = control
    if (callHome.transport !== 'tcp_server') throw new Error(`the caller asks for response plane ${JSON.stringify(callHome.transport.slice(0, 64))}, this server answers over TCP: set DYN_RESPONSE_PLANE=tcp everywhere`)
    return new ResponseStream({ id: control.id, codec: control.codec ?? 'json', callHome, limits: this.#limits, clock: this.#options.clock, owner: this })
  }

  #handle(served: Served, request: IncomingRequest, stream: ResponseStream): void {
    const failed = (error: unknown): void => {
      this.#options.log.error({ request_id: request.id, stage: 'handler', reason: error instanceof Error ? error.message : String(error) }, 'a request handler failed')
      stream.fail(error instanceof FailureError ? error.failure : { class: 'Internal', reason: 'runtime.internal', message: 'the request handler failed' })
    }
    try {
      served.handler(request, stream)?.catch(failed)
    } catch (error) {
      failed(error)
    }
  }

  // ---- What streams tell ---------------------------------------------------------------------------------------------------

  ended(stream: ResponseStream): void {
    const served = this.#streams.get(stream)
    if (served === null || served === undefined) return
    this.#streams.set(stream, null)
    this.#left(served)
  }

  closed(stream: ResponseStream): void {
    this.#streams.delete(stream)
    if (this.#streams.size === 0) this.#onStreamsClosed?.()
  }

  dialFailed(stream: ResponseStream, message: string): void {
    this.#counts.dialFailures += 1
    this.#options.log.warn({ request_id: stream.id, stage: 'call-home', reason: message }, 'the caller cannot be reached at its response address')
  }

  overflowed(stream: ResponseStream): void {
    this.#counts.overflowedStreams += 1
    this.#options.log.warn({ request_id: stream.id, stage: 'response' }, 'gave up a response stream whose caller does not read')
  }

  #left(served: Served): void {
    served.inflight -= 1
    this.#inflight -= 1
  }
}
