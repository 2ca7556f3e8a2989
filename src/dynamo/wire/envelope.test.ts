/** Goal: a request whose control header can be read is never left without an answer, and no payload harms the reader. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { decodeEnvelope, decodeHandshake, decodePrologue, encodeControl, encodeFailedPrologue } from './envelope.ts'
import { decodeTwoPart, encodeTwoPart } from './frames.ts'
import { WireError } from './wire-error.ts'

const fields = { id: 'r', codec: 'msgpack', address: '127.0.0.1:1', subject: 's' } as const
const control = encodeControl(fields)

test('a plain request is read, an absent codec means JSON', () => {
  const { control: read, body, fault } = decodeEnvelope(encodeTwoPart(control, 'body'))
  assert.deepEqual(read, { id: 'r', requestType: 'single_in', codec: 'msgpack', callHome: { transport: 'tcp_server', address: '127.0.0.1:1', subject: 's', context: 'r' }, metadata: {} })
  assert.deepEqual([Buffer.from(body).toString(), fault], ['body', null])
  assert.equal(decodeEnvelope(encodeTwoPart(control.replace('"payload_codec":"msgpack",', ''), '')).control.codec, 'json')
})

test('what cannot be served is a fault with a reason, not an exception', () => {
  const reasonOf = (payload: Uint8Array): string | undefined => decodeEnvelope(payload).fault?.reason
  assert.equal(reasonOf(encodeTwoPart(control.replace('single_in', 'many_in'), '')), 'runtime.not_implemented')
  assert.equal(reasonOf(encodeTwoPart(control.replace('single_in', 'other'), '')), 'request.invalid')
  assert.equal(reasonOf(encodeTwoPart(control.replace('msgpack', 'cbor'), '')), 'request.invalid')
  assert.equal(reasonOf(encodeTwoPart(control.replace('{"id":"r"', '{"id":"q"'), '')), 'request.invalid')
  assert.equal(reasonOf(encodeTwoPart(control, 'body').subarray(0, -1)), 'request.invalid')
})

test('a payload without a readable control header is a WireError', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), fc.jsonValue(), (bytes, value) => {
    for (const payload of [bytes, encodeTwoPart(bytes, ''), encodeTwoPart(JSON.stringify(value), ''), encodeTwoPart(JSON.stringify({ ...JSON.parse(control) as object, connection_info: value }), '')]) {
      assert.throws(() => decodeEnvelope(payload), WireError)
    }
  }), { numRuns: 500 })
  assert.throws(() => decodeEnvelope(encodeTwoPart(control.replace('"id":"r"', `"id":"${'r'.repeat(140_000)}"`), '')), { kind: 'oversized' })
  assert.throws(() => decodeEnvelope(encodeTwoPart(control.replace(/\}$/, ',"metadata":{"k":5}}'), '')), WireError)
})

test('prologues carry typed failures, plain texts and nothing', () => {
  const headerOf = (text: string): Uint8Array => Buffer.from(text)
  const failure = { class: 'InvalidRequest', reason: 'request.invalid', message: 'bad é', legacyType: 'InvalidArgument' } as const
  assert.deepEqual(decodePrologue(decodeTwoPart(encodeFailedPrologue(failure)).header), failure)
  assert.equal(decodePrologue(headerOf('{"error":null,"typed_error":null}')), null)
  assert.equal(decodePrologue(headerOf('{"error":"boom"}'))?.message, 'Worker generate() failed before response stream: boom')
  for (const text of ['5', '', '[]']) assert.throws(() => decodePrologue(headerOf(text)), WireError)
  for (const text of ['{}', '{"subject":5,"stream_type":"response"}', '{"subject":"s","stream_type":"request"}']) assert.throws(() => decodeHandshake(headerOf(text)), WireError)
})
