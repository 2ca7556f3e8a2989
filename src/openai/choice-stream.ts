/** One answer in the making: output tokens become text, held back while a stop string or a character may still complete. */
import { randomUUID } from 'node:crypto'
import { nothingParsed, type OutputParser, type ParsedDelta, type ToolCall } from '../parsers/output-parser.ts'
import type { Json } from '../ports.ts'
import { StopScanner } from '../text/stop-scanner.ts'
import type { TextDecoderStream } from '../text/text-model.ts'
import { isJsonList, isJsonObject } from './fields.ts'
import type { GenerationPlan, Prompt } from './generation-plan.ts'

export type FinishReason = 'stop' | 'length' | 'content_filter' | 'tool_calls'

/** Log probability of one token that was generated. */
export interface TokenLogprob {
  readonly tokenId: number
  readonly logprob: number
  /** Most likely first. */
  readonly alternatives: readonly { readonly tokenId: number; readonly logprob: number }[]
}

/** A tool call of an answer, complete, or what a demanded one has got since. */
export interface AnswerCall {
  /** Place among the answer's calls. */
  readonly index: number
  readonly id: string
  readonly name: string
  /** A JSON text. */
  readonly arguments: string
  /** The arguments go on those of the call with this index. */
  readonly continues: boolean
}

/** Adds what has come to the calls so far. */
export function addCalls(calls: AnswerCall[], more: readonly AnswerCall[]): void {
  for (const call of more) {
    const before = call.continues ? calls.at(-1) : undefined
    if (before === undefined) calls.push(call)
    else calls[calls.length - 1] = { ...before, arguments: before.arguments + call.arguments }
  }
}

/** What one worker output added to an answer. */
export interface ChoiceDelta {
  /** Content: without reasoning and tool calls. */
  readonly text: string
  readonly reasoning: string
  readonly toolCalls: readonly AnswerCall[]
  readonly tokenIds: readonly number[]
  readonly logprobs: readonly TokenLogprob[]
  readonly finish: FinishReason | null
  /** Stop string or token that ended the answer. */
  readonly stopReason: string | number | null
  /** The worker's own word, for `detailed_finish_reason`. */
  readonly detailedFinish: string | null
}

export type WorkerOutput = { readonly [key: string]: Json | Uint8Array }

/** The worker said that it failed: its message is for the log, not for the client. */
export class WorkerFinishedWithError extends Error {}

const noCalls: readonly AnswerCall[] = []
const noLogprobs: readonly TokenLogprob[] = []

/** Ids as the original makes them: its families differ. */
function madeId(form: ToolCall['idForm']): string {
  const uuid = randomUUID()
  return form === 'uuid' ? uuid : form === 'call_hex' ? `call_${uuid.replaceAll('-', '').slice(0, 24)}` : `call-${uuid}`
}

/** State of one answer. Cost: per token one decoder step, per output one scan of its text. */
export class ChoiceStream {
  readonly #plan: GenerationPlan
  readonly #decoder: TextDecoderStream
  readonly #scanner: StopScanner
  readonly #parser: OutputParser | undefined
  #tokens = 0
  #reasoningTokens = 0
  #calls = 0
  #truncated = false
  #finished = false

  constructor(plan: GenerationPlan, prompt: Prompt) {
    this.#plan = plan
    this.#decoder = plan.model.text.decoder({ skipSpecialTokens: plan.skipSpecialTokens, after: prompt.tokenIds })
    this.#scanner = new StopScanner(plan.stop.strings, { includeStop: plan.includeStopString })
    this.#parser = plan.createParser?.()
  }

  /** Tokens counted as generated, those that end the answer included. */
  get tokens(): number {
    return this.#tokens
  }

  /** Those of them that were reasoning. */
  get reasoningTokens(): number {
    return this.#reasoningTokens
  }

  get finished(): boolean {
    return this.#finished
  }

  /** Takes one output; after the end `null`. Errors: `WorkerFinishedWithError`. */
  push(output: WorkerOutput): ChoiceDelta | null {
    if (this.#finished) return null
    const raw = finishOf(output['finish_reason'])
    const tokenIds = tokenIdsOf(output['token_ids'])
    const logprobs = this.#plan.logprobs === undefined ? noLogprobs : logprobsOf(output, tokenIds, this.#plan.logprobs)
    let text = ''
    let finish: FinishReason | null = null
    let stopReason: string | number | null = null
    let used = 0
    for (const tokenId of tokenIds) {
      used += 1
      this.#tokens += 1
      const end = this.#endsAt(tokenId)
      if (end === null || end.shown) {
        const scan = this.#scanner.push(this.#decoder.push(tokenId))
        text += scan.text
        if (scan.stopped !== null) {
          finish = 'stop'
          stopReason = scan.stopped.stop
          break
        }
      }
      if (end !== null) {
        finish = 'stop'
        stopReason = end.reason
        break
      }
    }
    if (finish === null && raw !== null) finish = raw.mapped
    if (stopReason === null && finish === 'stop') stopReason = stopReasonOf(output['stop_reason'])
    if (finish !== null) text += this.#finish()
    const parsed = this.#parser === undefined ? null : this.#parsed(this.#parser, text, finish !== null, used)
    return {
      text: parsed === null ? text : parsed.text, reasoning: parsed === null ? '' : parsed.reasoning, toolCalls: parsed === null ? noCalls : parsed.toolCalls,
      tokenIds: used === tokenIds.length ? tokenIds : tokenIds.slice(0, used), logprobs: logprobs.length === 0 ? noLogprobs : logprobs.slice(0, used), finish: this.#finishAs(finish), stopReason, detailedFinish: finish === null ? null : (raw?.word ?? finish),
    }
  }

  /** The outputs have ended without a word on why: what is held back goes out. */
  close(): ChoiceDelta | null {
    if (this.#finished) return null
    const text = this.#finish()
    const parsed = this.#parser === undefined ? { text, reasoning: '', toolCalls: noCalls } : this.#parsed(this.#parser, text, true, 0)
    return { ...parsed, tokenIds: [], logprobs: [], finish: this.#finishAs('stop'), stopReason: null, detailedFinish: null }
  }

  #finish(): string {
    this.#finished = true
    const last = this.#scanner.push(this.#decoder.end())
    return last.text + this.#scanner.end()
  }

  #parsed(parser: OutputParser, text: string, ended: boolean, tokens: number): Pick<ChoiceDelta, 'text' | 'reasoning' | 'toolCalls'> {
    const { thinking } = parser
    const delta = text === '' ? nothingParsed : parser.push(text)
    const last = ended ? parser.end() : nothingParsed
    const reasoning = delta.reasoning + last.reasoning
    this.#truncated = last.truncated === true
    if (thinking || reasoning !== '') this.#reasoningTokens += tokens
    return { text: delta.content + last.content, reasoning, toolCalls: this.#numbered([...delta.toolCalls, ...last.toolCalls]) }
  }

  /** An answer with calls ends for them; one that lost its only call to the end of the output was cut. */
  #finishAs(finish: FinishReason | null): FinishReason | null {
    if (finish !== 'stop') return finish
    return this.#calls > 0 ? 'tool_calls' : this.#truncated ? 'length' : finish
  }

  #numbered(calls: ParsedDelta['toolCalls']): readonly AnswerCall[] {
    if (calls.length === 0) return noCalls
    return calls.map((call) => {
      if (call.continues === true) return { index: this.#calls - 1, id: '', name: '', arguments: call.arguments, continues: true }
      return { index: this.#calls++, id: call.id ?? madeId(call.idForm), name: call.name, arguments: call.arguments, continues: false }
    })
  }

  /** Why the answer ends with this token, if it does. */
  #endsAt(tokenId: number): { readonly shown: boolean; readonly reason: number | null } | null {
    const { stop, includeStopString } = this.#plan
    if (this.#tokens < stop.minTokens) return null
    if (stop.hiddenTokenIds.includes(tokenId)) return { shown: false, reason: null }
    if (stop.tokenIds.includes(tokenId)) return { shown: includeStopString, reason: tokenId }
    return null
  }
}

function tokenIdsOf(value: Json | Uint8Array | undefined): readonly number[] {
  if (value instanceof Uint8Array) {
    const view = new DataView(value.buffer, value.byteOffset, value.byteLength)
    return Array.from({ length: value.byteLength >> 2 }, (_, index) => view.getUint32(index * 4, true))
  }
  if (!isJsonList(value)) return []
  for (const id of value) if (typeof id !== 'number') return value.filter((each): each is number => typeof each === 'number')
  return value as readonly number[]
}

interface RawFinish {
  readonly mapped: FinishReason
  readonly word: string
}

function finishOf(value: Json | Uint8Array | undefined): RawFinish | null {
  if (value === undefined || value === null || value instanceof Uint8Array) return null
  if (isJsonObject(value)) {
    if ('error' in value) throw new WorkerFinishedWithError(String(value['error']))
    return { mapped: 'stop', word: 'stop' }
  }
  const word = String(value)
  if (word === 'error' || word.startsWith('error:')) throw new WorkerFinishedWithError(word)
  if (word === 'length') return { mapped: 'length', word }
  if (word === 'content_filter') return { mapped: 'content_filter', word }
  return { mapped: 'stop', word }
}

const stopReasonOf = (value: Json | Uint8Array | undefined): string | number | null =>
  typeof value === 'string' || typeof value === 'number' ? value : null

/** `log_probs` of an output with up to `count` of its `top_logprobs` per token. */
function logprobsOf(output: WorkerOutput, tokenIds: readonly number[], count: number): readonly TokenLogprob[] {
  const values = output['log_probs']
  if (values instanceof Uint8Array || !isJsonList(values)) return []
  const tops = output['top_logprobs']
  return tokenIds.flatMap((tokenId, index) => {
    const logprob = values[index]
    if (typeof logprob !== 'number') return []
    const top = tops instanceof Uint8Array || !isJsonList(tops) ? undefined : tops[index]
    return [{ tokenId, logprob, alternatives: alternativesOf(top, count) }]
  })
}

function alternativesOf(value: Json | undefined, count: number): TokenLogprob['alternatives'] {
  if (!isJsonList(value)) return []
  const found = value.flatMap((item) => {
    if (!isJsonObject(item)) return []
    const { token_id: tokenId, logprob } = item as { token_id?: Json; logprob?: Json }
    return typeof tokenId === 'number' && typeof logprob === 'number' ? [{ tokenId, logprob }] : []
  })
  return found.sort((a, b) => b.logprob - a.logprob).slice(0, count)
}
