/** Requests that wait: ours and the real router let the same burst go in the same order, and refuse the same requests. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { generateRequest, type CallResult, type Deployment, type Driver, type WorkerEvent } from '../deployment.ts'
import { randomTokens, seeded, workerOf, type OutputMap, type Scenario } from '../scenario.ts'
import { ready } from './endpoints.ts'
import { until } from '../../test/until.ts'

const policy = `
default_policy_family: std
uncached_isl_buckets:
  - {min_tokens: 0, bucket: small}
  - {min_tokens: 64, bucket: large}
policy_classes:
  - {name: std-small, policy_family: std, cache_bucket: small, quantum: 64, prefill_busy_threshold: 0}
  - {name: std-large, policy_family: std, cache_bucket: large, quantum: 32, queue_policy: wspt, prefill_busy_threshold: 0, request_queue_limit_per_worker: 3}
  - {name: vip, quantum: 128}
`

/** A request of the burst: prompt length, priority jump, strict priority. Each length once: it names the request at the worker. */
const burst: readonly (readonly [isl: number, jump: number, strict: number])[] = [
  [40, 0, 0], [100, 0, 0], [48, 100, 0], [90, 0, 1], [200, 0, 0], [70, 9, 0], [30, 0, 0], [20, 0, 2],
]
const fillerLength = 64

/** Prompt lengths in the order in which they reached the worker. */
const arrivals = (events: readonly WorkerEvent[]): number[] =>
  events.filter(({ ev }) => ev === 'request').map(({ request }) => (request as { token_ids: readonly number[] }).token_ids.length)

/** Sends a filler and the burst through a router; the order in which they reached the worker, and the answers. */
async function sendBurst(driver: Driver, endpoint: string, events: () => WorkerEvent[]): Promise<{ order: number[]; answers: CallResult[] }> {
  const random = seeded(7)
  const before = events().length
  const send = (isl: number, routing: Record<string, unknown>, metadata: Record<string, string> = {}): Promise<CallResult> =>
    driver.call(endpoint, generateRequest(randomTokens(random, isl), { routing, stop_conditions: { max_tokens: 2, ignore_eos: true } }), { timeoutSeconds: 60, metadata })
  const filler = send(fillerLength, {})
  await until('the filler is at the worker', () => arrivals(events().slice(before)).length === 1)
  const answers: Promise<CallResult>[] = []
  for (const [isl, jump, strict] of burst) {
    answers.push(send(isl, { priority_jump: jump, strict_priority: strict }))
    // The order of arrival is part of the case.
    await delay(40)
  }
  assert.equal(arrivals(events().slice(before)).length, 1, 'all wait while the filler is computed')
  assert.equal((await filler).error, null)
  const settled = await Promise.all(answers)
  return { order: arrivals(events().slice(before)), answers: settled }
}

/** A class without a threshold never waits, whoever else does. */
async function classByName(driver: Driver, endpoint: string, events: () => WorkerEvent[]): Promise<void> {
  const before = events().length
  const call = (isl: number, metadata: Record<string, string>): Promise<CallResult> =>
    driver.call(endpoint, generateRequest(randomTokens(seeded(isl), isl), { stop_conditions: { max_tokens: 2, ignore_eos: true } }), { timeoutSeconds: 60, metadata })
  const first = call(50, {})
  await until('the first is at the worker', () => arrivals(events().slice(before)).length === 1)
  const waiting = call(51, {})
  await delay(40)
  const vip = await call(52, { 'policy-class': 'vip' })
  for (const { error } of [vip, await first, await waiting]) assert.equal(error, null)
  assert.deepEqual(arrivals(events().slice(before)), [50, 52, 51])
}

async function sameOrder(deployment: Deployment): Promise<void> {
  const file = join(deployment.folder, 'policy.yaml')
  writeFileSync(file, policy)
  const worker = await deployment.worker('w0', ['--fail', 'slow:0.8'])
  const args = ['--endpoint', 'dynamo.backend.generate', '--router-block-size', 16, '--router-policy-config', file, '--no-router-kv-events']
  await Promise.all([deployment.router(args, { component: 'ours', label: 'ours' }), deployment.realRouter(args)])
  const driver = await deployment.driver()
  await ready(driver, worker.id)
  const real = await sendBurst(driver, 'dynamo.router.generate', worker.events)
  const ours = await sendBurst(driver, 'dynamo.ours.generate', worker.events)
  assert.equal(real.order.length, burst.length, 'one of the burst is refused')
  assert.deepEqual(ours.order, real.order)
  // The real one's wrapper in Python makes every refusal an internal error; the words are the same.
  const refusals = (answers: readonly CallResult[]): unknown[] => answers.map(({ error }) => error?.message.replace(/^.*router policy/, 'router policy') ?? null)
  assert.deepEqual(refusals(ours.answers), refusals(real.answers), 'refusals')
  for (const { outputs } of ours.answers.filter(({ error }) => error === null)) assert.equal(workerOf(outputs), worker.id)
  const depths = (answers: readonly CallResult[]): unknown[] => answers.map(({ outputs }) => (outputs.at(-1) as OutputMap | undefined)?.routing_data?.timing?.['router_queue_depth'])
  assert.deepEqual(depths(ours.answers), depths(real.answers), 'queue depths')
  await classByName(driver, 'dynamo.ours.generate', worker.events)
}

export const queueScenarios: readonly Scenario[] = [
  { name: 'queue: a burst goes in the order of the real router', timeoutSeconds: 120, run: sameOrder },
]
