/** Bodies of requests and response items as values, in either codec. */
import { MsgpackCursor } from '../../msgpack/cursor.ts'
import { MsgpackWriter } from '../../msgpack/writer.ts'
import type { Codec } from '../../ports.ts'
import { parseJsonBytes, stringifyJsonBytes } from './json.ts'
import { malformed } from './wire-error.ts'

/** A decoded body: JSON values, with bigints for integers beyond 2^53, and binary (MessagePack only). */
export type WireValue = null | boolean | number | bigint | string | Uint8Array | readonly WireValue[] | WireObject
export type WireObject = { readonly [key: string]: WireValue }

/**
 * Decodes a whole body. Binary is a view of the input.
 *
 * Errors: `WireError` malformed, for bytes left over too.
 */
export function decodeBody(body: Uint8Array, codec: Codec): WireValue {
  if (codec === 'json') return parseJsonBytes(body)
  try {
    const cursor = new MsgpackCursor(body)
    const value = cursor.readValue()
    cursor.expectEnd()
    return value
  } catch (error) {
    throw malformed(`not a MessagePack document: ${error instanceof Error ? error.message : String(error)}`, error)
  }
}

/**
 * Encodes a body. In MessagePack whole numbers take the smallest integer form.
 *
 * Errors: `TypeError` or `RangeError` for values that no codec has (functions, integers beyond 64 bits).
 */
export function encodeBody(value: WireValue, codec: Codec): Uint8Array {
  return codec === 'json' ? stringifyJsonBytes(value) : new MsgpackWriter(256).value(value).finish()
}
