/** State on disk: a router in approximate mode restarts warm; files that cannot be used are refused. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { generateRequest, type Deployment, type Driver } from '../deployment.ts'
import { routerEndpoint, workerOf, type OverlapAnswer, type Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

const prompts = Array.from({ length: 6 }, (_, index) => Array.from({ length: 64 }, (_each, position) => (index * 64 + position) % 500))

const held = async (driver: Driver): Promise<Map<string, string>> => {
  const found = new Map<string, string>()
  for (const tokens of prompts) {
    const answer = (await driver.call(routerEndpoint.overlapScores, { token_ids: tokens })).outputs[0] as OverlapAnswer | undefined
    found.set(String(tokens[0]), (answer?.workers ?? []).filter((row) => row.device_blocks > 0).map((row) => `${row.worker_id}:${row.device_blocks}`).join())
  }
  return found
}

async function restartsWarm(deployment: Deployment): Promise<void> {
  const folder = join(deployment.folder, 'state')
  const path = join(folder, 'dynamo.backend.generate.state')
  const start = (label: string, more: readonly string[] = []) =>
    deployment.router(['--endpoint', 'dynamo.backend.generate', '--router-block-size', '16', '--no-router-kv-events', '--state-dir', folder, ...more], { label })
  deployment.mocker('mockers', ['--num-workers', 2])
  let router = await start('first')
  const driver = await deployment.driver()
  await until('both workers are known', async () => ((await driver.call(routerEndpoint.overlapScores, { token_ids: [1] })).outputs[0] as OverlapAnswer | undefined)?.workers.length === 2, 60_000)
  const chosen = new Map<number, bigint>()
  for (const [index, tokens] of prompts.entries()) chosen.set(index, workerOf((await driver.call(routerEndpoint.generate, generateRequest(tokens))).outputs))
  const before = await held(driver)
  assert.ok([...before.values()].every((row) => /^\d+:4$/.test(row)), 'each prompt is on one worker')
  assert.equal(await deployment.stop(router), 0)

  router = await start('second')
  await until('the same is known again', async () => JSON.stringify([...await held(driver)]) === JSON.stringify([...before]), 20_000)
  for (const [index, tokens] of prompts.entries()) assert.equal(workerOf((await driver.call(routerEndpoint.generate, generateRequest(tokens))).outputs), chosen.get(index))
  assert.equal(await deployment.stop(router), 0)

  const whole = readFileSync(path)
  const wrong: readonly [string, () => void, RegExp][] = [
    ['torn', () => writeFileSync(path, whole.subarray(0, whole.length - 20)), /it is torn/], ['foreign', () => writeFileSync(path, 'something else\n'), /not a file of this program/],
    ['newer', () => writeFileSync(path, Buffer.concat([Buffer.from('warmpath-state 9\n'), whole.subarray(17)])), /version 9/],
  ]
  for (const [label, spoil, message] of wrong) {
    spoil()
    router = await start(label)
    await until(`it says what is wrong: ${label}`, () => message.test(router.log()))
    assert.ok([...(await held(driver)).values()].every((row) => row === ''), 'it starts empty')
    assert.equal(await deployment.stop(router), 0)
  }
  writeFileSync(path, whole)
  await start('reset', ['--router-reset-states'])
  assert.ok(!existsSync(path))
  assert.ok([...(await held(driver)).values()].every((row) => row === ''))
}

export const stateScenarios: readonly Scenario[] = [{ name: 'state-dir', timeoutSeconds: 180, run: restartsWarm }]
