/** Prompts that run on ranks of known capacity and grow by what is generated: their blocks as they become complete. */
import { localBlockHashes, sequenceHashes } from '../hashing/block-hashes.ts'
import { hashAt } from '../model/hash-list.ts'
import type { HashList } from '../model/hash-list.ts'
import type { OverlapQuery } from './contract.ts'

export interface GrowingPromptsOptions {
  readonly blockSize: number
  readonly isEagle: boolean
}

interface Growing {
  readonly query: Omit<OverlapQuery, 'tokens'>
  /** Tokens from the first one that is in no complete block. */
  tail: number[]
  /** Public sequence hash of the last complete block. */
  last: HashList | null
  blockCount: number
}

/** Blocks that became complete, below those known before. */
export interface GrownBlocks {
  readonly parentHash: bigint | null
  readonly local: HashList
  readonly sequence: HashList
  /** Blocks begun but not complete: 0 or 1. */
  readonly begun: number
}

/** Bounds: one entry per running request, each with less than two blocks of tokens. */
export class GrowingPrompts {
  readonly #options: GrowingPromptsOptions
  readonly #byId = new Map<string, Growing>()

  constructor(options: GrowingPromptsOptions) {
    this.#options = options
  }

  get size(): number {
    return this.#byId.size
  }

  /** `sequence`: public sequence hashes of the prompt's complete blocks. */
  begin(requestId: string, prompt: OverlapQuery, sequence: HashList): void {
    const { tokens, ...query } = prompt
    const blockCount = sequence.length >>> 1
    this.#byId.set(requestId, {
      query, tail: [...tokens.subarray(blockCount * this.#options.blockSize)], blockCount,
      last: blockCount === 0 ? null : sequence.slice(-2),
    })
  }

  end(requestId: string): void {
    this.#byId.delete(requestId)
  }

  /** Adds generated tokens; null when no block became complete. */
  append(requestId: string, tokens: readonly number[]): GrownBlocks | null {
    const growing = this.#byId.get(requestId)
    if (growing === undefined) return null
    for (const token of tokens) growing.tail.push(token)
    const { blockSize, isEagle } = this.#options
    const complete = Math.floor((growing.tail.length - (isEagle ? 1 : 0)) / blockSize)
    if (complete < 1) return null
    const infos = growing.query.blockMmInfos?.slice(growing.blockCount)
    const local = localBlockHashes(Uint32Array.from(growing.tail), { blockSize, isEagle, ...growing.query, blockMmInfos: infos })
    const sequence = chainedBelow(growing.last, local)
    const parentHash = growing.last === null ? null : hashAt(growing.last, 0)
    growing.last = sequence.slice(-2)
    growing.blockCount += complete
    growing.tail = growing.tail.slice(complete * blockSize)
    return { parentHash, local, sequence, begun: growing.tail.length > 0 ? 1 : 0 }
  }
}

/** The chain goes on from a hash as from its own first element. */
function chainedBelow(last: HashList | null, local: HashList): HashList {
  if (last === null) return sequenceHashes(local)
  const joined = new Uint32Array(2 + local.length)
  joined.set(last)
  joined.set(local, 2)
  return sequenceHashes(joined).slice(2)
}
