/** What workers say of their caches: the KV events of Dynamo's event plane, as plain values. */
import type { HashList } from './hash-list.ts'
import type { WorkerId } from './worker.ts'

export type StorageTier = 'device' | 'host_pinned' | 'disk' | 'external'

/** Multimodal objects inside one block. Source: Dynamo 1.6.1 `BlockExtraInfo`. */
export interface BlockMmInfo {
  readonly mmObjects: readonly MmObject[]
}

export interface MmObject {
  readonly mmHash: bigint
  /** Token ranges `[start, end)` relative to the block. */
  readonly offsets: readonly (readonly [number, number])[]
}

/** Blocks that a worker now holds, a chain below `parentHash`. Both lists have the same length. */
export interface StoredBlocks {
  readonly kind: 'stored'
  /** The engine's hash of the block before the first one; null at the root. */
  readonly parentHash: bigint | null
  readonly startPosition: number | null
  /** The engine's opaque block hashes (wire name `block_hash`). */
  readonly blockHashes: HashList
  /** Local block hashes of the content (wire name `tokens_hash`). */
  readonly tokensHashes: HashList
  /** Per block, or null when no block has any. */
  readonly mmInfos: readonly (BlockMmInfo | null)[] | null
}

export interface RemovedBlocks {
  readonly kind: 'removed'
  readonly blockHashes: HashList
}

export interface ClearedBlocks {
  readonly kind: 'cleared'
}

export type KvEventData = StoredBlocks | RemovedBlocks | ClearedBlocks

/** One event of one (worker, dp rank) source. */
export interface RouterEvent {
  readonly workerId: WorkerId
  readonly dpRank: number
  readonly storageTier: StorageTier
  /** `absent`: an old publisher; `unsupported`: present but unknown, the event is counted and dropped. */
  readonly residencyDomain: 'worker' | 'cache_owner' | 'absent' | 'unsupported'
  /** Per source, +1 per event. u64. */
  readonly eventId: bigint
  readonly data: KvEventData
  readonly sessionId?: string
}

/** What became of one event in the index. The first word is the label `status` of `kv_cache_events_applied`. */
export type ApplyStatus =
  | 'ok'
  | 'parent_block_not_found'
  | 'block_not_found'
  | 'invalid_block'
  | 'capacity_exhausted'
  | 'unsupported_residency_domain'
