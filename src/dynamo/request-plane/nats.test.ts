/** Goal: requests over NATS keep what requests over TCP keep, and a NATS that goes away loses nothing that can be kept. Method: client and server over a small NATS server that can be stopped. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { after, afterEach, test } from 'node:test'
import { rememberingLog } from '../../../test/discovery-kit.ts'
import { NatsDouble, type NatsDoubleOptions } from '../../../test/nats-double.ts'
import { fixturePath } from '../../../test/repo-root.ts'
import { silentLog, systemClock } from '../../../test/request-plane-kit.ts'
import { FailureError, type Failure } from '../../model/failure.ts'
import type { InstanceRecord, RequestPlaneServer } from '../../ports.ts'
import { callStream, serveStream, type CallOptions, type StreamHandler } from '../endpoint.ts'
import { NatsLink, type NatsLinkParts } from '../nats/nats-link.ts'
import { decodeBody, encodeBody, type WireValue } from '../wire/body.ts'
import { natsSubject } from '../wire/endpoint-path.ts'
import { decodeEnvelope, encodeControl } from '../wire/envelope.ts'
import { encodeTwoPart } from '../wire/frames.ts'
import { NatsRequests, type NatsRequestLimits } from './nats-requests.ts'
import { createNatsRequestServer, type NatsRequestServer } from './nats-server.ts'
import { createTcpRequestClient, type TcpRequestClient } from './tcp-client.ts'
import { createTcpRequestServer } from './tcp-server.ts'
import { until } from '../../../test/until.ts'

const endpoint = { namespace: 'test', component: 'backend', endpoint: 'generate' }
const instanceId = 0xba5bd5508e098c84n
const cleanup: (() => Promise<void> | void)[] = []
// The clock's timers keep no process, and while nothing is connected there is nothing else.
const keepAlive = setInterval(() => {}, 1000)
after(() => clearInterval(keepAlive))

afterEach(async () => {
  for (const end of cleanup.splice(0).reverse()) await end()
})

async function startDouble(options: NatsDoubleOptions = {}): Promise<NatsDouble> {
  const double = new NatsDouble(options)
  await double.start()
  cleanup.push(() => double.stop())
  return double
}

function linkTo(url: string, parts: Partial<NatsLinkParts> = {}): NatsLink {
  const link = new NatsLink({
    settings: { servers: [url], auth: { kind: 'user', user: 'user', password: 'user' }, tls: null, startupTimeoutMs: 5000 },
    clock: systemClock, log: silentLog, wayOut: 'or do without NATS', ...parts,
  })
  cleanup.push(() => link.close())
  return link
}

async function startServer(double: NatsDouble, options: { inflightMax?: number } = {}): Promise<NatsRequestServer> {
  const server = createNatsRequestServer({ clock: systemClock, log: silentLog, link: linkTo(double.url), ...options })
  await server.start(AbortSignal.timeout(5000))
  cleanup.push(() => server.close())
  return server
}

async function startClient(link: NatsLink, limits: Partial<NatsRequestLimits> = {}): Promise<TcpRequestClient> {
  const client = createTcpRequestClient({ clock: systemClock, log: silentLog, host: '127.0.0.1', nats: new NatsRequests(link, systemClock, limits) })
  await client.start(AbortSignal.timeout(5000))
  cleanup.push(() => client.close())
  return client
}

async function serve(server: RequestPlaneServer, handler: StreamHandler, id = instanceId): Promise<InstanceRecord> {
  const served = serveStream(server, endpoint, id, handler)
  await served.ready
  return { ...endpoint, instanceId: id, transport: served.transport, codec: 'msgpack', deviceType: null }
}

async function collect(client: TcpRequestClient, instance: InstanceRecord, value: WireValue, options: CallOptions = {}): Promise<{ values: WireValue[]; failure: Failure | null }> {
  const values: WireValue[] = []
  try {
    for await (const item of callStream(client, instance, value, options)) values.push(item)
    return { values, failure: null }
  } catch (error) {
    assert.ok(error instanceof FailureError, String(error))
    return { values, failure: error.failure }
  }
}

const echo: StreamHandler = async function* (value) {
  yield value
}

test('values, metadata and headers arrive, and the worker is called where its record says', async () => {
  const double = await startDouble()
  const server = await startServer(double)
  const seen: unknown[] = []
  const overNats = await serve(server, async function* (value, context) {
    seen.push(context.id, context.metadata, context.headers['traceparent'])
    yield { over: 'nats', value }
    yield 2n ** 63n
  })
  assert.deepEqual(overNats.transport, { nats_tcp: 'test_backend.generate-ba5bd5508e098c84' })
  const tcp = createTcpRequestServer({ clock: systemClock, log: silentLog, host: '127.0.0.1' })
  await tcp.start(AbortSignal.timeout(5000))
  cleanup.push(() => tcp.close())
  const overTcp = await serve(tcp, echo)
  const client = await startClient(linkTo(double.url))
  const options = { id: 'id-1', metadata: { tenant: 'blue é' }, headers: { traceparent: '00-1-2-01' } }
  assert.deepEqual(await collect(client, overNats, [1, 2], options), { values: [{ over: 'nats', value: [1, 2] }, 2n ** 63n], failure: null })
  assert.deepEqual(seen, ['id-1', { tenant: 'blue é' }, '00-1-2-01'])
  assert.deepEqual(await collect(client, overTcp, 'plain'), { values: ['plain'], failure: null })
  assert.deepEqual(await collect(client, { ...overNats, codec: 'json' }, { a: 1 }), { values: [{ over: 'nats', value: { a: 1 } }, 2n ** 63n], failure: null })
  assert.equal(client.stats().nats?.sent, 2)
  assert.equal(client.stats().openCalls, 0)
})

test('leaving an iteration kills the worker’s stream', async () => {
  const double = await startDouble()
  const server = await startServer(double)
  let cancelled: unknown = null
  const instance = await serve(server, async function* (_value, context) {
    context.signal.addEventListener('abort', () => { cancelled = context.signal.reason })
    for (let count = 0; ; count += 1) {
      yield count
      await new Promise((resolve) => setImmediate(resolve))
    }
  })
  const client = await startClient(linkTo(double.url))
  for await (const item of callStream(client, instance, null)) if (item === 3) break
  await until('the worker hears it', () => cancelled === 'kill')
  await until('nothing is left open', () => server.stats().openStreams === 0)
})

test('nobody there, no answer, overload and a closed endpoint have their class', async () => {
  const double = await startDouble()
  const server = await startServer(double, { inflightMax: 1 })
  const client = await startClient(linkTo(double.url), { ackTimeoutMs: 400 })
  const nobody: InstanceRecord = { ...endpoint, instanceId: 1n, transport: { nats_tcp: 'test_backend.generate-1' }, codec: 'msgpack', deviceType: null }
  const gone = await collect(client, nobody, 1)
  assert.deepEqual([gone.failure?.class, gone.failure?.reason], ['Unavailable', 'transport.cannot_connect'])
  assert.match(gone.failure?.message ?? '', /no responders/)

  let release = (): void => {}
  const instance = await serve(server, async function* () {
    await new Promise<void>((resolve) => { release = resolve })
    yield 'late'
  })
  const first = collect(client, instance, 1)
  await until('the first is under way', () => server.stats().requests === 1)
  const second = await collect(client, instance, 2)
  assert.deepEqual([second.failure?.class, second.failure?.reason], ['CapacityExhausted', 'capacity.worker_overloaded'])
  release()
  assert.deepEqual(await first, { values: ['late'], failure: null })

  double.delivers = false
  const silent = await collect(client, instance, 3)
  assert.deepEqual([silent.failure?.reason, client.stats().nats?.timeouts], ['transport.cannot_connect', 1])
  assert.match(silent.failure?.message ?? '', /did not acknowledge/)
})

test('a closed endpoint leaves its subject; open streams go on', async () => {
  const double = await startDouble()
  const server = await startServer(double)
  let release = (): void => {}
  const served = serveStream(server, endpoint, instanceId, async function* () {
    await new Promise<void>((resolve) => { release = resolve })
    yield 'end'
  })
  await served.ready
  const instance: InstanceRecord = { ...endpoint, instanceId, transport: served.transport, codec: 'msgpack', deviceType: null }
  const client = await startClient(linkTo(double.url))
  const open = collect(client, instance, 1)
  await until('it is under way', () => served.inflight === 1)
  served.close()
  await until('the subject is free', () => double.subscribersOf(natsSubject(endpoint, instanceId)) === 0)
  assert.match((await collect(client, instance, 2)).failure?.message ?? '', /no responders/)
  release()
  assert.deepEqual(await open, { values: ['end'], failure: null })
})

test('a lost connection: what was open ends well, what comes meanwhile waits, what was on the way and not delivered is sent again', async () => {
  const double = await startDouble()
  const server = await startServer(double)
  const calls: WireValue[] = []
  let release = (): void => {}
  const held = new Promise<void>((resolve) => { release = resolve })
  const instance = await serve(server, async function* (value) {
    calls.push(value)
    yield 'first'
    if (value === 'open') await held
    yield 'last'
  })
  const link = linkTo(double.url)
  const client = await startClient(link)
  const open = collect(client, instance, 'open')
  await until('it is open', () => calls.length === 1)
  double.delivers = false
  const onTheWay = collect(client, instance, 'on the way')
  await until('it is sent', () => double.published.filter((subject) => subject.startsWith('test_')).length === 2)
  await double.stop()
  await until('the loss is noticed', () => !link.connected)
  const meanwhile = collect(client, instance, 'meanwhile')
  assert.equal(client.stats().nats?.held, 2)
  double.delivers = true
  await double.start()
  for (const waited of [onTheWay, meanwhile]) assert.deepEqual(await waited, { values: ['first', 'last'], failure: null })
  release()
  assert.deepEqual(await open, { values: ['first', 'last'], failure: null })
  assert.deepEqual(calls.sort(), ['meanwhile', 'on the way', 'open'])
  assert.deepEqual([client.stats().nats?.resent, client.stats().nats?.lost], [1, 0])
  assert.equal(double.subscribersOf(natsSubject(endpoint, instanceId)), 1, 'subscribed once again, and once')
})

test('a lost connection: what the worker had is not sent again, though its acknowledgement is lost', async () => {
  const double = await startDouble()
  const server = await startServer(double)
  const calls: WireValue[] = []
  let release = (): void => {}
  const held = new Promise<void>((resolve) => { release = resolve })
  const instance = await serve(server, async function* (value) {
    calls.push(value)
    await held
    yield 'answer'
  })
  const link = linkTo(double.url)
  const client = await startClient(link)
  await link.start(AbortSignal.timeout(5000))
  double.loses = '_INBOX.'
  const answer = collect(client, instance, 'once')
  await until('the worker has it', () => calls.length === 1)
  await double.stop()
  await until('the loss is noticed', () => !link.connected)
  double.loses = null
  await double.start()
  await until('nothing waits for an acknowledgement', () => link.connected && client.stats().nats?.pending === 0)
  release()
  assert.deepEqual(await answer, { values: ['answer'], failure: null })
  assert.deepEqual(calls, ['once'])
})

test('a connection that does not come back: the failure says so, speaks against nobody, and the next try does not wait', async () => {
  const double = await startDouble()
  const server = await startServer(double)
  const instance = await serve(server, echo)
  const link = linkTo(double.url)
  const client = await startClient(link, { ackTimeoutMs: 300 })
  assert.equal((await collect(client, instance, 1)).failure, null)
  double.delivers = false
  const onTheWay = collect(client, instance, 2)
  await until('it is sent', () => client.stats().nats?.pending === 1)
  await double.stop()
  await until('the loss is noticed', () => !link.connected)
  for (const waited of [onTheWay, collect(client, instance, 3)]) {
    const { failure } = await waited
    assert.deepEqual([failure?.class, failure?.reason, failure?.linkLost], ['Unavailable', 'transport.cannot_connect', true])
    assert.match(failure?.message ?? '', /NATS at .* within 300 ms/)
  }
  const waiting = client.call(instance, { id: 'waiting', codec: 'msgpack', body: [encodeBody(5, 'msgpack')] }, { onFrame() {}, onEnd() {}, onFail() {} })
  assert.equal(waiting.isWaiting, true)
  await until('it has waited in vain', () => client.stats().nats?.lost === 3)
  const failures: Failure[] = []
  client.call(instance, { id: 'next', codec: 'msgpack', body: [encodeBody(4, 'msgpack')], waitsForLink: false }, { onFrame() {}, onEnd() {}, onFail: (failure) => failures.push(failure) })
  assert.equal(client.stats().nats?.pending, 0, 'it does not wait')
  await until('it has failed', () => failures.length === 1)
  assert.match(failures[0]?.message ?? '', /is lost/)
  assert.equal(failures[0]?.linkLost, true)
})

test('what cannot be sent is refused before it is sent', async () => {
  const double = await startDouble({ maxPayload: 2000 })
  const server = await startServer(double)
  const instance = await serve(server, echo)
  const link = linkTo(double.url)
  const client = await startClient(link, { pendingMax: 2, ackTimeoutMs: 1000 })
  await link.start(AbortSignal.timeout(5000))
  const large = await collect(client, instance, 'x'.repeat(4000))
  assert.deepEqual([large.failure?.class, large.failure?.publicDetail?.type], ['PayloadTooLarge', 'size_limit'])
  const header = await collect(client, instance, 1, { headers: { bad: 'two\r\nlines' } })
  assert.equal(header.failure?.class, 'InvalidRequest')
  for (const subject of ['a b', 'a.*', '>', '']) {
    const wrong = await collect(client, { ...instance, transport: { nats_tcp: subject } }, 1)
    assert.match(wrong.failure?.message ?? '', /is not one that a request can be sent to/, subject)
  }
  double.delivers = false
  const waiting = [collect(client, instance, 1), collect(client, instance, 2)]
  await until('two wait', () => client.stats().nats?.pending === 2)
  assert.equal((await collect(client, instance, 3)).failure?.class, 'CapacityExhausted')
  await double.stop()
  for (const { failure } of await Promise.all(waiting)) assert.equal(failure?.reason, 'transport.cannot_connect')
  assert.throws(() => server.serve({ ...endpoint, namespace: 'a b' }, 1n, () => {}), /names must be without space/)
})

test('whatever arrives on the subject, the server goes on', async () => {
  const double = await startDouble()
  const server = await startServer(double)
  const instance = await serve(server, echo)
  const link = linkTo(double.url)
  await link.start(AbortSignal.timeout(5000))
  const before = server.stats().unreadableRequests
  let sent = 0
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
    sent += 1
    assert.equal(link.publish('test_backend.generate-ba5bd5508e098c84', bytes), 'sent')
  }), { numRuns: 200 })
  await until('all were looked at', () => server.stats().unreadableRequests - before === sent)
  assert.deepEqual(await collect(await startClient(link), instance, 'still there'), { values: ['still there'], failure: null })
})

test('recorded requests of both directions are read, and written as they were', () => {
  let requests = 0
  for (const name of ['nats-client.json', 'nats-server-from-python-client.json']) {
    for (const { tag, hex } of JSON.parse(readFileSync(fixturePath('wire', name), 'utf8')) as { tag: string; hex: string }[]) {
      if (!/^nats.req/.test(tag)) {
        if (tag.startsWith('nats-ack')) assert.equal(hex, '')
        continue
      }
      requests += 1
      const { control, body, fault } = decodeEnvelope(Buffer.from(hex, 'hex'))
      assert.equal(fault, null)
      const { id, callHome, metadata } = control
      const codec = control.codec as 'msgpack'
      const again = encodeTwoPart(encodeControl({ id, codec, address: callHome.address, subject: callHome.subject, metadata }), encodeBody(decodeBody(body, codec), codec))
      assert.equal(Buffer.from(again).toString('hex'), hex)
      const [, subject = ''] = /(dynamo_\S+)/.exec(tag) ?? []
      const [names = '', hexId = ''] = [subject.slice(0, subject.lastIndexOf('-')), subject.slice(subject.lastIndexOf('-') + 1)]
      const [component = '', name_ = ''] = names.replace('dynamo_', '').split('.')
      assert.equal(natsSubject({ namespace: 'dynamo', component, endpoint: name_ }, BigInt(`0x${hexId}`)), subject)
    }
  }
  assert.equal(requests, 2)
})

test('a start without NATS says so at once, with the way out, and ends with its time or the abort', async () => {
  const free = new NatsDouble()
  await free.start()
  await free.stop()
  const log = rememberingLog()
  const settings = { servers: [free.url], auth: { kind: 'user', user: 'user', password: 'user' }, tls: null, startupTimeoutMs: 700 } as const
  const startedMs = performance.now()
  await assert.rejects(linkTo(free.url, { log, settings }).start(AbortSignal.timeout(5000)), /no NATS server at .*within 0\.7 s .*or do without NATS/)
  assert.ok(performance.now() - startedMs < 3000)
  assert.match(log.lines.find(({ level }) => level === 'warn')?.message ?? '', /is not reachable; trying on\. or do without NATS/)
  const abort = new AbortController()
  const aborted = linkTo(free.url).start(abort.signal)
  abort.abort(new Error('enough'))
  await assert.rejects(aborted, /enough/)
})

test('a server that refuses us ends the start with the variables to look at', async () => {
  const double = await startDouble({ password: 'secret' })
  await assert.rejects(linkTo(double.url).start(AbortSignal.timeout(5000)), /refuses us .*NATS_AUTH_USERNAME/)
  const settings = { servers: [double.url], auth: { kind: 'user', user: 'a', password: 'secret' }, tls: null, startupTimeoutMs: 5000 } as const
  await linkTo(double.url, { settings }).start(AbortSignal.timeout(5000))
})
