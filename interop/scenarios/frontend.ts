/** Our frontend: real mockers behind it, the official clients in front of it, and the real frontend beside it on the same workers. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import OpenAI from 'openai'
import { repoRoot } from '../../test/repo-root.ts'
import { freePort, type Deployment, type Managed, type WorkerEvent } from '../deployment.ts'
import type { Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

type Answer = { readonly status: number; readonly headers: Headers; readonly body: string }

async function post(port: number, path: string, body: unknown, headers: Readonly<Record<string, string>> = {}): Promise<Answer> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body), signal: AbortSignal.timeout(30_000) })
  return { status: response.status, headers: response.headers, body: await response.text() }
}

const listed = (port: number, model: string, frontend?: Managed): Promise<true> => until(`${model} is listed`, async () => {
  if (frontend !== undefined && frontend.child.exitCode !== null) throw new Error(frontend.log().slice(-1500))
  try {
    return (await (await fetch(`http://127.0.0.1:${port}/v1/models`)).text()).includes(`"${model}"`)
  } catch {
    return false
  }
}, 60_000)

async function ourFrontend(deployment: Deployment, args: readonly (string | number)[] = []): Promise<{ readonly port: number; readonly process: Managed }> {
  const port = await freePort()
  return { port, process: deployment.warmpath('frontend', ['frontend', '--http-port', port, '--http-host', '127.0.0.1', ...args]) }
}

const chat = (content: string, more: Readonly<Record<string, unknown>> = {}): Record<string, unknown> => ({ model: 'tiny', messages: [{ role: 'user', content }], max_tokens: 6, ...more })

async function overMockers(deployment: Deployment): Promise<void> {
  deployment.mocker('prefill', ['--disaggregation-mode', 'prefill', '--num-workers', 2])
  deployment.mocker('decode', ['--disaggregation-mode', 'decode', '--num-workers', 2])
  const { port, process: frontend } = await ourFrontend(deployment, ['--router-mode', 'kv', '--kv-overlap-score-weight', 0])
  await listed(port, 'tiny', frontend)
  await until('both stages', async () => (await post(port, '/v1/chat/completions', chat('warm up'))).headers.get('x-warmpath-prefill') === 'remote', 30_000)
  const client = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: 'unused', maxRetries: 0 })
  const whole = await client.chat.completions.create({ model: 'tiny', messages: [{ role: 'user', content: 'prefill workers process the prompt' }], max_tokens: 6 })
  assert.equal(whole.usage?.completion_tokens, 6)
  assert.equal(whole.choices[0]?.finish_reason, 'length')
  const stream = await client.chat.completions.create({ model: 'tiny', messages: [{ role: 'user', content: 'prefill workers process the prompt' }], max_tokens: 6, stream: true, stream_options: { include_usage: true } })
  let usage = 0
  for await (const chunk of stream) usage = chunk.usage?.completion_tokens ?? usage
  assert.equal(usage, 6)
  await assert.rejects(client.chat.completions.create({ model: 'nobody', messages: [{ role: 'user', content: 'x' }] }), (error) => error instanceof OpenAI.NotFoundError)
  await assert.rejects(client.chat.completions.create({ model: 'tiny', messages: [{ role: 'user', content: 'x' }], temperature: 9 }), (error) => error instanceof OpenAI.BadRequestError && /temperature/.test(error.message))
  const abort = new AbortController()
  const long = await client.chat.completions.create({ model: 'tiny', messages: [{ role: 'user', content: 'x' }], max_tokens: 5000, stream: true }, { signal: abort.signal })
  for await (const _chunk of long) abort.abort()
  assert.equal(await deployment.stop(frontend, 'SIGTERM', 30_000), 0)
}

async function pythonClient(deployment: Deployment): Promise<void> {
  const { python } = deployment.dynamo
  if (spawnSync(python, ['-c', 'import openai']).status !== 0) {
    const install = spawnSync(python, ['-m', 'pip', 'install', '-q', 'openai'], { encoding: 'utf8' })
    assert.equal(install.status, 0, install.stderr)
  }
  deployment.mocker('mockers', ['--num-workers', 2])
  const { port, process: frontend } = await ourFrontend(deployment)
  await listed(port, 'tiny', frontend)
  await until('the first answer', async () => (await post(port, '/v1/chat/completions', chat('x'))).status === 200, 30_000)
  const child = spawnSync(python, [join(repoRoot, 'interop', 'python', 'openai_client.py'), `http://127.0.0.1:${port}/v1`, 'tiny'], { encoding: 'utf8', timeout: 60_000 })
  assert.equal(child.status, 0, child.stderr)
  const result = JSON.parse(child.stdout) as { models: string[]; chat: { finish: string; tokens: number; text: string }; stream: { finish: string; text: string }; usage: number; completions: number[]; unknown: { status: number }; invalid: { status: number; message: string } }
  assert.deepEqual(result.models, ['tiny'])
  assert.deepEqual([result.chat.finish, result.chat.tokens, result.usage], ['length', 6, 6])
  assert.equal(result.stream.finish, 'length')
  assert.deepEqual(result.completions, [0, 1])
  assert.equal(result.unknown.status, 404)
  assert.equal(result.invalid.status, 400)
  assert.match(result.invalid.message, /temperature/)
}

/** Requests that a worker must receive alike from both frontends. */
const alike: readonly (readonly [string, string, Readonly<Record<string, unknown>>, Readonly<Record<string, string>>?])[] = [
  ['plain', '/v1/chat/completions', chat('hello world')],
  ['system and turns', '/v1/chat/completions', { model: 'tiny', max_tokens: 3, messages: [{ role: 'system', content: 'be brief' }, { role: 'user', content: 'the router' }, { role: 'assistant', content: 'sends' }, { role: 'user', content: 'each request ✓' }] }],
  ['sampling', '/v1/chat/completions', chat('x', { temperature: 0.1, top_p: 0.9, seed: 7, frequency_penalty: 0.5, presence_penalty: -0.5, n: 1 })],
  ['extras', '/v1/chat/completions', chat('x', { top_k: 5, min_p: 0.05, repetition_penalty: 1.1, ignore_eos: true, min_tokens: 2 })],
  ['stop', '/v1/chat/completions', chat('x', { stop: ['END', '\n\n'], stop_token_ids: [7, 8] })],
  ['max_completion_tokens', '/v1/chat/completions', { model: 'tiny', messages: [{ role: 'user', content: 'x' }], max_completion_tokens: 4, max_tokens: 9 }],
  ['no limit', '/v1/completions', { model: 'tiny', prompt: 'the worker whose cache', max_tokens: 2 }],
  ['logprobs', '/v1/chat/completions', chat('x', { logprobs: true, top_logprobs: 2 })],
  ['hints', '/v1/chat/completions', chat('x', { nvext: { agent_hints: { priority: 3, osl: 12, strict_priority: 1 }, cache_salt: 'tenant' } })],
  ['headers', '/v1/chat/completions', chat('x'), { 'x-dynamo-request-priority': '5', 'x-tenant-id': 'blue', 'x-dynamo-meta-team': 'a' }],
  ['taints', '/v1/chat/completions', chat('x', { nvext: { routing_constraints: { preferred_taints: { gold: 0.5 } } } })],
  ['json', '/v1/chat/completions', chat('x', { response_format: { type: 'json_object' } })],
  ['token ids', '/v1/completions', { model: 'tiny', prompt: [5, 6, 7, 8], max_tokens: 2 }],
]

/** Fields that differ by nature: ids of workers and of this run. */
function comparable(event: Readonly<Record<string, unknown>>): unknown {
  const request = { ...(event['request'] as Record<string, unknown>) }
  for (const name of ['mdc_sum', 'request_timestamp_ms', 'migration_link']) delete request[name]
  return { metadata: event['metadata'], request }
}

/** Fields that are null count as absent: the API's own types say so. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).filter(([, item]) => item !== null).map(([name, item]) => [name, withoutNulls(item)]))
}

async function besideTheReal(deployment: Deployment): Promise<void> {
  const worker = await deployment.worker('w0', ['--role', 'aggregated'])
  const { port: ours, process: frontend } = await ourFrontend(deployment)
  const theirs = await freePort()
  deployment.module('real-frontend', 'dynamo.frontend', ['--http-port', theirs, '--router-mode', 'kv'])
  await Promise.all([listed(ours, 'tiny', frontend), listed(theirs, 'tiny')])
  for (const port of [ours, theirs]) await until('an answer', async () => (await post(port, '/v1/chat/completions', chat('x'))).status === 200, 30_000)
  const differences: string[] = []
  for (const [name, path, body, headers] of alike) {
    const seen: unknown[] = []
    const answers: unknown[] = []
    for (const port of [theirs, ours]) {
      const before = worker.events().filter((event) => event.ev === 'request').length
      const answer = await post(port, path, body, headers)
      assert.equal(answer.status, 200, `${name}: ${answer.body}`)
      await until('the worker has it', () => worker.events().filter((event) => event.ev === 'request').length > before, 5000)
      seen.push(comparable(worker.events().filter((event) => event.ev === 'request').at(-1) ?? {}))
      const { choices, usage } = JSON.parse(answer.body) as { choices: unknown; usage: unknown }
      answers.push(withoutNulls({ choices, usage }))
    }
    for (const [what, [real, mine]] of [['request', seen], ['answer', answers]] as const) {
      try {
        assert.deepEqual(mine, real)
      } catch (error) {
        differences.push(`${name}, ${what}: ${(error as Error).message.split('\n').slice(0, 30).join('\n')}`)
      }
    }
  }
  assert.deepEqual(differences, [])
}

/** Both frontends over the same prefill and decode workers: each worker must receive the same from either. */
async function stagesBesideTheReal(deployment: Deployment): Promise<void> {
  const differences: string[] = []
  for (const flavour of ['vllm', 'trtllm', 'sglang'] as const) {
    const advertised = flavour === 'sglang' ? ['--bootstrap-host', '127.0.0.1', '--bootstrap-port', '8998'] : []
    const prefill = await deployment.worker(`p-${flavour}`, ['--role', 'prefill', '--flavour', flavour, '--model-name', flavour, '--endpoint', `${flavour}.prefill.generate`, '--dp-size', '2', ...advertised])
    const decode = await deployment.worker(`d-${flavour}`, ['--role', 'decode', '--flavour', flavour, '--model-name', flavour, '--endpoint', `${flavour}.backend.generate`])
    const { port: ours, process: frontend } = await ourFrontend(deployment, ['--namespace', flavour])
    const theirs = await freePort()
    const real = deployment.module(`real-${flavour}`, 'dynamo.frontend', ['--http-port', theirs, '--router-mode', 'kv', '--namespace', flavour])
    await Promise.all([listed(ours, flavour, frontend), listed(theirs, flavour)])
    const body = { ...chat('prefill workers process the prompt', { temperature: 0.1 }), model: flavour }
    const count = (): number => prefill.events().filter((event) => event.ev === 'request').length
    for (const port of [ours, theirs]) {
      await until('both stages', async () => {
        const before = count()
        return (await post(port, '/v1/chat/completions', body)).status === 200 && count() > before
      }, 30_000)
    }
    const seen: { prefill: unknown; decode: unknown }[] = []
    for (const port of [theirs, ours]) {
      assert.equal((await post(port, '/v1/chat/completions', body)).status, 200)
      seen.push({ prefill: stageRequest(prefill.events()), decode: stageRequest(decode.events()) })
    }
    try {
      assert.deepEqual(seen[1], seen[0])
    } catch (error) {
      differences.push(`${flavour}: ${(error as Error).message.split('\n').slice(0, 60).join('\n')}`)
    }
    for (const each of [prefill.process, decode.process, frontend, real]) await deployment.stop(each, 'SIGKILL')
  }
  assert.deepEqual(differences, [])
}

/** The last request of a worker without what differs by nature: choices of rank, room and ids, and the hand-over's own counter. */
function stageRequest(events: readonly WorkerEvent[]): unknown {
  const { request } = comparable(events.filter((event) => event.ev === 'request').at(-1) ?? {}) as { request: Record<string, unknown> }
  const routing = { ...(request['routing'] as Record<string, unknown>) }
  for (const name of ['dp_rank', 'prefill_dp_rank']) if (name in routing) routing[name] = 'rank'
  const info = request['bootstrap_info'] as Record<string, unknown> | undefined
  const result = request['prefill_result'] as Record<string, unknown> | undefined
  return {
    ...request, routing,
    ...(info === undefined ? {} : { bootstrap_info: { ...info, bootstrap_room: 'room', handoff_id: 'id' } }),
    ...(result === undefined ? {} : { prefill_result: Object.keys(result) }),
  }
}

async function prefillComesAndGoes(deployment: Deployment): Promise<void> {
  const decode = await deployment.worker('d0', ['--role', 'decode'])
  const prefill = await deployment.worker('p0', ['--role', 'prefill', '--endpoint', 'dynamo.prefill.generate'])
  const { port, process: frontend } = await ourFrontend(deployment)
  await listed(port, 'tiny', frontend)
  const prefillHeader = async (): Promise<string | null> => {
    const answer = await post(port, '/v1/chat/completions', chat('hello world'))
    assert.equal(answer.status, 200, answer.body)
    return answer.headers.get('x-warmpath-prefill')
  }
  await until('both stages', async () => (await prefillHeader()) === 'remote', 30_000)
  deployment.signal(prefill.process, 'SIGKILL')
  // No error in between: the lost prefill worker is found out by the first request and passed over.
  for (let round = 0; round < 20; round += 1) assert.notEqual(await prefillHeader(), 'remote')
  await until('its record is gone', () => deployment.records('instances', 'dynamo/prefill/generate').length === 0, 30_000)
  assert.equal(await prefillHeader(), 'none')
  await deployment.worker('p1', ['--role', 'prefill', '--endpoint', 'dynamo.prefill.generate'])
  await until('prefill is used again', async () => (await prefillHeader()) === 'remote', 30_000)
  assert.ok(decode.events().some((event) => event.ev === 'request'))
}

export const frontendScenarios: readonly Scenario[] = [
  { name: 'frontend-mockers', timeoutSeconds: 150, run: overMockers },
  { name: 'frontend-python-client', timeoutSeconds: 150, run: pythonClient },
  { name: 'frontend-beside-the-real', timeoutSeconds: 150, run: besideTheReal },
  { name: 'frontend-stages-beside-the-real', timeoutSeconds: 200, run: stagesBesideTheReal },
  { name: 'frontend-prefill-comes-and-goes', timeoutSeconds: 150, run: prefillComesAndGoes },
]
