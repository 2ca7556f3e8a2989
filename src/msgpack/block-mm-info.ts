/** Multimodal infos of a block, `{mm_objects: [{mm_hash, offsets: [[start, end]]}]}`: part of raw engine events and of the plane's. */
import type { BlockMmInfo, MmObject } from '../model/kv-event.ts'
import { KeyTable, MsgpackError, type MsgpackCursor } from './cursor.ts'
import type { MsgpackWriter } from './writer.ts'

const infoKeys = new KeyTable(['mm_objects'])
const objectKeys = new KeyTable(['mm_hash', 'offsets'])

/** The info at the cursor; unknown keys are passed over. Errors: another shape, a missing key. */
export function readBlockMmInfo(cursor: MsgpackCursor): BlockMmInfo {
  const start = cursor.offset
  let mmObjects: MmObject[] | null = null
  for (let left = cursor.readMapHeader(); left > 0; left -= 1) {
    if (cursor.readKey(infoKeys, 0) !== 0) { cursor.skip(); continue }
    mmObjects = []
    for (let items = cursor.readArrayHeader(); items > 0; items -= 1) mmObjects.push(readMmObject(cursor))
  }
  if (mmObjects === null) throw new MsgpackError('a block info without mm_objects', start)
  return { mmObjects }
}

function readMmObject(cursor: MsgpackCursor): MmObject {
  const start = cursor.offset
  let mmHash: bigint | null = null
  let offsets: [number, number][] | null = null
  for (let left = cursor.readMapHeader(), hint = 0; left > 0; left -= 1) {
    const key = cursor.readKey(objectKeys, hint)
    hint = key + 1
    if (key === 0) mmHash = cursor.readBigU64()
    else if (key === 1) offsets = readOffsets(cursor)
    else cursor.skip()
  }
  if (mmHash === null || offsets === null) throw new MsgpackError(`an object without ${mmHash === null ? 'mm_hash' : 'offsets'}`, start)
  return { mmHash, offsets }
}

function readOffsets(cursor: MsgpackCursor): [number, number][] {
  const offsets: [number, number][] = []
  for (let left = cursor.readArrayHeader(); left > 0; left -= 1) {
    const at = cursor.offset
    if (cursor.readArrayHeader() !== 2) throw new MsgpackError('offsets that are not pairs', at)
    offsets.push([readPosition(cursor), readPosition(cursor)])
  }
  return offsets
}

function readPosition(cursor: MsgpackCursor): number {
  const at = cursor.offset
  const value = cursor.readInteger()
  if (typeof value !== 'number' || value < 0) throw new MsgpackError(`${value} is not a token position`, at)
  return value
}

/** Appends an info, or nil. */
export function writeBlockMmInfo(writer: MsgpackWriter, info: BlockMmInfo | null): void {
  if (info === null) {
    writer.nil()
    return
  }
  writer.mapHeader(1).string('mm_objects').arrayHeader(info.mmObjects.length)
  for (const { mmHash, offsets } of info.mmObjects) {
    writer.mapHeader(2).string('mm_hash').integer(mmHash).string('offsets').arrayHeader(offsets.length)
    for (const [start, end] of offsets) writer.arrayHeader(2).integer(start).integer(end)
  }
}
