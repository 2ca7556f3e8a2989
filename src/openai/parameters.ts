/** The parameters that chat and completions share, checked against one table: which values are good, and what the worker is sent. */
import type { Json, JsonObject } from '../ports.ts'
import { invalidField } from './api-error.ts'
import { Fields, isJsonObject, shown, u32Max } from './fields.ts'

export const stopStringsMax = 32
export const choicesMax = 128

/** OpenAI's own parameters of both endpoints. */
const openAiCommon = [
  'model', 'frequency_penalty', 'presence_penalty', 'logit_bias', 'logprobs', 'max_tokens', 'n', 'seed', 'stop', 'stream', 'stream_options',
  'temperature', 'top_p', 'user', 'nvext', 'metadata', 'store', 'service_tier', 'safety_identifier', 'prompt_cache_key', 'prompt_cache_retention',
]

/** Parameters of the engines that Dynamo takes too. */
export const engineParameters = [
  'cache_salt', 'stop_token_ids', 'detokenize', 'allowed_token_ids', 'bad_words_token_ids', 'logprob_token_ids', 'top_k', 'min_p',
  'repetition_penalty', 'length_penalty', 'use_beam_search', 'best_of', 'ignore_eos', 'min_tokens', 'guided_json', 'guided_regex',
  'guided_choice', 'guided_grammar', 'guided_decoding_backend', 'guided_whitespace_pattern', 'structural_tag', 'skip_special_tokens',
  'spaces_between_special_tokens', 'include_stop_str_in_output', 'prompt_logprobs', 'return_tokens_as_token_ids', 'mm_processor_kwargs',
  'media_io_kwargs',
]

const chatOnly = [
  'messages', 'reasoning_effort', 'top_logprobs', 'max_completion_tokens', 'modalities', 'prediction', 'audio', 'response_format', 'tools',
  'tool_choice', 'parallel_tool_calls', 'verbosity', 'web_search_options', 'functions', 'function_call', 'chat_template_kwargs',
  'chat_template_args', 'continue_final_message', 'add_generation_prompt',
]

const completionOnly = ['prompt', 'suffix', 'echo', 'response_format']

const known = {
  chat: new Set([...openAiCommon, ...engineParameters, ...chatOnly]),
  completion: new Set([...openAiCommon, ...engineParameters, ...completionOnly]),
} as const

/** Errors: 400 that lists every parameter nobody knows. */
export function refuseUnknownParameters(body: Fields, endpoint: keyof typeof known): void {
  const unknown = Object.keys(body.object).filter((name) => !known[endpoint].has(name))
  if (unknown.length === 0) return
  const listed = unknown.slice(0, 10).map((name) => `\`${name.slice(0, 60)}\``).join(', ')
  throw invalidField(unknown[0] as string, `Unsupported parameter(s): ${listed}; leave them out`, 'unknown_parameter')
}

export interface StreamOptions {
  readonly includeUsage: boolean
  /** Usage on every chunk. */
  readonly continuousUsage: boolean
}

/** Errors: 400 when given without `stream`. */
export function readStreamOptions(body: Fields, stream: boolean): StreamOptions {
  const group = body.group('stream_options')
  if (group === undefined) return { includeUsage: false, continuousUsage: false }
  if (!stream) throw invalidField('stream_options', '`stream_options` is only allowed with `"stream": true`; leave it out or stream')
  group.boolean('include_obfuscation')
  const continuousUsage = group.boolean('continuous_usage_stats') ?? false
  return { includeUsage: group.boolean('include_usage') ?? false, continuousUsage }
}

export interface SamplingParameters {
  readonly n: number
  /** `sampling_options` with every key, `null` where nothing was asked; guided decoding is set by the caller. */
  readonly options: Record<string, Json>
}

/** Errors: 400 for the first value outside its range. */
export function readSampling(body: Fields): SamplingParameters {
  const n = body.integer('n', { min: 1, max: choicesMax })
  const bestOf = body.integer('best_of', { min: 1, max: 20 })
  if (bestOf !== undefined && bestOf < (n ?? 1)) throw invalidField('best_of', `\`best_of\` must be at least \`n\` (${n ?? 1}), got ${bestOf}`)
  const topK = body.integer('top_k', { min: -1, max: 2_147_483_647 })
  checkLogitBias(body)
  return {
    n: n ?? 1,
    options: {
      n: n ?? null,
      best_of: bestOf ?? null,
      presence_penalty: body.float32('presence_penalty', { min: -2, max: 2 }) ?? null,
      frequency_penalty: body.float32('frequency_penalty', { min: -2, max: 2 }) ?? null,
      repetition_penalty: body.float32('repetition_penalty', { min: 0, max: 2, above: true }) ?? null,
      temperature: body.float32('temperature', { min: 0, max: 2 }) ?? null,
      top_p: body.float32('top_p', { min: 0, max: 1, above: true }) ?? null,
      // Both mean "all tokens"; workers know -1.
      top_k: topK === 0 ? -1 : (topK ?? null),
      min_p: body.float32('min_p', { min: 0, max: 1 }) ?? null,
      use_beam_search: body.boolean('use_beam_search') ?? null,
      length_penalty: body.float32('length_penalty') ?? null,
      seed: body.wide('seed', -(1n << 63n), (1n << 63n) - 1n) ?? null,
      include_stop_str_in_output: body.boolean('include_stop_str_in_output') ?? null,
      guided_decoding: null,
    },
  }
}

function checkLogitBias(body: Fields): void {
  const biases = body.group('logit_bias')
  if (biases === undefined) return
  for (const token of Object.keys(biases.object)) {
    if (!/^\d{1,10}$/.test(token)) throw invalidField('logit_bias', `\`logit_bias\` must be keyed by token ids, got the key ${shown(token)}`)
    biases.number(token, { min: -100, max: 100 })
  }
}

export interface StopParameters {
  /** Texts at which this side ends the answer. */
  readonly strings: readonly string[]
  /** The client's own stop tokens. */
  readonly tokenIds: readonly number[]
  /** Tokens that end the answer and are not shown: the model's end-of-sequence tokens, none under `ignore_eos`. */
  readonly hiddenTokenIds: readonly number[]
  readonly minTokens: number
  readonly maxTokens: number | undefined
  /** `stop_conditions` with every key. */
  readonly conditions: JsonObject
}

export interface StopSources {
  readonly maxTokens: number | undefined
  readonly maxThinkingTokens: number | undefined
  readonly eosTokenIds: readonly number[]
  readonly vocabularySize: number
}

/** Errors: 400 for empty or too many stop strings, unknown token ids, negative counts. */
export function readStop(body: Fields, sources: StopSources): StopParameters {
  const strings = readStopStrings(body)
  const tokenIds = body.tokenIds('stop_token_ids', sources.vocabularySize) ?? []
  const minTokens = body.integer('min_tokens', { min: 0, max: u32Max })
  const ignoreEos = body.boolean('ignore_eos')
  const hidden = ignoreEos === true ? [] : sources.eosTokenIds
  const kept = ignoreEos !== true
  return {
    strings: kept ? strings : [],
    tokenIds: kept ? tokenIds : [],
    hiddenTokenIds: hidden,
    minTokens: minTokens ?? 0,
    maxTokens: sources.maxTokens,
    conditions: {
      max_tokens: sources.maxTokens ?? null,
      stop: kept && strings.length > 0 ? strings : null,
      stop_token_ids: kept && tokenIds.length > 0 ? tokenIds : null,
      stop_token_ids_visible: null,
      stop_token_ids_hidden: hidden.length > 0 ? hidden : null,
      min_tokens: minTokens ?? null,
      ignore_eos: ignoreEos ?? null,
      max_thinking_tokens: sources.maxThinkingTokens ?? null,
    },
  }
}

function readStopStrings(body: Fields): readonly string[] {
  const value = body.get('stop')
  if (value === undefined) return []
  const strings = typeof value === 'string' ? [value] : (body.texts('stop') ?? [])
  if (strings.length > stopStringsMax) throw invalidField('stop', `\`stop\` may hold at most ${stopStringsMax} strings, got ${strings.length}`)
  const empty = strings.indexOf('')
  if (empty !== -1) throw invalidField('stop', 'a stop string cannot be empty; leave it out or give it text')
  return strings
}

export const maxTokensRange = { min: 1, max: u32Max } as const

/** Output options with every key. `keepsSpecialTokens`: the text is read for markers that are such tokens. */
export function outputOptions(body: Fields, logprobs: number | undefined, promptLogprobs: number | undefined, keepsSpecialTokens = false): JsonObject {
  return {
    logprobs: logprobs ?? null,
    prompt_logprobs: body.integer('prompt_logprobs', { min: 0, max: 20 }) ?? promptLogprobs ?? null,
    skip_special_tokens: body.boolean('skip_special_tokens') ?? (keepsSpecialTokens ? false : null),
    formatted_prompt: null,
    return_tokens_as_token_ids: body.boolean('return_tokens_as_token_ids') ?? null,
  }
}

/** `guided_decoding` as the worker is sent it: only what is set; null when the answer is free. Errors: more than one grammar. */
export function readGuidedDecoding(body: Fields, derivedSchema: Json | undefined): JsonObject | null {
  const choices = body.texts('guided_choice')
  if (choices !== undefined && choices.length === 0) throw invalidField('guided_choice', '`guided_choice` must offer at least one choice, got an empty list')
  const sources: readonly (readonly [string, string, Json | undefined])[] = [
    // A schema that follows from the tools or the format of the answer is stronger than a free one.
    ['guided_json', 'json', derivedSchema ?? body.get('guided_json')],
    ['guided_regex', 'regex', body.text('guided_regex')],
    ['guided_choice', 'choice', choices],
    ['guided_grammar', 'grammar', body.text('guided_grammar')],
    ['structural_tag', 'structural_tag', body.get('structural_tag')],
  ]
  const set = sources.filter(([, , value]) => value !== undefined)
  if (set.length > 1) {
    const names = set.map(([field, key]) => (key === 'json' && derivedSchema !== undefined ? '`tool_choice` or `response_format`' : `\`${field}\``))
    throw invalidField(set[1]?.[0] ?? '', `the answer can follow one grammar only, got ${names.join(' and ')}; keep one of them`)
  }
  if (set.length === 0) return null
  const guided: Record<string, Json> = Object.fromEntries(set.map(([, key, value]) => [key, value ?? null]))
  const backend = body.text('guided_decoding_backend')
  if (backend !== undefined) guided['backend'] = backend
  const whitespace = body.text('guided_whitespace_pattern')
  if (whitespace !== undefined) guided['whitespace_pattern'] = whitespace
  return guided
}

/** Schema that `response_format` asks for. Errors: an unknown type, a schema that is missing. */
export function responseSchema(body: Fields): Json | undefined {
  const format = body.group('response_format')
  if (format === undefined) return undefined
  const type = format.text('type')
  if (type === 'text') return undefined
  if (type === 'json_object') return { type: 'object' }
  if (type !== 'json_schema') throw format.wrong('type', 'must be "text", "json_object" or "json_schema"', format.get('type'))
  const schema = format.group('json_schema')?.get('schema')
  if (!isJsonObject(schema)) throw invalidField('response_format.json_schema.schema', '`response_format.json_schema.schema` must be a JSON schema object')
  return schema
}
