/** The client's connections to request servers: pipelined requests, acknowledgements in order, a small pool per address. */
import type { Socket } from 'node:net'
import type { Failure } from '../../model/failure.ts'
import type { Clock, TimerHandle } from '../../ports.ts'
import { AckAssembler, decodeAck } from '../wire/frames.ts'
import { dial, type ClientTls } from './tcp-tls.ts'

/** Bounds and deadlines of request connections. */
export interface RequestConnectionLimits {
  readonly connectTimeoutMs: number
  readonly ackTimeoutMs: number
  readonly idleTimeoutMs: number
  /** Connections per address. */
  readonly connectionsMax: number
  /** Requests without acknowledgement per connection. */
  readonly unackedMax: number
  /** Bytes not yet taken by the kernel per connection, beyond which it takes no more requests. */
  readonly bufferBytesMax: number
  /** Null: plain TCP. */
  readonly tls: ClientTls | null
}

/** A request that waits for its acknowledgement. Exactly one of the two is called. */
export interface SentRequest {
  acknowledged(text: string): void
  /** `mayDial`: the worker may have the request all the same; left out, it may unless it could not be connected to. */
  sendFailed(failure: Failure, mayDial?: boolean): void
}

interface Unacked {
  readonly request: SentRequest
  readonly deadlineMs: number
  expired: boolean
}

/** One connection. After a missed acknowledgement it takes no new requests until one comes. */
class RequestConnection {
  readonly #limits: RequestConnectionLimits
  readonly #clock: Clock
  readonly #onClosed: (connection: RequestConnection) => void
  readonly #socket: Socket
  readonly #assembler = new AckAssembler()
  readonly #unacked: Unacked[] = []
  readonly #peer: string
  #connectTimer: TimerHandle | null
  #ackTimer: TimerHandle | null = null
  #failure: Failure | null = null
  #corked = false
  #stalled = false
  #closed = false
  lastUsedMs: number

  constructor(host: string, port: number, limits: RequestConnectionLimits, clock: Clock, onClosed: (connection: RequestConnection) => void) {
    this.#limits = limits
    this.#clock = clock
    this.#onClosed = onClosed
    this.#peer = `${host}:${port}`
    this.lastUsedMs = clock.nowMs()
    let connected = false
    const socket = dial({ host, port, onData: (chunk) => this.#received(chunk) }, limits.tls, () => {
      connected = true
      this.#connectTimer?.cancel()
      this.#connectTimer = null
    })
    this.#socket = socket
    this.#connectTimer = clock.setTimer(limits.connectTimeoutMs, () => {
      this.#end({ class: 'DeadlineExceeded', reason: 'transport.connection_timeout', message: `no connection to ${this.#peer} within ${limits.connectTimeoutMs} ms` })
    })
    socket.on('error', (error) => {
      const what = connected ? `connection to ${this.#peer} broke` : `cannot connect to ${this.#peer}`
      this.#end({ class: 'Unavailable', reason: connected ? 'transport.disconnected' : 'transport.cannot_connect', message: `${what}: ${error.message}` })
    })
    socket.on('close', () => this.#end({ class: 'Unavailable', reason: 'transport.disconnected', message: `${this.#peer} closed the connection before it acknowledged the request` }))
  }

  get usable(): boolean {
    return !this.#closed && !this.#stalled && this.#unacked.length < this.#limits.unackedMax && this.#socket.writableLength <= this.#limits.bufferBytesMax
  }

  get unackedCount(): number {
    return this.#unacked.length
  }

  send(request: SentRequest, parts: readonly Uint8Array[]): void {
    const nowMs = this.#clock.nowMs()
    this.lastUsedMs = nowMs
    this.#unacked.push({ request, deadlineMs: nowMs + this.#limits.ackTimeoutMs, expired: false })
    this.#ackTimer ??= this.#clock.setTimer(this.#limits.ackTimeoutMs, () => this.#ackTimeout())
    if (!this.#corked) {
      this.#corked = true
      this.#socket.cork()
      process.nextTick(uncork, this)
    }
    for (const part of parts) this.#socket.write(part)
  }

  /** Ends the connection; requests without acknowledgement hear the failure. */
  close(message: string): void {
    this.#end({ class: 'Unavailable', reason: 'transport.disconnected', message })
  }

  static uncork(connection: RequestConnection): void {
    connection.#corked = false
    connection.#socket.uncork()
  }

  #received(chunk: Uint8Array): void {
    try {
      this.#assembler.push(chunk, (frame) => {
        const sent = this.#unacked.shift()
        if (sent === undefined) throw new Error('an acknowledgement without a request')
        this.#stalled = false
        if (!sent.expired) sent.request.acknowledged(decodeAck(frame))
      })
    } catch (error) {
      this.close(`${this.#peer} broke the protocol: ${error instanceof Error ? error.message : String(error)}`)
    }
  }

  #ackTimeout(): void {
    this.#ackTimer = null
    const nowMs = this.#clock.nowMs()
    let waiting: Unacked | null = null
    for (const sent of this.#unacked) {
      if (sent.expired) continue
      if (sent.deadlineMs > nowMs) {
        waiting = sent
        break
      }
      sent.expired = true
      this.#stalled = true
      sent.request.sendFailed({ class: 'DeadlineExceeded', reason: 'transport.connection_timeout', message: `${this.#peer} did not acknowledge the request within ${this.#limits.ackTimeoutMs} ms` })
    }
    if (waiting !== null) this.#ackTimer = this.#clock.setTimer(Math.max(1, waiting.deadlineMs - nowMs), () => this.#ackTimeout())
    else if (this.#stalled) this.close(`${this.#peer} does not acknowledge requests`)
  }

  #end(failure: Failure): void {
    if (this.#closed) return
    this.#closed = true
    this.#failure = failure
    this.#connectTimer?.cancel()
    this.#ackTimer?.cancel()
    this.#socket.destroy()
    this.#onClosed(this)
    for (const sent of this.#unacked.splice(0)) if (!sent.expired) sent.request.sendFailed(this.#failure)
  }
}

const uncork = RequestConnection.uncork

/** Requests without acknowledgement from which a connection is worth another one beside it: they are pipelined. */
const queuedUp = 8

/** Connections by address. Bounds: `connectionsMax` per address; addresses come and go with instances. */
export class RequestPool {
  readonly #limits: RequestConnectionLimits
  readonly #clock: Clock
  readonly #connectionsByAddress = new Map<string, RequestConnection[]>()
  #sweep: TimerHandle | null = null
  #closed = false

  constructor(limits: RequestConnectionLimits, clock: Clock) {
    this.#limits = limits
    this.#clock = clock
  }

  get connectionCount(): number {
    let count = 0
    for (const list of this.#connectionsByAddress.values()) count += list.length
    return count
  }

  /** Sends a request. False: every connection to the address is full, nothing was sent. */
  send(host: string, port: number, request: SentRequest, parts: readonly Uint8Array[]): boolean {
    const connection = this.#pick(host, port)
    connection?.send(request, parts)
    return connection !== null
  }

  /** Closes the connections to an address that wait for nothing; the others when their idle time is over. */
  forget(host: string, port: number): void {
    for (const connection of this.#connectionsByAddress.get(`${host} ${port}`) ?? []) {
      if (connection.unackedCount === 0) connection.close('the instance has left')
    }
  }

  close(): void {
    this.#closed = true
    this.#sweep?.cancel()
    for (const list of this.#connectionsByAddress.values()) for (const connection of list) connection.close('the client is closing')
  }

  /** The least busy connection; a new one while all have requests queued up and there is room. */
  #pick(host: string, port: number): RequestConnection | null {
    const key = `${host} ${port}`
    const list = this.#connectionsByAddress.get(key) ?? []
    let best: RequestConnection | null = null
    for (const connection of list) {
      if (connection.usable && (best === null || connection.unackedCount < best.unackedCount)) best = connection
    }
    if ((best !== null && best.unackedCount < Math.min(queuedUp, this.#limits.unackedMax)) || list.length >= this.#limits.connectionsMax || this.#closed) return best
    const connection = new RequestConnection(host, port, this.#limits, this.#clock, (closed) => this.#remove(key, closed))
    this.#connectionsByAddress.set(key, [...list, connection])
    this.#sweep ??= this.#clock.setTimer(this.#limits.idleTimeoutMs, () => this.#closeIdle())
    return connection
  }

  #remove(key: string, connection: RequestConnection): void {
    const left = (this.#connectionsByAddress.get(key) ?? []).filter((other) => other !== connection)
    if (left.length === 0) this.#connectionsByAddress.delete(key)
    else this.#connectionsByAddress.set(key, left)
  }

  #closeIdle(): void {
    this.#sweep = null
    const idleSinceMs = this.#clock.nowMs() - this.#limits.idleTimeoutMs
    for (const list of this.#connectionsByAddress.values()) {
      for (const connection of list) if (connection.unackedCount === 0 && connection.lastUsedMs <= idleSinceMs) connection.close('idle')
    }
    if (this.#connectionsByAddress.size > 0 && !this.#closed) this.#sweep = this.#clock.setTimer(this.#limits.idleTimeoutMs / 4, () => this.#closeIdle())
  }
}
