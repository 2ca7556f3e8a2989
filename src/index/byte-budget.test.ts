/** Goal: an index with a byte budget stays within it, forgets what nobody uses, counts it, and keeps what is asked for. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hashAt, type HashList } from '../model/hash-list.ts'
import { createOverlapScores } from './overlap-scores.ts'
import { createPrefixIndex, type TieredPrefixIndex } from './prefix-index.ts'

const blocks = 64
const ranks = 4

/** A conversation's hashes; names equal contents. */
const conversation = (number: number): HashList =>
  Uint32Array.from({ length: 2 * blocks }, (_, word) => Math.imul(number * 2 * blocks + word + 1, 0x9e3779b1) >>> 0)

function store(index: TieredPrefixIndex, slot: number, hashes: HashList): void {
  for (let from = 0; from < blocks; from += 16) {
    const part = hashes.slice(2 * from, 2 * (from + 16))
    const parentHash = from === 0 ? null : hashAt(hashes, from - 1)
    assert.equal(index.apply(slot, 'device', { kind: 'stored', parentHash, startPosition: null, mmInfos: null, blockHashes: part, tokensHashes: part }), 'ok')
  }
}

function found(index: TieredPrefixIndex, hashes: HashList, slot: number): number {
  const scores = createOverlapScores(ranks)
  index.find(hashes, scores)
  return scores.device[slot]!
}

test('a flood of prompts stays within the budget; what is asked for is kept, what is not goes and is counted', () => {
  const bytesMax = 4 * 1024 * 1024
  const index = createPrefixIndex({ bytesMax })
  const loved = conversation(0)
  store(index, 1, loved)
  const count = 6000
  for (let number = 1; number <= count; number += 1) {
    store(index, number % ranks, conversation(number))
    assert.equal(found(index, loved, 1), blocks, `after ${number}`)
    assert.ok(index.bytesReserved <= bytesMax, `${index.bytesReserved} bytes after ${number}`)
  }
  assert.equal(index.entryCount + index.evictedCount, blocks * (count + 1))
  assert.ok(index.entryCount > bytesMax / 85, `${index.entryCount} entries are left`)
  assert.equal(found(index, conversation(1), 1), 0)
  assert.equal(found(index, conversation(count), count % ranks), blocks)
  assert.equal(index.capacityRefusals, 0)
})

test('prompts that several ranks hold, also in part, go for all of them; tiers below are refused instead', () => {
  const index = createPrefixIndex({ bytesMax: 1024 * 1024 })
  for (let number = 0; number < 1500; number += 1) {
    const hashes = conversation(number)
    for (let slot = 0; slot < ranks - 1; slot += 1) store(index, slot, hashes)
    const half = hashes.slice(0, blocks)
    assert.equal(index.apply(ranks - 1, 'device', { kind: 'stored', parentHash: null, startPosition: null, mmInfos: null, blockHashes: half, tokensHashes: half }), 'ok')
  }
  assert.ok(index.evictedCount > 0)
  const gone = conversation(0)
  for (let slot = 0; slot < ranks; slot += 1) assert.equal(found(index, gone, slot), 0)
  const stored = { kind: 'stored', parentHash: null, startPosition: null, mmInfos: null, blockHashes: gone, tokensHashes: gone } as const
  assert.equal(index.apply(0, 'host_pinned', stored), 'capacity_exhausted')
  assert.equal(index.capacityRefusals, 1)
  for (let slot = 0; slot < ranks; slot += 1) index.dropRank(slot)
  assert.equal(index.entryCount, 0)
  assert.equal(index.recordCount, 0)
})
