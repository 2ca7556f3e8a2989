/** One selection: from a checked body to the worker, with or without a booking. Source: router-algorithm 16.1. */
import type { AffinityTarget } from '../../affinity/affinity-table.ts'
import type { Decision, OnDecided, Refusal } from '../../model/decision.ts'
import type { HashedPrompt, RoutingRequest } from '../../model/routing-request.ts'
import type { WorkerDescription } from '../../model/worker.ts'
import type { OverlapRow } from '../../router/contract.ts'
import type { Partition } from './partition.ts'
import type { SelectBody } from './select-body.ts'
import { CallerGone } from './session-steering.ts'

/** `select` waits its turn and changes nothing, `advise` does not wait either, `book` books. */
export type SelectionKind = 'select' | 'advise' | 'book'

/** What a selection found. */
export interface Selected {
  readonly decision: Decision
  readonly prompt: HashedPrompt
  /** Overlap of the chosen worker's ranks, as it was when the worker was chosen. */
  readonly overlap: readonly OverlapRow[]
}

const noTokens = new Uint32Array(0)

/** The request that a body makes. */
export function routingRequestOf(
  body: SelectBody, prompt: HashedPrompt, requestId: string, policyClass: string | null, affinity: AffinityTarget | null,
): RoutingRequest {
  const { pinned, allowedWorkerIds, override, expectedOutputTokens } = body
  const { loraName, cacheSalt } = body.prompt
  return {
    requestId, model: body.key.model, tokens: noTokens, hashed: prompt,
    ...(loraName === null ? {} : { loraName }), ...(cacheSalt === null ? {} : { cacheNamespace: cacheSalt }),
    ...(pinned === null ? {} : { pin: pinned }), ...(affinity === null ? {} : { affinity }), ...(allowedWorkerIds === null ? {} : { allowedWorkerIds }),
    ...(body.requiredTaints.length === 0 ? {} : { requiredTaints: body.requiredTaints }),
    ...(body.preferredTaints.size === 0 ? {} : { preferredTaints: body.preferredTaints }),
    ...(override === null ? {} : { override }), ...(expectedOutputTokens === null ? {} : { expectedOutputTokens }),
    priorityJumpSeconds: body.priorityJump, strictPriority: body.strictPriority, ...(policyClass === null ? {} : { policyClass }),
  }
}

/** Chooses, at once or when it is the request's turn. Errors: `CallerGone`. */
export function choose(
  { router }: Partition, request: RoutingRequest, kind: SelectionKind, signal: AbortSignal | undefined,
): Selected | Refusal | Promise<Selected | Refusal> {
  const prompt = request.hashed!
  const query = { tokens: noTokens, local: prompt.local }
  // A booking's own blocks are assumed later: what is looked up here is what the choice saw.
  const found = (answer: Decision | Refusal, kept: readonly OverlapRow[] | null): Selected | Refusal =>
    answer.kind === 'refused' ? answer : { decision: answer, prompt, overlap: kept ?? router.overlap({ ...query, workerId: answer.workerId }).rows }
  if (kind === 'advise') return found(router.select(request), null)
  const waiting: { settle: OnDecided | null } = { settle: null }
  const answer = router.submit(request, (decided, keepsOverlap) => waiting.settle?.(decided, keepsOverlap), kind === 'book')
  if (answer.kind !== 'parked') return found(answer, null)
  const { rows } = router.overlap(query)
  return new Promise((resolve, reject) => {
    const leave = (): void => {
      answer.cancel()
      reject(new CallerGone())
    }
    waiting.settle = (decided, keepsOverlap) => {
      signal?.removeEventListener('abort', leave)
      resolve(found(decided, keepsOverlap === true && decided.kind === 'chosen' ? keptRows(rows, router.worker(decided.workerId)) : null))
    }
    if (signal?.aborted === true) leave()
    else signal?.addEventListener('abort', leave, { once: true })
  })
}

/** What was found on arrival, for the ranks that the worker has now. */
function keptRows(rows: readonly OverlapRow[], worker: WorkerDescription | undefined): readonly OverlapRow[] {
  if (worker === undefined) return []
  const { workerId, dpStart, dpSize } = worker
  return Array.from({ length: dpSize }, (_, index) => {
    const dpRank = dpStart + index
    return rows.find((row) => row.workerId === workerId && row.dpRank === dpRank) ??
      { workerId, dpRank, deviceBlocks: 0, hostExtensionBlocks: 0, diskExtensionBlocks: 0 }
  })
}
