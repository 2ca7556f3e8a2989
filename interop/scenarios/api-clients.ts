/** The official Python clients, unmodified, in front of our frontend: every route, streams, tools, errors, timeouts, aborts. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { apiKeyLine, createApiKey } from '../../src/openai/api-keys.ts'
import { repoRoot } from '../../test/repo-root.ts'
import { freePort, type Deployment } from '../deployment.ts'
import { echoWorker, modelNames, ourFrontend, type EchoWorker } from '../echo-worker.ts'
import type { Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

const models = ['plain', 'tools,tool=hermes', 'thinks,reasoning=deepseek_r1', 'vectors,embed=tokens']

/** Installs a package where Dynamo is, unless it is there. */
function ensure(python: string, name: string, version: string): void {
  if (spawnSync(python, ['-c', `import ${name}`]).status === 0) return
  const install = spawnSync(python, ['-m', 'pip', 'install', '-q', `${name}==${version}`], { encoding: 'utf8' })
  assert.equal(install.status, 0, install.stderr)
}

interface Served {
  readonly worker: EchoWorker
  readonly port: number
  /** Of a second frontend over the same workers, which asks for a key. */
  readonly keyedPort: number
  readonly key: string
}

async function served(deployment: Deployment): Promise<Served> {
  const worker = await echoWorker(deployment, models)
  const [key, file, keyedPort] = [createApiKey(), join(deployment.folder, 'keys'), await freePort()]
  writeFileSync(file, `${apiKeyLine('client', key)}\n`)
  const { port } = await ourFrontend(deployment, modelNames(models))
  const keyed = deployment.warmpath('keyed', ['frontend', '--http-port', keyedPort, '--http-host', '127.0.0.1', '--enable-anthropic-api', '--api-keys-file', file])
  await until('the models are listed for who has a key', async () => {
    if (keyed.child.exitCode !== null) throw new Error(keyed.log().slice(-1500))
    try {
      const { data } = (await (await fetch(`http://127.0.0.1:${keyedPort}/v1/models`, { headers: { authorization: `Bearer ${key}` } })).json()) as { data?: readonly unknown[] }
      return data?.length === models.length
    } catch {
      return false
    }
  }, 60_000)
  return { worker, port, keyedPort, key }
}

/** Not synchronously: the logs of the others are read meanwhile. */
async function answersOf(deployment: Deployment, script: string, args: readonly string[]): Promise<Readonly<Record<string, unknown>>> {
  const client = deployment.spawn('client', deployment.dynamo.python, [join(repoRoot, 'interop', 'python', script), ...args])
  const code = await client.exited
  assert.equal(code, 0, client.log().slice(-3000))
  const line = await until('its answers', () => client.log().split('\n').find((each) => each.startsWith('{')), 5000)
  return JSON.parse(line) as Readonly<Record<string, unknown>>
}

/** Every request whose client has left is ended at the worker, and nothing stays booked: also not for requests that the worker hangs on. */
async function released({ worker, port }: Served, closed: number): Promise<void> {
  // Of the long answers: a short one that a stop string ends may be through before its worker hears of it.
  await until(`the worker is told of ${closed} clients that have left`, () => worker.cancelled(1000) === closed, 20_000)
  await until('no request and no booking is left', async () => {
    const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
    return /^warmpath_active_requests 0$/m.test(metrics) && /^warmpath_bookings_entries 0$/m.test(metrics)
  }, 20_000)
}

const paris = ['get_weather', { city: 'Paris' }]

async function pythonOpenAi(deployment: Deployment): Promise<void> {
  ensure(deployment.dynamo.python, 'openai', '3.52.0')
  const all = await served(deployment)
  const result = await answersOf(deployment, 'openai_routes.py', [`http://127.0.0.1:${all.port}/v1`, `http://127.0.0.1:${all.keyedPort}/v1`, all.key, all.worker.log])
  assert.deepEqual(result['models'], [modelNames(models).sort(), 'plain'])
  assert.deepEqual(result['chat'], { tool: ['tool_calls', ...paris], stream: ['tool_calls', 'So.', 'get_weather'], thought: ['hm ok', 'the answer'] })
  assert.deepEqual(result['completions'], { text: 'hello world', several: [[0, 'one'], [1, 'two']], stream: 'hello world' })
  assert.deepEqual(result['responses'], {
    text: ['hello world', 'completed'], stream: ['hello world', 'hello world', 'completed'], tool: paris, tool_stream: paris,
    thought: [['reasoning', 'message'], 'the answer'], cut: ['incomplete', 'max_output_tokens'],
  })
  assert.deepEqual(result['embeddings'], [[1.5, 2.5], [0.25, 1.25], [1.5, 2.5]])
  const plain = { unknown: ['NotFoundError', 404], invalid: ['BadRequestError', 400], stranger: ['AuthenticationError', 401], holder: null }
  const generating = { ...plain, failing: ['InternalServerError', 500], 'failing stream': ['InternalServerError', 500], timeout: ['APITimeoutError'] }
  assert.deepEqual(result['errors'], {
    chat: generating, completions: generating, responses: generating, embeddings: plain,
    memory: ['InternalServerError', 501], model: ['NotFoundError', 404], 'nobody listens': ['APIConnectionError'],
  })
  assert.deepEqual(result['silent'], { chat: [true, true], completions: [true, true], responses: [true, true] })
  await released(all, result['closed'] as number)
}

async function pythonAnthropic(deployment: Deployment): Promise<void> {
  ensure(deployment.dynamo.python, 'anthropic', '2.11.0')
  const all = await served(deployment)
  const result = await answersOf(deployment, 'anthropic_client.py', [`http://127.0.0.1:${all.port}`, 'plain', 'tools', 'thinks', `http://127.0.0.1:${all.keyedPort}`, all.key, all.worker.log])
  assert.deepEqual(result['whole'], { text: 'hello world', stop: 'end_turn', tokens: 6 })
  assert.deepEqual(result['stream'], { text: 'hello ', stop: 'stop_sequence', sequence: 'END', tokens: 7 })
  for (const name of ['tool', 'tool_stream']) assert.deepEqual(result[name], { stop: 'tool_use', name: 'get_weather', input: { city: 'Paris' } })
  assert.deepEqual([result['thought'], result['thought_stream']], [[['thinking', 'text'], 'hm ok', 'the answer'], [['thinking', 'text']]])
  assert.deepEqual([result['events'], result['models'], result['count']], [['message_start', 'message_stop'], 'plain', 14])
  const failures = Object.fromEntries(['unknown', 'invalid', 'failing', 'failing_stream', 'stranger', 'holder'].map((name) => [name, result[name]]))
  assert.deepEqual(failures, {
    unknown: { status: 404, type: 'NotFoundError', kind: 'not_found_error' }, invalid: { status: 400, type: 'BadRequestError', kind: 'invalid_request_error' },
    failing: { status: 500, type: 'InternalServerError', kind: 'api_error' }, failing_stream: { status: 500, type: 'InternalServerError', kind: 'api_error' },
    stranger: { status: 401, type: 'AuthenticationError', kind: 'authentication_error' }, holder: null,
  })
  assert.deepEqual([result['timeout'], result['silent']], ['APITimeoutError', [true, true]])
  await released(all, result['closed'] as number)
}

export const apiClientScenarios: readonly Scenario[] = [
  { name: 'api-python-openai', timeoutSeconds: 150, run: pythonOpenAi },
  { name: 'api-python-anthropic', timeoutSeconds: 150, run: pythonAnthropic },
]
