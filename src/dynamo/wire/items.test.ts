/** Goal: the final item is told from all others in every valid form, and items keep what they carry. Method: random items in random forms against a full decode. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { MsgpackWriter } from '../../msgpack/writer.ts'
import { encodeBody, type WireValue } from './body.ts'
import { decodeItem, encodeData, encodeFailureItem, encodeItem, finalFrame, isFinalFrame, readAnnotated } from './items.ts'
import { WireError } from './wire-error.ts'

const marker = 'complete_final'
const tricky = fc.constantFrom('complete_final', '"complete_final":true}', ',"complete_final":false}', '\\"complete_final":true}', String.fromCharCode(0xae) + marker)
const leaf = fc.oneof(fc.constant(null), fc.boolean(), fc.integer(), fc.string({ unit: 'grapheme', maxLength: 20 }), tricky, fc.bigInt({ min: -(1n << 63n), max: (1n << 64n) - 1n }).filter((value) => value > 9007199254740991n || value < -9007199254740991n))
const { value: anyValue } = fc.letrec<{ value: WireValue }>((tie) => ({
  value: fc.oneof({ maxDepth: 3, withCrossShrink: true }, leaf, fc.array(tie('value'), { maxLength: 3 }), fc.dictionary(fc.oneof(fc.constantFrom('data', marker), fc.string({ maxLength: 5 })), tie('value'), { maxKeys: 3, noNullPrototype: true })),
}))

/** All valid forms of a wrapper: key order, an extra key, no data, spaces. */
const wrapper = fc.record({ data: anyValue, final: fc.boolean(), hasData: fc.boolean(), order: fc.nat(5), extra: fc.boolean(), spaced: fc.boolean() })

function entriesOf(form: { data: WireValue; final: boolean; hasData: boolean; order: number; extra: boolean }): [string, WireValue][] {
  const entries: [string, WireValue][] = [[marker, form.final], ...(form.hasData ? [['data', form.data] as [string, WireValue]] : []), ...(form.extra ? [['more', form.data] as [string, WireValue]] : [])]
  for (let turn = 0; turn < form.order; turn += 1) entries.push(...(turn % 2 === 0 ? entries.splice(0, 1) : entries.splice(0, 2)))
  return entries
}

test('the final item is known in every valid form', () => {
  fc.assert(fc.property(wrapper, (form) => {
    const value = Object.fromEntries(entriesOf(form))
    assert.equal(isFinalFrame(encodeBody(value, 'msgpack'), 'msgpack'), form.final)
    const json = Buffer.from(encodeBody(value, 'json')).toString()
    const text = form.spaced ? ` ${json.slice(0, -1)} }\n` : json
    assert.equal(isFinalFrame(Buffer.from(text), 'json'), form.final, text)
  }), { numRuns: 3000 })
})

test('long forms of keys and maps are understood', () => {
  const long = new MsgpackWriter().raw(Uint8Array.of(0xde, 0, 2, 0xd9, 4)).raw(Buffer.from('data')).nil().raw(Uint8Array.of(0xd9, 14)).raw(Buffer.from(marker)).boolean(true).finish()
  assert.equal(isFinalFrame(long, 'msgpack'), true)
  const mixed = new MsgpackWriter().mapHeader(2).string('data').binary(Uint8Array.from([0xae, ...Buffer.from(marker), 0xc2])).raw(Uint8Array.of(0xda, 0, 14)).raw(Buffer.from(marker)).boolean(true).finish()
  assert.equal(isFinalFrame(mixed, 'msgpack'), true)
  assert.equal(isFinalFrame(Buffer.from('{"complete_final":true,"data":{"a":[1],"complete_final":false}}'), 'json'), true)
  assert.equal(isFinalFrame(Buffer.from('{"complete_final":false,"x\\"complete_final":true}'), 'json'), false)
})

test('garbage is no final item and ends in a WireError when decoded', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 60 }), fc.constantFrom('msgpack' as const, 'json' as const), (body, codec) => {
    assert.equal(typeof isFinalFrame(body, codec), 'boolean')
    try {
      readAnnotated(decodeItem(body, codec).data ?? null)
    } catch (error) {
      assert.ok(error instanceof WireError, String(error))
    }
  }), { numRuns: 2000 })
  for (const body of ['{}', '[]', '5', '{"data":1}', '{"complete_final":1}']) assert.throws(() => decodeItem(Buffer.from(body), 'json'), WireError)
})

test('items keep their values in both codecs', () => {
  fc.assert(fc.property(anyValue, fc.constantFrom('msgpack' as const, 'json' as const), (value, codec) => {
    const expected = value === null ? undefined : value
    assert.deepEqual(decodeItem(encodeItem(value, codec), codec), { data: expected, final: false })
    const annotated = readAnnotated(decodeItem(encodeData(value, codec), codec).data ?? null)
    assert.deepEqual(annotated, { data: expected, id: null, event: null, comments: [], failure: null })
  }), { numRuns: 500 })
})

test('annotations and errors are read in all their forms', () => {
  assert.deepEqual(readAnnotated({ data: 1, id: '7', event: 'llm_metrics', comment: ['a', 'b'] }), { data: 1, id: '7', event: 'llm_metrics', comments: ['a', 'b'], failure: null })
  assert.deepEqual(readAnnotated({ event: 'error', comment: ['boom', 'twice'] }).failure, { class: 'Internal', reason: 'runtime.unclassified', message: 'boom, twice' })
  assert.equal(readAnnotated({ event: 'error' }).failure?.message, 'unknown error')
  const failure = { class: 'Unavailable', reason: 'backend.engine_shutdown', message: 'gone', causedBy: { class: 'Internal', reason: 'backend.unknown', message: 'why', legacyType: { Backend: 'Unknown' } }, legacyType: { Backend: 'EngineShutdown' } } as const
  for (const codec of ['msgpack', 'json'] as const) {
    assert.deepEqual(readAnnotated(decodeItem(encodeFailureItem(failure, codec), codec).data ?? null).failure, failure)
    assert.equal(decodeItem(finalFrame(codec).subarray(24), codec).final, true)
  }
})
