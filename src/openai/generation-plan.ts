/** A checked request, ready to run: what every worker is sent, and how its outputs become an answer. */
import type { OutputParser } from '../parsers/output-parser.ts'
import type { Json, JsonObject } from '../ports.ts'
import type { ServedModel } from './catalog.ts'
import { ApiError, invalidField } from './api-error.ts'
import type { Extension } from './extension.ts'
import type { Fields } from './fields.ts'
import type { SamplingParameters, StopParameters, StreamOptions } from './parameters.ts'
import type { HeaderHints } from './request-headers.ts'

export interface Prompt {
  readonly tokenIds: readonly number[]
  /** The text, where it was one. */
  readonly text: string | undefined
}

export interface GenerationPlan {
  readonly kind: 'chat' | 'completion'
  readonly model: ServedModel
  readonly stream: boolean
  readonly streamOptions: StreamOptions
  /** Answers per prompt. */
  readonly n: number
  readonly stop: StopParameters
  /** Alternatives per token to report, 0 = the token's own only; undefined: no log probabilities. */
  readonly logprobs: number | undefined
  /** Tokens of log probabilities as `token_id:<id>` in place of their text. */
  readonly tokensAsIds: boolean
  readonly skipSpecialTokens: boolean
  readonly includeStopString: boolean
  readonly echo: boolean
  /** Reads content, reasoning and tool calls from one answer's text; undefined: all of it is content. */
  readonly createParser?: (() => OutputParser) | undefined
  /** Usage tells the tokens of reasoning. */
  readonly countsReasoning?: boolean
  readonly extension: Extension
  /** Only the choice of workers is asked for; nothing runs. */
  readonly queryOnly: boolean
  readonly prompts: readonly Prompt[]
  /** One PreprocessedRequest per prompt. */
  readonly requests: readonly JsonObject[]
}

/** Parts of a PreprocessedRequest that both endpoints make alike. */
export interface RequestParts {
  readonly body: Fields
  readonly hints: HeaderHints
  readonly extension: Extension
  readonly stop: StopParameters
  readonly sampling: SamplingParameters
  readonly outputOptions: JsonObject
  readonly inputTrigger: string
  /** `extra_args` beyond those of `nvext`. */
  readonly extraArgs?: JsonObject
  readonly media?: JsonObject
}

export const isQueryOnly = (extension: Extension): boolean => extension.annotations.some((annotation) => annotation.startsWith('query_instance_id:'))

/** One prompt as the map a worker is sent. */
export function preprocessedRequest(model: ServedModel, tokenIds: readonly number[], parts: RequestParts): JsonObject {
  const { body, hints, extension, stop, sampling } = parts
  const request: Record<string, Json> = {
    model: model.name,
    token_ids: tokenIds,
    stop_conditions: stop.conditions,
    sampling_options: sampling.options,
    output_options: parts.outputOptions,
    eos_token_ids: stop.hiddenTokenIds,
    mdc_sum: model.cardChecksum,
    annotations: extension.annotations,
    router_config_override: null,
  }
  const cacheSalt = hints.cacheSalt ?? extension.cacheSalt ?? body.text('cache_salt')
  const routing: Record<string, Json> = { ...extension.routing, ...hints.routing }
  if (cacheSalt !== undefined) routing['cache_salt'] = cacheSalt
  if (Object.keys(routing).length > 0) request['routing'] = routing
  if (parts.media !== undefined) request['multi_modal_data'] = parts.media
  const extraArgs = extraArgsOf(parts, cacheSalt)
  if (extraArgs !== undefined) request['extra_args'] = extraArgs
  if (extension.router !== undefined) request['router'] = extension.router
  if (extension.requestTimestampMs !== undefined) request['request_timestamp_ms'] = extension.requestTimestampMs
  for (const name of ['mm_processor_kwargs', 'media_io_kwargs']) {
    const group = body.group(name)
    if (group !== undefined) request[name] = group.object
  }
  addSession(request, parts)
  return request
}

function extraArgsOf({ extension, extraArgs }: RequestParts, cacheSalt: string | undefined): JsonObject | undefined {
  const nvext: Record<string, Json> = {}
  if (cacheSalt !== undefined) nvext['cache_salt'] = cacheSalt
  if (extension.extraFields.length > 0) nvext['extra_fields'] = extension.extraFields
  if (extension.tokenData !== undefined) nvext['token_in'] = true
  if (extension.metadataUpload !== undefined) nvext['metadata_upload'] = extension.metadataUpload
  const all: Record<string, Json> = { ...extraArgs }
  if (Object.keys(nvext).length > 0) all['nvext'] = nvext
  return Object.keys(all).length === 0 ? undefined : all
}

function addSession(request: Record<string, Json>, { hints: { session }, inputTrigger }: RequestParts): void {
  if (session === undefined) return
  const context: Record<string, Json> = { session_id: session.sessionId }
  if (session.parentSessionId !== undefined) context['parent_session_id'] = session.parentSessionId
  if (session.isFinal) context['session_final'] = true
  if (Object.keys(session.agentHeaders).length > 0) context['agent_headers'] = session.agentHeaders
  context['input_trigger'] = inputTrigger
  request['agent_context'] = context
  request['image_cache_scope'] = session.sessionId
}

/** Errors: 400 with both numbers when the prompt leaves no room for a token. */
export function checkContextLength(model: ServedModel, tokens: number, param: string): void {
  const limit = model.contextLength ?? model.text.contextLength
  if (limit === null || tokens < limit) return
  throw new ApiError({
    class: 'InvalidRequest', reason: 'request.invalid', param, code: 'context_length_exceeded',
    message: `the context of ${JSON.stringify(model.name)} holds ${limit} tokens and the prompt has ${tokens}, which leaves no room for an answer; shorten \`${param}\``,
  })
}

/** Errors: 400 for an empty prompt. */
export function checkNotEmpty(tokenIds: readonly number[], param: string): void {
  if (tokenIds.length === 0) throw invalidField(param, `\`${param}\` has no tokens; send some text`)
}
