/** Router modes beside `kv`, and LoRA adapters: our frontend beside the real one, on the same workers. */
import assert from 'node:assert/strict'
import { freePort, type Deployment, type Managed, type WorkerEvent } from '../deployment.ts'
import type { Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

type Worker = Awaited<ReturnType<Deployment['worker']>>
type Routing = Readonly<Record<string, unknown>>
interface Logged {
  readonly routing?: Routing
  readonly token_ids: readonly number[]
}
interface Answer {
  readonly status: number
  readonly text: string
}

const requestsOf = (worker: Worker): Logged[] => worker.events().filter(({ ev }: WorkerEvent) => ev === 'request').map((event) => event['request'] as Logged)
const countOf = (worker: Worker): number => requestsOf(worker).length
const last = (worker: Worker): Logged => {
  const found = requestsOf(worker).at(-1)
  assert.ok(found !== undefined)
  return found
}

async function ask(port: number, model: string, more: Readonly<Record<string, unknown>> = {}, content = 'the river and the town'): Promise<Answer> {
  const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, signal: AbortSignal.timeout(30_000),
    body: JSON.stringify({ model, messages: [{ role: 'user', content }], max_tokens: 3, ...more }),
  })
  return { status: response.status, text: await response.text() }
}

async function listed(port: number, frontend: Managed, models: readonly string[]): Promise<void> {
  await until(`${models.join(', ')} listed by ${frontend.label}`, async () => {
    if (frontend.child.exitCode !== null) throw new Error(frontend.log().slice(-1500))
    try {
      const text = await (await fetch(`http://127.0.0.1:${port}/v1/models`)).text()
      return models.every((model) => text.includes(`"${model}"`))
    } catch {
      return false
    }
  }, 60_000)
}

/** What must be alike: the request without what differs by nature or is documented, ids and ranks. */
function comparable({ routing = {}, ...request }: Logged): unknown {
  const { prefill_worker_id: _prefill, dp_rank: _rank, prefill_dp_rank: _prefillRank, decode_worker_id: _decode, backend_instance_id: _backend, ...hints } = routing
  const shown = withoutNulls({ ...request, routing: hints }) as Record<string, unknown>
  for (const name of ['mdc_sum', 'request_timestamp_ms', 'migration_link', 'prefill_result']) delete shown[name]
  return shown
}

function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).filter(([, item]) => item !== null).map(([name, item]) => [name, withoutNulls(item)]))
}

interface Pools {
  readonly whole: readonly Worker[]
  readonly prefill: readonly Worker[]
  readonly decode: readonly Worker[]
}

async function startPools(deployment: Deployment): Promise<Pools> {
  const pair = (label: string, args: readonly string[]): Promise<Worker[]> => Promise.all([0, 1].map((at) => deployment.worker(`${label}${at}`, [...args, '--delay', '0.01'])))
  const [whole, prefill, decode] = await Promise.all([
    pair('w', ['--model-name', 'whole', '--endpoint', 'whole.backend.generate']),
    pair('p', ['--model-name', 'staged', '--endpoint', 'staged.prefill.generate', '--role', 'prefill']),
    pair('d', ['--model-name', 'staged', '--endpoint', 'staged.backend.generate', '--role', 'decode']),
  ])
  return { whole, prefill, decode }
}

async function modes(deployment: Deployment, names: readonly string[]): Promise<void> {
  const pools = await startPools(deployment)
  for (const mode of names) {
    const [ours, theirs] = [await freePort(), await freePort()]
    const frontend = deployment.warmpath(`ours-${mode}`, ['frontend', '--http-port', ours, '--http-host', '127.0.0.1', '--router-mode', mode])
    const real = deployment.module(`real-${mode}`, 'dynamo.frontend', ['--http-port', theirs, '--router-mode', mode])
    await Promise.all([listed(ours, frontend, ['whole', 'staged']), listed(theirs, real, ['whole', 'staged'])])
    try {
      await (mode === 'direct' ? direct(ours, theirs, pools) : undirected(ours, theirs, mode, pools))
    } catch (error) {
      throw new Error(`${mode}: ${(error as Error).message}`, { cause: error })
    }
    for (const each of [frontend, real]) deployment.signal(each, 'SIGKILL')
  }
}

/** Both frontends give workers the same, and ours uses all of them. */
async function undirected(ours: number, theirs: number, mode: string, { whole, prefill, decode }: Pools): Promise<void> {
  const received = async (port: number, model: string, workers: readonly Worker[]): Promise<unknown> => {
    const before = workers.map(countOf)
    // The real frontend lists a model a little before its prefill stage is there.
    await until('an answer', async () => (await ask(port, model)).status === 200)
    const used = workers.find((worker, at) => countOf(worker) > (before[at] ?? 0))
    assert.ok(used !== undefined)
    return comparable(last(used))
  }
  for (const [model, workers] of [['whole', whole], ['staged', decode], ['staged', prefill]] as const) {
    // Until the real one's prefill stage is there, its decode workers are given whole prompts.
    const wanted = await until('the real frontend takes both stages', async () => {
      const had = prefill.map(countOf).reduce((sum, count) => sum + count, 0)
      const request = await received(theirs, model, model === 'whole' ? whole : workers).catch(() => null)
      return request !== null && (model === 'whole' || prefill.map(countOf).reduce((sum, count) => sum + count, 0) > had) && request
    })
    assert.deepEqual(await received(ours, model, workers), wanted, `${model}: the same request`)
  }
  const rounds = 24
  for (const [model, groups] of [['whole', [whole]], ['staged', [prefill, decode]]] as const) {
    const before = groups.map((workers) => workers.map(countOf))
    for (let round = 0; round < rounds; round += 1) assert.equal((await ask(ours, model)).status, 200)
    for (const [at, workers] of groups.entries()) {
      const shares = workers.map((worker, index) => countOf(worker) - (before[at]?.[index] ?? 0))
      assert.equal(shares.reduce((sum, share) => sum + share, 0), rounds, `${model}: ${shares.join(' and ')}`)
      // A fair coin gives one side fewer than 3 of 24 once in 60,000 times.
      const least = mode === 'random' || mode === 'power-of-two' ? 3 : rounds / 2
      assert.ok(Math.min(...shares) >= least, `${model}: ${shares.join(' and ')}`)
    }
  }
}

/** Only named workers; without a name the client is told what lacks. */
async function direct(ours: number, theirs: number, { whole, prefill, decode }: Pools): Promise<void> {
  const [first, , p1, d0] = [whole[0], whole[1], prefill[1], decode[0]] as [Worker, Worker, Worker, Worker]
  const staged = { nvext: { prefill_worker_id: p1.id, decode_worker_id: d0.id } }
  const raw = async (port: number, model: string, nvext: object): Promise<Answer> => {
    // Ids exceed what JSON.stringify can write.
    const text = JSON.stringify({ model, messages: [{ role: 'user', content: 'x' }], max_tokens: 3, nvext }, (_name, value: unknown) => (typeof value === 'bigint' ? `#${value}#` : value)).replace(/"#(\d+)#"/g, '$1')
    const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: text, signal: AbortSignal.timeout(30_000) })
    return { status: response.status, text: await response.text() }
  }
  for (const [model, nvext, workers] of [['whole', { backend_instance_id: first.id }, [first]], ['staged', staged.nvext, [p1, d0]]] as const) {
    const seen: unknown[] = []
    for (const port of [theirs, ours]) {
      const before = workers.map(countOf)
      await until(`${model}: an answer`, async () => (await raw(port, model, nvext)).status === 200)
      for (const [at, worker] of workers.entries()) assert.ok(countOf(worker) > (before[at] ?? 0), `${model}: the named worker has it`)
      seen.push(workers.map((worker) => comparable(last(worker))))
    }
    assert.deepEqual(seen[1], seen[0], model)
  }
  for (const model of ['whole', 'staged']) {
    const { status, text } = await ask(ours, model)
    assert.equal(status, 400, text)
    assert.match(text, /decode_worker_id/)
    assert.ok((await ask(theirs, model)).status >= 400)
  }
}

async function adapters(deployment: Deployment): Promise<void> {
  const [plain, adapted] = await Promise.all([deployment.worker('w0', []), deployment.worker('w1', ['--lora', 'poet'])])
  const [ours, theirs] = [await freePort(), await freePort()]
  const frontend = deployment.warmpath('ours', ['frontend', '--http-port', ours, '--http-host', '127.0.0.1', '--no-router-kv-events'], { DYN_LOG: 'info' })
  const real = deployment.module('real', 'dynamo.frontend', ['--http-port', theirs, '--router-mode', 'kv'])
  await Promise.all([listed(ours, frontend, ['tiny', 'poet']), listed(theirs, real, ['tiny', 'poet'])])
  const seen: unknown[] = []
  for (const port of [theirs, ours]) {
    const before = countOf(adapted)
    await until('an answer of the adapter', async () => (await ask(port, 'poet')).status === 200)
    // The real frontend sends it to any worker of the endpoint.
    const used = countOf(adapted) > before ? adapted : plain
    assert.ok(port === theirs || used === adapted)
    assert.equal(last(used).routing?.['lora_name'], 'poet')
    seen.push(comparable(last(used)))
  }
  assert.deepEqual(seen[1], seen[0])
  const prompt = 'a long song of the harbour '.repeat(20)
  const overlaps = async (model: string): Promise<number> => {
    assert.equal((await ask(ours, model, {}, prompt)).status, 200)
    return Number([...frontend.log().matchAll(/Selected worker .*overlap_blocks=(\d+)/g)].at(-1)?.[1])
  }
  assert.equal(await overlaps('poet'), 0)
  await until("the adapter's prompt is known", async () => (await overlaps('poet')) > 0)
  assert.equal(await overlaps('tiny'), 0, "what the adapter computed is not the model's")
  const had = countOf(plain)
  const answers = await Promise.all(Array.from({ length: 12 }, (_, at) => ask(ours, 'poet', {}, `${at} ${prompt}`)))
  assert.deepEqual(answers.map(({ status }) => status), answers.map(() => 200))
  assert.equal(countOf(plain), had, 'a worker without the adapter is not asked for it')
  await Promise.all(Array.from({ length: 12 }, (_, at) => ask(ours, 'tiny', {}, `${at} ${prompt}`)))
  assert.ok(countOf(plain) > had, "the model itself is every worker's")
}

export const modeScenarios: readonly Scenario[] = [
  { name: 'modes-chance', timeoutSeconds: 150, run: (deployment) => modes(deployment, ['random', 'power-of-two']) },
  { name: 'modes-turns', timeoutSeconds: 150, run: (deployment) => modes(deployment, ['round-robin', 'least-loaded', 'device-aware-weighted']) },
  { name: 'modes-direct', timeoutSeconds: 150, run: (deployment) => modes(deployment, ['direct']) },
  { name: 'adapters', run: adapters },
]
