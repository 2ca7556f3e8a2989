/** Bodies of the mirror: lossless JSON, with mistakes told by their place and never quoted. */
import { parse } from 'lossless-json'
import { parseJson, stringifyJson } from '../dynamo/wire/json.ts'
import { FailureError } from '../model/failure.ts'
import type { Json } from '../ports.ts'

/** An `InvalidRequest` failure; the message names the field and the mend. */
export const invalidBody = (message: string): FailureError =>
  new FailureError({ class: 'InvalidRequest', reason: 'request.invalid', message })

/** Decodes one body. Errors: `FailureError` InvalidRequest that names the position. */
export function decodeBody(text: string): Json {
  if (text.trim() === '') throw invalidBody('the body is empty; send a JSON object such as {"token_ids":[1,2,3]}')
  try {
    return parseJson(text)
  } catch {
    throw invalidBody(`the body is not valid JSON${placeOf(text)}; send one JSON object`)
  }
}

/** Asks the slower parser, which knows where it stopped. */
function placeOf(text: string): string {
  try {
    parse(text)
  } catch (cause) {
    if (cause instanceof RangeError) return ': it is nested too deeply'
    const position = /at position (\d+)$/.exec(cause instanceof Error ? cause.message : '')?.[1]
    if (position !== undefined) return ` at position ${position}`
  }
  return ': it is nested too deeply'
}

/** One line of JSON; bigints as bare integers. */
export const encodeBody = (value: Json): string => stringifyJson(value)
