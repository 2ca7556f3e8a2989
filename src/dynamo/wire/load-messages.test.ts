/** Goal: loads and active sequences survive their wire forms; recorded messages are errors at every cut. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { fixturePath } from '../../../test/repo-root.ts'
import { hashListOf } from '../../model/hash-list.ts'
import { MsgpackWriter } from '../../msgpack/writer.ts'
import { decodeActiveSequences, encodeActiveSequence, encodeActiveSequenceBatch, type ActiveSequenceData, type ActiveSequenceEvent } from './active-sequences.ts'
import { decodeKvMetrics, encodeKvMetrics } from './kv-metrics.ts'
import { WireError } from './wire-error.ts'

const u64 = fc.bigInt(0n, (1n << 64n) - 1n)
const u32 = fc.integer({ min: 0, max: 0xffffffff })
const count = fc.option(fc.maxSafeNat())
const data: fc.Arbitrary<ActiveSequenceData> = fc.oneof(
  fc.constantFrom<ActiveSequenceData>({ kind: 'free' }, { kind: 'mark_prefill_completed' }),
  fc.record({
    kind: fc.constant('add_request' as const), tokenSequence: fc.option(fc.array(u64, { maxLength: 40 }).map(hashListOf)), trackPrefillTokens: fc.boolean(),
    expectedOutputTokens: fc.option(u32),
    prefillLoadHint: fc.option(fc.record({ initialEffectivePrefillTokens: fc.maxSafeNat(), expectedPrefillDuration: fc.option(fc.record({ seconds: fc.maxSafeNat(), nanoseconds: u32 })) })),
    promptLoad: fc.record({ promptTokens: fc.maxSafeNat(), overlapBlocks: u32 }),
  }, { requiredKeys: ['kind', 'tokenSequence', 'trackPrefillTokens', 'expectedOutputTokens', 'prefillLoadHint'] }),
)
const event: fc.Arbitrary<ActiveSequenceEvent> = fc.record({ requestId: fc.string(), workerId: u64, dpRank: u32, data, routerId: u64, loraName: fc.option(fc.string()) })

interface Recorded { readonly topics: Readonly<Record<string, readonly { readonly payload_hex: string }[]>> }
const { topics } = JSON.parse(readFileSync(fixturePath('router', 'event_plane_capture.json'), 'utf8')) as Recorded

test('active sequences survive both message forms', () => {
  fc.assert(fc.property(fc.array(event, { maxLength: 5 }), (generated) => {
    // Copies have the usual prototype.
    const events = structuredClone(generated)
    assert.deepEqual(decodeActiveSequences(encodeActiveSequenceBatch(events)), events)
    for (const one of events) assert.deepEqual(decodeActiveSequences(encodeActiveSequence(one)), [one])
  }), { numRuns: 100 })
  assert.throws(() => encodeActiveSequenceBatch(Array.from({ length: 257 }, () => ({ requestId: '', workerId: 1n, dpRank: 0, data: { kind: 'free' }, routerId: 1n, loraName: null }))), RangeError)
})

test('loads survive their message', () => {
  fc.assert(fc.property(fc.record({ workerId: u64, dpRank: u32, activeDecodeBlocks: count, activePrefillTokens: count, kvUsedBlocks: count }), (metrics) => {
    assert.deepEqual(decodeKvMetrics(encodeKvMetrics(metrics)), structuredClone(metrics))
  }))
  const partial = new MsgpackWriter().value({ kv_used_blocks: 3, news: [1], worker_id: 9 }).finish()
  assert.deepEqual(decodeKvMetrics(partial), { workerId: 9n, dpRank: 0, activeDecodeBlocks: null, activePrefillTokens: null, kvUsedBlocks: 3 })
})

test('recorded messages are errors at every cut', () => {
  for (const [topic, decode] of [['kv_metrics', decodeKvMetrics], ['active_sequences_events', decodeActiveSequences]] as const) {
    const messages = topics[topic] ?? []
    assert.ok(messages.length > 0)
    for (const { payload_hex } of messages) {
      const bytes = Buffer.from(payload_hex, 'hex')
      for (let end = 0; end < bytes.length; end += 1) assert.throws(() => decode(bytes.subarray(0, end)), WireError)
    }
  }
})

test('unknown kinds and missing fields are named', () => {
  const base = { request_id: 'r', worker: { worker_id: 1, dp_rank: 0 }, router_id: 2, lora_name: null }
  const attempt = (value: unknown) => () => decodeActiveSequences(new MsgpackWriter().value(value as never).finish())
  assert.throws(attempt({ ...base, data: 'Paused' }), /unknown event data "Paused" at byte/)
  assert.throws(attempt({ ...base, data: { Resize: {} } }), /unknown kind/)
  assert.throws(attempt(base), /without data/)
  assert.throws(attempt({ events: [{ ...base, data: 'Free', worker: {} }] }), /without worker/)
  assert.throws(attempt({ ...base, data: { AddRequest: { prefill_load_hint: {} } } }), /initial_effective_prefill_tokens/)
  assert.throws(() => decodeKvMetrics(new MsgpackWriter().value({ dp_rank: 0 }).finish()), /without worker_id/)
})
