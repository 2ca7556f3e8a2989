/** Goal: router events survive their wire form exactly, and damaged bytes end in a WireError at every cut. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { fixturePath } from '../../../test/repo-root.ts'
import { hashListOf } from '../../model/hash-list.ts'
import type { BlockMmInfo, KvEventData, RouterEvent } from '../../model/kv-event.ts'
import { MsgpackCursor } from '../../msgpack/cursor.ts'
import { MsgpackWriter } from '../../msgpack/writer.ts'
import { decodeKvEvent, decodeKvEvents, encodeKvEvent, encodeKvEvents, routerEventFromValue, routerEventToValue } from './kv-events.ts'
import { WireError } from './wire-error.ts'

const u64 = fc.oneof(fc.bigInt(0n, (1n << 64n) - 1n), fc.bigInt(0n, 300n))
const u32 = fc.integer({ min: 0, max: 0xffffffff })
const mmInfo: fc.Arbitrary<BlockMmInfo> = fc.record({
  mmObjects: fc.array(fc.record({ mmHash: u64, offsets: fc.array(fc.tuple(u32, u32), { maxLength: 3 }) }), { maxLength: 3 }),
})
const stored: fc.Arbitrary<KvEventData> = fc.record({
  parent: fc.option(u64), startPosition: fc.option(u32),
  blocks: fc.array(fc.tuple(u64, u64, fc.option(mmInfo)), { maxLength: 20 }),
}).map(({ parent, startPosition, blocks }) => ({
  kind: 'stored', parentHash: parent, startPosition,
  blockHashes: hashListOf(blocks.map(([hash]) => hash)), tokensHashes: hashListOf(blocks.map(([, hash]) => hash)),
  mmInfos: blocks.some(([, , info]) => info !== null) ? blocks.map(([, , info]) => info) : null,
}))
const data: fc.Arbitrary<KvEventData> = fc.oneof(
  stored, fc.array(u64, { maxLength: 20 }).map((hashes): KvEventData => ({ kind: 'removed', blockHashes: hashListOf(hashes) })),
  fc.constant<KvEventData>({ kind: 'cleared' }),
)
const event: fc.Arbitrary<RouterEvent> = fc.record({
  workerId: u64, dpRank: u32, storageTier: fc.constantFrom('device', 'host_pinned', 'disk', 'external'),
  residencyDomain: fc.constantFrom('worker', 'cache_owner', 'absent', 'unsupported'), eventId: u64, data,
}).chain((fields) => fc.option(fc.string()).map((sessionId) => (sessionId === null ? fields : { ...fields, sessionId }))) as fc.Arbitrary<RouterEvent>

interface Recorded { readonly topics: Readonly<Record<string, readonly { readonly payload_hex: string }[]>> }
const recorded = (JSON.parse(readFileSync(fixturePath('router', 'event_plane_capture.json'), 'utf8')) as Recorded).topics['kv-events'] ?? []

test('events survive encoding, alone, in arrays and as plain values', () => {
  fc.assert(fc.property(fc.array(event, { maxLength: 5 }), (generated) => {
    // Copies have the usual prototype.
    const events = structuredClone(generated)
    assert.deepEqual(decodeKvEvents(encodeKvEvents(events)), events)
    for (const one of events) {
      assert.deepEqual(decodeKvEvent(encodeKvEvent(one)), one)
      assert.deepEqual(routerEventFromValue(routerEventToValue(one)), one)
    }
  }), { numRuns: 150 })
})

test('recorded payloads are errors at every cut', () => {
  assert.ok(recorded.length > 0)
  for (const { payload_hex } of recorded) {
    const bytes = Buffer.from(payload_hex, 'hex')
    for (let end = 0; end < bytes.length; end += 1) assert.throws(() => decodeKvEvents(bytes.subarray(0, end)), WireError)
    assert.throws(() => decodeKvEvents(Buffer.concat([bytes, Buffer.of(0)])), /1 bytes too many/)
    assert.deepEqual(Buffer.from(encodeKvEvents(decodeKvEvents(bytes))), bytes)
  }
})

test('flipped bytes are another event or a WireError', () => {
  const bytes = Buffer.from(recorded[0]?.payload_hex ?? '', 'hex')
  fc.assert(fc.property(fc.nat(bytes.length - 1), fc.nat(255), (at, value) => {
    const changed = Buffer.from(bytes)
    changed[at] = value
    try { decodeKvEvents(changed) } catch (error) { assert.ok(error instanceof WireError, String(error)) }
  }), { numRuns: 500 })
})

test('defaults, unknown keys and any order of keys are accepted', () => {
  const value = {
    future: [1, { x: 'y' }], event: { dp_rank: 2, data: { removed: { why: null, block_hashes: [1, 18446744073709551615n] } }, more: 1, event_id: 7 },
    worker_id: 5, state_source: { a: 1 },
  }
  assert.deepEqual(routerEventFromValue(value), {
    workerId: 5n, dpRank: 2, storageTier: 'device', residencyDomain: 'absent', eventId: 7n, data: { kind: 'removed', blockHashes: hashListOf([1n, -1n]) },
  })
  const cleared = { worker_id: 5, event: { event_id: 1, data: { cleared: null } }, residency_domain: 3 }
  assert.deepEqual(routerEventFromValue(cleared), {
    workerId: 5n, dpRank: 0, storageTier: 'device', residencyDomain: 'unsupported', eventId: 1n, data: { kind: 'cleared' },
  })
})

test('what is missing or wrong is named with its place', () => {
  const inner = { event_id: 1, data: 'cleared', dp_rank: 0 }
  const cases: [Record<string, unknown>, RegExp][] = [
    [{ event: inner }, /without worker_id at byte 0/],
    [{ worker_id: 1 }, /without event at byte 0/],
    [{ worker_id: 1, storage_tier: 'tape', event: inner }, /unknown storage tier "tape" at byte/],
    [{ worker_id: -1, event: inner }, /-1 is not a u64/],
    [{ worker_id: 1, event: { ...inner, data: 'vanished' } }, /unknown event data "vanished"/],
    [{ worker_id: 1, event: { ...inner, data: { stored: { parent_hash: null } } } }, /stored without blocks/],
    [{ worker_id: 1, event: { ...inner, data: { stored: { blocks: [{ block_hash: 1 }] } } } }, /a block without tokens_hash/],
    [{ worker_id: 1, event: { ...inner, data: { removed: { block_hashes: [1.5] } } } }, /expected an integer, found float/],
    [{ worker_id: 1, event: { event_id: 1 } }, /without data/],
  ]
  for (const [value, message] of cases) {
    const bytes = new MsgpackWriter().value(value as never).finish()
    assert.throws(() => decodeKvEvent(bytes), (error) => error instanceof WireError && message.test(error.message), String(message))
  }
  assert.throws(() => decodeKvEvents(new Uint8Array([0xdd, 0x7f, 0xff, 0xff, 0xff])), /an array of 2147483647 items/)
  assert.equal(new MsgpackCursor(encodeKvEvents([])).readArrayHeader(), 0)
})
