/** Router events as JSON: what `/dump` shows and peers read. */
import { hashAt, hashCount, hashListOf } from '../model/hash-list.ts'
import type { BlockMmInfo, KvEventData, RouterEvent, StorageTier } from '../model/kv-event.ts'
import type { JsonObject } from '../ports.ts'
import { choiceOf, listOf, maybe, objectOf, required, u32Of, u64Of, withDefault } from './body-fields.ts'

const mmInfoJson = (info: BlockMmInfo | null | undefined): unknown =>
  info === null || info === undefined ? null : { mm_objects: info.mmObjects.map(({ mmHash, offsets }) => ({ mm_hash: mmHash, offsets })) }

function dataJson(data: KvEventData): unknown {
  if (data.kind === 'cleared') return 'cleared'
  if (data.kind === 'removed') return { removed: { block_hashes: Array.from({ length: hashCount(data.blockHashes) }, (_, index) => hashAt(data.blockHashes, index)) } }
  const blocks = Array.from({ length: hashCount(data.blockHashes) }, (_, index) => ({
    block_hash: hashAt(data.blockHashes, index), tokens_hash: hashAt(data.tokensHashes, index), mm_extra_info: mmInfoJson(data.mmInfos?.[index]),
  }))
  return { stored: { parent_hash: data.parentHash, start_position: data.startPosition, blocks } }
}

/** One event for JSON. */
export const eventJson = (event: RouterEvent): unknown => ({
  worker_id: event.workerId, storage_tier: event.storageTier, residency_domain: 'worker',
  event: { event_id: event.eventId, data: dataJson(event.data), dp_rank: event.dpRank },
})

const tierOf = choiceOf(['device', 'host_pinned', 'disk', 'external'] as const)

/** One stored event of a dump; null: of another kind. Errors: `BodyError`. */
export function readDumpedEvent(value: unknown): RouterEvent | null {
  const outer = objectOf(value, 'event')
  const event = required(outer, 'event', objectOf)
  const data = event['data']
  const stored = typeof data === 'object' && data !== null && !Array.isArray(data) ? maybe(data as JsonObject, 'stored', objectOf) : null
  if (stored === null) return null
  const blocks = required(stored, 'blocks', listOf).map((block, index) => objectOf(block, `blocks[${index}]`))
  return {
    workerId: required(outer, 'worker_id', u64Of), dpRank: withDefault(event, 'dp_rank', u32Of, 0),
    storageTier: withDefault<StorageTier>(outer, 'storage_tier', tierOf, 'device'), residencyDomain: 'worker', eventId: required(event, 'event_id', u64Of),
    data: {
      kind: 'stored', parentHash: maybe(stored, 'parent_hash', u64Of), startPosition: null, mmInfos: null,
      blockHashes: hashListOf(blocks.map((block) => required(block, 'block_hash', u64Of))),
      tokensHashes: hashListOf(blocks.map((block) => required(block, 'tokens_hash', u64Of))),
    },
  }
}
