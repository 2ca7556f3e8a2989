/** Prompt text to token ids, with refusals in the client's terms. */
import type { StopSignal } from '../ports.ts'
import { TextError } from '../text/text-error.ts'
import { ApiError, invalidField } from './api-error.ts'
import type { ServedModel } from './catalog.ts'

/** UTF-16 units of one prompt at most. */
export const promptLengthMax = 16 * 1024 * 1024

/** Adds no special tokens: the template brings its own, and a completion's prompt is taken as it is. Errors: 400 too long, 503 too many at once. */
export async function encodePrompt(model: ServedModel, text: string, param: string, signal: StopSignal): Promise<readonly number[]> {
  if (text.length > promptLengthMax) throw invalidField(param, `\`${param}\` has ${text.length} characters, the limit is ${promptLengthMax}; shorten it`)
  try {
    return plainList(await model.text.encode(text, { addSpecialTokens: false, signal }))
  } catch (error) {
    if (!(error instanceof TextError) || error.kind !== 'limit') throw error
    throw new ApiError({ class: 'Unavailable', reason: 'backend.unavailable', message: `the prompt could not be tokenized now: ${error.message}` }, { cause: error })
  }
}

/** `Array.from` asks an iterator for each. */
function plainList(ids: Uint32Array): number[] {
  const list: number[] = []
  for (let index = 0; index < ids.length; index += 1) list.push(ids[index] as number)
  return list
}
