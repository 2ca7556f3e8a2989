/** Requests that a server has taken: which endpoint serves them, their response streams, and how many are under way. One for each server. */
import { FailureError, type Failure } from '../../model/failure.ts'
import type { Clock, IncomingRequest, Log, RequestHandler, ServedEndpoint, TransportAddress } from '../../ports.ts'
import { decodeEnvelope, type RequestEnvelope } from '../wire/envelope.ts'
import type { ClientTls } from './tcp-tls.ts'
import { ResponseStream, type ResponseStreamLimits, type ResponseStreamOwner } from './response-stream.ts'

/** Bounds of a server, all of which may be left out. */
export interface IncomingRequestsOptions extends Partial<ResponseStreamLimits> {
  /** Requests under way in all endpoints; more are refused as overloaded. */
  readonly inflightMax?: number
}

/** Counters since the start. */
export interface IncomingRequestCounts {
  requests: number
  refusedUnknown: number
  refusedOverloaded: number
  malformedFrames: number
  /** Accepted requests whose caller could not be told that they were not understood. */
  unreadableRequests: number
  dialFailures: number
  /** Streams given up because their caller did not read and their source did not pause. */
  overflowedStreams: number
}

/** A registered handler. */
export class Served implements ServedEndpoint {
  inflight = 0
  readonly transport: TransportAddress
  readonly handler: RequestHandler
  readonly ready: Promise<void> | undefined
  readonly #close: () => void

  constructor(transport: TransportAddress, handler: RequestHandler, close: () => void, ready?: Promise<void>) {
    this.transport = transport
    this.handler = handler
    this.ready = ready
    this.#close = close
  }

  close(): void {
    this.#close()
  }
}

/** A request as a transport brought it: headers and the two-part payload, not decoded. */
export interface ArrivedRequest {
  readonly headers: Readonly<Record<string, string>>
  readonly payload: Uint8Array
}

/** For ended streams to send their last bytes when the server closes. */
const flushTimeoutMs = 1_000

/** Bounds: `inflightMax` requests; refusals that must be dialled count half as many again. */
export class IncomingRequests implements ResponseStreamOwner {
  readonly counts: IncomingRequestCounts = { requests: 0, refusedUnknown: 0, refusedOverloaded: 0, malformedFrames: 0, unreadableRequests: 0, dialFailures: 0, overflowedStreams: 0 }
  readonly #clock: Clock
  readonly #log: Log
  readonly #limits: ResponseStreamLimits
  readonly #tls: ClientTls | null
  readonly #streams = new Map<ResponseStream, Served | null>()
  readonly #inflightMax: number
  #inflight = 0
  #onStreamsClosed: (() => void) | null = null

  constructor(options: IncomingRequestsOptions, clock: Clock, log: Log, tls: ClientTls | null) {
    this.#clock = clock
    this.#log = log
    this.#tls = tls
    this.#inflightMax = options.inflightMax ?? 50_000
    this.#limits = {
      connectTimeoutMs: options.connectTimeoutMs ?? 5_000,
      closeTimeoutMs: options.closeTimeoutMs ?? 10_000,
      bufferBytes: options.bufferBytes ?? 65_536,
      bufferBytesMax: options.bufferBytesMax ?? 67_108_864,
    }
  }

  get openStreams(): number {
    return this.#streams.size
  }

  /** Books one request. False: too many are under way. */
  admit(served: Served): boolean {
    if (this.#inflight >= this.#inflightMax) {
      this.counts.refusedOverloaded += 1
      return false
    }
    this.counts.requests += 1
    this.#inflight += 1
    served.inflight += 1
    return true
  }

  /** Begins an admitted request. */
  begin(served: Served, request: ArrivedRequest): void {
    const receivedAtMs = this.#clock.nowMs()
    const opened = this.#open(request.payload)
    if (opened === null) return this.#left(served)
    const { envelope: { control, body, fault }, stream } = opened
    this.#streams.set(stream, served)
    if (fault !== null || control.codec === null) {
      stream.fail(fault ?? { class: 'InvalidRequest', reason: 'request.invalid', message: 'payload_codec is not known' })
      return
    }
    this.#handle(served, { id: control.id, headers: request.headers, metadata: control.metadata, codec: control.codec, body, receivedAtMs }, stream)
  }

  /** Tells a caller over its response stream that it is not served: for transports whose acknowledgement cannot. */
  refuse(request: ArrivedRequest, failure: Failure): void {
    if (this.#streams.size >= this.#inflightMax * 1.5) return
    const opened = this.#open(request.payload)
    if (opened === null) return
    this.#streams.set(opened.stream, null)
    opened.stream.fail(failure)
  }

  /** Ends all streams; resolves when they are closed, after a second at most. */
  async close(): Promise<void> {
    if (this.#streams.size === 0) return
    await new Promise<void>((resolve) => {
      const timer = this.#clock.setTimer(flushTimeoutMs, () => { for (const stream of this.#streams.keys()) stream.destroy() })
      this.#onStreamsClosed = () => {
        timer.cancel()
        resolve()
      }
    })
  }

  /** Writes no more; what is written already is sent. */
  leaveAll(): void {
    for (const stream of this.#streams.keys()) stream.leave()
  }

  #open(payload: Uint8Array): { readonly envelope: RequestEnvelope; readonly stream: ResponseStream } | null {
    try {
      const envelope = decodeEnvelope(payload)
      return { envelope, stream: this.#dial(envelope) }
    } catch (error) {
      this.counts.unreadableRequests += 1
      this.#log.warn({ stage: 'request-envelope', reason: error instanceof Error ? error.message : String(error) }, 'accepted a request whose caller cannot be answered')
      return null
    }
  }

  #dial(envelope: RequestEnvelope): ResponseStream {
    const { control } = envelope
    const { callHome } = control
    if (callHome.transport !== 'tcp_server') throw new Error(`the caller asks for response plane ${JSON.stringify(callHome.transport.slice(0, 64))}, this server answers over TCP: set DYN_RESPONSE_PLANE=tcp everywhere`)
    return new ResponseStream({ id: control.id, codec: control.codec ?? 'json', callHome, limits: this.#limits, clock: this.#clock, owner: this, tls: this.#tls })
  }

  #handle(served: Served, request: IncomingRequest, stream: ResponseStream): void {
    const failed = (error: unknown): void => {
      this.#log.error({ request_id: request.id, stage: 'handler', reason: error instanceof Error ? error.message : String(error) }, 'a request handler failed')
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
    this.counts.dialFailures += 1
    this.#log.warn({ request_id: stream.id, stage: 'call-home', reason: message }, 'the caller cannot be reached at its response address')
  }

  overflowed(stream: ResponseStream): void {
    this.counts.overflowedStreams += 1
    this.#log.warn({ request_id: stream.id, stage: 'response' }, 'gave up a response stream whose caller does not read')
  }

  #left(served: Served): void {
    served.inflight -= 1
    this.#inflight -= 1
  }
}
