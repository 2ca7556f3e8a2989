/** Makes a decision readable: candidates with their cost terms, and why the others were not candidates. */
import type { Candidate, DecisionExplanation, Exclusion } from '../model/decision.ts'
import type { RoutingRequest } from '../model/routing-request.ts'
import type { CandidateTable } from '../scheduling/candidate-table.ts'
import { listExclusions } from '../scheduling/eligibility.ts'
import type { OverloadTest } from '../scheduling/eligibility.ts'
import type { WorkerDirectory } from './worker-directory.ts'

function candidateAt(directory: WorkerDirectory, table: CandidateTable, row: number, policyScore: number | null): Candidate {
  const slot = table.slot[row]!
  return {
    slot,
    ...directory.rankOf(slot),
    deviceBlocks: table.deviceBlocks[row]!,
    hostExtensionBlocks: table.hostBlocks[row]!,
    diskExtensionBlocks: table.diskBlocks[row]!,
    cachedTokens: table.cachedTokens[row]!,
    activePrefillTokens: table.activePrefillTokens[row]!,
    activeRequests: table.activeRequests[row]!,
    potentialDecodeBlocks: table.potentialDecodeBlocks[row]!,
    credit: table.credit[row]!,
    prefillTerm: table.prefillTerm[row]!,
    decodeTerm: table.decodeTerm[row]!,
    requestTerm: table.requestTerm[row]!,
    taintFactor: table.taintFactor[row]!,
    cost: table.cost[row]!,
    ...(policyScore === null ? {} : { policyScore }),
  }
}

/** Reads the table of the last selection. Cost: an object per candidate. */
export function explainSelection(
  directory: WorkerDirectory, table: CandidateTable, request: RoutingRequest, overload: OverloadTest | null,
  how: Pick<DecisionExplanation, 'choice' | 'temperature' | 'policy'>, scoreOf: (row: number) => number | null = () => null,
): DecisionExplanation {
  const candidates = Array.from({ length: table.count }, (_, row) => candidateAt(directory, table, row, scoreOf(row)))
  return { candidates, exclusions: exclusionsBeside(directory, candidates, request, overload), ...how }
}

function exclusionsBeside(
  directory: WorkerDirectory, candidates: readonly Candidate[], request: RoutingRequest, overload: OverloadTest | null,
): readonly Exclusion[] {
  const chosen = new Set(candidates.map(({ workerId }) => workerId))
  const others = directory.ordered.filter(({ workerId }) => !chosen.has(workerId))
  if (request.pin !== undefined) return others.map(({ workerId }) => ({ workerId, dpRank: null, reason: 'not-pinned' }))
  // The booking itself may have overloaded the chosen worker: candidates are asked for their ranks only.
  const exclusions = [
    ...listExclusions(others, request, overload),
    ...listExclusions(directory.ordered.filter(({ workerId }) => chosen.has(workerId)), request, null),
  ]
  const named = new Set(exclusions.map(({ workerId }) => workerId))
  for (const { workerId } of others) {
    if (!named.has(workerId)) exclusions.push({ workerId, dpRank: null, reason: 'lacks-adapter', detail: request.loraName ?? '' })
  }
  return exclusions
}
