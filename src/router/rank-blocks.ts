/** What one rank holds as the router knows it, whole: to be kept elsewhere and to be put back. */
import { hashAt, hashCount, type HashList } from '../model/hash-list.ts'
import type { KvEventData, StorageTier, StoredBlocks } from '../model/kv-event.ts'
import type { WorkerRank } from '../model/worker.ts'
import type { PoolIndex } from './pool-index.ts'
import type { WorkerDirectory } from './worker-directory.ts'

export interface TierBlocks {
  readonly tier: StorageTier
  readonly data: KvEventData
}

/** State: none of its own. Cost of a dump: a walk over the whole device tree. */
export class RankBlocks {
  readonly #index: PoolIndex
  readonly #directory: WorkerDirectory

  constructor(index: PoolIndex, directory: WorkerDirectory) {
    this.#index = index
    this.#directory = directory
  }

  /** Forgets them. */
  reset({ workerId, dpRank }: WorkerRank): void {
    const slot = this.#directory.slotOf(workerId, dpRank)
    if (slot >= 0) this.#index.clear(slot)
  }

  /** Null: the rank is not known. */
  isApproximate({ workerId, dpRank }: WorkerRank): boolean | null {
    const slot = this.#directory.slotOf(workerId, dpRank)
    return slot < 0 ? null : this.#index.isApproximate(slot)
  }

  /** The rank's own names of the leading blocks of a prompt that it holds on the device and in host memory. */
  prefixNames({ workerId, dpRank }: WorkerRank, local: HashList): HashList {
    const slot = this.#directory.slotOf(workerId, dpRank)
    return slot < 0 ? new Uint32Array(0) : this.#index.prefixNames(slot, local)
  }

  /** Stored events of the rank, parents before children. */
  dump({ workerId, dpRank }: WorkerRank): readonly TierBlocks[] {
    const slot = this.#directory.slotOf(workerId, dpRank)
    return slot < 0 ? [] : this.#index.dump(slot)
  }

  /**
   * Puts assumed blocks back into a rank that is fed by routing decisions, as if its prompts had been routed at `sinceMs`: chains
   * whose parent is not among them are left out. Gives the number of blocks put back.
   */
  assume({ workerId, dpRank }: WorkerRank, blocks: readonly StoredBlocks[], sinceMs: number): number {
    const slot = this.#directory.slotOf(workerId, dpRank)
    if (slot < 0 || !this.#index.isApproximate(slot)) return 0
    const chains = new Map<bigint, Chain>()
    let count = 0
    for (const { parentHash, blockHashes, tokensHashes } of blocks) {
      const parent = parentHash === null ? rootChain : chains.get(parentHash)
      const length = hashCount(blockHashes)
      if (parent === undefined || length === 0) continue
      const [parentLocal, parentSequence] = wholeOf(parent)
      const chain = { local: joined(parentLocal, tokensHashes), sequence: joined(parentSequence, blockHashes), length: hashCount(parentSequence) + length }
      for (let index = 0; index < length; index += 1) chains.set(hashAt(blockHashes, index), { ...chain, length: hashCount(parentSequence) + index + 1 })
      if (this.#index.assume(slot, chain.local, chain.sequence, sinceMs)) count += length
    }
    return count
  }
}

/** The first `length` blocks of a prompt. */
interface Chain {
  readonly local: HashList
  readonly sequence: HashList
  readonly length: number
}

const rootChain: Chain = { local: new Uint32Array(0), sequence: new Uint32Array(0), length: 0 }

const wholeOf = ({ local, sequence, length }: Chain): [HashList, HashList] => [local.subarray(0, 2 * length), sequence.subarray(0, 2 * length)]

function joined(left: HashList, right: HashList): HashList {
  const list = new Uint32Array(left.length + right.length)
  list.set(left)
  list.set(right, left.length)
  return list
}
