/** KV events as engines emit them, decoded but not judged yet. Source: router-algorithm 3.1. */
import type { HashList } from '../model/hash-list.ts'
import type { BlockMmInfo } from '../model/kv-event.ts'

/** One message of an engine's event socket. */
export interface RawEventBatch {
  /** Data-parallel rank as u32; null when the engine names none. */
  readonly dpRank: number | null
  readonly events: readonly RawEvent[]
}

export type RawEvent = RawStored | RawRemoved | RawCleared | RawIgnored

/** What stored and removed events say of where the blocks lie. Texts are unchecked. */
export interface RawPlacement {
  /** Null when absent or empty: the device. */
  readonly medium: string | null
  readonly locality: string | null
  readonly ownership: string | null
  /** The engine's KV cache group. */
  readonly groupIndex: number | null
  /** The attention kind of the group. */
  readonly attentionKind: string | null
}

export interface RawStored extends RawPlacement {
  readonly kind: 'stored'
  readonly blockHashes: HashList
  readonly parentHash: bigint | null
  /** Tokens of all blocks; with Eagle one more at the end. */
  readonly tokens: Uint32Array
  readonly isEagle: boolean
  readonly blockSize: number
  readonly loraName: string | null
  /** The event's own namespace; null or empty when it names none. */
  readonly cacheNamespace: string | null
  readonly mmInfos: readonly (BlockMmInfo | null)[] | null
  readonly sessionId: string | null
}

export interface RawRemoved extends RawPlacement {
  readonly kind: 'removed'
  readonly blockHashes: HashList
}

export interface RawCleared {
  readonly kind: 'cleared'
  readonly ownership: string | null
}

export interface RawIgnored {
  readonly kind: 'ignored'
}
