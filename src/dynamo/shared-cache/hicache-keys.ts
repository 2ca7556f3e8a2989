/** Names of SGLang's pages in a Mooncake store: SHA-256 chains over tokens, and the objects that make up a page. */
import { createHash } from 'node:crypto'
import type { HicacheLayout } from '../../model/shared-cache.ts'

/**
 * Page hashes of a prompt's complete pages, lower-case hex. Each is SHA-256 over the digest before it and the page's tokens as
 * 32-bit little endian; with EAGLE a token stands with the one behind it.
 *
 * Cost: one digest per page.
 */
export function pageHashes(tokens: Uint32Array, layout: Pick<HicacheLayout, 'pageSize' | 'isEagle'>): string[] {
  const { pageSize, isEagle } = layout
  const units = isEagle ? Math.max(0, tokens.length - 1) : tokens.length
  const words = isEagle ? pairsOf(tokens, units) : tokens
  const width = isEagle ? 2 * pageSize : pageSize
  const hashes: string[] = []
  const bytes = new Uint8Array(4 * width)
  const view = new DataView(bytes.buffer)
  let prior: Uint8Array | null = null
  for (let page = 0; page < Math.floor(units / pageSize); page++) {
    for (let index = 0; index < width; index++) view.setUint32(4 * index, words[page * width + index]!, true)
    const hash = createHash('sha256')
    if (prior !== null) hash.update(prior)
    prior = hash.update(bytes).digest()
    hashes.push(Buffer.from(prior).toString('hex'))
  }
  return hashes
}

function pairsOf(tokens: Uint32Array, count: number): Uint32Array {
  const pairs = new Uint32Array(2 * count)
  for (let index = 0; index < count; index++) {
    pairs[2 * index] = tokens[index]!
    pairs[2 * index + 1] = tokens[index + 1]!
  }
  return pairs
}

/** Ends of the object names of a page, the same for all pages of a layout. */
export function objectSuffixes(layout: HicacheLayout): string[] {
  const { tpSize, ppSize, isMla, splitsHeads, tpLcmSize } = layout
  const stages = Array.from({ length: ppSize }, (_, stage) => stage)
  // One copy of the keys per pipeline stage, and nothing between the underscores without stages.
  if (isMla) return ppSize > 1 ? stages.map((stage) => `_${stage}_k`) : ['__k']
  const ranks = splitsHeads ? Math.max(tpLcmSize ?? tpSize, tpSize) : tpSize
  return stages.flatMap((stage) => Array.from({ length: ranks }, (_, rank) => (ppSize > 1 ? `_${rank}_${stage}` : `_${rank}`)))
    .flatMap((place) => [`${place}_k`, `${place}_v`])
}

/** What stands before a page's hash. */
export const keyStart = ({ keyPrefix }: HicacheLayout): string => (keyPrefix === '' ? '' : `${keyPrefix}_`)
