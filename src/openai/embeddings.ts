/** POST /v1/embeddings: inputs to vectors, whatever form worker and client like them in. */
import { FailureError } from '../model/failure.ts'
import type { Json, JsonObject, StopSignal } from '../ports.ts'
import { invalidField } from './api-error.ts'
import type { ModelCall, ServedModel } from './catalog.ts'
import { isJsonList, isJsonObject, type Fields } from './fields.ts'
import { checkNotEmpty } from './generation-plan.ts'
import { encodePrompt } from './prompt-encoding.ts'
import { readTextInputs } from './text-inputs.ts'

/** Inputs of one request at most, as OpenAI has it. */
export const embeddingInputsMax = 2048
const dimensionsMax = 65_536

type Format = 'float' | 'base64'

export interface EmbeddingPlan {
  readonly model: ServedModel
  readonly format: Format
  /** What the worker is sent. */
  readonly request: JsonObject
  /** Tokens of the inputs where they are known here. */
  readonly tokens: number | undefined
}

/** Errors: 400 for everything that the checks refuse. */
export async function planEmbeddings(body: Fields, model: ServedModel, signal: StopSignal): Promise<EmbeddingPlan> {
  const inputs = readTextInputs(body, 'input', embeddingInputsMax, model.text.vocabularySize)
  const format = body.text('encoding_format') ?? 'float'
  if (format !== 'float' && format !== 'base64') throw body.wrong('encoding_format', 'must be "float" or "base64"', format)
  const dimensions = body.integer('dimensions', { min: 1, max: dimensionsMax })
  const user = body.text('user')
  const extension = body.group('nvext')?.object
  if (model.takesText === true) {
    const request: Record<string, Json> = { model: model.name, input: body.get('input') ?? '' }
    for (const [name, value] of [['encoding_format', body.get('encoding_format')], ['dimensions', dimensions], ['user', user], ['nvext', extension]] as const) if (value !== undefined) request[name] = value
    return { model, format, request, tokens: undefined }
  }
  const tokenIds = await Promise.all(inputs.map((input) => (typeof input === 'string' ? encodePrompt(model, input, 'input', signal) : input)))
  tokenIds.forEach((ids, index) => {
    checkNotEmpty(ids, `input[${index}]`)
    const limit = model.contextLength ?? model.text.contextLength
    if (limit !== null && ids.length > limit) throw invalidField(`input[${index}]`, `the context of ${JSON.stringify(model.name)} holds ${limit} tokens and \`input[${index}]\` has ${ids.length}; shorten it`, 'context_length_exceeded')
  })
  const request = {
    token_ids: tokenIds, model: model.name, dimensions: dimensions ?? null, mdc_sum: model.cardChecksum, annotations: body.group('nvext')?.texts('annotations') ?? [],
    ...(body.get('encoding_format') === undefined ? {} : { encoding_format: format }), ...(user === undefined ? {} : { user }),
  }
  return { model, format, request, tokens: tokenIds.reduce((sum, ids) => sum + ids.length, 0) }
}

/** Asks a worker. Errors: `FailureError`, also for an answer that cannot be read. */
export async function runEmbeddings(plan: EmbeddingPlan, call: ModelCall): Promise<{ readonly body: JsonObject; readonly promptTokens: number }> {
  const { model, format, request } = plan
  if (model.ask === undefined) throw unreadable('the model runs no embeddings')
  const answer = await model.ask(request, call)
  const vectors = vectorsOf(answer)
  const usage = isJsonObject(answer['usage'] as Json | undefined) ? (answer['usage'] as JsonObject) : (answer as JsonObject)
  const count = (name: string): number => (typeof usage[name] === 'number' ? usage[name] : (plan.tokens ?? 0))
  return {
    body: {
      object: 'list', model: model.name,
      data: vectors.map((vector, index) => ({ object: 'embedding', index, embedding: format === 'base64' ? encoded(vector) : plain(vector) })),
      usage: { prompt_tokens: count('prompt_tokens'), total_tokens: count('total_tokens') },
    },
    promptTokens: count('prompt_tokens'),
  }
}

/** A vector as the worker sent it: numbers, or base64 of little-endian float32. */
type Vector = string | readonly Json[]

function vectorsOf(answer: { readonly [key: string]: Json | Uint8Array }): readonly Vector[] {
  const { data, embeddings } = answer
  const list = isJsonList(embeddings as Json | undefined) ? (embeddings as readonly Json[]) : isJsonList(data as Json | undefined) ? (data as readonly Json[]).map((item) => (isJsonObject(item) ? (item['embedding'] ?? null) : null)) : undefined
  if (list === undefined) throw unreadable('it has neither `data` nor `embeddings`')
  return list.map((vector) => {
    if (typeof vector === 'string' || (isJsonList(vector) && vector.every((value) => typeof value === 'number'))) return vector
    throw unreadable('a vector is neither base64 nor a list of numbers')
  })
}

const unreadable = (what: string): FailureError =>
  new FailureError({ class: 'BackendProtocol', reason: 'backend.protocol', message: `the worker's embeddings cannot be read: ${what}` })

function encoded(vector: Vector): string {
  if (typeof vector === 'string') return vector
  const bytes = Buffer.alloc(4 * vector.length)
  vector.forEach((value, index) => bytes.writeFloatLE(Number(value), 4 * index))
  return bytes.toString('base64')
}

function plain(vector: Vector): readonly Json[] {
  if (typeof vector !== 'string') return vector
  const bytes = Buffer.from(vector, 'base64')
  if (bytes.length % 4 !== 0) throw unreadable('base64 that is no list of 32-bit numbers')
  return Array.from({ length: bytes.length / 4 }, (_, index) => shortest(bytes.readFloatLE(4 * index)))
}

/** The number with the fewest digits that is the same 32-bit float: 0.1 rather than 0.10000000149011612. */
export function shortest(value: number): number {
  if (!Number.isFinite(value) || Number.isInteger(value)) return value
  for (const digits of [7, 8]) {
    const rounded = Number(value.toPrecision(digits))
    if (Math.fround(rounded) === value) return rounded
  }
  return Number(value.toPrecision(9))
}
