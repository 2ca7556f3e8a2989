/** The commands `start` and `worker` as child processes: what they print, serve and leave behind. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import assert from 'node:assert/strict'
import { fileURLToPath } from 'node:url'

const main = fileURLToPath(new URL('./main.js', import.meta.url))
const children: ChildProcess[] = []
after(() => {
  for (const child of children) child.kill('SIGKILL')
})

interface Running {
  readonly child: ChildProcess
  readonly text: () => string
  readonly errors: () => string
  /** Resolves when standard output and error together match. */
  seen(pattern: RegExp): Promise<RegExpMatchArray>
  readonly ended: Promise<number | null>
}

function run(args: readonly string[], env: NodeJS.ProcessEnv = {}): Running {
  const child = spawn(process.execPath, [main, ...args], { env: { PATH: process.env['PATH'], ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  children.push(child)
  const output = { text: '', errors: '' }
  const ended = once(child, 'close').then(([code]) => code as number | null)
  const seen = (pattern: RegExp): Promise<RegExpMatchArray> => new Promise((resolve, reject) => {
    const look = (): void => {
      const match = pattern.exec(output.text + output.errors)
      if (match !== null) resolve(match)
    }
    child.stdout.on('data', look)
    child.stderr.on('data', look)
    void ended.then((code) => reject(new Error(`ended with ${code} before ${pattern}: ${output.errors}`)))
    look()
  })
  child.stdout.on('data', (chunk: Buffer) => { output.text += chunk.toString() })
  child.stderr.on('data', (chunk: Buffer) => { output.errors += chunk.toString() })
  return { child, text: () => output.text, errors: () => output.errors, seen, ended }
}

test('start: prefill, decode and API in one process, the printed curl works and warms', async () => {
  const started = run(['start', '--http-port', '0', '--speedup', '20'])
  const [, url] = await started.seen(/ready: (http:\/\/127\.0\.0\.1:\d+)\n/)
  await started.seen(/Stop: Ctrl-C/)
  const [, address, body] = /curl (\S+\/v1\/chat\/completions) -H '[^']+' -d '(.+)'/.exec(started.text()) ?? []
  assert.ok(address !== undefined && body !== undefined)
  const ask = async () => {
    const response = await fetch(address, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
    assert.equal(response.status, 200)
    assert.equal(response.headers.get('x-warmpath-prefill'), 'remote')
    return await response.json() as { choices: { message: { content: string } }[]; usage: { prompt_tokens_details: { cached_tokens: number } } }
  }
  const cold = await ask()
  assert.match(cold.choices[0]?.message.content ?? '', /^( [a-z]+){24}$/)
  assert.equal(cold.usage.prompt_tokens_details.cached_tokens, 0)
  const deadline = Date.now() + 10_000
  for (let warm = cold; warm.usage.prompt_tokens_details.cached_tokens === 0; warm = await ask()) assert.ok(Date.now() < deadline, 'the second answer comes from the cache')
  assert.match(await (await fetch(`${url}/`)).text(), /POST \/generate/)
  started.child.kill('SIGINT')
  assert.equal(await started.ended, 0)
})

test('start --aggregated: ready line, health, the printed request works and warms, Ctrl-C ends with 0', async () => {
  const started = run(['start', '--aggregated', '--workers', '3', '--http-port', '0', '--speedup', '20'])
  const [, url] = await started.seen(/ready: (http:\/\/127\.0\.0\.1:\d+)\n/)
  await started.seen(/Stop: Ctrl-C/)
  assert.equal((await fetch(`${url}/health`)).status, 200)
  const [, address, body] = /curl -N (\S+) -d '(.+)'/.exec(started.text()) ?? []
  assert.ok(address !== undefined && body !== undefined)
  const ask = async (): Promise<string> => (await fetch(address, { method: 'POST', body })).text()
  const cold = await ask()
  assert.match(cold, /"cached_tokens":0/)
  assert.equal(cold.match(/^data: /gm)?.length, 8)
  const scores = async (): Promise<number[]> => {
    const tokens = (JSON.parse(body) as { token_ids: number[] }).token_ids
    const answer = await (await fetch(`${url}/get_overlap_scores`, { method: 'POST', body: JSON.stringify({ token_ids: tokens }) })).json() as { workers: { device_blocks: number }[] }
    return answer.workers.map((worker) => worker.device_blocks).sort()
  }
  const deadline = Date.now() + 10_000
  while ((await scores()).at(-1) === 0) {
    assert.ok(Date.now() < deadline, 'the cache event arrives')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  assert.deepEqual(await scores(), [0, 0, 2])
  assert.match(await ask(), /"cached_tokens":32/)
  const startedAt = Date.now()
  started.child.kill('SIGINT')
  assert.equal(await started.ended, 0)
  assert.ok(Date.now() - startedAt < 2000, `${Date.now() - startedAt} ms`)
  assert.ok(!started.text().includes('\x1b['), 'no table without a terminal')
})

test('start: stops within its time although a stream is open', async () => {
  const started = run(['start', '--aggregated', '--http-port', '0', '--workers', '1'])
  const [, url] = await started.seen(/ready: (\S+)\n/)
  const response = await fetch(`${url}/generate`, { method: 'POST', body: '{"token_ids":[1],"stop_conditions":{"max_tokens":100000}}' })
  const text = response.text().catch(() => 'cut')
  started.child.kill('SIGTERM')
  assert.equal(await started.ended, 0)
  await text
})

test('frontend: listens before there are models, says on which interfaces, and drains with 0 on SIGTERM', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'warmpath-frontend-'))
  try {
    const frontend = run(['frontend', '--http-port', '0'], { DYN_DISCOVERY_BACKEND: 'file', DYN_FILE_KV: folder, DYN_EVENT_PLANE_HOST: '127.0.0.1', DYN_TCP_RESPONSE_STREAM_HOST: '127.0.0.1' })
    await frontend.seen(/listens on every interface of this machine \(0\.0\.0\.0\)/)
    const [, port] = await frontend.seen(/HTTP API: http:\/\/0\.0\.0\.0:(\d+)/)
    const url = `http://127.0.0.1:${port}`
    assert.deepEqual((await (await fetch(`${url}/v1/models`)).json() as { data: unknown[] }).data, [])
    assert.equal((await fetch(`${url}/ready`)).status, 503)
    frontend.child.kill('SIGTERM')
    assert.equal(await frontend.ended, 0)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
})

test('start: a busy port that was asked for is an error', async () => {
  const busy = createServer().listen(0, '127.0.0.1')
  await once(busy, 'listening')
  const { port } = busy.address() as AddressInfo
  const started = run(['start', '--http-port', String(port)])
  assert.equal(await started.ended, 1)
  assert.match(started.errors(), new RegExp(`HTTP port ${port} is in use; give another with --http-port`))
  assert.doesNotMatch(started.errors(), /\n\s+at /)
  busy.close()
})

test('worker: registers in file discovery and leaves nothing behind on SIGTERM', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'warmpath-worker-'))
  try {
    const env = { DYN_DISCOVERY_BACKEND: 'file', DYN_FILE_KV: folder, DYN_GRACEFUL_SHUTDOWN_GRACE_PERIOD_SECS: '0', DYN_TCP_RPC_HOST: '127.0.0.1', DYN_EVENT_PLANE_HOST: '127.0.0.1' }
    const worker = run(['worker', '--endpoint', 'ns.comp.ep', '--dp-size', '2'], env)
    await worker.seen(/simulated worker serves ns\.comp\.ep/)
    const files = (bucket: string): string[] => (existsSync(join(folder, 'v1', bucket)) ? readdirSync(join(folder, 'v1', bucket)) : [])
    assert.equal(files('instances').length, 3, 'the endpoint and a recovery endpoint per rank')
    assert.equal(files('mdc').length, 1)
    assert.equal(files('event_sources').length, 2)
    worker.child.kill('SIGTERM')
    assert.equal(await worker.ended, 0)
    assert.deepEqual(['instances', 'mdc', 'event_sources', 'event_channels'].flatMap(files), [])
  } finally {
    await rm(folder, { recursive: true })
  }
})

test('worker: mistakes are one line and exit 2', async () => {
  const cases: [string[], RegExp][] = [
    [['--role', 'cook'], /cook/],
    [['--blok-size', '4'], /unknown option --blok-size \(did you mean --block-size\?\)/],
    [['--model-path', '/nonexistent'], /--model-path: \/nonexistent is no model folder/],
    [['--role', 'prefill', '--prefill-router', 'a.b.c'], /--prefill-router/],
  ]
  await Promise.all(cases.map(async ([args, message]) => {
    const worker = run(['worker', ...args], { DYN_DISCOVERY_BACKEND: 'mem' })
    assert.equal(await worker.ended, 2, worker.errors())
    assert.match(worker.errors(), message)
    assert.equal(worker.errors().trim().split('\n').length, 1)
  }))
})
