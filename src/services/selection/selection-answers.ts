/** Answers of the selection service, field by field. Source: router-algorithm 16.1. */
import type { Refusal } from '../../model/decision.ts'
import { hashCount, hashesToBigints } from '../../model/hash-list.ts'
import { defaultPrefillTokenCapacity } from '../../load/overload-monitor.ts'
import type { OverlapRow } from '../../router/contract.ts'
import { noEndpointsText, allOverloadedText } from '../../router/refusals.ts'
import { failure, type Answer } from '../answer.ts'
import type { WorkerRecord } from './worker-record.ts'
import type { SelectionKind, Selected } from './selector.ts'

/** Shares beyond which a worker counts as busy in answers; null: not told. */
export interface BusyShares {
  readonly decode: number | null
  readonly prefill: number | null
}

/** Prompt tokens that are not cached, whether they are tracked or not. */
export const effectiveTokens = ({ decision: { cachedTokens, promptTokens } }: Selected): number => promptTokens - Math.min(cachedTokens, promptTokens)

/** Tokens per tier of one worker: largest over its ranks, tiers cumulative. */
export function overlapJson(rows: readonly OverlapRow[], blockSize: number): Readonly<Record<string, unknown>> {
  const best = (blocks: (row: OverlapRow) => number): number => blockSize * rows.reduce((most, row) => Math.max(most, blocks(row)), 0)
  const disk = best((row) => row.deviceBlocks + row.hostExtensionBlocks + row.diskExtensionBlocks)
  return {
    longest_matched: disk, gpu: best((row) => row.deviceBlocks),
    dp: Object.fromEntries(rows.map((row) => [row.dpRank, blockSize * row.deviceBlocks])),
    cpu: best((row) => row.deviceBlocks + row.hostExtensionBlocks), disk,
  }
}

export interface SelectionContext {
  readonly kind: SelectionKind
  readonly selectionId: string | null
  readonly record: WorkerRecord
  readonly blockSize: number
  readonly busy: BusyShares
  /** Where more of the prompt can be fetched from; null: not told. */
  readonly hint: Readonly<Record<string, unknown>> | null
}

export function selectionJson(selected: Selected, { kind, selectionId, record, blockSize, busy, hint }: SelectionContext): Readonly<Record<string, unknown>> {
  const { decision, prompt, overlap } = selected
  const { tracking } = prompt
  const tracked = tracking === null ? 0 : hashCount(tracking)
  // The partial last block counts here, unlike in the cost.
  const decodeBlocks = decision.potentialDecodeBlocks + Math.max(0, Math.ceil(prompt.promptTokens / blockSize) - tracked)
  return {
    ...(selectionId === null ? {} : { selection_id: selectionId }),
    ...(kind !== 'book' ? {} : {
      sequence_hashes: tracking === null ? [] : hashesToBigints(tracking).map((hash) => BigInt.asIntN(64, hash)),
      isl_tokens: prompt.promptTokens, track_prefill_tokens: decision.trackPrefillTokens,
    }),
    model_name: record.key.model, routing_group: record.key.group, worker_id: decision.workerId, dp_rank: decision.dpRank,
    endpoint: record.endpoint, block_size: blockSize, overlap: overlapJson(overlap, blockSize),
    effective_prefill_tokens: effectiveTokens(selected), potential_decode_blocks: decodeBlocks,
    ...(busy.decode === null || record.totalKvBlocks === null ? {} : { decode_busy: decodeBlocks > busy.decode * record.totalKvBlocks }),
    ...(hint === null ? {} : { kv_hint: hint }),
    ...(kind === 'advise' ? { worker_load: workerLoadJson(decision.activePrefillTokens, record, busy) } : {}),
  }
}

function workerLoadJson(activePrefillTokens: number, record: WorkerRecord, { prefill }: BusyShares): Readonly<Record<string, unknown>> {
  const capacity = record.maxNumBatchedTokens ?? defaultPrefillTokenCapacity
  return {
    active_prefill_tokens: activePrefillTokens, prefill_token_capacity: capacity,
    ...(record.totalKvBlocks === null ? {} : { total_kv_blocks: record.totalKvBlocks }),
    ...(prefill === null ? {} : { prefill_busy: activePrefillTokens > prefill * capacity }),
  }
}

/** The answer to a refusal: the original's words alone where it has some. */
export function refusalAnswer(refused: Refusal): Answer {
  const { reason, message, queueLimit } = refused
  switch (reason) {
    case 'no-workers': case 'none-eligible': case 'pinned-unknown': case 'pinned-rank': case 'pinned-set-aside': return failure(503, noEndpointsText)
    case 'pinned-not-allowed': return failure(400, message)
    case 'all-overloaded': return failure(429, allOverloadedText)
    case 'duplicate-request': case 'session-conflict': return failure(409, message)
    case 'invalid-override': return failure(422, message)
    case 'non-finite-cost': return failure(500, message)
    case 'queue-closed': return failure(503, message)
    case 'queue-limit': return {
      status: 429,
      body: {
        error: message,
        details: queueLimit === undefined ? {} : { policy_class: queueLimit.policyClass, limit_kind: queueLimit.kind, current: queueLimit.current, limit: queueLimit.limit },
      },
    }
    case 'pinned-overloaded': case 'queue-full': case 'queue-timeout': return failure(429, message)
  }
}
