/** MessagePack written item by item into a growing buffer. Source: the MessagePack specification. */
import type { MsgpackValue } from './cursor.ts'

const utf8Encoder = new TextEncoder()

/** Writes items into a growing buffer; integers take their smallest form, as Dynamo's publishers write them. */
export class MsgpackWriter {
  readonly #bytesMax: number
  #bytes: Uint8Array
  #length = 0

  /** Errors: a message beyond `bytesMax` throws a RangeError while it is written. */
  constructor(initialBytes = 256, bytesMax = 0x4000_0000) {
    this.#bytesMax = bytesMax
    this.#bytes = new Uint8Array(Math.max(16, Math.min(initialBytes, bytesMax)))
  }

  /** Bytes written so far. */
  get length(): number {
    return this.#length
  }

  nil(): this {
    return this.#byte(0xc0)
  }

  boolean(value: boolean): this {
    return this.#byte(value ? 0xc3 : 0xc2)
  }

  mapHeader(pairs: number): this {
    return this.#header(pairs, 0x80, 0x0f, 0, 0xde, 0xdf)
  }

  arrayHeader(items: number): this {
    return this.#header(items, 0x90, 0x0f, 0, 0xdc, 0xdd)
  }

  string(value: string): this {
    const length = value.length
    if (length <= 31) {
      const at = this.#reserve(length + 1)
      let index = 0
      for (; index < length; index += 1) {
        const unit = value.charCodeAt(index)
        if (unit >= 0x80) break
        this.#bytes[at + 1 + index] = unit
      }
      if (index === length) {
        this.#bytes[at] = 0xa0 | length
        return this
      }
      this.#length = at
    }
    const raw = utf8Encoder.encode(value)
    return this.#header(raw.length, 0xa0, 0x1f, 0xd9, 0xda, 0xdb).raw(raw)
  }

  binary(value: Uint8Array): this {
    return this.#header(value.length, 0, -1, 0xc4, 0xc5, 0xc6).raw(value)
  }

  /** An integer in [-2^63, 2^64). Errors: fractions and integers outside, with a RangeError. */
  integer(value: number | bigint): this {
    if (typeof value === 'bigint') {
      if (value >= 0n && value < 1n << 64n) return this.u64(Number(value & 0xffffffffn), Number(value >> 32n))
      if (value >= 0n || value < -(1n << 63n)) throw new RangeError(`${value} does not fit into 64 bits`)
      return value >= -0x80000000n ? this.#negative(Number(value)) : this.#wide(0xd3, Number(value & 0xffffffffn), Number(value >> 32n))
    }
    if (!Number.isSafeInteger(value)) throw new RangeError(`${value} is not an exact integer`)
    if (value >= 0) return this.u64(value >>> 0, Math.floor(value / 0x1_0000_0000))
    return value >= -0x80000000 ? this.#negative(value) : this.#wide(0xd3, value >>> 0, Math.floor(value / 0x1_0000_0000))
  }

  /** An unsigned integer given as halves. */
  u64(low: number, high: number): this {
    if (high !== 0) return this.#wide(0xcf, low, high)
    if (low < 0x80) return this.#byte(low)
    if (low < 0x100) return this.#byte(0xcc).#byte(low)
    const at = this.#reserve(low < 0x10000 ? 3 : 5)
    this.#bytes[at] = low < 0x10000 ? 0xcd : 0xce
    if (low < 0x10000) this.#set16(at + 1, low)
    else this.#set32(at + 1, low)
    return this
  }

  /** Hash `index` of a list of halves. */
  hash(words: Uint32Array, index: number): this {
    return this.u64(words[2 * index] as number, words[2 * index + 1] as number)
  }

  /** A 64-bit float. */
  float(value: number): this {
    const at = this.#reserve(9)
    this.#bytes[at] = 0xcb
    new DataView(this.#bytes.buffer).setFloat64(at + 1, value)
    return this
  }

  /** Bytes that are already encoded. */
  raw(encoded: Uint8Array): this {
    const at = this.#reserve(encoded.length)
    this.#bytes.set(encoded, at)
    return this
  }

  /** A plain value; whole numbers are written as integers, others as 64-bit floats. */
  value(value: MsgpackValue): this {
    if (value === null) return this.nil()
    switch (typeof value) {
      case 'boolean': return this.boolean(value)
      case 'string': return this.string(value)
      case 'bigint': return this.integer(value)
      case 'number': return Number.isSafeInteger(value) ? this.integer(value) : this.float(value)
      default:
    }
    if (value instanceof Uint8Array) return this.binary(value)
    if (Array.isArray(value)) {
      return this.#list(value as readonly MsgpackValue[])
    }
    const keys = Object.keys(value)
    this.mapHeader(keys.length)
    for (const key of keys) this.string(key).value((value as { readonly [key: string]: MsgpackValue })[key] as MsgpackValue)
    return this
  }

  /** A copy of what was written; the writer is empty afterwards and may be used again. */
  finish(): Uint8Array {
    const result = this.#bytes.slice(0, this.#length)
    this.#length = 0
    return result
  }

  /** Mostly token ids. */
  #list(items: readonly MsgpackValue[]): this {
    this.arrayHeader(items.length)
    for (let index = 0; index < items.length; index += 1) {
      const item = items[index] as MsgpackValue
      if (typeof item === 'number' && item >>> 0 === item) this.u64(item, 0)
      else this.value(item)
    }
    return this
  }

  #byte(value: number): this {
    const at = this.#reserve(1)
    this.#bytes[at] = value
    return this
  }

  #wide(type: number, low: number, high: number): this {
    const at = this.#reserve(9)
    this.#bytes[at] = type
    this.#set32(at + 1, high)
    this.#set32(at + 5, low)
    return this
  }

  #negative(value: number): this {
    if (value >= -32) return this.#byte(0x100 + value)
    const at = this.#reserve(value >= -0x80 ? 2 : value >= -0x8000 ? 3 : 5)
    this.#bytes[at] = value >= -0x80 ? 0xd0 : value >= -0x8000 ? 0xd1 : 0xd2
    if (value >= -0x80) this.#bytes[at + 1] = value
    else if (value >= -0x8000) this.#set16(at + 1, value)
    else this.#set32(at + 1, value)
    return this
  }

  #header(count: number, fixed: number, fixedMax: number, type8: number, type16: number, type32: number): this {
    if (count <= fixedMax) return this.#byte(fixed | count)
    if (type8 !== 0 && count < 0x100) return this.#byte(type8).#byte(count)
    const at = this.#reserve(count < 0x10000 ? 3 : 5)
    this.#bytes[at] = count < 0x10000 ? type16 : type32
    if (count < 0x10000) this.#set16(at + 1, count)
    else this.#set32(at + 1, count)
    return this
  }

  #set16(at: number, value: number): void {
    this.#bytes[at] = value >> 8
    this.#bytes[at + 1] = value
  }

  #set32(at: number, value: number): void {
    this.#bytes[at] = value >> 24
    this.#bytes[at + 1] = value >> 16
    this.#bytes[at + 2] = value >> 8
    this.#bytes[at + 3] = value
  }

  /** Makes room and returns where it begins. */
  #reserve(size: number): number {
    const at = this.#length
    const needed = at + size
    if (needed > this.#bytes.length) {
      if (needed > this.#bytesMax) throw new RangeError(`message of more than ${this.#bytesMax} bytes`)
      const grown = new Uint8Array(Math.min(this.#bytesMax, Math.max(needed, 2 * this.#bytes.length)))
      grown.set(this.#bytes.subarray(0, at))
      this.#bytes = grown
    }
    this.#length = needed
    return at
  }
}
