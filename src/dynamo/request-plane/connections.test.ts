/** Goal: request connections and response sockets come and go as they should. Method: time that is moved by hand, real sockets. */
import assert from 'node:assert/strict'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { afterEach, test } from 'node:test'
import { FakeClock } from '../../../test/discovery-kit.ts'
import { silentLog, systemClock } from '../../../test/request-plane-kit.ts'
import type { Failure } from '../../model/failure.ts'
import { killMessage } from '../wire/envelope.ts'
import { encodeAck } from '../wire/frames.ts'
import { encodeData } from '../wire/items.ts'
import { RequestPool, type RequestConnectionLimits, type SentRequest } from './request-connection.ts'
import { createTcpRequestClient } from './tcp-client.ts'
import { createTcpRequestServer } from './tcp-server.ts'
import { until } from '../../../test/until.ts'

const limits: RequestConnectionLimits = { connectTimeoutMs: 1000, ackTimeoutMs: 1000, idleTimeoutMs: 10_000, connectionsMax: 2, unackedMax: 3, bufferBytesMax: 1000, tls: null }
const cleanup: (() => Promise<void> | void)[] = []

afterEach(async () => {
  for (const end of cleanup.splice(0)) await end()
})

/** A peer that acknowledges when told to. */
async function silentPeer(): Promise<{ port: number; sockets: Socket[]; bytes: () => number }> {
  const sockets: Socket[] = []
  let received = 0
  const server = createServer((socket) => {
    sockets.push(socket)
    socket.on('data', (chunk) => { received += chunk.length })
    socket.on('error', () => undefined)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  cleanup.push(async () => {
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  })
  return { port: (server.address() as AddressInfo).port, sockets, bytes: () => received }
}

class Sent implements SentRequest {
  told: string | Failure | null = null
  acknowledged(text: string): void { this.told = text }
  sendFailed(failure: Failure): void { this.told = failure }
}

test('acknowledgements find their requests in order; a full pool takes no more', async () => {
  const peer = await silentPeer()
  const pool = new RequestPool(limits, new FakeClock())
  cleanup.push(() => pool.close())
  const sent = Array.from({ length: 7 }, () => new Sent())
  assert.deepEqual(sent.map((request) => pool.send('127.0.0.1', peer.port, request, [Uint8Array.of(1)])), [true, true, true, true, true, true, false])
  assert.equal(pool.connectionCount, 2)
  await until(() => peer.bytes() === 6)
  for (const socket of peer.sockets) socket.write(Buffer.concat([encodeAck(''), encodeAck('second'), encodeAck('')]))
  await until(() => sent.slice(0, 6).every(({ told }) => told !== null))
  assert.deepEqual(sent.map(({ told }) => told), ['', 'second', '', '', 'second', '', null])
  assert.equal(pool.send('127.0.0.1', peer.port, sent[6] as Sent, [Uint8Array.of(1)]), true)
})

test('a missed acknowledgement fails its request only, and the connection is not used until one comes', async () => {
  const clock = new FakeClock()
  const peer = await silentPeer()
  const pool = new RequestPool({ ...limits, connectionsMax: 1 }, clock)
  cleanup.push(() => pool.close())
  const [first, second, third] = [new Sent(), new Sent(), new Sent()]
  pool.send('127.0.0.1', peer.port, first, [Uint8Array.of(1)])
  await until(() => peer.bytes() === 1)
  clock.advance(600)
  pool.send('127.0.0.1', peer.port, second, [Uint8Array.of(1)])
  clock.advance(600)
  assert.deepEqual([(first.told as Failure | null)?.class, second.told], ['DeadlineExceeded', null])
  assert.equal(pool.send('127.0.0.1', peer.port, third, [Uint8Array.of(1)]), false)
  peer.sockets[0]?.write(Buffer.concat([encodeAck('late'), encodeAck('')]))
  await until(() => second.told === '')
  assert.equal(pool.send('127.0.0.1', peer.port, third, [Uint8Array.of(1)]), true)
  clock.advance(1001)
  assert.equal((third.told as Failure | null)?.class, 'DeadlineExceeded')
  assert.equal(pool.connectionCount, 0)
})

test('a connection that is not made in time fails its requests; broken protocol too', async () => {
  const clock = new FakeClock()
  const pool = new RequestPool(limits, clock)
  cleanup.push(() => pool.close())
  const sent = new Sent()
  const peer = await silentPeer()
  pool.send('127.0.0.1', peer.port, sent, [Uint8Array.of(1)])
  clock.advance(1001)
  assert.equal((sent.told as Failure | null)?.reason, 'transport.connection_timeout')
  assert.equal(pool.connectionCount, 0)
  const other = new Sent()
  pool.send('127.0.0.1', peer.port, other, [Uint8Array.of(1)])
  await until(() => peer.bytes() === 1)
  peer.sockets.at(-1)?.write(Uint8Array.of(0xff, 0, 0, 0))
  await until(() => other.told !== null)
  assert.equal((other.told as Failure | null)?.reason, 'transport.disconnected')
  assert.equal(pool.connectionCount, 0)
})

test('idle and forgotten connections close, busy ones stay', async () => {
  const clock = new FakeClock()
  const peer = await silentPeer()
  const pool = new RequestPool(limits, clock)
  cleanup.push(() => pool.close())
  const sent = new Sent()
  pool.send('127.0.0.1', peer.port, sent, [Uint8Array.of(1)])
  await until(() => peer.bytes() === 1)
  pool.forget('127.0.0.1', peer.port)
  assert.equal(pool.connectionCount, 1)
  peer.sockets[0]?.write(encodeAck(''))
  await until(() => sent.told === '')
  clock.advance(9_000)
  assert.equal(pool.connectionCount, 1)
  clock.advance(4_000)
  assert.equal(pool.connectionCount, 0)
  const again = new Sent()
  pool.send('127.0.0.1', peer.port, again, [Uint8Array.of(1)])
  await until(() => peer.sockets.length === 2)
  peer.sockets[1]?.write(encodeAck(''))
  await until(() => again.told === '')
  pool.forget('127.0.0.1', peer.port)
  assert.equal(pool.connectionCount, 0)
})

test('a server that closes right after the last item delivers it', async () => {
  const server = createTcpRequestServer({ clock: systemClock, log: silentLog, host: '127.0.0.1' })
  const client = createTcpRequestClient({ clock: systemClock, log: silentLog, host: '127.0.0.1' })
  const signal = AbortSignal.timeout(5000)
  await server.start(signal)
  await client.start(signal)
  cleanup.push(() => client.close())
  let closed: Promise<void> | null = null
  const endpoint = { namespace: 'n', component: 'c', endpoint: 'e' }
  const { transport } = server.serve(endpoint, 1n, (_request, response) => {
    response.writeItem(encodeData('x'.repeat(1_000_000), 'msgpack'))
    response.end()
    closed = server.close()
  })
  let told = ''
  client.call({ ...endpoint, instanceId: 1n, transport, codec: 'msgpack', deviceType: null }, { id: 'x', codec: 'msgpack', body: [] }, { onFrame() { told += 'frame ' }, onEnd() { told += 'end' }, onFail(failure) { told += failure.message } })
  await until(() => told !== '' && told !== 'frame ')
  assert.equal(told, 'frame end')
  await closed
  assert.equal(server.stats().openStreams, 0)
})

test('a connection that never names its subject is closed in time', async () => {
  const clock = new FakeClock()
  const client = createTcpRequestClient({ clock, log: silentLog, host: '127.0.0.1' })
  await client.start(AbortSignal.timeout(5000))
  cleanup.push(() => client.close())
  let closed = false
  const socket = connect({ host: '127.0.0.1', port: Number(client.address.split(':')[1]) }, () => socket.write(killMessage.subarray(0, 10)))
  socket.on('close', () => { closed = true })
  socket.on('error', () => undefined)
  await until(() => client.stats().responseStreams === 1)
  clock.advance(10_001)
  await until(() => closed)
  assert.deepEqual([client.stats().brokenHandshakes, client.stats().responseStreams], [1, 0])
})

test('starting is refused when aborted or when the port is taken', async () => {
  const first = createTcpRequestServer({ clock: systemClock, log: silentLog, host: '127.0.0.1' })
  assert.throws(() => first.address, /has not been started/)
  await assert.rejects(first.start(AbortSignal.abort(new Error('not now'))), /not now/)
  await first.start(AbortSignal.timeout(5000))
  cleanup.push(() => first.close())
  const second = createTcpRequestServer({ clock: systemClock, log: silentLog, host: '127.0.0.1', port: first.address.port })
  await assert.rejects(second.start(AbortSignal.timeout(5000)), /EADDRINUSE/)
})
