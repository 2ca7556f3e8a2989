/**
 * Tokens to text, one token at a time.
 *
 * Each step of the decoder that `tokenizer.json` describes becomes a stage that holds back no more than it must: bytes of
 * a character that is not complete, or a mark that depends on the next token. So the pieces put together are what the
 * decoder gives for all tokens at once, and nothing is decoded twice. Bytes that cannot become a character give
 * U+FFFD as soon as that is certain; bytes that are incomplete at the end are dropped.
 */
import { byteLevelBytes, type DecoderStage, decoderSteps, fallbackByte, stageFactory } from './decoder-stages.ts'
import type { TextDecoderStream } from './text-model.ts'
import type { AddedToken, DecoderConfig } from './tokenizer-file.ts'

/** How many tokens before the output are run through the stages, to bring them into the middle of a text. */
const PRIMING_TOKENS = 8

const NONE: ReadonlySet<number> = new Set()
const utf8 = new TextEncoder()

/** Immutable; one per model. */
export class Detokenizer {
  readonly #tokens: readonly (string | undefined)[]
  readonly #specialIds: ReadonlySet<number>
  readonly #stages: readonly (() => DecoderStage)[]
  readonly #spelling: 'bytes' | 'fallback' | 'text'

  /** Errors: `TextError` naming a decoder step that is not supported. */
  constructor(tokens: readonly (string | undefined)[], added: readonly AddedToken[], decoder: DecoderConfig | null) {
    this.#tokens = tokens
    this.#specialIds = new Set(added.filter((token) => token.special).map((token) => token.id))
    const steps = decoderSteps(decoder)
    this.#stages = steps.map((step, index) => stageFactory(step, steps.slice(0, index)))
    const has = (type: string): boolean => steps.some((step) => step.type === type)
    this.#spelling = has('ByteLevel') ? 'bytes' : has('ByteFallback') ? 'fallback' : 'text'
  }

  /** `after`: ids before the output; an output that continues them keeps the blank of its first word. */
  stream(options: { readonly skipSpecialTokens: boolean; readonly after?: ArrayLike<number> }): StagedStream {
    const skipped = options.skipSpecialTokens ? this.#specialIds : NONE
    const stream = new StagedStream(this.#tokens, skipped, this.#stages.map((create) => create()))
    const after = options.after
    if (after === undefined) return stream
    for (let i = Math.max(0, after.length - PRIMING_TOKENS); i < after.length; i++) stream.push(after[i] as number)
    return stream
  }

  /** All ids at once, as the tokenizer library's decode gives it; incomplete bytes become U+FFFD. */
  decode(ids: ArrayLike<number>, options: { readonly skipSpecialTokens: boolean }): string {
    const stream = this.stream(options)
    let text = ''
    for (let i = 0; i < ids.length; i++) text += stream.push(ids[i] as number)
    return text + stream.endLossy()
  }

  /** Text of one token in the middle of a text; empty for an unknown id. */
  tokenText(id: number): string {
    const token = this.#tokens[id]
    if (token === undefined) return ''
    if (this.#spelling !== 'text') {
      const bytes = this.#spelledBytes(token)
      if (bytes !== null) return new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes)
    }
    const stream = new StagedStream(['x', token], NONE, this.#stages.map((create) => create()))
    stream.push(0)
    return stream.push(1) + stream.endLossy()
  }

  /** Bytes of one token; empty for an unknown id. */
  tokenBytes(id: number): Uint8Array {
    const token = this.#tokens[id]
    if (token === undefined) return new Uint8Array()
    return this.#spelledBytes(token) ?? utf8.encode(this.tokenText(id))
  }

  #spelledBytes(token: string): Uint8Array | null {
    if (this.#spelling === 'bytes') return byteLevelBytes(token)
    const byte = this.#spelling === 'fallback' ? fallbackByte(token) : null
    return byte === null ? null : Uint8Array.of(byte)
  }
}

/** One output's way through the stages. Cost: a few microseconds per token. */
export class StagedStream implements TextDecoderStream {
  readonly #tokens: readonly (string | undefined)[]
  readonly #skippedIds: ReadonlySet<number>
  readonly #stages: readonly DecoderStage[]
  readonly #sinks: ((piece: string) => void)[] = []
  #text = ''

  constructor(tokens: readonly (string | undefined)[], skippedIds: ReadonlySet<number>, stages: readonly DecoderStage[]) {
    this.#tokens = tokens
    this.#skippedIds = skippedIds
    this.#stages = stages
    let next = (piece: string): void => {
      this.#text += piece
    }
    for (let i = stages.length - 1; i >= 0; i--) {
      this.#sinks[i] = next
      const stage = stages[i] as DecoderStage
      const sink = next
      next = (piece) => stage.push(piece, sink)
    }
    this.#entry = next
  }

  readonly #entry: (piece: string) => void

  /** Unknown ids give nothing. */
  push(tokenId: number): string {
    const token = this.#tokens[tokenId]
    if (token === undefined || this.#skippedIds.has(tokenId)) return ''
    this.#entry(token)
    return this.#take()
  }

  end(): string {
    return this.#finish(false)
  }

  /** As `end`, with U+FFFD for what stayed incomplete. */
  endLossy(): string {
    return this.#finish(true)
  }

  #finish(lossy: boolean): string {
    for (let i = 0; i < this.#stages.length; i++) (this.#stages[i] as DecoderStage).end(lossy, this.#sinks[i] as (piece: string) => void)
    return this.#take()
  }

  #take(): string {
    const text = this.#text
    this.#text = ''
    return text
  }
}
