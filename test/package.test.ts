/** Goal: what is published works in an empty project. Method: pack, install, run the README's program, check its types, ask for help. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { writeDemoModel } from '../src/engines/simulated/demo-model.ts'
import { repoRoot } from './repo-root.ts'

const project = mkdtempSync(join(tmpdir(), 'warmpath-package-'))

function run(command: string, args: readonly string[], cwd: string): string {
  const child = spawnSync(command, args, { cwd, encoding: 'utf8', timeout: 110_000 })
  assert.equal(child.status, 0, `${command} ${args.join(' ')}\n${child.stdout}${child.stderr}`)
  return child.stdout
}

before(() => {
  run('npm', ['pack', '--silent', '--pack-destination', project], repoRoot)
  const tarball = readdirSync(project).find((name) => name.endsWith('.tgz')) as string
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'embedder', private: true, type: 'module' }))
  run('npm', ['install', '--silent', '--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error', `./${tarball}`], project)
})

after(() => rmSync(project, { recursive: true, force: true }))

test('the program of the README embeds the router', () => {
  copyFileSync(join(repoRoot, 'examples', 'embed.mjs'), join(project, 'embed.mjs'))
  const output = run(process.execPath, ['embed.mjs'], project)
  assert.match(output, /^second -> worker \d/m)
  assert.match(output, /16 blocks cached/)
  assert.ok(readFileSync(join(repoRoot, 'README.md'), 'utf8').includes(readFileSync(join(repoRoot, 'examples', 'embed.mjs'), 'utf8').trim()), 'the README shows this program')
})

test('the workers of the README serve a model in two stages, and drain', async () => {
  const program = readFileSync(join(repoRoot, 'examples', 'disagg-workers.mjs'), 'utf8')
  assert.ok(readFileSync(join(repoRoot, 'README.md'), 'utf8').includes(program.trim()), 'the README shows this program')
  writeFileSync(join(project, 'disagg-workers.mjs'), program)
  const model = join(project, 'model')
  mkdirSync(model, { recursive: true })
  await writeDemoModel(model, 4096)
  const env = { ...process.env, DYN_DISCOVERY_BACKEND: 'file', DYN_FILE_KV: join(project, 'kv'), DYN_TCP_RPC_HOST: '127.0.0.1', DYN_TCP_RESPONSE_STREAM_HOST: '127.0.0.1', DYN_EVENT_PLANE_HOST: '127.0.0.1' }
  const workers = spawn(process.execPath, ['disagg-workers.mjs', model], { cwd: project, env, stdio: ['ignore', 'pipe', 'inherit'] })
  const frontend = spawn(process.execPath, ['node_modules/warmpath/dist/cli/main.js', 'frontend', '--http-host', '127.0.0.1', '--http-port', '0'], { cwd: project, env, stdio: ['ignore', 'ignore', 'pipe'] })
  try {
    let [said, log] = ['', '']
    workers.stdout.on('data', (chunk: Buffer) => { said += chunk.toString() })
    frontend.stderr.on('data', (chunk: Buffer) => { log += chunk.toString() })
    const ask = async (): Promise<string> => {
      const url = /http:\/\/127\.0\.0\.1:\d+/.exec(log)?.[0]
      if (url === undefined) return ''
      const response = await fetch(`${url}/v1/chat/completions`, {
        method: 'POST', headers: { 'content-type': 'application/json' }, signal: AbortSignal.timeout(5000),
        body: JSON.stringify({ model: 'my-model', messages: [{ role: 'user', content: 'the river' }], max_tokens: 3 }),
      })
      return response.status === 200 ? response.text() : ''
    }
    const end = Date.now() + 60_000
    let answer = ''
    while (!/handed over: \{"blocks":\d+\}/.test(said)) {
      assert.ok(Date.now() < end, `no answer in two stages\n${said}${log}`)
      answer = await ask().catch(() => '')
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    assert.match(answer, /"finish_reason":"length"/)
    const exited = once(workers, 'exit')
    workers.kill('SIGTERM')
    assert.deepEqual(await exited, [0, null])
  } finally {
    workers.kill('SIGKILL')
    frontend.kill('SIGKILL')
  }
})

test('the types hold for a TypeScript project', () => {
  copyFileSync(join(repoRoot, 'examples', 'embed.mjs'), join(project, 'typed.mts'))
  writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions: { module: 'nodenext', target: 'es2023', lib: ['es2023', 'dom'], strict: true, noEmit: true, types: [] }, files: ['typed.mts', 'paths.mts', 'workers.mts', 'policy.mts', 'policy-readme.mts'] }))
  copyFileSync(join(repoRoot, 'examples', 'policy.ts'), join(project, 'policy.mts'))
  writeFileSync(join(project, 'policy-readme.mts'), /```ts\n(import \{ costPolicy[^`]*)```/.exec(readFileSync(join(repoRoot, 'README.md'), 'utf8'))?.[1] ?? 'no such program')
  writeFileSync(join(project, 'workers.mts'), `declare const process: { readonly argv: readonly string[] }\n${readFileSync(join(repoRoot, 'examples', 'disagg-workers.mjs'), 'utf8')}`)
  writeFileSync(join(project, 'paths.mts'), "import { localBlockHashes } from 'warmpath/hashing'\nimport * as worker from 'warmpath/worker'\nexport const count: number = localBlockHashes(new Uint32Array(32), { blockSize: 16 }).length\nexport { worker }\n")
  const child = spawnSync(join(repoRoot, 'node_modules', '.bin', 'tsc'), ['-p', project, '--skipLibCheck', 'true'], { cwd: project, encoding: 'utf8' })
  assert.equal(child.status, 0, child.stdout)
})

test('the command is there', () => {
  assert.match(run('npx', ['--no-install', 'warmpath', '--help'], project), /Usage: warmpath COMMAND/)
  assert.match(run('npx', ['--no-install', 'warmpath', '--version'], project), /^warmpath \d+\.\d+\.\d+/)
})

test('the tarball holds no tests and no sources', () => {
  const folder = join(project, 'node_modules', 'warmpath')
  const names = readdirSync(folder, { recursive: true }).map(String)
  assert.deepEqual(names.filter((name) => /\.test\.|golden-|^src/.test(name)), [])
  assert.ok(names.includes(join('dist', 'cli', 'main.js')))
})
