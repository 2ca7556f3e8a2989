/** Goal: endpoint names, keys and addresses are read and written as Dynamo does. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { formatEndpointId, formatTcpAddress, instanceKey, instancePath, parseEndpointId, parseInstanceKey, parseTcpAddress } from './endpoint-path.ts'
import { WireError } from './wire-error.ts'

test('endpoint ids in all their text forms', () => {
  const parse = (text: string): string => formatEndpointId(parseEndpointId(text))
  assert.deepEqual(['a.b.c', ' /a/b/c. ', 'dyn://a.b.c', 'a..b.c.d.e', 'a.b', 'a', ''].map(parse), ['a.b.c', 'a.b.c', 'a.b.c', 'a.b.c_d_e', 'a.b.E', 'a.C.E', 'NS.C.E'])
})

test('discovery keys are read back', () => {
  const endpoint = { namespace: 'ns', component: 'c', endpoint: 'e' }
  assert.equal(instanceKey(endpoint, 0xba5bd5508e098c84n), 'ns/c/e/ba5bd5508e098c84')
  assert.deepEqual(parseInstanceKey('ns/c/e/2a'), { ...endpoint, instanceId: 42n, suffix: null })
  assert.deepEqual(parseInstanceKey('ns/c/e/2a/lora/x'), { ...endpoint, instanceId: 42n, suffix: 'lora/x' })
  for (const key of ['ns/c/e', 'ns/c/e/xyz', 'ns//e/2a', 'ns/c/e/12345678901234567']) assert.equal(parseInstanceKey(key), null)
})

test('addresses of both families, with and without scheme', () => {
  assert.deepEqual(parseTcpAddress('192.0.2.2:36077/2a/ns/c/e'), { host: '192.0.2.2', port: 36077, path: '2a/ns/c/e' })
  assert.deepEqual(parseTcpAddress('tcp://[::1]:80/p'), { host: '::1', port: 80, path: 'p' })
  assert.equal(formatTcpAddress('::1', 80, 'p'), '[::1]:80/p')
  assert.equal(formatTcpAddress('127.0.0.1', 80), '127.0.0.1:80')
  for (const text of ['', 'host', 'host:0/p', 'host:70000', '::1:80', '[::1]', 'a b\n']) assert.throws(() => parseTcpAddress(text), WireError)
  fc.assert(fc.property(fc.ipV4(), fc.integer({ min: 1, max: 65535 }), fc.string({ unit: 'grapheme' }), (host, port, name) => {
    const path = instancePath({ namespace: name, component: 'c', endpoint: 'e' }, 1n)
    assert.deepEqual(parseTcpAddress(formatTcpAddress(host, port, path)), { host, port, path })
  }))
})
