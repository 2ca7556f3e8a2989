/** KV events as an engine's own publisher would send them: tagged maps, before any normalisation. */

export type EngineEvent =
  | {
      readonly type: 'BlockStored'
      readonly block_hashes: readonly bigint[]
      readonly parent_block_hash: bigint | null
      readonly token_ids: readonly number[]
      readonly block_size: number
      readonly medium: 'GPU'
      readonly lora_name: string | null
      readonly cache_salt: string | null
    }
  | { readonly type: 'BlockRemoved'; readonly block_hashes: readonly bigint[]; readonly medium: 'GPU' }
  | { readonly type: 'AllBlocksCleared' }

/** Takes the events of one step of one rank, in order; never an empty list. Must not throw. */
export type EngineEventSink = (dpRank: number, events: readonly EngineEvent[]) => void
