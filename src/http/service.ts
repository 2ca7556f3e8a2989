/** What the HTTP mirror asks of the router service behind it. */
import type { Json, JsonObject } from '../ports.ts'

/** Identity and lifetime of one HTTP request. */
export interface HttpCall {
  /** From `x-request-id`, else made by the mirror; at most 256 characters. */
  readonly id: string
  /** Trace headers to pass on: traceparent, tracestate, x-request-id; only those that came. */
  readonly headers: Readonly<Record<string, string>>
  /** Aborts when the client has left or the mirror closes. */
  readonly signal: AbortSignal
}

/** Health as `/health` answers it: 200 when ready, else 503. */
export interface HttpHealth {
  readonly ready: boolean
  /** Further members of the body. */
  readonly detail?: JsonObject
}

/**
 * The router service in process. Bodies are decoded losslessly: integers beyond 2^53 are bigints, worker ids given as
 * decimal strings are already bigints. Methods reject, and the iterable throws, `FailureError`; anything else is Internal.
 */
export interface HttpService {
  /** `request` is a PreprocessedRequest map. Yields output values in order; ending the iteration ends the request. */
  generate(request: JsonObject, call: HttpCall): AsyncIterable<Json>
  /** `request` always has the array `token_ids`. Resolves to the worker id. */
  bestWorkerId(request: JsonObject, call: HttpCall): Promise<bigint>
  overlapScores(request: JsonObject, call: HttpCall): Promise<JsonObject>
  /** As `bestWorkerId`, with every candidate, its cost terms and the reasons of those left out. Left out: `/explain` is not a route. */
  explain?(request: JsonObject, call: HttpCall): Promise<JsonObject>
  health(): HttpHealth
  /** Prometheus text; left out: `/metrics` is not a route. */
  metrics?(): Promise<{ readonly contentType: string; readonly text: string }>
}
