/** The shared HiCache: layouts from cards, names of pages, events of a master that is a double, and what is looked up. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import * as zmq from 'zeromq'
import { encode } from '@msgpack/msgpack'
import type { HicacheLayout } from '../../model/shared-cache.ts'
import { sharedBlocksBeyond } from '../../model/shared-cache.ts'
import { hicacheLayoutOf } from './hicache-layout.ts'
import { HicacheFollower } from './hicache-follower.ts'
import { HicacheIndex } from './hicache-index.ts'
import { objectSuffixes, pageHashes } from './hicache-keys.ts'

const layout: HicacheLayout = {
  backend: 'mooncake', pageSize: 4, tpSize: 1, ppSize: 1, isMla: false, isEagle: false, tpLcmSize: null, splitsHeads: false, keyPrefix: '', eventsEndpoint: 'tcp://127.0.0.1:1',
}
const tokens = Uint32Array.from({ length: 14 }, (_, index) => index + 1)
const sha = (...parts: readonly Uint8Array[]): Buffer => parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest()
const words = (...values: readonly number[]): Uint8Array => new Uint8Array(Uint32Array.from(values).buffer)

test('page hashes chain SHA-256 over little-endian tokens, complete pages only', () => {
  const first = sha(words(1, 2, 3, 4))
  assert.deepEqual(pageHashes(tokens.subarray(0, 10), layout), [first.toString('hex'), sha(first, words(5, 6, 7, 8)).toString('hex')])
  // As SGLang computes it for these tokens.
  assert.equal(pageHashes(tokens, layout)[0], 'cf97adeedb59e05bfd73a2b4c2a8885708c4f4f70c84c64b27120e72ab733b72')
  const pairs = sha(words(10, 11, 11, 12))
  assert.deepEqual(pageHashes(Uint32Array.of(10, 11, 12, 13, 14), { pageSize: 2, isEagle: true }), [pairs.toString('hex'), sha(pairs, words(12, 13, 13, 14)).toString('hex')])
  assert.deepEqual(pageHashes(new Uint32Array(0), { pageSize: 2, isEagle: true }), [])
})

test('a page is stored in objects per tensor rank and pipeline stage', () => {
  assert.deepEqual(objectSuffixes(layout), ['_0_k', '_0_v'])
  assert.deepEqual(objectSuffixes({ ...layout, tpSize: 2, ppSize: 2 }), ['_0_0_k', '_0_0_v', '_1_0_k', '_1_0_v', '_0_1_k', '_0_1_v', '_1_1_k', '_1_1_v'])
  assert.deepEqual(objectSuffixes({ ...layout, tpSize: 2, splitsHeads: true, tpLcmSize: 4 }).length, 8)
  assert.deepEqual(objectSuffixes({ ...layout, isMla: true, tpSize: 8 }), ['__k'])
  assert.deepEqual(objectSuffixes({ ...layout, isMla: true, ppSize: 2 }), ['_0_k', '_1_k'])
})

const entry = { backend: 'mooncake', page_size: 4, tp_size: 1, pp_size: 1, is_mla_model: false, is_eagle: false, tp_lcm_size: null, should_split_heads: false }
const card = (fields: object) => ({ runtime_config: { runtime_data: { sglang_hicache_mooncake: { ...entry, ...fields } } } }) as never

test('the layout is read from the card of a worker', () => {
  assert.deepEqual(hicacheLayoutOf(card({ key_prefix: 'tag_model', extra_backend_tag: 'tag', kv_events_endpoint: 'tcp://m:5557' })), { ...layout, keyPrefix: 'tag_model', eventsEndpoint: 'tcp://m:5557' })
  assert.equal(hicacheLayoutOf(card({ extra_backend_tag: 'tag' }))?.keyPrefix, 'tag')
  for (const other of [{}, { runtime_config: 3 }, card({ page_size: 0 }), card({ tp_size: 'x' }), card({ backend: null })]) assert.equal(hicacheLayoutOf(other as never), null)
})

const sequenceFrame = (sequence: number): Uint8Array => { const frame = Buffer.alloc(8); frame.writeBigUInt64BE(BigInt(sequence)); return frame }
const message = (sequence: number, events: readonly object[]): Uint8Array[] => [new Uint8Array(0), sequenceFrame(sequence), encode([0, events, 0])]
const stored = (key: string, more: object = {}): object => ({ event_type: 'stored', object_key: key, tenant_id: 'default', group_id: null, ...more })
const hashes = pageHashes(tokens, layout)
const page = (index: number): object[] => ['_0_k', '_0_v'].map((suffix) => stored(`${hashes[index]}${suffix}`))
const query = { tokens, blockSize: 4 }

function filled(): HicacheIndex {
  const index = new HicacheIndex()
  index.setWorker(1n, layout)
  index.take(message(5, [...page(0), ...page(2)]))
  return index
}

test('a page counts when all its objects are there; ranges and what lies beyond a position', () => {
  const index = filled()
  assert.deepEqual(index.hits(query), { ranges: [[0, 1], [2, 3]], total: 2, error: null })
  index.take(message(6, [stored(`${hashes[1]}_0_k`)]))
  assert.equal(index.hits(query).total, 2)
  index.take(message(7, [stored(`${hashes[1]}_0_v`)]))
  const hits = index.hits(query)
  assert.deepEqual(hits, { ranges: [[0, 3]], total: 3, error: null })
  assert.deepEqual([0, 1, 3, 9].map((position) => sharedBlocksBeyond(hits, position)), [3, 2, 0, 0])
  index.take(message(8, [{ event_type: 'removed', object_key: `${hashes[0]}_0_v`, tenant_id: '' }, { event_type: 'other', object_key: 'x' }]))
  assert.deepEqual(index.hits(query).ranges, [[1, 3]])
})

test('a gap forgets everything, a repeated message nothing; other tenants and namespaces are not ours', () => {
  const index = filled()
  index.take(message(5, [{ event_type: 'removed', object_key: `${hashes[0]}_0_k` }]))
  assert.equal(index.hits(query).total, 2)
  index.take(message(7, page(1)))
  assert.deepEqual([index.hits(query).ranges, index.stats.gaps], [[[1, 2]], 1])
  index.take(message(8, page(2).map((event) => ({ ...event, tenant_id: 'other' }))))
  assert.deepEqual(index.hits(query).ranges, [[1, 2]])
  assert.equal(index.hits({ ...query, cacheNamespace: 'tenant' }).total, 0)
  assert.equal(index.hits({ ...query, cacheNamespace: '' }).total, 1)
})

test('workers that differ, other page sizes and other stores give a reason and no hits', () => {
  const index = filled()
  assert.match(index.hits({ ...query, blockSize: 8 }).error ?? '', /pages of 4 tokens do not match blocks of 8/)
  index.setWorker(2n, { ...layout, tpSize: 2 })
  assert.match(index.hits(query).error ?? '', /differ in the layout/)
  index.setWorker(2n, { ...layout, eventsEndpoint: 'tcp://other:1' })
  assert.match(index.hits(query).error ?? '', /different addresses/)
  index.setWorker(2n, { ...layout, eventsEndpoint: null })
  assert.equal(index.hits(query).error, null)
  index.setWorker(2n, null)
  index.setWorker(1n, null)
  assert.match(index.hits(query).error ?? '', /no worker tells/)
  assert.equal(index.objectCount, 0)
})

test('unreadable messages are counted, the bound on objects forgets all and is counted', () => {
  const index = new HicacheIndex({ objectsMax: 3 })
  index.setWorker(1n, layout)
  for (const frames of [[], [new Uint8Array(0)], [new Uint8Array(0), sequenceFrame(1), Uint8Array.of(0xc1)], [new Uint8Array(0), sequenceFrame(1), encode([1])], [new Uint8Array(0), sequenceFrame(1), encode([0, [7], 0])]]) index.take(frames)
  assert.deepEqual([index.stats.badMessages, index.stats.batches], [5, 0])
  index.take(message(1, [...page(0), ...page(1)]))
  assert.deepEqual([index.objectCount, index.stats.overflows], [0, 1])
})

test('the follower hears a master at the address of the cards, and another one after a change', async () => {
  const index = new HicacheIndex()
  const quiet = { debug() {}, info() {}, warn() {}, error() {} }
  const follower = new HicacheFollower(index, quiet)
  const masters = await Promise.all([1, 2].map(async () => {
    const master = new zmq.Publisher({ linger: 0 })
    await master.bind('tcp://127.0.0.1:0')
    return master
  }))
  try {
    let sequence = 1
    for (const [at, master] of masters.entries()) {
      index.setWorker(1n, { ...layout, eventsEndpoint: master.lastEndpoint })
      assert.equal(index.objectCount, 0)
      // A subscription takes a moment: what was sent before it is lost, as with the real one.
      while (index.hits(query).total === 0) {
        await master.send(message(sequence++, page(at)) as never)
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
      assert.deepEqual(index.hits(query).ranges, [[at, at + 1]])
    }
  } finally {
    follower.close()
    for (const master of masters) master.close()
  }
})
