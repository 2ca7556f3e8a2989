/** The decision for one row of a scored candidate table. */
import type { Decision, DecisionExplanation, PolicyVerdict } from '../model/decision.ts'
import { promptTokensOf, type RoutingRequest } from '../model/routing-request.ts'
import type { WorkerRank } from '../model/worker.ts'
import type { CandidateTable } from '../scheduling/candidate-table.ts'
import type { Prompt } from './prompt.ts'

export interface DecisionInput {
  readonly request: RoutingRequest
  readonly prompt: Prompt
  readonly table: CandidateTable
  readonly row: number
  readonly rank: WorkerRank
  readonly verdict: PolicyVerdict | null
  readonly explain: () => DecisionExplanation
}

/** Prompt tokens that a booking of the row counts. */
export function effectivePrefillTokens(request: RoutingRequest, prompt: Prompt, table: CandidateTable, row: number): number {
  const promptTokens = promptTokensOf(request)
  return prompt.trackPrefillTokens ? promptTokens - Math.min(table.cachedTokens[row]!, promptTokens) : 0
}

export function decisionOf({ request, prompt, table, row, rank, verdict, explain }: DecisionInput, booked: boolean): Decision {
  let bestCachedTokens = 0
  let bestDeviceBlocks = 0
  for (let other = 0; other < table.count; other++) {
    if (table.cachedTokens[other]! > bestCachedTokens) bestCachedTokens = table.cachedTokens[other]!
    if (table.deviceBlocks[other]! > bestDeviceBlocks) bestDeviceBlocks = table.deviceBlocks[other]!
  }
  const decision: Decision = {
    kind: 'chosen',
    requestId: request.requestId,
    slot: table.slot[row]!,
    workerId: rank.workerId,
    dpRank: rank.dpRank,
    pinned: request.pin !== undefined,
    cost: table.cost[row]!,
    promptTokens: promptTokensOf(request),
    promptBlocks: prompt.blockCount,
    deviceBlocks: table.deviceBlocks[row]!,
    hostExtensionBlocks: table.hostBlocks[row]!,
    diskExtensionBlocks: table.diskBlocks[row]!,
    cachedTokens: table.cachedTokens[row]!,
    bestCachedTokens,
    bestDeviceBlocks,
    effectivePrefillTokens: effectivePrefillTokens(request, prompt, table, row),
    trackPrefillTokens: prompt.trackPrefillTokens,
    activePrefillTokens: table.activePrefillTokens[row]!,
    potentialDecodeBlocks: table.potentialDecodeBlocks[row]!,
    booked,
    explain,
  }
  const { shared } = prompt
  if (verdict === null && shared === null) return decision
  return {
    ...decision, ...(verdict === null ? {} : { policy: verdict }),
    ...(shared === null || shared.error !== null ? {} : { shared: { blocks: shared.total, beyondDevice: table.sharedBlocks[row]! } }),
  }
}
