/** The caller's own choice of worker: checked, not scored. Source: router-algorithm 9.5, behaviour of the standalone router. */
import type { Refusal } from '../model/decision.ts'
import type { RoutingRequest } from '../model/routing-request.ts'
import type { RankSlot } from '../model/worker.ts'
import { missingTaint } from '../scheduling/eligibility.ts'
import type { OverloadTest } from '../scheduling/eligibility.ts'
import {
  noneEligible, pinnedNotAllowed, pinnedOverloaded, pinnedRankMissing, pinnedRankOutside, pinnedSetAside, pinnedUnknown,
} from './refusals.ts'
import type { WorkerDirectory } from './worker-directory.ts'

/** The slot that a request's pin names, or why it cannot be taken. A pin without rank means the worker's only one. */
export function resolvePin(directory: WorkerDirectory, request: RoutingRequest, overload: OverloadTest | null): RankSlot | Refusal {
  const { workerId, dpRank } = request.pin!
  const worker = directory.get(workerId)
  if (worker === undefined) return pinnedUnknown(request, workerId)
  if (request.allowedWorkerIds !== undefined && !request.allowedWorkerIds.has(workerId)) return pinnedNotAllowed(request, workerId)
  const rank = dpRank ?? (worker.slots.length === 1 ? worker.dpStart : null)
  if (rank === null) return pinnedRankMissing(request, worker)
  const slot = worker.slots[rank - worker.dpStart]
  if (slot === undefined) return pinnedRankOutside(request, worker, rank)
  if (request.excludedWorkerIds?.has(workerId) === true) return pinnedSetAside(request, workerId)
  if (overload?.(worker) === true) return pinnedOverloaded(request, workerId)
  const taint = missingTaint(worker, request)
  if (taint !== undefined) return noneEligible(request, [{ workerId, dpRank: null, reason: 'missing-taint', detail: taint }])
  return slot
}
