/** Several routers over the same workers: load that each holds is seen by all, ours and Dynamo's, on both event planes. */
import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import { freePort, generateRequest, until, type Deployment, type Driver, type Managed } from '../deployment.ts'
import { randomTokens, seeded, workerOf, type OverlapAnswer, type Scenario } from '../scenario.ts'
import { startNats } from './planes.ts'

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

async function natsEnv(deployment: Deployment): Promise<NodeJS.ProcessEnv> {
  const port = await freePort()
  await startNats(deployment, port)
  return { NATS_SERVER: `nats://127.0.0.1:${port}`, DYN_EVENT_PLANE: 'nats' }
}

export const replicaScenarios: readonly Scenario[] = [
  { name: 'replicas-share-load-zmq', timeoutSeconds: 180, run: (deployment) => sharesLoad(deployment) },
  { name: 'replicas-share-load-nats', timeoutSeconds: 180, run: async (deployment) => sharesLoad(deployment, await natsEnv(deployment)) },
]
