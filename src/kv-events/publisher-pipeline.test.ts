/** Goal: merging, reference counts, ids and message sizes of a publisher. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hashCount, hashesToBigints, hashListOf } from '../model/hash-list.ts'
import type { KvEventData, RouterEvent } from '../model/kv-event.ts'
import { BlockReferences, PublisherPipeline, publishGroups } from './publisher-pipeline.ts'

const event = (data: KvEventData, fields: Partial<RouterEvent> = {}): RouterEvent =>
  ({ workerId: 1n, dpRank: 0, storageTier: 'device', residencyDomain: 'worker', eventId: 0n, data, ...fields })
const stored = (parentHash: bigint | null, ...hashes: bigint[]): KvEventData =>
  ({ kind: 'stored', parentHash, startPosition: null, blockHashes: hashListOf(hashes), tokensHashes: hashListOf(hashes.map((hash) => hash + 100n)), mmInfos: null })
const removed = (...hashes: bigint[]): KvEventData => ({ kind: 'removed', blockHashes: hashListOf(hashes) })
const cleared: KvEventData = { kind: 'cleared' }
const range = (from: number, count: number): bigint[] => Array.from({ length: count }, (_, index) => BigInt(from + index))

const told = (events: readonly RouterEvent[]): string[] => events.map(({ eventId, data }) =>
  `${eventId} ${data.kind}${data.kind === 'cleared' ? '' : ` ${data.kind === 'stored' ? `${data.parentHash}: ` : ''}${hashesToBigints(data.blockHashes)}`}`)

test('a chain of stored events becomes one, as do removals side by side', () => {
  const pipeline = new PublisherPipeline()
  const out = pipeline.push([event(stored(null, 1n, 2n)), event(stored(2n, 3n)), event(removed(8n)), event(removed(9n)), event(stored(3n, 4n))])
  assert.deepEqual(told(out), ['1 stored null: 1,2,3', '2 removed 8,9', '3 stored 3: 4'])
  assert.equal(pipeline.lastEventId, 3n)
})

test('another rank, tier, session or parent ends a merge', () => {
  const next = stored(1n, 2n)
  for (const other of [event(next, { dpRank: 1 }), event(next, { storageTier: 'disk' }), event(next, { sessionId: 's' }), event(stored(7n, 2n))]) {
    assert.equal(new PublisherPipeline().push([event(stored(null, 1n)), other]).length, 2)
  }
})

test('an event without blocks is published, and takes in one without parent', () => {
  assert.deepEqual(told(new PublisherPipeline().push([event(stored(6n)), event(stored(null, 1n))])), ['1 stored 6: 1'])
  assert.deepEqual(told(new PublisherPipeline().push([event(stored(6n)), event(stored(7n))])), ['1 stored 6: ', '2 stored 7: '])
})

test('merged multimodal infos keep their block', () => {
  const info = { mmObjects: [{ mmHash: 5n, offsets: [] }] }
  const second = { ...stored(2n, 3n), mmInfos: [info] } as KvEventData
  const [out] = new PublisherPipeline().push([event(stored(null, 1n, 2n)), event(second)])
  assert.deepEqual(out?.data.kind === 'stored' ? out.data.mmInfos : null, [null, null, info])
})

test('merging stops at 128 hashes, checked after each event', () => {
  const out = new PublisherPipeline().push([event(stored(null, ...range(1, 100))), event(stored(100n, ...range(101, 100))), event(stored(200n, 201n))])
  assert.deepEqual(out.map(({ data }) => (data.kind === 'cleared' ? 0 : hashCount(data.blockHashes))), [200, 1])
})

test('a removal counts when it is the last one, or of an unknown block', () => {
  const pipeline = new PublisherPipeline()
  pipeline.push([event(stored(null, 1n))])
  pipeline.push([event(stored(null, 1n, 2n))])
  assert.deepEqual(told(pipeline.push([event(removed(1n, 3n))])), ['3 removed 3'])
  assert.deepEqual(told(pipeline.push([event(removed(2n), { storageTier: 'disk' })])), ['4 removed 2'])
  assert.deepEqual(told(pipeline.push([event(removed(1n))])), ['5 removed 1'])
  pipeline.push([event(stored(null, 5n))])
  pipeline.push([event(stored(null, 5n))])
  assert.deepEqual(told(pipeline.push([event(removed(5n))])), [])
  assert.deepEqual(told(pipeline.push([event(cleared), event(removed(5n))])), ['8 cleared', '9 removed 5'])
  assert.deepEqual(told(pipeline.push([event(removed())])), [])
})

test('the tail may wait for the next message', () => {
  const pipeline = new PublisherPipeline()
  assert.deepEqual(told(pipeline.push([event(removed(7n)), event(stored(null, 1n))], { keepTail: true })), ['1 removed 7'])
  assert.deepEqual(told(pipeline.push([event(stored(1n, 2n))], { keepTail: true })), [])
  assert.deepEqual(told(pipeline.flush()), ['2 stored null: 1,2'])
  assert.deepEqual(pipeline.flush(), [])
})

test('reference counts are bounded, and given back', () => {
  const references = new BlockReferences(2)
  const pipeline = new PublisherPipeline(references)
  pipeline.push([event(stored(null, 1n, 2n, 3n))])
  assert.deepEqual([references.size, references.uncounted], [2, 1])
  assert.deepEqual(told(pipeline.push([event(removed(1n, 2n, 3n))])), ['2 removed 1,2,3'])
  assert.equal(references.size, 0)
})

test('messages hold at most 128 events or 8192 blocks', () => {
  const small = Array.from({ length: 130 }, () => event(removed(1n)))
  assert.deepEqual(publishGroups(small).map((group) => group.length), [128, 2])
  const large = event(removed(...range(0, 5000)))
  const huge = event(removed(...range(0, 9000)))
  assert.deepEqual(publishGroups([large, large, huge, event(cleared)]).map((group) => group.length), [1, 1, 1, 1])
  assert.deepEqual(publishGroups([]), [])
})
