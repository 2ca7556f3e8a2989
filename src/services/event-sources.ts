/** Where cache events of workers come from, as the services see it. The sockets are an adapter (engine-listeners.ts). */
import type { RouterEvent } from '../model/kv-event.ts'
import type { WorkerRank } from '../model/worker.ts'
import type { WorkerRecord } from './selection/worker-record.ts'

export interface EventSources {
  /**
   * Follows the ranks of a worker from now on. Ranks whose sockets are the same as before go on undisturbed; others begin anew, after
   * `onReset` for the old one.
   */
  follow(record: WorkerRecord, blockSize: number, onEvent: (event: RouterEvent) => void, onReset: (rank: WorkerRank) => void): void
  /** Follows the worker no more. */
  leave(workerId: bigint): void
}
