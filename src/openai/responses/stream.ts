/** A Response as named events: items in the order in which they begin, one open at a time. */
import type { Json, JsonObject } from '../../ports.ts'
import { mergedExtras, stepExtras, type AnswerTimes } from '../answer-extras.ts'
import type { StreamForm } from '../answer-form.ts'
import type { AnswerIdentity } from '../answer-shape.ts'
import type { ApiErrorDetail } from '../api-error.ts'
import type { AnswerCall, FinishReason, TokenLogprob } from '../choice-stream.ts'
import { endMark, namedEvent } from '../event-writer.ts'
import type { GenerationStep, Usage } from '../generation.ts'
import { callItem, endState, itemId, messageItem, partLogprobs, reasoningItem, textPart, type ItemStatus, type ResponseObject, type ResponseState } from './answer.ts'

interface OpenItem {
  readonly kind: 'reasoning' | 'message' | 'call'
  readonly id: string
  text: string
  logprobs: TokenLogprob[]
  /** Of a call. */
  readonly call?: AnswerCall
}

type TextKind = Exclude<OpenItem['kind'], 'call'>

export class ResponseStream implements StreamForm {
  readonly #object: ResponseObject
  readonly #identity: AnswerIdentity
  readonly #times: AnswerTimes
  readonly #output: JsonObject[] = []
  #open: OpenItem | undefined
  #sequence = 0
  #finish: FinishReason | null = null
  #usage: Usage | undefined
  #extras: JsonObject | undefined

  constructor(object: ResponseObject, identity: AnswerIdentity, times: AnswerTimes) {
    this.#object = object
    this.#identity = identity
    this.#times = times
  }

  begin(): string {
    const response = this.#response({ status: 'in_progress', output: [] })
    return this.#event('response.created', { response }) + this.#event('response.in_progress', { response })
  }

  step(step: GenerationStep): string {
    const { delta } = step
    this.#usage = step.usage
    this.#finish = delta.finish ?? this.#finish
    this.#extras = mergedExtras(this.#extras, stepExtras(this.#object.plan, step, delta.tokenIds, this.#times))
    let events = ''
    if (delta.reasoning !== '') events += this.#add('reasoning', delta.reasoning, [])
    if (delta.text !== '') events += this.#add('message', delta.text, delta.logprobs)
    for (const call of delta.toolCalls) events += this.#call(call)
    return events
  }

  end(): string {
    const end = endState(this.#finish)
    const status: ItemStatus = end.status === 'completed' ? 'completed' : 'incomplete'
    // An answer without anything in it is a message without text.
    const before = this.#output.length === 0 && this.#open === undefined ? this.#begin('message') : ''
    const events = before + this.#close(status)
    const response = this.#response({ ...end, output: this.#output, usage: this.#usage, extras: this.#extras })
    return events + this.#event(`response.${end.status}`, { response }) + endMark
  }

  failed(detail: ApiErrorDetail): string {
    const code = detail.class === 'RateLimited' || detail.class === 'CapacityExhausted' ? 'rate_limit_exceeded' : 'server_error'
    const events = this.#close('incomplete')
    const response = this.#response({ status: 'failed', output: this.#output, usage: this.#usage, error: { code, message: detail.message } })
    return events + this.#event('response.failed', { response }) + endMark
  }

  /** Text of an item; another item that is open ends. */
  #add(kind: TextKind, text: string, logprobs: readonly TokenLogprob[]): string {
    const events = this.#open?.kind === kind ? '' : this.#close('completed') + this.#begin(kind)
    const open = this.#open as OpenItem
    open.text += text
    open.logprobs.push(...logprobs)
    const at = { item_id: open.id, output_index: this.#output.length, content_index: 0, delta: text }
    return events + (kind === 'reasoning'
      ? this.#event('response.reasoning_text.delta', at)
      : this.#event('response.output_text.delta', { ...at, logprobs: partLogprobs(this.#object.plan, logprobs) }))
  }

  #begin(kind: TextKind): string {
    const id = itemId(kind === 'reasoning' ? 'rs' : 'msg')
    this.#open = { kind, id, text: '', logprobs: [] }
    const index = this.#output.length
    const item = kind === 'reasoning' ? reasoningItem(id, '', 'in_progress') : messageItem(id, [], 'in_progress')
    const part = kind === 'reasoning' ? { type: 'reasoning_text', text: '' } : textPart('', [])
    return this.#event('response.output_item.added', { output_index: index, item })
      + this.#event('response.content_part.added', { item_id: id, output_index: index, content_index: 0, part })
  }

  #close(status: ItemStatus): string {
    const open = this.#open
    if (open === undefined) return ''
    this.#open = undefined
    const index = this.#output.length
    if (open.call !== undefined) return this.#endCall(open, open.call, status)
    const at = { item_id: open.id, output_index: index, content_index: 0 }
    const logprobs = partLogprobs(this.#object.plan, open.logprobs)
    const isMessage = open.kind === 'message'
    const part = isMessage ? textPart(open.text, logprobs) : { type: 'reasoning_text', text: open.text }
    const item = isMessage ? messageItem(open.id, [part], status) : reasoningItem(open.id, open.text, status)
    this.#output.push(item)
    return this.#event(isMessage ? 'response.output_text.done' : 'response.reasoning_text.done', { ...at, text: open.text, ...(isMessage ? { logprobs } : {}) })
      + this.#event('response.content_part.done', { ...at, part })
      + this.#event('response.output_item.done', { output_index: index, item })
  }

  /** A call, or more of the one that is open. */
  #call(call: AnswerCall): string {
    let events = ''
    if (!call.continues) {
      events = this.#close('completed')
      this.#open = { kind: 'call', id: itemId('fc'), text: '', logprobs: [], call }
      events += this.#event('response.output_item.added', { output_index: this.#output.length, item: callItem(this.#open.id, call, '', 'in_progress') })
    }
    const open = this.#open as OpenItem
    open.text += call.arguments
    return events + this.#event('response.function_call_arguments.delta', { item_id: open.id, output_index: this.#output.length, delta: call.arguments })
  }

  #endCall({ id, text }: OpenItem, call: AnswerCall, status: ItemStatus): string {
    const index = this.#output.length
    const item = callItem(id, call, text, status)
    this.#output.push(item)
    return this.#event('response.function_call_arguments.done', { item_id: id, output_index: index, name: call.name, arguments: text })
      + this.#event('response.output_item.done', { output_index: index, item })
  }

  #response(state: ResponseState): JsonObject {
    return this.#object.build(this.#identity, Math.floor((this.#times.receivedAtMs + this.#times.elapsedMs()) / 1000), state)
  }

  #event(type: string, fields: Readonly<Record<string, Json>>): string {
    const event = namedEvent(type, { type, sequence_number: this.#sequence, ...fields })
    this.#sequence += 1
    return event
  }
}
