/** Goal: snapshots are read and written as real routers of 1.1.1 and 1.3.1 do. Method: recorded objects, and random events. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { fixturePath } from '../../../test/repo-root.ts'
import { hashListOf } from '../../model/hash-list.ts'
import type { KvEventData, RouterEvent } from '../../model/kv-event.ts'
import { parseJsonBytes } from '../wire/json.ts'
import { routerEventFromValue } from '../wire/kv-events.ts'
import { durableNames, streamSlug } from './names.ts'
import { decodeSnapshot, encodeSnapshot, SnapshotError } from './snapshot-codec.ts'

const recorded = [
  { layout: '1.1', bytes: 'durable/v1.1.1-object-namespace-dynamo-component-backend-radix-bucket-radix-state.bin', values: 'durable/v1.1.1-object-radix-state.decoded.json' },
  { layout: '1.3', bytes: 'durable13/v1.3.1-object-namespace-d13-component-backend-radix-bucket-radix-state.bin', values: 'durable13/v1.3.1-object-radix-state.decoded.json' },
] as const

for (const { layout, bytes, values } of recorded) {
  test(`an object of a real router of ${layout} is read, and written byte for byte`, () => {
    const object = new Uint8Array(readFileSync(fixturePath('compat', bytes)))
    const expected = (parseJsonBytes(readFileSync(fixturePath('compat', values))) as never[]).map(routerEventFromValue)
    const snapshot = decodeSnapshot(object)
    assert.equal(snapshot.layout, layout)
    assert.ok(expected.length > 3)
    assert.deepEqual(snapshot.events, expected)
    assert.deepEqual(encodeSnapshot(snapshot.events, layout), object)
    for (const cut of [1, 7, 40, object.length - 9]) assert.throws(() => decodeSnapshot(object.subarray(0, object.length - cut)), SnapshotError)
    assert.throws(() => decodeSnapshot(Uint8Array.of(...object, 0)), SnapshotError)
  })
}

// Hashes and ids as they are: with tiny ones bytes exist that fit both layouts.
const u64 = fc.bigInt({ min: 2n ** 60n, max: 2n ** 64n - 1n })
const plain = { noNullPrototype: true } as const
const position = fc.option(fc.nat(2 ** 31))
const mm = fc.option(fc.array(fc.record({ mmHash: u64, offsets: fc.array(fc.tuple(fc.nat(99), fc.nat(99)), { maxLength: 2 }) }, plain), { maxLength: 2 }))
const stored = fc.record({ parentHash: fc.option(u64), startPosition: position, blocks: fc.array(fc.tuple(u64, u64, mm), { minLength: 1, maxLength: 5 }) }).map(({ parentHash, startPosition, blocks }): KvEventData => ({
  kind: 'stored', parentHash, startPosition, blockHashes: hashListOf(blocks.map(([hash]) => hash)), tokensHashes: hashListOf(blocks.map(([, hash]) => hash)),
  mmInfos: blocks.some(([, , info]) => info !== null) ? blocks.map(([, , info]) => (info === null ? null : { mmObjects: info })) : null,
}))
const data = fc.oneof(stored, fc.array(u64, { maxLength: 4 }).map((hashes): KvEventData => ({ kind: 'removed', blockHashes: hashListOf(hashes) })), fc.constant<KvEventData>({ kind: 'cleared' }))
const event = fc.record({
  workerId: u64, eventId: u64, dpRank: fc.nat(7), residencyDomain: fc.constant('absent'), data,
  storageTier: fc.constantFrom('device', 'host_pinned', 'disk', 'external'),
}, plain) as fc.Arbitrary<RouterEvent>

test('what was written is read again, in the layout it was written in', () => {
  fc.assert(fc.property(fc.array(event, { maxLength: 8 }), fc.constantFrom('1.1' as const, '1.3' as const), (events, layout) => {
    const kept = layout === '1.3' ? events : events.map((each) => (each.data.kind === 'stored' ? { ...each, data: { ...each.data, startPosition: null } } : each))
    const read = decodeSnapshot(encodeSnapshot(events, layout))
    // Without a stored event both layouts are the same bytes.
    if (events.some((each) => each.data.kind === 'stored')) assert.equal(read.layout, layout)
    assert.deepEqual(read.events, kept)
  }), { numRuns: 200 })
})

test('whatever the bytes: events or a SnapshotError', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
    try {
      decodeSnapshot(bytes)
    } catch (error) {
      assert.ok(error instanceof SnapshotError)
    }
  }), { numRuns: 500 })
})

test('names are made as recorded', () => {
  const names = durableNames({ namespace: 'dynamo', component: 'backend', endpoint: 'generate' })
  for (const [file, name] of [['durable/v1.1.1-stream-namespace-dynamo-component-backend-kv-events.json', names.stream], ['durable/v1.1.1-stream-OBJ_namespace-dynamo-component-backend-radix-bucket.json', `OBJ_${names.bucket}`]] as const) {
    const { config } = JSON.parse(readFileSync(fixturePath('compat', file), 'utf8')) as { config: { name: string; subjects: string[] } }
    assert.equal(name, config.name)
    if (name === names.stream) assert.deepEqual(names.subjects, config.subjects)
  }
  assert.equal(streamSlug('namespace.My_NS.component.a b'), 'namespace-my-ns-component-a-b')
  assert.equal(streamSlug('_.x'), 'x')
})
