/** Goal: keys and certificates are read at the start, anew on SIGHUP, and never lost to a bad file. Method: files in a folder of the test's own. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { UsageError } from '../config/usage-error.ts'
import { apiKeyLine } from '../openai/api-keys.ts'
import type { Log } from '../ports.ts'
import { ListenerFiles } from './listener-files.ts'

const nothing = { apiKeysFile: null, tlsCertPath: null, tlsKeyPath: null, tlsClientCaPath: null }

test('keys are read anew on SIGHUP; what cannot be read changes nothing and is said', (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'warmpath-keys-'))
  context.after(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, 'keys')
  const said: string[] = []
  const log: Log = { debug() {}, info: (_fields, message) => void said.push(message), warn() {}, error: (_fields, message) => void said.push(message) }
  writeFileSync(path, apiKeyLine('a', 'one'))
  const files = new ListenerFiles({ ...nothing, apiKeysFile: path }, log)
  assert.equal(files.keys?.nameOf('one'), 'a')
  const unwatch = files.watch(() => assert.fail('there is no certificate'))
  writeFileSync(path, apiKeyLine('b', 'two'))
  process.emit('SIGHUP')
  assert.deepEqual([files.keys?.nameOf('one'), files.keys?.nameOf('two')], [undefined, 'b'])
  writeFileSync(path, 'two\n')
  process.emit('SIGHUP')
  assert.equal(files.keys?.nameOf('two'), 'b')
  assert.deepEqual(said, ['read anew: 1 API keys', 'API keys could not be read anew; what was read before goes on'])
  unwatch()
  assert.equal(process.listenerCount('SIGHUP'), 0)
})

test('files that cannot be used end the start by the name of their option', () => {
  const log: Log = { debug() {}, info() {}, warn() {}, error() {} }
  for (const [paths, words] of [
    [{ apiKeysFile: '/nowhere' }, /--api-keys-file \/nowhere/], [{ tlsCertPath: 'x' }, /give both/], [{ tlsKeyPath: 'x' }, /give both/],
    [{ tlsClientCaPath: 'x' }, /needs --tls-cert-path/], [{ tlsCertPath: '/nowhere', tlsKeyPath: '/nowhere' }, /--tls-cert-path \/nowhere/],
  ] as const) assert.throws(() => new ListenerFiles({ ...nothing, ...paths }, log), (error) => error instanceof UsageError && words.test(error.message))
})
