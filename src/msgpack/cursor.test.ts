/** Goal: the cursor reads what an independent library writes, the writer what it reads, and hostile bytes end in an error. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decode, encode } from '@msgpack/msgpack'
import fc from 'fast-check'
import { KeyTable, MsgpackCursor, MsgpackError, type MsgpackValue } from './cursor.ts'
import { MsgpackWriter } from './writer.ts'

const integers = fc.oneof(fc.bigInt(-(1n << 63n), (1n << 64n) - 1n), fc.bigInt(-70000n, 70000n), fc.constantFrom(0n, 127n, 128n, 255n, 256n, 65535n, 65536n, 0xffffffffn, 0x100000000n, -32n, -33n, -128n, -129n, -32768n, -32769n, -0x80000000n, -0x80000001n, (1n << 53n) - 1n, 1n << 53n, -(1n << 53n)))
const plain = fc.letrec<{ value: MsgpackValue }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constant(null), fc.boolean(), fc.string({ maxLength: 300, unit: 'binary' }), fc.uint8Array({ maxLength: 300 }),
    integers.map((value) => (value >= -(1n << 53n) + 1n && value < 1n << 53n ? Number(value) : value)),
    fc.double({ noNaN: true }).filter((value) => !Number.isInteger(value)),
    fc.array(tie('value'), { maxLength: 20 }), fc.dictionary(fc.string({ maxLength: 40 }).filter((key) => key !== '__proto__'), tie('value'), { maxKeys: 20, noNullPrototype: true }),
  ),
})).value

const writeInteger = (value: number | bigint): Uint8Array => new MsgpackWriter().integer(value).finish()

test('plain values survive writer and cursor', () => {
  fc.assert(fc.property(plain, (value) => {
    const bytes = new MsgpackWriter().value(value).finish()
    const cursor = new MsgpackCursor(bytes)
    assert.deepEqual(cursor.readValue(), value)
    cursor.expectEnd()
    const skipping = new MsgpackCursor(bytes)
    skipping.skip()
    assert.equal(skipping.atEnd, true)
  }), { numRuns: 200 })
})

test('an independent library reads what the writer writes, and the cursor what the library writes', () => {
  fc.assert(fc.property(plain, (value) => {
    const options = { useBigInt64: true } as const
    const bytes = new MsgpackWriter().value(value).finish()
    const again = new MsgpackCursor(encode(decode(bytes, options), options)).readValue()
    assert.deepEqual(again, value)
  }), { numRuns: 100 })
})

test('integers take their smallest form and keep 64 bits', () => {
  fc.assert(fc.property(integers, (value) => {
    const bytes = writeInteger(value)
    assert.equal(BigInt(new MsgpackCursor(bytes).readInteger()), value)
    const words = new Uint32Array(2)
    new MsgpackCursor(bytes).readHash(words, 0)
    assert.equal((BigInt(words[1] ?? 0) << 32n) | BigInt(words[0] ?? 0), BigInt.asUintN(64, value))
    if (value < 0n) assert.throws(() => new MsgpackCursor(bytes).readU64(words, 0), MsgpackError)
    else assert.deepEqual(new MsgpackWriter().u64(words[0] ?? 0, words[1] ?? 0).finish(), bytes)
    if (value >= -(1n << 53n) + 1n && value < 1n << 53n) assert.deepEqual(bytes, encode(Number(value)))
  }))
  assert.throws(() => writeInteger(1n << 64n), RangeError)
  assert.throws(() => writeInteger(-(1n << 63n) - 1n), RangeError)
  assert.throws(() => writeInteger(2 ** 60), RangeError)
})

test('keys are found by table, in any order and in long forms; unknown keys give -1', () => {
  const table = new KeyTable(['alpha', 'beta'])
  const long = Uint8Array.of(0xd9, 4, ...new TextEncoder().encode('beta'))
  const bytes = new MsgpackWriter().string('beta').string('alpha').string('gamma').raw(long).integer(1).finish()
  const cursor = new MsgpackCursor(bytes)
  assert.deepEqual([cursor.readKey(table, 0), cursor.readKey(table, 0), cursor.readKey(table, 0), cursor.readKey(table, 0)], [1, 0, -1, 1])
  assert.throws(() => cursor.readKey(table, 0), /expected a string key, found integer at byte 23/)
})

test('rows of small integers are as read one by one, to the end', () => {
  fc.assert(fc.property(fc.array(integers, { maxLength: 30 }), (values) => {
    const writer = new MsgpackWriter()
    for (const value of values) writer.integer(value)
    const bytes = writer.finish()
    for (let end = 0; end <= bytes.length; end += 1) {
      const [row, single] = [new MsgpackCursor(bytes, 0, end), new MsgpackCursor(bytes, 0, end)]
      const [words, expected] = [new Uint32Array(values.length), new Uint32Array(values.length)]
      const outcome = (read: () => void): string => {
        try { read() } catch (error) { assert.ok(error instanceof MsgpackError); return error.message }
        return 'ok'
      }
      assert.equal(outcome(() => row.readU32s(words, values.length)), outcome(() => { for (let at = 0; at < expected.length; at += 1) expected[at] = single.readU32() }))
      assert.deepEqual(words, expected)
    }
  }), { numRuns: 60 })
})

test('short texts that share a place keep apart', () => {
  fc.assert(fc.property(fc.array(fc.string({ maxLength: 33, unit: fc.constantFrom('a', 'b', 'é', '\0') }), { maxLength: 40 }), (texts) => {
    const bytes = new MsgpackWriter().value([...texts, ...texts]).finish()
    assert.deepEqual(new MsgpackCursor(bytes).readValue(), [...texts, ...texts])
  }), { numRuns: 100 })
})

test('random bytes end in a MsgpackError or a value', () => {
  const attempt = (read: () => unknown): void => {
    try { read() } catch (error) { assert.ok(error instanceof MsgpackError, String(error)) }
  }
  fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
    attempt(() => new MsgpackCursor(bytes).skip())
    attempt(() => new MsgpackCursor(bytes).readValue())
    attempt(() => new MsgpackCursor(bytes).readString())
    attempt(() => new MsgpackCursor(bytes).readHash(new Uint32Array(2), 0))
  }), { numRuns: 500 })
})

test('a cut message is an error at every length', () => {
  const bytes = new MsgpackWriter().value({ a: [1, 2 ** 40, 'text', null, true, 1.5], b: new Uint8Array(300), c: -5n * (1n << 60n) }).finish()
  for (let end = 0; end < bytes.length; end += 1) {
    assert.throws(() => new MsgpackCursor(bytes, 0, end).skip(), MsgpackError)
    assert.throws(() => new MsgpackCursor(bytes, 0, end).readValue(), MsgpackError)
  }
})

test('deep nesting is refused by readValue and passed by skip; huge counts are refused', () => {
  const deep = new Uint8Array(100_001).fill(0x91)
  deep[100_000] = 0xc0
  assert.throws(() => new MsgpackCursor(deep).readValue(), /nesting deeper than 64/)
  const cursor = new MsgpackCursor(deep)
  cursor.skip()
  assert.equal(cursor.atEnd, true)
  assert.throws(() => new MsgpackCursor(Uint8Array.of(0xdd, 0xff, 0xff, 0xff, 0xff)).readArrayHeader(), /an array of 4294967295 items/)
  assert.throws(() => new MsgpackCursor(Uint8Array.of(0xdf, 0xff, 0xff, 0xff, 0xff)).readMapHeader(), /a map of 4294967295 pairs/)
  assert.throws(() => new MsgpackCursor(Uint8Array.of(0xa1, 0xff)).readString(), /not UTF-8/)
  assert.throws(() => new MsgpackWriter(16, 20).string('x'.repeat(40)), RangeError)
})

test('a list of unsigned 32-bit integers is read at once; any other list stays where it is', () => {
  const ids = fc.oneof(fc.nat(300), fc.nat(70_000), fc.integer({ min: 0, max: 0xffffffff }))
  fc.assert(fc.property(fc.array(ids, { maxLength: 40 }), fc.constantFrom<MsgpackValue[]>([], [-1], [2 ** 32], [1.5], ['7'], [null]), fc.nat(40), (list, odd, at) => {
    const items: MsgpackValue[] = [...list.slice(0, at), ...odd, ...list.slice(at)]
    const cursor = new MsgpackCursor(new MsgpackWriter().value(items).string('next').finish())
    const read = cursor.tryU32s()
    if (odd.length > 0) assert.equal(read, null)
    else assert.deepEqual(Array.from(read ?? []), list)
    if (read === null) assert.deepEqual(cursor.readValue(), items)
    assert.equal(cursor.readString(), 'next')
  }))
})

test('a name like that of the prototype stays a plain entry', () => {
  const map = new MsgpackCursor(new MsgpackWriter().mapHeader(2).string('__proto__').integer(1).string('a').integer(2).finish()).readValue() as Record<string, unknown>
  assert.deepEqual(Object.entries(map), [['__proto__', 1], ['a', 2]])
  assert.equal(Object.getPrototypeOf(map), Object.prototype)
})
