/** Goal: a NATS server that asks for TLS, certificates, an NKey or a credentials file takes us, and one that does not is named. Method: a real nats-server. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { nkeys } from '@nats-io/transport-node'
import { freePort, rememberingLog, systemClock } from '../../../test/discovery-kit.ts'
import { fixturePath } from '../../../test/repo-root.ts'
import { NatsLink } from './nats-link.ts'
import { natsSettingsOf, type NatsVariables } from './nats-settings.ts'
import { until } from '../../../test/until.ts'

const file = (name: string): string => fixturePath('tls', name)
const unset: NatsVariables = {
  server: null, username: null, password: null, token: null, nkey: null, credentialsPath: null, tlsCaPath: null, tlsCertPath: null, tlsKeyPath: null, tlsInsecure: false, startupTimeoutSeconds: 5,
}
const identity = { tlsCaPath: file('ca.pem'), tlsCertPath: file('client.pem'), tlsKeyPath: file('client.key') }

/** Reason to skip, or false. Throws instead when skipping is not allowed. */
function natsMissing(): string | false {
  if (spawnSync('nats-server', ['--version']).error === undefined) return false
  const reason = 'nats-server is not installed (Debian: apt install nats-server)'
  if (process.env['WARMPATH_REQUIRE_INTEROP'] === '1') throw new Error(`${reason}, and WARMPATH_REQUIRE_INTEROP=1 forbids to skip`)
  return reason
}

const skip = natsMissing()
const tlsBlock = (verify: boolean): string =>
  `tls { cert_file: ${JSON.stringify(file('server.pem'))}, key_file: ${JSON.stringify(file('server.key'))}, ca_file: ${JSON.stringify(file('ca.pem'))}, verify: ${verify} }`

/** A nats-server of a configuration, which can be started again at its port, and links to it as variables say. */
async function secure(context: TestContext, configuration: string) {
  const folder = await mkdtemp(join(tmpdir(), 'warmpath-nats-'))
  const port = await freePort()
  await writeFile(join(folder, 'nats.conf'), `listen: "127.0.0.1:${port}"\n${configuration}\n`)
  let end = async (): Promise<void> => {}
  const run = async (): Promise<void> => {
    const child = spawn('nats-server', ['-c', join(folder, 'nats.conf')], { stdio: ['ignore', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.on('data', (chunk: Buffer) => { said += chunk.toString() })
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()))
    end = async () => { child.kill('SIGKILL'); await ended }
    await until('nats-server is ready', () => {
      if (child.exitCode !== null) throw new Error(said)
      return said.includes('Server is ready')
    })
  }
  const log = rememberingLog()
  const links: NatsLink[] = []
  context.after(async () => {
    for (const link of links) await link.close()
    await end()
    await rm(folder, { recursive: true, force: true })
  })
  const link = (variables: Partial<NatsVariables>): NatsLink => {
    const settings = natsSettingsOf({ ...unset, server: `127.0.0.1:${port}`, ...variables })
    const opened = new NatsLink({ settings, clock: systemClock, log, wayOut: 'or do without NATS' })
    links.push(opened)
    return opened
  }
  await run()
  return { folder, log, link, run, halt: () => end(), server: (scheme: string) => `${scheme}://127.0.0.1:${port}` }
}

/** Starts both; what one publishes, the other hears. */
async function speak(from: NatsLink, to: NatsLink): Promise<void> {
  await from.start(AbortSignal.timeout(10_000))
  await to.start(AbortSignal.timeout(10_000))
  const heard: string[] = []
  const subscription = to.subscribe('topic', null, (message) => void heard.push(message.string()))
  await to.flush()
  assert.equal(from.publish('topic', Buffer.from('word')), 'sent')
  await until('heard', () => heard.length === 1)
  subscription.close()
}

// ---- Tokens as nsc makes them: signed by an account that an operator has signed --------------------------------------------

const coded = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')

function signed(issuer: nkeys.KeyPair, subject: nkeys.KeyPair, type: string, more: object, expiresAt?: number): string {
  const claims = {
    jti: subject.getPublicKey(), iat: Math.floor(Date.now() / 1000), iss: issuer.getPublicKey(), sub: subject.getPublicKey(), name: type,
    ...(expiresAt === undefined ? {} : { exp: expiresAt }), nats: { type, version: 2, ...more },
  }
  const body = `${coded({ typ: 'JWT', alg: 'ed25519-nkey' })}.${coded(claims)}`
  return `${body}.${Buffer.from(issuer.sign(new TextEncoder().encode(body))).toString('base64url')}`
}

const credentialsOf = (token: string, user: nkeys.KeyPair): string => [
  '-----BEGIN NATS USER JWT-----', token, '------END NATS USER JWT------', '',
  '-----BEGIN USER NKEY SEED-----', new TextDecoder().decode(user.getSeed()), '------END USER NKEY SEED------', '',
].join('\n')

function operation(): { configuration: string; account: nkeys.KeyPair } {
  const [operator, account] = [nkeys.createOperator(), nkeys.createAccount()]
  const unlimited = { subs: -1, data: -1, payload: -1, imports: -1, exports: -1, wildcards: true, conn: -1, leaf: -1 }
  const accountToken = signed(operator, account, 'account', { limits: unlimited })
  return { account, configuration: `operator: ${signed(operator, operator, 'operator', {})}\nresolver: MEMORY\nresolver_preload: { ${account.getPublicKey()}: ${accountToken} }` }
}

describe('a NATS server that asks who we are', { concurrency: 4, skip }, () => {
  it('TLS: asked for by the scheme, by the settings, or by the server alone', async (context) => {
    const { link, server, log } = await secure(context, tlsBlock(false))
    const trust = { tlsCaPath: file('ca.pem') }
    await speak(link({ ...trust, server: server('tls') }), link(trust))
    await speak(link({ tlsInsecure: true }), link({ ...trust, server: server('nats') }))
    assert.deepEqual(log.lines.filter(({ level }) => level !== 'info'), [])
  })

  it('TLS of an unknown authority is not taken, and said', async (context) => {
    const { link, log } = await secure(context, tlsBlock(false))
    for (const variables of [{}, { tlsCaPath: file('client.pem') }]) {
      await assert.rejects(link({ ...variables, startupTimeoutSeconds: 1 }).start(AbortSignal.timeout(10_000)), /no NATS server at .*certificate.*or do without NATS/)
    }
    assert.ok(log.lines.some(({ level }) => level === 'warn'))
  })

  it('a certificate of ours where it is asked for, and again after a restart', async (context) => {
    const { link, run, halt } = await secure(context, tlsBlock(true))
    const [one, other] = [link(identity), link(identity)]
    await speak(one, other)
    await assert.rejects(link({ tlsCaPath: file('ca.pem'), startupTimeoutSeconds: 1 }).start(AbortSignal.timeout(10_000)), /NATS/)
    await halt()
    await until('the loss is seen', () => !one.connected && !other.connected)
    await run()
    await until('connected again', () => one.connected && other.connected)
    await speak(one, other)
  })

  it('an NKey, over TLS, and another one is refused at once', async (context) => {
    const user = nkeys.createUser()
    const { link } = await secure(context, `${tlsBlock(false)}\nauthorization { users: [ { nkey: ${user.getPublicKey()} } ] }`)
    const nkey = new TextDecoder().decode(user.getSeed())
    await speak(link({ tlsCaPath: file('ca.pem'), nkey }), link({ tlsCaPath: file('ca.pem'), nkey }))
    const stranger = new TextDecoder().decode(nkeys.createUser().getSeed())
    await assert.rejects(link({ tlsCaPath: file('ca.pem'), nkey: stranger }).start(AbortSignal.timeout(10_000)), /refuses us.*NATS_AUTH_NKEY/)
  })

  it('a credentials file, read again for each connection: one that has expired is replaced while we run', async (context) => {
    const { account, configuration } = operation()
    const { folder, link, log } = await secure(context, `${tlsBlock(false)}\n${configuration}`)
    const user = nkeys.createUser()
    const path = join(folder, 'user.creds')
    const expiresAt = Math.floor(Date.now() / 1000) + 6
    await writeFile(path, credentialsOf(signed(account, user, 'user', { subs: -1, data: -1, payload: -1 }, expiresAt), user))
    const variables = { tlsCaPath: file('ca.pem'), credentialsPath: path }
    const [one, other] = [link(variables), link(variables)]
    await speak(one, other)
    await until('the server ends them when the token does', () => !one.connected && !other.connected)
    // The server counts in whole seconds: until the one is over, the token may be taken once more.
    await until('a newcomer is refused', async () => /refuses us.*NATS_AUTH_CREDENTIALS_FILE/.test(await link(variables).start(AbortSignal.timeout(10_000)).then(() => '', String)))
    await until('so are we', () => !one.connected && !other.connected)
    await writeFile(path, credentialsOf(signed(account, user, 'user', { subs: -1, data: -1, payload: -1 }), user))
    await until('connected again by the new file', () => one.connected && other.connected)
    await speak(one, other)
    const seed = new TextDecoder().decode(user.getSeed())
    assert.ok(!JSON.stringify(log.lines).includes(seed), 'no line shows the seed')
    assert.ok((await readFile(path, 'utf8')).includes(seed))
  })
})
