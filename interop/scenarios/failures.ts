/** Workers that die, hang or lie about their block size. */
import assert from 'node:assert/strict'
import { generateRequest, type Deployment } from '../deployment.ts'
import { routerEndpoint, workerOf, type OutputMap, type OverlapAnswer, type Scenario } from '../scenario.ts'
import { ready } from './endpoints.ts'
import { until } from '../../test/until.ts'

const target = ['--endpoint', 'dynamo.backend.generate', '--router-block-size', '16'] as const
const prompt = Array.from({ length: 48 }, (_, index) => 200 + index)
const long = { stop_conditions: { max_tokens: 60, ignore_eos: true } }

/** The worker that has the request, by the log that it writes itself. */
async function holderOf<Worker extends { events(): readonly { readonly ev: string }[] }>(workers: readonly Worker[]): Promise<Worker> {
  return until('a worker has the request', () => workers.find((worker) => worker.events().some((event) => event.ev === 'request')))
}

async function killBeforeFirstOutput(deployment: Deployment): Promise<void> {
  // Each hangs on its first request only: whoever is chosen is killed, the other one answers.
  const workers = await Promise.all(['w0', 'w1'].map((label) => deployment.worker(label, ['--fail', 'slow:600', '--fail-first', '1'])))
  await deployment.router(target)
  const driver = await deployment.driver()
  for (const { id } of workers) await ready(driver, id)
  const answer = driver.call(routerEndpoint.generate, generateRequest(prompt), { timeoutSeconds: 60 })
  const victim = await holderOf(workers)
  const other = workers.find((worker) => worker !== victim) as (typeof workers)[number]
  // The other one's slow first request is used up straight away.
  void driver.call('dynamo.backend.generate', generateRequest(prompt), { instance: other.id, timeoutSeconds: 2, quiet: true })
  await holderOf([other])
  deployment.signal(victim.process, 'SIGKILL')
  const { outputs, error } = await answer
  assert.equal(error, null, 'retried on the other worker')
  assert.equal(workerOf(outputs), other.id)
  // And the dead one is not chosen again.
  for (let round = 0; round < 5; round += 1) assert.equal(workerOf((await driver.call(routerEndpoint.generate, generateRequest(prompt))).outputs), other.id)
}

async function killMidStream(deployment: Deployment): Promise<void> {
  const workers = await Promise.all(['w0', 'w1'].map((label) => deployment.worker(label, ['--delay', '0.1'])))
  await deployment.router(target)
  const driver = await deployment.driver()
  for (const { id } of workers) await ready(driver, id)
  let outputs = 0
  const answer = driver.call(routerEndpoint.generate, generateRequest(prompt, long), { timeoutSeconds: 60, onOutput: () => { outputs += 1 } })
  await until('three outputs', () => outputs >= 3)
  const victim = await holderOf(workers)
  deployment.signal(victim.process, 'SIGKILL')
  const { error, outputCount } = await answer
  assert.ok(outputCount >= 3)
  assert.match(error?.message ?? '', /^Unavailable: .*Stream ended before generation completed/, 'Unavailable, never InvalidRequest')
  assert.equal((await driver.call(routerEndpoint.generate, generateRequest(prompt))).error, null)
}

async function stopBeforeFirstOutput(deployment: Deployment): Promise<void> {
  const workers = await Promise.all(['w0', 'w1'].map((label) => deployment.worker(label)))
  await deployment.router([...target, '--first-output-timeout', '3'])
  const driver = await deployment.driver()
  for (const { id } of workers) await ready(driver, id)
  const victim = workers[0] as (typeof workers)[number]
  deployment.signal(victim.process, 'SIGSTOP')
  // Enough requests that the stopped one is chosen by some; all must be answered by the other.
  const answers = await Promise.all(Array.from({ length: 8 }, (_, index) =>
    driver.call(routerEndpoint.generate, generateRequest([...prompt, index]), { timeoutSeconds: 60 })))
  assert.deepEqual(answers.map(({ error }) => error), answers.map(() => null))
  deployment.signal(victim.process, 'SIGCONT')
}

async function stopMidStream(deployment: Deployment): Promise<void> {
  const worker = await deployment.worker('w0', ['--delay', '0.1'])
  await deployment.router([...target, '--output-timeout', '2'])
  const driver = await deployment.driver()
  await ready(driver, worker.id)
  let outputs = 0
  const answer = driver.call(routerEndpoint.generate, generateRequest(prompt, long), { timeoutSeconds: 60, onOutput: () => { outputs += 1 } })
  await until('three outputs', () => outputs >= 3)
  deployment.signal(worker.process, 'SIGSTOP')
  const { error, elapsedSeconds } = await answer
  assert.match(error?.message ?? '', /^DeadlineExceeded: .*--output-timeout/)
  assert.ok(elapsedSeconds < 10, `${elapsedSeconds} s`)
  deployment.signal(worker.process, 'SIGCONT')
}

async function wrongBlockSize(deployment: Deployment): Promise<void> {
  deployment.mocker('mocker')
  await deployment.registered('dynamo/backend/generate', 1, undefined, 'mdc')
  const lenient = await deployment.router(['--endpoint', 'dynamo.backend.generate', '--router-block-size', '64'], { component: 'lenient', label: 'lenient' })
  const driver = await deployment.driver()
  await until('the loud line', () => /BLOCK SIZE MISMATCH.*16.*64/.test(lenient.log()), 15_000)
  assert.equal((await driver.call('dynamo.lenient.generate', generateRequest(prompt))).error, null)
  await until('overlap counts all the same', async () => {
    const scores = (await driver.call('dynamo.lenient.get_overlap_scores', { token_ids: prompt })).outputs[0] as OverlapAnswer
    return scores.block_size === 16 && scores.workers[0]?.device_blocks === 3
  })
  const strict = await deployment.router(['--endpoint', 'dynamo.backend.generate', '--router-block-size', '64', '--strict-block-size'], { component: 'strict', label: 'strict' })
  await until('the excluded worker is named', () => /excluded.*16.*64/.test(strict.log()), 15_000)
  assert.match((await driver.call('dynamo.strict.generate', generateRequest(prompt))).error?.message ?? '', /^Unavailable: .*no endpoints available/)
}

async function blockSizeFromCards(deployment: Deployment): Promise<void> {
  const router = await deployment.router(['--endpoint', 'dynamo.backend.generate'])
  const driver = await deployment.driver()
  const cardless = await deployment.worker('cardless', ['--no-register'])
  await until('the worker without a card is refused by name', () => router.log().includes(`${cardless.id}`) && /set --router-block-size/.test(router.log()), 20_000)
  deployment.mocker('mocker', ['--block-size', 32])
  await deployment.registered('dynamo/backend/generate', 1, undefined, 'mdc')
  await until('the size comes from the card', async () => {
    const scores = (await driver.call(routerEndpoint.overlapScores, { token_ids: prompt })).outputs[0] as OverlapAnswer | undefined
    return scores?.block_size === 32 && scores.workers.length === 1
  })
}

async function withoutCard(deployment: Deployment): Promise<void> {
  const worker = await deployment.worker('w0', ['--no-register'])
  await deployment.router(target)
  const driver = await deployment.driver()
  await ready(driver, worker.id)
  const { outputs, error } = await driver.call(routerEndpoint.generate, generateRequest(prompt))
  assert.equal(error, null)
  assert.equal(workerOf(outputs), worker.id)
}

async function drains(deployment: Deployment): Promise<void> {
  const worker = await deployment.worker('w0', ['--delay', '0.05'])
  const router = await deployment.router(target)
  const driver = await deployment.driver()
  await ready(driver, worker.id)
  let outputs = 0
  const answer = driver.call(routerEndpoint.generate, generateRequest(prompt, long), { timeoutSeconds: 60, onOutput: () => { outputs += 1 } })
  await until('the stream runs', () => outputs >= 3)
  const code = deployment.stop(router, 'SIGTERM', 30_000)
  await until('the record is removed at once', () => deployment.records('instances', 'dynamo/router/').length === 0, 3000)
  const { outputs: all, error } = await answer
  assert.equal(error, null, 'the open stream finishes')
  assert.equal((all as OutputMap[]).reduce((sum, output) => sum + output.token_ids.length, 0), 60)
  assert.equal(await code, 0)
}

export const failureScenarios: readonly Scenario[] = [
  { name: 'failure-kill-before-output', run: killBeforeFirstOutput },
  { name: 'failure-kill-mid-stream', run: killMidStream },
  { name: 'failure-stop-before-output', run: stopBeforeFirstOutput },
  { name: 'failure-stop-mid-stream', run: stopMidStream },
  { name: 'failure-wrong-block-size', run: wrongBlockSize },
  { name: 'failure-block-size-from-cards', run: blockSizeFromCards },
  { name: 'failure-worker-without-card', run: withoutCard },
  { name: 'failure-drain', run: drains },
]
