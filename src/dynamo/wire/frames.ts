/**
 * Frames of the TCP request plane: requests, acknowledgements, and two-part messages. Pure: bytes in, frames out.
 *
 * The assemblers take chunks as a socket gives them. A frame that lies whole within a chunk is handed out as a view of it;
 * one that does not is copied once, into a buffer that grows with the bytes that have come, not with the bytes promised.
 * All integers are big-endian. Source: Dynamo 1.6.1 request plane.
 */
import { decodeUtf8, isObject, parseJsonBytes } from './json.ts'
import { malformed, WireError } from './wire-error.ts'

/** Bytes of u64 header length, u64 body length and u64 checksum before a two-part message. */
export const twoPartPrefixBytes = 24

/** The largest request frame, as Dynamo has it. */
export const requestFrameBytesMaxDefault = 33_554_432

const ackBytesMax = 65_536
const noBytes = new Uint8Array(0)

/**
 * The length of the frame that begins at `start`, or, when it cannot be told yet, minus the bytes needed to tell more.
 * Errors: `WireError` when the frame is larger than it may be.
 */
type Measure = (bytes: Uint8Array, start: number, available: number) => number

/** Cuts a byte stream into frames. Bounds: holds at most one frame. Cost: O(bytes), however they are cut. */
class FrameAssembler {
  readonly #measure: Measure
  #pending: Uint8Array = noBytes
  #have = 0
  /** Bytes at which the pending frame is complete or can be measured again. */
  #need = 0

  constructor(measure: Measure) {
    this.#measure = measure
  }

  /** Bytes of a frame that is not complete. */
  get pendingBytes(): number {
    return this.#have
  }

  /** Takes a chunk and calls `sink` for each complete frame, in order. Errors: `WireError`; the assembler is of no use afterwards. */
  push(chunk: Uint8Array, sink: (frame: Uint8Array) => void): void {
    let at = 0
    while (this.#have > 0 || at < chunk.length) {
      if (this.#have === 0) {
        const length = this.#measure(chunk, at, chunk.length - at)
        if (length > 0 && length <= chunk.length - at) {
          sink(chunk.subarray(at, at + length))
          at += length
          continue
        }
        this.#need = Math.abs(length)
      }
      const taken = Math.min(this.#need - this.#have, chunk.length - at)
      this.#append(chunk, at, taken)
      at += taken
      if (this.#have < this.#need) return
      const length = this.#measure(this.#pending, 0, this.#have)
      if (length === this.#have) {
        const frame = this.#pending.subarray(0, length)
        this.#pending = noBytes
        this.#have = 0
        sink(frame)
      } else this.#need = Math.abs(length)
    }
  }

  #append(chunk: Uint8Array, at: number, count: number): void {
    const needed = this.#have + count
    if (needed > this.#pending.length) {
      // A first piece of the promised size saves copies; beyond it only bytes that have come are paid for.
      const grown = new Uint8Array(Math.min(this.#need, Math.max(needed, 2 * this.#pending.length, 4096)))
      grown.set(this.#pending.subarray(0, this.#have))
      this.#pending = grown
    }
    this.#pending.set(chunk.subarray(at, at + count), this.#have)
    this.#have = needed
  }
}

function u16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] as number) << 8) | (bytes[at + 1] as number)
}

function u32(bytes: Uint8Array, at: number): number {
  return u16(bytes, at) * 0x10000 + u16(bytes, at + 2)
}

// ---- Requests --------------------------------------------------------------------------------------------------------------

/** A request as it lies on the socket: where it goes, its string headers, and a payload that is one two-part message. */
export interface RequestFrame {
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly payload: Uint8Array
}

/** Cuts a server's incoming stream into request frames. Errors of `push`: `WireError` oversized beyond `bytesMax`. */
export class RequestFrameAssembler extends FrameAssembler {
  constructor(bytesMax: number = requestFrameBytesMaxDefault) {
    super((bytes, start, available) => {
      if (available < 2) return -2
      const headersAt = 2 + u16(bytes, start) + 2
      if (available < headersAt) return -headersAt
      const payloadAt = headersAt + u16(bytes, start + headersAt - 2) + 4
      if (payloadAt > bytesMax) throw new WireError('oversized', `request of ${payloadAt} bytes or more, at most ${bytesMax} are taken`)
      if (available < payloadAt) return -payloadAt
      const length = payloadAt + u32(bytes, start + payloadAt - 4)
      if (length > bytesMax) throw new WireError('oversized', `request of ${length} bytes, at most ${bytesMax} are taken`)
      return length
    })
  }
}

/** Reads one complete request frame; `payload` is a view. Errors: `WireError` for a path that is not UTF-8 or headers that are not strings. */
export function decodeRequestFrame(frame: Uint8Array): RequestFrame {
  if (frame.length < 8) throw malformed(`request frame of ${frame.length} bytes`)
  const pathEnd = 2 + u16(frame, 0)
  const headersEnd = pathEnd + 2 + (pathEnd + 2 <= frame.length ? u16(frame, pathEnd) : 0)
  if (headersEnd + 4 > frame.length || headersEnd + 4 + u32(frame, headersEnd) !== frame.length) throw malformed('request frame whose lengths do not add up')
  return {
    path: decodeUtf8(frame.subarray(2, pathEnd)),
    headers: decodeStringMap(parseJsonBytes(frame.subarray(pathEnd + 2, headersEnd)), 'request headers'),
    payload: frame.subarray(headersEnd + 4),
  }
}

/**
 * Encodes the part of a request frame that comes before the payload.
 *
 * Errors: `RangeError` for a path or headers longer than 65535 bytes.
 */
export function encodeRequestHead(path: string, headers: Readonly<Record<string, string>>, payloadBytes: number): Uint8Array {
  const pathBytes = Buffer.byteLength(path)
  const headersText = JSON.stringify(headers)
  const headersBytes = Buffer.byteLength(headersText)
  if (pathBytes > 0xffff) throw new RangeError(`endpoint path of ${pathBytes} bytes, at most 65535 fit`)
  if (headersBytes > 0xffff) throw new RangeError(`request headers of ${headersBytes} bytes, at most 65535 fit`)
  const head = Buffer.allocUnsafe(8 + pathBytes + headersBytes)
  head.writeUInt16BE(pathBytes, 0)
  head.write(path, 2)
  head.writeUInt16BE(headersBytes, 2 + pathBytes)
  head.write(headersText, 4 + pathBytes)
  head.writeUInt32BE(payloadBytes, 4 + pathBytes + headersBytes)
  return head
}

/** A string-to-string object. Errors: `WireError` that names `what` and the key. */
export function decodeStringMap(value: unknown, what: string): Readonly<Record<string, string>> {
  if (!isObject(value)) throw malformed(`${what}: expected an object`)
  for (const key in value) if (typeof value[key] !== 'string') throw malformed(`${what}: ${JSON.stringify(key.slice(0, 64))} is not a string`)
  return value as Readonly<Record<string, string>>
}

// ---- Acknowledgements ------------------------------------------------------------------------------------------------------

/** Cuts a client's incoming stream into acknowledgement frames. */
export class AckAssembler extends FrameAssembler {
  constructor() {
    super((bytes, start, available) => {
      if (available < 4) return -4
      const length = 4 + u32(bytes, start)
      if (length > ackBytesMax) throw new WireError('oversized', `acknowledgement of ${length} bytes, at most ${ackBytesMax} are taken`)
      return length
    })
  }
}

/** The text of an acknowledgement frame: empty when the request was accepted. Never throws on a complete frame. */
export function decodeAck(frame: Uint8Array): string {
  return frame.length === 4 ? '' : Buffer.from(frame.buffer, frame.byteOffset + 4, frame.length - 4).toString('utf8')
}

/** Encodes an acknowledgement. */
export function encodeAck(text: string): Uint8Array {
  const size = Buffer.byteLength(text)
  const frame = Buffer.allocUnsafe(4 + size)
  frame.writeUInt32BE(size, 0)
  frame.write(text, 4)
  return frame
}

// ---- Two-part messages -----------------------------------------------------------------------------------------------------

/** Cuts a stream into two-part messages, prefix included. Errors of `push`: `WireError` oversized beyond `bytesMax`. */
export class TwoPartAssembler extends FrameAssembler {
  constructor(bytesMax: number) {
    super((bytes, start, available) => {
      if (available < twoPartPrefixBytes) return -twoPartPrefixBytes
      const length = twoPartPrefixBytes + length64(bytes, start) + length64(bytes, start + 8)
      if (length > bytesMax) throw new WireError('oversized', `message of ${length} bytes, at most ${bytesMax} are taken`)
      return length
    })
  }
}

/** The parts of a complete two-part message, as views. The checksum is not read: release builds of Dynamo write 0. */
export interface TwoPartMessage {
  readonly header: Uint8Array
  readonly body: Uint8Array
}

/** Reads one complete two-part message. Errors: `WireError` when the lengths do not add up. */
export function decodeTwoPart(message: Uint8Array): TwoPartMessage {
  // An item of a response.
  if (message.length > twoPartPrefixBytes && length64(message, 0) === 0 && twoPartPrefixBytes + length64(message, 8) === message.length) {
    return { header: noBytes, body: message.subarray(twoPartPrefixBytes) }
  }
  const header = headerBytes(message)
  if (twoPartPrefixBytes + header + length64(message, 8) !== message.length) throw malformed('two-part message whose lengths do not add up')
  const bodyAt = twoPartPrefixBytes + header
  return { header: message.subarray(twoPartPrefixBytes, bodyAt), body: message.subarray(bodyAt) }
}

/** The length of the header part of a two-part message. Errors: `WireError` when the message is shorter than that. */
export function headerBytes(message: Uint8Array): number {
  if (message.length < twoPartPrefixBytes) throw malformed(`two-part message of ${message.length} bytes`)
  const length = length64(message, 0)
  if (twoPartPrefixBytes + length > message.length) throw malformed('two-part message shorter than its header')
  return length
}

/** The 24 bytes before a two-part message. */
export function encodeTwoPartPrefix(headerLength: number, bodyLength: number): Uint8Array {
  const prefix = new Uint8Array(twoPartPrefixBytes)
  writeLength64(prefix, 0, headerLength)
  writeLength64(prefix, 8, bodyLength)
  return prefix
}

/** A complete two-part message; parts may be empty. */
export function encodeTwoPart(header: Uint8Array | string, body: Uint8Array | string): Uint8Array {
  const headerLength = typeof header === 'string' ? Buffer.byteLength(header) : header.length
  const bodyLength = typeof body === 'string' ? Buffer.byteLength(body) : body.length
  const message = Buffer.allocUnsafe(twoPartPrefixBytes + headerLength + bodyLength)
  message.fill(0, 0, twoPartPrefixBytes)
  writeLength64(message, 0, headerLength)
  writeLength64(message, 8, bodyLength)
  if (typeof header === 'string') message.write(header, twoPartPrefixBytes)
  else message.set(header, twoPartPrefixBytes)
  if (typeof body === 'string') message.write(body, twoPartPrefixBytes + headerLength)
  else message.set(body, twoPartPrefixBytes + headerLength)
  return message
}

/** A u64 length; anything beyond 2^52 is given as 2^52, which no bound allows. */
function length64(bytes: Uint8Array, at: number): number {
  return Math.min(u32(bytes, at) * 0x1_0000_0000 + u32(bytes, at + 4), 2 ** 52)
}

function writeLength64(bytes: Uint8Array, at: number, length: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  view.setUint32(at, Math.floor(length / 0x1_0000_0000))
  view.setUint32(at + 4, length >>> 0)
}
