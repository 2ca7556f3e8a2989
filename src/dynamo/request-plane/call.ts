/** One outgoing request, from the first byte sent to the last item received. */
import type { Failure } from '../../model/failure.ts'
import type { CallHandle, Clock, Codec, Log, ResponseListener, TimerHandle } from '../../ports.ts'
import { decodeControlWord, decodePrologue } from '../wire/envelope.ts'
import type { TwoPartMessage } from '../wire/frames.ts'
import { isFinalFrame } from '../wire/items.ts'
import type { CallHomeListener, CallHomeStream, StreamReceiver } from './call-home.ts'
import type { NatsSender } from './nats-requests.ts'

/** Hears how long the steps of a request took, once each at most. Units: s. */
export interface CallTimes {
  /** Encoding, until the request was handed to its connection. */
  encoded(seconds: number): void
  /** From then until the worker had it. */
  accepted(seconds: number): void
  /** From the hand-over until the first item of the answer. */
  answered(seconds: number): void
}

/** What all calls of a client share. */
export interface CallParts {
  readonly home: CallHomeListener
  readonly clock: Clock
  readonly log: Log
  /** After `stop`, until the worker closes. */
  readonly stopGraceMs: number
  /** Frames that came after the last one of their stream. */
  lateFrame(): void
  /** A request that could not be handed to its worker over TCP, or was not acknowledged. */
  tcpFailed(): void
  over(call: Call): void
  times: CallTimes | null
}

/** The failure of a stream that ended without its last item. */
export const brokenStream: Failure = { class: 'Unavailable', reason: 'transport.disconnected', message: 'Stream ended before generation completed' }

const cancelled: Failure = { class: 'Cancelled', reason: 'request.cancelled', message: 'the request was cancelled' }

/**
 * Invariants: the listener hears accepted, prologue, frames and then one end or failure, in this order; nothing before the
 * current turn of the event loop is over, nothing after the end.
 */
export class Call implements CallHandle, NatsSender, StreamReceiver {
  readonly id: string
  readonly subject: string
  readonly #codec: Codec
  readonly #listener: ResponseListener
  readonly #parts: CallParts
  readonly #isTcp: boolean
  readonly waitsForLink: boolean
  isWaiting = false
  readonly #sentMs: number
  #stream: CallHomeStream | null = null
  #timer: TimerHandle | null = null
  #accepted = false
  #prologue = false
  #frames = false
  #paused = false
  #stopping = false
  #ended = false
  #over = false

  constructor(fields: { id: string; subject: string; codec: Codec; listener: ResponseListener; parts: CallParts; isTcp: boolean; waitsForLink: boolean }) {
    this.id = fields.id
    this.subject = fields.subject
    this.#codec = fields.codec
    this.#listener = fields.listener
    this.#parts = fields.parts
    this.#isTcp = fields.isTcp
    this.waitsForLink = fields.waitsForLink
    this.#sentMs = fields.parts.clock.nowMs()
    this.#parts.home.expect(this.subject, this)
  }

  get isSettled(): boolean {
    return this.#over || this.#accepted
  }

  // ---- What the owner asks -------------------------------------------------------------------------------------------------

  stop(): void {
    if (this.#over || this.#stopping) return
    this.#stopping = true
    this.#stream?.sendStop()
    this.#timer = this.#parts.clock.setTimer(this.#parts.stopGraceMs, () => this.kill())
  }

  kill(): void {
    this.fail(cancelled)
  }

  fail(failure: Failure): void {
    if (this.#over) return
    this.#finish()
    this.#parts.home.giveUp(this.subject, true)
    this.#stream?.kill()
    queueMicrotask(() => this.#listener.onFail(failure, !this.#frames))
  }

  pause(): void {
    this.#paused = true
    if (!this.#over) this.#stream?.pause()
  }

  resume(): void {
    this.#paused = false
    if (!this.#over) this.#stream?.resume()
  }

  // ---- What the request connection tells -----------------------------------------------------------------------------------

  acknowledged(text: string): void {
    if (this.#over) return
    if (text === '') this.#accept()
    else if (!this.#accepted) this.#refused(refusalOf(text))
  }

  sendFailed(failure: Failure, mayDial: boolean = failure.reason !== 'transport.cannot_connect'): void {
    // A stream that has come shows that the request has arrived, whatever became of its connection.
    if (this.#over || this.#accepted) return
    if (this.#isTcp) this.#parts.tcpFailed()
    this.#finish()
    this.#parts.home.giveUp(this.subject, mayDial)
    this.#listener.onFail(this.#stopping ? cancelled : failure, true)
  }

  #refused(failure: Failure): void {
    this.#finish()
    this.#parts.home.giveUp(this.subject, false)
    this.#listener.onFail(failure, true)
  }

  #accept(): void {
    if (this.#accepted) return
    this.#accepted = true
    this.isWaiting = false
    this.#parts.times?.accepted(this.#sinceSent())
    this.#listener.onAccepted?.()
  }

  // ---- What the response stream tells --------------------------------------------------------------------------------------

  attached(stream: CallHomeStream): void {
    this.#stream = stream
    if (this.#paused) stream.pause()
    if (this.#stopping) stream.sendStop()
    this.#accept()
  }

  received(message: Uint8Array, parts: TwoPartMessage): void {
    const { header, body } = parts
    if (header.length === 0 && body.length > 0) this.#item(message, body)
    else if (header.length > 0 && body.length === 0) this.#control(header)
    else this.#violated('a message with both parts, or none')
  }

  closed(reason: string | null): void {
    if (this.#over) return
    this.#finish()
    if (this.#stopping) this.#listener.onFail(cancelled, !this.#frames)
    else this.#listener.onFail(reason === null ? brokenStream : { ...brokenStream, message: `${brokenStream.message}: ${reason}` }, !this.#frames)
  }

  #item(frame: Uint8Array, body: Uint8Array): void {
    if (this.#ended) return this.#parts.lateFrame()
    if (!this.#prologue) return this.#violated('an item before the prologue')
    if (!isFinalFrame(body, this.#codec)) {
      if (!this.#frames) this.#parts.times?.answered(this.#sinceSent())
      this.#frames = true
      this.#listener.onFrame(frame, body)
      return
    }
    this.#ended = true
    this.#finish()
    this.#stream?.awaitEnd()
    this.#listener.onEnd(frame)
  }

  #sinceSent(): number {
    return (this.#parts.clock.nowMs() - this.#sentMs) / 1000
  }

  #control(header: Uint8Array): void {
    const word = decodeControlWord(header)
    if (word === 'sentinel') {
      this.#stream?.finish()
      if (!this.#over) this.closed(null)
    } else if (this.#ended) this.#parts.lateFrame()
    else if (word !== null || this.#prologue) this.#violated(`an unexpected control message`)
    else {
      const failure = decodePrologue(header)
      this.#prologue = true
      if (failure === null) this.#listener.onPrologue?.()
      else {
        this.#finish()
        this.#stream?.finish()
        this.#listener.onFail(failure, true)
      }
    }
  }

  #violated(what: string): void {
    if (this.#over) return
    this.#parts.log.warn({ request_id: this.id, stage: 'response', reason: what }, 'a worker broke the response protocol')
    this.#finish()
    this.#stream?.kill()
    this.#listener.onFail({ class: 'BackendProtocol', reason: 'backend.protocol', message: `the worker sent ${what}` }, !this.#frames)
  }

  /** No more is told but the end that follows. */
  #finish(): void {
    this.#over = true
    this.#timer?.cancel()
    this.#timer = null
    if (this.#paused) this.#stream?.resume()
    this.#parts.over(this)
  }
}

/** The failure behind an acknowledgement that refuses. */
function refusalOf(text: string): Failure {
  const message = text.slice(0, 1024)
  if (text.startsWith('Server overloaded:')) return { class: 'CapacityExhausted', reason: 'capacity.worker_overloaded', message }
  if (text.startsWith('Server unavailable:') || text.startsWith('Unknown endpoint:')) return { class: 'Unavailable', reason: 'backend.worker_unavailable', message }
  return { class: 'Unavailable', reason: 'backend.unavailable', message: `the worker refused the request: ${message}` }
}
