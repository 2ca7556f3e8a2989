/** The compound fields of raw stored events: tokens, extra keys, multimodal infos. Source: router-algorithm 3.1. */
import type { BlockMmInfo, MmObject } from '../model/kv-event.ts'
import { readBlockMmInfo } from '../msgpack/block-mm-info.ts'
import { MsgpackError, type MsgpackCursor } from '../msgpack/cursor.ts'

/** Per block, the keys that are texts; `plain` is false for those that came with an offset. */
export type ExtraKeys = readonly (readonly ExtraKey[] | null)[]

interface ExtraKey {
  readonly text: string
  readonly plain: boolean
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** A text, also one that came as binary: Dynamo takes both. Errors: not UTF-8. */
export function readTextOrBytes(cursor: MsgpackCursor): string {
  if (cursor.peek() !== 'binary') return cursor.readString()
  const start = cursor.offset
  try {
    return utf8.decode(cursor.readBinary())
  } catch (error) {
    if (error instanceof MsgpackError) throw error
    throw new MsgpackError('a text that is not UTF-8', start)
  }
}

/** A list of tokens, or of token pairs (Eagle): then the first of each pair and the second of the last. */
export function readTokenIds(cursor: MsgpackCursor): { readonly tokens: Uint32Array; readonly isEagle: boolean } {
  const count = cursor.readArrayHeader()
  const isEagle = count > 0 && cursor.peek() === 'array'
  const tokens = new Uint32Array(isEagle ? count + 1 : count)
  if (!isEagle) cursor.readU32s(tokens, count)
  else for (let index = 0; index < count; index += 1) {
    expectPair(cursor)
    tokens[index] = cursor.readU32()
    tokens[index + 1] = cursor.readU32()
  }
  return { tokens, isEagle }
}

function expectPair(cursor: MsgpackCursor): void {
  const start = cursor.offset
  const size = cursor.readArrayHeader()
  if (size !== 2) throw new MsgpackError(`${size} elements instead of a pair`, start)
}

/** Errors: entries that are neither null nor a list of texts, numbers, booleans, bytes or pairs of text and offset. */
export function readExtraKeys(cursor: MsgpackCursor): ExtraKeys {
  const blocks: (readonly ExtraKey[] | null)[] = []
  for (let left = cursor.readArrayHeader(); left > 0; left -= 1) {
    if (cursor.tryNil()) { blocks.push(null); continue }
    const keys: ExtraKey[] = []
    for (let items = cursor.readArrayHeader(); items > 0; items -= 1) {
      const key = readExtraKey(cursor)
      if (key !== null) keys.push(key)
    }
    blocks.push(keys)
  }
  return blocks
}

function readExtraKey(cursor: MsgpackCursor): ExtraKey | null {
  const start = cursor.offset
  switch (cursor.peek()) {
    case 'string': case 'binary': return { text: readTextOrBytes(cursor), plain: true }
    case 'integer': case 'float': case 'boolean': cursor.skip(); return null
    case 'array': {
      const size = cursor.readArrayHeader()
      if (size === 2 && (cursor.peek() === 'string' || cursor.peek() === 'binary')) {
        const text = readTextOrBytes(cursor)
        cursor.readInteger()
        return { text, plain: false }
      }
      for (let left = size; left > 0; left -= 1) {
        const at = cursor.offset
        const byte = cursor.readInteger()
        if (byte < 0 || byte > 255) throw new MsgpackError(`extra key item ${byte} is not a byte`, at)
      }
      return null
    }
    default: throw new MsgpackError(`an extra key of family ${cursor.peek()}`, start)
  }
}

const saltPrefix = 'dynamo-cache-salt:'

/** The cache namespace in the first block's keys: the first text with Dynamo's prefix. A first text equal to the adapter's name is passed over. */
export function namespaceOfExtraKeys(extraKeys: ExtraKeys | null, loraName: string | null): string | null {
  let unmatchedLora = loraName === '' ? null : loraName
  for (const { text, plain } of extraKeys?.[0] ?? []) {
    if (!plain) continue
    if (unmatchedLora !== null && text === unmatchedLora) unmatchedLora = null
    else if (text.startsWith(saltPrefix) && text.length > saltPrefix.length) return text.slice(saltPrefix.length)
  }
  return null
}

/** Objects named by extra keys: 16 hex digits padded with zeros to 64. Null when there are none in any block. */
export function mmInfosOfExtraKeys(extraKeys: ExtraKeys | null): readonly (BlockMmInfo | null)[] | null {
  if (extraKeys === null) return null
  const infos = extraKeys.map((keys): BlockMmInfo | null => {
    const mmObjects = (keys ?? [])
      .filter(({ text }) => text.length === 64 && /^[0-9a-f]{16}0{48}$/i.test(text))
      .map(({ text }): MmObject => ({ mmHash: BigInt(`0x${text.slice(0, 16)}`), offsets: [] }))
    return mmObjects.length === 0 ? null : { mmObjects }
  })
  return infos.some((info) => info !== null) ? infos : null
}

/** `[null | {mm_objects: [{mm_hash, offsets: [[start, end]]}]}]`; unknown keys are ignored. Errors: other shapes, missing keys. */
export function readBlockMmInfos(cursor: MsgpackCursor): readonly (BlockMmInfo | null)[] {
  const infos: (BlockMmInfo | null)[] = []
  for (let left = cursor.readArrayHeader(); left > 0; left -= 1) infos.push(cursor.tryNil() ? null : readBlockMmInfo(cursor))
  return infos
}
