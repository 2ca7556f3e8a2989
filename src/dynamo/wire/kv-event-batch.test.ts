/** Goal: the kernel and general reading agree on every payload: events, encodings of others, cuts at every byte, damage. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { fixturePath } from '../../../test/repo-root.ts'
import { hashListOf } from '../../model/hash-list.ts'
import type { KvEventData, RouterEvent } from '../../model/kv-event.ts'
import { MsgpackWriter } from '../../msgpack/writer.ts'
import { KvEventDecoder } from './kv-event-batch.ts'
import { decodeKvEvents, encodeKvEvents, routerEventToValue } from './kv-events.ts'
import { WireError } from './wire-error.ts'

const u64 = fc.oneof({ weight: 4, arbitrary: fc.bigInt(1n << 32n, (1n << 64n) - 1n) }, { weight: 1, arbitrary: fc.constantFrom(0n, 127n, 128n, 255n, 256n, 65535n, 65536n, 0xffffffffn, 0x100000000n) })
const u32 = fc.constantFrom(0, 1, 127, 128, 255, 256, 65535, 65536, 0xffffffff)
const hash = fc.bigInt(1n << 32n, (1n << 64n) - 1n)
const list = (maxLength: number): fc.Arbitrary<bigint[]> => fc.array(fc.oneof({ weight: 60, arbitrary: hash }, { weight: 1, arbitrary: fc.constantFrom(0n, 5n, 1n << 31n) }), { maxLength })
const stored: fc.Arbitrary<KvEventData> = fc.record({ parentHash: fc.option(u64), startPosition: fc.option(u32), hashes: list(40), hasInfo: fc.nat(20) }).map(
  ({ parentHash, startPosition, hashes, hasInfo }) => ({
    kind: 'stored', parentHash, startPosition, blockHashes: hashListOf(hashes), tokensHashes: hashListOf(hashes.toReversed()),
    mmInfos: hasInfo === 0 && hashes.length > 0 ? hashes.map((_, index) => (index === 0 ? { mmObjects: [{ mmHash: 9n, offsets: [] }] } : null)) : null,
  }))
const data: fc.Arbitrary<KvEventData> = fc.oneof(
  { weight: 4, arbitrary: stored }, { weight: 2, arbitrary: list(40).map((hashes): KvEventData => ({ kind: 'removed', blockHashes: hashListOf(hashes) })) },
  { weight: 1, arbitrary: fc.constant<KvEventData>({ kind: 'cleared' }) },
)
const event: fc.Arbitrary<RouterEvent> = fc.record({
  workerId: u64, dpRank: u32, storageTier: fc.constantFrom('device', 'host_pinned', 'disk', 'external'),
  residencyDomain: fc.oneof({ weight: 9, arbitrary: fc.constantFrom('worker', 'cache_owner', 'absent') }, { weight: 1, arbitrary: fc.constant('unsupported') }),
  eventId: u64, data, session: fc.nat(40),
}).map(({ session, ...fields }) => (session === 0 ? { ...fields, sessionId: 's' } : fields)) as fc.Arbitrary<RouterEvent>

interface Recorded { readonly topics: Readonly<Record<string, readonly { readonly payload_hex: string }[]>> }
const recorded = ((JSON.parse(readFileSync(fixturePath('router', 'event_plane_capture.json'), 'utf8')) as Recorded).topics['kv-events'] ?? [])
  .map(({ payload_hex }) => Buffer.from(payload_hex, 'hex'))

/** What a payload decodes to, or the words of the error. */
function outcome(decode: () => readonly RouterEvent[]): readonly RouterEvent[] | string {
  try {
    return decode()
  } catch (error) {
    assert.ok(error instanceof WireError, String(error))
    return error.message
  }
}

// One decoder for all: what payloads before have left in its memory is part of the test.
const decoder = new KvEventDecoder()
function agree(payload: Uint8Array): void {
  const found = outcome(() => {
    const batch = decoder.decode(payload)
    return Array.from({ length: batch.length }, (_, index) => batch.event(index))
  })
  assert.deepEqual(found, outcome(() => decodeKvEvents(payload)))
}

const singles = (count: number): Buffer => Buffer.from(encodeKvEvents(Array.from({ length: count }, (_, index): RouterEvent => ({
  workerId: 0x1234_5678_9abc_def0n, dpRank: 0, storageTier: 'device', residencyDomain: index % 3 === 0 ? 'absent' : 'worker', eventId: 100n * BigInt(index),
  data: index % 4 === 3
    ? { kind: 'removed', blockHashes: hashListOf([0xfedc_ba98_7654_3210n]) }
    : { kind: 'stored', parentHash: index === 0 ? null : 77n, startPosition: index === 1 ? 300 : null, mmInfos: null, blockHashes: hashListOf([1n << 40n]), tokensHashes: hashListOf([(1n << 63n) + 1n]) },
}))))

test('any events, in arrays of any length', () => {
  fc.assert(fc.property(fc.array(event, { maxLength: 20 }), (events) => agree(encodeKvEvents(structuredClone(events)))), { numRuns: 200 })
})

test('cuts at every byte, and bytes too many', () => {
  for (const payload of [...recorded, singles(6)]) {
    for (let end = 0; end <= payload.length; end += 1) agree(payload.subarray(0, end))
    agree(Buffer.concat([payload, Buffer.of(0)]))
  }
})

test('every byte changed', () => {
  for (const payload of [singles(5), recorded[0] ?? Buffer.of()]) {
    for (let at = 0; at < payload.length; at += 1) {
      for (const change of [0x01, 0x10, 0x80, 0xff]) {
        const changed = Buffer.from(payload)
        changed[at]! ^= change
        agree(changed)
      }
    }
  }
})

test('other encodings of the same: keys in another order, unknown ones, long headers', () => {
  const value = routerEventToValue(decodeKvEvents(singles(1))[0]!) as Record<string, never>
  const encoded = (...values: unknown[]): Uint8Array => new MsgpackWriter().value(values as never).finish()
  agree(encoded(value, Object.fromEntries(Object.entries(value).toReversed())))
  agree(encoded({ ...value, state_source: { a: 1 } }))
  for (const header of [[0xdc, 0, 5], [0xdd, 0, 0, 0, 5], [0xdd, 0xff, 0xff, 0xff, 0xff], [0x96], [0x94], [0x90]]) agree(Buffer.concat([Buffer.from(header), singles(5).subarray(1)]))
  agree(singles(1).subarray(1))
})

test('batches of the largest size; larger ones are read in general', () => {
  const hashes = Uint32Array.from({ length: 2 * 8192 }, (_, word) => Math.imul(word + 1, 0x9e3779b1) >>> 0 | 1)
  const one: RouterEvent = {
    workerId: 1n << 60n, dpRank: 3, storageTier: 'device', residencyDomain: 'worker', eventId: 1n,
    data: { kind: 'stored', parentHash: null, startPosition: null, blockHashes: hashes, tokensHashes: hashes.toReversed(), mmInfos: null },
  }
  for (const count of [1, 3]) agree(encodeKvEvents(Array.from({ length: count }, () => one)))
  agree(singles(3))
})

test('a batch says whether all of it is of one rank', () => {
  for (const session of [undefined, 's']) {
    const of = (workerId: bigint, dpRank: number): RouterEvent =>
      ({ workerId, dpRank, storageTier: 'device', residencyDomain: 'worker', eventId: 1n, data: { kind: 'cleared' }, ...(session === undefined ? {} : { sessionId: session }) })
    const workerId = 0xffff_ffff_0000_0001n
    assert.equal(decoder.decode(encodeKvEvents([of(workerId, 2), of(workerId, 2)])).isOf(workerId, 2), true)
    assert.equal(decoder.decode(encodeKvEvents([of(workerId, 2), of(workerId, 1)])).isOf(workerId, 2), false)
    assert.equal(decoder.decode(encodeKvEvents([of(workerId, 2), of(1n, 2)])).isOf(workerId, 2), false)
    assert.throws(() => decoder.decode(encodeKvEvents([of(1n, 1)])).event(1), RangeError)
  }
})

test('events keep what they hold when the next payload comes', () => {
  const batch = decoder.decode(singles(2))
  const kept = [batch.event(0), batch.event(1)]
  decoder.decode(Buffer.from(encodeKvEvents([{ ...kept[0]!, eventId: 9n, data: { kind: 'removed', blockHashes: hashListOf([3n << 33n]) } }])))
  assert.deepEqual(kept, decodeKvEvents(singles(2)))
})

test('Dynamo\'s own payloads without further content take the kernel', () => {
  // A batch of words is one object for all payloads; one read in general is new.
  assert.equal(decoder.decode(singles(3)), decoder.decode(singles(2)))
  const plain = recorded.filter((payload) => decodeKvEvents(payload).every(({ data: d, sessionId }) => sessionId === undefined && (d.kind !== 'stored' || d.mmInfos === null)))
  assert.ok(plain.length > 0)
  for (const payload of plain) assert.equal(decoder.decode(payload), decoder.decode(singles(2)))
})
