/** Goal: questions to a served index survive their wire form in both codecs; what is malformed is named. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { hashListOf } from '../../model/hash-list.ts'
import { decodeBody, encodeBody, type WireValue } from './body.ts'
import { decodeIndexerAnswer, decodeIndexerQuestion, decodeIndexerRecord, decodeIndexerRecorded, encodeIndexerAnswer, encodeIndexerError, encodeIndexerQuestion, encodeIndexerRecord, encodeIndexerRecorded } from './indexer.ts'
import { encodeItem } from './items.ts'
import { decodeReplicaMessage, encodeReplicaMessage, type ReplicaMessage } from './replica-state.ts'
import { decodeSessionAffinity, encodeSessionAffinity } from './session-affinity.ts'
import { WireError } from './wire-error.ts'

const u64 = fc.bigInt(0n, (1n << 64n) - 1n)
const u32 = fc.integer({ min: 0, max: 0xffffffff })
const hashes = fc.array(u64, { maxLength: 20 }).map(hashListOf)
const codecs = ['msgpack', 'json'] as const

test('questions, answers and records survive both codecs', () => {
  const row = fc.record({ workerId: u64, dpRank: u32, deviceBlocks: fc.nat(), hostExtensionBlocks: fc.nat(), diskExtensionBlocks: fc.nat() })
  fc.assert(fc.property(fc.constantFrom(...codecs), hashes, hashes, fc.uniqueArray(row, { maxLength: 6, selector: ({ workerId, dpRank }) => `${workerId}/${dpRank}` }), (codec, local, other, rows) => {
    const question = { modelName: 'm', local, deviceOnly: rows.length > 3 }
    assert.deepEqual(decodeIndexerQuestion(encodeIndexerQuestion(question, codec), codec), question)
    const key = (each: { workerId: bigint; dpRank: number }): string => `${each.workerId}/${each.dpRank}`
    const byKey = (all: readonly { workerId: bigint; dpRank: number }[]) => structuredClone([...all]).sort((a, b) => (key(a) < key(b) ? -1 : 1))
    const found = rows.filter((each) => each.deviceBlocks + each.hostExtensionBlocks + each.diskExtensionBlocks > 0)
    assert.deepEqual(byKey(decodeIndexerAnswer(encodeIndexerAnswer(rows, false, codec), codec)), byKey(found))
    const count = Math.min(local.length, other.length)
    const record = { modelName: 'm', rank: { workerId: 1n, dpRank: 2 }, local: local.slice(0, count), sequence: other.slice(0, count) }
    assert.deepEqual(decodeIndexerRecord(encodeIndexerRecord(record, codec), codec), record)
    assert.equal(decodeIndexerRecorded(encodeIndexerRecorded(codec), codec), null)
  }), { numRuns: 100 })
})

test("the forms are those of Dynamo, the one without tiers is read too", () => {
  assert.deepEqual(decodeBody(encodeIndexerQuestion({ modelName: 'm', local: hashListOf([5n]), deviceOnly: false }, 'json'), 'json'), { model_name: 'm', block_hashes: [5], device_only: false })
  const rows = [{ workerId: 1n, dpRank: 0, deviceBlocks: 3, hostExtensionBlocks: 1, diskExtensionBlocks: 0 }]
  assert.deepEqual(decodeBody(encodeIndexerAnswer(rows, false, 'json'), 'json'), { data: { TieredScores: {
    device: { scores: [[{ worker_id: 1, dp_rank: 0 }, 3]], frequencies: [] }, lower_tier: [['host_pinned', { hits: [[{ worker_id: 1, dp_rank: 0 }, 1]] }], ['disk', { hits: [] }]],
  } }, complete_final: false })
  const older = encodeItem({ Scores: { scores: [[{ worker_id: 4, dp_rank: 1 }, 2]], frequencies: [1], tree_sizes: [] } }, 'json')
  assert.deepEqual(decodeIndexerAnswer(older, 'json'), [{ workerId: 4n, dpRank: 1, deviceBlocks: 2, hostExtensionBlocks: 0, diskExtensionBlocks: 0 }])
})

test('what is malformed is named', () => {
  const question = (value: WireValue) => () => decodeIndexerQuestion(encodeBody(value, 'json'), 'json')
  assert.throws(question({ model_name: 3, block_hashes: [] }), /model_name/)
  assert.throws(question({ model_name: 'm', block_hashes: ['x'] }), /block_hashes is not an integer/)
  assert.throws(question({ model_name: 'm' }), /block_hashes is not an array/)
  assert.throws(() => decodeIndexerAnswer(encodeIndexerError('no such model', 'msgpack'), 'msgpack'), /the index says: no such model/)
  assert.throws(() => decodeIndexerRecord(encodeBody({ model_name: 'm', worker: { worker_id: 1 }, local_hashes: [1], sequence_hashes: [] }, 'json'), 'json'), /1 local_hashes and 0/)
  assert.equal(decodeIndexerRecorded(encodeIndexerError('full', 'json'), 'json'), 'full')
})

test('messages of replicas and bindings of sessions survive, and are errors at every cut', () => {
  const from = { routerId: u64, publisherId: u64 }
  const event = fc.record({
    requestId: fc.string(), workerId: u64, dpRank: u32, routerId: u64, loraName: fc.constant(null),
    data: fc.record({ kind: fc.constant('add_request' as const), tokenSequence: fc.option(hashes), trackPrefillTokens: fc.boolean(), expectedOutputTokens: fc.constant(null), prefillLoadHint: fc.constant(null) }),
  })
  const message: fc.Arbitrary<ReplicaMessage> = fc.oneof(
    fc.record({ kind: fc.constant('beat' as const), ...from, sequence: u64, bookings: u32 }),
    fc.record({ kind: fc.constant('ask' as const), ...from }),
    fc.record({ kind: fc.constant('state' as const), ...from, sequence: u64, round: u32, part: u32, parts: u32, events: fc.array(event, { maxLength: 3 }) }),
  )
  fc.assert(fc.property(message, (generated) => {
    const bytes = encodeReplicaMessage(generated)
    assert.deepEqual(decodeReplicaMessage(bytes), structuredClone(generated))
    for (let end = 0; end < bytes.length; end += 7) assert.throws(() => decodeReplicaMessage(bytes.subarray(0, end)), WireError)
  }), { numRuns: 60 })
  fc.assert(fc.property(fc.record({ sessionId: fc.string(), workerId: u64, dpRank: fc.option(u32), sequence: u64, writerId: u64 }), (binding) => {
    const bytes = encodeSessionAffinity(binding)
    assert.deepEqual(decodeSessionAffinity(bytes), structuredClone(binding))
    for (let end = 0; end < bytes.length; end += 1) assert.throws(() => decodeSessionAffinity(bytes.subarray(0, end)), WireError)
  }), { numRuns: 40 })
})
