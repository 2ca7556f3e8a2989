/** A thin form of Dynamo's selection service over `KvRouter`: enough to answer the recorded calls. */
import { localBlockHashes, sequenceHashes } from '../hashing/block-hashes.ts'
import { hashCount, hashesToBigints } from '../model/hash-list.ts'
import type { Candidate, Decision, Refusal } from '../model/decision.ts'
import type { RouterConfigOverride, RoutingRequest } from '../model/routing-request.ts'
import type { WorkerDescription, WorkerRank } from '../model/worker.ts'
import type { Clock, Random } from '../ports.ts'
import type { RouterSettings } from '../router/contract.ts'
import { KvRouter } from '../router/kv-router.ts'
import type { Rows } from './json-compare.ts'

type Integer = number | bigint

export interface RankField {
  readonly worker_id: Integer
  readonly dp_rank: number | null
}

/** Body of a selection, of `/potential_loads` or of `/overlap_scores`. */
export interface PromptBody {
  readonly model_name: string
  readonly routing_group?: string
  readonly selection_id?: string
  readonly token_ids: readonly number[]
  readonly lora_name?: string
  readonly cache_salt?: string
  readonly expected_output_tokens?: number
  readonly advisory?: boolean
  readonly router_config_override?: { readonly assume_kv_reuse?: boolean; readonly track_prefill_tokens?: boolean } & Readonly<Record<string, unknown>>
  readonly affinity_target?: RankField
  readonly pinned_worker?: RankField
  readonly allowed_worker_ids?: readonly Integer[]
  readonly routing_constraints?: { readonly required_taints?: readonly string[]; readonly preferred_taints?: Readonly<Record<string, number>> }
}

export interface WorkerBody {
  readonly worker_id: Integer
  readonly model_name?: string
  readonly routing_group?: string
  readonly endpoint?: string
  readonly block_size?: number
  readonly data_parallel_start_rank?: number
  readonly data_parallel_size?: number
  readonly max_num_batched_tokens?: number
  readonly total_kv_blocks?: number
  readonly taints?: readonly string[]
  readonly topology_domains?: Readonly<Record<string, string>>
}

export interface Answer {
  readonly status: number
  readonly body: unknown
}

/** A decision with all candidates, or the refusal. */
export type Preview = { readonly decision: Decision; readonly candidates: readonly Candidate[] } | { readonly refused: Refusal }

const still: Clock = { nowMs: () => 0, epochMs: () => 0, setTimer: () => ({ cancel: () => undefined }) }

/** Repeatable chance. */
function seededRandom(): Random {
  let state = 1
  const word = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state
  }
  return { float: () => word() / 2 ** 32, u64: () => [word(), word()] }
}

/** `wire_name` to `wireName`. */
const overrideOf = (fields: Readonly<Record<string, unknown>>): RouterConfigOverride =>
  Object.fromEntries(Object.entries(fields).map(([name, value]) => [name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase()), value]))

const statusOf = ({ reason }: Refusal): number =>
  reason === 'all-overloaded' || reason === 'pinned-overloaded' ? 429 : reason === 'duplicate-request' ? 409
    : reason === 'pinned-not-allowed' || reason === 'invalid-override' ? 400 : 503

/** One model in one routing group. */
export class SelectionService {
  readonly router: KvRouter
  readonly #model: string
  readonly #endpoints = new Map<bigint, string | undefined>()
  #previews = 0

  constructor(settings: RouterSettings, model: string) {
    this.router = new KvRouter(settings, { clock: still, random: seededRandom() })
    this.#model = model
  }

  addWorker(body: WorkerBody): Answer {
    const worker: WorkerDescription = {
      workerId: BigInt(body.worker_id),
      dpStart: body.data_parallel_start_rank ?? 0, dpSize: body.data_parallel_size ?? 1,
      totalKvBlocks: body.total_kv_blocks ?? null, maxNumBatchedTokens: body.max_num_batched_tokens ?? null,
      taints: body.taints ?? [], topologyDomains: new Map(Object.entries(body.topology_domains ?? {})),
    }
    this.router.upsertWorker(worker)
    this.#endpoints.set(worker.workerId, body.endpoint)
    return {
      status: 201,
      body: {
        routing_group: 'default', lifecycle: 'schedulable', kv_events_endpoint: null, replay_endpoint: null,
        data_parallel_start_rank: null, data_parallel_size: null, max_num_batched_tokens: null, total_kv_blocks: null,
        stable_routing_id: null, is_eagle: null, topology_domains: {}, kv_transfer_domain: null, kv_transfer_enforcement: null,
        kv_transfer_preferred_weight: null, ...body, taints: [...(body.taints ?? [])].sort(),
      },
    }
  }

  /** Chooses without booking. An affinity target counts when it may be taken, with the builtin cost only. */
  preview(body: PromptBody): Preview {
    const request = this.#request(body)
    const target = body.affinity_target
    const isSteered = this.router.settings.selectionPolicy?.type !== 'dynamo-two-tier-cost-fn'
    if (isSteered && target !== undefined && request.pin === undefined) {
      const workerId = BigInt(target.worker_id)
      const isAllowed = request.allowedWorkerIds?.has(workerId) ?? true
      const steered = isAllowed ? this.#preview({
        ...request, allowedWorkerIds: new Set([workerId]), ...(target.dp_rank === null ? {} : { dpRank: target.dp_rank }),
      }) : undefined
      if (steered !== undefined && 'decision' in steered) return steered
    }
    return this.#preview(request)
  }

  #preview(request: RoutingRequest): Preview {
    const decision = this.router.select(request)
    return decision.kind === 'refused' ? { refused: decision } : { decision, candidates: decision.explain().candidates }
  }

  /** The answer for a request that goes to `chosen`, one of the acceptable ranks; books it when `reserve`. */
  answer(body: PromptBody, chosen: Candidate, reserve: boolean): Answer {
    const request = this.#request(body)
    const { blockSize } = this.router.settings
    const isl = body.token_ids.length
    const trackPrefill = body.router_config_override?.track_prefill_tokens ?? this.router.settings.trackPrefillTokens
    const worker = this.router.worker(chosen.workerId)!
    const local = localBlockHashes(request.tokens, this.#hashOptions(body))
    const tracked = this.router.settings.trackActiveBlocks ? hashCount(local) : 0
    const reservation = reserve ? {
      selection_id: body.selection_id,
      sequence_hashes: hashesToBigints(sequenceHashes(local)).map((hash) => BigInt.asIntN(64, hash)),
      isl_tokens: isl,
      track_prefill_tokens: trackPrefill,
    } : {}
    const load = body.advisory === true ? {
      worker_load: {
        active_prefill_tokens: chosen.activePrefillTokens,
        prefill_token_capacity: worker.maxNumBatchedTokens ?? 10_000_000,
        ...(worker.totalKvBlocks === null ? {} : { total_kv_blocks: worker.totalKvBlocks }),
      },
    } : {}
    const answer = {
      ...reservation,
      model_name: body.model_name, routing_group: body.routing_group ?? 'default',
      worker_id: chosen.workerId, dp_rank: chosen.dpRank, endpoint: this.#endpoints.get(chosen.workerId), block_size: blockSize,
      overlap: this.#overlapOf(body, chosen.workerId),
      effective_prefill_tokens: isl - Math.min(chosen.cachedTokens, isl),
      potential_decode_blocks: chosen.potentialDecodeBlocks + Math.max(0, Math.ceil(isl / blockSize) - tracked),
      ...load,
    }
    if (!reserve) return { status: 200, body: answer }
    const decision = this.router.route({ ...request, requestId: body.selection_id ?? '', pin: { workerId: chosen.workerId, dpRank: chosen.dpRank } })
    return decision.kind === 'refused' ? this.refusal(decision) : { status: 200, body: answer }
  }

  /** The service's answer to a refusal: Dynamo's part of the text. */
  refusal(refused: Refusal): Answer {
    const text = refused.reason.startsWith('pinned-not') ? refused.message : refused.message.replace(/:.*/, '')
    return { status: statusOf(refused), body: { error: refused.reason === 'pinned-unknown' ? 'no endpoints available to route work' : text } }
  }

  potentialLoads(body: PromptBody): Answer {
    const preview = this.preview(body)
    if ('refused' in preview) return { status: 200, body: [] }
    const { trackPrefillTokens } = preview.decision
    const isl = body.token_ids.length
    return {
      status: 200,
      body: preview.candidates.map((row) => ({
        worker_id: row.workerId, dp_rank: row.dpRank,
        potential_prefill_tokens: row.activePrefillTokens + (trackPrefillTokens ? isl - Math.min(row.cachedTokens, isl) : 0),
        potential_decode_blocks: row.potentialDecodeBlocks, active_requests: row.activeRequests,
      })),
    }
  }

  loads(): Answer {
    const loads = this.router.loads().map((row) => ({
      worker_id: row.workerId, dp_rank: row.dpRank, potential_prefill_tokens: row.activePrefillTokens,
      potential_decode_blocks: row.activeDecodeBlocks, active_requests: row.activeRequests,
    }))
    return { status: 200, body: [{ model_name: this.#model, routing_group: 'default', loads, pending_count: 0, pending_isl_tokens: 0 }] }
  }

  overlapScores(body: PromptBody): Answer {
    const report = this.router.overlap(this.#request(body))
    const workers: Rows = report.rows.map((row) => ({
      worker_id: row.workerId, dp_rank: row.dpRank, device_blocks: row.deviceBlocks,
      host_pinned_blocks: row.deviceBlocks + row.hostExtensionBlocks,
      disk_blocks: row.deviceBlocks + row.hostExtensionBlocks + row.diskExtensionBlocks,
      host_pinned_extension_blocks: row.hostExtensionBlocks, disk_extension_blocks: row.diskExtensionBlocks,
      shared_beyond_device_blocks: null,
    }))
    const shared_cache = { enabled: false, total_hit_blocks: 0, ranges: [], error: null }
    return { status: 200, body: { block_size: report.blockSize, num_blocks: report.blockCount, workers, shared_cache } }
  }

  reservation(id: string, action: 'free' | 'prefill_complete' | 'output_block', decayFraction: number | null): Answer {
    const found = action === 'free' ? this.router.free(id)
      : action === 'prefill_complete' ? this.router.prefillCompleted(id) : this.router.outputBlock(id, decayFraction)
    return found ? { status: 200, body: { status: 'ok' } } : { status: 404, body: { error: `reservation ${id} not found` } }
  }

  #overlapOf(body: PromptBody, workerId: bigint): Readonly<Record<string, unknown>> {
    const { blockSize, rows } = this.router.overlap(this.#request(body))
    const own = rows.filter((row) => row.workerId === workerId)
    const best = (blocks: (row: (typeof own)[number]) => number): number => blockSize * Math.max(...own.map(blocks))
    const disk = best((row) => row.deviceBlocks + row.hostExtensionBlocks + row.diskExtensionBlocks)
    return {
      longest_matched: disk,
      gpu: best((row) => row.deviceBlocks),
      dp: Object.fromEntries(own.map((row) => [row.dpRank, blockSize * row.deviceBlocks])),
      cpu: best((row) => row.deviceBlocks + row.hostExtensionBlocks),
      disk,
    }
  }

  #hashOptions(body: PromptBody) {
    const { blockSize, isEagle } = this.router.settings
    return { blockSize, isEagle, loraName: body.lora_name, cacheNamespace: body.cache_salt }
  }

  #request(body: PromptBody): RoutingRequest {
    const { pinned_worker: pin, routing_constraints: constraints } = body
    this.#previews += 1
    return {
      requestId: `preview-${this.#previews}`,
      model: body.model_name,
      tokens: Uint32Array.from(body.token_ids),
      ...(body.lora_name === undefined ? {} : { loraName: body.lora_name }),
      ...(body.cache_salt === undefined ? {} : { cacheNamespace: body.cache_salt }),
      ...(pin === undefined ? {} : { pin: { workerId: BigInt(pin.worker_id), dpRank: pin.dp_rank } }),
      ...(body.allowed_worker_ids === undefined ? {} : { allowedWorkerIds: new Set(body.allowed_worker_ids.map(BigInt)) }),
      ...(constraints?.required_taints === undefined ? {} : { requiredTaints: constraints.required_taints }),
      ...(constraints?.preferred_taints === undefined ? {} : { preferredTaints: new Map(Object.entries(constraints.preferred_taints).map(([taint, weight]) => [taint, Math.fround(weight)])) }),
      ...(body.router_config_override === undefined ? {} : { override: overrideOf(body.router_config_override) }),
      ...(body.expected_output_tokens === undefined ? {} : { expectedOutputTokens: body.expected_output_tokens }),
    }
  }
}

export const rankKey = (rank: WorkerRank | RankField): string =>
  'workerId' in rank ? `${rank.workerId}.${rank.dpRank}` : `${rank.worker_id}.${rank.dp_rank}`
