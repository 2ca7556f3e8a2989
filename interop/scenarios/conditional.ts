/** Stages that are skipped and sessions that stay: our frontend beside the real one on the same workers, and our two-stage router behind the real one. */
import assert from 'node:assert/strict'
import { freePort, generateRequest, type Deployment, type Managed, type WorkerEvent } from '../deployment.ts'
import { routerEndpoint, type OutputMap, type Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

export type Worker = Awaited<ReturnType<Deployment['worker']>>
type Request = Readonly<Record<string, unknown>>

export const requestsOf = (worker: Worker): Request[] => worker.events().filter((event: WorkerEvent) => event.ev === 'request').map((event) => (event as unknown as { request: Request }).request)

const conditional = ['--router-conditional-disagg', '--router-conditional-disagg-config', '{"policy":"isl_bounding","eff_isl_threshold":64,"eff_isl_ratio_threshold":0.7}'] as const

export interface Frontend {
  readonly name: string
  readonly port: number
  readonly process: Managed
}

/** Dynamo's frontend and ours, both with these flags, when they answer. */
export async function bothFrontends(deployment: Deployment, flags: readonly (string | number)[]): Promise<Frontend[]> {
  const [real, ours] = [await freePort(), await freePort()]
  const frontends = [
    { name: 'real', port: real, process: deployment.module('real-frontend', 'dynamo.frontend', ['--http-port', real, '--router-mode', 'kv', ...flags]) },
    { name: 'ours', port: ours, process: deployment.warmpath('our-frontend', ['frontend', '--http-port', ours, '--http-host', '127.0.0.1', '--router-mode', 'kv', ...flags]) },
  ]
  for (const frontend of frontends) {
    const end = Date.now() + 60_000
    await until(`the ${frontend.name} frontend answers`, async () => {
      let last = 'no connection'
      try {
        const { status, body } = await post(frontend, 'hello', { stream: false })
        if (status === 200) return true
        last = `${status} ${body}`
      } catch {
        // Not listening yet.
      }
      if (frontend.process.child.exitCode !== null || Date.now() > end) throw new Error(`${last}\n${frontend.process.log().slice(-1500)}`)
      return false
    }, 90_000)
  }
  return frontends
}

export async function post({ port }: Pick<Frontend, 'port'>, content: string, more: Readonly<Record<string, unknown>> = {}, headers: Readonly<Record<string, string>> = {}): Promise<{ readonly status: number; readonly body: string }> {
  const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
    method: 'POST', headers: { 'content-type': 'application/json', ...headers }, signal: AbortSignal.timeout(30_000),
    body: JSON.stringify({ model: 'tiny', messages: [{ role: 'user', content }], max_tokens: 2, ...more }),
  })
  return { status: response.status, body: await response.text() }
}

/** What a request to the decode worker says of its stages. */
const stagesOf = (request: Request): unknown => {
  const routing = (request['routing'] ?? {}) as Readonly<Record<string, unknown>>
  return {
    annotations: request['annotations'], override: request['router_config_override'] ?? null, routing: Object.keys(routing).sort(),
    handedOver: (request['prefill_result'] ?? null) !== null,
  }
}

export const long = (name: string): string => `${name} `.repeat(200)

async function bypass(deployment: Deployment): Promise<void> {
  const prefill = await deployment.worker('prefill0', ['--role', 'prefill', '--endpoint', 'dynamo.prefill.generate', '--publish-kv'])
  const decode = await deployment.worker('decode0', ['--role', 'decode', '--publish-kv'])
  const frontends = await bothFrontends(deployment, conditional)
  const seen = new Map<string, unknown>()
  for (const frontend of frontends) {
    const ask = async (content: string, more: Readonly<Record<string, unknown>> = {}): Promise<{ readonly stages: unknown; readonly prefilled: boolean; readonly starts: string }> => {
      const [prefills, decodes] = [requestsOf(prefill).length, requestsOf(decode).length]
      const { status, body } = await post(frontend, content, more)
      assert.equal(status, 200, body)
      await until('the decode worker has it', () => requestsOf(decode).length > decodes)
      return { stages: stagesOf(requestsOf(decode)[decodes] ?? {}), prefilled: requestsOf(prefill).length > prefills, starts: body.startsWith('event: ') ? body.slice(0, body.indexOf('data: ')) : '' }
    }
    await until(`both stages of the ${frontend.name} one`, async () => (await ask('hello')).prefilled)
    const words = long(frontend.name)
    const first = await ask(words, { stream: true })
    // The decode worker's event has to arrive before its cache is known.
    const second = await until('a stage is skipped', async () => {
      const each = await ask(words, { stream: true })
      return each.prefilled ? false : each
    })
    const marked = await ask(`other ${frontend.name}`, { nvext: { annotations: ['x-bypass-remote-prefill'] } })
    seen.set(frontend.name, { short: await ask('a'), first, second, marked })
  }
  assert.deepEqual(seen.get('ours'), seen.get('real'))
  const { first, second, marked } = seen.get('ours') as Readonly<Record<string, { prefilled: boolean; starts: string; stages: { annotations: string[] } }>>
  assert.deepEqual([first?.prefilled, first?.starts, first?.stages.annotations], [true, '', []])
  assert.deepEqual([second?.starts, second?.stages.annotations], ['event: x-bypass-remote-prefill\n: true\n\n', ['x-bypass-remote-prefill']])
  assert.deepEqual(marked?.stages.annotations, [])
}

async function sessions(deployment: Deployment): Promise<void> {
  const prefills = await Promise.all([0, 1, 2].map((index) => deployment.worker(`prefill${index}`, ['--role', 'prefill', '--endpoint', 'dynamo.prefill.generate'])))
  const decoders = await Promise.all([0, 1, 2].map((index) => deployment.worker(`decode${index}`, ['--role', 'decode'])))
  const frontends = await bothFrontends(deployment, ['--router-session-affinity-ttl-secs', 60])
  const used = (workers: readonly Worker[], sessionId: string): number =>
    workers.filter((worker) => requestsOf(worker).some((request) => (request['agent_context'] as { session_id?: string } | undefined)?.session_id === sessionId)).length
  for (const frontend of frontends) {
    await until(`${frontend.name}: all workers get requests`, async () => {
      await post(frontend, `spread ${Math.random()}`)
      return [...prefills, ...decoders].every((worker) => requestsOf(worker).length > 0)
    })
    const id = `session-${frontend.name}`
    for (let round = 0; round < 8; round += 1) assert.equal((await post(frontend, long(`turn ${round}`), {}, { 'x-dynamo-session-id': id })).status, 200)
    await until('the workers have logged them', () => used(decoders, id) > 0)
    assert.deepEqual([used(prefills, id), used(decoders, id)], [1, 1], frontend.name)
    const together = `together-${frontend.name}`
    await Promise.all(Array.from({ length: 12 }, (_, index) => post(frontend, long(`branch ${index}`), {}, { 'x-dynamo-session-id': together })))
    assert.deepEqual([used(prefills, together), used(decoders, together)], [1, 1], `${frontend.name}: at once`)
    assert.equal((await post(frontend, 'x', { nvext: { dp_rank: 0 } }, { 'x-dynamo-session-id': id })).status, 400, `${frontend.name}: a rank without a worker`)
    assert.equal((await post(frontend, 'x', {}, { 'x-dynamo-session-id': 'x'.repeat(257) })).status, 400, `${frontend.name}: an id too long`)
    const bound = decoders.find((worker) => used([worker], id) === 1)
    const other = decoders.find((worker) => worker !== bound)
    assert.equal((await post(frontend, 'x', {}, { 'x-dynamo-session-id': id, 'x-dynamo-worker-instance-id': String(other?.id) })).status, 400, `${frontend.name}: another worker`)
  }
}

/** The real frontend takes our router for a model, the mark of a skipped stage comes through to its client. */
async function behindReal(deployment: Deployment): Promise<void> {
  const flags = { namespace: 'pool' }
  const prefill = await deployment.worker('prefill0', ['--role', 'prefill', '--endpoint', 'pool.prefill.generate', '--publish-kv', '--model-name', 'inner'])
  const decode = await deployment.worker('decode0', ['--role', 'decode', '--endpoint', 'pool.backend.generate', '--publish-kv', '--model-name', 'inner'])
  await deployment.router(['--endpoint', 'pool.backend.generate', '--prefill-endpoint', 'pool.prefill.generate', '--register-model', 'tiny', '--router-session-affinity-ttl-secs', 60, ...conditional], flags)
  const port = await freePort()
  deployment.module('real-frontend', 'dynamo.frontend', ['--http-port', port, '--router-mode', 'round-robin'])
  await until('the real frontend answers through both stages', async () => {
    try {
      return (await post({ port }, 'hello')).status === 200 && requestsOf(prefill).length > 0
    } catch {
      return false
    }
  }, 60_000)
  const body = await until('a stage is skipped', async () => {
    const before = requestsOf(prefill).length
    const { body: text } = await post({ port }, long('behind'), { stream: true })
    return requestsOf(prefill).length === before && text
  })
  assert.ok(body.includes('data: [DONE]'))
  assert.ok(body.startsWith('event: x-bypass-remote-prefill\n: true\n\n'), body.slice(0, 200))
  assert.deepEqual(requestsOf(decode).at(-1)?.['annotations'], ['x-bypass-remote-prefill'])
}

async function oneStage(deployment: Deployment): Promise<void> {
  const workers = await Promise.all([0, 1, 2].map((index) => deployment.worker(`w${index}`)))
  await deployment.router(['--endpoint', 'dynamo.backend.generate', '--router-session-affinity-ttl-secs', 60])
  const driver = await deployment.driver()
  const ask = async (session: string, index: number): Promise<void> => {
    const tokens = Array.from({ length: 64 }, (_, at) => (at * 7 + index * 31) % 500)
    const { outputs, error } = await driver.call(routerEndpoint.generate, generateRequest(tokens, { agent_context: { session_id: session }, stop_conditions: { max_tokens: 2 } }))
    assert.equal(error, null)
    assert.ok((outputs as OutputMap[]).length > 0)
  }
  await until('all workers are known', () => deployment.records('mdc', 'dynamo/backend/generate').length === 3)
  await Promise.all(Array.from({ length: 12 }, (_, index) => ask('one', index)))
  assert.equal(workers.filter((worker) => requestsOf(worker).length > 0).length, 1)
}

export const conditionalScenarios: readonly Scenario[] = [
  { name: 'conditional-bypass', timeoutSeconds: 150, run: bypass },
  { name: 'conditional-sessions', timeoutSeconds: 150, run: sessions },
  { name: 'conditional-behind-real', timeoutSeconds: 150, run: behindReal },
  { name: 'conditional-one-stage-sessions', timeoutSeconds: 120, run: oneStage },
]
