/** The caller's own choice of worker: checked, not scored. Source: router-algorithm 9.5, behaviour of the standalone router. */
import type { Refusal } from '../model/decision.ts'
import type { RoutingRequest } from '../model/routing-request.ts'
import type { RankSlot } from '../model/worker.ts'
import { missingTaint } from '../scheduling/eligibility.ts'
import type { OverloadTest } from '../scheduling/eligibility.ts'
import {
  noneEligible, pinnedNotAllowed, pinnedOverloaded, pinnedRankMissing, pinnedRankOutside, pinnedSetAside, pinnedUnknown,
} from './refusals.ts'
import type { Selection } from '../scheduling/selection.ts'
import type { WorkerDirectory } from './worker-directory.ts'

/** A pin that contradicts the request's own list of workers; null: it does not. */
export const pinNotAllowed = (request: RoutingRequest): Refusal | null =>
  request.allowedWorkerIds === undefined || request.allowedWorkerIds.has(request.pin!.workerId) ? null : pinnedNotAllowed(request, request.pin!.workerId)

/** Puts what a request's pin names among the candidates, or says why it cannot be taken. `anyRank`: without a rank, all of the worker's. */
export function collectPinned(selection: Selection, directory: WorkerDirectory, request: RoutingRequest, overload: OverloadTest | null, anyRank: boolean): Refusal | null {
  const { workerId, dpRank } = request.pin!
  const pinned = resolvePin(directory, request, overload, anyRank)
  if (typeof pinned !== 'number') {
    selection.table.count = 0
    return pinned
  }
  if (dpRank !== null || !anyRank) selection.collectOne(pinned)
  else selection.collect(directory.ordered, directory.slots, { ...request, allowedWorkerIds: new Set([workerId]) }, overload)
  return null
}

/** The slot that a pin names, or why it cannot be taken. A pin without rank means the worker's only one, or, with `anyRank`, its first. */
function resolvePin(directory: WorkerDirectory, request: RoutingRequest, overload: OverloadTest | null, anyRank: boolean): RankSlot | Refusal {
  const { workerId, dpRank } = request.pin!
  const worker = directory.get(workerId)
  if (worker === undefined) return pinnedUnknown(request, workerId)
  const notAllowed = pinNotAllowed(request)
  if (notAllowed !== null) return notAllowed
  const rank = dpRank ?? (worker.slots.length === 1 || anyRank ? worker.dpStart : null)
  if (rank === null) return pinnedRankMissing(request, worker)
  const slot = worker.slots[rank - worker.dpStart]
  if (slot === undefined) return pinnedRankOutside(request, worker, rank)
  if (request.excludedWorkerIds?.has(workerId) === true) return pinnedSetAside(request, workerId)
  if (overload?.(worker) === true) return pinnedOverloaded(request, workerId)
  const taint = missingTaint(worker, request)
  if (taint !== undefined) return noneEligible(request, [{ workerId, dpRank: null, reason: 'missing-taint', detail: taint }])
  return slot
}
