import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { fixturePath } from '../../../test/repo-root.ts'
import { decodeFileKey, encodeFileKey } from './file-key.ts'
import { isUnderPrefix, parseInstanceKey } from './store-key.ts'

const golden = JSON.parse(readFileSync(fixturePath('wire', 'golden-vectors.json'), 'utf8')) as { file_key: [string, string][] }
const snapshot = JSON.parse(readFileSync(fixturePath('wire', 'file-store-snapshot.json'), 'utf8')) as { file: string; content: string }[]

test('file names are those that real processes write', () => {
  assert.ok(golden.file_key.length > 0)
  for (const [key, name] of golden.file_key) {
    assert.equal(encodeFileKey(key), name)
    assert.equal(decodeFileKey(name), key)
  }
  for (const { file } of snapshot) {
    const name = file.split('/')[2] ?? ''
    assert.equal(encodeFileKey(decodeFileKey(name) ?? ''), name)
  }
})

test('every key comes back, in plain file name characters', () => {
  fc.assert(fc.property(fc.string({ unit: 'binary' }), (key) => {
    const name = encodeFileKey(key)
    assert.match(name, /^[A-Za-z0-9%]*$/)
    assert.equal(decodeFileKey(name), key)
  }))
})

test('decoding any name gives a key or null, and never throws', () => {
  fc.assert(fc.property(fc.string({ unit: fc.constantFrom('%', '2', 'F', 'f', 'C', '3', 'a', 'é', '/') }), (name) => {
    const key = decodeFileKey(name)
    assert.ok(key === null || typeof key === 'string')
  }))
  assert.equal(decodeFileKey('%FF'), null)
  assert.equal(decodeFileKey('100%'), null)
})

test('prefixes match whole parts', () => {
  assert.ok(isUnderPrefix('ns/comp/ep', 'ns/comp'))
  assert.ok(isUnderPrefix('ns/comp/ep', 'ns/comp/'))
  assert.ok(isUnderPrefix('ns/comp', 'ns/comp'))
  assert.ok(isUnderPrefix('anything', ''))
  assert.ok(!isUnderPrefix('ns/comp2', 'ns/comp'))
  assert.ok(!isUnderPrefix('ns', 'ns/comp'))
})

test('instance and card keys are taken apart', () => {
  assert.deepEqual(parseInstanceKey('dynamo/backend/generate/ba5bd5508e098c84'), {
    namespace: 'dynamo', component: 'backend', endpoint: 'generate', instanceId: 0xba5bd5508e098c84n, suffix: null,
  })
  assert.equal(parseInstanceKey('a/b/c/1/my-lora')?.suffix, 'my-lora')
  for (const bad of ['', 'a/b/c', 'a/b/c/', 'a/b/c/xyz', 'a//c/1', 'a/b/c/11111111111111111', 'a/b/c/-1']) assert.equal(parseInstanceKey(bad), null, bad)
})
