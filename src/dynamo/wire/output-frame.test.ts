import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MsgpackCursor, type MsgpackValue } from '../../msgpack/cursor.ts'
import { MsgpackWriter } from '../../msgpack/writer.ts'
import type { Codec } from '../../ports.ts'
import { parseJsonBytes, stringifyJsonBytes } from './json.ts'
import { editOutput, encodeQueryAnswer, peekOutput, reportedCachedTokens, transcodeFrame } from './output-frame.ts'

const encode = (value: MsgpackValue, codec: Codec): Uint8Array => (codec === 'msgpack' ? new MsgpackWriter().value(value).finish() : stringifyJsonBytes(value))
const decode = (bytes: Uint8Array, codec: Codec): unknown => (codec === 'msgpack' ? new MsgpackCursor(bytes).readValue() : parseJsonBytes(bytes))
const item = (output: MsgpackValue, more = {}): MsgpackValue => ({ data: { data: output, ...more }, complete_final: false })
const codecs = ['msgpack', 'json'] as const
const worker = { workerId: 2n ** 64n - 1n, dpRank: 1 }

test('a look at an item tells tokens, finish and failure', () => {
  for (const codec of codecs) {
    assert.deepEqual(peekOutput(encode(item({ token_ids: [1, 2], finish_reason: null }), codec), codec), { hasData: true, tokenCount: 2, finished: false, failure: null })
    assert.deepEqual(peekOutput(encode(item({ finish_reason: 'length', token_ids: [] }), codec), codec), { hasData: true, tokenCount: 0, finished: true, failure: null })
    assert.deepEqual(peekOutput(encode(item(7), codec), codec), { hasData: true, tokenCount: 0, finished: false, failure: null })
    const failed = peekOutput(encode({ data: { event: 'error', error: { error_type: { Backend: 'EngineShutdown' }, message: 'gone' } }, complete_final: false }, codec), codec)
    assert.equal(failed.failure?.class, 'Unavailable')
    assert.equal(failed.failure?.reason, 'backend.engine_shutdown')
    assert.equal(failed.hasData, false)
    assert.equal(peekOutput(Uint8Array.of(0xc1), codec).hasData, true)
  }
})

test('the worker and the timing are spliced in, everything else stays', () => {
  const timing = { requestReceivedMs: 1, prefillWaitTimeMs: 2.5, prefillTimeMs: 3, ttftMs: 4, totalTimeMs: 5, kvHitRate: 0.5, kvTransferMs: 1.5 }
  for (const codec of codecs) {
    const body = encode(item({ token_ids: [1], odd: [2n ** 63n] }, { comment: ['c'] }), codec)
    const edited = decode(editOutput(body, codec, { worker, timing }), codec) as { data: { data: Record<string, unknown>; comment: unknown } }
    assert.deepEqual(edited.data.comment, ['c'])
    assert.deepEqual(edited.data.data['odd'], [2n ** 63n])
    assert.deepEqual(edited.data.data['routing_data'], {
      worker_id: { prefill_worker_id: worker.workerId, prefill_dp_rank: 1, decode_worker_id: worker.workerId, decode_dp_rank: 1 },
      timing: { request_received_ms: 1, prefill_wait_time_ms: 2.5, prefill_time_ms: 3, ttft_ms: 4, total_time_ms: 5, kv_hit_rate: 0.5, router_queue_depth: 0, kv_transfer_estimated_latency_ms: 1.5 },
    })
    assert.deepEqual(editOutput(encode(item(5), codec), codec, { worker, timing: null }), encode(item(5), codec))
  }
})

test('the worker that a router below has named stays', () => {
  for (const codec of codecs) {
    const below = { worker_id: { decode_worker_id: 5 }, other: 1 }
    const edited = decode(editOutput(encode(item({ routing_data: below, token_ids: [] }), codec), codec, { worker, timing: null }), codec) as { data: { data: { routing_data: unknown } } }
    assert.deepEqual(edited.data.data.routing_data, below)
  }
})

test('items change codec without loss', () => {
  const value = item({ token_ids: [1], big: 2n ** 64n - 1n })
  assert.deepEqual(decode(transcodeFrame(encode(value, 'msgpack'), 'msgpack', 'json'), 'json'), value)
  assert.deepEqual(decode(transcodeFrame(encode(value, 'json'), 'json', 'msgpack'), 'msgpack'), value)
  for (const codec of codecs) {
    const answer = decode(encodeQueryAnswer(codec, worker, Uint32Array.of(1, 2)), codec) as { data: { data: { routing_data: { token_ids: unknown } } } }
    assert.deepEqual(answer.data.data.routing_data.token_ids, [1, 2])
  }
})

test('reported cached tokens are read from the usage', () => {
  for (const codec of codecs) {
    const usage = { completion_usage: { prompt_tokens_details: { cached_tokens: 32 } } }
    assert.equal(reportedCachedTokens(encode(item(usage), codec), codec), 32)
    assert.equal(reportedCachedTokens(encode(item({ token_ids: [1] }), codec), codec), null)
    assert.equal(reportedCachedTokens(encode(item({ completion_usage: { prompt_tokens_details: null } }), codec), codec), null)
  }
})
