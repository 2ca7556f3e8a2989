/** One text or several, or token ids in their place: `prompt` of completions, `input` of embeddings. */
import type { Json } from '../ports.ts'
import { invalidField } from './api-error.ts'
import { checkTokenIds, isJsonList, shown, type Fields } from './fields.ts'

export type TextInput = string | readonly number[]

/** Bounds: `most` inputs; ids below `vocabularySize`. Errors: 400 that names the entry. */
export function readTextInputs(body: Fields, name: string, most: number, vocabularySize: number): readonly TextInput[] {
  const value = body.get(name)
  if (value === undefined) throw invalidField(name, `\`${name}\` is missing; send a string, a list of strings, or token ids`)
  if (typeof value === 'string') return [nonEmpty(value, name)]
  if (!isJsonList(value)) throw body.wrong(name, 'must be a string, a list of strings, or token ids', value)
  if (value.length === 0) throw invalidField(name, `\`${name}\` cannot be an empty list`)
  if (typeof value[0] === 'number') {
    checkTokenIds(value, name, vocabularySize)
    return [value as readonly number[]]
  }
  if (value.length > most) throw invalidField(name, `\`${name}\` may hold at most ${most} entries, got ${value.length}; send several requests`)
  return value.map((item, index) => oneInput(item, `${name}[${index}]`, vocabularySize))
}

function oneInput(item: Json, at: string, vocabularySize: number): TextInput {
  if (typeof item === 'string') return nonEmpty(item, at)
  if (!isJsonList(item)) throw invalidField(at, `\`${at}\` must be a string or a list of token ids, got ${shown(item)}`)
  if (item.length === 0) throw invalidField(at, `\`${at}\` cannot be empty`)
  checkTokenIds(item, at, vocabularySize)
  return item as readonly number[]
}

function nonEmpty(text: string, at: string): string {
  if (text === '') throw invalidField(at, `\`${at}\` cannot be empty; send some text`)
  return text
}
