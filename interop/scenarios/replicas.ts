/** Several routers over the same workers: load that each holds is seen by all, ours and Dynamo's, on both event planes. */
import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import { freePort, generateRequest, parseLossless, type Deployment, type Driver, type Managed } from '../deployment.ts'
import type { OlderVersion } from '../dynamo-venv.ts'
import { randomTokens, routerEndpoint, seeded, workerOf, type OverlapAnswer, type Scenario } from '../scenario.ts'
import { httpPortOf } from './equality.ts'
import { startNats } from './nats-process.ts'
import { until } from '../../test/until.ts'

const target = ['--endpoint', 'dynamo.backend.generate', '--router-block-size', '16'] as const
const sync = [...target, '--router-replica-sync'] as const
const random = seeded(606)

interface Ours {
  readonly name: string
  readonly process: Managed
}

async function ours(deployment: Deployment, name: string, args: readonly (string | number)[], env: NodeJS.ProcessEnv = {}): Promise<Ours> {
  return { name, process: await deployment.router([...args, '--http-port', '0'], { component: name, label: name, env }) }
}

const knows = (driver: Driver, router: string, count: number): Promise<unknown> => until(`${router} knows ${count} workers`, async () => {
  const answer = (await driver.call(`dynamo.${router}.get_overlap_scores`, { token_ids: [1] })).outputs[0] as OverlapAnswer | undefined
  return answer?.workers.length === count
}, 60_000)

/** Requests that stay for so many seconds, pinned to the given workers in turn. Resolves when each has its first output. */
async function hold(driver: Driver, router: string, workers: readonly bigint[], count: number, seconds: number): Promise<{ readonly ended: Promise<unknown> }> {
  const running: Promise<unknown>[] = []
  await Promise.all(Array.from({ length: count }, (_, index) => new Promise<void>((resolve) => {
    const request = generateRequest(randomTokens(random, 320), {
      routing: { backend_instance_id: workers[index % workers.length] as bigint }, stop_conditions: { max_tokens: 100_000, ignore_eos: true },
    })
    running.push(driver.call(`dynamo.${router}.generate`, request, { timeoutSeconds: seconds, onOutput: () => resolve() }).catch(() => undefined).finally(resolve))
  })))
  return { ended: Promise.all(running) }
}

/** Share of `count` free requests that goes to `workers`. */
async function shareOf(driver: Driver, router: string, workers: readonly bigint[], count: number): Promise<number> {
  const chosen = await Promise.all(Array.from({ length: count }, async () => {
    const request = generateRequest(randomTokens(random, 64), { stop_conditions: { max_tokens: 12, ignore_eos: true } })
    const { outputs, error } = await driver.call(`dynamo.${router}.generate`, request, { timeoutSeconds: 30 })
    assert.equal(error, null)
    return workerOf(outputs)
  }))
  return chosen.filter((worker) => workers.includes(worker)).length / count
}

/** The acceptance of replica sync: 32 long requests of A on workers 1 to 4; where do 32 free ones of B go 200 ms later? */
async function spread(driver: Driver, a: string, b: string, ids: readonly bigint[]): Promise<number> {
  const { ended } = await hold(driver, a, ids.slice(0, 4), 32, 8)
  await delay(200)
  const share = await shareOf(driver, b, ids.slice(4), 32)
  process.stdout.write(`     ${a} holds, ${b} chooses: ${Math.round(share * 100)} % to idle workers\n`)
  await ended
  return share
}

async function sharesLoad(deployment: Deployment, env: NodeJS.ProcessEnv = {}): Promise<void> {
  deployment.mocker('mockers', ['--num-workers', 8, '--num-gpu-blocks-override', 4096, '--speedup-ratio', 0.3], env)
  const ids = await deployment.registered('dynamo/backend/generate', 8, undefined, 'mdc')
  await Promise.all([ours(deployment, 'ours-a', sync, env), ours(deployment, 'ours-b', sync, env), ours(deployment, 'alone', target, env)])
  const real = deployment.module('real-router', 'dynamo.router', [...sync], env)
  await until('the real router registers', () => real.log().includes('Registered endpoint'), 60_000)
  const driver = await deployment.driver(env)
  for (const name of ['ours-a', 'ours-b', 'alone', 'router']) await knows(driver, name, 8)
  const shares: Record<string, number> = {}
  for (const [a, b] of [['ours-a', 'ours-b'], ['router', 'ours-b'], ['ours-a', 'router'], ['ours-a', 'alone']] as const) {
    const share = await spread(driver, a, b, ids)
    shares[`${a} to ${b}`] = share
    if (b === 'alone') assert.ok(share >= 0.4 && share <= 0.6, `${a} to ${b}: ${share}`)
    else assert.ok(share >= 0.9, `${a} to ${b}: ${share}`)
  }
}

/** Requests per worker as a router counts them, its own and those of others. */
async function counted({ process }: Ours): Promise<ReadonlyMap<string, number>> {
  const response = await fetch(`http://127.0.0.1:${await httpPortOf(process)}/explain?ids=string`, { method: 'POST', body: '[1,2,3]', headers: { 'content-type': 'application/json' } })
  const { candidates } = await response.json() as { candidates: { worker_id: string; active_requests: number }[] }
  return new Map(candidates.map((row) => [String(row.worker_id), row.active_requests]))
}

async function learnsAndForgets(deployment: Deployment): Promise<void> {
  deployment.mocker('mockers', ['--num-workers', 8, '--num-gpu-blocks-override', 4096, '--speedup-ratio', 0.3])
  const ids = await deployment.registered('dynamo/backend/generate', 8, undefined, 'mdc')
  const [a, b] = await Promise.all([ours(deployment, 'ours-a', sync), ours(deployment, 'ours-b', sync)])
  const driver = await deployment.driver()
  for (const { name } of [a, b]) await knows(driver, name, 8)
  await hold(driver, 'ours-a', ids.slice(0, 4), 24, 60)
  await hold(driver, 'ours-b', ids.slice(0, 4), 8, 60)
  const stands = async (router: Ours, perWorker: number): Promise<boolean> => {
    const requests = await counted(router)
    return ids.every((id, index) => requests.get(String(id)) === (index < 4 ? perWorker : 0))
  }
  await until('each counts what both hold', async () => await stands(a, 8) && await stands(b, 8), 5000)
  const startedMs = Date.now()
  const newcomer = await ours(deployment, 'ours-c', sync)
  await knows(driver, 'ours-c', 8)
  const readyMs = Date.now()
  await until('a new replica counts it too', () => stands(newcomer, 8), 5000)
  process.stdout.write(`     a new replica knows the load ${Date.now() - readyMs} ms after its workers, ${readyMs - startedMs} ms after its start\n`)
  assert.ok(await shareOf(driver, 'ours-c', ids.slice(4), 32) >= 0.9)
  deployment.signal(a.process, 'SIGKILL')
  const killedMs = Date.now()
  await until('the bookings of a killed replica end', async () => await stands(b, 2) && await stands(newcomer, 2), 30_000)
  process.stdout.write(`     bookings of a killed replica ended after ${((Date.now() - killedMs) / 1000).toFixed(1)} s\n`)
}

/** Both replicas are replaced in turn while requests come without pause. */
async function rollingRestart(deployment: Deployment): Promise<void> {
  deployment.mocker('mockers', ['--num-workers', 4, '--speedup-ratio', 1])
  await deployment.registered('dynamo/backend/generate', 4, undefined, 'mdc')
  const start = (label: string): Managed => deployment.warmpath(label, ['router', ...sync])
  const first = [start('first-a'), start('first-b')]
  await deployment.registered('dynamo/router/generate', 2)
  const driver = await deployment.driver()
  await knows(driver, 'router', 4)
  let isOver = false
  const errors: string[] = []
  let answered = 0
  const ask = async (): Promise<void> => {
    const request = generateRequest(randomTokens(random, 64), { stop_conditions: { max_tokens: 20, ignore_eos: true } })
    let { error } = await driver.call(routerEndpoint.generate, request, { quiet: true, timeoutSeconds: 30 })
    // Dynamo's client gives up a request that has no prologue yet when a record goes, and its frontend then migrates it: so do we, once.
    if ((error?.message ?? '').startsWith('Unavailable: Worker disconnected before response stream was established')) {
      error = (await driver.call(routerEndpoint.generate, request, { quiet: true, timeoutSeconds: 30 })).error
    }
    if (error === null) answered += 1
    else errors.push(error.message)
  }
  const load = Promise.all(Array.from({ length: 12 }, async () => { while (!isOver) await ask() }))
  for (const [index, old] of first.entries()) {
    const before = answered
    await until('requests flow', () => answered > before + 30)
    assert.equal(await deployment.stop(old, 'SIGTERM', 40_000), 0)
    start(`second-${index}`)
    await deployment.registered('dynamo/router/generate', 2)
    // The client finds the new one by itself.
    await until('the client knows both', async () => (await driver.instances(routerEndpoint.generate)).length === 2)
  }
  const before = answered
  await until('requests flow', () => answered > before + 30)
  isOver = true
  await load
  assert.deepEqual(errors, [])
  process.stdout.write(`     ${answered} requests answered, none lost\n`)
}

/** One index for several routers: ours asks Dynamo's, Dynamo's asks ours, ours asks ours. */
async function sharesIndex(deployment: Deployment): Promise<void> {
  deployment.mocker('mockers', ['--num-workers', 2, '--num-gpu-blocks-override', 4096])
  await deployment.registered('dynamo/backend/generate', 2, undefined, 'mdc')
  const real = deployment.module('real-server', 'dynamo.router', [...target, '--serve-indexer'])
  await deployment.registered('dynamo/backend/kv_indexer_query', 1, real)
  await ours(deployment, 'ours-client', [...target, '--use-remote-indexer'])
  const driver = await deployment.driver()
  const prompt = randomTokens(random, 16 * 8)
  const blocksOf = async (router: string): Promise<string> => {
    const { outputs, error } = await driver.call(`dynamo.${router}.get_overlap_scores`, { token_ids: prompt })
    assert.equal(error, null)
    return (outputs[0] as OverlapAnswer).workers.map((row) => row.device_blocks).sort().join()
  }
  const stays = async (router: string, home: bigint): Promise<void> => {
    for (let round = 0; round < 5; round += 1) {
      const { outputs, error } = await driver.call(`dynamo.${router}.generate`, generateRequest([...prompt, round]))
      assert.equal(error, null)
      assert.equal(workerOf(outputs), home, `${router}, round ${round}`)
    }
  }
  await knows(driver, 'ours-client', 2)
  const home = workerOf((await driver.call('dynamo.ours-client.generate', generateRequest(prompt))).outputs)
  await until('ours learns from the index of the real router', async () => await blocksOf('ours-client') === '0,8')
  await stays('ours-client', home)
  await deployment.stop(real, 'SIGTERM', 30_000)
  // A process that does not tidy up is swept from the store after a while.
  const stands = (): boolean => deployment.records('instances', 'dynamo/router/').length + deployment.records('instances', 'dynamo/backend/kv_indexer_query').length > 0
  await until('the records of the real router are gone', () => !stands(), 40_000)
  const server = await ours(deployment, 'ours-server', [...target, '--serve-indexer'])
  await deployment.registered('dynamo/backend/kv_indexer_query', 1, server.process)
  await until('ours learns from ours', async () => await blocksOf('ours-client') === '0,8')
  await stays('ours-client', home)
  const client = deployment.module('real-client', 'dynamo.router', [...target, '--use-remote-indexer'])
  await until('the real client registers', () => client.log().includes('Registered endpoint'), 60_000)
  await until('the real router learns from ours', async () => await blocksOf('router') === '0,8')
  await stays('router', home)
}

/** The index of our frontend, for a real router and one of ours. */
async function servesFrontendIndex(deployment: Deployment): Promise<void> {
  const mockers = deployment.mocker('mockers', ['--num-workers', 2, '--num-gpu-blocks-override', 4096])
  const [home] = await deployment.registered('dynamo/backend/generate', 2, mockers, 'mdc') as [bigint]
  const frontend = deployment.warmpath('frontend', ['frontend', '--http-host', '127.0.0.1', '--http-port', await freePort(), '--serve-indexer'])
  await deployment.registered('dynamo/backend/kv_indexer_query', 1, frontend)
  const { process: router } = await ours(deployment, 'ours-client', [...target, '--use-remote-indexer'])
  const url = `http://127.0.0.1:${await httpPortOf(router)}`
  const driver = await deployment.driver()
  const client = deployment.module('real-client', 'dynamo.router', [...target, '--use-remote-indexer'])
  await until('the real client registers', () => client.log().includes('Registered endpoint'), 60_000)
  await knows(driver, 'ours-client', 2)
  const prompt = randomTokens(random, 16 * 8)
  assert.equal((await driver.call('dynamo.backend.generate', generateRequest(prompt, { stop_conditions: { max_tokens: 1 } }), { instance: home })).error, null)
  for (const router of ['ours-client', 'router']) {
    await until(`${router} learns from the frontend`, async () => {
      const { outputs } = await driver.call(`dynamo.${router}.get_overlap_scores`, { token_ids: prompt })
      return (outputs[0] as OverlapAnswer | undefined)?.workers.some((row) => BigInt(row.worker_id) === home && row.device_blocks === 8)
    }, 30_000)
    const { outputs, error } = await driver.call(`dynamo.${router}.generate`, generateRequest([...prompt, 1]))
    assert.equal(error, null)
    assert.equal(workerOf(outputs), home, router)
  }
  // Over HTTP the same is known.
  const post = async (path: string): Promise<unknown> => parseLossless(await (await fetch(`${url}${path}`, { method: 'POST', body: JSON.stringify({ token_ids: prompt }), signal: AbortSignal.timeout(10_000) })).text())
  const [explained, overlap, best] = [await post('/explain'), await post('/get_overlap_scores'), await post('/best_worker_id')] as [
    { worker_id: bigint; candidates: { worker_id: bigint; device_blocks: number }[] }, OverlapAnswer, { worker_id?: bigint } | bigint,
  ]
  assert.equal(BigInt(explained.worker_id), home)
  assert.deepEqual(explained.candidates.map((each) => each.device_blocks).sort(), [0, 8])
  assert.deepEqual(overlap.workers.map((each) => each.device_blocks).sort(), [0, 8])
  assert.equal(BigInt(typeof best === 'object' ? best.worker_id as bigint : best), home)
  assert.equal(await deployment.stop(frontend), 0)
  assert.equal(deployment.records('instances', 'dynamo/backend/kv_indexer_query').length, 0, 'the record goes with the frontend')
}

/** A router of an earlier release over the same workers: its load is ours too, it is told ours, and its death ends its bookings. */
async function sharesWithOlder(deployment: Deployment, version: OlderVersion, env: NodeJS.ProcessEnv): Promise<void> {
  deployment.mocker('mockers', ['--num-workers', 2, '--num-gpu-blocks-override', 4096, '--speedup-ratio', 0.3], env)
  await deployment.registered('dynamo/backend/generate', 2, undefined, 'mdc')
  const router = await ours(deployment, 'ours-a', sync, env)
  const older = deployment.olderModule(version, 'older', 'dynamo.router', [...sync], env)
  await deployment.registered('dynamo/router/generate', 1, older)
  const driver = await deployment.driver(env)
  await knows(driver, 'ours-a', 2)
  const total = async (): Promise<number> => [...(await counted(router)).values()].reduce((sum, requests) => sum + requests, 0)
  const running = Array.from({ length: 6 }, () => driver.call('dynamo.router.generate',
    generateRequest(randomTokens(random, 64), { stop_conditions: { max_tokens: 100_000, ignore_eos: true } }), { timeoutSeconds: 60, quiet: true }).catch(() => undefined))
  await until('ours counts what the older router carries', async () => await total() === 6, 15_000)
  await until('and speaks to it', () => router.process.log().includes('a router of an earlier release shares its load'))
  await until('its bookings end with it', async () => {
    if (older.child.exitCode === null) deployment.signal(older, 'SIGKILL')
    return await total() === 0
  }, 40_000)
  await Promise.all(running)
}

async function natsEnv(deployment: Deployment): Promise<NodeJS.ProcessEnv> {
  const port = await freePort()
  await startNats(deployment, port)
  return { NATS_SERVER: `nats://127.0.0.1:${port}`, DYN_EVENT_PLANE: 'nats' }
}

export const replicaScenarios: readonly Scenario[] = [
  ...(['1.1.1', '1.3.1'] as const).map((version): Scenario => ({
    name: `replicas-older-${version}`, older: [version], timeoutSeconds: 150, run: async (deployment) => sharesWithOlder(deployment, version, await natsEnv(deployment)),
  })),
  { name: 'replicas-newcomer-and-death', timeoutSeconds: 150, run: learnsAndForgets },
  { name: 'replicas-served-index', timeoutSeconds: 150, run: sharesIndex },
  { name: 'replicas-frontend-index', run: servesFrontendIndex },
  { name: 'replicas-rolling-restart', timeoutSeconds: 150, run: rollingRestart },
  { name: 'replicas-share-load-zmq', timeoutSeconds: 180, run: (deployment) => sharesLoad(deployment) },
  { name: 'replicas-share-load-nats', timeoutSeconds: 180, run: async (deployment) => sharesLoad(deployment, await natsEnv(deployment)) },
]
