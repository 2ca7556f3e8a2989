/** Multimodal objects of a prompt, as block hashing needs them. Source: router-algorithm 1.4. */
import type { BlockMmInfo, MmObject } from '../model/kv-event.ts'
import { sharedHasher } from './block-hasher.ts'

/** The token that stands for an object in routing: `1_000_000 + mmHash mod 2^30`. */
export const padToken = (mmHash: bigint): number => 1_000_000 + Number(mmHash & 0x3fffffffn)

/** Hash of a textual object identifier; null for the empty one. 64 hex digits: the first 16 as u64; else XXH3-64 of the text. */
export function mmIdentifierHash(identifier: string): bigint | null {
  if (identifier === '') return null
  if (/^[0-9a-f]{64}$/i.test(identifier)) return BigInt(`0x${identifier.slice(0, 16)}`)
  return sharedHasher().hashText(identifier, 0n)
}

/**
 * Objects with offsets in the whole prompt, as infos per block with offsets in the block.
 *
 * Shape: `ceil(totalTokens / blockSize)` entries, null where no object reaches. Objects of one hash in a block are merged.
 */
export function blockMmInfosOf(objects: readonly MmObject[], totalTokens: number, blockSize: number): (BlockMmInfo | null)[] {
  if (blockSize <= 0) return []
  const blocks: (Map<bigint, [number, number][]> | null)[] = Array.from({ length: Math.ceil(totalTokens / blockSize) }, () => null)
  for (const { mmHash, offsets } of objects) {
    for (const [start, end] of offsets) {
      const stop = Math.min(end, totalTokens)
      for (let block = Math.floor(Math.max(0, start) / blockSize); block * blockSize < stop && block < blocks.length; block += 1) {
        const from = Math.max(start, block * blockSize)
        const to = Math.min(stop, (block + 1) * blockSize)
        if (from >= to) continue
        const ranges = (blocks[block] ??= new Map<bigint, [number, number][]>())
        const relative: [number, number] = [from - block * blockSize, to - block * blockSize]
        const known = ranges.get(mmHash)
        if (known === undefined) ranges.set(mmHash, [relative])
        else known.push(relative)
      }
    }
  }
  return blocks.map((ranges) =>
    ranges === null ? null : { mmObjects: Array.from(ranges, ([mmHash, offsets]) => ({ mmHash, offsets })) })
}
