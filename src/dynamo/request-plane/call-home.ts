/**
 * The client's listener for response streams: workers dial it and name the subject of the call that they answer.
 *
 * A call that ends before its worker has dialled leaves its subject behind for a while, so that the worker can be told to stop.
 */
import type { Socket } from 'node:net'
import type { Clock, Log, TimerHandle } from '../../ports.ts'
import { decodeHandshake, killMessage, stopMessage } from '../wire/envelope.ts'
import { decodeTwoPart, TwoPartAssembler, type TwoPartMessage } from '../wire/frames.ts'
import { malformed } from '../wire/wire-error.ts'
import { Listener, type ListenOptions } from './listener.ts'

/** Who waits for a response stream. */
export interface StreamReceiver {
  /** The worker has dialled. */
  attached(stream: CallHomeStream): void
  /** One message after the handshake; views of the read buffer. Errors thrown close the stream and come back as `closed`. */
  received(message: Uint8Array, parts: TwoPartMessage): void
  /** The worker's end of stream or a broken connection. `reason` is null for an orderly end. Called once, unless the receiver let go before. */
  closed(reason: string | null): void
}

/** Bounds and deadlines of response streams. */
export interface CallHomeLimits {
  readonly handshakeTimeoutMs: number
  /** To wait for the worker after stop, kill or the last item. */
  readonly closeTimeoutMs: number
  readonly frameBytesMax: number
}

const forgottenMax = 8_192
const forgottenMs = 60_000

/** Counters since the start. */
export interface CallHomeStats {
  readonly streams: number
  readonly dropped: number
  readonly unknownSubjects: number
  readonly brokenHandshakes: number
  /** Connections that ended before TLS was established. */
  readonly handshakeFailures: number
}

/** State: the subjects that are waited for, and those lately given up (at most `forgottenMax`, oldest dropped first). */
export class CallHomeListener {
  readonly limits: CallHomeLimits
  readonly clock: Clock
  readonly #log: Log
  readonly #listener: Listener
  readonly #waiting = new Map<string, StreamReceiver>()
  readonly #forgotten = new Map<string, number>()
  #unknownSubjects = 0
  #brokenHandshakes = 0

  constructor(options: ListenOptions, limits: CallHomeLimits, clock: Clock, log: Log) {
    this.limits = limits
    this.clock = clock
    this.#log = log
    this.#listener = new Listener(options, log, (socket) => { new CallHomeStream(socket, this) })
  }

  get host(): string {
    return this.#listener.host
  }

  get port(): number {
    return this.#listener.port
  }

  start(signal: AbortSignal): Promise<void> {
    return this.#listener.start(signal)
  }

  stats(): CallHomeStats {
    return { streams: this.#listener.sockets.size, dropped: this.#listener.dropped, unknownSubjects: this.#unknownSubjects, brokenHandshakes: this.#brokenHandshakes, handshakeFailures: this.#listener.handshakeFailures }
  }

  /** Waits for the stream of a subject. */
  expect(subject: string, receiver: StreamReceiver): void {
    this.#waiting.set(subject, receiver)
  }

  /** Waits no more. `mayDial`: the worker may have the request, and is to be told to stop when it dials. */
  giveUp(subject: string, mayDial: boolean): void {
    if (!this.#waiting.delete(subject) || !mayDial) return
    const nowMs = this.clock.nowMs()
    for (const [old, untilMs] of this.#forgotten) {
      if (untilMs > nowMs && this.#forgotten.size < forgottenMax) break
      this.#forgotten.delete(old)
    }
    this.#forgotten.set(subject, nowMs + forgottenMs)
  }

  /** The receiver of a subject, once; `forgotten` when it was given up; null when it was never ours. */
  take(subject: string): StreamReceiver | 'forgotten' | null {
    const receiver = this.#waiting.get(subject)
    if (receiver !== undefined) {
      this.#waiting.delete(subject)
      return receiver
    }
    if (this.#forgotten.delete(subject)) return 'forgotten'
    this.#unknownSubjects += 1
    return null
  }

  handshakeBroken(peer: string | undefined, reason: string): void {
    this.#brokenHandshakes += 1
    this.#log.warn({ stage: 'call-home', reason, peer }, 'closed a connection that is no response stream')
  }

  close(): Promise<void> {
    return this.#listener.close()
  }
}

/** One response stream, from its connection on. */
export class CallHomeStream {
  readonly #socket: Socket
  readonly #home: CallHomeListener
  readonly #assembler: TwoPartAssembler
  #receiver: StreamReceiver | null = null
  #timer: TimerHandle | null
  /** Nothing more is read into meaning; bytes are dropped. */
  #left = false

  constructor(socket: Socket, home: CallHomeListener) {
    this.#socket = socket
    this.#home = home
    this.#assembler = new TwoPartAssembler(home.limits.frameBytesMax)
    this.#timer = home.clock.setTimer(home.limits.handshakeTimeoutMs, () => this.#broke('no handshake'))
    socket.on('data', (chunk: Buffer) => this.#data(chunk))
    socket.on('end', () => this.#closed(null))
    socket.on('error', (error) => this.#closed(error.message))
    socket.on('close', () => {
      this.#timer?.cancel()
      this.#closed(null)
    })
  }

  pause(): void {
    this.#socket.pause()
  }

  resume(): void {
    this.#socket.resume()
  }

  sendStop(): void {
    if (this.#socket.writable) this.#socket.write(stopMessage)
  }

  /** Lets go of a stream that is complete: closes once what we wrote is sent. */
  finish(): void {
    this.#letGo()
    this.#socket.destroySoon()
  }

  /** Lets go of a stream whose last item has come: waits a while for the sentinel, which the worker writes before it wants our end. */
  awaitEnd(): void {
    this.#timer?.cancel()
    this.#timer = this.#home.clock.setTimer(this.#home.limits.closeTimeoutMs, () => this.#socket.destroy())
  }

  /** Ends the worker's work: kill and our end of stream, then waits a while for its close. */
  kill(): void {
    this.#letGo()
    if (this.#socket.writable) this.#socket.end(killMessage)
    this.#socket.resume()
    this.awaitEnd()
  }

  destroy(): void {
    this.#letGo()
    this.#socket.destroy()
  }

  #letGo(): void {
    this.#left = true
    this.#receiver = null
  }

  #data(chunk: Uint8Array): void {
    if (this.#left) return
    try {
      this.#assembler.push(chunk, (message) => {
        if (this.#left) return
        if (this.#receiver === null) this.#handshake(message)
        else this.#receiver.received(message, decodeTwoPart(message))
      })
    } catch (error) {
      this.#broke(error instanceof Error ? error.message : String(error))
    }
  }

  #handshake(message: Uint8Array): void {
    const { header, body } = decodeTwoPart(message)
    if (body.length > 0) throw malformed('a handshake with a body')
    const receiver = this.#home.take(decodeHandshake(header))
    if (receiver === null) return this.destroy()
    if (receiver === 'forgotten') return this.kill()
    this.#timer?.cancel()
    this.#timer = null
    this.#receiver = receiver
    receiver.attached(this)
  }

  #broke(reason: string): void {
    if (this.#receiver === null) this.#home.handshakeBroken(this.#socket.remoteAddress, reason)
    this.#closed(reason)
    this.#socket.destroy()
  }

  #closed(reason: string | null): void {
    const receiver = this.#receiver
    this.#letGo()
    if (!this.#socket.writableEnded && !this.#socket.destroyed) this.#socket.end()
    receiver?.closed(reason)
  }
}
