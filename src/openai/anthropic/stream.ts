/** A Message as named events: blocks in the order in which they begin, one open at a time. */
import type { Json } from '../../ports.ts'
import type { AnswerTimes } from '../answer-extras.ts'
import type { StreamForm } from '../answer-form.ts'
import type { AnswerIdentity } from '../answer-shape.ts'
import { errorBody, type ApiErrorDetail, type ErrorForm } from '../api-error.ts'
import type { AnswerCall, FinishReason } from '../choice-stream.ts'
import { endMark, namedEvent } from '../event-writer.ts'
import type { GenerationStep, Usage } from '../generation.ts'
import type { GenerationPlan } from '../generation-plan.ts'
import { endOf, messageFrame, messageUsage, toolUseId } from './answer.ts'

export class MessageStream implements StreamForm {
  readonly #plan: GenerationPlan
  readonly #identity: AnswerIdentity
  #open: 'thinking' | 'text' | 'tool_use' | null = null
  #index = 0
  #finish: FinishReason | null = null
  #stopReason: string | number | null = null
  #usage: Usage | undefined

  constructor(plan: GenerationPlan, identity: AnswerIdentity, _times: AnswerTimes) {
    this.#plan = plan
    this.#identity = identity
  }

  begin(): string {
    const promptTokens = this.#plan.prompts[0]?.tokenIds.length ?? 0
    const usage = messageUsage({ promptTokens, completionTokens: 0, cachedTokens: null, reasoningTokens: null })
    return event('message_start', { message: { ...messageFrame(this.#plan, this.#identity), content: [], stop_reason: null, stop_sequence: null, usage } })
  }

  step({ delta, usage }: GenerationStep): string {
    this.#usage = usage
    this.#finish = delta.finish ?? this.#finish
    this.#stopReason = delta.stopReason ?? this.#stopReason
    let events = ''
    if (delta.reasoning !== '') events += this.#enter('thinking') + this.#delta({ type: 'thinking_delta', thinking: delta.reasoning })
    if (delta.text !== '') events += this.#enter('text') + this.#delta({ type: 'text_delta', text: delta.text })
    for (const call of delta.toolCalls) events += this.#call(call)
    return events
  }

  end(usage: Usage | undefined): string {
    const counted = messageUsage(usage ?? { promptTokens: 0, completionTokens: 0, cachedTokens: null, reasoningTokens: null })
    return this.#leave() + event('message_delta', { delta: endOf(this.#finish, this.#stopReason), usage: counted }) + event('message_stop', {}) + endMark
  }

  failed(detail: ApiErrorDetail, form: ErrorForm): string {
    return namedEvent('error', errorBody(detail, { ...form, style: 'anthropic' })) + endMark
  }

  /** Opens a block of this kind unless one is open. */
  #enter(kind: 'thinking' | 'text'): string {
    if (this.#open === kind) return ''
    const before = this.#leave()
    this.#open = kind
    return before + this.#start(kind === 'text' ? { type: 'text', text: '' } : { type: 'thinking', thinking: '', signature: '' })
  }

  #leave(): string {
    if (this.#open === null) return ''
    // There is nothing to sign; clients wait for it all the same.
    const signature = this.#open === 'thinking' ? this.#delta({ type: 'signature_delta', signature: 'erased' }) : ''
    this.#open = null
    return signature + this.#stop()
  }

  #call(call: AnswerCall): string {
    let events = ''
    if (!call.continues) {
      events = this.#leave() + this.#start({ type: 'tool_use', id: toolUseId(call), name: call.name, input: {} })
      this.#open = 'tool_use'
    }
    return events + this.#delta({ type: 'input_json_delta', partial_json: call.arguments })
  }

  #start(block: Json): string {
    return event('content_block_start', { index: this.#index, content_block: block })
  }

  #delta(delta: Json): string {
    const usage = this.#usage
    return event('content_block_delta', {
      index: this.#index, delta, ...(usage === undefined ? {} : { usage: { ...messageUsage(usage), total_tokens: usage.promptTokens + usage.completionTokens } }),
    })
  }

  #stop(): string {
    const text = event('content_block_stop', { index: this.#index })
    this.#index += 1
    return text
  }
}

const event = (type: string, fields: Readonly<Record<string, Json>>): string => namedEvent(type, { type, ...fields })
