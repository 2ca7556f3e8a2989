/** KV events as the simulated engine tells them: the same raw form that a real engine's socket gives, before any normalisation. */
import type { RawEvent, RawRemoved, RawStored } from '../../kv-events/raw-event.ts'
import { hashListOf } from '../../model/hash-list.ts'

/** Takes the events of one step of one rank, in order; never an empty list. Must not throw. */
export type EngineEventSink = (dpRank: number, events: readonly RawEvent[]) => void

const device = { medium: 'GPU', locality: null, ownership: null, groupIndex: null, attentionKind: null } as const

export interface StoredRun {
  readonly hashes: readonly bigint[]
  readonly parentHash: bigint | null
  readonly tokens: readonly number[]
  readonly blockSize: number
  readonly loraName: string | null
  readonly cacheSalt: string | null
}

/** A chain of blocks was stored. */
export const storedEvent = (run: StoredRun): RawStored => ({
  kind: 'stored',
  ...device,
  blockHashes: hashListOf(run.hashes),
  parentHash: run.parentHash,
  tokens: Uint32Array.from(run.tokens),
  isEagle: false,
  blockSize: run.blockSize,
  loraName: run.loraName,
  cacheNamespace: run.cacheSalt,
  mmInfos: null,
  sessionId: null,
})

/** Blocks were dropped. */
export const removedEvent = (hashes: readonly bigint[]): RawRemoved => ({ kind: 'removed', ...device, blockHashes: hashListOf(hashes) })
