/**
 * Raw KV event messages of inference engines, from bytes to values.
 *
 * vLLM, SGLang and TensorRT-LLM publish MessagePack batches `[time, [events], rank]` whose events are tagged maps or tagged
 * arrays; both are read, mixed. A batch with one undecodable event is refused whole. Source: router-algorithm 3 and 3.1.
 */
import type { RawEvent, RawEventBatch } from '../kv-events/raw-event.ts'
import type { HashList } from '../model/hash-list.ts'
import type { BlockMmInfo } from '../model/kv-event.ts'
import { KeyTable, MsgpackCursor, MsgpackError } from '../msgpack/cursor.ts'
import { mmInfosOfExtraKeys, namespaceOfExtraKeys, readBlockMmInfos, readExtraKeys, readTextOrBytes, readTokenIds, type ExtraKeys } from './raw-kv-fields.ts'

export type RawBatchOutcome =
  | { readonly kind: 'batch'; readonly batch: RawEventBatch }
  /** `reason` says what was expected at which byte. */
  | { readonly kind: 'refused'; readonly reason: string }

/** The events of one payload. Never throws. Bytes behind the batch are ignored. */
export function decodeRawBatch(payload: Uint8Array): RawBatchOutcome {
  try {
    return { kind: 'batch', batch: readBatch(new MsgpackCursor(payload)) }
  } catch (error) {
    if (error instanceof MsgpackError) return { kind: 'refused', reason: error.message }
    throw error
  }
}

export type RawMessageOutcome =
  | { readonly kind: 'message'; readonly sequence: bigint; readonly payload: Uint8Array }
  | { readonly kind: 'refused'; readonly reason: string }

/** The parts of an engine's ZMQ message: topic, 8-byte big-endian sequence, payload. */
export function decodeRawMessage(frames: readonly Uint8Array[]): RawMessageOutcome {
  const [, sequence, payload] = frames
  if (frames.length !== 3 || sequence === undefined || payload === undefined) {
    return { kind: 'refused', reason: `${frames.length} frames instead of topic, sequence and payload` }
  }
  if (sequence.length !== 8) return { kind: 'refused', reason: `a sequence of ${sequence.length} bytes instead of 8` }
  return { kind: 'message', sequence: new DataView(sequence.buffer, sequence.byteOffset, 8).getBigUint64(0), payload }
}

function readBatch(cursor: MsgpackCursor): RawEventBatch {
  const size = cursor.readArrayHeader()
  if (size !== 3) throw new MsgpackError(`a batch of ${size} elements instead of 3`, 0)
  cursor.readNumber()
  const events: RawEvent[] = []
  for (let left = cursor.readArrayHeader(); left > 0; left -= 1) {
    const family = cursor.peek()
    if (family === 'map') events.push(readMapEvent(cursor))
    else if (family === 'array') events.push(readArrayEvent(cursor))
    else throw new MsgpackError(`expected an event, found ${family}`, cursor.offset)
  }
  return { events, dpRank: cursor.tryNil() ? null : readI32(cursor) >>> 0 }
}

function readI32(cursor: MsgpackCursor): number {
  const start = cursor.offset
  const value = cursor.readInteger()
  if (typeof value !== 'number' || value < -0x80000000 || value > 0x7fffffff) throw new MsgpackError(`rank ${value} is not an i32`, start)
  return value
}

// ---- Fields that both forms share ------------------------------------------------------------------------------------------

/** What has been read of an event; null: not seen, or nil. All fields from the beginning: objects of one shape. */
class Fields {
  tag: string | null = null
  blockHashes: HashList | null = null
  parentHash: bigint | null = null
  tokens: { readonly tokens: Uint32Array; readonly isEagle: boolean } | null = null
  blockSize: number | null = null
  medium: string | null = null
  loraName: string | null = null
  /** The event's own namespace; empty means none and wins over the extra keys. */
  cacheSalt: string | null = null
  extraKeys: ExtraKeys | null = null
  mmInfos: readonly (BlockMmInfo | null)[] | null = null
  groupIndex: number | null = null
  attentionKind: string | null = null
  locality: string | null = null
  ownership: string | null = null
  sessionId: string | null = null
}

const readText = (cursor: MsgpackCursor): string | null => (cursor.tryNil() ? null : readTextOrBytes(cursor))
/** A locality by name, or by its place in Dynamo's enumeration. */
function readLocality(cursor: MsgpackCursor): string | null {
  if (cursor.peek() !== 'integer') return readText(cursor)
  const index = cursor.readBigU64()
  return index === 0n ? 'LOCAL' : index === 1n ? 'REMOTE' : `locality ${index}`
}
const readUint = (cursor: MsgpackCursor): number | null => (cursor.tryNil() ? null : cursor.readU32())

function readHashes(cursor: MsgpackCursor): HashList {
  const count = cursor.readArrayHeader()
  const hashes = new Uint32Array(2 * count)
  for (let index = 0; index < count; index += 1) cursor.readHash(hashes, index)
  return hashes
}

function readParent(cursor: MsgpackCursor): bigint | null {
  if (cursor.tryNil()) return null
  cursor.readHash(parentWords, 0)
  return wideParent[0]!
}

/** One hash, as halves and whole. */
const parentWords = new Uint32Array(2)
const wideParent = new BigUint64Array(parentWords.buffer)

/** A whole number from 0 on; beyond 2^53 it only has to differ from every block size. */
const readSize = (cursor: MsgpackCursor): number => Number(cursor.readBigU64())

const missing = (fields: Fields, name: string, offset: number): never => { throw new MsgpackError(`${fields.tag ?? 'event'} without ${name}`, offset) }

/** The event that the fields make. Errors: a required field that was not seen. */
function eventOf(fields: Fields, offset: number): RawEvent {
  const { blockHashes, locality, ownership, groupIndex, attentionKind } = fields
  const medium = fields.medium === '' ? null : fields.medium
  switch (fields.tag) {
    case 'Ignored': return { kind: 'ignored' }
    case 'AllBlocksCleared': return { kind: 'cleared', ownership }
    case 'BlockRemoved': return { kind: 'removed', blockHashes: blockHashes ?? missing(fields, 'block_hashes', offset), medium, locality, ownership, groupIndex, attentionKind }
    case 'BlockStored': {
      const { loraName, extraKeys } = fields
      const { tokens, isEagle } = fields.tokens ?? missing(fields, 'token_ids', offset)
      return {
        kind: 'stored', medium, locality, ownership, groupIndex, attentionKind, loraName, tokens, isEagle,
        blockHashes: blockHashes ?? missing(fields, 'block_hashes', offset), parentHash: fields.parentHash,
        blockSize: fields.blockSize ?? missing(fields, 'block_size', offset),
        cacheNamespace: fields.cacheSalt ?? (extraKeys === null ? null : namespaceOfExtraKeys(extraKeys, loraName)),
        mmInfos: fields.mmInfos ?? (extraKeys === null ? null : mmInfosOfExtraKeys(extraKeys)), sessionId: fields.sessionId,
      }
    }
    case null: throw new MsgpackError('an event without type', offset)
    default: throw new MsgpackError(`unknown event type ${JSON.stringify(fields.tag.slice(0, 40))}`, offset)
  }
}

// ---- Map form --------------------------------------------------------------------------------------------------------------

const mapKeys = new KeyTable([
  'type', 'block_hashes', 'parent_block_hash', 'token_ids', 'block_size', 'medium', 'lora_name', 'cache_salt', 'extra_keys', 'block_mm_infos',
  'group_idx', 'kv_cache_spec_kind', 'kv_cache_spec_sliding_window', 'locality', 'ownership', 'session_id',
])

const mapReaders: readonly ((cursor: MsgpackCursor, fields: Fields) => void)[] = [
  (cursor, fields) => { fields.tag = readTextOrBytes(cursor) },
  (cursor, fields) => { fields.blockHashes = readHashes(cursor) },
  (cursor, fields) => { fields.parentHash = readParent(cursor) },
  (cursor, fields) => { fields.tokens = readTokenIds(cursor) },
  (cursor, fields) => { fields.blockSize = readSize(cursor) },
  (cursor, fields) => { fields.medium = readText(cursor) },
  (cursor, fields) => { fields.loraName = readText(cursor) },
  (cursor, fields) => { fields.cacheSalt = readText(cursor) },
  (cursor, fields) => { fields.extraKeys = cursor.tryNil() ? null : readExtraKeys(cursor) },
  (cursor, fields) => { fields.mmInfos = cursor.tryNil() ? null : readBlockMmInfos(cursor) },
  (cursor, fields) => { fields.groupIndex = readUint(cursor) },
  (cursor, fields) => { fields.attentionKind = readText(cursor) },
  (cursor) => { readUint(cursor) },
  (cursor, fields) => { fields.locality = readLocality(cursor) },
  (cursor, fields) => { fields.ownership = readText(cursor) },
  (cursor, fields) => { fields.sessionId = readText(cursor) },
]

function readMapEvent(cursor: MsgpackCursor): RawEvent {
  const start = cursor.offset
  const fields = new Fields()
  let hint = 0
  for (let left = cursor.readMapHeader(); left > 0; left -= 1) {
    const key = cursor.readKey(mapKeys, hint)
    hint = key + 1
    const read = mapReaders[key]
    if (read === undefined) cursor.skip()
    else read(cursor, fields)
  }
  return eventOf(fields, start)
}

// ---- Array form ------------------------------------------------------------------------------------------------------------

function readArrayEvent(cursor: MsgpackCursor): RawEvent {
  const start = cursor.offset
  const size = cursor.readArrayHeader()
  if (size === 0) throw new MsgpackError('an event without tag', start)
  const fields = new Fields()
  fields.tag = readTextOrBytes(cursor)
  let left = size - 1
  const next = (): boolean => (left -= 1) >= 0
  switch (fields.tag) {
    case 'BlockStored':
      if (next()) fields.blockHashes = readHashes(cursor)
      if (next()) fields.parentHash = readParent(cursor)
      if (next()) fields.tokens = readTokenIds(cursor)
      if (next()) fields.blockSize = readSize(cursor)
      // The adapter's number of old producers: read and not used.
      if (next() && !cursor.tryNil()) cursor.readBigU64()
      if (next()) fields.medium = readText(cursor)
      if (next()) readLoraOrSalt(cursor, fields)
      if (next()) fields.extraKeys = cursor.tryNil() ? null : readExtraKeys(cursor)
      left = readTrailing(cursor, fields, Math.max(left, 0), true)
      break
    case 'BlockRemoved':
      if (next()) fields.blockHashes = readHashes(cursor)
      if (next()) fields.medium = readText(cursor)
      left = readTrailing(cursor, fields, Math.max(left, 0), false)
      break
    case 'AllBlocksCleared':
      if (next()) fields.ownership = readText(cursor)
      break
    default:
  }
  for (; left > 0; left -= 1) cursor.skip()
  return eventOf(fields, start)
}

const saltKeys = new KeyTable(['cache_salt'])

/** Slot 7: the adapter's name, or SGLang's `{"cache_salt": "…"}`, which counts when it is not empty. */
function readLoraOrSalt(cursor: MsgpackCursor, fields: Fields): void {
  if (cursor.peek() !== 'map') { fields.loraName = readText(cursor); return }
  const start = cursor.offset
  let salt: string | null = null
  for (let left = cursor.readMapHeader(); left > 0; left -= 1) {
    if (cursor.readKey(saltKeys, 0) === 0) salt = readTextOrBytes(cursor)
    else cursor.skip()
  }
  if (salt === null) throw new MsgpackError('metadata without cache_salt', start)
  fields.cacheSalt = salt || null
}

type TrailingSlot = null | number | string | readonly (BlockMmInfo | null)[] | 'other'
interface Trailing { readonly kind: 'absent' | 'uint' | 'text' | 'infos' | 'other'; readonly value: TrailingSlot }

const trailingMax = 5

/** Reads up to five slots behind the fixed ones; returns how many elements are left. */
function readTrailing(cursor: MsgpackCursor, fields: Fields, left: number, withInfos: boolean): number {
  if (left === 0) return 0
  const slots: Trailing[] = []
  for (; slots.length < trailingMax && slots.length < left;) slots.push(readSlot(cursor, withInfos))
  if (slots.length >= 4 && !slots.some(({ kind }) => kind === 'infos') && isPositional(slots)) {
    fields.groupIndex = uintOf(slots[0])
    fields.attentionKind = textOf(slots[1])
    fields.locality = textOf(slots[3])
    fields.ownership = textOf(slots[4])
  } else {
    for (const slot of slots) {
      if (slot.kind === 'uint') fields.groupIndex ??= uintOf(slot)
      else if (slot.kind === 'text') fields.attentionKind = textOf(slot)
      else if (slot.kind === 'infos') fields.mmInfos = slot.value as readonly (BlockMmInfo | null)[]
    }
  }
  return left - slots.length
}

const positionalKinds = ['uint', 'text', 'uint', 'text', 'text'] as const
const isPositional = (slots: readonly Trailing[]): boolean =>
  slots.every(({ kind }, index) => kind === 'absent' || kind === positionalKinds[index])
const uintOf = (slot: Trailing | undefined): number | null => (slot?.kind === 'uint' ? (slot.value as number) : null)
const textOf = (slot: Trailing | undefined): string | null => (slot?.kind === 'text' ? (slot.value as string) : null)

function readSlot(cursor: MsgpackCursor, withInfos: boolean): Trailing {
  if (cursor.tryNil()) return { kind: 'absent', value: null }
  const start = cursor.offset
  const family = cursor.peek()
  try {
    if (family === 'integer') return { kind: 'uint', value: cursor.readU32() }
    if (family === 'string' || family === 'binary') return { kind: 'text', value: readTextOrBytes(cursor) }
    if (family === 'array' && withInfos) return { kind: 'infos', value: readBlockMmInfos(cursor) }
  } catch (error) {
    if (!(error instanceof MsgpackError)) throw error
    cursor.offset = start
  }
  cursor.skip()
  return { kind: 'other', value: null }
}
