/** The README's commands and programs, as they are written; only the ports are others, and `npx warmpath` is the command line under test. */
import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { readmeBlock } from '../../test/readme-blocks.ts'
import { repoRoot } from '../../test/repo-root.ts'
import { until } from '../../test/until.ts'
import { cliPath, freePort, type Deployment, type Managed } from '../deployment.ts'
import type { Scenario } from '../scenario.ts'

/** A shell in the scenario's folder, where `npx warmpath` and `python` are what is tested. */
class Shell {
  readonly #deployment: Deployment
  readonly #path: string
  #made = 0

  constructor(deployment: Deployment) {
    this.#deployment = deployment
    const bin = join(deployment.folder, 'bin')
    mkdirSync(bin)
    const command = (name: string, text: string): void => {
      writeFileSync(join(bin, name), `#!/bin/sh\n${text}\n`)
      chmodSync(join(bin, name), 0o755)
    }
    command('npx', `[ "$1" = warmpath ] || exit 64\nshift\nexec "${process.execPath}" "${cliPath}" "$@"`)
    // What `npm start` does when everything is built.
    command('npm', `[ "$1" = start ] || exit 64\nshift\n[ "$1" = -- ] && shift\nexec "${process.execPath}" "${cliPath}" start "$@"`)
    symlinkSync(join(repoRoot, 'node_modules'), join(deployment.folder, 'node_modules'))
    this.#path = `${bin}:${dirname(deployment.dynamo.python)}:${process.env['PATH'] ?? ''}`
  }

  /** Runs lines of shell; discovery is where the README puts it. */
  run(label: string, lines: string, env: NodeJS.ProcessEnv = {}): Managed {
    this.#made += 1
    const file = this.write(`run-${this.#made}.sh`, lines)
    return this.#deployment.spawn(label, 'bash', ['-c', 'cd "$1" && exec bash "$2"', 'bash', this.#deployment.folder, file], { ...this.#env, ...env })
  }

  /** Writes a file into the folder. */
  write(name: string, text: string): string {
    const path = join(this.#deployment.folder, name)
    writeFileSync(path, text)
    return path
  }

  /** What lines of shell print. */
  async output(label: string, lines: string, env: NodeJS.ProcessEnv = {}): Promise<string> {
    const child = this.run(`${label}-${this.#made}`, lines, env)
    assert.equal(await child.exited, 0, `${lines}\n${child.log()}`)
    // The log is written by a stream of its own.
    return until(`the output of ${label}`, () => child.log(), 5000)
  }

  get #env(): NodeJS.ProcessEnv {
    return { PATH: this.#path, DYN_FILE_KV: join(this.#deployment.folder, 'dynamo-kv') }
  }
}

const alive = (process: Managed): boolean => {
  if (process.child.exitCode !== null) throw new Error(process.log().slice(-2000))
  return true
}

const says = (process: Managed, words: string): Promise<string> => until(`"${words}" of ${process.label}`, () => alive(process) && process.log().includes(words) && process.log(), 60_000)

/** Message and names of fields of a line of the log, the level with them. */
function shapeOf(line: string): string {
  const [, level, rest = ''] = /\b(WARN|INFO) (.*)$/.exec(line) ?? []
  const names = [...rest.matchAll(/ ([a-z_]+)=/g)].map(([, name]) => name)
  return `${level} ${rest.replace(/ [a-z_]+=.*$/, '')} [${names.join(' ')}]`
}

/** The command of Dynamo's documentation, its log, the simulated worker, and Dynamo's client twice. */
async function dropIn(deployment: Deployment): Promise<void> {
  const shell = new Shell(deployment)
  const router = shell.run('router', readmeBlock('--router-reset-states --no-router'))
  await says(router, 'Registered endpoint')
  const worker = shell.run('worker', readmeBlock('warmpath worker'))
  await says(router, 'KV Routing initialized')
  shell.write('client.py', readmeBlock('DistributedRuntime'))
  const outputs = await shell.output('client', 'python client.py')
  assert.match(outputs, /'routing_data': \{.*'worker_id'/)
  assert.match(outputs, /'finish_reason'.*'timing'|'timing'.*'finish_reason'/s)
  await until('the prompt is found cached', async () => {
    await shell.output('again', 'python client.py')
    return /Selected worker .* overlap_blocks=4 /.test(router.log())
  }, 60_000)
  const told = new Set(router.log().split('\n').map(shapeOf))
  const shown = readmeBlock('INFO Selected worker').trim().split('\n').map(shapeOf)
  assert.deepEqual(shown.filter((shape) => !told.has(shape)), [], [...told].join('\n'))
  assert.ok(alive(router) && alive(worker))
}

const shapeOfJson = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.length === 0 ? [] : [shapeOfJson(value[0])]
  return typeof value === 'object' && value !== null ? Object.fromEntries(Object.entries(value).sort().map(([name, item]) => [name, shapeOfJson(item)])) : typeof value
}

/** The router over HTTP, asked by curl. */
async function overHttp(deployment: Deployment): Promise<void> {
  const shell = new Shell(deployment)
  const port = await freePort()
  const [start = '', ...curls] = readmeBlock('/get_overlap_scores').replaceAll('8090', String(port)).trim().split('\n').filter(Boolean)
  const router = shell.run('router', start)
  for (const label of ['first', 'second']) shell.run(label, 'npx warmpath worker --endpoint dynamo.backend.generate --block-size 64')
  await until('both workers', async () => alive(router) && (await fetch(`http://127.0.0.1:${port}/health`).then((response) => response.text(), () => '')).includes('"workers":2'), 60_000)
  const answers: string[] = []
  for (const curl of curls) answers.push(await shell.output('curl', curl.replace('curl ', 'curl -sS --fail-with-body ')))
  const [generate = '', best = '', overlap = '', explained = '', health = '', metrics = ''] = answers
  assert.equal(generate.match(/^data: \{.*"token_ids"/gm)?.length, 8, generate)
  assert.match(best, /^\d+\s*$/)
  assert.match(overlap, /"block_size":64/)
  assert.match(health, /"workers":2/)
  assert.match(metrics, /^warmpath_active_requests 0$/m)
  assert.deepEqual(shapeOfJson(JSON.parse(explained)), shapeOfJson(JSON.parse(readmeBlock('"candidates"'))))
}

const ask = async (port: number, model: string): Promise<Response | null> => fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
  method: 'POST', headers: { 'content-type': 'application/json' }, signal: AbortSignal.timeout(10_000),
  body: JSON.stringify({ model, messages: [{ role: 'user', content: 'the river' }], max_tokens: 3 }),
}).catch(() => null)

/** Our frontend, then a router as the model of the real one. */
async function frontends(deployment: Deployment): Promise<void> {
  const shell = new Shell(deployment)
  const [port, other] = [await freePort(), await freePort()]
  const model = deployment.dynamo.modelPath
  const frontend = shell.run('frontend', readmeBlock('warmpath frontend').replace('8000', String(port)))
  shell.run('worker', `npx warmpath worker --endpoint dynamo.backend.generate --model-name plain --model-path ${model}`)
  await until('our frontend answers', async () => alive(frontend) && (await ask(port, 'plain'))?.status === 200, 60_000)
  const [router = '', real = ''] = readmeBlock('--register-model').trim().split('\n')
  const behind = shell.run('router', router)
  shell.run('pool', `DYN_NAMESPACE=front-pool npx warmpath worker --endpoint front-pool.backend.generate --model-path ${model}`)
  const theirs = shell.run('real-frontend', real, { DYN_HTTP_PORT: String(other) })
  await until('the real frontend answers by our router', async () => alive(behind) && alive(theirs) && (await ask(other, 'my-model'))?.status === 200, 90_000)
  await says(behind, 'Selected worker')
}

/** Both stages in one router. */
async function twoStages(deployment: Deployment): Promise<void> {
  const shell = new Shell(deployment)
  const router = shell.run('router', readmeBlock('--prefill-endpoint'))
  for (const role of ['prefill', 'decode']) shell.run(role, `npx warmpath worker --endpoint dynamo.${role === 'decode' ? 'backend' : role}.generate --role ${role} --block-size 64`)
  await says(router, 'Registered endpoint')
  shell.write('client.py', readmeBlock('DistributedRuntime'))
  await until('a request goes through both stages', async () => {
    await shell.output('client', 'python client.py')
    return alive(router) && /route request completed .*prefill=remote/.test(router.log())
  }, 60_000)
}

/** `npm start`, what it prints, and the OpenAI client. */
async function tryIt(deployment: Deployment): Promise<void> {
  const shell = new Shell(deployment)
  const port = await freePort()
  const started = shell.run('start', `npm start -- --http-port ${port}`)
  const printed = await says(started, 'curl ')
  const shown = readmeBlock('ready: http://').replaceAll('8080', String(port)).trim().split('\n').map((line) => line.trim())
  const [command = ''] = shown.slice(-1)
  for (const line of shown.slice(0, -1)) assert.ok(printed.includes(line), `${line}\n${printed}`)
  assert.ok(printed.includes(command.split(' -d ')[0] as string), printed)
  const pasted = printed.split('\n').find((line) => line.trim().startsWith('curl ') && line.includes('/v1/chat/completions')) ?? ''
  const answer = await shell.output('curl', pasted.trim().replace('curl ', 'curl -sS --fail-with-body '))
  assert.match(answer, /"chat.completion/)
  shell.write('client.mjs', readmeBlock('import OpenAI').replaceAll('8080', String(port)))
  assert.ok((await shell.output('client', 'node client.mjs')).length > 10)
}

export const readmeScenarios: readonly Scenario[] = [
  { name: 'readme-drop-in', timeoutSeconds: 150, run: dropIn },
  { name: 'readme-over-http', timeoutSeconds: 150, run: overHttp },
  { name: 'readme-frontends', timeoutSeconds: 200, run: frontends },
  { name: 'readme-two-stages', timeoutSeconds: 150, run: twoStages },
  { name: 'readme-try-it', timeoutSeconds: 150, run: tryIt },
]
