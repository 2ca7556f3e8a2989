/** OpenAI's four shapes of an answer: chat and completions, in chunks and whole. */
import type { Json, JsonObject } from '../ports.ts'
import type { TextModel } from '../text/text-model.ts'
import { mergedExtras, stepExtras, type AnswerTimes } from './answer-extras.ts'
import { addCalls, type AnswerCall, type FinishReason, type TokenLogprob } from './choice-stream.ts'
import { dataEvent } from './event-writer.ts'
import type { GenerationStep, Usage } from './generation.ts'
import type { GenerationPlan } from './generation-plan.ts'

export interface AnswerIdentity {
  /** UUID of the request. */
  readonly requestId: string
  readonly createdSeconds: number
}

/** OpenAI's `usage`. */
export const usageObject = ({ promptTokens, completionTokens, cachedTokens, reasoningTokens }: Usage): JsonObject => ({
  prompt_tokens: promptTokens,
  completion_tokens: completionTokens,
  total_tokens: promptTokens + completionTokens,
  ...(cachedTokens === null ? {} : { prompt_tokens_details: { cached_tokens: cachedTokens } }),
  ...(reasoningTokens === null ? {} : { completion_tokens_details: { reasoning_tokens: reasoningTokens } }),
})

/** A call in a chunk. */
const callPiece = (call: AnswerCall): JsonObject => ({ index: call.index, ...(call.continues ? { function: { arguments: call.arguments } } : callObject(call)) })

const callObject = ({ id, name, arguments: text }: AnswerCall): JsonObject => ({ id, type: 'function', function: { name, arguments: text } })

/** What has been generated but not sent yet, of one answer. */
interface Pending {
  tokenIds: number[]
  logprobs: TokenLogprob[]
  sent: boolean
  /** Length of the text so far, for the offsets of completions. */
  textLength: number
}

/** Makes chunks of steps. One per answer stream. */
export class ChunkMaker {
  readonly #plan: GenerationPlan
  readonly #identity: AnswerIdentity
  readonly #times: AnswerTimes
  readonly #pending = new Map<number, Pending>()
  readonly #moulds = new Map<number, readonly [string, string]>()
  /** Chunks between the first and the last differ in their text alone. */
  readonly #onlyText: boolean

  constructor(plan: GenerationPlan, identity: AnswerIdentity, times: AnswerTimes) {
    this.#onlyText = plan.logprobs === undefined && plan.extension.extraFields.length === 0 && !plan.queryOnly && !plan.streamOptions.continuousUsage
    this.#plan = plan
    this.#identity = identity
    this.#times = times
  }

  /** The event of one step; empty when there is nothing to show yet. A step that adds nothing but text is put into the event of the one before. */
  event(step: GenerationStep): string {
    const { delta } = step
    const plain = this.#onlyText && delta.text !== '' && delta.finish === null && delta.reasoning === '' && delta.toolCalls.length === 0
    const mould = plain ? this.#moulds.get(step.index) : undefined
    if (mould !== undefined) return mould[0] + JSON.stringify(delta.text) + mould[1]
    const wasSent = this.#pending.get(step.index)?.sent === true
    const chunk = this.chunk(step)
    if (chunk === null) return ''
    if (plain && wasSent) this.#moulds.set(step.index, this.#mouldOf(step))
    return dataEvent(chunk)
  }

  /** What stands before and behind the text. */
  #mouldOf(step: GenerationStep): readonly [string, string] {
    const mark = `text ${this.#identity.requestId}`
    const quoted = JSON.stringify(mark)
    const event = dataEvent(this.chunk({ ...step, delta: { ...step.delta, text: mark } }))
    const at = event.indexOf(quoted)
    return [event.slice(0, at), event.slice(at + quoted.length)]
  }

  /** The chunk of one step; null when there is nothing to show yet. */
  chunk(step: GenerationStep): JsonObject | null {
    const { delta } = step
    const pending = this.#pendingOf(step.index)
    pending.tokenIds.push(...delta.tokenIds)
    pending.logprobs.push(...delta.logprobs)
    const { streamOptions, queryOnly } = this.#plan
    // The first tokens of a chat are told even when they are no text yet, as Dynamo does: clients measure the first token by it.
    const begins = !pending.sent && this.#plan.kind === 'chat' && delta.tokenIds.length > 0
    if (delta.text === '' && delta.reasoning === '' && delta.toolCalls.length === 0 && delta.finish === null && !queryOnly && !streamOptions.continuousUsage && !begins) return null
    const extras = stepExtras(this.#plan, step, pending.tokenIds, this.#times)
    const choice = this.#plan.kind === 'chat' ? this.#chatChoice(step, pending) : this.#completionChoice(step, pending)
    pending.tokenIds = []
    pending.logprobs = []
    pending.sent = true
    const usage = streamOptions.continuousUsage && !queryOnly ? usageObject(step.usage) : undefined
    return this.#frame([choice], this.#plan.requests.length > 1 ? `-${step.promptIndex}` : '', usage, extras)
  }

  /** The last chunk under `include_usage`. */
  usageChunk(usage: Usage): JsonObject {
    return this.#frame([], '', usageObject(usage), undefined)
  }

  #pendingOf(index: number): Pending {
    const known = this.#pending.get(index)
    if (known !== undefined) return known
    const made: Pending = { tokenIds: [], logprobs: [], sent: false, textLength: 0 }
    this.#pending.set(index, made)
    return made
  }

  #frame(choices: readonly JsonObject[], idSuffix: string, usage: JsonObject | undefined, extras: JsonObject | undefined): JsonObject {
    const chat = this.#plan.kind === 'chat'
    const { requestId, createdSeconds } = this.#identity
    return {
      id: `${chat ? 'chatcmpl' : 'cmpl'}-${requestId}${idSuffix}`,
      choices,
      created: createdSeconds,
      model: this.#plan.model.name,
      ...(chat ? {} : { system_fingerprint: null }),
      object: chat ? 'chat.completion.chunk' : 'text_completion',
      ...(usage === undefined ? (chat ? {} : { usage: null }) : { usage }),
      ...(extras === undefined ? {} : { nvext: extras }),
    }
  }

  #chatChoice({ index, delta }: GenerationStep, pending: Pending): JsonObject {
    return {
      index,
      delta: {
        ...(delta.text === '' && delta.toolCalls.length === 0 ? {} : { content: delta.text }),
        ...(delta.toolCalls.length === 0 ? {} : { tool_calls: delta.toolCalls.map(callPiece) }),
        ...(pending.sent ? {} : { role: 'assistant' }),
        ...(delta.reasoning === '' ? {} : { reasoning_content: delta.reasoning }),
      },
      finish_reason: delta.finish,
      logprobs: chatLogprobs(this.#plan, pending.logprobs),
    }
  }

  #completionChoice({ index, promptIndex, delta }: GenerationStep, pending: Pending): JsonObject {
    const text = (pending.sent ? '' : echoedText(this.#plan, promptIndex)) + delta.text
    const offset = pending.textLength + text.length - delta.text.length
    pending.textLength += text.length
    return { text, index, finish_reason: delta.finish, logprobs: completionLogprobs(this.#plan, pending.logprobs, offset) }
  }
}

interface WholeChoice {
  readonly promptIndex: number
  text: string
  reasoning: string
  toolCalls: AnswerCall[]
  logprobs: TokenLogprob[]
  finish: FinishReason | null
}

/** Collects steps into one answer. */
export class WholeAnswer {
  readonly #plan: GenerationPlan
  readonly #identity: AnswerIdentity
  readonly #times: AnswerTimes
  readonly #choices = new Map<number, WholeChoice>()
  #extras: JsonObject | undefined
  #usage: Usage | undefined

  constructor(plan: GenerationPlan, identity: AnswerIdentity, times: AnswerTimes) {
    this.#plan = plan
    this.#identity = identity
    this.#times = times
  }

  add(step: GenerationStep): void {
    const { delta } = step
    const known = this.#choices.get(step.index)
    const choice: WholeChoice = known ?? { promptIndex: step.promptIndex, text: '', reasoning: '', toolCalls: [], logprobs: [], finish: null }
    if (known === undefined) this.#choices.set(step.index, choice)
    choice.text += delta.text
    choice.reasoning += delta.reasoning
    addCalls(choice.toolCalls, delta.toolCalls)
    choice.logprobs.push(...delta.logprobs)
    choice.finish = delta.finish ?? choice.finish
    this.#extras = mergedExtras(this.#extras, stepExtras(this.#plan, step, delta.tokenIds, this.#times))
    this.#usage = step.usage
  }

  body(): JsonObject {
    const chat = this.#plan.kind === 'chat'
    const { requestId, createdSeconds } = this.#identity
    const choices = [...this.#choices].sort(([a], [b]) => a - b)
    return {
      id: `${chat ? 'chatcmpl' : 'cmpl'}-${requestId}`,
      choices: choices.map(([index, choice]) => (chat ? this.#chatChoice(index, choice) : this.#completionChoice(index, choice))),
      created: createdSeconds,
      model: this.#plan.model.name,
      ...(chat ? {} : { system_fingerprint: null }),
      object: chat ? 'chat.completion' : 'text_completion',
      ...(this.#usage === undefined || this.#plan.queryOnly ? {} : { usage: usageObject(this.#usage) }),
      ...(this.#extras === undefined ? {} : { nvext: this.#extras }),
    }
  }

  #chatChoice(index: number, { text, reasoning, toolCalls, logprobs, finish }: WholeChoice): JsonObject {
    return {
      index,
      message: {
        content: text === '' ? null : text,
        refusal: null,
        ...(toolCalls.length === 0 ? {} : { tool_calls: toolCalls.map(callObject) }),
        role: 'assistant',
        ...(reasoning === '' ? {} : { reasoning_content: reasoning }),
      },
      finish_reason: finish,
      logprobs: chatLogprobs(this.#plan, logprobs),
    }
  }

  #completionChoice(index: number, { promptIndex, text, logprobs, finish }: WholeChoice): JsonObject {
    const echoed = echoedText(this.#plan, promptIndex)
    return { text: echoed + text, index, finish_reason: finish, logprobs: completionLogprobs(this.#plan, logprobs, echoed.length) }
  }
}

/** The prompt's text under `echo`. */
function echoedText(plan: GenerationPlan, promptIndex: number): string {
  const prompt = plan.prompts[promptIndex]
  if (!plan.echo || plan.queryOnly || prompt === undefined) return ''
  if (prompt.text !== undefined) return prompt.text
  const decoder = plan.model.text.decoder({ skipSpecialTokens: plan.skipSpecialTokens })
  return prompt.tokenIds.map((id) => decoder.push(id)).join('') + decoder.end()
}

const tokenName = (plan: GenerationPlan, text: TextModel, tokenId: number): string =>
  plan.tokensAsIds ? `token_id:${tokenId}` : text.tokenText(tokenId)

/** OpenAI's `logprobs` of a chat choice; null when none were asked for or told. */
export function chatLogprobs(plan: GenerationPlan, logprobs: readonly TokenLogprob[]): JsonObject | null {
  if (plan.logprobs === undefined || logprobs.length === 0) return null
  const { text } = plan.model
  const entry = (tokenId: number, logprob: number): Record<string, Json> => ({
    token: tokenName(plan, text, tokenId), logprob, bytes: Array.from(text.tokenBytes(tokenId)),
  })
  return {
    content: logprobs.map(({ tokenId, logprob, alternatives }) => ({
      ...entry(tokenId, logprob),
      top_logprobs: alternatives.map((alternative) => entry(alternative.tokenId, alternative.logprob)),
    })),
    refusal: null,
  }
}

function completionLogprobs(plan: GenerationPlan, logprobs: readonly TokenLogprob[], textOffset: number): JsonObject | null {
  if (plan.logprobs === undefined || logprobs.length === 0) return null
  const { text } = plan.model
  const tokens = logprobs.map(({ tokenId }) => tokenName(plan, text, tokenId))
  let offset = textOffset
  const offsets = tokens.map((token) => {
    const at = offset
    offset += token.length
    return at
  })
  return {
    tokens,
    token_logprobs: logprobs.map(({ logprob }) => logprob),
    top_logprobs: logprobs.map(({ alternatives }) => Object.fromEntries(alternatives.map((each) => [tokenName(plan, text, each.tokenId), each.logprob]))),
    text_offset: offsets,
  }
}
