/**
 * The request plane, calling: requests over pooled TCP connections (`request-connection.ts`) or over NATS (`nats-requests.ts`), as the
 * record of each instance says; responses over the connections that workers open to us (`call-home.ts`).
 */
import { randomUUID } from 'node:crypto'
import type { Failure } from '../../model/failure.ts'
import type { CallHandle, Clock, InstanceRecord, Log, OutgoingRequest, RequestPlaneClient, ResponseListener } from '../../ports.ts'
import { formatTcpAddress, parseTcpAddress, type TcpAddress } from '../wire/endpoint-path.ts'
import { controlBytesMax, encodeControl } from '../wire/envelope.ts'
import { encodeRequestHead, encodeTwoPartPrefix, requestFrameBytesMaxDefault, twoPartPrefixBytes } from '../wire/frames.ts'
import { Call, type CallParts, type CallTimes } from './call.ts'
import { CallHomeListener, type CallHomeLimits } from './call-home.ts'
import type { NatsRequests, NatsRequestsStats } from './nats-requests.ts'
import { RequestPool, type RequestConnectionLimits } from './request-connection.ts'
import { plainTcp, type TcpTls } from './tcp-tls.ts'

/** How a client is made. All but clock and log may be left out. */
export interface TcpRequestClientOptions {
  readonly clock: Clock
  readonly log: Log
  /** Where workers reach us: an IP, a wildcard or an interface name; left out, the first usable address that is not loopback. */
  readonly host?: string | undefined
  /** 0 or left out: any free port. */
  readonly port?: number | undefined
  readonly backlog?: number | undefined
  /** To open a connection to a worker. */
  readonly connectTimeoutMs?: number
  /** For a worker to acknowledge a request. */
  readonly ackTimeoutMs?: number
  /** After which an unused connection is closed. */
  readonly idleTimeoutMs?: number
  /** For a connection to us to name its subject. */
  readonly handshakeTimeoutMs?: number
  /** For a worker to close after stop, kill or its last item. */
  readonly closeTimeoutMs?: number
  /** Connections per worker. */
  readonly connectionsMax?: number
  /** Requests without acknowledgement per connection. */
  readonly unackedMax?: number
  /** Bytes of a request at most. */
  readonly requestBytesMax?: number
  /** Bytes of one response frame at most. */
  readonly responseFrameBytesMax?: number
  /** Response streams at a time. */
  readonly streamsMax?: number
  /** Left out: plain TCP. */
  readonly tls?: TcpTls
  /** Requests to instances that are reached over NATS; left out, these fail. */
  readonly nats?: NatsRequests
}

/** Counters since the start, and what is open now. */
export interface TcpRequestClientStats {
  readonly calls: number
  readonly openCalls: number
  readonly connections: number
  readonly responseStreams: number
  readonly responseStreamsDropped: number
  readonly unknownSubjects: number
  readonly brokenHandshakes: number
  /** Calls refused because every connection to their worker was full. */
  readonly poolFull: number
  /** Requests that could not be handed to their worker over TCP, or were not acknowledged. */
  readonly tcpErrors: number
  /** Frames that came after the last one of their stream. */
  readonly lateFrames: number
  readonly handshakeFailures: number
  /** Null: no requests over NATS. */
  readonly nats: NatsRequestsStats | null
}

/** A request plane client that can be observed. */
export interface TcpRequestClient extends RequestPlaneClient {
  /** Where workers are told to send their answers. Errors: before `start` has resolved. */
  readonly address: string
  stats(): TcpRequestClientStats
  /** From now on, one hears how long requests take. */
  observe(times: CallTimes): void
}

/** Makes a client; nothing is bound before `start`. */
export function createTcpRequestClient(options: TcpRequestClientOptions): TcpRequestClient {
  return new Client(options)
}

/** Bodies up to this size are copied behind the request head, so that a request is one buffer. */
const copiedBodyBytes = 16_384

const inertHandle: CallHandle = { stop() {}, kill() {}, fail() {}, pause() {}, resume() {} }

class Client implements TcpRequestClient {
  readonly #clock: Clock
  readonly #requestBytesMax: number
  readonly #home: CallHomeListener
  readonly #pool: RequestPool
  readonly #calls = new Set<Call>()
  readonly #callParts: CallParts
  readonly #targets = new WeakMap<InstanceRecord, TcpAddress>()
  readonly #nats: NatsRequests | null
  readonly #counts = { calls: 0, poolFull: 0, tcpErrors: 0, lateFrames: 0 }
  #address = ''
  #closed = false

  constructor(options: TcpRequestClientOptions) {
    const { clock, log } = options
    this.#clock = clock
    this.#nats = options.nats ?? null
    const { tls = plainTcp } = options
    this.#requestBytesMax = options.requestBytesMax ?? requestFrameBytesMaxDefault
    const closeTimeoutMs = options.closeTimeoutMs ?? 10_000
    const homeLimits: CallHomeLimits = { handshakeTimeoutMs: options.handshakeTimeoutMs ?? 10_000, closeTimeoutMs, frameBytesMax: options.responseFrameBytesMax ?? 268_435_456 }
    const poolLimits: RequestConnectionLimits = {
      connectTimeoutMs: options.connectTimeoutMs ?? 5_000,
      ackTimeoutMs: options.ackTimeoutMs ?? 5_000,
      idleTimeoutMs: options.idleTimeoutMs ?? 300_000,
      connectionsMax: options.connectionsMax ?? 4,
      unackedMax: options.unackedMax ?? 1024,
      bufferBytesMax: 67_108_864,
      tls: tls.client,
    }
    const { host, port, backlog } = options
    this.#home = new CallHomeListener({ host, port, variables: 'DYN_TCP_RESPONSE_STREAM', backlog, connectionsMax: options.streamsMax ?? 65_536, tls: tls.server }, homeLimits, clock, log)
    this.#pool = new RequestPool(poolLimits, clock)
    this.#callParts = {
      home: this.#home,
      clock,
      log,
      stopGraceMs: closeTimeoutMs,
      lateFrame: () => { this.#counts.lateFrames += 1 },
      tcpFailed: () => { this.#counts.tcpErrors += 1 },
      over: (call) => { this.#calls.delete(call) },
      times: null,
    }
  }

  get address(): string {
    if (this.#address === '') throw new Error('the request client has not been started')
    return this.#address
  }

  async start(signal: AbortSignal): Promise<void> {
    await this.#home.start(signal)
    this.#address = formatTcpAddress(this.#home.host, this.#home.port)
  }

  call(instance: InstanceRecord, request: OutgoingRequest, listener: ResponseListener): CallHandle {
    this.#counts.calls += 1
    const startedMs = this.#clock.nowMs()
    if (this.#closed || this.#address === '') return refuse(listener, { class: 'Unavailable', reason: 'transport.cannot_connect', message: 'the request client is not running' })
    const subject = randomUUID()
    const control = Buffer.from(encodeControl({ id: request.id, codec: request.codec, address: this.#address, subject, metadata: request.metadata }))
    if (control.length > controlBytesMax) return refuse(listener, tooLarge('id and metadata', control.length, controlBytesMax))
    return 'tcp' in instance.transport
      ? this.#callOverTcp(instance, request, { subject, control, listener, startedMs })
      : this.#callOverNats(instance.transport.nats_tcp, request, { subject, control, listener, startedMs })
  }

  #callOverTcp(instance: InstanceRecord, request: OutgoingRequest, fresh: NewCall): CallHandle {
    const { control, listener } = fresh
    let target: TcpAddress
    let parts: readonly Uint8Array[]
    try {
      target = this.#targetOf(instance)
      parts = this.#encode(target.path, request, control)
    } catch (error) {
      return refuse(listener, failureOfRequest(error))
    }
    const call = this.#open(request, fresh, true)
    if (!this.#pool.send(target.host, target.port, call, parts)) {
      this.#counts.poolFull += 1
      call.fail({ class: 'CapacityExhausted', reason: 'capacity.worker_overloaded', message: `all connections to ${target.host}:${target.port} are full` })
    }
    return call
  }

  #callOverNats(natsSubject: string, request: OutgoingRequest, fresh: NewCall): CallHandle {
    const { control, listener } = fresh
    if (this.#nats === null) return refuse(listener, { class: 'Unavailable', reason: 'transport.cannot_connect', message: 'the instance is reached over NATS, this client speaks TCP only' })
    const bodyBytes = bytesOf(request.body)
    const payload = Buffer.concat([encodeTwoPartPrefix(control.length, bodyBytes), control, ...request.body], twoPartPrefixBytes + control.length + bodyBytes)
    if (payload.length > this.#requestBytesMax) return refuse(listener, tooLarge('request', payload.length, this.#requestBytesMax))
    const call = this.#open(request, fresh, false)
    const failure = this.#nats.send({ subject: natsSubject, headers: this.#headersOf(request), payload }, call)
    if (failure !== null) call.fail(failure)
    return call
  }

  #open(request: OutgoingRequest, { subject, listener, startedMs }: NewCall, isTcp: boolean): Call {
    const call = new Call({ id: request.id, subject, codec: request.codec, listener, parts: this.#callParts, isTcp, waitsForLink: request.waitsForLink ?? true })
    this.#callParts.times?.encoded((this.#clock.nowMs() - startedMs) / 1000)
    this.#calls.add(call)
    return call
  }

  observe(times: CallTimes): void {
    this.#callParts.times = times
  }

  forget(instance: InstanceRecord): void {
    try {
      const { host, port } = this.#targetOf(instance)
      this.#pool.forget(host, port)
    } catch {
      // An address that cannot be read has no connections.
    }
  }

  stats(): TcpRequestClientStats {
    const home = this.#home.stats()
    return {
      ...this.#counts,
      openCalls: this.#calls.size,
      connections: this.#pool.connectionCount,
      responseStreams: home.streams,
      responseStreamsDropped: home.dropped,
      unknownSubjects: home.unknownSubjects,
      brokenHandshakes: home.brokenHandshakes,
      handshakeFailures: home.handshakeFailures,
      nats: this.#nats?.stats() ?? null,
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const call of this.#calls) call.fail({ class: 'Cancelled', reason: 'request.cancelled', message: 'the request client is closing' })
    this.#pool.close()
    this.#nats?.close()
    await this.#home.close()
  }

  #targetOf(instance: InstanceRecord): TcpAddress {
    const known = this.#targets.get(instance)
    if (known !== undefined) return known
    if (!('tcp' in instance.transport)) throw new Error('the instance is not reached over TCP')
    const target = parseTcpAddress(instance.transport.tcp)
    this.#targets.set(instance, target)
    return target
  }

  #headersOf(request: OutgoingRequest): Record<string, string> {
    return { ...request.headers, 'request-id': request.id, 'x-frontend-send-ts-ns': `${Math.round(this.#clock.epochMs() * 1000)}000` }
  }

  /** The whole request, in one part when its body is small. */
  #encode(path: string, request: OutgoingRequest, control: Uint8Array): readonly Uint8Array[] {
    const { body } = request
    const bodyBytes = bytesOf(body)
    const head = encodeRequestHead(path, { ...this.#headersOf(request), 'x-endpoint-path': path }, twoPartPrefixBytes + control.length + bodyBytes)
    const total = head.length + twoPartPrefixBytes + control.length + bodyBytes
    if (total > this.#requestBytesMax) throw new SizeError('request', total, this.#requestBytesMax)
    const start = [head, encodeTwoPartPrefix(control.length, bodyBytes), control]
    if (bodyBytes <= copiedBodyBytes) return [Buffer.concat([...start, ...body], total)]
    return [Buffer.concat(start), ...body]
  }
}

/** What a call has before it is sent. */
interface NewCall {
  /** Of the response stream. */
  readonly subject: string
  readonly control: Uint8Array
  readonly listener: ResponseListener
  /** When the caller asked, by the clock. */
  readonly startedMs: number
}

function bytesOf(parts: readonly Uint8Array[]): number {
  let bytes = 0
  for (const part of parts) bytes += part.length
  return bytes
}

class SizeError extends Error {
  readonly actual: number
  readonly limit: number
  constructor(what: string, actual: number, limit: number) {
    super(`${what} of ${actual} bytes, at most ${limit} can be sent`)
    this.actual = actual
    this.limit = limit
  }
}

const tooLarge = (what: string, actual: number, limit: number): Failure => failureOfRequest(new SizeError(what, actual, limit))

function failureOfRequest(error: unknown): Failure {
  const message = error instanceof Error ? error.message : String(error)
  if (error instanceof SizeError) return { class: 'PayloadTooLarge', reason: 'request.payload_too_large', message, publicDetail: { type: 'size_limit', limit: error.limit, actual: error.actual } }
  if (error instanceof RangeError) return { class: 'PayloadTooLarge', reason: 'request.payload_too_large', message }
  return { class: 'Unavailable', reason: 'transport.cannot_connect', message }
}

function refuse(listener: ResponseListener, failure: Failure): CallHandle {
  queueMicrotask(() => listener.onFail(failure, true))
  return inertHandle
}
