import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { fixturePath } from '../../../test/repo-root.ts'
import type { EventEnvelope } from '../../ports.ts'
import { decodeEnvelope, decodeEventFrames, encodeEventFrames } from './envelope.ts'
import { encodeKeySegment, eventKey, publisherIdOfKey } from './event-keys.ts'

interface Recorded {
  readonly frames_hex: readonly string[]
  readonly frame0_topic: string
  readonly channel: { readonly instance_id: number; readonly topic: string }
  readonly envelope: { readonly publisher_id: number; readonly sequence: number; readonly published_at: number }
}

function recordedMessages(): Recorded[] {
  return ['zmq-events-worker.json', 'zmq-events-router-and-worker.json'].flatMap((name) => {
    const file = JSON.parse(readFileSync(fixturePath('wire', name), 'utf8')) as Record<string, Recorded[]>
    return Object.values(file).flat().filter((message) => Array.isArray(message.frames_hex))
  })
}

const bytesOf = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'))
const sample: EventEnvelope = { publisherId: 7n, sequence: 3n, publishedAtMs: 1_700_000_000_000, topic: 'kv-events', payload: Uint8Array.of(0x90) }

function asEnvelope(result: EventEnvelope | string): EventEnvelope {
  if (typeof result === 'string') assert.fail(`dropped: ${result}`)
  return result
}

test('recorded messages of real publishers are read and written byte for byte', () => {
  const messages = recordedMessages()
  assert.ok(messages.length >= 6)
  for (const message of messages) {
    const frames = message.frames_hex.map(bytesOf)
    const envelope = asEnvelope(decodeEventFrames(frames, message.frame0_topic, BigInt(message.channel.instance_id)))
    assert.equal(envelope.publisherId, BigInt(message.envelope.publisher_id))
    assert.equal(envelope.sequence, BigInt(message.envelope.sequence))
    assert.equal(envelope.publishedAtMs, message.envelope.published_at)
    assert.equal(envelope.topic, message.channel.topic)
    assert.deepEqual(encodeEventFrames(envelope).map((frame) => Buffer.from(frame).toString('hex')), message.frames_hex)
  }
})

test('malformed messages are dropped under the reason that fits', () => {
  const good = encodeEventFrames(sample)
  const changed = (index: number, frame: Uint8Array): Uint8Array[] => good.map((old, at) => (at === index ? frame : old))
  const body = good[3] as Uint8Array
  const bodyWith = (offset: number, value: number): Uint8Array => body.map((byte, at) => (at === offset ? value : byte))
  const decode = (frames: Uint8Array[], id: bigint | null = 7n) => decodeEventFrames(frames, 'kv-events', id)
  assert.equal(asEnvelope(decode(good)).sequence, 3n)
  assert.equal(decode([]), 'frame_count')
  assert.equal(decode(good.slice(0, 3)), 'frame_count')
  assert.equal(decode([...good, new Uint8Array(0)]), 'frame_count')
  assert.equal(decode(changed(1, new Uint8Array(7))), 'frame_length')
  assert.equal(decode(changed(2, new Uint8Array(9))), 'frame_length')
  assert.equal(decode(changed(3, body.subarray(0, 4))), 'frame_length')
  assert.equal(decode(changed(3, body.subarray(0, body.length - 1))), 'frame_length')
  assert.equal(decode(changed(3, bodyWith(4, body.length))), 'frame_length')
  assert.equal(decode(changed(3, bodyWith(0, 2))), 'version')
  assert.equal(decode(changed(0, Buffer.from('kv-events-v2'))), 'topic')
  assert.equal(decode(encodeEventFrames({ ...sample, topic: 'kv-eventt' })), 'topic')
  assert.equal(decode([good[0] as Uint8Array, ...encodeEventFrames({ ...sample, topic: 'other' }).slice(1)]), 'topic')
  assert.equal(decode(changed(3, bodyWith(5, 0xc0))), 'envelope')
  assert.equal(decode(changed(1, bytesOf('0000000000000008'))), 'publisher_mismatch')
  assert.equal(decode(good, 8n), 'publisher_mismatch')
  assert.equal(asEnvelope(decode(good, null)).publisherId, 7n)
  assert.equal(decode(changed(2, bytesOf('0000000000000004'))), 'sequence_mismatch')
})

test('an envelope lacking a field is refused, one with an unknown field is read', () => {
  // {"publisher_id": 1, "x": [], ...}
  const full = bytesOf('86ac7075626c69736865725f696401a17890a873657175656e636502ac7075626c69736865645f617403a5746f706963a174a77061796c6f6164c40109')
  assert.deepEqual(decodeEnvelope(full), { publisherId: 1n, sequence: 2n, publishedAtMs: 3, topic: 't', payload: Uint8Array.of(9) })
  assert.throws(() => decodeEnvelope(bytesOf('81ac7075626c69736865725f696401')), /without all of/)
})

test('any envelope survives its frames, and any change of length is noticed', () => {
  const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
  fc.assert(fc.property(u64, u64, fc.uint8Array({ maxLength: 300 }), fc.nat(), (publisherId, sequence, payload, cut) => {
    const frames = encodeEventFrames({ publisherId, sequence, publishedAtMs: 5, topic: 'kv_metrics', payload })
    const envelope = asEnvelope(decodeEventFrames(frames, 'kv_metrics', publisherId))
    assert.deepEqual([envelope.publisherId, envelope.sequence], [publisherId, sequence])
    assert.deepEqual(Uint8Array.from(envelope.payload), payload)
    const body = frames[3] as Uint8Array
    const shorter = [...frames.slice(0, 3), body.subarray(0, cut % body.length)]
    assert.equal(typeof decodeEventFrames(shorter, 'kv_metrics', publisherId), 'string')
  }))
})

test('arbitrary frames never throw', () => {
  fc.assert(fc.property(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 6 }), (frames) => {
    assert.equal(typeof decodeEventFrames(frames, 'kv-events', null), 'string')
  }))
})

test('event keys escape what is not a plain name', () => {
  const scope = { namespace: 'dyn.a/b', component: 'bäckend', endpoint: 'generate' }
  assert.equal(eventKey(scope, 'kv-events', 0xABCn), 'namespace/dyn%2Ea%2Fb/component/b%C3%A4ckend/endpoint/generate/topic/kv-events/abc')
  assert.equal(encodeKeySegment('kv_metrics'), 'kv_metrics')
  assert.equal(publisherIdOfKey('a/b/4730c7df337d6'), 0x4730c7df337d6n)
  assert.equal(publisherIdOfKey('a/b/xyz'), null)
})
