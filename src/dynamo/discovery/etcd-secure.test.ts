/** Goal: an etcd that asks for certificates and passwords is served as a plain one, also when tokens end. Method: a real etcd with the test authority's certificates. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, it, type TestContext } from 'node:test'
import { Etcd3 } from 'etcd3'
import { Recorder, started } from '../../../test/discovery-contract.ts'
import { EtcdServer, etcdMissing, rememberingLog, systemClock } from '../../../test/discovery-kit.ts'
import { fixturePath } from '../../../test/repo-root.ts'
import type { Bucket } from '../../ports.ts'
import { discoveryOptionsFromEnv, type EtcdBackendOptions } from './discovery-options.ts'
import { EtcdDiscovery } from './etcd-discovery.ts'
import { until } from '../../../test/until.ts'

const skip = etcdMissing()
const bucket: Bucket = 'v1/instances'
const file = (name: string): string => fixturePath('tls', name)
const text = (name: string): string => readFileSync(file(name), 'utf8')
const serverTls = (asksClients: boolean) => ({ cert: file('server.pem'), key: file('server.key'), ca: file('ca.pem'), asksClients })
const certificatePaths = { ETCD_AUTH_CA: file('ca.pem'), ETCD_AUTH_CLIENT_CERT: file('client.pem'), ETCD_AUTH_CLIENT_KEY: file('client.key') }
const certificateTexts = { ETCD_AUTH_CA: text('ca.pem'), ETCD_AUTH_CLIENT_CERT: text('client.pem'), ETCD_AUTH_CLIENT_KEY: text('client.key') }
const password = { ETCD_AUTH_USERNAME: 'root', ETCD_AUTH_PASSWORD: 'secret' }

type Env = Readonly<Record<string, string>>

/** A server that speaks TLS, and discoveries on it as the environment says. */
async function secure(context: TestContext, options: { readonly asksClients: boolean; readonly extra?: readonly string[] }) {
  const server = await EtcdServer.start(options.extra ?? [], undefined, serverTls(options.asksClients))
  const log = rememberingLog()
  const opened: { close(deadlineMs: number): Promise<void> }[] = []
  context.after(async () => {
    for (const each of opened) await each.close(500)
    await server.stop()
  })
  const open = (env: Env): EtcdDiscovery => {
    const settings = discoveryOptionsFromEnv({ ETCD_ENDPOINTS: server.url, ETCD_LEASE_TTL: '3', ...env }) as EtcdBackendOptions
    const discovery = new EtcdDiscovery({ ...settings, startupTimeoutSeconds: 2, clock: systemClock, log })
    opened.push(discovery)
    return discovery
  }
  const admin = (auth?: { username: string; password: string }): Etcd3 => {
    const credentials = { rootCertificate: Buffer.from(text('ca.pem')), certChain: Buffer.from(text('client.pem')), privateKey: Buffer.from(text('client.key')) }
    const client = new Etcd3({ hosts: [server.url], credentials, ...(auth === undefined ? {} : { auth }) })
    opened.push({ close: async () => client.close() })
    return client
  }
  return { server, log, open, admin }
}

/** Asks for passwords from now on; gives root's client. */
async function requirePasswords(admin: (auth?: { username: string; password: string }) => Etcd3): Promise<Etcd3> {
  const first = admin()
  const root = await first.user('root').create('secret')
  await root.addRole('root')
  await first.auth.authEnable()
  return admin({ username: 'root', password: 'secret' })
}

/** Puts with one, sees with the other. */
async function serves(writer: EtcdDiscovery, reader: EtcdDiscovery, key: string): Promise<Recorder> {
  const seen = new Recorder()
  reader.watch(bucket, 'ns', seen.listener)
  await until('synced', () => seen.lines.includes('synced'))
  await writer.put(bucket, key, { id: writer.instanceId })
  await until('seen', () => seen.last(key)?.['id'] !== undefined)
  return seen
}

describe('etcd over TLS', { concurrency: 4 }, () => {
  it('certificates as PEM text and as paths, where clients must show one', { skip }, async (context) => {
    const { log, open } = await secure(context, { asksClients: true })
    const [byPath, byText] = [open(certificatePaths), open(certificateTexts)]
    await started(byPath)
    await started(byText)
    await serves(byPath, byText, 'ns/c/e/1')
    await serves(byText, byPath, 'ns/c/e/2')
    assert.deepEqual(log.lines, [])
  })

  it('without a certificate, or with another authority, it says what fails and how to mend it', { skip }, async (context) => {
    const { open } = await secure(context, { asksClients: true })
    const strangers = [open({}), open({ ...certificatePaths, ETCD_AUTH_CA: file('client.pem') })]
    await Promise.all(strangers.map((stranger) =>
      assert.rejects(stranger.start(AbortSignal.timeout(20_000)), /etcd at https:\/\/127\.0\.0\.1[^]*certificate[^]*ETCD_ENDPOINTS/)))
  })

  for (const [name, tokens] of [
    ['tokens of the server’s memory', ['--auth-token-ttl', '2']],
    ['signed tokens', ['--auth-token', `jwt,pub-key=${file('server.pem')},priv-key=${file('server.key')},sign-method=ES256,ttl=2s`]],
  ] as const) {
    it(`certificate and password: ${name} that end, and a lost lease after them, cost nothing`, { skip }, async (context) => {
      const { server, log, open, admin } = await secure(context, { asksClients: true, extra: ['--bcrypt-cost', '4', ...tokens] })
      const root = await requirePasswords(admin)
      const [owner, reader] = [open({ ...certificatePaths, ...password }), open({ ...certificateTexts, ...password })]
      await started(owner)
      await started(reader)
      const seen = await serves(owner, reader, 'ns/c/e/1')
      // Every user's token is of an earlier state of the rights now, or will end within two seconds.
      await (await root.user('other').create('x')).addRole('root')
      await owner.put(bucket, 'ns/c/e/2', { n: 1 })
      await until('a put after a change of rights', () => seen.last('ns/c/e/2')?.['n'] === 1)

      const lapsed = performance.now() + 3_500
      await until('past the tokens', () => performance.now() > lapsed)
      await owner.put(bucket, 'ns/c/e/2', { n: 2 })
      await until('a put after the token', () => seen.last('ns/c/e/2')?.['n'] === 2)

      await admin({ username: 'root', password: 'secret' }).leaseClient.leaseRevoke({ ID: String(owner.instanceId) })
      await until('it leaves', () => seen.lines.includes('delete ns/c/e/1'))
      await until('it comes back under its id', () => owner.regainCount === 1 && seen.last('ns/c/e/1')?.['id'] !== undefined)
      assert.deepEqual(seen.lines.filter((line) => line === 'put ns/c/e/1').length, 2)

      // A restart forgets the tokens of the memory.
      await server.halt()
      await server.run()
      await owner.put(bucket, 'ns/c/e/2', { n: 3 })
      await until('seen after a restart', () => seen.last('ns/c/e/2')?.['n'] === 3)
      const refusals = log.lines.filter(({ fields }) => /denied|invalid auth|refuses/.test(JSON.stringify(fields)))
      // Where the machine stalls, a token ends between its making and the watch that it opens: that watch lists again, and nothing else shows.
      const calls = refusals.filter(({ message }) => message !== 'etcd watch broke; listing again')
      assert.deepEqual(calls.map(({ message, fields }) => [message, fields]), [])
      assert.ok(refusals.length - calls.length <= 2, `${refusals.length} refusals: tokens are not made anew in time`)
    })
  }

  it('a wrong password is refused at once, over TLS too', { skip }, async (context) => {
    const { open, admin } = await secure(context, { asksClients: false, extra: ['--bcrypt-cost', '4'] })
    await requirePasswords(admin)
    await assert.rejects(open({ ...certificatePaths, ...password, ETCD_AUTH_PASSWORD: 'wrong' }).start(AbortSignal.timeout(20_000)), /refuses us.*ETCD_AUTH_PASSWORD/)
  })
})
