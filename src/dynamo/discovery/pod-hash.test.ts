import assert from 'node:assert/strict'
import { test } from 'node:test'
import { instanceIdOfName } from './pod-hash.ts'

test('names hash as the original hashes them', () => {
  assert.equal(instanceIdOfName('worker-0'), 1186445869714687n)
  assert.equal(instanceIdOfName('a'), 7688582637611507n)
  assert.equal(instanceIdOfName('worker-0-engine-0'), 8051026481054291n)
})
