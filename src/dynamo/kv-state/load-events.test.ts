import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { rememberingLog } from '../../../test/discovery-kit.ts'
import { fixturePath } from '../../../test/repo-root.ts'
import type { EventEnvelope, EventPlane } from '../../ports.ts'
import { decodeEventFrames } from '../event-plane/envelope.ts'
import { createKvMetricsPublisher } from './kv-metrics-publisher.ts'
import { followLoadEvents } from './load-events.ts'

const endpoint = { namespace: 'dynamo', component: 'backend', endpoint: 'generate' }

/** An event plane without a network: what is published is heard at once. */
function localPlane() {
  const listeners = new Map<string, Set<(envelope: EventEnvelope) => void>>()
  const deliver = (topic: string, payload: Uint8Array): void => {
    for (const listener of listeners.get(topic) ?? []) listener({ publisherId: 1n, sequence: 0n, publishedAtMs: 0, topic, payload })
  }
  const plane: EventPlane = {
    kind: 'zmq',
    subscribe(scope, topic, listener) {
      if (scope.endpoint === null) return { close: () => {} }
      const known = listeners.get(topic) ?? new Set()
      listeners.set(topic, known.add(listener))
      return { close: () => void known.delete(listener) }
    },
    publisher: async (_scope, topic) => ({ publisherId: 1n, publish: (payload) => deliver(topic, payload), close: async () => {} }),
    close: async () => {},
  }
  return { plane, deliver }
}

/** Payloads of recorded messages of a topic. */
function recordedPayloads(file: string, topic: string): Uint8Array[] {
  const messages = JSON.parse(readFileSync(fixturePath('wire', file), 'utf8')) as Record<string, { frames_hex: string[] }[]>
  return (messages[topic] ?? []).map(({ frames_hex: frames }) => {
    const envelope = decodeEventFrames(frames.map((frame) => Buffer.from(frame, 'hex')), topic, null)
    if (typeof envelope === 'string') assert.fail(envelope)
    return envelope.payload
  })
}

function followed() {
  const { plane, deliver } = localPlane()
  const heard: unknown[] = []
  const follower = followLoadEvents({
    plane, endpoint, log: rememberingLog(),
    sink: {
      reportLoad: (rank, load) => heard.push({ ...rank, ...load }),
      prefillCompleted: (requestId) => heard.push(requestId) === 1,
    },
  })
  return { plane, deliver, heard, follower }
}

test('a load that a worker reports reaches the router as reported', async () => {
  const { plane, deliver, heard, follower } = followed()
  const metrics = await createKvMetricsPublisher(plane, endpoint)
  metrics.report({ workerId: 2n ** 64n - 1n, dpRank: 1 }, { kvUsedBlocks: 5 })
  for (const payload of recordedPayloads('zmq-events-worker.json', 'kv_metrics')) deliver('kv_metrics', payload)
  assert.deepEqual(heard.slice(0, 2), [
    { workerId: 2n ** 64n - 1n, dpRank: 1, activeDecodeBlocks: null, activePrefillTokens: null, kvUsedBlocks: 5 },
    { workerId: 13428561255892356228n, dpRank: 0, activeDecodeBlocks: null, activePrefillTokens: null, kvUsedBlocks: 5 },
  ])
  assert.equal(follower.stats.loads, heard.length)
})

test('of recorded sequence events only the first-token marks are applied', () => {
  const { deliver, heard, follower } = followed()
  for (const payload of recordedPayloads('zmq-events-router-and-worker.json', 'active_sequences_events')) deliver('active_sequences_events', payload)
  assert.ok(heard.length >= 2)
  assert.deepEqual([...new Set(heard)], ['39d06e67-40b5-445c-bf14-6cf080a2c4c8'])
  assert.deepEqual([follower.stats.prefillMarks, follower.stats.unknownMarks], [heard.length, heard.length - 1])
})

test('unreadable messages are counted; after close nothing is heard', () => {
  const { deliver, heard, follower } = followed()
  deliver('kv_metrics', Uint8Array.of(0xc1))
  deliver('active_sequences_events', Uint8Array.of(0x81, 0xa6))
  assert.deepEqual([follower.stats.malformed, heard.length], [2, 0])
  follower.close()
  for (const payload of recordedPayloads('zmq-events-worker.json', 'kv_metrics')) deliver('kv_metrics', payload)
  assert.equal(heard.length, 0)
})
