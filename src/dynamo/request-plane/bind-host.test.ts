/** Goal: the advertised address is one that others can reach. Method: made-up interfaces. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { chooseBindHost, type Interfaces } from './bind-host.ts'

const loopback = { address: '127.0.0.1', family: 'IPv4', internal: true }
const v4 = { address: '192.0.2.7', family: 'IPv4', internal: false }
const v6 = { address: '2001:db8::7', family: 'IPv6', internal: false }
const linkLocal = { address: 'fe80::1', family: 'IPv6', internal: false }
const interfaces: Interfaces = { lo: [loopback], eth0: [linkLocal, v6, v4], eth1: [linkLocal, v6] }

test('left out: first IPv4 that is not loopback, else IPv6, else loopback', () => {
  assert.deepEqual(chooseBindHost(undefined, interfaces), { bind: '192.0.2.7', advertise: '192.0.2.7' })
  assert.equal(chooseBindHost('', { lo: [loopback], eth1: [linkLocal, v6] }).advertise, '2001:db8::7')
  assert.equal(chooseBindHost(undefined, { lo: [loopback], eth2: [linkLocal] }).advertise, '127.0.0.1')
})

test('addresses, wildcards, interfaces and mistakes', () => {
  assert.deepEqual(chooseBindHost('127.0.0.1', interfaces), { bind: '127.0.0.1', advertise: '127.0.0.1' })
  assert.deepEqual(chooseBindHost('[::1]', interfaces), { bind: '::1', advertise: '::1' })
  assert.deepEqual(chooseBindHost('0.0.0.0', interfaces), { bind: '0.0.0.0', advertise: '192.0.2.7' })
  assert.deepEqual(chooseBindHost('[::]', { eth1: [v6] }), { bind: '::', advertise: '2001:db8::7' })
  assert.equal(chooseBindHost('eth0', interfaces).bind, '192.0.2.7')
  assert.equal(chooseBindHost('eth1', interfaces).bind, '2001:db8::7')
  assert.throws(() => chooseBindHost('worker.example', interfaces), /"worker\.example" is neither an IP address nor an interface; interfaces: lo, eth0, eth1/)
})
