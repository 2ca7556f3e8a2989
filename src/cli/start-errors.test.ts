/** Goal: places and addresses that cannot be used are named by their option, with the mend. Method: the parts that read them, in this process. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { startAdminServer, TokenFileError } from '../admin/admin-server.ts'
import { parseCommand, type ParsedConfig } from '../config/parse-command.ts'
import { UsageError } from '../config/usage-error.ts'
import { createTcpRequestServer } from '../dynamo/request-plane/tcp-server.ts'
import { createPlanes, type PlaneParts } from '../planes/planes.ts'
import { systemClock } from '../system-ports.ts'
import { openStateFolder } from './durable-parts.ts'
import { httpListenError } from './listen-error.ts'
import { ListenerFiles } from './listener-files.ts'
import { httpPeers } from './service-parts.ts'
import { runStart } from './start.ts'

const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined }
const nothing = (): Uint8Array => { throw new Error('nothing is read') }

function fileIn(context: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'warmpath-places-'))
  context.after(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'file')
  writeFileSync(file, 'no pem')
  return file
}

const usage = (message: RegExp) => (error: unknown): boolean => error instanceof UsageError && message.test(error.message) && !error.message.includes('\n')

test('folders and files', async (context) => {
  const file = fileIn(context)
  const config = await parseCommand('router', ['--endpoint', 'a.b.c', '--state-dir', file], {}, nothing) as ParsedConfig<'router'>
  await assert.rejects(openStateFolder(config), usage(/^--state-dir \S+: no folder that can be written \(EEXIST\); give another/))
  assert.throws(() => new ListenerFiles({ apiKeysFile: null, tlsCertPath: file, tlsKeyPath: file, tlsClientCaPath: null }, log), usage(/^--tls-cert-path \S+: holds not a certificate in PEM form/))
  const target = { report: () => ({}), patch: () => Promise.reject(new Error('never')), reload: () => Promise.reject(new Error('never')) }
  await assert.rejects(startAdminServer({ port: 0, tokenFile: 'none', target, log }), (error) => error instanceof TokenFileError && error.message.startsWith('none: cannot be read (ENOENT); check'))
})

test('addresses', async () => {
  const at = { httpHost: 'nohost', httpPort: 80 }
  assert.ok(usage(/^--http-host: "nohost" is no address of this machine; give 127\.0\.0\.1/)(httpListenError(Object.assign(new Error(), { code: 'ENOTFOUND' }), at)))
  assert.equal((httpListenError(Object.assign(new Error(), { code: 'EADDRINUSE' }), at) as Error).message, 'HTTP port 80 is in use; give another with --http-port, or 0 for a free one')
  const config = await parseCommand('worker', [], { DYN_TCP_RPC_HOST: 'nohost' }, nothing) as ParsedConfig<'worker'>
  await assert.rejects(createPlanes(config.values, { clock: systemClock(), log } as unknown as PlaneParts), usage(/^DYN_TCP_RPC_HOST: host "nohost" is neither an IP address nor an interface; interfaces: /))
  const server = createTcpRequestServer({ clock: systemClock(), log, host: '203.0.113.77' })
  await assert.rejects(server.start(AbortSignal.timeout(5000)), /^Error: cannot listen on 203\.0\.113\.77:0 \(EADDRNOTAVAIL\); set DYN_TCP_RPC_HOST to an address/)
  for (const text of ['nope', 'http://', 'http://a:1,ftp://b']) assert.throws(() => httpPeers(text, '--peers'), usage(/^--peers: "(?:nope|http:\/\/|ftp:\/\/b)" is not valid; expected http:\/\/HOST:PORT/), text)
  assert.deepEqual(httpPeers('http://a:1, https://b', '--peers'), ['http://a:1', 'https://b'])
})

test('what does not go together', async () => {
  await assert.rejects(runStart(['--aggregated', '--prefill-workers', '3'], {}), usage(/^--prefill-workers: .*leave one of the two out/))
})
