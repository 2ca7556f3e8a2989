/** What the HTTP API needs of a model's text side: template, tokens and back. Implemented in this room, one per model. */

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
  encode(text: string, options: { readonly addSpecialTokens: boolean; readonly signal?: AbortSignal }): Promise<Uint32Array>
  decoder(options: { readonly skipSpecialTokens: boolean }): TextDecoderStream
  /** The text of one token, for logprobs. */
  tokenText(tokenId: number): string
  close(): Promise<void>
}
