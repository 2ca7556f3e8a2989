/** From a PreprocessedRequest map, as frontends and routers send it, to what the engine needs; and from its outputs to LLMEngineOutput maps. */
import { FailureError } from '../../model/failure.ts'
import type { Json, JsonObject } from '../../ports.ts'
import type { EngineOutput } from './output-queue.ts'
import type { EngineRequest } from './sequence.ts'

/** A decoded body: JSON values, and byte strings where MessagePack has them. */
export type BodyValue = Json | Uint8Array | readonly BodyValue[] | { readonly [key: string]: BodyValue }
export type BodyObject = { readonly [key: string]: BodyValue }

const invalid = (message: string): FailureError =>
  new FailureError({ class: 'InvalidRequest', reason: 'request.invalid_argument', message })

const isObject = (value: BodyValue | undefined): value is BodyObject =>
  value !== null && typeof value === 'object' && !Array.isArray(value) && !(value instanceof Uint8Array)

/** The map itself. Errors: InvalidRequest for any other value. */
export function bodyObject(body: BodyValue): BodyObject {
  if (isObject(body)) return body
  throw invalid('the request must be a map with token_ids')
}

/** Fields that the engine knows; all others are ignored. Errors: InvalidRequest with field and kind. */
export function engineRequest(id: string, body: BodyObject): EngineRequest {
  const stop = section(body, 'stop_conditions')
  const routing = section(body, 'routing')
  return {
    id,
    tokens: tokenIds(body['token_ids']),
    dpRank: wholeOrNull(routing['dp_rank'] ?? body['dp_rank'], 'routing.dp_rank'),
    maxTokens: atLeastOne(wholeOrNull(stop['max_tokens'], 'stop_conditions.max_tokens')),
    minTokens: wholeOrNull(stop['min_tokens'], 'stop_conditions.min_tokens') ?? 0,
    ignoreEos: stop['ignore_eos'] === true,
    eosTokenIds: wholeList(body['eos_token_ids'], 'eos_token_ids'),
    stopTokenIds: new Set(['stop_token_ids', 'stop_token_ids_visible', 'stop_token_ids_hidden'].flatMap((name) => wholeList(stop[name], `stop_conditions.${name}`))),
    loraName: textOrNull(routing['lora_name'], 'routing.lora_name'),
    cacheSalt: textOrNull(routing['cache_salt'], 'routing.cache_salt'),
    prefilled: isObject(body['prefill_result']),
  }
}

/** An output as a map; the last one carries `completion_usage`. `remoteCachedTokens`: what a remote prefill found cached, else null. */
export function outputMap(output: EngineOutput, remoteCachedTokens: number | null = null): JsonObject {
  const { tokens, finishReason, promptTokens, outputTokens } = output
  const cachedTokens = remoteCachedTokens ?? output.cachedTokens
  if (finishReason === null) return { token_ids: tokens, index: 0 }
  return {
    token_ids: tokens,
    index: 0,
    finish_reason: finishReason,
    completion_usage: {
      prompt_tokens: promptTokens,
      completion_tokens: outputTokens,
      total_tokens: promptTokens + outputTokens,
      prompt_tokens_details: { audio_tokens: null, cached_tokens: cachedTokens },
    },
  }
}

function section(body: BodyObject, name: string): BodyObject {
  const value = body[name]
  if (value === undefined || value === null) return {}
  if (isObject(value)) return value
  throw invalid(`${name} must be a map`)
}

function tokenIds(value: BodyValue | undefined): Uint32Array {
  if (value === undefined || value === null) throw invalid('missing field token_ids: an array of token ids')
  if (value instanceof Uint8Array) return packedTokens(value)
  if (!Array.isArray(value)) throw invalid('token_ids must be an array of token ids, or packed little-endian 32-bit integers')
  const tokens = new Uint32Array(value.length)
  for (let index = 0; index < value.length; index += 1) tokens[index] = whole(value[index] as BodyValue, `token_ids[${index}]`)
  return tokens
}

function packedTokens(bytes: Uint8Array): Uint32Array {
  if (bytes.length % 4 !== 0) throw invalid(`token_ids has ${bytes.length} bytes; packed ids have four each`)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return Uint32Array.from({ length: bytes.length / 4 }, (_, index) => view.getUint32(4 * index, true))
}

function whole(value: BodyValue, field: string): number {
  const number = typeof value === 'bigint' ? Number(value) : value
  if (typeof number === 'number' && Number.isInteger(number) && number >= 0 && number <= 0xffffffff) return number
  throw invalid(`${field} must be an integer from 0 to 4294967295`)
}

const wholeOrNull = (value: BodyValue | undefined, field: string): number | null => (value === undefined || value === null ? null : whole(value, field))

const atLeastOne = (value: number | null): number | null => (value === null ? null : Math.max(value, 1))

function wholeList(value: BodyValue | undefined, field: string): number[] {
  if (value === undefined || value === null) return []
  if (!Array.isArray(value)) throw invalid(`${field} must be an array of token ids`)
  return (value as readonly BodyValue[]).map((item, index) => whole(item, `${field}[${index}]`))
}

function textOrNull(value: BodyValue | undefined, field: string): string | null {
  if (value === undefined || value === null) return null
  if (typeof value === 'string') return value
  throw invalid(`${field} must be a string`)
}
