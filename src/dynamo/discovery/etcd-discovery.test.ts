import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { after, before, describe, it } from 'node:test'
import type { TestContext } from 'node:test'
import { Etcd3 } from 'etcd3'
import { Recorder, discoveryContract, started } from '../../../test/discovery-contract.ts'
import { EtcdServer, etcdMissing, freePort, rememberingLog, systemClock } from '../../../test/discovery-kit.ts'
import type { Bucket } from '../../ports.ts'
import { EtcdDiscovery } from './etcd-discovery.ts'
import type { EtcdBackendOptions } from './discovery-options.ts'
import { until } from '../../../test/until.ts'

const skip = etcdMissing()
const bucket: Bucket = 'v1/instances'
const settings = (url: string): EtcdBackendOptions => ({
  backend: 'etcd', endpoints: [url], leaseTtlSeconds: 30, startupTimeoutSeconds: 20, keepaliveIntervalSeconds: 15, keepaliveTimeoutSeconds: 10,
})

let shared: EtcdServer | null = null
before(async () => {
  if (skip === false) shared = await EtcdServer.start()
})
after(() => shared?.stop())

const sharedUrl = (): string => shared?.url ?? ''
const client = (url: string): Etcd3 => new Etcd3({ hosts: [url] })

discoveryContract({
  name: 'etcd',
  skip,
  holdsAnyText: true,
  createStore: async () => {
    const raw = client(sharedUrl())
    const handles: EtcdDiscovery[] = []
    return {
      open: async () => {
        const handle = new EtcdDiscovery({ ...settings(sharedUrl()), clock: systemClock, log: rememberingLog() })
        handles.push(handle)
        return handle
      },
      putRaw: async (bucket, key, text) => void (await raw.put(`${bucket}/${key}`).value(text)),
      close: async () => {
        for (const handle of handles) await handle.close(2_000)
        await raw.delete().all()
        raw.close()
      },
    }
  },
})

/** A server of its own, and a discovery on it. */
async function alone(context: TestContext, leaseTtlSeconds = 30) {
  const server = await EtcdServer.start()
  const log = rememberingLog()
  const opened: EtcdDiscovery[] = []
  context.after(async () => {
    server.resume()
    for (const discovery of opened) await discovery.close(500)
    await server.stop()
  })
  const open = async (): Promise<EtcdDiscovery> => {
    const discovery = new EtcdDiscovery({ ...settings(server.url), leaseTtlSeconds, clock: systemClock, log })
    opened.push(discovery)
    await started(discovery)
    return discovery
  }
  return { server, log, open }
}

describe('etcd', { concurrency: 4 }, () => {
  it('the instance id is the lease, every record hangs on it, and close revokes it', { skip }, async () => {
    const raw = client(sharedUrl())
    const discovery = new EtcdDiscovery({ ...settings(sharedUrl()), clock: systemClock, log: rememberingLog() })
    await started(discovery)
    const key = `ns/c/e/${discovery.instanceId.toString(16)}`
    await discovery.put(bucket, key, { id: discovery.instanceId })
    const { kvs } = await raw.get(`${bucket}/${key}`).exec()
    assert.equal(kvs[0]?.lease, String(discovery.instanceId))
    assert.equal(kvs[0]?.value.toString(), `{"id":${discovery.instanceId}}`)
    const leases = async (): Promise<string[]> => (await raw.leaseClient.leaseLeases()).leases.map(({ ID }) => ID)
    assert.ok((await leases()).includes(String(discovery.instanceId)))
    const id = discovery.instanceId
    await started(discovery)
    assert.equal(discovery.instanceId, id, 'a second start is none')
    await discovery.close(2_000)
    assert.ok(!(await leases()).includes(String(discovery.instanceId)))
    assert.equal((await raw.get(`${bucket}/${key}`).exec()).kvs.length, 0)
    raw.close()
  })

  it('after a restart of etcd the watch lists again and goes on, and the lease lives', { skip }, async (context) => {
    const { server, log, open } = await alone(context)
    const [owner, reader] = [await open(), await open()]
    await owner.put(bucket, 'ns/c/e/1', { n: 1 })
    await owner.put(bucket, 'ns/c/e/2', { n: 1 })
    const seen = new Recorder()
    reader.watch(bucket, 'ns', seen.listener)
    await until('synced', () => seen.lines.includes('synced'))
    await server.halt()
    await until('break noticed', () => log.lines.some((line) => line.message.includes('watch broke')))
    await server.run()
    const raw = client(server.url)
    await raw.delete().key(`${bucket}/ns/c/e/1`)
    raw.close()
    await until('resync', () => seen.lines.includes('delete ns/c/e/1'))
    await owner.put(bucket, 'ns/c/e/2', { n: 2 })
    await until('watch goes on', () => seen.last('ns/c/e/2')?.['n'] === 2)
    assert.deepEqual(seen.lines, ['put ns/c/e/1', 'put ns/c/e/2', 'synced', 'delete ns/c/e/1', 'put ns/c/e/2'], 'nothing twice, synced once')
  })

  it('a lease that is lost is granted again under its id, with all records and nothing twice', { skip }, async (context) => {
    const { server, log, open } = await alone(context, 3)
    const [discovery, other] = [await open(), await open()]
    await discovery.put(bucket, 'ns/c/e/1', { n: 1 })
    await discovery.put('v1/mdc', 'ns/c/e/1', { card: true })
    await discovery.put(bucket, 'ns/c/e/gone', { n: 0 })
    await discovery.remove(bucket, 'ns/c/e/gone')
    const seen = new Recorder()
    const watch = other.watch(bucket, '', seen.listener)
    await until('synced', () => seen.lines.includes('synced'))
    const raw = client(server.url)
    await raw.leaseClient.leaseRevoke({ ID: String(discovery.instanceId) })
    await until('it leaves', () => seen.lines.includes('delete ns/c/e/1'))
    await until('it comes back', () => seen.lines.filter((line) => line === 'put ns/c/e/1').length === 2)
    await until('all of it', () => discovery.regainCount === 1)
    const { kvs } = await raw.getAll().exec()
    assert.deepEqual(kvs.map(({ key }) => key.toString()), ['v1/instances/ns/c/e/1', 'v1/mdc/ns/c/e/1'])
    assert.ok(kvs.every(({ lease }) => lease === String(discovery.instanceId)), 'on the lease of the same id')
    assert.ok(log.lines.some(({ message }) => message.includes('registering again')))
    await discovery.put(bucket, 'ns/c/e/2', { n: 2 })
    await until('later records too', () => seen.last('ns/c/e/2')?.['n'] === 2)
    watch.close()
    raw.close()
  })

  it('a lease that ends while etcd is stopped comes back with it', { skip }, async (context) => {
    const { server, open } = await alone(context, 2)
    const discovery = await open()
    await discovery.put(bucket, 'ns/c/e/1', { n: 1 })
    await server.halt()
    await assert.rejects(async () => {
      // Until it is known that the lease is gone, puts fail of themselves; then they wait for it.
      for (;;) await discovery.put(bucket, 'ns/c/e/2', {})
    })
    await server.run()
    await until('it can be found again', async () => (await discovery.list(bucket, '').catch(() => new Map())).has('ns/c/e/1'), 20_000)
    await until('puts go on', () => discovery.put(bucket, 'ns/c/e/2', {}).then(() => true, () => false), 20_000)
  })

  it('an etcd that has lost its data is filled again', { skip }, async (context) => {
    const { server, open } = await alone(context, 2)
    const discovery = await open()
    await discovery.put(bucket, 'ns/c/e/1', { n: 1 })
    const seen = new Recorder()
    const watch = discovery.watch(bucket, '', seen.listener)
    await until('synced', () => seen.lines.includes('synced'))
    await server.stop()
    await server.run()
    await until('it can be found again', async () => (await discovery.list(bucket, '').catch(() => new Map())).has('ns/c/e/1'), 20_000)
    await discovery.put(bucket, 'ns/c/e/2', { n: 2 })
    await until('the watch goes on', () => seen.last('ns/c/e/2')?.['n'] === 2)
    watch.close()
  })

  it('a watch older than the compacted history lists again', { skip }, async (context) => {
    const { server, open } = await alone(context)
    const [owner, watcher] = [await open(), await open()]
    const seen = new Recorder()
    const watch = watcher.watch(bucket, '', seen.listener)
    await until('synced', () => seen.lines.includes('synced'))
    await server.halt()
    await server.run()
    const raw = client(server.url)
    for (let n = 0; n < 20; n += 1) await owner.put(bucket, 'ns/c/e/1', { n }).catch(() => {})
    const { header } = await raw.kv.range({ key: Buffer.from('v1/') })
    await raw.kv.compact({ revision: header.revision, physical: true })
    await owner.put(bucket, 'ns/c/e/1', { n: 99 })
    await until('the last value', () => seen.last('ns/c/e/1')?.['n'] === 99, 20_000)
    watch.close()
    raw.close()
  })

  it('etcd not reachable is said within 3 s with the way out, and found when it comes', { skip }, async (context) => {
    const port = await freePort()
    const log = rememberingLog()
    const discovery = new EtcdDiscovery({ ...settings(`http://127.0.0.1:${port}`), clock: systemClock, log })
    const starting = discovery.start(AbortSignal.timeout(20_000))
    await until('said', () => log.lines.some((line) => line.message.includes(`127.0.0.1:${port}`) && line.message.includes('DYN_DISCOVERY_BACKEND=file')), 3_000)
    const server = await EtcdServer.start([], port)
    context.after(() => server.stop())
    await starting
    assert.ok(discovery.instanceId > 0n)
    await discovery.close(1_000)
  })

  it('an address that swallows everything is said within 3 s, and abort ends the start', async () => {
    const sockets = new Set<import('node:net').Socket>()
    const hole = createServer((socket) => void sockets.add(socket))
    await new Promise<void>((resolve) => hole.listen(0, '127.0.0.1', resolve))
    const log = rememberingLog()
    const discovery = new EtcdDiscovery({ ...settings(`http://127.0.0.1:${(hole.address() as AddressInfo).port}`), clock: systemClock, log })
    const abort = new AbortController()
    const starting = discovery.start(abort.signal)
    await until('said', () => log.lines.some((line) => line.message.includes('DYN_DISCOVERY_BACKEND=file')), 3_000)
    abort.abort(new Error('enough'))
    await assert.rejects(starting, /enough/)
    for (const socket of sockets) socket.destroy()
    hole.close()
  })

  it('the start ends after its time, with the address and the way out', async () => {
    const url = `http://127.0.0.1:${await freePort()}`
    const discovery = new EtcdDiscovery({ ...settings(url), startupTimeoutSeconds: 1, clock: systemClock, log: rememberingLog() })
    await assert.rejects(discovery.start(new AbortController().signal), (error: Error) => error.message.includes(url) && error.message.includes('DYN_DISCOVERY_BACKEND=file'))
  })

  it('closing a watch disturbs no other, nor the calls of that moment', { skip }, async () => {
    const log = rememberingLog()
    const discovery = new EtcdDiscovery({ ...settings(sharedUrl()), clock: systemClock, log })
    await started(discovery)
    const seen = new Recorder()
    discovery.watch(bucket, 'calm', seen.listener)
    const others = Array.from({ length: 10 }, (_item, index) => {
      const recorder = new Recorder()
      return { recorder, watch: discovery.watch('v1/mdc', `calm${index}`, recorder.listener) }
    })
    await until('all synced', () => seen.lines.length === 1 && others.every(({ recorder }) => recorder.lines.length === 1))
    for (const [index, { watch }] of others.entries()) {
      watch.close()
      await discovery.put(bucket, `calm/c/e/${index}`, { n: index })
    }
    await until('all seen', () => seen.lines.length === 11)
    await discovery.close(1_000)
    assert.deepEqual(log.lines.map(({ message }) => message), [])
  })

  it('a dead endpoint among several is passed over', { skip }, async () => {
    const dead = `http://127.0.0.1:${await freePort()}`
    const log = rememberingLog()
    const discovery = new EtcdDiscovery({ ...settings(dead), endpoints: [dead, sharedUrl()], clock: systemClock, log })
    await started(discovery)
    const seen = new Recorder()
    discovery.watch(bucket, 'passed', seen.listener)
    await discovery.put(bucket, 'passed/c/e/1', { n: 1 })
    await until('seen', () => seen.last('passed/c/e/1') !== undefined)
    await discovery.close(1_000)
  })

  const noClient = skip === false && spawnSync('etcdctl', ['version']).error !== undefined ? 'etcdctl is not installed' : skip
  it('user and password are used, and wrong ones refused at once', { skip: noClient }, async (context) => {
    const { server } = await alone(context)
    for (const command of [['user', 'add', 'root:secret'], ['user', 'grant-role', 'root', 'root'], ['auth', 'enable']]) {
      const done = spawnSync('etcdctl', ['--endpoints', server.url, ...command], { env: { ...process.env, ETCDCTL_API: '3' }, encoding: 'utf8' })
      assert.equal(done.status, 0, done.stderr)
    }
    const open = (password: string) => new EtcdDiscovery({ ...settings(server.url), auth: { username: 'root', password }, clock: systemClock, log: rememberingLog() })
    const discovery = open('secret')
    await started(discovery)
    const seen = new Recorder()
    discovery.watch(bucket, '', seen.listener)
    await discovery.put(bucket, 'ns/c/e/1', { n: 1 })
    await until('seen', () => seen.lines.includes('put ns/c/e/1'))
    await discovery.close(1_000)
    await assert.rejects(open('wrong').start(new AbortController().signal), /refuses us/)
  })

  it('a certificate that cannot be read is named', async () => {
    const tls = { ca: '/no/such/ca.pem', clientCert: 'x', clientKey: 'y' }
    const discovery = new EtcdDiscovery({ ...settings('https://127.0.0.1:1'), tls, clock: systemClock, log: rememberingLog() })
    await assert.rejects(discovery.start(new AbortController().signal), /ETCD_AUTH_CA="\/no\/such\/ca\.pem"/)
  })
})
