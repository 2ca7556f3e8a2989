/**
 * MessagePack read by hand: a cursor over bytes (`writer.ts` is its counterpart).
 *
 * For codecs that must keep 64-bit integers exact and put hashes into word arrays without making a bigint each.
 * Hostile input ends in a `MsgpackError`: a header never promises more items than bytes are left, and nothing recurses
 * unbounded. Source: the MessagePack specification.
 */

/** Malformed or unexpected MessagePack. `offset`: the byte where the item begins. */
export class MsgpackError extends Error {
  readonly offset: number
  constructor(message: string, offset: number) {
    super(`${message} at byte ${offset}`)
    this.name = 'MsgpackError'
    this.offset = offset
  }
}

/** The family of an item, by its first byte. */
export type MsgpackFamily = 'nil' | 'boolean' | 'integer' | 'float' | 'string' | 'binary' | 'array' | 'map' | 'extension' | 'reserved'

/** Nesting that `readValue` follows at most. */
export const nestingMax = 64

const utf8Decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const utf8Encoder = new TextEncoder()

// Short texts mostly come again: one string for each, found by its bytes.
const shortMax = 32
const textSlots = 256
const recentTexts: string[] = Array.from({ length: textSlots }, () => '')

/** ASCII as a string; null for other bytes. */
function shortText(bytes: Uint8Array, at: number, length: number): string | null {
  let mixed = length
  for (let unit = at; unit < at + length; unit += 1) mixed = (Math.imul(mixed, 31) + bytes[unit]!) | 0
  const slot = (mixed ^ (mixed >>> 8) ^ (mixed >>> 16)) & (textSlots - 1)
  const recent = recentTexts[slot]!
  if (recent.length === length) {
    let same = 0
    while (same < length && recent.charCodeAt(same) === bytes[at + same]) same += 1
    if (same === length) return recent
  }
  let text = ''
  for (let unit = at; unit < at + length; unit += 1) {
    const code = bytes[unit]!
    if (code >= 0x80) return null
    text += String.fromCharCode(code)
  }
  recentTexts[slot] = text
  return text
}

/** Key names as encoded items, for `MsgpackCursor.readKey`. Names are at most 31 bytes of ASCII. */
export class KeyTable {
  readonly encoded: readonly Uint8Array[]
  /** Each item as big-endian words, the last one of its last four bytes; none of items below four bytes. */
  readonly words: readonly Int32Array[]
  /** The first byte of each item, which tells its length. */
  readonly headers: Uint8Array
  constructor(names: readonly string[]) {
    this.encoded = names.map((name) => {
      const bytes = utf8Encoder.encode(name)
      if (bytes.length > 31) throw new RangeError(`key ${name} is longer than 31 bytes`)
      return Uint8Array.from([0xa0 | bytes.length, ...bytes])
    })
    this.headers = Uint8Array.from(this.encoded, (bytes) => bytes[0]!)
    this.words = this.encoded.map((bytes) => {
      const view = new DataView(bytes.buffer)
      return Int32Array.from({ length: bytes.length < 4 ? 0 : Math.ceil(bytes.length / 4) }, (_, word) => view.getInt32(Math.min(4 * word, bytes.length - 4)))
    })
  }
}

/** Values as `MsgpackCursor.readValue` makes them. Integers beyond 2^53 are bigints; map keys are strings. */
export type MsgpackValue = null | boolean | number | bigint | string | Uint8Array | readonly MsgpackValue[] | { readonly [key: string]: MsgpackValue }

/** Reads items one after the other. `offset` may be saved and set back to try another reading. */
export class MsgpackCursor {
  readonly bytes: Uint8Array
  readonly end: number
  offset: number
  #view: DataView | null = null

  constructor(bytes: Uint8Array, start = 0, end: number = bytes.length) {
    if (start < 0 || end > bytes.length || start > end) throw new RangeError(`range ${start}..${end} of ${bytes.length} bytes`)
    this.bytes = bytes
    this.end = end
    this.offset = start
  }

  /** The same bytes, for long rows of numbers; made when it is asked for. */
  get view(): DataView {
    return (this.#view ??= new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength))
  }

  get atEnd(): boolean {
    return this.offset === this.end
  }

  /** The family of the next item; the cursor stays. */
  peek(): MsgpackFamily {
    return familyOf(this.#peekByte())
  }

  /** Passes a nil if the next item is one. */
  tryNil(): boolean {
    if (this.#peekByte() !== 0xc0) return false
    this.offset += 1
    return true
  }

  readBoolean(): boolean {
    const byte = this.#peekByte()
    if (byte !== 0xc2 && byte !== 0xc3) this.#expected('a boolean')
    this.offset += 1
    return byte === 0xc3
  }

  /** The number of key and value pairs that follow. */
  readMapHeader(): number {
    const byte = this.#peekByte()
    const start = this.offset
    let count: number
    if (byte >> 4 === 0x8) { this.offset += 1; count = byte & 0x0f }
    else if (byte === 0xde) count = this.#sized(2)
    else if (byte === 0xdf) count = this.#sized(4)
    else return this.#expected('a map')
    if (count * 2 > this.end - this.offset) throw new MsgpackError(`a map of ${count} pairs in ${this.end - this.offset} bytes`, start)
    return count
  }

  /** The number of items that follow. */
  readArrayHeader(): number {
    const byte = this.#peekByte()
    const start = this.offset
    let count: number
    if (byte >> 4 === 0x9) { this.offset += 1; count = byte & 0x0f }
    else if (byte === 0xdc) count = this.#sized(2)
    else if (byte === 0xdd) count = this.#sized(4)
    else return this.#expected('an array')
    if (count > this.end - this.offset) throw new MsgpackError(`an array of ${count} items in ${this.end - this.offset} bytes`, start)
    return count
  }

  /** A string. Errors: not UTF-8. */
  readString(): string {
    const byte = this.#peekByte()
    const start = this.offset
    let length: number
    if (byte >> 5 === 0x5) { this.offset += 1; length = byte & 0x1f }
    else if (byte === 0xd9) length = this.#sized(1)
    else if (byte === 0xda) length = this.#sized(2)
    else if (byte === 0xdb) length = this.#sized(4)
    else return this.#expected('a string')
    if (length > this.end - this.offset) throw new MsgpackError(`${length} bytes promised, ${this.end - this.offset} left`, start)
    const at = this.offset
    this.offset += length
    if (length <= shortMax) {
      const text = shortText(this.bytes, at, length)
      if (text !== null) return text
    }
    try {
      return utf8Decoder.decode(this.bytes.subarray(at, at + length))
    } catch {
      throw new MsgpackError('a string that is not UTF-8', start)
    }
  }

  /** A `bin` item, as a view of the input. */
  readBinary(): Uint8Array {
    const byte = this.#peekByte()
    const start = this.offset
    let length: number
    if (byte === 0xc4) length = this.#sized(1)
    else if (byte === 0xc5) length = this.#sized(2)
    else if (byte === 0xc6) length = this.#sized(4)
    else return this.#expected('binary')
    return this.#take(length, start)
  }

  /**
   * Reads a map key and finds it in a table. `hint` is tried first: keys mostly come in one order.
   * Returns the index in the table, or -1 for a string that is not in it. Errors: a key that is not a string.
   */
  readKey(table: KeyTable, hint: number): number {
    const keys = table.encoded
    const expected = keys[hint]
    if (expected !== undefined && this.#tryKey(expected, table.words[hint]!)) return hint
    const { headers } = table
    const header = this.#peekByte()
    for (let index = 0; index < headers.length; index += 1) {
      if (headers[index] === header && this.#tryKey(keys[index]!, table.words[index]!)) return index
    }
    if (header >> 5 === 0x5) {
      this.readString()
      return -1
    }
    if (this.peek() !== 'string') this.#expected('a string key')
    const name = this.readString()
    // A name in a longer string form than it needs.
    return keys.findIndex((key) => key.length - 1 === name.length && utf8Decoder.decode(key.subarray(1)) === name)
  }

  /** An integer; a bigint when it is beyond 2^53. Errors: floats, even whole ones. */
  readInteger(): number | bigint {
    const byte = this.#peekByte()
    const at = this.offset + 1
    if (byte < 0x80) { this.offset = at; return byte }
    if (byte >= 0xe0) { this.offset = at; return byte - 0x100 }
    switch (byte) {
      case 0xcc: this.#need(1); return this.bytes[at] as number
      case 0xcd: this.#need(2); return u16(this.bytes, at)
      case 0xce: this.#need(4); return i32(this.bytes, at) >>> 0
      case 0xd0: this.#need(1); return (this.bytes[at] as number) << 24 >> 24
      case 0xd1: this.#need(2); return u16(this.bytes, at) << 16 >> 16
      case 0xd2: this.#need(4); return i32(this.bytes, at)
      case 0xcf: case 0xd3: {
        this.#need(8)
        const high = byte === 0xcf ? i32(this.bytes, at) >>> 0 : i32(this.bytes, at)
        const low = i32(this.bytes, at + 4) >>> 0
        const value = high * 0x1_0000_0000 + low
        if (Number.isSafeInteger(value)) return value
        return (BigInt(high) << 32n) | BigInt(low)
      }
      default: return this.#expected('an integer')
    }
  }

  /** An integer in [0, 2^32). Errors: others. */
  readU32(): number {
    const start = this.offset
    const value = this.readInteger()
    if (typeof value !== 'number' || value < 0 || value > 0xffffffff) throw new MsgpackError(`${value} is not a u32`, start)
    return value
  }

  /** `count` integers in [0, 2^32) in a row. Errors: others. */
  readU32s(words: Uint32Array, count: number): void {
    const { bytes } = this
    let at = this.offset
    for (let index = 0; index < count; index += 1) {
      const byte = bytes[at]!
      // The forms of token ids, far from the end; all else below.
      if (at + 5 > this.end) { this.offset = at; words[index] = this.readU32(); at = this.offset }
      else if (byte < 0x80) { words[index] = byte; at += 1 }
      else if (byte === 0xcd) { words[index] = (bytes[at + 1]! << 8) | bytes[at + 2]!; at += 3 }
      else if (byte === 0xce) { words[index] = (bytes[at + 1]! << 24) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 8) | bytes[at + 4]!; at += 5 }
      else { this.offset = at; words[index] = this.readU32(); at = this.offset }
    }
    this.offset = at
  }

  /** An integer in [0, 2^64) as a bigint. Errors: others. */
  readBigU64(): bigint {
    const start = this.offset
    if (this.#peekByte() === 0xcf) {
      this.#need(8)
      return (BigInt(i32(this.bytes, start + 1) >>> 0) << 32n) | BigInt(i32(this.bytes, start + 5) >>> 0)
    }
    const value = BigInt(this.readInteger())
    if (value < 0n) throw new MsgpackError(`${value} is not a u64`, start)
    return value
  }

  /**
   * Writes an integer in [0, 2^64) as halves to `words[2 index]` (low) and `words[2 index + 1]` (high).
   * Errors: negative integers, other families.
   */
  readU64(words: Uint32Array, index: number): void {
    if (this.#peekByte() === 0xcf) {
      this.#need(8)
      words[2 * index + 1] = i32(this.bytes, this.offset - 8)
      words[2 * index] = i32(this.bytes, this.offset - 4)
      return
    }
    const start = this.offset
    const value = this.readInteger()
    if (typeof value === 'bigint' || value < 0) throw new MsgpackError(`${value} is not a u64`, start)
    words[2 * index] = value >>> 0
    words[2 * index + 1] = Math.floor(value / 0x1_0000_0000)
  }

  /** `count` integers in a row, as `readU64` from index 0 on. */
  readU64s(words: Uint32Array, count: number): void {
    for (let index = 0; index < count; index += 1) this.readU64(words, index)
  }

  /** As `readU64`, but negative 64-bit integers are taken as two's complement. */
  readHash(words: Uint32Array, index: number): void {
    const byte = this.#peekByte()
    if (byte === 0xcf || byte === 0xd3) {
      this.#need(8)
      words[2 * index + 1] = i32(this.bytes, this.offset - 8)
      words[2 * index] = i32(this.bytes, this.offset - 4)
      return
    }
    const value = Number(this.readInteger())
    words[2 * index] = value >>> 0
    words[2 * index + 1] = Math.floor(value / 0x1_0000_0000)
  }

  /** A float or an integer, as a number. */
  readNumber(): number {
    const byte = this.#peekByte()
    const at = this.offset + 1
    if (byte === 0xca) { this.#need(4); return this.view.getFloat32(at) }
    if (byte === 0xcb) { this.#need(8); return this.view.getFloat64(at) }
    if (familyOf(byte) !== 'integer') this.#expected('a number')
    return Number(this.readInteger())
  }

  /** A list of integers in [0, 2^32); null, and the cursor stays, when the next item is no such list. */
  tryU32s(): Uint32Array | null {
    if (this.peek() !== 'array') return null
    const start = this.offset
    const count = this.readArrayHeader()
    const items = new Uint32Array(count)
    for (let index = 0; index < count; index += 1) {
      const item = this.#smallInteger()
      if (item === null) {
        this.offset = start
        return null
      }
      items[index] = item
    }
    return items
  }

  /** Passes one item of any family with all that is in it. Cost: no recursion, no allocation. */
  skip(): void {
    for (let left = 1; left > 0; left -= 1) {
      const byte = this.#peekByte()
      const start = this.offset
      switch (familyOf(byte)) {
        case 'map': left += 2 * this.readMapHeader(); break
        case 'array': left += this.readArrayHeader(); break
        case 'string': case 'binary': case 'extension': this.#skipSized(byte, start); break
        case 'float': this.readNumber(); break
        case 'integer': this.readInteger(); break
        case 'reserved': throw new MsgpackError('the reserved byte 0xc1', start)
        default: this.offset += 1
      }
    }
  }

  /**
   * One item as plain values. Map keys must be strings (`__proto__` is kept as an own key); of repeated keys the last counts.
   * Errors: extensions, nesting beyond `nestingMax`.
   */
  readValue(depth = 0): MsgpackValue {
    if (depth > nestingMax) throw new MsgpackError(`nesting deeper than ${nestingMax}`, this.offset)
    switch (this.peek()) {
      case 'nil': this.offset += 1; return null
      case 'boolean': return this.readBoolean()
      case 'integer': return this.readInteger()
      case 'float': return this.readNumber()
      case 'string': return this.readString()
      case 'binary': return this.readBinary()
      case 'array': {
        const items: MsgpackValue[] = []
        for (let left = this.readArrayHeader(); left > 0; left -= 1) items.push(this.#smallInteger() ?? this.readValue(depth + 1))
        return items
      }
      case 'map': {
        const map: Record<string, MsgpackValue> = {}
        for (let left = this.readMapHeader(); left > 0; left -= 1) {
          const key = this.readString()
          const value = this.readValue(depth + 1)
          if (key === '__proto__') Object.defineProperty(map, key, { value, writable: true, enumerable: true, configurable: true })
          else map[key] = value
        }
        return map
      }
      default: return this.#expected('a plain value')
    }
  }

  /** An integer of up to 32 bits without a sign, as token ids are; null for every other item, which stays. */
  #smallInteger(): number | null {
    const { bytes, offset } = this
    const byte = offset < this.end ? (bytes[offset] as number) : 0xc1
    if (byte < 0x80) {
      this.offset = offset + 1
      return byte
    }
    if (byte === 0xcd && this.end - offset >= 3) {
      this.offset = offset + 3
      return u16(bytes, offset + 1)
    }
    if (byte === 0xcc && this.end - offset >= 2) {
      this.offset = offset + 2
      return bytes[offset + 1] as number
    }
    if (byte !== 0xce || this.end - offset < 5) return null
    this.offset = offset + 5
    return i32(bytes, offset + 1) >>> 0
  }

  /** Errors: bytes left after the last item. */
  expectEnd(): void {
    if (this.offset !== this.end) throw new MsgpackError(`${this.end - this.offset} bytes too many`, this.offset)
  }

  #peekByte(): number {
    if (this.offset >= this.end) throw new MsgpackError('unexpected end of input', this.offset)
    return this.bytes[this.offset] as number
  }

  /** Passes a type byte and `size` bytes of content. */
  #need(size: number): void {
    if (this.end - this.offset < size + 1) throw new MsgpackError('unexpected end of input', this.offset)
    this.offset += size + 1
  }

  /** Passes a type byte and its length field of `size` bytes. */
  #sized(size: 1 | 2 | 4): number {
    this.#need(size)
    const at = this.offset - size
    if (size === 1) return this.bytes[at] as number
    return size === 2 ? u16(this.bytes, at) : i32(this.bytes, at) >>> 0
  }

  #take(length: number, start: number): Uint8Array {
    if (length > this.end - this.offset) throw new MsgpackError(`${length} bytes promised, ${this.end - this.offset} left`, start)
    this.offset += length
    return this.bytes.subarray(this.offset - length, this.offset)
  }

  #skipSized(byte: number, start: number): void {
    let length: number
    if (byte >> 5 === 0x5) { this.offset += 1; length = byte & 0x1f }
    else if (byte === 0xd9 || byte === 0xc4) length = this.#sized(1)
    else if (byte === 0xda || byte === 0xc5) length = this.#sized(2)
    else if (byte === 0xdb || byte === 0xc6) length = this.#sized(4)
    else if (byte === 0xc7) length = this.#sized(1) + 1
    else if (byte === 0xc8) length = this.#sized(2) + 1
    else if (byte === 0xc9) length = this.#sized(4) + 1
    else { this.offset += 1; length = 1 + (1 << (byte - 0xd4)) }
    if (length > this.end - this.offset) throw new MsgpackError(`${length} bytes promised, ${this.end - this.offset} left`, start)
    this.offset += length
  }

  #tryKey(expected: Uint8Array, words: Int32Array): boolean {
    const { bytes, offset } = this
    const length = expected.length
    if (words.length === 0) return this.#tryBytes(expected)
    if (length > this.end - offset || i32(bytes, offset + length - 4) !== words[words.length - 1]) return false
    for (let word = 0; word < words.length - 1; word += 1) if (i32(bytes, offset + 4 * word) !== words[word]) return false
    this.offset += length
    return true
  }

  #tryBytes(expected: Uint8Array): boolean {
    const { bytes, offset } = this
    const length = expected.length
    if (length > this.end - offset) return false
    for (let index = 0; index < length; index += 1) if (bytes[offset + index] !== expected[index]) return false
    this.offset += length
    return true
  }

  #expected(what: string): never {
    throw new MsgpackError(`expected ${what}, found ${familyOf(this.#peekByte())}`, this.offset)
  }
}

// A DataView costs more to make than a small message costs to read.
const u16 = (bytes: Uint8Array, at: number): number => ((bytes[at] as number) << 8) | (bytes[at + 1] as number)

const i32 = (bytes: Uint8Array, at: number): number =>
  ((bytes[at] as number) << 24) | ((bytes[at + 1] as number) << 16) | ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number)

function familyOf(byte: number): MsgpackFamily {
  if (byte < 0x80 || byte >= 0xe0) return 'integer'
  if (byte < 0x90) return 'map'
  if (byte < 0xa0) return 'array'
  if (byte < 0xc0) return 'string'
  switch (byte) {
    case 0xc0: return 'nil'
    case 0xc1: return 'reserved'
    case 0xc2: case 0xc3: return 'boolean'
    case 0xc4: case 0xc5: case 0xc6: return 'binary'
    case 0xca: case 0xcb: return 'float'
    case 0xd9: case 0xda: case 0xdb: return 'string'
    case 0xdc: case 0xdd: return 'array'
    case 0xde: case 0xdf: return 'map'
    default: return byte >= 0xcc && byte <= 0xd3 ? 'integer' : 'extension'
  }
}
