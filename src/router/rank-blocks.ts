/** What one rank holds as the router knows it, whole: to be kept elsewhere and to be put back. */
import { hashAt, hashCount, type HashList } from '../model/hash-list.ts'
import type { KvEventData, StorageTier, StoredBlocks } from '../model/kv-event.ts'
import type { WorkerRank } from '../model/worker.ts'
import type { BoundedRanks, PoolIndex } from './pool-index.ts'
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

  /** What ranks hold that are bounded by their capacity; null: none are to be. */
  get bounded(): BoundedRanks | null {
    return this.#index.bounded
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

  /** How long each assumed block of these events is still to live; null: the rank's blocks do not age by time. Units: ms. */
  lives({ workerId, dpRank }: WorkerRank, blocks: readonly StoredBlocks[], nowMs: number): readonly number[] | null {
    const slot = this.#directory.slotOf(workerId, dpRank)
    const ends = slot < 0 ? null : this.#index.recordedEnds(slot, blocks.map(({ blockHashes }) => blockHashes))
    return ends === null ? null : ends.flatMap((list) => Array.from(list, (endMs) => Math.max(0, endMs - nowMs)))
  }

  /**
   * Puts assumed blocks back into a rank that is fed by routing decisions: chains whose parent is not among them are left out, and blocks
   * without a life ahead. `lives`: of each block, as `lives` gave it, at most the whole; null: as if all had been routed at `nowMs`. Gives the
   * number of blocks put back.
   */
  assume({ workerId, dpRank }: WorkerRank, blocks: readonly StoredBlocks[], nowMs: number, lives: readonly number[] | null = null): number {
    const slot = this.#directory.slotOf(workerId, dpRank)
    if (slot < 0 || !this.#index.isApproximate(slot)) return 0
    let count = 0
    // Those that end first come first: what their prompts share with others is set anew by these.
    for (const { chain, sinceMs, own } of this.#pieces(blocks, nowMs, lives).sort((a, b) => a.sinceMs - b.sinceMs)) {
      const [local, sequence] = wholeOf(chain)
      if (this.#index.assume(slot, local, sequence, sinceMs)) count += own
    }
    return count
  }

  /** Prompts whose last `own` blocks live equally long. */
  #pieces(blocks: readonly StoredBlocks[], nowMs: number, lives: readonly number[] | null): Piece[] {
    const { lifeMs } = this.#index
    const chains = new Map<bigint, Chain>()
    const pieces: Piece[] = []
    let position = 0
    for (const { parentHash, blockHashes, tokensHashes } of blocks) {
      const parent = parentHash === null ? rootChain : chains.get(parentHash)
      const length = hashCount(blockHashes)
      const start = position
      position += length
      if (parent === undefined || length === 0) continue
      const [parentLocal, parentSequence] = wholeOf(parent)
      const chain = { local: joined(parentLocal, tokensHashes), sequence: joined(parentSequence, blockHashes), length: hashCount(parentSequence) + length }
      for (let index = 0; index < length; index += 1) chains.set(hashAt(blockHashes, index), { ...chain, length: hashCount(parentSequence) + index + 1 })
      for (let from = 0; from < length;) {
        const life = lives === null ? lifeMs : lives[start + from] ?? 0
        let to = from + 1
        while (to < length && (lives === null || lives[start + to] === life)) to += 1
        if (life > 0) pieces.push({ chain: { ...chain, length: hashCount(parentSequence) + to }, sinceMs: nowMs - lifeMs + Math.min(life, lifeMs), own: to - from })
        from = to
      }
    }
    return pieces
  }
}

/** The first `length` blocks of a prompt. */
interface Chain {
  readonly local: HashList
  readonly sequence: HashList
  readonly length: number
}

interface Piece {
  readonly chain: Chain
  readonly sinceMs: number
  readonly own: number
}

const rootChain: Chain = { local: new Uint32Array(0), sequence: new Uint32Array(0), length: 0 }

const wholeOf = ({ local, sequence, length }: Chain): [HashList, HashList] => [local.subarray(0, 2 * length), sequence.subarray(0, 2 * length)]

function joined(left: HashList, right: HashList): HashList {
  const list = new Uint32Array(left.length + right.length)
  list.set(left)
  list.set(right, left.length)
  return list
}
