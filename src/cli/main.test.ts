/** The command as a process: what it prints where, and its exit code. Nothing here needs a server. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'node:test'
import { packageVersion } from './version.ts'

const main = fileURLToPath(new URL('./main.js', import.meta.url))

function warmpath(args: readonly string[], env: Readonly<Record<string, string>> = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', timeout: 20_000, env: { PATH: process.env['PATH'], ...env } })
  return { status, stdout, stderr }
}

test('version and help go to standard output and need nothing else', () => {
  assert.deepEqual(warmpath(['--version']), { status: 0, stdout: `warmpath ${packageVersion()}\n`, stderr: '' })
  for (const args of [['--help'], ['router', '--help'], ['start', '-h'], ['worker', '--help'], ['config', 'print', '--help'], ['router', '--version']]) {
    const { status, stdout, stderr } = warmpath(args)
    assert.deepEqual([status, stderr], [0, ''], args.join(' '))
    assert.match(stdout, /^(?:Usage: )?warmpath /)
  }
})

test('mistakes end with 2, one line and no stack', () => {
  const cases: [string[], RegExp][] = [
    [['rooter'], /^warmpath: unknown command "rooter" \(did you mean router\?\)/],
    [['router', '--endpoint', 'a.b.c', '--router-temprature', '1'], /^warmpath: unknown option --router-temprature \(did you mean --router-temperature\?\)/],
    [['router', '--endpoint', 'a.b'], /^warmpath: --endpoint: "a\.b" is not valid/],
    [['router'], /^warmpath: --endpoint is missing/],
    [['router', '--endpoint', 'a.b.c', '--ais-backend', 'vllm'], /^warmpath: --ais-backend: not available in this version/],
    [['config', 'show'], /^warmpath: config "show" is unknown/],
    [['config', 'print', 'rooter'], /^warmpath: unknown command "rooter" \(did you mean router\?\)/],
  ]
  for (const [args, message] of cases) {
    const { status, stdout, stderr } = warmpath(args)
    assert.deepEqual([status, stdout], [2, ''], args.join(' '))
    assert.match(stderr, message)
    assert.equal(stderr.trim().split('\n').length, 1, stderr)
  }
})

test('a port that is taken is named with its option, and ends the start with 1', async (context) => {
  const holder = createServer().listen(0, '127.0.0.1')
  context.after(() => holder.close())
  await once(holder, 'listening')
  const { port } = holder.address() as AddressInfo
  const env = { DYN_DISCOVERY_BACKEND: 'mem', DYN_EVENT_PLANE: 'zmq', DYN_LOG: 'error' }
  for (const args of [['router', '--endpoint', 'a.b.c', '--http-port', `${port}`], ['frontend', '--http-host', '127.0.0.1', '--http-port', `${port}`]]) {
    const { status, stderr } = warmpath(args, env)
    assert.deepEqual([status, stderr], [1, `warmpath: HTTP port ${port} is in use; give another with --http-port, or 0 for a free one\n`])
  }
  const { status, stderr } = warmpath(['router', '--endpoint', 'a.b.c', '--admin-port', `${port}`], env)
  assert.deepEqual([status, stderr], [1, `warmpath: admin port ${port} is in use; give another with --admin-port, or 0 for a free one\n`])
})

test('files of the listener that cannot be read are named with option and mend', () => {
  for (const args of [['--api-keys-file', 'none.txt'], ['--tls-cert-path', 'none.txt', '--tls-key-path', 'none.txt']]) {
    const { status, stderr } = warmpath(['frontend', '--http-port', '0', ...args], { DYN_DISCOVERY_BACKEND: 'mem', DYN_LOG: 'error' })
    assert.deepEqual([status, stderr], [2, `warmpath: ${args[0]} none.txt: cannot be read (ENOENT); check the path and its permissions\n`])
  }
})

test('config print shows value and source, and never a secret', () => {
  const folder = mkdtempSync(join(tmpdir(), 'warmpath-config-'))
  try {
    const file = join(folder, 'w.yaml')
    writeFileSync(file, 'retry-limit: 7\n')
    const { status, stdout, stderr } = warmpath(
      ['config', 'print', 'router', '--config', file, '--block-size=16'], { DYN_LOG: 'debug', ETCD_AUTH_PASSWORD: 'hunter2' },
    )
    assert.equal(status, 0)
    assert.match(stdout, /^router-block-size +16 +flag --block-size$/m)
    assert.match(stdout, /^log +"debug" +env DYN_LOG$/m)
    assert.match(stdout, new RegExp(`^retry-limit +7 +file ${file.replaceAll('.', '\\.')}$`, 'm'))
    assert.match(stdout, /^router-temperature +0 +default$/m)
    assert.match(stdout, /^etcd-auth-password +\(set\) +env ETCD_AUTH_PASSWORD$/m)
    assert.doesNotMatch(stdout + stderr, /hunter2/)
    assert.equal(stderr, 'warning: --block-size is an older name; use --router-block-size\n')
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('a reader that leaves early is no failure', async () => {
  const child = spawn(process.execPath, [main, 'router', '--help'], { stdio: ['ignore', 'pipe', 'pipe'] })
  child.stdout.destroy()
  let errors = ''
  child.stderr.on('data', (data) => { errors += String(data) })
  const status = await new Promise((resolve) => { child.once('close', resolve) })
  assert.deepEqual([status, errors], [0, ''])
})

test('help loads no package', () => {
  const folder = mkdtempSync(join(tmpdir(), 'warmpath-help-'))
  try {
    assert.equal(warmpath(['router', '--help'], { NODE_V8_COVERAGE: folder }).status, 0)
    // Coverage lists every script of the process.
    const urls = readdirSync(folder).flatMap((name) => (JSON.parse(readFileSync(join(folder, name), 'utf8')) as { result: { url: string }[] }).result.map(({ url }) => url))
    assert.ok(urls.some((url) => url.endsWith('config/help.js')), 'the listing is one of ours')
    assert.deepEqual(urls.filter((url) => url.includes('node_modules')), [])
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})
