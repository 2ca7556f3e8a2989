/** What a request to a decode worker has of its own: rank, hand-over, tokens that the caller already has. */
import type { DecodePayload } from '../disagg/hand-over.ts'
import type { MsgpackValue } from '../msgpack/cursor.ts'
import type { EncodedValue, GenerateRequest, RequestEdits } from '../dynamo/wire/generate-request.ts'
import type { PrefillLeg } from './prefill-leg.ts'

/** A prefill leg and what it handed over. */
export type HandedOver = { readonly leg: PrefillLeg; readonly payload: DecodePayload<EncodedValue> }

export type ValueMap = { readonly [key: string]: MsgpackValue }

/** The value when it is a map, else an empty one. */
export const mapOf = (value: MsgpackValue | undefined): ValueMap =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array) ? (value as ValueMap) : {}

export interface DecodeEditsInput {
  readonly generate: GenerateRequest
  /** Null: the engine chooses it. */
  readonly dpRank: number | null
  /** Output tokens that the caller already has. */
  readonly tokens: readonly number[]
  readonly handOver: HandedOver | null
  /** `routing_constraints` for the worker. */
  readonly taints: ValueMap | null
  readonly decodeKvReuse: boolean
  /** Decode workers are chosen by their caches too: the overlap credit is left as it is. */
  readonly keepsOverlapCredit: boolean
  /** In place of the caller's. */
  readonly annotations: readonly string[] | null
}

const overrideNames = ['overlap_score_credit', 'prefill_load_scale', 'router_temperature', 'assume_kv_reuse', 'track_prefill_tokens', 'shared_cache_multiplier']

export function decodeEdits({ generate, dpRank, tokens, handOver, taints, decodeKvReuse, keepsOverlapCredit, annotations }: DecodeEditsInput): RequestEdits {
  const stop = reducedStop(generate, tokens.length)
  const common = {
    ...(tokens.length === 0 ? {} : { appendedTokens: tokens, ...(stop === null ? {} : { stopConditions: stop }) }),
    ...(annotations === null ? {} : { annotations }),
  }
  const rank = dpRank === null ? {} : { dp_rank: dpRank }
  if (handOver === null) return { routing: rank, ...common }
  const { leg, payload } = handOver
  const own = mapOf(generate.field('router_config_override'))
  const nulls = Object.fromEntries(overrideNames.map((name) => [name, own[name] ?? null]))
  return {
    routing: {
      prefill_worker_id: leg.worker.workerId, ...rank,
      ...(payload.kind === 'bootstrap' && leg.named.dpRank !== null ? { prefill_dp_rank: leg.named.dpRank } : {}), ...(taints === null ? {} : { routing_constraints: taints }),
    },
    override: { ...nulls, ...(keepsOverlapCredit ? {} : { overlap_score_credit: 0 }), track_prefill_tokens: false, ...(decodeKvReuse ? {} : { assume_kv_reuse: false }) },
    ...(payload.kind === 'params' ? { prefillResult: { params: payload.params, promptTokensDetails: wholeDetails(payload.promptTokensDetails) } } : { bootstrapInfo: payload.info }),
    ...common,
  }
}

/** Details of a usage with every field that decode workers of Dynamo are told. Source: Dynamo 1.6.1 `PromptTokensDetails`. */
const wholeDetails = (details: MsgpackValue): MsgpackValue =>
  details === null ? null : { audio_tokens: null, cached_tokens: null, ...mapOf(details) }

/** What is left of the limits after the tokens that the caller already has. */
function reducedStop(generate: GenerateRequest, tokenCount: number): ValueMap | null {
  const stop = mapOf(generate.field('stop_conditions'))
  const left = (name: string, least: number): ValueMap => {
    const value = stop[name]
    return typeof value === 'number' ? { [name]: Math.max(least, value - tokenCount) } : {}
  }
  const reduced = { ...left('max_tokens', 1), ...left('min_tokens', 0) }
  return Object.keys(reduced).length === 0 ? null : reduced
}

/** Headers that travel on to the worker. */
const forwardedHeaders = ['traceparent', 'tracestate', 'x-request-id'] as const

export function outgoingHeaders(incoming: Readonly<Record<string, string>>): Record<string, string> {
  const headers: Record<string, string> = {}
  for (const name of forwardedHeaders) {
    const value = incoming[name]
    if (value !== undefined) headers[name] = value
  }
  return headers
}
