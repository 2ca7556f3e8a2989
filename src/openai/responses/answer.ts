/** The Response object: what a request asked for, and the items of its answer. */
import { randomUUID } from 'node:crypto'
import type { Json, JsonObject } from '../../ports.ts'
import { mergedExtras, stepExtras, type AnswerTimes } from '../answer-extras.ts'
import type { WholeForm } from '../answer-form.ts'
import { chatLogprobs, type AnswerIdentity } from '../answer-shape.ts'
import { addCalls, type AnswerCall, type FinishReason, type TokenLogprob } from '../choice-stream.ts'
import { isJsonList, isJsonObject } from '../fields.ts'
import type { GenerationStep, Usage } from '../generation.ts'
import type { GenerationPlan } from '../generation-plan.ts'

/** An id of this API: prefix and 32 hex digits. */
export const itemId = (prefix: string): string => `${prefix}_${randomUUID().replaceAll('-', '')}`

export type ItemStatus = 'in_progress' | 'completed' | 'incomplete'

export const reasoningItem = (id: string, text: string, status: ItemStatus): JsonObject => ({
  type: 'reasoning', id, summary: [], content: text === '' ? [] : [{ type: 'reasoning_text', text }], status,
})

export const messageItem = (id: string, parts: readonly JsonObject[], status: ItemStatus): JsonObject => ({ type: 'message', id, role: 'assistant', status, content: parts })

export const textPart = (text: string, logprobs: Json): JsonObject => ({ type: 'output_text', annotations: [], logprobs, text })

export const callItem = (id: string, call: AnswerCall, text: string, status: ItemStatus): JsonObject => ({
  type: 'function_call', id, call_id: call.id, name: call.name, arguments: text, status,
})

export interface ResponseState {
  readonly status: 'in_progress' | 'completed' | 'incomplete' | 'failed'
  readonly output: readonly JsonObject[]
  readonly usage?: Usage | undefined
  /** Why it is incomplete. */
  readonly reason?: 'max_output_tokens' | 'content_filter' | undefined
  readonly error?: JsonObject
  readonly extras?: JsonObject | undefined
}

/** How an answer that ended so is told. */
export function endState(finish: FinishReason | null): Pick<ResponseState, 'status' | 'reason'> {
  if (finish === 'length') return { status: 'incomplete', reason: 'max_output_tokens' }
  if (finish === 'content_filter') return { status: 'incomplete', reason: 'content_filter' }
  return { status: 'completed' }
}

/** Everything of the object that is known from the request. */
export class ResponseObject {
  readonly plan: GenerationPlan
  readonly #asked: JsonObject

  constructor(asked: JsonObject, plan: GenerationPlan) {
    this.#asked = asked
    this.plan = plan
  }

  build(identity: AnswerIdentity, nowSeconds: number, state: ResponseState): JsonObject {
    const asked = (name: string, otherwise: Json): Json => this.#asked[name] ?? otherwise
    return {
      id: `resp_${identity.requestId.replaceAll('-', '')}`, object: 'response', created_at: identity.createdSeconds, completed_at: state.status === 'completed' ? nowSeconds : null,
      status: state.status, model: this.plan.model.name, output: state.output,
      error: state.error ?? null, incomplete_details: state.reason === undefined ? null : { reason: state.reason },
      usage: state.usage === undefined ? null : usageOf(state.usage),
      instructions: asked('instructions', null), max_output_tokens: asked('max_output_tokens', null), metadata: asked('metadata', {}),
      temperature: asked('temperature', 1), top_p: asked('top_p', 1), presence_penalty: asked('presence_penalty', 0), frequency_penalty: asked('frequency_penalty', 0),
      top_logprobs: asked('top_logprobs', 0), reasoning: asked('reasoning', null), text: { format: { type: 'text' }, ...(isJsonObject(this.#asked['text']) ? this.#asked['text'] : {}) },
      tools: toolsOf(this.#asked['tools']), tool_choice: asked('tool_choice', 'auto'), parallel_tool_calls: asked('parallel_tool_calls', true),
      truncation: asked('truncation', 'disabled'), service_tier: asked('service_tier', 'auto'), safety_identifier: asked('safety_identifier', null),
      prompt_cache_key: asked('prompt_cache_key', null), prompt_cache_retention: asked('prompt_cache_retention', null),
      // Nothing is kept, whatever the request says.
      store: false, background: false, billing: null, conversation: null, max_tool_calls: null, previous_response_id: null, prompt: null,
      ...(state.extras === undefined ? {} : { nvext: state.extras }),
    }
  }
}

const toolsOf = (tools: Json | undefined): Json =>
  (isJsonList(tools) ? tools.map((tool) => (isJsonObject(tool) ? { strict: true, ...tool } : tool)) : [])

const usageOf = ({ promptTokens, completionTokens, cachedTokens, reasoningTokens }: Usage): JsonObject => ({
  input_tokens: promptTokens, input_tokens_details: { cached_tokens: cachedTokens ?? 0 },
  output_tokens: completionTokens, output_tokens_details: { reasoning_tokens: reasoningTokens ?? 0 },
  total_tokens: promptTokens + completionTokens,
})

/** Log probabilities of a text part. */
export function partLogprobs(plan: GenerationPlan, logprobs: readonly TokenLogprob[]): Json {
  return chatLogprobs(plan, logprobs)?.['content'] ?? []
}

/** Collects steps into one Response. */
export class WholeResponse implements WholeForm {
  readonly #object: ResponseObject
  readonly #identity: AnswerIdentity
  readonly #times: AnswerTimes
  #text = ''
  #reasoning = ''
  readonly #calls: AnswerCall[] = []
  readonly #logprobs: TokenLogprob[] = []
  #finish: FinishReason | null = null
  #usage: Usage | undefined
  #extras: JsonObject | undefined

  constructor(object: ResponseObject, identity: AnswerIdentity, times: AnswerTimes) {
    this.#object = object
    this.#identity = identity
    this.#times = times
  }

  add(step: GenerationStep): void {
    const { delta } = step
    this.#text += delta.text
    this.#reasoning += delta.reasoning
    addCalls(this.#calls, delta.toolCalls)
    this.#logprobs.push(...delta.logprobs)
    this.#finish = delta.finish ?? this.#finish
    this.#usage = step.usage
    this.#extras = mergedExtras(this.#extras, stepExtras(this.#object.plan, step, delta.tokenIds, this.#times))
  }

  body(): JsonObject {
    const { plan } = this.#object
    const end = endState(this.#finish)
    const status: ItemStatus = end.status === 'completed' ? 'completed' : 'incomplete'
    const hasMessage = this.#text !== '' || (this.#calls.length === 0 && this.#reasoning === '')
    const output = [
      ...(this.#reasoning === '' ? [] : [reasoningItem(itemId('rs'), this.#reasoning, status)]),
      ...(hasMessage ? [messageItem(itemId('msg'), [textPart(this.#text, partLogprobs(plan, this.#logprobs))], status)] : []),
      ...this.#calls.map((call) => callItem(itemId('fc'), call, call.arguments, 'completed')),
    ]
    const nowSeconds = Math.floor((this.#times.receivedAtMs + this.#times.elapsedMs()) / 1000)
    return this.#object.build(this.#identity, nowSeconds, { ...end, output, usage: this.#usage, extras: this.#extras })
  }
}
