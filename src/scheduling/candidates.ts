/** Collects the ranks that may take a request into the candidate table. Source: router-algorithm 9.5. */
import type { RoutingRequest } from '../model/routing-request.ts'
import type { CandidateTable } from './candidate-table.ts'
import { hasConditions, isRankAsked, taintFactor, workerExclusion } from './eligibility.ts'
import type { OverloadTest, SchedulableWorker } from './eligibility.ts'

/**
 * Fills slot and taint factor of every eligible rank, by worker id, then rank. The table has room for `allSlots`.
 *
 * Cost: a copy when the request names no condition; else linear in the workers.
 */
export function collectCandidates(
  table: CandidateTable, workers: readonly SchedulableWorker[], allSlots: Int32Array, request: RoutingRequest, overload: OverloadTest | null,
): void {
  const preferred = request.preferredTaints !== undefined && request.preferredTaints.size > 0 ? request.preferredTaints : null
  if (preferred === null && overload === null && !hasConditions(request)) {
    table.slot.set(allSlots)
    table.count = allSlots.length
    table.taintFactor.fill(1, 0, table.count)
    return
  }
  const adapter = request.loraName === undefined || request.loraName === '' ? null : request.loraName
  addEligible(table, workers, request, overload, preferred, adapter)
  // Workers that have the adapter come first; without any of them all others may load it.
  if (table.count === 0 && adapter !== null) addEligible(table, workers, request, overload, preferred, null)
}

function addEligible(
  table: CandidateTable, workers: readonly SchedulableWorker[], request: RoutingRequest, overload: OverloadTest | null,
  preferred: ReadonlyMap<string, number> | null, adapter: string | null,
): void {
  let count = 0
  for (const worker of workers) {
    if (adapter !== null && !worker.loraNames.has(adapter)) continue
    if (workerExclusion(worker, request, overload) !== null) continue
    const factor = preferred === null ? 1 : taintFactor(worker, preferred)
    for (let index = 0; index < worker.slots.length; index++) {
      if (!isRankAsked(worker.dpStart + index, request)) continue
      table.slot[count] = worker.slots[index]!
      table.taintFactor[count] = factor
      count += 1
    }
  }
  table.count = count
}
