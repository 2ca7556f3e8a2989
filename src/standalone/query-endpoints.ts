/** The endpoints that ask without routing: `best_worker_id` and `get_overlap_scores`. Nothing is booked or changed. */
import { FailureError, type Failure } from '../model/failure.ts'
import type { Decision, Refusal } from '../model/decision.ts'
import type { RoutingRequest } from '../model/routing-request.ts'
import { MsgpackCursor } from '../msgpack/cursor.ts'
import type { Codec, IncomingRequest, JsonObject, ResponseWriter } from '../ports.ts'
import type { RemoteIndex } from '../replicas/remote-index.ts'
import type { OverlapReport, Router } from '../router/contract.ts'
import { decodeBody, type WireObject, type WireValue } from '../dynamo/wire/body.ts'
import { blockMmInfosOf, overrideOf, tokensOf } from '../dynamo/wire/generate-request.ts'
import { invalid } from '../dynamo/wire/request-fields.ts'
import { sharedBlocksBeyond } from '../model/shared-cache.ts'
import { encodeData } from '../dynamo/wire/items.ts'
import { answerFailure } from './routed-generate.ts'
import { noWorkers, refusalFailure } from './refusal-failure.ts'

/** What both questions have in common, read from an array of tokens or a map. */
export interface Query {
  readonly tokens: Uint32Array
  /** False: a cache shared by all workers is not asked. */
  readonly includeShared?: boolean
  readonly routing: Pick<RoutingRequest, 'loraName' | 'cacheNamespace' | 'blockMmInfos' | 'override'>
}

const isMap = (value: QueryValue): value is WireObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array) && !(value instanceof Uint32Array)

function textOf(value: WireValue | undefined, field: string): string | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'string') throw invalid(`\`${field}\` is not a string`)
  return value
}

/** A question as it was sent; lists of tokens may be read already. */
export type QueryValue = WireValue | Uint32Array

/** The same as `decodeBody`, without an array of all tokens. Errors: the same. */
function decodeQuery(body: Uint8Array, codec: Codec): QueryValue {
  if (codec === 'msgpack' && body.length > 0) {
    try {
      const cursor = new MsgpackCursor(body)
      const tokens = cursor.tryU32s()
      if (tokens !== null && cursor.atEnd) return tokens
    } catch {
      // The general decoder says what is wrong.
    }
  }
  return decodeBody(body, codec)
}

/** Errors: `FailureError` of class InvalidRequest that names the field. */
export function queryOf(value: QueryValue): Query {
  if (Array.isArray(value) || value instanceof Uint8Array || value instanceof Uint32Array) return { tokens: tokensOf(value, 'token_ids'), routing: {} }
  if (!isMap(value)) throw invalid('the request must be an array of token ids or a map with `token_ids`')
  const override = overrideOf(value['router_config_override'])
  const loraName = textOf(value['lora_name'], 'lora_name')
  const cacheNamespace = textOf(value['cache_namespace'] ?? value['cache_salt'], 'cache_namespace')
  const blockMmInfos = blockMmInfosOf(value['block_mm_infos'], 'block_mm_infos')
  const includeShared = value['include_shared']
  if (includeShared !== undefined && includeShared !== null && typeof includeShared !== 'boolean') throw invalid('`include_shared` is not a boolean')
  return {
    tokens: tokensOf(value['token_ids'], 'token_ids'),
    ...(typeof includeShared === 'boolean' ? { includeShared } : {}),
    routing: {
      ...(override === undefined ? {} : { override }), ...(loraName === undefined ? {} : { loraName }),
      ...(cacheNamespace === undefined ? {} : { cacheNamespace }), ...(blockMmInfos === undefined ? {} : { blockMmInfos }),
    },
  }
}

/** The overlap report in Dynamo's shape. Counts of lower tiers are cumulative: reachable through that tier. */
export function overlapAnswer(report: OverlapReport): JsonObject {
  return {
    block_size: report.blockSize,
    num_blocks: report.blockCount,
    workers: report.rows.map((row) => ({
      worker_id: row.workerId, dp_rank: row.dpRank, device_blocks: row.deviceBlocks,
      host_pinned_blocks: row.deviceBlocks + row.hostExtensionBlocks,
      disk_blocks: row.deviceBlocks + row.hostExtensionBlocks + row.diskExtensionBlocks,
      host_pinned_extension_blocks: row.hostExtensionBlocks, disk_extension_blocks: row.diskExtensionBlocks,
      shared_beyond_device_blocks: report.shared === null ? null : sharedBlocksBeyond(report.shared, row.deviceBlocks),
    })),
    shared_cache: report.shared === null ? { enabled: false, total_hit_blocks: 0, ranges: [], error: null }
      : { enabled: true, total_hit_blocks: report.shared.total, ranges: report.shared.ranges, error: report.shared.error },
  }
}

/** A decision with all that went into it, for people. */
export function explanationAnswer(answer: Decision | Refusal): JsonObject {
  if (answer.kind === 'refused') {
    return { refused: answer.reason, message: answer.message, exclusions: answer.exclusions.map((each) => ({ worker_id: each.workerId, dp_rank: each.dpRank, reason: each.reason, ...(each.detail === undefined ? {} : { detail: each.detail }) })) }
  }
  const { candidates, exclusions, choice, temperature, policy } = answer.explain()
  return {
    worker_id: answer.workerId, dp_rank: answer.dpRank, choice, temperature, ...(policy === undefined ? {} : { policy: { name: policy.name, decided: policy.decided, why: policy.why, score: shownScore(policy.score) } }), cost: answer.cost, prompt_tokens: answer.promptTokens, prompt_blocks: answer.promptBlocks,
    candidates: candidates.map((each) => ({
      worker_id: each.workerId, dp_rank: each.dpRank, cost: each.cost, ...(each.policyScore === undefined ? {} : { policy_score: shownScore(each.policyScore) }), prefill_term: each.prefillTerm, decode_term: each.decodeTerm, request_term: each.requestTerm,
      taint_factor: each.taintFactor, credit: each.credit, device_blocks: each.deviceBlocks, host_extension_blocks: each.hostExtensionBlocks,
      disk_extension_blocks: each.diskExtensionBlocks, cached_tokens: each.cachedTokens, active_prefill_tokens: each.activePrefillTokens,
      active_requests: each.activeRequests, potential_decode_blocks: each.potentialDecodeBlocks,
    })),
    exclusions: exclusions.map((each) => ({ worker_id: each.workerId, dp_rank: each.dpRank, reason: each.reason, ...(each.detail === undefined ? {} : { detail: each.detail }) })),
  }
}

/** JSON has no infinity. */
const shownScore = (score: number | null): number | string | null => (score === null || Number.isFinite(score) ? score : String(score))

/** Which worker a prompt would go to. */
export function bestWorker(router: Router | null, query: Query, requestId: string, excluded: ReadonlySet<bigint>): Decision | Refusal {
  if (router === null) return noWorkers(requestId)
  const request = { ...query.routing, requestId, model: 'unknown', tokens: query.tokens }
  const careful = router.select({ ...request, excludedWorkerIds: excluded })
  return careful.kind === 'refused' && excluded.size > 0 ? router.select(request) : careful
}

/** Answers when an index elsewhere, if there is one, was asked for the prompt. */
export function withOverlap(remote: RemoteIndex | null, request: IncomingRequest, answer: () => void): void {
  if (remote === null) return answer()
  let query: Query
  try {
    query = queryOf(decodeQuery(request.body, request.codec))
  } catch {
    // The answer says what is wrong.
    return answer()
  }
  remote.lookUp({ ...query.routing, tokens: query.tokens }, answer)
}

/** As `withOverlap`, for a caller of this process. Errors: those of `answer`. */
export async function afterOverlap<Answer>(remote: RemoteIndex | null, query: Query, answer: () => Answer): Promise<Answer> {
  if (remote === null) return answer()
  return new Promise((resolve, reject) => {
    remote.lookUp({ ...query.routing, tokens: query.tokens }, () => {
      try {
        resolve(answer())
      } catch (error) {
        reject(error as Error)
      }
    })
  })
}

/** Answers one request with the single value of `answer`, or with the failure that it throws. */
export function answerOnce(request: IncomingRequest, response: ResponseWriter, answer: (value: QueryValue) => WireValue): void {
  try {
    response.writeItem(encodeData(answer(decodeQuery(request.body, request.codec)), request.codec))
    response.end()
  } catch (error) {
    answerFailure(response, failureOf(error))
  }
}

/** Throws what a refusal means. */
export function chosen(answer: Decision | Refusal): Decision {
  if (answer.kind === 'refused') throw new FailureError(refusalFailure(answer))
  return answer
}

/** What a request that could not be read is answered with. */
export function failureOf(error: unknown): Failure {
  if (error instanceof FailureError) return error.failure
  return { class: 'InvalidRequest', reason: 'request.invalid_argument', message: error instanceof Error ? error.message : String(error) }
}
