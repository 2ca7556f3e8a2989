/** Workers, clients, routers and frontends of Dynamo 1.1, 1.3 and 1.6 in one deployment with ours. */
import assert from 'node:assert/strict'
import { cpSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { freePort, generateRequest, type Deployment, type Driver } from '../deployment.ts'
import type { OlderVersion } from '../dynamo-venv.ts'
import { bothStagesServe, etcdEnv, natsEnv } from './planes.ts'
import { randomTokens, routerEndpoint, seeded, workerOf, type OutputMap, type OverlapAnswer, type Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

const target = ['--endpoint', 'dynamo.backend.generate', '--router-block-size', '16'] as const

const overlap = async (driver: Driver, tokens: readonly number[], endpoint: string = routerEndpoint.overlapScores): Promise<OverlapAnswer | undefined> =>
  (await driver.call(endpoint, { token_ids: tokens })).outputs[0] as OverlapAnswer | undefined

/** Blocks of a prompt per worker. */
async function blocksOf(driver: Driver, tokens: readonly number[]): Promise<Map<bigint, number>> {
  return new Map((await overlap(driver, tokens))?.workers.map((row) => [BigInt(row.worker_id), row.device_blocks]))
}

const knows = (driver: Driver, count: number): Promise<unknown> =>
  until(`the router knows ${count} workers`, async () => ((await overlap(driver, [1]))?.workers.length === count ? true : null), 90_000)

/** Sends a prompt straight to one worker of whatever generation. */
async function warm(driver: Driver, worker: bigint, tokens: readonly number[]): Promise<void> {
  const { error, outputs } = await driver.call('dynamo.backend.generate', generateRequest(tokens, { stop_conditions: { max_tokens: 2, ignore_eos: true } }), { instance: worker })
  assert.equal(error, null)
  assert.equal((outputs as OutputMap[]).reduce((sum, output) => sum + output.token_ids.length, 0), 2)
}

/** Prompts of 1 to 12 blocks, no two with a common start. */
function prompts(seed: number, count: number): number[][] {
  const random = seeded(seed)
  return Array.from({ length: count }, (_, index) => [index % 500, ...randomTokens(random, 15 + 16 * Math.floor(random() * 12))])
}

type Env = NodeJS.ProcessEnv
type Version = OlderVersion | '1.6.1'

function startWorkers(deployment: Deployment, versions: readonly Version[], env: Env, args: readonly (string | number)[] = []): void {
  for (const [index, version] of versions.entries()) {
    if (version === '1.6.1') deployment.mocker(`worker-${index}`, args, env)
    else deployment.olderMocker(version, `worker-${index}`, args, env)
  }
}

/** What each worker holds is what our index says, live, and asked for by a router that comes late; requests find it. */
async function indexesWorkers(deployment: Deployment, versions: readonly Version[], env: Env = {}): Promise<void> {
  startWorkers(deployment, versions, env)
  const first = deployment.warmpath('router', ['router', ...target], env)
  const driver = await deployment.driver(env)
  await knows(driver, versions.length)
  const ids = [...(await blocksOf(driver, [1])).keys()]
  const sent = prompts(11, 6 * ids.length).map((tokens, index) => ({ tokens, worker: ids[index % ids.length] as bigint }))
  const isEqual = async (): Promise<boolean> => {
    for (const { tokens, worker } of sent) {
      const blocks = await blocksOf(driver, tokens)
      if (ids.some((id) => blocks.get(id) !== (id === worker ? tokens.length / 16 : 0))) return false
    }
    return true
  }
  for (const { tokens, worker } of sent) await warm(driver, worker, tokens)
  await until('the index holds what the workers hold', isEqual, 20_000)
  // Through the router: the warm worker is chosen and answers, of whatever generation.
  for (const { tokens, worker } of sent) {
    const { outputs, error } = await driver.call(routerEndpoint.generate, generateRequest(tokens, { stop_conditions: { max_tokens: 3, ignore_eos: true } }))
    assert.equal(error, null)
    assert.equal(workerOf(outputs), worker)
    assert.equal((outputs as OutputMap[]).reduce((sum, output) => sum + output.token_ids.length, 0), 3)
  }
  assert.doesNotMatch(first.log(), /indexed approximately/)
  assert.equal(await deployment.stop(first), 0)
  const second = deployment.warmpath('router-late', ['router', ...target], env)
  await knows(driver, versions.length)
  await until('a router that comes late holds it too', isEqual, 20_000)
  assert.doesNotMatch(second.log(), /indexed approximately/)
}

/** Two ranks per worker: each is indexed for itself. */
async function indexesRanks(deployment: Deployment, version: OlderVersion, env: Env): Promise<void> {
  deployment.olderMocker(version, 'worker', ['--data-parallel-size', 2], env)
  const router = deployment.warmpath('router', ['router', ...target], env)
  const driver = await deployment.driver(env)
  await knows(driver, 2)
  const [id] = [...(await blocksOf(driver, [1])).keys()]
  const sent = prompts(23, 8).map((tokens, index) => ({ tokens, dpRank: index % 2 }))
  for (const { tokens, dpRank } of sent) {
    const request = generateRequest(tokens, { routing: { dp_rank: dpRank }, stop_conditions: { max_tokens: 1 } })
    assert.equal((await driver.call('dynamo.backend.generate', request, { instance: id as bigint })).error, null)
  }
  await until('each rank holds its own', async () => {
    for (const { tokens, dpRank } of sent) {
      const rows = (await overlap(driver, tokens))?.workers ?? []
      if (rows.some((row) => row.device_blocks !== (row.dp_rank === dpRank ? tokens.length / 16 : 0))) return false
    }
    return true
  }, 20_000)
  assert.doesNotMatch(router.log(), /indexed approximately/)
}

/** Clients of earlier releases call our router, which calls workers of all. */
async function servesClients(deployment: Deployment, versions: readonly OlderVersion[], env: Env = {}): Promise<void> {
  startWorkers(deployment, [...versions, '1.6.1'], env)
  deployment.warmpath('router', ['router', ...target], env)
  const present = await deployment.driver(env)
  await knows(present, versions.length + 1)
  for (const version of versions) {
    const driver = await deployment.driver(env, version)
    const seen = new Set<bigint>()
    for (const tokens of prompts(31, 12)) {
      // With file discovery a client of 1.1 finds nobody for a moment after it has waited for an endpoint; nothing is sent then.
      const { outputs, error } = await until(`${version} finds the router`, async () => {
        const answer = await driver.call(routerEndpoint.generate, generateRequest(tokens, { stop_conditions: { max_tokens: 3, ignore_eos: true } }))
        return answer.error?.message.startsWith('no instances found') === true ? null : answer
      }, 10_000)
      assert.equal(error, null, `${version}: ${error?.message}`)
      assert.equal((outputs as OutputMap[]).reduce((sum, output) => sum + output.token_ids.length, 0), 3)
      seen.add(workerOf(outputs))
      const best = await until(`${version} asks for the best worker`, async () => {
        const answer = (await driver.call(routerEndpoint.bestWorkerId, tokens)).outputs[0]
        return answer !== undefined && BigInt(answer as bigint) === workerOf(outputs)
      }, 10_000)
      assert.ok(best, 'the one that now holds the prompt')
    }
    assert.ok(seen.size > 1, 'several workers took part')
    const { error } = await driver.call(routerEndpoint.generate, generateRequest([1, 2, 3], { routing: { backend_instance_id: 12345 } }))
    assert.match(error?.message ?? '', /12345/, 'a refusal keeps its words')
  }
}

/** These frontends look for a worker's model by its name in the cache of the Hugging Face hub. */
function hubCache(deployment: Deployment): Env {
  const hub = join(deployment.folder, 'hf', 'hub')
  const model = join(hub, 'models--tiny')
  cpSync(deployment.dynamo.modelPath, join(model, 'snapshots', 'one'), { recursive: true })
  mkdirSync(join(model, 'refs'))
  writeFileSync(join(model, 'refs', 'main'), 'one')
  return { HF_HOME: join(deployment.folder, 'hf'), HF_HUB_CACHE: hub }
}

/** Frontends of earlier releases in front of our router, which offers the model as its own. */
async function servesFrontends(deployment: Deployment, version: OlderVersion): Promise<void> {
  startWorkers(deployment, [version, version], {})
  await deployment.router([...target, '--register-model', 'routed'])
  const port = await freePort()
  const frontend = deployment.olderModule(version, 'frontend', 'dynamo.frontend', ['--http-port', port, '--router-mode', 'round-robin'], hubCache(deployment))
  const post = async (): Promise<{ readonly status: number; readonly text: string }> => {
    const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
      method: 'POST', headers: { 'content-type': 'application/json' }, signal: AbortSignal.timeout(20_000),
      body: JSON.stringify({ model: 'routed', messages: [{ role: 'user', content: 'the river and the bridge and the road' }], max_tokens: 5 }),
    })
    return { status: response.status, text: await response.text() }
  }
  await until('the frontend answers through our router', async () => {
    if (frontend.child.exitCode !== null) throw new Error(frontend.log().slice(-1500))
    return (await post().catch(() => ({ status: 0 }))).status === 200
  }, 60_000)
  for (let round = 0; round < 4; round += 1) {
    const { status, text } = await post()
    assert.equal(status, 200, text)
    assert.equal((JSON.parse(text) as { usage: { completion_tokens: number } }).usage.completion_tokens, 5)
  }
}

/** Both stages, of earlier releases, behind our router. */
async function runsStages(deployment: Deployment, prefill: Version, decode: Version): Promise<void> {
  startWorkers(deployment, [prefill], {}, ['--disaggregation-mode', 'prefill'])
  if (decode === '1.6.1') deployment.mocker('decode', ['--disaggregation-mode', 'decode'])
  else deployment.olderMocker(decode, 'decode', ['--disaggregation-mode', 'decode'])
  await deployment.router(['--endpoint', 'dynamo.backend.generate', '--prefill-endpoint', 'dynamo.prefill.generate'])
  const driver = await deployment.driver()
  const [tokens] = prompts(41, 1) as [number[]]
  const ask = generateRequest(tokens, { stop_conditions: { max_tokens: 6, ignore_eos: true } })
  await bothStagesServe(driver, ask)
}

const overEtcdAndNats = async (deployment: Deployment, requests: 'tcp' | 'nats'): Promise<Env> =>
  ({ ...await etcdEnv(deployment), ...await natsEnv(deployment), DYN_REQUEST_PLANE: requests, DYN_EVENT_PLANE: 'nats' })

export const generationScenarios: readonly Scenario[] = [
  { name: 'generations-workers-1.1', older: ['1.1.1'], run: (deployment) => indexesWorkers(deployment, ['1.1.1', '1.1.1']) },
  { name: 'generations-workers-1.3', older: ['1.3.1'], run: (deployment) => indexesWorkers(deployment, ['1.3.1', '1.3.1']) },
  { name: 'generations-workers-mixed', older: ['1.1.1', '1.3.1'], run: (deployment) => indexesWorkers(deployment, ['1.1.1', '1.3.1', '1.6.1']) },
  {
    name: 'generations-workers-etcd-nats', older: ['1.1.1', '1.3.1'],
    run: async (deployment) => indexesWorkers(deployment, ['1.1.1', '1.3.1', '1.6.1'], await overEtcdAndNats(deployment, 'nats')),
  },
  { name: 'generations-ranks-1.1', older: ['1.1.1'], run: async (deployment) => indexesRanks(deployment, '1.1.1', await overEtcdAndNats(deployment, 'tcp')) },
  { name: 'generations-ranks-1.3', older: ['1.3.1'], run: (deployment) => indexesRanks(deployment, '1.3.1', {}) },
  { name: 'generations-clients', older: ['1.1.1', '1.3.1'], run: (deployment) => servesClients(deployment, ['1.1.1', '1.3.1']) },
  {
    name: 'generations-clients-etcd-nats', older: ['1.1.1', '1.3.1'],
    run: async (deployment) => servesClients(deployment, ['1.1.1', '1.3.1'], await overEtcdAndNats(deployment, 'nats')),
  },
  { name: 'generations-frontend-1.1', older: ['1.1.1'], run: (deployment) => servesFrontends(deployment, '1.1.1') },
  { name: 'generations-frontend-1.3', older: ['1.3.1'], run: (deployment) => servesFrontends(deployment, '1.3.1') },
  { name: 'generations-stages-1.1', older: ['1.1.1'], run: (deployment) => runsStages(deployment, '1.1.1', '1.1.1') },
  { name: 'generations-stages-mixed', older: ['1.1.1', '1.3.1'], run: (deployment) => runsStages(deployment, '1.3.1', '1.6.1') },
]
