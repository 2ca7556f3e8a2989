/** Anthropic's Message: blocks of thinking, text and tool use. */
import { parseJson } from '../../dynamo/wire/json.ts'
import type { Json, JsonObject } from '../../ports.ts'
import type { AnswerTimes } from '../answer-extras.ts'
import type { WholeForm } from '../answer-form.ts'
import type { AnswerIdentity } from '../answer-shape.ts'
import { addCalls, type AnswerCall, type FinishReason } from '../choice-stream.ts'
import { isJsonObject } from '../fields.ts'
import type { GenerationStep, Usage } from '../generation.ts'
import type { GenerationPlan } from '../generation-plan.ts'

export const messageId = ({ requestId }: AnswerIdentity): string => `msg_${requestId.replaceAll('-', '')}`

/** The id of a call in this API's form; one that the model gave itself stays. */
export const toolUseId = ({ id }: AnswerCall): string => (id.startsWith('call-') ? `toolu_${id.slice('call-'.length).replaceAll('-', '')}` : id)

/** Why an answer ended, in Anthropic's words. */
export function endOf(finish: FinishReason | null, stopReason: string | number | null): { readonly stop_reason: string; readonly stop_sequence: string | null } {
  switch (finish) {
    case 'length': return { stop_reason: 'max_tokens', stop_sequence: null }
    case 'tool_calls': return { stop_reason: 'tool_use', stop_sequence: null }
    case 'content_filter': return { stop_reason: 'refusal', stop_sequence: null }
    default: return typeof stopReason === 'string' ? { stop_reason: 'stop_sequence', stop_sequence: stopReason } : { stop_reason: 'end_turn', stop_sequence: null }
  }
}

/** Cached tokens are not counted among the input. */
export const messageUsage = ({ promptTokens, completionTokens, cachedTokens }: Usage): JsonObject => ({
  input_tokens: promptTokens - (cachedTokens ?? 0), output_tokens: completionTokens, cache_creation_input_tokens: 0, cache_read_input_tokens: cachedTokens ?? 0,
})

/** What a Message has besides its content. */
export const messageFrame = (plan: GenerationPlan, identity: AnswerIdentity): JsonObject => ({ id: messageId(identity), type: 'message', role: 'assistant', model: plan.model.name })

/** Collects steps into one Message. */
export class WholeMessage implements WholeForm {
  readonly #plan: GenerationPlan
  readonly #identity: AnswerIdentity
  #text = ''
  #thinking = ''
  readonly #calls: AnswerCall[] = []
  #finish: FinishReason | null = null
  #stopReason: string | number | null = null
  #usage: Usage | undefined

  constructor(plan: GenerationPlan, identity: AnswerIdentity, _times: AnswerTimes) {
    this.#plan = plan
    this.#identity = identity
  }

  add({ delta, usage }: GenerationStep): void {
    this.#text += delta.text
    this.#thinking += delta.reasoning
    addCalls(this.#calls, delta.toolCalls)
    this.#finish = delta.finish ?? this.#finish
    this.#stopReason = delta.stopReason ?? this.#stopReason
    this.#usage = usage
  }

  body(): JsonObject {
    const content: Json[] = []
    if (this.#thinking !== '') content.push({ type: 'thinking', thinking: this.#thinking, signature: '' })
    if (this.#text !== '') content.push({ type: 'text', text: this.#text })
    for (const call of this.#calls) content.push({ type: 'tool_use', id: toolUseId(call), name: call.name, input: inputOf(call) })
    return {
      ...messageFrame(this.#plan, this.#identity), content, ...endOf(this.#finish, this.#stopReason),
      ...(this.#usage === undefined ? {} : { usage: messageUsage(this.#usage) }),
    }
  }
}

/** Text that is no object is kept under a name of its own rather than lost. */
function inputOf({ arguments: text }: AnswerCall): JsonObject {
  try {
    const value = parseJson(text === '' ? '{}' : text)
    return isJsonObject(value) ? value : { arguments: value }
  } catch {
    return { arguments: text }
  }
}
