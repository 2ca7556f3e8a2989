/**
 * Router events on Dynamo's event plane (topic `kv-events`) and in recovery answers: MessagePack and back.
 *
 * Payload: an array of `RouterEvent` maps; before 1.6 one such map. Hashes go straight into `HashList`s; unknown keys are passed over; encoding is
 * byte-equal to Dynamo 1.6.1. Source: router-algorithm 2.
 */
import { hashCount, type HashList } from '../../model/hash-list.ts'
import type { BlockMmInfo, KvEventData, RouterEvent, StorageTier } from '../../model/kv-event.ts'
import { readBlockMmInfo, writeBlockMmInfo } from '../../msgpack/block-mm-info.ts'
import { KeyTable, MsgpackError, type MsgpackCursor, type MsgpackValue } from '../../msgpack/cursor.ts'
import { MsgpackWriter } from '../../msgpack/writer.ts'
import { decodePayload } from './payload.ts'
import { readPlainBlocks } from './plain-blocks.ts'

const tierNames: readonly StorageTier[] = ['device', 'host_pinned', 'disk', 'external']
const tiers: ReadonlySet<string> = new Set(tierNames)

export const isStorageTier = (text: string): text is StorageTier => tiers.has(text)

// ---- Decoding --------------------------------------------------------------------------------------------------------------

/** The events of one payload. Errors: WireError that names the offset. */
export const decodeKvEvents = (payload: Uint8Array): RouterEvent[] => decodePayload('kv events', payload, readKvEvents)

/** One event alone. Errors: WireError that names the offset. */
export const decodeKvEvent = (payload: Uint8Array): RouterEvent => decodePayload('kv event', payload, readKvEvent)

/** An array of events at the cursor, or, as before 1.6, one event alone. Errors: MsgpackError. */
export function readKvEvents(cursor: MsgpackCursor): RouterEvent[] {
  if (cursor.peek() === 'map') return [readKvEvent(cursor)]
  const events: RouterEvent[] = []
  for (let left = cursor.readArrayHeader(); left > 0; left -= 1) events.push(readKvEvent(cursor))
  return events
}

const eventKeys = new KeyTable(['worker_id', 'storage_tier', 'residency_domain', 'event', 'session_id'])

/** One event at the cursor. Errors: MsgpackError. */
export function readKvEvent(cursor: MsgpackCursor): RouterEvent {
  const start = cursor.offset
  let workerId: bigint | null = null
  let storageTier: StorageTier = 'device'
  let residencyDomain: RouterEvent['residencyDomain'] = 'absent'
  let inner: InnerEvent | null = null
  let sessionId: string | null = null
  let hint = 0
  for (let left = cursor.readMapHeader(); left > 0; left -= 1) {
    const key = cursor.readKey(eventKeys, hint)
    hint = key + 1
    switch (key) {
      case 0: workerId = cursor.readBigU64(); break
      case 1: storageTier = readTier(cursor); break
      case 2: residencyDomain = readDomain(cursor); break
      case 3: inner = readInner(cursor); break
      case 4: sessionId = cursor.tryNil() ? null : cursor.readString(); break
      default: cursor.skip()
    }
  }
  if (workerId === null || inner === null) throw new MsgpackError(`an event without ${workerId === null ? 'worker_id' : 'event'}`, start)
  const event: RouterEvent = { workerId, dpRank: inner.dpRank, storageTier, residencyDomain, eventId: inner.eventId, data: inner.data }
  return sessionId === null ? event : { ...event, sessionId }
}

const tierKeys = new KeyTable(tierNames)

function readTier(cursor: MsgpackCursor): StorageTier {
  const start = cursor.offset
  const known = tierNames[cursor.readKey(tierKeys, 0)]
  if (known !== undefined) return known
  cursor.offset = start
  const text = cursor.readString()
  if (!isStorageTier(text)) throw new MsgpackError(`unknown storage tier ${JSON.stringify(text.slice(0, 40))}`, start)
  return text
}

const domainNames = ['worker', 'cache_owner'] as const
const domainKeys = new KeyTable(domainNames)

function readDomain(cursor: MsgpackCursor): RouterEvent['residencyDomain'] {
  if (cursor.peek() === 'string') return domainNames[cursor.readKey(domainKeys, 0)] ?? 'unsupported'
  cursor.skip()
  return 'unsupported'
}

interface InnerEvent {
  readonly eventId: bigint
  readonly data: KvEventData
  readonly dpRank: number
}

const innerKeys = new KeyTable(['event_id', 'data', 'dp_rank'])

function readInner(cursor: MsgpackCursor): InnerEvent {
  const start = cursor.offset
  let eventId: bigint | null = null
  let data: KvEventData | null = null
  let dpRank = 0
  let hint = 0
  for (let left = cursor.readMapHeader(); left > 0; left -= 1) {
    const key = cursor.readKey(innerKeys, hint)
    hint = key + 1
    if (key === 0) eventId = cursor.readBigU64()
    else if (key === 1) data = readData(cursor)
    else if (key === 2) dpRank = cursor.readU32()
    else cursor.skip()
  }
  if (eventId === null || data === null) throw new MsgpackError(`an event without ${eventId === null ? 'event_id' : 'data'}`, start)
  return { eventId, data, dpRank }
}

const dataKeys = new KeyTable(['stored', 'removed', 'cleared'])

function readData(cursor: MsgpackCursor): KvEventData {
  const start = cursor.offset
  if (cursor.peek() === 'string') {
    const text = cursor.readString()
    if (text !== 'cleared') throw new MsgpackError(`unknown event data ${JSON.stringify(text.slice(0, 40))}`, start)
    return { kind: 'cleared' }
  }
  const size = cursor.readMapHeader()
  if (size !== 1) throw new MsgpackError(`event data of ${size} kinds`, start)
  switch (cursor.readKey(dataKeys, 0)) {
    case 0: return readStored(cursor)
    case 1: return readRemoved(cursor)
    case 2: cursor.skip(); return { kind: 'cleared' }
    default: throw new MsgpackError('event data of an unknown kind', start)
  }
}

const removedKeys = new KeyTable(['block_hashes'])

function readRemoved(cursor: MsgpackCursor): KvEventData {
  const start = cursor.offset
  let blockHashes: HashList | null = null
  for (let left = cursor.readMapHeader(); left > 0; left -= 1) {
    if (cursor.readKey(removedKeys, 0) !== 0) { cursor.skip(); continue }
    const count = cursor.readArrayHeader()
    blockHashes = new Uint32Array(2 * count)
    cursor.readU64s(blockHashes, count)
  }
  if (blockHashes === null) throw new MsgpackError('removed without block_hashes', start)
  return { kind: 'removed', blockHashes }
}

const storedKeys = new KeyTable(['parent_hash', 'start_position', 'blocks'])
const blockKeys = new KeyTable(['block_hash', 'tokens_hash', 'mm_extra_info'])

function readStored(cursor: MsgpackCursor): KvEventData {
  const start = cursor.offset
  let parentHash: bigint | null = null
  let startPosition: number | null = null
  let blocks: Pick<Extract<KvEventData, { kind: 'stored' }>, 'blockHashes' | 'tokensHashes' | 'mmInfos'> | null = null
  let hint = 0
  for (let left = cursor.readMapHeader(); left > 0; left -= 1) {
    const key = cursor.readKey(storedKeys, hint)
    hint = key + 1
    if (key === 0) parentHash = cursor.tryNil() ? null : cursor.readBigU64()
    else if (key === 1) startPosition = cursor.tryNil() ? null : cursor.readU32()
    else if (key === 2) blocks = readBlocks(cursor)
    else cursor.skip()
  }
  if (blocks === null) throw new MsgpackError('stored without blocks', start)
  return { kind: 'stored', parentHash, startPosition, ...blocks }
}

function readBlocks(cursor: MsgpackCursor) {
  const count = cursor.readArrayHeader()
  const blockHashes = new Uint32Array(2 * count)
  const tokensHashes = new Uint32Array(2 * count)
  let mmInfos: (BlockMmInfo | null)[] | null = null
  const plain = readPlainBlocks(cursor, blockHashes, tokensHashes, count)
  for (let block = plain; block < count; block += 1) {
    const start = cursor.offset
    // Which of the two hashes were seen, as bits.
    let seen = 0
    let hint = 0
    for (let left = cursor.readMapHeader(); left > 0; left -= 1) {
      const key = cursor.readKey(blockKeys, hint)
      hint = key + 1
      if (key === 0) { cursor.readU64(blockHashes, block); seen |= 1 }
      else if (key === 1) { cursor.readU64(tokensHashes, block); seen |= 2 }
      else if (key === 2) {
        if (cursor.tryNil()) continue
        mmInfos ??= Array.from({ length: count }, () => null)
        mmInfos[block] = readBlockMmInfo(cursor)
      } else cursor.skip()
    }
    if (seen !== 3) throw new MsgpackError(`a block without ${(seen & 1) === 0 ? 'block_hash' : 'tokens_hash'}`, start)
  }
  return { blockHashes, tokensHashes, mmInfos }
}

// ---- Encoding --------------------------------------------------------------------------------------------------------------

/** One payload with these events. */
export function encodeKvEvents(events: readonly RouterEvent[]): Uint8Array {
  const writer = new MsgpackWriter(1024)
  writer.arrayHeader(events.length)
  for (const event of events) writeKvEvent(writer, event)
  return writer.finish()
}

/** One event alone. */
export function encodeKvEvent(event: RouterEvent): Uint8Array {
  const writer = new MsgpackWriter(1024)
  writeKvEvent(writer, event)
  return writer.finish()
}

/** Appends an event. An absent domain stays absent; an unsupported one is written as nil, which is as unsupported. */
export function writeKvEvent(writer: MsgpackWriter, event: RouterEvent): void {
  const { residencyDomain, sessionId } = event
  writer.mapHeader(3 + (residencyDomain === 'absent' ? 0 : 1) + (sessionId === undefined ? 0 : 1))
  writer.string('worker_id').integer(event.workerId).string('storage_tier').string(event.storageTier)
  if (residencyDomain === 'unsupported') writer.string('residency_domain').nil()
  else if (residencyDomain !== 'absent') writer.string('residency_domain').string(residencyDomain)
  writer.string('event').mapHeader(3).string('event_id').integer(event.eventId).string('data')
  writeData(writer, event.data)
  writer.string('dp_rank').integer(event.dpRank)
  if (sessionId !== undefined) writer.string('session_id').string(sessionId)
}

function writeData(writer: MsgpackWriter, data: KvEventData): void {
  if (data.kind === 'cleared') {
    writer.string('cleared')
    return
  }
  const count = hashCount(data.blockHashes)
  writer.mapHeader(1).string(data.kind)
  if (data.kind === 'removed') {
    writer.mapHeader(1).string('block_hashes').arrayHeader(count)
    for (let index = 0; index < count; index += 1) writer.hash(data.blockHashes, index)
    return
  }
  writer.mapHeader(3).string('parent_hash')
  if (data.parentHash === null) writer.nil()
  else writer.integer(data.parentHash)
  writer.string('start_position')
  if (data.startPosition === null) writer.nil()
  else writer.integer(data.startPosition)
  writer.string('blocks').arrayHeader(count)
  for (let index = 0; index < count; index += 1) {
    writer.mapHeader(3).string('block_hash').hash(data.blockHashes, index).string('tokens_hash').hash(data.tokensHashes, index)
    writer.string('mm_extra_info')
    writeBlockMmInfo(writer, data.mmInfos?.[index] ?? null)
  }
}

// ---- Plain values (JSON bodies) --------------------------------------------------------------------------------------------

/** An event that was decoded as plain values, integers as numbers or bigints. Errors: WireError. */
export const routerEventFromValue = (value: MsgpackValue): RouterEvent => decodeKvEvent(new MsgpackWriter(1024).value(value).finish())

/** An event as plain values with Dynamo's field names; integers beyond 2^53 are bigints. */
export const routerEventToValue = (event: RouterEvent): MsgpackValue => decodePayload('kv event', encodeKvEvent(event), (cursor) => cursor.readValue())
