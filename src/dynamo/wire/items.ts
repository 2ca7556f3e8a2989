/**
 * Response items: the wrapper `{"data":ITEM,"complete_final":bool}` and, in it, annotated items
 * `{"data"?,"id"?,"event"?,"comment"?,"error"?}`. Source: Dynamo 1.6.1 network pipeline.
 */
import { MsgpackCursor } from '../../msgpack/cursor.ts'
import type { Failure } from '../../model/failure.ts'
import type { Codec } from '../../ports.ts'
import { decodeBody, encodeBody, type WireObject, type WireValue } from './body.ts'
import { failureFromWire, failureToWire } from './errors.ts'
import { encodeTwoPart } from './frames.ts'
import { isObject } from './json.ts'
import { malformed } from './wire-error.ts'

/** A decoded wrapper. `data` is undefined when absent or null. */
export interface ResponseItem {
  readonly data: WireValue | undefined
  readonly final: boolean
}

/** What an annotated item says. `data` is undefined when absent; `failure` is null unless it is an error. */
export interface AnnotatedItem {
  readonly data: WireValue | undefined
  readonly id: string | null
  readonly event: string | null
  readonly comments: readonly string[]
  readonly failure: Failure | null
}

/** Decodes one wrapper. Errors: `WireError`. */
export function decodeItem(body: Uint8Array, codec: Codec): ResponseItem {
  const value = decodeBody(body, codec)
  if (!isObject(value)) throw malformed('response item: expected a map')
  const final = value.complete_final
  if (typeof final !== 'boolean') throw malformed('response item: complete_final is missing or not a boolean')
  const data = value.data as WireValue | undefined
  return { data: data === null ? undefined : data, final }
}

/** Reads the item of a wrapper as an annotated one. Errors: `WireError` when it is not a map. */
export function readAnnotated(item: WireValue): AnnotatedItem {
  if (!isObject(item)) throw malformed('annotated item: expected a map')
  const event = typeof item.event === 'string' ? item.event : null
  const comments = Array.isArray(item.comment) ? item.comment.filter((line): line is string => typeof line === 'string') : []
  return {
    data: item.data === null ? undefined : (item.data as WireValue | undefined),
    id: typeof item.id === 'string' ? item.id : null,
    event,
    comments,
    failure: failureOf(item.error, event, comments),
  }
}

function failureOf(error: unknown, event: string | null, comments: readonly string[]): Failure | null {
  if (error !== undefined && error !== null) return failureFromWire(error)
  if (event !== 'error') return null
  return { class: 'Internal', reason: 'runtime.unclassified', message: comments.length === 0 ? 'unknown error' : comments.join(', ') }
}

/** Encodes a wrapper around an item that is not the last. */
export function encodeItem(item: WireValue, codec: Codec): Uint8Array {
  return encodeBody({ data: item, complete_final: false }, codec)
}

/** Encodes plain data as an annotated item in its wrapper. */
export function encodeData(data: WireValue, codec: Codec): Uint8Array {
  return encodeItem({ data }, codec)
}

/** Encodes a failure as an annotated item in its wrapper. */
export function encodeFailureItem(failure: Failure, codec: Codec): Uint8Array {
  return encodeItem({ event: 'error', error: failureToWire(failure) } satisfies WireObject, codec)
}

const finalBodies: Readonly<Record<Codec, Uint8Array>> = {
  msgpack: encodeBody({ complete_final: true }, 'msgpack'),
  json: encodeBody({ complete_final: true }, 'json'),
}

const finalFrames: Readonly<Record<Codec, Uint8Array>> = {
  msgpack: encodeTwoPart('', finalBodies.msgpack),
  json: encodeTwoPart('', finalBodies.json),
}

/** The complete frame of the final item. Shared: must not be changed. */
export function finalFrame(codec: Codec): Uint8Array {
  return finalFrames[codec]
}

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text)
const msgpackFalse = Uint8Array.from([0xae, ...ascii('complete_final'), 0xc2])
const msgpackTrue = Uint8Array.from([0xae, ...ascii('complete_final'), 0xc3])
const msgpackDataFirst = Uint8Array.from([0x82, 0xa4, ...ascii('data')])
const jsonFalse = ascii('"complete_final":false}')
const jsonTrue = ascii('"complete_final":true}')

/**
 * Whether a body is the final item of its stream, for every valid body; false for one that is not valid.
 *
 * Cost: a look at both ends for the usual forms; else a pass over the map without allocation (MessagePack) or a decode (JSON).
 */
export function isFinalFrame(body: Uint8Array, codec: Codec): boolean {
  return codec === 'msgpack' ? isFinalMsgpack(body) : isFinalJson(body)
}

function isFinalMsgpack(body: Uint8Array): boolean {
  // In a map of two whose first key is data, the other is complete_final, and its value is the last byte.
  if (hasAt(body, msgpackDataFirst, 0)) {
    if (hasAt(body, msgpackFalse, body.length - msgpackFalse.length)) return false
    if (hasAt(body, msgpackTrue, body.length - msgpackTrue.length)) return true
  }
  try {
    const cursor = new MsgpackCursor(body)
    let final = false
    for (let left = cursor.readMapHeader(); left > 0; left -= 1) {
      if (cursor.readString() === 'complete_final') final = cursor.readBoolean()
      else cursor.skip()
    }
    return final && cursor.atEnd
  } catch {
    return false
  }
}

function isFinalJson(body: Uint8Array): boolean {
  // The last brace closes the item. A comma or brace before the key's first quote shows that this quote is not escaped, so that it is the whole key.
  if (hasAt(body, jsonFalse, body.length - jsonFalse.length) && opensKey(body, body.length - jsonFalse.length)) return false
  if (hasAt(body, jsonTrue, body.length - jsonTrue.length) && opensKey(body, body.length - jsonTrue.length)) return true
  try {
    return decodeItem(body, 'json').final
  } catch {
    return false
  }
}

function opensKey(body: Uint8Array, quoteAt: number): boolean {
  const before = body[quoteAt - 1]
  return before === 0x2c || before === 0x7b
}

function hasAt(body: Uint8Array, expected: Uint8Array, at: number): boolean {
  if (at < 0 || at + expected.length > body.length) return false
  for (let index = 0; index < expected.length; index += 1) if (body[at + index] !== expected[index]) return false
  return true
}
