/** What this room reads of a `tokenizer.json` itself: the tokens by id, the added tokens, and the decoder's description. */
import { TextError } from './text-error.ts'

export interface AddedToken {
  readonly id: number
  readonly content: string
  readonly special: boolean
  /** Splits a text wherever it stands and touches nothing beside it. */
  readonly clean: boolean
  /** Looked for in the text after normalization. */
  readonly normalized: boolean
}

export type DecoderConfig = { readonly type: string; readonly [field: string]: unknown }

export interface TokenizerFile {
  readonly text: string
  /** Sparse: ids without a token are undefined. */
  readonly tokens: readonly (string | undefined)[]
  readonly addedTokens: readonly AddedToken[]
  readonly decoder: DecoderConfig | null
  /** Parts between clean added tokens encode on their own: nothing in the pipeline looks at the place in the text. */
  readonly segmentsAreIndependent: boolean
  /** The parsed file without truncation and padding, for the pure encoder. */
  readonly json: { readonly [field: string]: unknown }
}

const isObject = (value: unknown): value is { readonly [field: string]: unknown } =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Errors: `TextError` naming the field. */
export function readTokenizerFile(bytes: Uint8Array): TokenizerFile {
  let json: unknown
  const source = new TextDecoder().decode(bytes)
  try {
    json = JSON.parse(source)
  } catch (cause) {
    throw new TextError('files', 'tokenizer.json is not valid JSON; fetch the model again', { cause })
  }
  if (!isObject(json) || !isObject(json['model'])) throw new TextError('files', 'tokenizer.json has no model; fetch the model again')
  const limited = json['truncation'] != null || json['padding'] != null
  const whole = limited ? { ...json, truncation: null, padding: null } : json
  const addedTokens = readAddedTokens(json['added_tokens'])
  const decoder = json['decoder']
  return {
    text: limited ? JSON.stringify(whole) : source,
    tokens: tokensOf(json['model'], addedTokens),
    addedTokens,
    decoder: isObject(decoder) && typeof decoder['type'] === 'string' ? (decoder as DecoderConfig) : null,
    segmentsAreIndependent: !looksAtPlace(json['pre_tokenizer']) && !looksAtPlace(json['normalizer']),
    json: whole,
  }
}

function readAddedTokens(value: unknown): AddedToken[] {
  if (!Array.isArray(value)) return []
  const added: AddedToken[] = []
  for (const entry of value) {
    if (!isObject(entry) || typeof entry['id'] !== 'number' || typeof entry['content'] !== 'string') {
      throw new TextError('files', 'tokenizer.json: an entry of added_tokens lacks id or content')
    }
    const flagged = entry['single_word'] === true || entry['lstrip'] === true || entry['rstrip'] === true
    const normalized = entry['normalized'] === true
    added.push({
      id: entry['id'],
      content: entry['content'],
      special: entry['special'] === true,
      clean: !flagged && !normalized && entry['content'] !== '',
      normalized,
    })
  }
  return added
}

function tokensOf(model: { readonly [field: string]: unknown }, added: readonly AddedToken[]): (string | undefined)[] {
  const tokens: (string | undefined)[] = []
  const vocabulary = model['vocab']
  if (Array.isArray(vocabulary)) {
    for (const entry of vocabulary) tokens.push(Array.isArray(entry) && typeof entry[0] === 'string' ? entry[0] : undefined)
  } else if (isObject(vocabulary)) {
    for (const token of Object.keys(vocabulary)) {
      const id = vocabulary[token]
      if (typeof id === 'number') tokens[id] = token
    }
  } else {
    throw new TextError('files', 'tokenizer.json: model.vocab is missing; this tokenizer kind is not supported')
  }
  for (const token of added) tokens[token.id] = token.content
  return tokens
}

/** Metaspace with `first` treats the part at the very beginning apart. */
function looksAtPlace(step: unknown): boolean {
  if (!isObject(step)) return false
  if (step['type'] === 'Sequence') {
    const steps = step['pretokenizers'] ?? step['normalizers']
    return Array.isArray(steps) && steps.some(looksAtPlace)
  }
  return step['type'] === 'Metaspace' && step['prepend_scheme'] === 'first'
}
