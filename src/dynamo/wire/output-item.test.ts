/** Goal: the short way reads what the general decoder reads. Method: both on random items, among them every form that the short way leaves. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { encodeBody, type WireValue } from './body.ts'
import { decodeItem, encodeData, encodeFailureItem, readAnnotated } from './items.ts'
import { readOutputItem } from './output-item.ts'

const leaf = fc.oneof(fc.constant(null), fc.boolean(), fc.integer(), fc.bigInt({ min: 2n ** 53n, max: 2n ** 64n - 1n }), fc.string(), fc.double({ noNaN: true, noInteger: true }), fc.uint8Array({ maxLength: 4 }))
const output = fc.record({
  token_ids: fc.oneof(fc.array(fc.nat(2 ** 32 - 1), { maxLength: 5 }), fc.constant(null), fc.uint8Array({ maxLength: 8 }), fc.array(leaf, { maxLength: 3 })),
  finish_reason: fc.oneof(leaf, fc.dictionary(fc.string(), leaf, { maxKeys: 2 })), index: fc.nat(), log_probs: fc.array(leaf), routing_data: fc.dictionary(fc.string(), leaf), other: leaf,
}, { requiredKeys: [] })

test('any item: the same value as by the general decoder, and the same refusal', () => {
  const item = fc.oneof(
    output.map((value) => ({ data: { data: value }, complete_final: false })), output.map((value) => ({ complete_final: false, data: { data: value } })),
    fc.record({ data: fc.record({ data: output, event: leaf, comment: fc.array(fc.string()) }, { requiredKeys: [] }), complete_final: fc.boolean() }),
    fc.record({ data: leaf, complete_final: leaf }),
  )
  fc.assert(fc.property(item, fc.nat(3), fc.constantFrom('msgpack', 'json'), (value, cut, codec) => {
    const body = encodeBody(value as WireValue, codec)
    const bytes = cut === 3 ? body.subarray(0, body.length - 1) : body
    let expected: unknown
    try {
      const { data, failure } = readAnnotated(decodeItem(bytes, codec).data ?? {})
      expected = { data, failure }
    } catch (error) {
      assert.throws(() => readOutputItem(bytes, codec), { message: (error as Error).message })
      return
    }
    const { data, failure } = readOutputItem(bytes, codec)
    assert.deepEqual({ data, failure }, expected)
  }), { numRuns: 1500 })
})

test('a failure keeps its class, an ordinary output its ids', () => {
  assert.equal(readOutputItem(encodeFailureItem({ class: 'Unavailable', reason: 'backend.disconnected', message: 'gone' }, 'msgpack'), 'msgpack').failure?.class, 'Unavailable')
  assert.deepEqual(readOutputItem(encodeData({ token_ids: [7, 70_000] }, 'msgpack'), 'msgpack'), { data: { token_ids: [7, 70_000] }, failure: null })
})
