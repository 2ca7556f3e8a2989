/** Goal: tracking identities depend on what they must depend on, and wrong settings are refused. Values: golden kind `tracking_hash`. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { localBlockHashes, sequenceHashes } from './block-hashes.ts'
import { createTrackingHasher } from './tracking-hash.ts'
import { blockMmInfosOf, mmIdentifierHash, padToken } from './multimodal.ts'
import { xxh3 } from './xxh3.ts'

const tokens = Uint32Array.from({ length: 12 }, (_, index) => index)
const key = new Uint8Array(32).fill(7)
const keyed = { mode: 'keyed-xxh3-v1', key, keyId: 'k1', routingGroup: 'g' } as const

test('public identities are the public chain, computed or given', () => {
  const hasher = createTrackingHasher({ mode: 'public-xxh3-v1' }, { modelName: 'm' })
  const local = localBlockHashes(tokens, { blockSize: 4 })
  assert.deepEqual(hasher.hash(tokens, { blockSize: 4 }), sequenceHashes(local))
  assert.deepEqual(hasher.hash(tokens, { blockSize: 4 }, local), sequenceHashes(local))
})

test('keyed identities change with every part of their domain and are stable otherwise', () => {
  const options = { blockSize: 4, loraName: 'a', cacheNamespace: 'n' }
  const base = createTrackingHasher(keyed, { modelName: 'm' })
  const seen = new Set<string>()
  const add = (hashes: Uint32Array): void => { seen.add(hashes.join()) }
  add(base.hash(tokens, options))
  add(base.hash(tokens, { ...options, loraName: 'n', cacheNamespace: 'a' }))
  add(base.hash(tokens, { ...options, loraName: '' }))
  add(base.hash(tokens, { ...options, cacheNamespace: '' }))
  add(createTrackingHasher(keyed, { modelName: 'm2' }).hash(tokens, options))
  add(createTrackingHasher({ ...keyed, keyId: 'k2' }, { modelName: 'm' }).hash(tokens, options))
  add(createTrackingHasher({ ...keyed, routingGroup: 'h' }, { modelName: 'm' }).hash(tokens, options))
  add(createTrackingHasher({ ...keyed, key: new Uint8Array(32) }, { modelName: 'm' }).hash(tokens, options))
  add(createTrackingHasher({ mode: 'public-xxh3-v1' }, { modelName: 'm' }).hash(tokens, options))
  assert.equal(seen.size, 9)
  assert.deepEqual(base.hash(tokens, options), createTrackingHasher(keyed, { modelName: 'm' }).hash(tokens, options))
})

test('a key of another size or an untrimmed key id is refused', () => {
  assert.throws(() => createTrackingHasher({ ...keyed, key: new Uint8Array(31) }, { modelName: 'm' }), /31 bytes, not 32/)
  assert.throws(() => createTrackingHasher({ ...keyed, keyId: ' k' }, { modelName: 'm' }), /key id " k"/)
  assert.throws(() => createTrackingHasher({ ...keyed, keyId: '' }, { modelName: 'm' }), RangeError)
})

test('request offsets become offsets per block, of one object per hash and block', () => {
  const infos = blockMmInfosOf([{ mmHash: 9n, offsets: [[2, 9], [10, 11]] }, { mmHash: 5n, offsets: [[9, 40]] }], 14, 4)
  assert.deepEqual(infos, [
    { mmObjects: [{ mmHash: 9n, offsets: [[2, 4]] }] },
    { mmObjects: [{ mmHash: 9n, offsets: [[0, 4]] }] },
    { mmObjects: [{ mmHash: 9n, offsets: [[0, 1], [2, 3]] }, { mmHash: 5n, offsets: [[1, 4]] }] },
    { mmObjects: [{ mmHash: 5n, offsets: [[0, 2]] }] },
  ])
  assert.deepEqual(blockMmInfosOf([], 5, 4), [null, null])
  assert.deepEqual(blockMmInfosOf([{ mmHash: 1n, offsets: [[3, 3], [90, 99]] }], 5, 4), [null, null])
})

test('pad tokens and identifier hashes', () => {
  assert.equal(padToken((1n << 30n) + 5n), 1_000_005)
  assert.equal(mmIdentifierHash(''), null)
  assert.equal(mmIdentifierHash(`00000000000000fF${'a'.repeat(48)}`), 255n)
  assert.equal(mmIdentifierHash('image-0'), xxh3(new TextEncoder().encode('image-0'), 0n))
})
