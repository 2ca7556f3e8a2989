/**
 * The server's side of one response stream: dials the caller, says handshake and prologue, writes items, ends with the sentinel.
 *
 * One connection per request. Frames of one turn of the event loop leave in one write.
 */
import { isIP, type Socket } from 'node:net'
import type { Failure } from '../../model/failure.ts'
import type { CancelKind, Clock, Codec, ResponseWriter, TimerHandle } from '../../ports.ts'
import { parseTcpAddress } from '../wire/endpoint-path.ts'
import { decodeControlWord, encodeFailedPrologue, encodeHandshake, goodPrologue, sentinel, type CallHome } from '../wire/envelope.ts'
import { decodeTwoPart, encodeTwoPart, encodeTwoPartPrefix, TwoPartAssembler } from '../wire/frames.ts'
import { encodeFailureItem, finalFrame } from '../wire/items.ts'
import { malformed } from '../wire/wire-error.ts'
import { dial, type ClientTls } from './tcp-tls.ts'

/** Bounds and deadlines of response streams. */
export interface ResponseStreamLimits {
  /** To reach the caller. */
  readonly connectTimeoutMs: number
  /** To wait for the caller's end of stream after ours. */
  readonly closeTimeoutMs: number
  /** Bytes waiting for a slow caller from which a write returns false. */
  readonly bufferBytes: number
  /** Bytes waiting at which the stream is given up: its source does not pause. */
  readonly bufferBytesMax: number
}

/** What a stream tells the server: `ended` once, no more items can follow; `closed` once, after it, the socket is gone. */
export interface ResponseStreamOwner {
  ended(stream: ResponseStream): void
  closed(stream: ResponseStream): void
  dialFailed(stream: ResponseStream, message: string): void
  overflowed(stream: ResponseStream): void
}

const controlBytesMax = 4096
const smallItemBytes = 8192

/** State: dialling or open, then over (ended, failed, aborted or cancelled; writes are ignored), then closed. */
export class ResponseStream implements ResponseWriter {
  onDrain: (() => void) | null = null
  readonly id: string
  readonly #codec: Codec
  readonly #limits: ResponseStreamLimits
  readonly #clock: Clock
  readonly #owner: ResponseStreamOwner
  readonly #socket: Socket
  #timer: TimerHandle | null
  #assembler: TwoPartAssembler | null = null
  #onCancel: ((kind: CancelKind) => void) | null = null
  #cancelled: CancelKind | null = null
  #connected = false
  #begun = false
  #over = false
  #waiting = false
  #corked = false
  readonly #bufferBytes: number

  /** Dials at once. Errors: `WireError` for an address that is not IP and port. */
  constructor(parts: { id: string; codec: Codec; callHome: CallHome; limits: ResponseStreamLimits; clock: Clock; owner: ResponseStreamOwner; tls: ClientTls | null }) {
    const { host, port } = parseTcpAddress(parts.callHome.address)
    if (isIP(host) === 0) throw malformed('call-home address is not an IP address')
    this.id = parts.id
    this.#codec = parts.codec
    this.#limits = parts.limits
    this.#clock = parts.clock
    this.#owner = parts.owner
    const socket = dial({ host, port, allowHalfOpen: true, onData: (chunk) => this.#received(chunk) }, parts.tls, () => {
      this.#connected = true
      // Once over, the timer is that of the close.
      if (!this.#over) this.#endTimer()
    })
    this.#socket = socket
    this.#bufferBytes = Math.max(parts.limits.bufferBytes, socket.writableHighWaterMark)
    this.#timer = parts.clock.setTimer(parts.limits.connectTimeoutMs, () => socket.destroy(new Error(`no connection within ${parts.limits.connectTimeoutMs} ms`)))
    socket.on('end', () => this.#callerEnded())
    socket.on('drain', () => this.#drained())
    socket.on('error', (error) => { if (!this.#connected) parts.owner.dialFailed(this, error.message) })
    socket.on('close', () => this.#closed())
    this.#write(encodeHandshake(parts.callHome.subject))
  }

  get onCancel(): ((kind: CancelKind) => void) | null {
    return this.#onCancel
  }

  set onCancel(listener: ((kind: CancelKind) => void) | null) {
    this.#onCancel = listener
    if (listener !== null && this.#cancelled !== null) queueMicrotask(() => this.#tellCancelled())
  }

  begin(): void {
    if (this.#over || this.#begun) return
    this.#begun = true
    this.#write(goodPrologue)
  }

  writeFrame(frame: Uint8Array): boolean {
    if (this.#over) return true
    this.begin()
    return this.#write(frame)
  }

  writeItem(body: Uint8Array): boolean {
    if (this.#over) return true
    this.begin()
    if (body.length <= smallItemBytes) return this.#write(encodeTwoPart('', body))
    this.#write(encodeTwoPartPrefix(0, body.length))
    return this.#write(body)
  }

  fail(failure: Failure): void {
    if (this.#over) return
    if (this.#begun) {
      this.#write(encodeTwoPart('', encodeFailureItem(failure, this.#codec)))
      this.end()
      return
    }
    this.#write(encodeFailedPrologue(failure))
    this.#finish()
    this.#socket.end()
  }

  end(lastFrame?: Uint8Array): void {
    if (this.#over) return
    this.begin()
    this.#write(lastFrame ?? finalFrame(this.#codec))
    this.#write(sentinel)
    this.#finish()
  }

  abort(): void {
    if (this.#over) return
    this.#finish()
    this.#socket.end()
  }

  /** Closes without waiting for the caller: what is written is sent if the stream has ended, else the caller sees it broken. */
  leave(): void {
    if (this.#over) this.#socket.destroySoon()
    else this.abort()
  }

  /** Closes at once, whatever is under way. */
  destroy(): void {
    this.#socket.destroy()
  }

  /** No more writes. The socket stays until the caller closes it or the deadline passes. */
  #finish(): void {
    this.#over = true
    this.#waiting = false
    this.#owner.ended(this)
    if (this.#socket.destroyed) return
    this.#endTimer()
    this.#timer = this.#clock.setTimer(this.#limits.closeTimeoutMs, () => this.#socket.destroy())
  }

  #write(bytes: Uint8Array): boolean {
    const socket = this.#socket
    if (!this.#corked) {
      this.#corked = true
      socket.cork()
      process.nextTick(uncork, this)
    }
    socket.write(bytes)
    if (socket.writableLength <= this.#bufferBytes) return true
    if (socket.writableLength > this.#limits.bufferBytesMax) {
      this.#owner.overflowed(this)
      this.#cancel('disconnect')
    }
    this.#waiting = true
    return false
  }

  static uncork(stream: ResponseStream): void {
    stream.#corked = false
    stream.#socket.uncork()
  }

  #drained(): void {
    if (!this.#waiting || this.#over) return
    this.#waiting = false
    this.onDrain?.()
  }

  #received(chunk: Uint8Array): void {
    if (this.#over) return
    try {
      this.#assembler ??= new TwoPartAssembler(controlBytesMax)
      this.#assembler.push(chunk, (message) => {
        const { header, body } = decodeTwoPart(message)
        const word = body.length === 0 ? decodeControlWord(header) : null
        if (word !== 'stop' && word !== 'kill') throw malformed('a caller may send stop and kill only')
        this.#cancel(word)
      })
    } catch {
      this.#cancel('disconnect')
    }
  }

  #callerEnded(): void {
    if (this.#over) this.#socket.end()
    else this.#cancel('disconnect')
  }

  #closed(): void {
    this.#endTimer()
    if (!this.#over) this.#cancel('disconnect')
    this.#owner.closed(this)
  }

  #cancel(kind: CancelKind): void {
    if (this.#over) return
    this.#cancelled = kind
    this.#finish()
    if (kind === 'stop') this.#socket.end()
    else this.#socket.destroy()
    this.#tellCancelled()
  }

  #tellCancelled(): void {
    const listener = this.#onCancel
    const kind = this.#cancelled
    if (listener === null || kind === null) return
    this.#cancelled = null
    listener(kind)
  }

  #endTimer(): void {
    this.#timer?.cancel()
    this.#timer = null
  }
}

const uncork = ResponseStream.uncork
