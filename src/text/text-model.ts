/** What the HTTP API needs of a model's text side: template, tokens and back. Implemented in this room, one per model. */
import type { StopSignal } from '../ports.ts'

export type JsonValue = null | boolean | number | string | readonly JsonValue[] | { readonly [key: string]: JsonValue }

export interface ChatTemplateInput {
  readonly messages: readonly { readonly [key: string]: JsonValue }[]
  readonly tools?: readonly JsonValue[]
  readonly addGenerationPrompt: boolean
  readonly continueFinalMessage?: boolean
  /** `chat_template_kwargs`. */
  readonly variables?: { readonly [key: string]: JsonValue }
}

/** Turns output tokens into text bit by bit. Never gives a broken character: what is incomplete is held back. */
export interface TextDecoderStream {
  /** Text that became complete with this token; may be empty. */
  push(tokenId: number): string
  /** What is held back and will not become complete is dropped. */
  end(): string
}

export interface TextModel {
  readonly eosTokenIds: readonly number[]
  /** From the config's maximum, or null. */
  readonly contextLength: number | null
  readonly vocabularySize: number
  readonly hasChatTemplate: boolean
  /** Errors: `TemplateError` with the template's own message (`raise_exception`) or what it could not do. */
  renderChat(input: ChatTemplateInput): string
  /** Off the event loop when the text is long. Errors: aborted signal. */
  encode(text: string, options: { readonly addSpecialTokens: boolean; readonly signal?: StopSignal }): Promise<Uint32Array>
  /** `after`: ids that came before the output (the prompt's); keeps the space with which a word begins in SentencePiece models. */
  decoder(options: { readonly skipSpecialTokens: boolean; readonly after?: ArrayLike<number> }): TextDecoderStream
  /** The text of one token as it stands inside a text, for logprobs; U+FFFD where its bytes are a part of a character. */
  tokenText(tokenId: number): string
  /** The bytes of one token, for the `bytes` of logprobs; empty for an unknown id. */
  tokenBytes(tokenId: number): Uint8Array
  /** What the encoder does and how often its bounds have bitten. */
  counters(): TextCounters
  close(): Promise<void>
}

/** Counts since the model was loaded. */
export interface TextCounters {
  readonly engine: 'native' | 'pure'
  readonly encodes: number
  readonly segmentHits: number
  readonly segmentMisses: number
  readonly segmentEvictions: number
  /** Texts refused for their length, or because too many were waiting. */
  readonly refused: number
}
