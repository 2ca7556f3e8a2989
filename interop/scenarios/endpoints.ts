/** The three endpoints through the real Python client: streaming, codecs, identity, cancel, errors. */
import assert from 'node:assert/strict'
import { generateRequest, type Deployment, type Driver, type WorkerEvent } from '../deployment.ts'
import { routerEndpoint, workerOf, type OutputMap, type OverlapAnswer, type Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

const target = ['--endpoint', 'dynamo.backend.generate', '--router-block-size', '16'] as const
const prompt = Array.from({ length: 64 }, (_, index) => 100 + index)

async function streamsFromMockers(deployment: Deployment): Promise<void> {
  deployment.mocker('mockers', ['--num-workers', 2])
  const ids = await deployment.registered('dynamo/backend/generate', 2, undefined, 'mdc')
  await deployment.router(target)
  const driver = await deployment.driver()
  assert.deepEqual((await driver.instances(routerEndpoint.generate)).length <= 1, true)
  const { outputs, error } = await driver.call(routerEndpoint.generate, generateRequest(prompt, { stop_conditions: { max_tokens: 6, ignore_eos: true } }))
  assert.equal(error, null)
  const maps = outputs as OutputMap[]
  assert.equal(maps.reduce((sum, output) => sum + output.token_ids.length, 0), 6)
  assert.ok(ids.includes(workerOf(outputs)), 'the named worker is one of the mockers')
  assert.equal(maps.filter((output) => output.routing_data?.worker_id !== undefined).length, 1)
  const last = maps.at(-1) as OutputMap
  assert.equal(last.finish_reason, 'length')
  for (const name of ['request_received_ms', 'prefill_wait_time_ms', 'prefill_time_ms', 'ttft_ms', 'total_time_ms', 'kv_hit_rate', 'router_queue_depth']) {
    assert.equal(typeof last.routing_data?.timing?.[name], 'number', `timing.${name}`)
  }
  // The same prompt again goes where its blocks now are.
  await until('the index follows the worker', async () => {
    const scores = (await driver.call(routerEndpoint.overlapScores, { token_ids: prompt })).outputs[0] as OverlapAnswer
    return scores.workers.some((row) => row.device_blocks === 4)
  })
  const warm = workerOf(outputs)
  for (let round = 0; round < 5; round += 1) {
    assert.equal(workerOf((await driver.call(routerEndpoint.generate, generateRequest(prompt))).outputs), warm)
    assert.equal(BigInt((await driver.call(routerEndpoint.bestWorkerId, prompt)).outputs[0] as bigint), warm)
    assert.equal(BigInt((await driver.call(routerEndpoint.bestWorkerId, { token_ids: prompt })).outputs[0] as bigint), warm)
  }
  const scores = (await driver.call(routerEndpoint.overlapScores, { token_ids: [...prompt.slice(0, 32), ...Array.from({ length: 40 }, () => 7)] })).outputs[0] as OverlapAnswer
  assert.equal(scores.block_size, 16)
  assert.equal(scores.num_blocks, 4)
  assert.deepEqual(scores.workers.map((row) => BigInt(row.worker_id)), ids)
  assert.deepEqual(scores.workers.map((row) => row.device_blocks), ids.map((id) => (id === warm ? 2 : 0)))
}

async function keepsIdentity(deployment: Deployment): Promise<void> {
  const worker = await deployment.worker('w0')
  await deployment.router(target)
  const driver = await deployment.driver()
  const { error } = await driver.call(routerEndpoint.generate, generateRequest(prompt, { zzz: { deep: [1, 2n ** 63n] }, extra_args: { a: 1 } }), {
    contextId: '11111111-2222-3333-4444-555555555555', metadata: { tenant: 'blue', 'x-trace': 'é' },
  })
  assert.equal(error, null)
  const seen = requestsOf(worker.events())[0] as unknown as { ctx_id: string; metadata: Record<string, string>; request: Record<string, unknown> }
  assert.equal(seen.ctx_id, '11111111-2222-3333-4444-555555555555')
  assert.deepEqual(seen.metadata, { tenant: 'blue', 'x-trace': 'é' })
  assert.deepEqual(seen.request['zzz'], { deep: [1, 2n ** 63n] })
  assert.deepEqual(seen.request['extra_args'], { a: 1 })
  assert.deepEqual(seen.request['routing'], { dp_rank: 0 })
  // The least that a caller may send; what older workers insist on is added.
  assert.equal((await driver.call(routerEndpoint.generate, { token_ids: prompt })).error, null)
  const least = (requestsOf(worker.events())[1] as unknown as { request: Record<string, unknown> }).request
  assert.equal(least['model'], 'unknown')
  for (const name of ['stop_conditions', 'sampling_options', 'output_options', 'eos_token_ids', 'annotations']) assert.ok(name in least, name)
  const query = await driver.call(routerEndpoint.generate, generateRequest(prompt, { annotations: ['query_instance_id:'] }))
  assert.equal(query.outputCount, 1)
  assert.equal(workerOf(query.outputs), worker.id)
  assert.deepEqual((query.outputs[0] as { routing_data: { token_ids: number[] } }).routing_data.token_ids, prompt)
  assert.equal(requestsOf(worker.events()).length, 2, 'a query is not sent to a worker')
}

const requestsOf = (events: readonly WorkerEvent[]): WorkerEvent[] => events.filter((event) => event.ev === 'request')

async function cancels(deployment: Deployment): Promise<void> {
  const worker = await deployment.worker('w0', ['--delay', '0.05', '--num-tokens', '400'])
  await deployment.router(target)
  const driver = await deployment.driver()
  const long = generateRequest(prompt, { stop_conditions: { max_tokens: 400 } })
  for (const [count, option] of [[1, { cancelAfter: 2 }], [2, { dropAfter: 2 }]] as const) {
    await driver.call(routerEndpoint.generate, long, option)
    const cancelled = await until(`the worker hears of cancel ${count}`, () => {
      const heard = worker.events().filter((event) => event.ev === 'cancelled')
      return heard.length === count && heard
    }, 5000)
    assert.ok((cancelled.at(-1)?.['i'] as number) < 50)
  }
}

/** What the caller must see for each way a worker can fail; `migratable` classes are Unavailable. */
const failures: readonly { readonly mode: string; readonly outputs: number; readonly message: RegExp }[] = [
  { mode: 'raise', outputs: 0, message: /^(Internal|Unknown|Backend).*scripted failure in/ },
  { mode: 'raise-after:2', outputs: 2, message: /^(Internal|Unknown|Backend).*scripted failure in/ },
  { mode: 'value-error', outputs: 0, message: /^InvalidRequest.*scripted bad request/ },
  { mode: 'exit-after:2', outputs: 2, message: /^Unavailable: / },
  { mode: 'exit', outputs: 0, message: /^Unavailable: / },
]

async function relaysErrors(deployment: Deployment): Promise<void> {
  await deployment.router(target)
  const driver = await deployment.driver()
  const none = await driver.call(routerEndpoint.generate, generateRequest(prompt))
  assert.match(none.error?.message ?? '', /^Unavailable: .*no endpoints available to route work/)
  for (const { mode, outputs, message } of failures) {
    const label = mode.replace(':', '-')
    const worker = await deployment.worker(label, ['--fail', mode])
    await ready(driver, worker.id)
    const result = await driver.call(routerEndpoint.generate, generateRequest(prompt, { stop_conditions: { max_tokens: 6 } }))
    assert.equal(result.outputCount, outputs, mode)
    assert.match(result.error?.message ?? '', message, mode)
    if (worker.process.child.exitCode === null) await deployment.stop(worker.process, 'SIGTERM')
    await until(`${mode}: the record goes`, () => deployment.records('instances', 'dynamo/backend/generate').length === 0, 30_000)
  }
  const finish = await deployment.worker('finish', ['--fail', 'error-finish'])
  await ready(driver, finish.id)
  const relayed = await driver.call(routerEndpoint.generate, generateRequest(prompt))
  assert.equal(relayed.error, null)
  assert.deepEqual((relayed.outputs[0] as OutputMap).finish_reason, { error: 'scripted engine error in finish' })
}

/** Exceptions of each class; the caller must see through the router what it sees from the worker itself. */
const exceptions = [
  'RuntimeError', 'KeyError', 'ValueError', 'TypeError', 'TimeoutError', 'ConnectionError', 'Cancelled', 'CannotConnect', 'ConnectionTimeout', 'Disconnected',
  'EngineShutdown', 'InvalidArgument', 'StreamIncomplete', 'Unknown', 'WorkerUnavailable',
]

async function keepsErrorClasses(deployment: Deployment): Promise<void> {
  const worker = await deployment.worker('typed', ['--fail', 'typed'])
  await deployment.router(target)
  const driver = await deployment.driver()
  await ready(driver, worker.id)
  const classes = new Set<string>()
  for (const name of exceptions) {
    const request = generateRequest(prompt, { extra_args: { raise: name } })
    const direct = await driver.call('dynamo.backend.generate', request, { instance: worker.id })
    const routed = await driver.call(routerEndpoint.generate, request)
    const classOf = (result: typeof direct): string => (result.error?.message ?? 'none').split(':')[0] as string
    assert.equal(routed.outputCount, 1, name)
    assert.match(routed.error?.message ?? '', new RegExp(`${name} on purpose`), name)
    // A worker that says it is unavailable is told as such, but in words that do not make the caller set the router aside.
    const expected = { WorkerUnavailable: 'CannotConnect' }[classOf(direct)] ?? classOf(direct)
    assert.ok([classOf(direct), expected].includes(classOf(routed)), `${name}: ${direct.error?.message} through the router: ${routed.error?.message}`)
    classes.add(classOf(routed))
  }
  assert.ok(classes.size >= 5, [...classes].join(', '))
}

/** Waits until the router can choose the worker. */
export async function ready(driver: Driver, id: bigint): Promise<void> {
  await until(`the router knows worker ${id}`, async () => {
    const scores = (await driver.call(routerEndpoint.overlapScores, { token_ids: prompt })).outputs[0] as OverlapAnswer | undefined
    return scores?.workers.some((row) => BigInt(row.worker_id) === id)
  })
}

async function refusesBadInput(deployment: Deployment): Promise<void> {
  const worker = await deployment.worker('w0')
  await deployment.router(target)
  const driver = await deployment.driver()
  await ready(driver, worker.id)
  const cases: readonly (readonly [unknown, RegExp])[] = [
    [{ model: 'tiny' }, /missing field `token_ids`/],
    [{ token_ids: 'abc' }, /`token_ids`.*expected a sequence of token ids/],
    [{ token_ids: [-1, 2] }, /token_ids\[0\]/],
    [{ token_ids: prompt, model: null }, /`model` is null/],
    [[1, 2, 3], /expected a map/],
    [generateRequest(prompt, { routing: { backend_instance_id: 12345 } }), /12345.*does not identify a known worker/],
    [generateRequest(prompt, { routing: { backend_instance_id: worker.id, dp_rank: 7 } }), /outside \[0, 1\)/],
    [generateRequest(prompt, { routing: { allowed_worker_ids: [1] } }), /no endpoints available to route work/],
    [generateRequest(prompt, { routing: { routing_constraints: { required_taints: ['nope'] } } }), /no endpoints available to route work/],
    [generateRequest(prompt, { router_config_override: { overlap_score_credit: -1 } }), /overlap_score_credit/],
  ]
  for (const [payload, message] of cases) {
    const { error } = await driver.call(routerEndpoint.generate, payload)
    assert.match(error?.message ?? 'no error', message)
  }
  assert.match((await driver.call(routerEndpoint.overlapScores, {})).error?.message ?? '', /token_ids/)
  assert.equal((await driver.call(routerEndpoint.generate, generateRequest(prompt))).error, null, 'and goes on')
}

export const endpointScenarios: readonly Scenario[] = [
  { name: 'endpoints-mockers', run: streamsFromMockers },
  { name: 'endpoints-json-codec', env: { DYN_REQUEST_PLANE_CODEC: 'json' }, run: streamsFromMockers },
  { name: 'endpoints-identity', run: keepsIdentity },
  { name: 'endpoints-cancel', run: cancels },
  { name: 'endpoints-errors', run: relaysErrors },
  { name: 'endpoints-error-classes', run: keepsErrorClasses },
  { name: 'endpoints-bad-input', run: refusesBadInput },
]
