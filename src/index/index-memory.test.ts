/** Goal: the bytes per entry that the README states. Method: a pool of conversations, then the bytes the index has reserved. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createPrefixIndex } from './prefix-index.ts'

const depth = 64
const shared = 16

/** A repeatable stand-in for hash words. */
function words(seed: number, count: number): Uint32Array {
  let state = seed >>> 0
  return Uint32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.imul(state ^ (state >>> 15), 0x85ebca6b) >>> 0
  })
}

/** `prompts` prompts of 64 blocks, the first 16 common to groups of 8, each stored in events of 16 blocks by `ranksPerPrompt` ranks. */
function fill(prompts: number, ranksPerPrompt: number, ownNames: boolean) {
  const index = createPrefixIndex()
  for (let prompt = 0; prompt < prompts; prompt += 1) {
    const locals = words(prompt + 1, 2 * depth)
    locals.set(words(-1 - (prompt >>> 3), 2 * shared))
    for (let copy = 0; copy < ranksPerPrompt; copy += 1) {
      // Names repeat what a chained hash gives: equal for equal prefixes.
      const names = words(prompt + 500_000, 2 * depth)
      names.set(words(prompt >>> 3, 2 * shared))
      if (ownNames) for (let i = 0; i < names.length; i += 2) names[i] = names[i]! ^ copy
      for (let from = 0; from < depth; from += 16) {
        const parentHash = from === 0 ? null : (BigInt(names[2 * from - 1]!) << 32n) | BigInt(names[2 * from - 2]!)
        const status = index.apply((prompt * 7 + copy) % 64, 'device', {
          kind: 'stored', parentHash, startPosition: null, mmInfos: null,
          blockHashes: names.subarray(2 * from, 2 * (from + 16)), tokensHashes: locals.subarray(2 * from, 2 * (from + 16)),
        })
        assert.equal(status, 'ok')
      }
    }
  }
  return index
}

for (const { name, prompts, ranks, ownNames, bytesMax } of [
  { name: 'each prompt on one rank', prompts: 4000, ranks: 1, ownNames: false, bytesMax: 70 },
  { name: 'each prompt on four ranks', prompts: 1500, ranks: 4, ownNames: false, bytesMax: 20 },
  { name: 'each prompt on four ranks of engines with own names', prompts: 1500, ranks: 4, ownNames: true, bytesMax: 75 },
]) {
  test(`bytes per (rank, block) entry: ${name}`, (context) => {
    const index = fill(prompts, ranks, ownNames)
    const bytes = index.bytesReserved / index.entryCount
    context.diagnostic(`${index.entryCount} entries, ${index.recordCount} records, ${bytes.toFixed(1)} bytes per entry reserved`)
    assert.ok(index.entryCount > 200_000, `${index.entryCount} entries`)
    assert.ok(bytes <= bytesMax, `${bytes} bytes per entry`)
  })
}
