/** Who can be routed to: identity, ranks, capacity and properties of a worker, as its model card tells them. */

import type { HicacheLayout } from './shared-cache.ts'

/** A worker's 64-bit id (Dynamo: instance id). Decimal in logs and JSON, lower-case hex in keys. */
export type WorkerId = bigint

/** What a pool of workers is for, from the card's `worker_type`. */
export type WorkerRole = 'aggregated' | 'prefill' | 'decode' | 'encode'

/** One data-parallel rank of one worker, at the edges. Inside, both are one dense `RankSlot`. */
export interface WorkerRank {
  readonly workerId: WorkerId
  readonly dpRank: number
}

/**
 * A dense small integer that stands for one (worker, dp rank) inside index, load and scheduling.
 * Given out by `WorkerDirectory`; used again only after the index has dropped all blocks of its last owner.
 */
export type RankSlot = number

/** What is known of a worker. */
export interface WorkerDescription {
  readonly workerId: WorkerId
  /** First dp rank; ranks are `[dpStart, dpStart + dpSize)`. */
  readonly dpStart: number
  readonly dpSize: number
  /** KV blocks per rank, or null when unknown. */
  readonly totalKvBlocks: number | null
  readonly maxNumBatchedTokens: number | null
  /** The worker's own taints, without the generated topology taints. */
  readonly taints: readonly string[]
  readonly topologyDomains: ReadonlyMap<string, string>
  /** Names of LoRA adapters that the worker advertises. */
  readonly loraNames?: readonly string[]
  /** False: the worker publishes no KV events, so its blocks are known only approximately. Null: unknown. */
  readonly publishesKvEvents?: boolean | null
  /** Runs without an accelerator, as its endpoint record says. */
  readonly isCpu?: boolean
  /** How it lays out the cache that it shares with others. */
  readonly hicache?: HicacheLayout
}
