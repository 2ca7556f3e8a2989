/** JSON without loss: integers beyond 2^53 are bigints on both sides, all other numbers are numbers. */
import { parse, stringify } from 'lossless-json'
import type { Json } from '../../ports.ts'
import { malformed } from './wire-error.ts'

/** Nesting of arrays and objects that `parseJson` follows at most. */
export const jsonNestingMax = 128

const utf8Decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const utf8Encoder = new TextEncoder()

/**
 * Decodes one JSON document.
 *
 * Errors: `WireError` malformed: text that is not JSON, nesting beyond `jsonNestingMax`. Never quotes the input.
 * Cost: one pass and the engine's own parser, unless an integer may be beyond 2^53.
 */
export function parseJson(text: string): Json {
  const { nesting, digits } = measure(text)
  if (nesting > jsonNestingMax) throw malformed(`JSON nested deeper than ${jsonNestingMax}`)
  try {
    return digits < 16 ? (JSON.parse(text) as Json) : (parse(text, undefined, { parseNumber: numberOf, onDuplicateKey: ({ newValue }) => newValue }) as Json)
  } catch (error) {
    throw malformed('not a JSON document', error)
  }
}

/** `parseJson` of UTF-8 bytes. Errors: also for bytes that are not UTF-8. */
export function parseJsonBytes(bytes: Uint8Array): Json {
  return parseJson(decodeUtf8(bytes))
}

/** Encodes a value as compact JSON text. bigints are written bare; binary becomes an array of numbers, as serde writes it. */
export function stringifyJson(value: unknown): string {
  try {
    // A replacer costs more than all the rest.
    return (holdsBinary(value) ? JSON.stringify(value, plainBinary) : JSON.stringify(value)) ?? 'null'
  } catch {
    return stringify(value, (_key, item: unknown) => (item instanceof Uint8Array ? Array.from(item) : item)) ?? 'null'
  }
}

/** `stringifyJson` as UTF-8 bytes. */
export function stringifyJsonBytes(value: unknown): Uint8Array {
  return utf8Encoder.encode(stringifyJson(value))
}

/** Text of UTF-8 bytes. Errors: `WireError` for other bytes. */
export function decodeUtf8(bytes: Uint8Array): string {
  try {
    return utf8Decoder.decode(bytes)
  } catch (error) {
    throw malformed('text that is not UTF-8', error)
  }
}

/** True for a JSON object (not null, not an array). */
export function isObject(value: unknown): value is { readonly [key: string]: unknown } {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array)
}

/** The deepest nesting and the longest run of digits, both outside of strings. */
function measure(text: string): { nesting: number; digits: number } {
  let depth = 0
  let nesting = 0
  let run = 0
  let digits = 0
  let escapeAt = -2
  for (let index = 0; index < text.length; index += 1) {
    const unit = text.charCodeAt(index)
    if (unit >= 0x30 && unit <= 0x39) {
      run += 1
      if (run > digits) digits = run
      continue
    }
    run = 0
    if (unit === 0x22) {
      // To the end of the string; the engine searches faster than a loop here.
      let end = text.indexOf('"', index + 1)
      for (;;) {
        if (escapeAt !== -1 && escapeAt <= index) escapeAt = text.indexOf('\\', index + 1)
        if (end < 0) return { nesting, digits }
        if (escapeAt === -1 || escapeAt > end) break
        index = escapeAt + 1
        if (end <= index) end = text.indexOf('"', index + 1)
      }
      index = end
    } else if (unit === 0x7b || unit === 0x5b) {
      depth += 1
      if (depth > nesting) nesting = depth
    } else if (unit === 0x7d || unit === 0x5d) depth -= 1
  }
  return { nesting, digits }
}

/** Nesting beyond any bound is left to the engine, whose own error it becomes. */
function holdsBinary(value: unknown, depth = 0): boolean {
  if (typeof value !== 'object' || value === null) return false
  if (value instanceof Uint8Array || depth > jsonNestingMax) return true
  if (Array.isArray(value)) {
    for (const item of value as readonly unknown[]) if (typeof item === 'object' && item !== null && holdsBinary(item, depth + 1)) return true
    return false
  }
  for (const key in value) if (holdsBinary((value as Record<string, unknown>)[key], depth + 1)) return true
  return false
}

function numberOf(text: string): number | bigint {
  const value = Number(text)
  return !Number.isSafeInteger(value) && /^-?\d+$/.test(text) ? BigInt(text) : value
}

/** A replacer: looks at the holder, because a Buffer has turned into another form by the time it is asked. */
function plainBinary(this: unknown, key: string, value: unknown): unknown {
  const original = (this as Record<string, unknown>)[key]
  return original instanceof Uint8Array ? Array.from(original) : value
}
