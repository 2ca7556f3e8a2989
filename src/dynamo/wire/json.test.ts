/** Goal: JSON and MessagePack bodies lose nothing. Method: random values both ways, integers around the borders, garbage. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { decodeBody, encodeBody, type WireValue } from './body.ts'
import { jsonNestingMax, parseJson, parseJsonBytes, stringifyJson } from './json.ts'
import { WireError } from './wire-error.ts'

test('integers stay exact on both sides of 2^53', () => {
  assert.deepEqual(parseJson('[9007199254740991,9007199254740992,-9007199254740993,18446744073709551615,1.5,1e3,0.1234567890123456789]'),
    [9007199254740991, 9007199254740992n, -9007199254740993n, 18446744073709551615n, 1.5, 1000, 0.12345678901234568])
  assert.equal(stringifyJson({ id: 18446744073709551615n, list: [1n, 'é"'] }), '{"id":18446744073709551615,"list":[1,"é\\""]}')
  assert.equal(stringifyJson({ raw: Uint8Array.of(1, 2), buffer: Buffer.of(3) }), '{"raw":[1,2],"buffer":[3]}')
  assert.equal(stringifyJson({ raw: Buffer.of(1), id: 1n }), '{"raw":[1],"id":1}')
})

test('any value comes back in both codecs', () => {
  const big = fc.bigInt({ min: -(1n << 63n), max: (1n << 64n) - 1n }).map((value) => (Number.isSafeInteger(Number(value)) ? Number(value) : value))
  const { value } = fc.letrec<{ value: WireValue }>((tie) => ({
    value: fc.oneof({ maxDepth: 4 }, fc.constant(null), fc.boolean(), big, fc.double({ noDefaultInfinity: true, noNaN: true }).map((number) => number + 0).filter((number) => !Number.isInteger(number) || Number.isSafeInteger(number)), fc.string({ unit: 'grapheme' }), fc.array(tie('value'), { maxLength: 4 }), fc.dictionary(fc.oneof(fc.string(), fc.constantFrom('__proto__', 'constructor', '')), tie('value'), { maxKeys: 4 })),
  }))
  fc.assert(fc.property(value, (original) => {
    for (const codec of ['json', 'msgpack'] as const) {
      const text = stringifyJson(decodeBody(encodeBody(original, codec), codec))
      assert.equal(text, stringifyJson(original), codec)
    }
  }), { numRuns: 1000 })
})

test('garbage and deep nesting end in a WireError that does not quote the input', () => {
  const deep = `${'['.repeat(jsonNestingMax + 1)}${']'.repeat(jsonNestingMax + 1)}`
  for (const text of ['', '{', 'secret', '{"a":secret12345678901234567890}', deep, '['.repeat(1_000_000)]) {
    assert.throws(() => parseJson(text), (error) => error instanceof WireError && !error.message.includes('secret'))
  }
  assert.throws(() => parseJsonBytes(Uint8Array.of(0x22, 0xff, 0x22)), WireError)
  assert.equal(stringifyJson(parseJson(deep.slice(1, -1))), deep.slice(1, -1))
  fc.assert(fc.property(fc.uint8Array({ maxLength: 40 }), fc.constantFrom('json' as const, 'msgpack' as const), (bytes, codec) => {
    try {
      decodeBody(bytes, codec)
    } catch (error) {
      assert.ok(error instanceof WireError, String(error))
    }
  }), { numRuns: 2000 })
})

test('repeated keys: the last counts, as in the engine\'s own parser', () => {
  assert.deepEqual(parseJson('{"a":1,"a":12345678901234567890}'), { a: 12345678901234567890n })
  assert.deepEqual(parseJson('{"a":1,"a":2}'), { a: 2 })
})

test('quotes, escapes and digits in strings are not taken for what they are outside', () => {
  const texts = fc.array(fc.constantFrom('"', '\\', '\\\\', '{', '[', '1234567890123456789', 'a', '\n'), { maxLength: 8 }).map((parts) => parts.join(''))
  fc.assert(fc.property(fc.dictionary(texts, fc.oneof(texts, fc.array(texts, { maxLength: 3 }), fc.bigInt(2n ** 53n, 2n ** 64n)), { maxKeys: 5, noNullPrototype: true }), (value) => {
    assert.deepEqual(parseJson(stringifyJson(value)), value)
  }))
  assert.throws(() => parseJson('"1234567890123456789'), WireError)
  assert.throws(() => parseJson(`${'['.repeat(129)}"]"`), /nested deeper/)
})

test('binary at any depth becomes a list of numbers', () => {
  assert.equal(stringifyJson({ a: [{ b: Uint8Array.of(1, 2) }], c: Buffer.from([3]) }), '{"a":[{"b":[1,2]}],"c":[3]}')
})
