import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { TestContext } from 'node:test'
import * as zmq from 'zeromq'
import { rememberingLog, systemClock } from '../../../test/discovery-kit.ts'
import type { EndpointId, EventEnvelope } from '../../ports.ts'
import { systemRandom } from '../../system-ports.ts'
import { MemoryDiscovery, MemoryStore } from '../discovery/memory-discovery.ts'
import { encodeEventFrames } from './envelope.ts'
import { eventKey, scopeValue } from './event-keys.ts'
import { createZmqEventPlane } from './zmq-event-plane.ts'
import { until } from '../../../test/until.ts'

const scope: EndpointId = { namespace: 'dyn', component: 'backend', endpoint: 'generate' }

async function world(t: TestContext) {
  const log = rememberingLog()
  const store = new MemoryStore(log)
  const planeOf = async () => {
    const discovery = new MemoryDiscovery(store)
    await discovery.start(AbortSignal.timeout(1000))
    const plane = createZmqEventPlane({ discovery, clock: systemClock, random: systemRandom(), log })
    t.after(() => plane.close())
    return { discovery, plane }
  }
  return { log, store, planeOf }
}

test('a subscriber hears every publisher of its scope and topic, from when it is connected', async (t) => {
  const { planeOf } = await world(t)
  const { plane } = await planeOf()
  const other = await planeOf()
  const heard: EventEnvelope[] = []
  const watch = plane.subscribe(scope, 'kv-events', (envelope) => heard.push(envelope))
  const first = await other.plane.publisher(scope, 'kv-events')
  const second = await plane.publisher(scope, 'kv-events')
  const elsewhere = await other.plane.publisher({ ...scope, endpoint: 'other' }, 'kv-events')
  const longer = await other.plane.publisher(scope, 'kv-events-v2')
  const heardFrom = (id: bigint) => heard.filter((envelope) => envelope.publisherId === id)
  await until('both are heard', () => heardFrom(first.publisherId).length > 0 && heardFrom(second.publisherId).length > 0, 5000, () => {
    for (const publisher of [first, second, elsewhere, longer]) publisher.publish(Uint8Array.of(1, 2))
  })
  assert.ok(first.publisherId < 1n << 53n)
  assert.equal(heardFrom(elsewhere.publisherId).length + heardFrom(longer.publisherId).length, 0)
  assert.deepEqual(Uint8Array.from(heard[0]?.payload ?? []), Uint8Array.of(1, 2))
  const sequences = heardFrom(first.publisherId).map((envelope) => envelope.sequence)
  assert.deepEqual(sequences, sequences.map((_, index) => (sequences[0] ?? 0n) + BigInt(index)))

  await first.close()
  assert.equal(plane.stats.subscriberSockets, 1, 'a removed record disconnects')
  watch.close()
  assert.equal(plane.stats.subscriberSockets, 0)
  assert.equal(other.plane.stats.publisherSockets, 2)
})

test('a publisher that comes back at the same address is heard again', async (t) => {
  const { planeOf } = await world(t)
  const { plane, discovery } = await planeOf()
  const heard: bigint[] = []
  plane.subscribe(scope, 'kv-events', (envelope) => heard.push(envelope.sequence))
  let socket = new zmq.Publisher({ linger: 0 })
  await socket.bind('tcp://127.0.0.1:*')
  const endpoint = socket.lastEndpoint as string
  await discovery.put('v1/event_channels', eventKey(scope, 'kv-events', 9n), channel(9n, endpoint))
  const send = (sequence: bigint) => void socket.send(encodeEventFrames({ publisherId: 9n, sequence, publishedAtMs: 1, topic: 'kv-events', payload: new Uint8Array(1) }))
  await until('heard', () => heard.includes(1n), 5000, () => send(1n))
  socket.close()
  socket = new zmq.Publisher({ linger: 0 })
  await until('bound again', () => socket.bind(endpoint).then(() => true, () => false))
  await until('heard again', () => heard.includes(2n), 5000, () => send(2n))
  socket.close()
})

test('what does not fit is dropped and counted; the stream goes on', async (t) => {
  const { log, planeOf } = await world(t)
  const { plane, discovery } = await planeOf()
  let failures = 0
  const heard: bigint[] = []
  plane.subscribe(scope, 'kv-events', (envelope) => {
    if (envelope.sequence === 66n) {
      failures += 1
      throw new Error('a listener that fails')
    }
    heard.push(envelope.sequence)
  })
  const socket = new zmq.Publisher({ linger: 0 })
  await socket.bind('tcp://127.0.0.1:*')
  await discovery.put('v1/event_channels', eventKey(scope, 'kv-events', 9n), channel(9n, socket.lastEndpoint as string))
  await discovery.put('v1/event_channels', eventKey(scope, 'kv-events', 10n), channel(10n, 'tcp://nonsense'))
  await discovery.put('v1/event_channels', eventKey(scope, 'kv-events', 11n), { ...channel(11n, ''), transport: { kind: 'Nats', config: { subject_prefix: 'x' } } })
  const frames = (publisherId: bigint, sequence: bigint) =>
    encodeEventFrames({ publisherId, sequence, publishedAtMs: 1, topic: 'kv-events', payload: new Uint8Array(1) })
  await until('connected', () => heard.includes(1n), 5000, () => void socket.send(frames(9n, 1n)))
  await socket.send(frames(9n, 2n).slice(0, 3))
  await socket.send(['kv-events-v2', ...frames(9n, 2n).slice(1)])
  await socket.send(frames(8n, 2n))
  await socket.send(frames(9n, 66n))
  await socket.send(frames(9n, 3n))
  await until('the stream goes on', () => heard.includes(3n))
  const { dropped } = plane.stats
  assert.deepEqual([dropped.frame_count, dropped.topic, dropped.publisher_mismatch, dropped.listener, failures], [1, 1, 1, 1, 1])
  assert.equal(plane.stats.unusableChannels, 2)
  assert.equal(log.lines.filter((line) => line.level === 'warn').length, 2)
  socket.close()
})

test('a wildcard cannot be advertised', async (t) => {
  const { planeOf } = await world(t)
  const { discovery } = await planeOf()
  assert.throws(() => createZmqEventPlane({ discovery, clock: systemClock, random: systemRandom(), log: rememberingLog(), host: '0.0.0.0' }), /cannot be advertised/)
})

const channel = (publisherId: bigint, endpoint: string) => ({
  type: 'EventChannel', scope: scopeValue(scope), topic: 'kv-events', instance_id: publisherId, transport: { kind: 'Zmq', config: { endpoint } },
})
