/** JSON bodies without loss: integers beyond 2^53 are bigints on both sides. */
import { parse, stringify } from 'lossless-json'
import { FailureError } from '../model/failure.ts'
import type { Json } from '../ports.ts'

/** An `InvalidRequest` failure with the field, the value's kind and the mend. */
export const invalidBody = (message: string): FailureError =>
  new FailureError({ class: 'InvalidRequest', reason: 'request.invalid', message })

function numberOf(text: string): number | bigint {
  const value = Number(text)
  return /^-?\d+$/.test(text) && !Number.isSafeInteger(value) ? BigInt(text) : value
}

/** No run of 16 digits: every integer is exact as a number, and the engine's own parser may do it. */
const mayLosePrecision = /\d{16}/

/**
 * Decodes one body.
 *
 * Errors: `FailureError` InvalidRequest that names the position; never quotes the body.
 */
export function decodeBody(text: string): Json {
  if (text.trim() === '') throw invalidBody('the body is empty; send a JSON object such as {"token_ids":[1,2,3]}')
  try {
    return mayLosePrecision.test(text) ? (parse(text, undefined, numberOf) as Json) : (JSON.parse(text) as Json)
  } catch (error) {
    throw invalidBody(`the body is not valid JSON${placeOf(text, error)}; send one JSON object`)
  }
}

function placeOf(text: string, error: unknown): string {
  if (error instanceof RangeError) return ': it is nested too deeply'
  try {
    parse(text, undefined, numberOf)
  } catch (cause) {
    const position = /at position (\d+)$/.exec(cause instanceof Error ? cause.message : '')?.[1]
    if (position !== undefined) return ` at position ${position}`
  }
  return ''
}

/** One line of JSON; bigints as bare integers. */
export const encodeBody = (value: Json): string => stringify(value) ?? 'null'
