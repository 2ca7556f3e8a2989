/** What the HTTP API counts of its requests: implemented on Prometheus, by nothing at all, or as a test likes. */
import type { FailureClass, FailureReason } from '../model/failure.ts'

export type Endpoint = 'chat_completions' | 'completions' | 'responses' | 'anthropic_messages' | 'embeddings'

/** Counts one request; `end` comes exactly once. */
export interface RequestMeter {
  prepared(templateSeconds: number, tokenizeSeconds: number): void
  inputTokens(count: number): void
  firstToken(seconds: number): void
  /** `count` tokens came together, `seconds` after those before. */
  nextTokens(count: number, seconds: number): void
  outputTokens(count: number): void
  cachedTokens(count: number): void
  /** The client left before its answer was complete. */
  disconnected(): void
  end(outcome: RequestOutcome): void
}

export type RequestOutcome =
  | { readonly status: 'success'; readonly seconds: number }
  | { readonly status: 'error'; readonly seconds: number; readonly errorType: string; readonly class: FailureClass; readonly reason: FailureReason }

export interface FrontendMeter {
  /** `model`: a served name, or `unknown_model`. */
  begin(model: string, endpoint: Endpoint, requestType: 'stream' | 'unary'): RequestMeter
}

const silentRequest: RequestMeter = {
  prepared() {}, inputTokens() {}, firstToken() {}, nextTokens() {}, outputTokens() {}, cachedTokens() {}, disconnected() {}, end() {},
}

/** Counts nothing. */
export const silentMeter: FrontendMeter = { begin: () => silentRequest }
