/** One selection: from a checked body to the worker, with or without a booking. Source: router-algorithm 16.1. */
import type { AffinityTarget } from '../../affinity/affinity-table.ts'
import type { Decision, Refusal } from '../../model/decision.ts'
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
export function routingRequestOf(body: SelectBody, prompt: HashedPrompt, requestId: string, policyClass: string | null): RoutingRequest {
  const { pinned, allowedWorkerIds, override, expectedOutputTokens } = body
  const { loraName, cacheSalt } = body.prompt
  return {
    requestId, model: body.key.model, tokens: noTokens, hashed: prompt,
    ...(loraName === null ? {} : { loraName }), ...(cacheSalt === null ? {} : { cacheNamespace: cacheSalt }),
    ...(pinned === null ? {} : { pin: pinned }), ...(allowedWorkerIds === null ? {} : { allowedWorkerIds }),
    ...(body.requiredTaints.length === 0 ? {} : { requiredTaints: body.requiredTaints }),
    ...(body.preferredTaints.size === 0 ? {} : { preferredTaints: body.preferredTaints }),
    ...(override === null ? {} : { override }), ...(expectedOutputTokens === null ? {} : { expectedOutputTokens }),
    priorityJumpSeconds: body.priorityJump, strictPriority: body.strictPriority, ...(policyClass === null ? {} : { policyClass }),
  }
}

/** A rank that no worker has. */
const noRank = 0xffff_ffff

/**
 * The request with its affinity: to the target alone where that may be chosen, so that a pin elsewhere cannot be served. Named policies are
 * not bound by it.
 */
export function steered({ router }: Partition, request: RoutingRequest, target: AffinityTarget | null): RoutingRequest {
  if (target === null || router.settings.selectionPolicy?.type === 'dynamo-two-tier-cost-fn') return request
  const { workerId, dpRank } = target
  if (request.allowedWorkerIds?.has(workerId) === false || !mayServe(router.worker(workerId), request, dpRank)) return request
  const there: RoutingRequest = { ...request, allowedWorkerIds: new Set([workerId]), ...(dpRank === null ? {} : { dpRank }) }
  const { pin } = request
  return pin?.workerId === workerId && dpRank !== null && pin.dpRank !== dpRank ? { ...there, pin: { workerId, dpRank: noRank } } : there
}

function mayServe(worker: WorkerDescription | undefined, { requiredTaints = [] }: RoutingRequest, dpRank: number | null): boolean {
  if (worker === undefined || (dpRank !== null && (dpRank < worker.dpStart || dpRank >= worker.dpStart + worker.dpSize))) return false
  return requiredTaints.every((taint) => worker.taints.includes(taint))
}

/** Chooses, at once or when it is the request's turn. Errors: `CallerGone`. */
export function choose(
  partition: Partition, request: RoutingRequest, kind: SelectionKind, signal: AbortSignal | undefined,
): Selected | Refusal | Promise<Selected | Refusal> {
  const { router } = partition
  const prompt = request.hashed!
  const query = { tokens: noTokens, local: prompt.local }
  // A booking may add to what is assumed, and what waits is judged by what it found on arrival.
  const before = kind === 'book' && (partition.assumesBlocks || router.settings.queue !== undefined) ? router.overlap(query).rows : null
  const found = (answer: Decision | Refusal): Selected | Refusal => {
    if (answer.kind === 'refused') return answer
    const overlap = before?.filter(({ workerId }) => workerId === answer.workerId) ?? router.overlap({ ...query, workerId: answer.workerId }).rows
    return { decision: answer, prompt, overlap }
  }
  if (kind === 'advise') return found(router.select(request))
  const waiting: { settle: ((answer: Decision | Refusal) => void) | null } = { settle: null }
  const answer = router.submit(request, (decided) => waiting.settle?.(decided), kind === 'book')
  if (answer.kind !== 'parked') return found(answer)
  return new Promise((resolve, reject) => {
    const leave = (): void => {
      answer.cancel()
      reject(new CallerGone())
    }
    waiting.settle = (decided) => {
      signal?.removeEventListener('abort', leave)
      resolve(found(decided))
    }
    if (signal?.aborted === true) leave()
    else signal?.addEventListener('abort', leave, { once: true })
  })
}
