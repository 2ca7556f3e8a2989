/** Blocks that are credited to a worker that does not hold them: gone within 2 s of the first sign. */
import assert from 'node:assert/strict'
import { generateRequest, type Deployment, type Driver } from '../deployment.ts'
import { cleared, ScriptedSource, storedPrompt } from '../scripted-source.ts'
import { randomTokens, routerEndpoint, seeded, workerOf, type OverlapAnswer, type Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

const target = ['--endpoint', 'dynamo.backend.generate', '--router-block-size', '16'] as const
const limitMs = 2000

/** Blocks per worker; workers without a row are not in it. */
async function credits(driver: Driver, tokens: readonly number[]): Promise<Map<bigint, number>> {
  const answer = (await driver.call(routerEndpoint.overlapScores, { token_ids: tokens })).outputs[0] as OverlapAnswer | undefined
  return new Map(answer?.workers.map((row) => [BigInt(row.worker_id), row.device_blocks]))
}

const credited = async (driver: Driver, worker: bigint, tokens: readonly number[]): Promise<number> => (await credits(driver, tokens)).get(worker) ?? 0

async function becomes(driver: Driver, worker: bigint, tokens: readonly number[], blocks: number, what: string, timeoutMs = 30_000): Promise<void> {
  const startedMs = Date.now()
  await until(what, async () => await credited(driver, worker, tokens) === blocks, timeoutMs)
  process.stdout.write(`     ${what}: ${Date.now() - startedMs} ms\n`)
}

/** A real engine is killed and started again in place: the dead one's record outlives it, its credit does not. */
async function restartedInPlace(deployment: Deployment): Promise<void> {
  const first = deployment.mocker('first')
  const [old] = await deployment.registered('dynamo/backend/generate', 1, first, 'mdc') as [bigint]
  deployment.mocker('other')
  const ids = await deployment.registered('dynamo/backend/generate', 2, undefined, 'mdc')
  const other = ids.find((id) => id !== old) as bigint
  await deployment.router(target)
  const driver = await deployment.driver()
  const random = seeded(61)
  const [prompt, second] = [randomTokens(random, 80), randomTokens(random, 64)]
  await until('both workers are known', async () => (await credits(driver, prompt)).size === 2, 60_000)
  const warm = (worker: bigint, tokens: readonly number[]) => driver.call('dynamo.backend.generate', generateRequest(tokens, { stop_conditions: { max_tokens: 1 } }), { instance: worker })
  await warm(old, prompt)
  await warm(old, second)
  await becomes(driver, old, prompt, 5, 'the first engine is credited')
  await becomes(driver, old, second, 4, 'also for another prompt')

  deployment.signal(first, 'SIGKILL')
  await first.exited
  deployment.mocker('again')
  const { error, outputs } = await driver.call(routerEndpoint.generate, generateRequest(prompt))
  assert.equal(error, null, 'requests go on')
  assert.equal(workerOf(outputs), other)
  await becomes(driver, old, second, 0, 'after the first failed call the dead engine has no credit', limitMs)
  assert.equal(await credited(driver, old, prompt), 0)
  const [fresh] = await until('the new engine is known', async () => {
    const found = [...(await credits(driver, prompt)).keys()].filter((id) => !ids.includes(id))
    return found.length === 1 && found
  }, 60_000) as [bigint]
  assert.equal(await credited(driver, fresh, prompt), 0, 'it starts cold')
  for (let round = 0; round < 4; round += 1) assert.equal((await driver.call(routerEndpoint.generate, generateRequest(randomTokens(random, 40)))).error, null)
  await until('the dead record ends', async () => !(await credits(driver, prompt)).has(old), 30_000)
  await warm(fresh, second)
  await becomes(driver, fresh, second, 4, 'the new engine is followed')
}

async function withSource(deployment: Deployment, run: (source: ScriptedSource, driver: Driver) => Promise<void>): Promise<void> {
  await deployment.router(target)
  const driver = await deployment.driver()
  const source = await ScriptedSource.start(deployment, 7_000_000_000_000_000_007n)
  try {
    await until('the worker is known', async () => (await credits(driver, [1])).size === 1)
    await run(source, driver)
  } finally {
    await source.close()
  }
}

const prompt = (first: number): number[] => [first, ...randomTokens(seeded(first), 63)]

/** Holds some prompts, told in so many events; the channel carries. */
async function fill(source: ScriptedSource, driver: Driver, prompts: readonly (readonly number[])[]): Promise<void> {
  for (const tokens of prompts) {
    source.publish([storedPrompt(tokens)])
    await becomes(driver, source.id, tokens, 4, 'a prompt is credited')
  }
}

/** One identity, one source, ids from 1: what the engine before held goes with the first event, or with the first answer. */
async function countsAnew(deployment: Deployment): Promise<void> {
  await withSource(deployment, async (source, driver) => {
    const prompts = [prompt(11), prompt(12), prompt(13)]
    await fill(source, driver, prompts)
    source.beginAnew()
    const fresh = prompt(14)
    source.publish([storedPrompt(fresh)])
    for (const tokens of prompts) await becomes(driver, source.id, tokens, 0, 'gone with the first event of the new count', limitMs)
    await becomes(driver, source.id, fresh, 4, 'the new count is followed')
    // Again, and nothing is said: the next question finds it, also when one event was all that the source had told.
    source.beginAnew()
    await becomes(driver, source.id, fresh, 0, 'gone with the answer to the quiet check', 2 * limitMs)
    await fill(source, driver, prompts)
  })
}

/** A cache cleared while nothing else happens; also when that one event is lost. */
async function clearedWhileIdle(deployment: Deployment): Promise<void> {
  await withSource(deployment, async (source, driver) => {
    const [first, second] = [prompt(21), prompt(22)]
    await fill(source, driver, [first])
    source.publish([cleared])
    await becomes(driver, source.id, first, 0, 'gone with the event', limitMs)
    await fill(source, driver, [second])
    source.publish([cleared], true)
    assert.equal(await credited(driver, source.id, second), 4, 'nobody has heard of it')
    await becomes(driver, source.id, second, 0, 'a lost event shows in the quiet check', limitMs + 500)
    await fill(source, driver, [first])
  })
}

/** After a long rest a clear is lost: the first answer that reports less in the cache than was credited is the sign. */
async function clearedAfterRest(deployment: Deployment): Promise<void> {
  await withSource(deployment, async (source, driver) => {
    const tokens = prompt(41)
    await fill(source, driver, [tokens])
    // Each quiet check comes after twice the time of the one before; after the fourth the next is 24 s away.
    const { asked } = source
    await until('the source is asked ever more rarely', () => source.asked >= asked + 4, 50_000)
    const ask = async (): Promise<void> => {
      const { outputs, error } = await driver.call(routerEndpoint.generate, generateRequest(tokens))
      assert.equal(error, null)
      assert.equal(workerOf(outputs), source.id)
    }
    source.cachedTokens = 64
    await ask()
    source.publish([cleared], true)
    assert.equal(await credited(driver, source.id, tokens), 4, 'nobody has heard of it')
    source.cachedTokens = 0
    await ask()
    await becomes(driver, source.id, tokens, 0, 'gone with the first answer that shows it', limitMs)
    await fill(source, driver, [tokens])
  })
}

/** Nobody is called, and the worker is gone: the quiet check reaches nobody. */
async function goneWhileIdle(deployment: Deployment): Promise<void> {
  await withSource(deployment, async (source, driver) => {
    await fill(source, driver, [prompt(31)])
    await source.closePort()
    await becomes(driver, source.id, prompt(31), 0, 'gone when the quiet check reaches nobody', limitMs + 1500)
    assert.equal((await credits(driver, prompt(31))).size, 1, 'its record stands')
  })
}

export const phantomScenarios: readonly Scenario[] = [
  { name: 'phantom-blocks-restart', run: restartedInPlace },
  { name: 'phantom-blocks-new-count', run: countsAnew },
  { name: 'phantom-blocks-cleared', run: clearedWhileIdle },
  { name: 'phantom-blocks-reported', run: clearedAfterRest },
  { name: 'phantom-blocks-gone', run: goneWhileIdle },
]
