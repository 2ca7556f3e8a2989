/** One way into a model: a pool that answers, with the prefill pool of its namespace as long as there is one. */
import type { RoutedGenerate } from '../standalone/routed-generate.ts'
import type { LivePool } from './live-pool.ts'
import type { WorkerPoolState } from './worker-pools.ts'

export interface ServedEntry {
  /** Key of the pool that answers. */
  readonly key: string
  readonly pool: LivePool
  readonly generate: RoutedGenerate
  state: WorkerPoolState
  /** Null: none now. */
  prefill: LivePool | null
  /** Decode workers here cannot compute a prompt themselves, so that a missing prefill pool is no reason to send them one. */
  needsBootstrap: boolean
}
