/**
 * Stored blocks in the one encoding that Dynamo gives them when they have no multimodal content: 57 bytes, of which 41 are always
 * the same. Other encodings of the same are for general reading.
 */
import type { MsgpackCursor } from '../../msgpack/cursor.ts'

/** A map of three: a name and a 64-bit integer, a name and a 64-bit integer, a name and nil. */
const layout = Buffer.concat([
  Buffer.from([0x83, 0xaa]), Buffer.from('block_hash'), Buffer.from([0xcf, 0, 0, 0, 0, 0, 0, 0, 0, 0xab]), Buffer.from('tokens_hash'),
  Buffer.from([0xcf, 0, 0, 0, 0, 0, 0, 0, 0, 0xad]), Buffer.from('mm_extra_info'), Buffer.from([0xc0]),
])
const blockBytes = layout.length
const nameAt = layout.indexOf(0xcf) + 1
const localAt = layout.indexOf(0xcf, nameAt) + 1

// The fixed bytes as words, the last word of each stretch overlapping the one before. Constants of their own, so that a
// comparison is one load and one compare.
const [at1, at2, at3, at4, at5, at6, at7, at8, at9, at10, at11] = [4, 8, 9, 21, 25, 29, 30, 42, 46, 50, 53] as const
const word0 = layout.readInt32BE(0)
const word1 = layout.readInt32BE(at1)
const word2 = layout.readInt32BE(at2)
const word3 = layout.readInt32BE(at3)
const word4 = layout.readInt32BE(at4)
const word5 = layout.readInt32BE(at5)
const word6 = layout.readInt32BE(at6)
const word7 = layout.readInt32BE(at7)
const word8 = layout.readInt32BE(at8)
const word9 = layout.readInt32BE(at9)
const word10 = layout.readInt32BE(at10)
const word11 = layout.readInt32BE(at11)

const isPlain = (view: DataView, at: number): boolean =>
  view.getInt32(at) === word0 && view.getInt32(at + at1) === word1 && view.getInt32(at + at2) === word2 && view.getInt32(at + at3) === word3 &&
  view.getInt32(at + at4) === word4 && view.getInt32(at + at5) === word5 && view.getInt32(at + at6) === word6 && view.getInt32(at + at7) === word7 &&
  view.getInt32(at + at8) === word8 && view.getInt32(at + at9) === word9 && view.getInt32(at + at10) === word10 && view.getInt32(at + at11) === word11

/**
 * Reads plain blocks as long as they follow one another, at most `count`, into the lists from their beginning. Returns how many;
 * the cursor then stands before the first item that is otherwise.
 */
export function readPlainBlocks(cursor: MsgpackCursor, names: Uint32Array, locals: Uint32Array, count: number): number {
  const { view } = cursor
  let at = cursor.offset
  const most = Math.min(count, Math.floor((cursor.end - at) / blockBytes))
  let read = 0
  for (; read < most && isPlain(view, at); read += 1) {
    const word = 2 * read
    names[word + 1] = view.getInt32(at + nameAt)
    names[word] = view.getInt32(at + nameAt + 4)
    locals[word + 1] = view.getInt32(at + localAt)
    locals[word] = view.getInt32(at + localAt + 4)
    at += blockBytes
  }
  cursor.offset = at
  return read
}
