/** Goal: both encodings of raw events are read, rare forms as Dynamo reads them, and anything else refuses the batch with a reason. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { fixturePath } from '../../test/repo-root.ts'
import type { RawEvent, RawStored } from '../kv-events/raw-event.ts'
import { hashListOf } from '../model/hash-list.ts'
import type { MsgpackValue } from '../msgpack/cursor.ts'
import { MsgpackWriter } from '../msgpack/writer.ts'
import { decodeRawBatch, decodeRawMessage } from './raw-kv-events.ts'

const encode = (value: MsgpackValue): Uint8Array => new MsgpackWriter().value(value).finish()

function eventOf(value: MsgpackValue): RawEvent {
  const outcome = decodeRawBatch(encode([1.5, [value], null]))
  assert.ok(outcome.kind === 'batch', outcome.kind === 'refused' ? outcome.reason : '')
  const [event] = outcome.batch.events
  assert.ok(event !== undefined)
  return event
}

function storedOf(value: MsgpackValue): RawStored {
  const event = eventOf(value)
  assert.ok(event.kind === 'stored')
  return event
}

function reasonOf(value: MsgpackValue): string {
  const outcome = decodeRawBatch(encode(value))
  assert.equal(outcome.kind, 'refused', JSON.stringify(value, (_key, item: unknown) => (typeof item === 'bigint' ? `${item}` : item)))
  return outcome.kind === 'refused' ? outcome.reason : ''
}

const digest = `00000000000000ff${'0'.repeat(48)}`
const arrayForm = (...rest: MsgpackValue[]): MsgpackValue => ['BlockStored', [1, -2], 7, [10, 11], 1, ...rest]

test('map and array form give the same event', () => {
  const expected: RawStored = {
    kind: 'stored', blockHashes: hashListOf([1n, -2n]), parentHash: 7n, tokens: Uint32Array.of(10, 11), isEagle: false, blockSize: 1,
    medium: 'CPU', loraName: 'a', cacheNamespace: null, mmInfos: [null, { mmObjects: [{ mmHash: 255n, offsets: [] }] }], sessionId: null,
    groupIndex: 3, attentionKind: 'mamba', locality: 'LOCAL', ownership: null,
  }
  const extraKeys = [['plain', 5], [[digest, -1]]]
  assert.deepEqual(storedOf(arrayForm(null, 'CPU', 'a', extraKeys, 3, 'mamba', null, 'LOCAL')), expected)
  assert.deepEqual(storedOf({
    future: { deep: [1] }, locality: 'LOCAL', kv_cache_spec_kind: 'mamba', group_idx: 3, extra_keys: extraKeys, lora_name: 'a', medium: 'CPU', block_size: 1,
    token_ids: [10, 11], parent_block_hash: 7, block_hashes: [1, -2], type: 'BlockStored',
  }), expected)
})

test('short array forms and the other kinds', () => {
  assert.deepEqual([storedOf(arrayForm()).medium, storedOf(arrayForm()).mmInfos], [null, null])
  assert.deepEqual(eventOf(['BlockRemoved', [5]]), {
    kind: 'removed', blockHashes: hashListOf([5n]), medium: null, locality: null, ownership: null, groupIndex: null, attentionKind: null,
  })
  assert.deepEqual(eventOf(['AllBlocksCleared', 'kvcr', 3]), { kind: 'cleared', ownership: 'kvcr' })
  assert.deepEqual(eventOf({ type: 'AllBlocksCleared', medium: 'CPU' }), { kind: 'cleared', ownership: null })
  assert.deepEqual(eventOf(['Ignored', 1, 'x']), { kind: 'ignored' })
})

test('pairs of tokens mean Eagle', () => {
  const event = storedOf({ type: 'BlockStored', block_hashes: [1], token_ids: [[1, 2], [2, 3]], block_size: 2 })
  assert.deepEqual([event.tokens, event.isEagle], [Uint32Array.of(1, 2, 3), true])
  assert.equal(storedOf({ type: 'BlockStored', block_hashes: [], token_ids: [], block_size: 2 }).isEagle, false)
})

test('the salt: own field, SGLang slot, then the first block\'s extra keys', () => {
  const map = (fields: { readonly [key: string]: MsgpackValue }): string | null =>
    storedOf({ type: 'BlockStored', block_hashes: [1], token_ids: [1], block_size: 1, ...fields }).cacheNamespace
  const salted = [['lo', ['dynamo-cache-salt:pair', 1], 'dynamo-cache-salt:', 'dynamo-cache-salt:t'], ['dynamo-cache-salt:second']]
  assert.equal(map({ cache_salt: 's', extra_keys: salted }), 's')
  assert.equal(map({ cache_salt: '', extra_keys: salted }), '')
  assert.equal(map({ cache_salt: null, extra_keys: salted }), 't')
  assert.equal(map({ extra_keys: [null, ['dynamo-cache-salt:second']] }), null)
  assert.equal(map({ lora_name: 'dynamo-cache-salt:t', extra_keys: [['dynamo-cache-salt:t', 'dynamo-cache-salt:u']] }), 'u')
  assert.equal(storedOf(arrayForm(null, null, { cache_salt: 's', other: 1 })).cacheNamespace, 's')
  assert.equal(storedOf(arrayForm(null, null, { cache_salt: '' }, salted)).cacheNamespace, 't')
})

test('trailing slots: positional from four on, else scanned', () => {
  const trailing = (...slots: MsgpackValue[]) => {
    const { groupIndex, attentionKind, locality, ownership, mmInfos } = storedOf(arrayForm(null, null, null, null, ...slots))
    return [groupIndex, attentionKind, locality, ownership, mmInfos]
  }
  assert.deepEqual(trailing(1, 'k', 128, 'REMOTE', 'kvcr', 'more'), [1, 'k', 'REMOTE', 'kvcr', null])
  assert.deepEqual(trailing(null, null, null, 'x'), [null, null, 'x', null, null])
  assert.deepEqual(trailing('k', 2, 3), [2, 'k', null, null, null])
  const infos = [{ mm_objects: [{ mm_hash: 4, offsets: [[0, 1]] }] }, null]
  assert.deepEqual(trailing(infos, 0, 'k', 128, 'REMOTE'), [0, 'REMOTE', null, null, [{ mmObjects: [{ mmHash: 4n, offsets: [[0, 1]] }] }, null]])
  assert.deepEqual(trailing({ a: 1 }, -4, 'k', 2n ** 40n, true), [null, 'k', null, null, null])
  assert.deepEqual(trailing(Uint8Array.of(0x6b)), [null, 'k', null, null, null])
})

test('undecodable events refuse the batch, with a reason and a place', () => {
  const stored = { type: 'BlockStored', block_hashes: [1], token_ids: [1], block_size: 1 }
  const one = (event: MsgpackValue): MsgpackValue => [0, [event], null]
  const cases: [MsgpackValue, RegExp][] = [
    [[0, []], /a batch of 2 elements instead of 3/], [[0, [], null, 1], /4 elements/], [{ ts: 1 }, /expected an array, found map/],
    [['x', [], null], /expected a number, found string/], [[0, [], 2 ** 31], /is not an i32/], [[0, [], 1.5], /expected an integer/],
    [one('BlockStored'), /expected an event, found string/], [one([]), /without tag/], [one(['Nope']), /unknown event type "Nope"/],
    [one({ block_hashes: [1] }), /without type/], [one(['BlockStored', [1]]), /BlockStored without token_ids/], [one(['BlockRemoved']), /BlockRemoved without block_hashes/],
    [one({ ...stored, block_hashes: [1.5] }), /found float/], [one({ ...stored, block_hashes: ['1'] }), /found string/], [one({ ...stored, block_hashes: [new Uint8Array(32)] }), /found binary/],
    [one({ ...stored, token_ids: [-1] }), /-1 is not a u32/], [one({ ...stored, token_ids: [[1, 2], [3]] }), /1 elements instead of a pair/], [one({ ...stored, token_ids: [1, [2, 3]] }), /found array/],
    [one({ ...stored, medium: 5 }), /expected a string/], [one({ ...stored, block_mm_infos: [{ mm_objects: [{ mm_hash: 1 }] }] }), /without offsets/],
    [one({ ...stored, extra_keys: [[null]] }), /extra key of family nil/], [one({ ...stored, extra_keys: [[[300]]] }), /300 is not a byte/],
    [one(arrayForm('x')), /expected an integer/], [one(arrayForm(null, null, {})), /metadata without cache_salt/], [one(['AllBlocksCleared', 5]), /expected a string/],
  ]
  for (const [value, reason] of cases) assert.match(reasonOf(value), reason)
})

test('ranks: null, number, negative as u32; bytes behind the batch are ignored', () => {
  const rankOf = (rank: MsgpackValue): number | null => {
    const outcome = decodeRawBatch(Buffer.concat([encode([0, [], rank]), Buffer.of(0)]))
    assert.ok(outcome.kind === 'batch')
    return outcome.batch.dpRank
  }
  assert.deepEqual([rankOf(null), rankOf(3), rankOf(-1)], [null, 3, 0xffffffff])
})

test('messages have three frames and a sequence of eight bytes', () => {
  const payload = Uint8Array.of(1)
  assert.deepEqual(decodeRawMessage([new Uint8Array(0), Uint8Array.of(0, 0, 0, 0, 0, 0, 1, 2), payload]), { kind: 'message', sequence: 258n, payload })
  assert.deepEqual(decodeRawMessage([payload, payload]), { kind: 'refused', reason: '2 frames instead of topic, sequence and payload' })
  assert.deepEqual(decodeRawMessage([payload, payload, payload]), { kind: 'refused', reason: 'a sequence of 1 bytes instead of 8' })
})

interface Recorded { readonly cases: readonly { readonly input: readonly { readonly payload_hex: string }[] }[] }

test('damaged recordings never throw, and every cut is refused', () => {
  const { cases } = JSON.parse(readFileSync(fixturePath('router', 'zmq_kv_events.json'), 'utf8')) as Recorded
  const payloads = cases.flatMap(({ input }) => input.map(({ payload_hex }) => Buffer.from(payload_hex, 'hex')))
  const whole = payloads.filter((bytes) => bytes.length < 200 && decodeRawBatch(bytes).kind === 'batch').slice(0, 40)
  assert.ok(whole.length >= 20)
  for (const bytes of whole) for (let end = 0; end < bytes.length; end += 1) assert.equal(decodeRawBatch(bytes.subarray(0, end)).kind, 'refused')
  fc.assert(fc.property(fc.constantFrom(...payloads), fc.nat(), fc.nat(255), (bytes, position, value) => {
    const changed = Buffer.from(bytes)
    changed[position % changed.length] = value
    decodeRawBatch(changed)
  }), { numRuns: 500 })
})
