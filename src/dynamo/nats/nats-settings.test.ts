/** Goal: the variables of NATS mean what they mean in Dynamo, and mistakes are named without showing secrets. Method: variables in, settings out. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as library from '@nats-io/transport-node'
import { fixturePath } from '../../../test/repo-root.ts'
import { identityOf, natsSettingsOf, type NatsVariables } from './nats-settings.ts'

const unset: NatsVariables = {
  server: null, username: null, password: null, token: null, nkey: null, credentialsPath: null, tlsCaPath: null, tlsCertPath: null, tlsKeyPath: null, tlsInsecure: false, startupTimeoutSeconds: 120,
}

test('servers: default, several, TLS, credentials in the address', () => {
  assert.deepEqual(natsSettingsOf(unset), { servers: ['nats://localhost:4222'], auth: { kind: 'user', user: 'user', password: 'user' }, tls: null, startupTimeoutMs: 120_000 })
  assert.deepEqual(natsSettingsOf({ ...unset, server: 'a, nats://b:1 ,nats://[::1]:2' }).servers, ['nats://a:4222', 'nats://b:1', 'nats://[::1]:2'])
  assert.deepEqual(natsSettingsOf({ ...unset, server: 'tls://a' }).tls, { caPath: null, certPath: null, keyPath: null, insecure: false })
  assert.deepEqual(natsSettingsOf({ ...unset, server: 'nats://me:p%40ss@a' }), { servers: ['nats://a:4222'], auth: { kind: 'user', user: 'me', password: 'p@ss' }, tls: null, startupTimeoutMs: 120_000 })
  assert.deepEqual(natsSettingsOf({ ...unset, server: 'nats://me:p@a', token: 't' }).auth, { kind: 'token', token: 't' })
  for (const server of ['http://a', 'nats://', 'nats://a:b', ',']) assert.throws(() => natsSettingsOf({ ...unset, server }), /NATS_SERVER=/, server)
})

test('who we are: in the order of Dynamo', () => {
  const all = { ...unset, username: 'u', password: 'p', token: 't', nkey: 'n', credentialsPath: 'c' }
  assert.equal(natsSettingsOf(all).auth.kind, 'user')
  assert.equal(natsSettingsOf({ ...all, password: null }).auth.kind, 'token')
  assert.equal(natsSettingsOf({ ...all, username: null, token: null }).auth.kind, 'nkey')
  assert.equal(natsSettingsOf({ ...all, username: null, token: null, nkey: null }).auth.kind, 'credentials')
})

test('files and seeds are checked before the first connection', async () => {
  const identity = await identityOf(natsSettingsOf({ ...unset, tlsCaPath: fixturePath('tls', 'ca.pem'), tlsInsecure: true }), library)
  assert.match((identity.tls as { ca: string }).ca, /BEGIN CERTIFICATE/)
  assert.equal((identity.tls as { rejectUnauthorized?: boolean }).rejectUnauthorized, false)
  await assert.rejects(identityOf(natsSettingsOf({ ...unset, tlsCaPath: '/nowhere' }), library), /NATS_TLS_CA_CERT_PATH="\/nowhere": cannot be read/)
  await assert.rejects(identityOf(natsSettingsOf({ ...unset, nkey: 'SECRET' }), library), (error: Error) => /NATS_AUTH_NKEY/.test(error.message) && !error.message.includes('SECRET'))
  assert.throws(() => natsSettingsOf({ ...unset, tlsCertPath: 'x' }), /NATS_TLS_CLIENT_KEY_PATH.*go together/)
})

test('a server known by its address alone has to have a certificate of it', async () => {
  const check = async (server: string, told: readonly string[] = []): Promise<(host: string, names: string) => boolean> => {
    const settings = natsSettingsOf({ ...unset, server, tlsCaPath: fixturePath('tls', 'ca.pem') })
    const { checkServerIdentity } = (await identityOf(settings, library, [...settings.servers, ...told])).tls as { checkServerIdentity: (host: string, certificate: object) => Error | undefined }
    return (host, subjectaltname) => checkServerIdentity(host, { subject: { CN: 'x' }, subjectaltname }) === undefined
  }
  // `localhost` is what Node asks for when the handshake names nobody.
  const ofAddress = await check('192.0.2.1, [2001:db8::1]:4222')
  assert.ok(ofAddress('localhost', 'IP Address:192.0.2.1') && ofAddress('localhost', 'IP Address:2001:DB8:0:0:0:0:0:1'))
  assert.ok(!ofAddress('localhost', 'IP Address:192.0.2.2') && !ofAddress('localhost', 'DNS:localhost'))
  assert.ok((await check('nats://a.test', ['192.0.2.9:4222', 'no address']))('localhost', 'IP Address:192.0.2.9'))
  const ofName = await check('nats://a.test')
  assert.ok(ofName('a.test', 'DNS:a.test') && !ofName('a.test', 'DNS:b.test') && !ofName('localhost', 'DNS:a.test'))
  assert.ok((await check('nats://localhost'))('localhost', 'DNS:localhost'))
})
