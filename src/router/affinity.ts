/** A request that belongs somewhere, at the moment when its worker is chosen. Source: router-algorithm 9.5. */
import type { RoutingRequest } from '../model/routing-request.ts'
import type { RankSlot } from '../model/worker.ts'
import { missingTaint } from '../scheduling/eligibility.ts'
import type { WorkerDirectory } from './worker-directory.ts'

type Affinity = NonNullable<RoutingRequest['affinity']>

/** The ranks where a request belongs. */
export function affinitySlots(directory: WorkerDirectory, { workerId, dpRank }: Affinity): readonly RankSlot[] {
  const worker = directory.get(workerId)
  if (worker === undefined || dpRank === null) return worker?.slots ?? []
  const slot = worker.slots[dpRank - worker.dpStart]
  return slot === undefined ? [] : [slot]
}

/** A rank that no worker has. */
const noRank = 0xffff_ffff

/** A pinned request that cannot be served where it is pinned, since it belongs to another place that may serve it; otherwise the request itself. */
export function pinnedAgainstAffinity(directory: WorkerDirectory, request: RoutingRequest): RoutingRequest {
  const { affinity, pin } = request
  if (affinity === undefined || pin === undefined || affinitySlots(directory, affinity).length === 0) return request
  const { workerId, dpRank } = affinity
  if (request.allowedWorkerIds?.has(workerId) === false || missingTaint(directory.get(workerId)!, request) !== undefined) return request
  if (pin.workerId !== workerId) return { ...request, allowedWorkerIds: new Set([workerId]) }
  return dpRank === null || pin.dpRank === dpRank ? request : { ...request, pin: { workerId, dpRank: noRank } }
}
