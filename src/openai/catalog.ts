/** The models that the HTTP API serves, as it sees them: implemented by the frontend over discovery, by tests as they like. */
import type { ParserNames } from '../parsers/output-parser.ts'
import type { Json, JsonObject, StopSignal } from '../ports.ts'
import type { TextModel } from '../text/text-model.ts'

/** Identity and lifetime of one request. */
export interface ModelCall {
  /** UUID; the worker sees the same id. */
  readonly id: string
  /** traceparent, tracestate, x-request-id: those that came. */
  readonly headers: Readonly<Record<string, string>>
  readonly metadata: Readonly<Record<string, string>>
  /** Aborts when the client has left. */
  readonly signal: StopSignal
}

/** What came of routing, known before the first output; for response headers. */
export interface RoutingNote {
  /** Value of `x-warmpath-prefill`: `remote`, `none`, `fallback:<reason>`, `bypass`. */
  readonly prefill: string
}

export interface ServedModel {
  readonly name: string
  /** Unix seconds. */
  readonly createdSeconds: number
  readonly contextLength: number | null
  readonly supportsChat: boolean
  readonly supportsCompletions: boolean
  readonly supportsEmbeddings?: boolean
  /** Its workers want requests as the client sent them, not in tokens. */
  readonly takesText?: boolean
  readonly text: TextModel
  /** `mdc_sum` of the decode card, or null. */
  readonly cardChecksum: string | null
  /** How its output is read; absent: as plain text. */
  readonly parsers?: ParserNames
  /** The prompt shows tools also where `tool_choice` is "none". */
  readonly showsUnusedTools?: boolean
  /**
   * Runs a PreprocessedRequest map. Yields LLMEngineOutput maps in order, those that came together in one list; ending the iteration
   * ends the request.
   * Errors: throws `FailureError`, also in the middle. `onRouted` is called once before the first output.
   */
  generate(request: JsonObject, call: ModelCall, onRouted?: (note: RoutingNote) => void): AsyncIterable<readonly { readonly [key: string]: Json | Uint8Array }[]>
  /** Runs a request that has one answer (embeddings). Gives the worker's map. Errors: `FailureError`. */
  ask?(request: JsonObject, call: ModelCall): Promise<{ readonly [key: string]: Json | Uint8Array }>
}

/** Thresholds as `/busy_threshold` shows and sets them; null = off. */
export interface BusyThresholds {
  readonly activeDecodeBlocks: number | null
  readonly activePrefillTokens: number | null
  readonly activePrefillTokensFraction: number | null
}

export interface ModelCatalog {
  /** Models that are ready, in the order in which they became so. */
  list(): readonly ServedModel[]
  /** A known model that cannot serve now says why, with the mend; `undefined` is an unknown name. */
  find(name: string): ServedModel | { readonly notReady: string; readonly retryAfterSeconds: number } | undefined
  /** Endpoints (`dyn://ns.comp.ep`) and instances for `/health`. */
  health(): { readonly ready: boolean; readonly endpoints: readonly string[]; readonly instances: readonly JsonObject[] }
  /** Workers and needs of a model per namespace, for `/v1/models/{id}/ready`; undefined: unknown. */
  readiness?(name: string): JsonObject | undefined
  busyThresholds(model: string): BusyThresholds | undefined
  /** All or nothing. Unknown model: false. */
  setBusyThresholds(model: string, thresholds: Partial<BusyThresholds>): boolean
}
