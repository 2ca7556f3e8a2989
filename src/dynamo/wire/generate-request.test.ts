import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { FailureError } from '../../model/failure.ts'
import { MsgpackCursor, type MsgpackValue } from '../../msgpack/cursor.ts'
import { MsgpackWriter } from '../../msgpack/writer.ts'
import { EncodedValue, decodeGenerateRequest } from './generate-request.ts'
import { parseJsonBytes, stringifyJsonBytes } from './json.ts'

const pack = (value: MsgpackValue): Uint8Array => new MsgpackWriter().value(value).finish()
const joined = (parts: readonly Uint8Array[]): Uint8Array => Uint8Array.from(Buffer.concat(parts))
const unpack = (bytes: Uint8Array): MsgpackValue => {
  const cursor = new MsgpackCursor(bytes)
  const value = cursor.readValue()
  cursor.expectEnd()
  return value
}

test('the request for the worker keeps what is unknown and sets the rank', () => {
  const body = pack({ zzz: [1, 2n ** 64n - 1n], token_ids: [1, 2, 70000], dp_rank: 3, routing: { dp_rank: 1, foo: 'x' }, model: 'm' })
  const request = decodeGenerateRequest(body, 'msgpack')
  assert.deepEqual([...request.tokens], [1, 2, 70000])
  assert.equal(request.model, 'm')
  assert.equal(request.routing.dpRank, 1)
  const expected = {
    zzz: [1, 2n ** 64n - 1n], token_ids: [1, 2, 70000], model: 'm', stop_conditions: {}, sampling_options: {}, output_options: {}, eos_token_ids: [],
    annotations: [], routing: { foo: 'x', dp_rank: 9 },
  }
  assert.deepEqual(unpack(joined(request.forWorker({ routing: { dp_rank: 9 } }, 'msgpack'))), expected)
  assert.deepEqual(parseJsonBytes(joined(request.forWorker({ routing: { dp_rank: 9 } }, 'json'))), expected)
})

test('a legacy rank counts without routing, and a bare request gets what old workers insist on', () => {
  for (const codec of ['msgpack', 'json'] as const) {
    const value = { token_ids: [5], dp_rank: 2 }
    const request = decodeGenerateRequest(codec === 'msgpack' ? pack(value) : stringifyJsonBytes(value), codec)
    assert.equal(request.routing.dpRank, 2)
    assert.equal(request.model, 'unknown')
    const sent = unpack(joined(request.forWorker({ routing: { dp_rank: 2 } }, 'msgpack'))) as Record<string, MsgpackValue>
    assert.deepEqual(sent['routing'], { dp_rank: 2 })
    assert.equal('dp_rank' in sent, false)
    assert.equal(sent['model'], 'unknown')
  }
})

test('hints are read alike from both codecs', () => {
  const value = {
    token_ids: [1], annotations: ['query_instance_id:'],
    router_config_override: { overlap_score_credit: 0.5, assume_kv_reuse: false, unknown: 1 },
    routing: {
      decode_worker_id: 2n ** 64n - 1n, backend_instance_id: 4, dp_rank: 1, allowed_worker_ids: [7, 2n ** 60n], lora_name: 'l', cache_salt: 's',
      expected_output_tokens: 10, routing_constraints: { required_taints: ['a'], preferred_taints: { b: 0.5 } },
    },
  }
  const [packed, text] = [decodeGenerateRequest(pack(value), 'msgpack'), decodeGenerateRequest(stringifyJsonBytes(value), 'json')]
  assert.deepEqual(packed.routing, text.routing)
  assert.deepEqual(packed.routing.pin, { workerId: 2n ** 64n - 1n, dpRank: 1 })
  assert.deepEqual(packed.routing.allowedWorkerIds, new Set([7n, 2n ** 60n]))
  assert.deepEqual(packed.routing.override, { overlapScoreCredit: 0.5, assumeKvReuse: false })
  assert.equal(packed.queryOnly, true)
  assert.equal(decodeGenerateRequest(pack({ token_ids: [1], annotations: ['query_instance_id'] }), 'msgpack').queryOnly, false)
})

test('packed tokens and multimodal routing tokens are taken', () => {
  const packed = new Uint8Array(new Int32Array([1, 2, 3]).buffer)
  assert.deepEqual([...decodeGenerateRequest(pack({ token_ids: packed }), 'msgpack').tokens], [1, 2, 3])
  const mm = decodeGenerateRequest(pack({
    token_ids: [1], mm_routing_info: { routing_token_ids: [8, 9], block_mm_infos: [null, { mm_objects: [{ mm_hash: 2n ** 63n, offsets: [[0, 1]] }] }] },
  }), 'msgpack')
  assert.deepEqual([...mm.tokens], [8, 9])
  assert.equal(mm.routing.blockMmInfos?.[1]?.mmObjects[0]?.mmHash, 2n ** 63n)
})

test('bad fields are named', () => {
  const cases: readonly (readonly [MsgpackValue, RegExp])[] = [
    [{ model: 'x' }, /missing field `token_ids`/], [{ token_ids: 'abc' }, /^`token_ids`: invalid type: string, expected a sequence of token ids/], [{ token_ids: [1, -2] }, /token_ids\[1\]/],
    [{ token_ids: [1.5] }, /token_ids\[0\]/], [{ token_ids: [1], model: null }, /`model` is null/], [{ token_ids: [1], routing: 4 }, /`routing` is 4/],
    [{ token_ids: [1], routing: { backend_instance_id: -4 } }, /backend_instance_id/], [[1], /msgpack array/],
    [{ token_ids: [1], router_config_override: { router_temperature: 'hot' } }, /router_temperature.*"hot"/],
  ]
  for (const [value, message] of cases) {
    assert.throws(() => decodeGenerateRequest(pack(value), 'msgpack'), (error) => error instanceof FailureError && error.failure.class === 'InvalidRequest' && message.test(error.message))
  }
})

test('any cut or garbage is a failure of class InvalidRequest', () => {
  const whole = pack({ token_ids: [1, 2, 3], routing: { dp_rank: 1 }, model: 'm' })
  for (let cut = 0; cut < whole.length; cut += 1) {
    assert.throws(() => decodeGenerateRequest(whole.subarray(0, cut), 'msgpack'), FailureError)
  }
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), fc.constantFrom('msgpack' as const, 'json' as const), (bytes, codec) => {
    try {
      decodeGenerateRequest(bytes, codec)
    } catch (error) {
      assert.ok(error instanceof FailureError)
    }
  }))
})

test('every edit lands in both codecs, and what is not edited keeps its bytes', () => {
  const value = {
    token_ids: [1, 2], model: 'm', stop_conditions: { max_tokens: 9, stop: ['x'] }, sampling_options: {}, output_options: {}, eos_token_ids: [], annotations: [],
    router_config_override: { router_temperature: 0.5 }, routing: { dp_rank: 5, keep: 2n ** 63n }, prefill_result: 'old', dp_rank: 1,
  }
  const params = pack({ room: 2n ** 62n, ratio: 0.25 })
  const edits = {
    routing: { dp_rank: 1, prefill_worker_id: 2n ** 64n - 1n }, stopConditions: { max_tokens: 1 }, override: { assume_kv_reuse: false },
    prefillResult: { params: new EncodedValue('msgpack', params), promptTokensDetails: null }, bootstrapInfo: { bootstrap_room: 7 }, appendedTokens: [3, 70000],
  }
  const expected = {
    token_ids: [1, 2, 3, 70000], model: 'm', stop_conditions: { max_tokens: 1, stop: ['x'] }, sampling_options: {}, output_options: {}, eos_token_ids: [], annotations: [],
    router_config_override: { router_temperature: 0.5, assume_kv_reuse: false }, routing: { dp_rank: 1, keep: 2n ** 63n, prefill_worker_id: 2n ** 64n - 1n },
    prefill_result: { disaggregated_params: { room: 2n ** 62n, ratio: 0.25 }, prompt_tokens_details: null }, bootstrap_info: { bootstrap_room: 7 },
  }
  for (const [request, codec] of [[pack(value), 'msgpack'], [stringifyJsonBytes(value), 'json']] as const) {
    const decoded = decodeGenerateRequest(request, codec)
    assert.deepEqual(unpack(joined(decoded.forWorker(edits, 'msgpack'))), expected)
    assert.deepEqual(parseJsonBytes(joined(decoded.forWorker(edits, 'json'))), expected)
    assert.deepEqual(decoded.field('stop_conditions'), value.stop_conditions)
  }
  const bytes = Buffer.from(joined(decodeGenerateRequest(pack(value), 'msgpack').forWorker(edits, 'msgpack')))
  assert.ok(bytes.includes(Buffer.from(params)), 'the hand-over is verbatim')
})
