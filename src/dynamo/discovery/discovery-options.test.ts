import assert from 'node:assert/strict'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { rememberingLog, systemClock } from '../../../test/discovery-kit.ts'
import { createDiscovery } from './create-discovery.ts'
import { DiscoveryOptionError, discoveryOptionsFromEnv } from './discovery-options.ts'

const plainEtcd = {
  backend: 'etcd', endpoints: ['http://localhost:2379'], leaseTtlSeconds: 30, startupTimeoutSeconds: 120, keepaliveIntervalSeconds: 15, keepaliveTimeoutSeconds: 10,
}

test('etcd on this machine is the default', () => {
  assert.deepEqual(discoveryOptionsFromEnv({}), plainEtcd)
})

test('each etcd variable is read, and numbers that are none are the default', () => {
  assert.deepEqual(
    discoveryOptionsFromEnv({
      ETCD_ENDPOINTS: 'http://a:1, http://b:2,', ETCD_LEASE_TTL: '0', ETCD_STARTUP_CONNECT_TIMEOUT_SECONDS: 'x',
      ETCD_KEEPALIVE_INTERVAL_SECONDS: '0', ETCD_KEEPALIVE_TIMEOUT_SECONDS: '7', ETCD_AUTH_USERNAME: 'u', ETCD_AUTH_PASSWORD: 'p',
    }),
    { ...plainEtcd, endpoints: ['http://a:1', 'http://b:2'], leaseTtlSeconds: 1, keepaliveIntervalSeconds: 0, keepaliveTimeoutSeconds: 7, auth: { username: 'u', password: 'p' } },
  )
  assert.deepEqual(
    discoveryOptionsFromEnv({ ETCD_AUTH_CA: 'ca', ETCD_AUTH_CLIENT_CERT: 'cert', ETCD_AUTH_CLIENT_KEY: 'key' }),
    { ...plainEtcd, tls: { ca: 'ca', clientCert: 'cert', clientKey: 'key' } },
  )
  assert.deepEqual(
    discoveryOptionsFromEnv({ ETCD_AUTH_USERNAME: 'u', ETCD_AUTH_PASSWORD: 'p', ETCD_AUTH_CA: 'ca', ETCD_AUTH_CLIENT_CERT: 'cert', ETCD_AUTH_CLIENT_KEY: 'key' }),
    { ...plainEtcd, auth: { username: 'u', password: 'p' }, tls: { ca: 'ca', clientCert: 'cert', clientKey: 'key' } },
    'a server may ask for both',
  )
  assert.deepEqual(discoveryOptionsFromEnv({ ETCD_AUTH_CLIENT_CERT: 'cert', ETCD_AUTH_CLIENT_KEY: 'key' }), plainEtcd, 'client certificates need all three')
})

test('the file store has a place of its own unless named', () => {
  assert.deepEqual(discoveryOptionsFromEnv({ DYN_DISCOVERY_BACKEND: 'file' }), { backend: 'file', root: join(tmpdir(), 'dynamo_store_kv') })
  assert.deepEqual(discoveryOptionsFromEnv({ DYN_DISCOVERY_BACKEND: 'file', DYN_FILE_KV: '/kv' }), { backend: 'file', root: '/kv' })
})

test('other backends are refused with value and choice', () => {
  for (const [value, reason] of [['consul', 'not a discovery backend'], ['', 'not a discovery backend'], ['File', 'not a discovery backend']] as const) {
    assert.throws(
      () => discoveryOptionsFromEnv({ DYN_DISCOVERY_BACKEND: value }),
      (error) => error instanceof DiscoveryOptionError && error.message.includes(`DYN_DISCOVERY_BACKEND=${JSON.stringify(value)}`) && error.message.includes(reason) && error.message.includes('file'),
    )
  }
})

test('options become the backend they name', () => {
  const common = { clock: systemClock, log: rememberingLog() }
  assert.equal(createDiscovery({ backend: 'mem', ...common }).kind, 'memory')
  assert.equal(createDiscovery({ backend: 'file', root: '/kv', ...common }).kind, 'file')
  assert.equal(createDiscovery({ ...discoveryOptionsFromEnv({}), ...common }).kind, 'etcd')
})
