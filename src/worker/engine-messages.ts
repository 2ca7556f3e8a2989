/** What travels on a `generate` endpoint, as types: for handlers that want their request typed. Unknown members may come with it. */
import type { WireObject, WireValue } from '../dynamo/wire/body.ts'

/** A request as frontends and routers send it. Only `token_ids` is sure to be there. */
export type PreprocessedRequest = {
  readonly token_ids: readonly number[]
  readonly model?: string
  readonly stop_conditions?: {
    readonly max_tokens?: number | null
    readonly min_tokens?: number | null
    readonly stop?: readonly string[] | null
    readonly stop_token_ids?: readonly number[] | null
    readonly ignore_eos?: boolean | null
  }
  readonly sampling_options?: WireObject
  readonly output_options?: WireObject
  readonly eos_token_ids?: readonly number[]
  readonly annotations?: readonly string[]
  readonly routing?: { readonly dp_rank?: number | null; readonly lora_name?: string | null; readonly cache_salt?: string | null } & WireObject
  /** Decode workers: what the prefill worker handed over. */
  readonly prefill_result?: { readonly disaggregated_params: WireValue } & WireObject
  /** Workers of SGLang's kind: where prefill and decode meet. `bootstrap_room` may be a bigint. */
  readonly bootstrap_info?: { readonly bootstrap_host: string; readonly bootstrap_port: number; readonly bootstrap_room: number | bigint } & WireObject
  readonly extra_args?: WireValue
}

/** One output. `token_ids` alone will do; the last one has a `finish_reason`. */
export type LlmEngineOutput = {
  readonly token_ids: readonly number[]
  readonly finish_reason?: 'stop' | 'length' | 'eos' | 'cancelled' | 'content_filter' | { readonly error: string }
  readonly index?: number
  readonly log_probs?: readonly number[]
  /** Prefill workers: what the decode worker needs. */
  readonly disaggregated_params?: WireValue
  readonly completion_usage?: {
    readonly prompt_tokens: number
    readonly completion_tokens: number
    readonly total_tokens: number
    readonly prompt_tokens_details?: { readonly cached_tokens: number | null }
  }
  readonly extra_args?: WireValue
}
