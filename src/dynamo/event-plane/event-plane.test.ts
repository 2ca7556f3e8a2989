/** Goal: events over NATS and over ZMQ brokers, and each publisher heard the way it says. Method: planes in one process over a small NATS server and real ZMQ proxies. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { after, afterEach, test } from 'node:test'
import * as zmq from 'zeromq'
import { rememberingLog, systemClock } from '../../../test/discovery-kit.ts'
import { NatsDouble } from '../../../test/nats-double.ts'
import { fixturePath } from '../../../test/repo-root.ts'
import type { EventEnvelope, EventScope } from '../../ports.ts'
import { systemRandom } from '../../system-ports.ts'
import { MemoryDiscovery, MemoryStore } from '../discovery/memory-discovery.ts'
import { NatsLink } from '../nats/nats-link.ts'
import { createEventPlane, type EventPlaneOptions, type MixedEventPlane } from './create-event-plane.ts'
import { encodeEnvelope, eventDropReasons } from './envelope.ts'
import { eventSubject } from './event-keys.ts'
import { decodeMessage } from './nats-event-plane.ts'
import { RecentMessages } from './recent-messages.ts'
import { parseBrokerUrl } from './zmq-broker.ts'
import { until } from '../../../test/until.ts'

const scope: EventScope = { namespace: 'dyn.a', component: 'backend', endpoint: 'generate' }
const cleanup: (() => Promise<void> | void)[] = []
const keepAlive = setInterval(() => {}, 1000)
after(() => clearInterval(keepAlive))

afterEach(async () => {
  for (const end of cleanup.splice(0).reverse()) await end()
})

interface World {
  readonly double: NatsDouble
  readonly store: MemoryStore
  plane(options: Partial<EventPlaneOptions>): Promise<{ readonly plane: MixedEventPlane; readonly link: NatsLink; readonly discovery: MemoryDiscovery }>
}

async function world(): Promise<World> {
  const log = rememberingLog()
  const double = new NatsDouble()
  await double.start()
  cleanup.push(() => double.stop())
  const store = new MemoryStore(log)
  return {
    double, store,
    plane: async (options) => {
      const discovery = new MemoryDiscovery(store)
      await discovery.start(AbortSignal.timeout(1000))
      const settings = { servers: [double.url], auth: { kind: 'user', user: 'u', password: 'p' }, tls: null, startupTimeoutMs: 2000 } as const
      const link = new NatsLink({ settings, clock: systemClock, log, wayOut: '' })
      const plane = createEventPlane({ kind: 'zmq', link, broker: null, discovery, clock: systemClock, random: systemRandom(), log, host: '127.0.0.1', ioThreads: 1, ...options })
      cleanup.push(() => link.close(), () => plane.close())
      return { plane, link, discovery }
    },
  }
}

/** Publishes until each publisher is heard; gives what was heard. */
async function heardBy(plane: MixedEventPlane, publishers: readonly { publisherId: bigint; publish(payload: Uint8Array): void }[]): Promise<EventEnvelope[]> {
  const heard: EventEnvelope[] = []
  const watch = plane.subscribe(scope, 'kv-events', (envelope) => heard.push(envelope))
  cleanup.push(() => watch.close())
  await until('all are heard', () => publishers.every(({ publisherId }) => heard.some((envelope) => envelope.publisherId === publisherId)), 8000, () => {
    for (const publisher of publishers) publisher.publish(Uint8Array.of(1, 2))
  })
  return heard
}

test('over NATS: subject and record are those of Dynamo, and a lost connection is a gap', async () => {
  const { double, store, plane: planeOf } = await world()
  const { plane } = await planeOf({ kind: 'nats' })
  const publisher = await plane.publisher(scope, 'kv-events')
  const other = await planeOf({ kind: 'nats' })
  const heard = await heardBy(other.plane, [publisher])
  assert.equal(eventSubject(scope, 'kv-events'), 'namespace.dyn%2Ea.component.backend.endpoint.generate.kv-events')
  assert.ok(double.published.includes(eventSubject(scope, 'kv-events')))
  const [record] = [...(await other.discovery.list('v1/event_channels', '')).values()]
  assert.deepEqual(record?.['transport'], { kind: 'Nats', config: { subject_prefix: 'namespace.dyn%2Ea.component.backend.endpoint.generate' } })
  void store
  await double.stop()
  await until('both notice', () => !other.link.connected)
  const before = heard.length
  publisher.publish(Uint8Array.of(3))
  await double.start()
  await until('heard again', () => heard.length > before, 8000, () => publisher.publish(Uint8Array.of(4)))
  const [last, next] = [heard[before - 1] as EventEnvelope, heard[before] as EventEnvelope]
  assert.ok(next.sequence > last.sequence + 1n, 'the sequence shows what was lost')
  assert.ok(plane.stats.publishDropped > 0)
  await publisher.close()
  assert.equal((await other.discovery.list('v1/event_channels', '')).size, 0)
})

test('publishers over ZMQ and over NATS are heard side by side, whatever this process publishes over', async () => {
  const { double, plane: planeOf } = await world()
  const direct = await (await planeOf({ kind: 'zmq' })).plane.publisher(scope, 'kv-events')
  const bus = await (await planeOf({ kind: 'nats' })).plane.publisher(scope, 'kv-events')
  for (const kind of ['zmq', 'nats'] as const) {
    const { plane } = await planeOf({ kind })
    const heard = await heardBy(plane, [direct, bus])
    for (const { publisherId } of [direct, bus]) {
      const sequences = heard.filter((envelope) => envelope.publisherId === publisherId).map(({ sequence }) => sequence)
      assert.equal(new Set(sequences).size, sequences.length, 'nothing is heard twice')
    }
    assert.deepEqual([plane.stats.natsSubscriptions, plane.stats.unusableChannels], [1, 0])
  }
  // Without a publisher on it a process over ZMQ leaves NATS alone.
  const { plane, link } = await planeOf({ kind: 'zmq' })
  await bus.close()
  await heardBy(plane, [direct])
  assert.equal(link.connected, false)
  assert.equal(plane.stats.natsSubscriptions, 0)
  void double
})

async function startBroker(): Promise<{ xsub: string; xpub: string }> {
  const [publishers, subscribers] = [new zmq.XSubscriber({ linger: 0 }), new zmq.XPublisher({ linger: 0 })]
  await publishers.bind('tcp://127.0.0.1:*')
  await subscribers.bind('tcp://127.0.0.1:*')
  const addresses = { xsub: publishers.lastEndpoint as string, xpub: subscribers.lastEndpoint as string }
  const proxy = new zmq.Proxy(publishers, subscribers)
  const ended = proxy.run().catch(() => {})
  cleanup.push(async () => {
    proxy.terminate()
    await ended
  })
  return addresses
}

test('over one broker and over several: publishers have no record, and each message counts once', async () => {
  const { plane: planeOf } = await world()
  for (const count of [1, 2]) {
    const brokers = await Promise.all(Array.from({ length: count }, startBroker))
    const broker = { kind: 'fixed', endpoints: { xsub: brokers.map(({ xsub }) => xsub), xpub: brokers.map(({ xpub }) => xpub) } } as const
    const { plane, discovery } = await planeOf({ broker })
    const publisher = await (await planeOf({ broker })).plane.publisher(scope, 'kv-events')
    const heard = await heardBy(plane, [publisher])
    assert.equal((await discovery.list('v1/event_channels', '')).size, 0)
    if (count === 2) await until('the second broker passes it on too', () => plane.stats.duplicates > 3, 8000, () => publisher.publish(new Uint8Array(1)))
    const sequences = heard.map(({ sequence }) => sequence)
    assert.equal(new Set(sequences).size, sequences.length)
    assert.equal(heard[0]?.topic, 'kv-events')
  }
})

test('registered brokers are followed as they come and go', async () => {
  const { plane: planeOf } = await world()
  const { plane, discovery } = await planeOf({ broker: { kind: 'discovered' } })
  const publisher = await (await planeOf({ broker: { kind: 'discovered' } })).plane.publisher(scope, 'kv-events')
  const register = async (id: string): Promise<() => Promise<void>> => {
    const { xsub, xpub } = await startBroker()
    const key = `namespace/dyn%2Ea/component/zmq_broker/topic/broker/${id}`
    await discovery.put('v1/event_channels', key, {
      type: 'EventChannel', scope: { kind: 'component', namespace: 'dyn.a', component: 'zmq_broker' }, topic: 'broker', instance_id: 1n,
      transport: { kind: 'ZmqBroker', config: { xsub_endpoints: [xsub], xpub_endpoints: [xpub] } },
    })
    return () => discovery.remove('v1/event_channels', key)
  }
  const leave = await register('1')
  const heard = await heardBy(plane, [publisher])
  await leave()
  await register('2')
  const before = heard.length
  await until('heard over the other one', () => heard.length > before + 2, 8000, () => publisher.publish(new Uint8Array(1)))
})

test('what NATS brings is an envelope of the topic or a named reason, never an exception', () => {
  const recorded = JSON.parse(readFileSync(fixturePath('wire', 'nats-events-worker.json'), 'utf8')) as { subject: string; hex: string }[]
  for (const { subject, hex } of [...recorded, ...JSON.parse(readFileSync(fixturePath('wire', 'nats-active-sequences.json'), 'utf8')) as typeof recorded]) {
    const topic = subject.slice(subject.lastIndexOf('.') + 1)
    const envelope = decodeMessage(Uint8Array.from(Buffer.from(hex, 'hex')), topic)
    assert.ok(typeof envelope !== 'string')
    assert.equal(decodeMessage(Buffer.from(hex, 'hex'), 'other'), 'topic')
    const again = decodeMessage(encodeEnvelope(envelope), topic)
    assert.deepEqual(again, envelope)
    for (let cut = 0; cut < hex.length / 2; cut += 7) assert.equal(decodeMessage(Buffer.from(hex, 'hex').subarray(0, cut), topic), 'envelope')
  }
  fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
    const read = decodeMessage(bytes, 'kv-events')
    assert.ok(typeof read !== 'string' || eventDropReasons.includes(read))
  }))
})

test('a message is new once within the window that is remembered', () => {
  fc.assert(fc.property(fc.array(fc.tuple(fc.bigInt({ min: 0n, max: 3n }), fc.bigInt({ min: 0n, max: 40n })), { maxLength: 300 }), fc.integer({ min: 2, max: 60 }), (messages, limit) => {
    const recent = new RecentMessages(limit)
    const lately: string[] = []
    for (const [publisher, sequence] of messages) {
      const key = `${publisher} ${sequence}`
      const isNew = recent.isNew(publisher, sequence)
      if (lately.slice(-Math.floor(limit / 2)).includes(key)) assert.equal(isNew, false)
      if (!lately.includes(key)) assert.equal(isNew, true)
      if (isNew) lately.push(key)
    }
  }))
})

test('the brokers’ variable is read as Dynamo writes it, and mistakes are named', () => {
  assert.deepEqual(parseBrokerUrl('xsub=tcp://a:5555;tcp://b:5555 , xpub=tcp://a:5556;tcp://b:5556'), { xsub: ['tcp://a:5555', 'tcp://b:5555'], xpub: ['tcp://a:5556', 'tcp://b:5556'] })
  for (const text of ['', 'tcp://a:1', 'xsub=tcp://a:1', 'xsub=,xpub=tcp://a:1', 'xsub=a:1,xpub=b:2', 'xsub=tcp://a:1,xpub=tcp://a:2,z=1']) {
    assert.throws(() => parseBrokerUrl(text), /DYN_ZMQ_BROKER_URL=.*expected xsub=/, text)
  }
})
