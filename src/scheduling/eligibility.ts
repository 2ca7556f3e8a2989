/** Who may take a request, and why others may not. Source: router-algorithm 9.5. */
import type { Exclusion, ExclusionReason } from '../model/decision.ts'
import type { RoutingRequest } from '../model/routing-request.ts'
import type { RankSlot, WorkerId } from '../model/worker.ts'

/** What eligibility needs of a worker. */
export interface SchedulableWorker {
  readonly workerId: WorkerId
  readonly dpStart: number
  /** Slot of rank `dpStart + index`. */
  readonly slots: readonly RankSlot[]
  /** The worker's taints and its generated topology taints. */
  readonly taints: ReadonlySet<string>
  readonly loraNames: ReadonlySet<string>
}

/** Whether all ranks of a worker are above a busy threshold. */
export type OverloadTest = (worker: SchedulableWorker) => boolean

/** The taint that stands for a worker's place: `dynamo.topology/<domain>=<value>`. */
export const topologyTaint = (domain: string, value: string): string => `dynamo.topology/${domain}=${value}`

/** Whether a request names any condition that depends on the worker. */
export const hasConditions = (request: RoutingRequest): boolean =>
  request.allowedWorkerIds !== undefined ||
  (request.excludedWorkerIds !== undefined && request.excludedWorkerIds.size > 0) ||
  (request.requiredTaints !== undefined && request.requiredTaints.length > 0) ||
  request.dpRank !== undefined ||
  (request.loraName !== undefined && request.loraName !== '')

/** Whether a request would rather not go to some workers. */
export const isAvoiding = (request: RoutingRequest): boolean => request.avoidedWorkerIds !== undefined && request.avoidedWorkerIds.size > 0

/** The request with the avoided workers excluded; itself when there are none. */
export const preferringOthers = (request: RoutingRequest): RoutingRequest =>
  isAvoiding(request) ? { ...request, excludedWorkerIds: new Set([...request.avoidedWorkerIds!, ...(request.excludedWorkerIds ?? [])]) } : request

/** The first taint asked for that the worker lacks, or undefined. */
export function missingTaint(worker: SchedulableWorker, request: RoutingRequest): string | undefined {
  return request.requiredTaints?.find((taint) => !worker.taints.has(taint))
}

/** Why a worker as a whole may not take the request, or null. `overload` null: overload does not count. */
export function workerExclusion(worker: SchedulableWorker, request: RoutingRequest, overload: OverloadTest | null): ExclusionReason | null {
  if (request.allowedWorkerIds !== undefined && !request.allowedWorkerIds.has(worker.workerId)) return 'not-allowed'
  if (request.excludedWorkerIds?.has(worker.workerId) === true) return 'set-aside'
  if (overload?.(worker) === true) return 'overloaded'
  if (missingTaint(worker, request) !== undefined) return 'missing-taint'
  return null
}

/** Whether a rank is one that the request asks for. */
export const isRankAsked = (dpRank: number, request: RoutingRequest): boolean => request.dpRank === undefined || request.dpRank === dpRank

/**
 * Factor on the cost for taints that a request would like: below 1 for liked, above 1 for disliked ones.
 * Cost: one look-up per preferred taint.
 */
export function taintFactor(worker: SchedulableWorker, preferred: ReadonlyMap<string, number>): number {
  let sum = 0
  let matched = false
  for (const [taint, weight] of preferred) {
    if (!worker.taints.has(taint)) continue
    sum += weight
    matched = true
  }
  return matched ? Math.exp(-Math.tanh(sum)) : 1
}

/** All exclusions of a request among the workers, one per worker or rank; made for refusals and explanations. */
export function listExclusions(
  workers: Iterable<SchedulableWorker>, request: RoutingRequest, overload: OverloadTest | null,
): Exclusion[] {
  const exclusions: Exclusion[] = []
  for (const worker of workers) {
    const reason = workerExclusion(worker, request, overload)
    if (reason !== null) {
      const taint = reason === 'missing-taint' ? missingTaint(worker, request) : undefined
      exclusions.push({ workerId: worker.workerId, dpRank: null, reason, ...(taint === undefined ? {} : { detail: taint }) })
      continue
    }
    for (let index = 0; index < worker.slots.length; index++) {
      const dpRank = worker.dpStart + index
      if (isRankAsked(dpRank, request)) continue
      exclusions.push({ workerId: worker.workerId, dpRank, reason: 'rank-not-asked', detail: `dp_rank ${request.dpRank}` })
    }
  }
  return exclusions
}
