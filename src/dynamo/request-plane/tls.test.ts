/** Goal: TLS on requests and responses, with and without certificates of callers, and what refuses to work without it. Method: both sides over loopback with the certificates of the fixtures. */
import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { afterEach, test } from 'node:test'
import { rememberingLog } from '../../../test/discovery-kit.ts'
import { fixturePath } from '../../../test/repo-root.ts'
import { systemClock } from '../../../test/request-plane-kit.ts'
import { FailureError, type Failure } from '../../model/failure.ts'
import type { InstanceRecord } from '../../ports.ts'
import { callStream, serveStream } from '../endpoint.ts'
import { createTcpRequestClient, type TcpRequestClient } from './tcp-client.ts'
import { createTcpRequestServer, type TcpRequestServer } from './tcp-server.ts'
import { loadTcpTls, plainTcp, type TcpTls, type TcpTlsPaths } from './tcp-tls.ts'
import { until } from '../../../test/until.ts'

const pem = (name: string): string => fixturePath('tls', name)
const none: TcpTlsPaths = { cert: null, key: null, clientCa: null, ca: null, clientCert: null, clientKey: null, insecure: false, serverName: null, handshakeTimeoutMs: 1000 }
const oneSided: TcpTlsPaths = { ...none, cert: pem('server.pem'), key: pem('server.key'), ca: pem('ca.pem') }
const mutual: TcpTlsPaths = { ...oneSided, clientCa: pem('ca.pem'), clientCert: pem('client.pem'), clientKey: pem('client.key') }
const endpoint = { namespace: 'test', component: 'backend', endpoint: 'generate' }
const cleanup: (() => Promise<void> | void)[] = []

afterEach(async () => {
  for (const end of cleanup.splice(0).reverse()) await end()
})

interface Side {
  readonly server: TcpRequestServer
  readonly client: TcpRequestClient
  readonly log: ReturnType<typeof rememberingLog>
}

async function sideOf(tls: TcpTls): Promise<Side> {
  const log = rememberingLog()
  const server = createTcpRequestServer({ clock: systemClock, log, host: '127.0.0.1', tls })
  const client = createTcpRequestClient({ clock: systemClock, log, host: '127.0.0.1', tls, connectTimeoutMs: 2000, ackTimeoutMs: 2000 })
  await Promise.all([server.start(AbortSignal.timeout(5000)), client.start(AbortSignal.timeout(5000))])
  cleanup.push(() => client.close(), () => server.close())
  return { server, client, log }
}

function serve({ server }: Side): InstanceRecord {
  const served = serveStream(server, endpoint, 7n, async function* (value) {
    yield value
    yield 'x'.repeat(300_000)
  })
  return { ...endpoint, instanceId: 7n, transport: served.transport, codec: 'msgpack', deviceType: null }
}

async function call({ client }: Side, instance: InstanceRecord): Promise<{ count: number; failure: Failure | null }> {
  let count = 0
  try {
    for await (const _item of callStream(client, instance, 'x'.repeat(100_000), { signal: AbortSignal.timeout(4000) })) count += 1
    return { count, failure: null }
  } catch (error) {
    if (!(error instanceof FailureError)) throw error
    return { count, failure: error.failure }
  }
}

for (const [name, paths] of [['one-sided', oneSided], ['mutual', mutual], ['by name', { ...oneSided, serverName: 'warmpath.test' }], ['any certificate', { ...oneSided, ca: null, insecure: true }]] as const) {
  test(`${name}: requests and responses travel over TLS`, async () => {
    const worker = await sideOf(await loadTcpTls(paths))
    const caller = await sideOf(await loadTcpTls(paths))
    const instance = serve(worker)
    for (let round = 0; round < 3; round += 1) assert.deepEqual(await call(caller, instance), { count: 2, failure: null })
    await until('all streams are closed', () => worker.server.stats().openStreams === 0)
    assert.equal(caller.client.stats().handshakeFailures + worker.server.stats().handshakeFailures, 0)
  })
}

test('plaintext, a foreign name and a missing certificate are refused, counted and named', async () => {
  const worker = await sideOf(await loadTcpTls(mutual))
  const instance = serve(worker)
  const plain = await call(await sideOf(plainTcp), instance)
  assert.equal(plain.failure?.class, 'Unavailable')
  await until('counted', () => worker.server.stats().handshakeFailures === 1)
  assert.match(worker.log.lines.find(({ level }) => level === 'warn')?.message ?? '', /did not complete the TLS handshake; see DYN_TCP_TLS_CA_CERT_PATH/)
  const foreign = await call(await sideOf(await loadTcpTls({ ...mutual, serverName: 'elsewhere.test' })), instance)
  assert.match(foreign.failure?.message ?? '', /cannot connect.*(altnames|does not match)/i)
  assert.equal(foreign.failure?.reason, 'transport.cannot_connect')
  const nameless = await call(await sideOf(await loadTcpTls(oneSided)), instance)
  assert.equal(nameless.failure?.class, 'Unavailable')
  assert.deepEqual(await call(await sideOf(await loadTcpTls(mutual)), instance), { count: 2, failure: null })
})

test('a worker that cannot prove itself to the caller’s listener leaves the call without a stream, and says so', async () => {
  const worker = await sideOf({ server: null, client: (await loadTcpTls({ ...none, ca: pem('ca.pem'), serverName: 'elsewhere.test' })).client })
  const caller = await sideOf({ server: (await loadTcpTls(oneSided)).server, client: null })
  const instance = serve(worker)
  const handled = call(caller, instance)
  await until('the worker names it', () => worker.server.stats().dialFailures === 1)
  assert.match(worker.log.lines.at(-1)?.message ?? '', /cannot be reached at its response address/)
  await caller.client.close()
  assert.equal((await handled).failure?.class, 'Cancelled')
})

test('a peer that never finishes the handshake is let go', async () => {
  const worker = await sideOf(await loadTcpTls({ ...oneSided, handshakeTimeoutMs: 200 }))
  const { host, port } = worker.server.address
  const socket = connect(port, host)
  let closed = false
  socket.on('error', () => {}).on('close', () => { closed = true })
  await until('it is closed', () => closed)
  assert.equal(worker.server.stats().handshakeFailures, 1)
})

test('settings that cannot be used name the variable', async () => {
  await assert.rejects(loadTcpTls({ ...none, cert: pem('server.pem') }), /DYN_TCP_TLS_CERT_PATH and DYN_TCP_TLS_KEY_PATH go together/)
  await assert.rejects(loadTcpTls({ ...none, clientCa: pem('ca.pem') }), /DYN_TCP_TLS_CLIENT_CA_CERT_PATH is set, but/)
  await assert.rejects(loadTcpTls({ ...none, clientCert: pem('client.pem'), clientKey: pem('client.key') }), /DYN_TCP_TLS_CA_CERT_PATH is not set; set it, or DYN_TCP_TLS_INSECURE/)
  await assert.rejects(loadTcpTls({ ...oneSided, ca: '/nowhere.pem' }), /DYN_TCP_TLS_CA_CERT_PATH="\/nowhere\.pem": cannot be read \(ENOENT\)/)
  await assert.rejects(loadTcpTls({ ...oneSided, key: pem('client.key') }), /DYN_TCP_TLS_CERT_PATH with DYN_TCP_TLS_KEY_PATH: cannot be used/)
  assert.deepEqual(await loadTcpTls(none), plainTcp)
})
