/** Refusals as values: Dynamo's words first, then what helps. Source: behaviour of the standalone router, router-algorithm 9.5. */
import type { Exclusion, QueueLimit, Refusal, RefusalReason } from '../model/decision.ts'
import type { RoutingRequest } from '../model/routing-request.ts'
import type { WorkerRank } from '../model/worker.ts'
import type { WorkerRecord } from './worker-directory.ts'

/** Dynamo's text for a request that no worker may take. */
export const noEndpointsText = 'no endpoints available to route work'
/** Dynamo's text for a request whose every worker is above a busy threshold. */
export const allOverloadedText = 'all eligible workers are overloaded'

const noExclusions: readonly Exclusion[] = []

export const refusal = (
  request: RoutingRequest, reason: RefusalReason, message: string, exclusions: readonly Exclusion[] = noExclusions,
): Refusal => ({ kind: 'refused', requestId: request.requestId, reason, message, exclusions })

/** Counts of exclusions by reason, the first taint or rank named: `2 not-allowed, 1 missing-taint (zone=a)`. */
function summary(exclusions: readonly Exclusion[]): string {
  const counts = new Map<string, { count: number; detail: string | undefined }>()
  for (const { reason, detail } of exclusions) {
    const entry = counts.get(reason)
    if (entry === undefined) counts.set(reason, { count: 1, detail })
    else entry.count += 1
  }
  return [...counts].map(([reason, { count, detail }]) => `${count} ${reason}${detail === undefined ? '' : ` (${detail})`}`).join(', ')
}

export const noWorkers = (request: RoutingRequest): Refusal =>
  refusal(request, 'no-workers', `${noEndpointsText}: no worker is registered`)

export const noneEligible = (request: RoutingRequest, exclusions: readonly Exclusion[]): Refusal =>
  refusal(request, 'none-eligible', exclusions.length === 0 ? noEndpointsText : `${noEndpointsText}: ${summary(exclusions)}`, exclusions)

export const allOverloaded = (request: RoutingRequest, exclusions: readonly Exclusion[]): Refusal =>
  refusal(request, 'all-overloaded', `${allOverloadedText}: ${summary(exclusions)}`, exclusions)

export const pinMissing = (request: RoutingRequest): Refusal =>
  refusal(request, 'pinned-unknown', 'direct routing needs the worker in the request: give decode_worker_id (and prefill_worker_id where prompts are computed elsewhere), or use another --router-mode')

export const pinnedUnknown = (request: RoutingRequest, workerId: bigint): Refusal =>
  refusal(request, 'pinned-unknown', `nvext.backend_instance_id=${workerId} does not identify a known worker`)

export const pinnedNotAllowed = (request: RoutingRequest, workerId: bigint): Refusal =>
  refusal(request, 'pinned-not-allowed', `pinned worker ${workerId} is not in allowed worker set`, [
    { workerId, dpRank: null, reason: 'not-allowed' },
  ])

export function pinnedRankMissing(request: RoutingRequest, worker: WorkerRecord): Refusal {
  const end = worker.dpStart + worker.slots.length
  return refusal(
    request, 'pinned-rank',
    `Pinned worker ${worker.workerId} requires an explicit dp_rank because it has multiple or unknown DP ranks: ` +
      `give dp_rank in [${worker.dpStart}, ${end})`,
  )
}

export function pinnedRankOutside(request: RoutingRequest, worker: WorkerRecord, dpRank: number): Refusal {
  const { workerId, dpStart } = worker
  return refusal(
    request, 'pinned-rank',
    `Pinned worker ${workerId} dp_rank ${dpRank} is not eligible: worker ${workerId} dp_rank ${dpRank} is outside ` +
      `[${dpStart}, ${dpStart + worker.slots.length})`,
  )
}

export const pinnedSetAside = (request: RoutingRequest, workerId: bigint): Refusal =>
  refusal(request, 'pinned-set-aside', `pinned worker ${workerId} is set aside after a failure: retry later, or without the pin`, [
    { workerId, dpRank: null, reason: 'set-aside' },
  ])

export const pinnedOverloaded = (request: RoutingRequest, workerId: bigint): Refusal =>
  refusal(request, 'pinned-overloaded', `${allOverloadedText}: pinned worker ${workerId} is above its busy threshold`, [
    { workerId, dpRank: null, reason: 'overloaded' },
  ])

/** Dynamo's text for a request id that is still booked. */
export const duplicateRequest = (request: RoutingRequest, rank: WorkerRank): Refusal =>
  refusal(
    request, 'duplicate-request',
    `Request ${request.requestId} already exists (assigned to worker WorkerWithDpRank { worker_id: ${rank.workerId}, dp_rank: ${rank.dpRank} })`,
  )

export const nonFiniteCost = (request: RoutingRequest, rank: WorkerRank, cost: number): Refusal =>
  refusal(
    request, 'non-finite-cost',
    `worker ${rank.workerId} dp_rank ${rank.dpRank} has cost ${cost}: the score weights or taint weights are too large`,
  )

/** Dynamo's text for a class that may not hold more. */
export const queueLimitReached = (request: RoutingRequest, policyClass: string, { kind, current, limit }: Omit<QueueLimit, 'policyClass'>): Refusal => ({
  ...refusal(request, 'queue-limit', `router policy class "${policyClass}" queue ${kind} limit reached (current=${current}, limit=${limit})`),
  queueLimit: { policyClass, kind, current, limit },
})

export const queueFull = (request: RoutingRequest, parkedMax: number): Refusal =>
  refusal(request, 'queue-full', `the router's queue holds ${parkedMax} requests, its limit; try again later, or add workers`)

/** `limitMs` null: the request's own deadline. */
export const queueTimeout = (request: RoutingRequest, waitedMs: number, limitMs: number | null): Refusal =>
  refusal(
    request, 'queue-timeout',
    `no worker had room within ${(waitedMs / 1000).toFixed(1)} s in the router's queue (${limitMs === null ? "the request's deadline" : `--router-queue-timeout ${limitMs / 1000}`})`,
  )

export const queueClosed = (request: RoutingRequest): Refusal =>
  refusal(request, 'queue-closed', 'no worker has room, and the router waits for none any more (it is shutting down or its workers have changed): ask another router, or try again')
