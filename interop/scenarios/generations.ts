/** Workers, clients, routers and frontends of Dynamo 1.1, 1.3 and 1.6 in one deployment with ours. */
import assert from 'node:assert/strict'
import { generateRequest, until, type Deployment, type Driver } from '../deployment.ts'
import type { OlderVersion } from '../dynamo-venv.ts'
import { randomTokens, routerEndpoint, seeded, workerOf, type OutputMap, type OverlapAnswer, type Scenario } from '../scenario.ts'

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

/** Two workers each of the given releases: what each holds is what our index says, live, and asked for by a router that comes late. */
async function indexesWorkers(deployment: Deployment, versions: readonly (OlderVersion | '1.6.1')[]): Promise<void> {
  for (const [index, version] of versions.entries()) {
    if (version === '1.6.1') deployment.mocker(`worker-${index}`)
    else deployment.olderMocker(version, `worker-${index}`)
  }
  const ids = await deployment.registered('dynamo/backend/generate', versions.length, undefined, 'mdc')
  const first = await deployment.router(target)
  const driver = await deployment.driver()
  await knows(driver, ids.length)
  const sent = prompts(11, 8 * ids.length).map((tokens, index) => ({ tokens, worker: ids[index % ids.length] as bigint }))
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
  const second = await deployment.router(target, { label: 'router-late' })
  await knows(driver, ids.length)
  await until('a router that comes late holds it too', isEqual, 20_000)
  assert.doesNotMatch(second.log(), /indexed approximately/)
}

export const generationScenarios: readonly Scenario[] = [
  { name: 'generations-workers-1.1', older: ['1.1.1'], run: (deployment) => indexesWorkers(deployment, ['1.1.1', '1.1.1']) },
  { name: 'generations-workers-1.3', older: ['1.3.1'], run: (deployment) => indexesWorkers(deployment, ['1.3.1', '1.3.1']) },
  { name: 'generations-workers-mixed', older: ['1.1.1', '1.3.1'], run: (deployment) => indexesWorkers(deployment, ['1.1.1', '1.3.1', '1.6.1']) },
]
