/** Caches that the workers of a pool share, one follower per router, as `--shared-cache-type` asks. */
import { HicacheFollower } from '../dynamo/shared-cache/hicache-follower.ts'
import { HicacheIndex, type HicacheStats } from '../dynamo/shared-cache/hicache-index.ts'
import type { Log, SharedCache } from '../ports.ts'

export class SharedCaches {
  readonly #isOn: boolean
  readonly #log: Log
  readonly #followers: HicacheFollower[] = []
  readonly #indexes: HicacheIndex[] = []

  constructor(type: string, log: Log) {
    this.#isOn = type === 'hicache'
    this.#log = log
  }

  /** For one more router; nothing when there is no shared cache. */
  next(): { readonly sharedCache?: SharedCache } {
    if (!this.#isOn) return {}
    const index = new HicacheIndex()
    this.#indexes.push(index)
    this.#followers.push(new HicacheFollower(index, this.#log))
    this.#log.info({ stage: 'start' }, 'Using HiCache shared KV cache')
    return { sharedCache: index }
  }

  /** Objects that are known, and what was counted. */
  stats(): HicacheStats & { objects: number } {
    const total = { objects: 0, batches: 0, badMessages: 0, gaps: 0, overflows: 0 }
    for (const { objectCount, stats } of this.#indexes) {
      total.objects += objectCount
      for (const key of ['batches', 'badMessages', 'gaps', 'overflows'] as const) total[key] += stats[key]
    }
    return total
  }

  close(): void {
    for (const follower of this.#followers) follower.close()
  }
}
