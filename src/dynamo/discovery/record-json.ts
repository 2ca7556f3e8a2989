/** JSON of discovery records with 64-bit integers kept whole. */
import { isInteger, isSafeNumber, parse, stringify } from 'lossless-json'
import type { Json, JsonObject } from '../../ports.ts'

const readNumber = (text: string): number | bigint =>
  isInteger(text) && !isSafeNumber(text) ? BigInt(text) : Number(text)

/** Parses a record. Throws SyntaxError for text that is no JSON object. */
export function parseRecord(text: string): JsonObject {
  const value = parse(text, null, readNumber) as Json
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw new SyntaxError(`a record must be a JSON object, not ${value === null ? 'null' : Array.isArray(value) ? 'an array' : `a ${typeof value}`}`)
  }
  return value as JsonObject
}

/** Compact JSON; bigints as bare integers. */
export function formatRecord(value: JsonObject): string {
  const text = stringify(value)
  if (text === undefined) throw new TypeError('a record must be a JSON object')
  return text
}
