/** Overlap that another router's index found, in place of an own index. */
import type { OverlapScores } from '../index/contract.ts'
import { growOverlapScores } from '../index/overlap-scores.ts'
import type { HashList } from '../model/hash-list.ts'
import type { WorkerRank } from '../model/worker.ts'
import type { OverlapRow } from './contract.ts'
import type { WorkerDirectory } from './worker-directory.ts'

/** One cell that its owner sets around a call of the router. */
export interface RemoteOverlap {
  /** Of the prompt that the router is asked about now; null: nothing is known. */
  readonly rows: readonly OverlapRow[] | null
  /** Told of prompts that were routed; left out: the index learns by events. */
  record?(rank: WorkerRank, local: HashList, sequence: HashList): void
}

/** Fills the scores of a look-up. Ranks that are not known here are passed over. */
export function readRemoteOverlap(remote: RemoteOverlap, directory: WorkerDirectory, scores: OverlapScores): void {
  growOverlapScores(scores, directory.slotEnd)
  scores.slotCount = directory.slotEnd
  for (const tier of ['device', 'host', 'disk'] as const) scores[tier].fill(0)
  for (const { workerId, dpRank, deviceBlocks, hostExtensionBlocks, diskExtensionBlocks } of remote.rows ?? []) {
    const slot = directory.slotOf(workerId, dpRank)
    if (slot < 0) continue
    scores.device[slot] = deviceBlocks
    scores.host[slot] = hostExtensionBlocks
    scores.disk[slot] = diskExtensionBlocks
  }
}
