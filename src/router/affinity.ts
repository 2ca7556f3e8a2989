/** A request that belongs somewhere, at the moment when its worker is chosen. Source: router-algorithm 9.5. */
import type { RoutingRequest } from '../model/routing-request.ts'
import { missingTaint } from '../scheduling/eligibility.ts'
import type { WorkerDirectory } from './worker-directory.ts'

/** A rank that no worker has. */
const noRank = 0xffff_ffff

/** The request with its affinity as a condition, so that a pin elsewhere cannot be served; the request itself where the target may not be chosen. */
export function heldToAffinity(directory: WorkerDirectory, request: RoutingRequest): RoutingRequest {
  if (request.affinity === undefined) return request
  const { workerId, dpRank } = request.affinity
  const worker = directory.get(workerId)
  if (worker === undefined || request.allowedWorkerIds?.has(workerId) === false || missingTaint(worker, request) !== undefined) return request
  if (dpRank !== null && worker.slots[dpRank - worker.dpStart] === undefined) return request
  const held: RoutingRequest = { ...request, allowedWorkerIds: new Set([workerId]), ...(dpRank === null ? {} : { dpRank }) }
  const { pin } = request
  return pin?.workerId === workerId && dpRank !== null && pin.dpRank !== dpRank ? { ...held, pin: { workerId, dpRank: noRank } } : held
}
