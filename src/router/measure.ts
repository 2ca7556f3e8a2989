/** Overlap and load of collected candidates, as of now. */
import type { OverlapScores } from '../index/contract.ts'
import type { ActiveSequences } from '../load/active-sequences.ts'
import { sharedBlocksBeyond } from '../model/shared-cache.ts'
import type { CandidateTable } from '../scheduling/candidate-table.ts'
import type { Prompt } from './prompt.ts'

/** Fills the columns that the cost is made of. `scores` null: nothing was looked up. Cost: one pass, no allocation. */
export function measureCandidates(table: CandidateTable, prompt: Prompt, loads: ActiveSequences, scores: OverlapScores | null): void {
  const { prefillTokens, requests } = loads
  const reach = scores === null ? 0 : Math.min(scores.slotCount, scores.device.length)
  const livePrefix = prompt.tracking === null ? 0 : loads.match(prompt.tracking)
  for (let row = 0; row < table.count; row++) {
    const slot = table.slot[row]!
    const known = slot < reach
    table.deviceBlocks[row] = known ? scores!.device[slot]! : 0
    table.hostBlocks[row] = known ? scores!.host[slot]! : 0
    table.diskBlocks[row] = known ? scores!.disk[slot]! : 0
    if (prompt.shared !== null) table.sharedBlocks[row] = sharedBlocksBeyond(prompt.shared, table.deviceBlocks[row]!)
    table.activePrefillTokens[row] = prefillTokens[slot]!
    table.activeRequests[row] = requests[slot]!
    const live = livePrefix > 0 ? loads.livePrefix(slot) : 0
    table.potentialDecodeBlocks[row] = loads.activeBlocks(slot) + prompt.trackedBlocks - live
  }
}
