/** Workers made with the worker SDK under the real router, the real frontend and the real Python client; its client before real Python workers. */
import assert from 'node:assert/strict'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stripVTControlCharacters } from 'node:util'
import { ConnectionTimeout, Context, createRuntime, DynamoError, InvalidArgument, type Client, type WireValue } from '../../src/worker.ts'
import { freePort, generateRequest, type Deployment, type Driver, type Managed, type WorkerEvent } from '../deployment.ts'
import { randomTokens, routerEndpoint, seeded, workerOf, type OutputMap, type OverlapAnswer, type Scenario } from '../scenario.ts'
import type { SdkWorkerSettings } from '../sdk-worker.ts'
import { until } from '../../test/until.ts'

const script = join(dirname(dirname(fileURLToPath(import.meta.url))), 'sdk-worker.js')
const target = ['--endpoint', 'dynamo.backend.generate', '--router-block-size', '16'] as const

interface SdkWorker {
  readonly process: Managed
  readonly id: bigint
  events(): WorkerEvent[]
}

async function sdkWorker(deployment: Deployment, label: string, settings: Partial<SdkWorkerSettings> = {}, env: NodeJS.ProcessEnv = {}): Promise<SdkWorker> {
  const all: SdkWorkerSettings = { endpoint: 'dynamo.backend.generate', role: 'aggregated', modelPath: deployment.dynamo.modelPath, ...settings }
  const process_ = deployment.spawn(label, process.execPath, [script, JSON.stringify(all)], { DYN_GRACEFUL_SHUTDOWN_GRACE_PERIOD_SECS: '1', ...env })
  const events = (): WorkerEvent[] => process_.log().split('\n').filter((line) => line.startsWith('{"ev"')).map((line) => JSON.parse(line) as WorkerEvent)
  const ready = await until(`${label} is ready`, () => {
    if (process_.child.exitCode !== null) throw new Error(`${label} ended with ${process_.child.exitCode}: ${process_.log().slice(-1500)}`)
    return events().find((event) => event.ev === 'ready')
  })
  return { process: process_, id: BigInt(ready['instance_id'] as string), events }
}

/** Rows of a router's overlap scores, as `worker/rank` to blocks, without zeros. */
async function scores(driver: Driver, tokens: readonly number[]): Promise<Record<string, number>> {
  const answer = (await driver.call(routerEndpoint.overlapScores, { token_ids: tokens })).outputs[0] as OverlapAnswer | undefined
  return Object.fromEntries((answer?.workers ?? []).filter((row) => row.device_blocks > 0).map((row) => [`${BigInt(row.worker_id)}/${row.dp_rank}`, row.device_blocks]))
}

async function scoresBecome(driver: Driver, tokens: readonly number[], expected: Record<string, number>, what: string): Promise<void> {
  let seen: Record<string, number> = {}
  await until(what, async () => {
    seen = await scores(driver, tokens)
    return JSON.stringify(Object.entries(seen).sort()) === JSON.stringify(Object.entries(expected).sort())
  }).catch((error: unknown) => { throw new Error(`${what}: expected ${JSON.stringify(expected)}, the router says ${JSON.stringify(seen)}`, { cause: error }) })
}

async function underRealRouter(deployment: Deployment): Promise<void> {
  const workers = await Promise.all(['a', 'b'].map((label) => sdkWorker(deployment, label, { kv: true, dpSize: 2 })))
  const router = await deployment.realRouter(target)
  const driver = await deployment.driver()
  const random = seeded(5)
  const [first, second] = workers as [SdkWorker, SdkWorker]
  await until('the router knows both workers', async () => {
    const answer = (await driver.call(routerEndpoint.overlapScores, { token_ids: [1] })).outputs[0] as OverlapAnswer | undefined
    return answer?.workers.length === 4
  })
  // Routed: the second request goes where the first one was.
  const prompt = randomTokens(random, 80)
  const cold = await driver.call(routerEndpoint.generate, generateRequest(prompt))
  assert.equal(cold.error, null)
  const warm = workerOf(cold.outputs)
  const rankOf = (outputs: readonly unknown[]): number => (outputs[0] as OutputMap).routing_data?.worker_id?.decode_dp_rank ?? -1
  await scoresBecome(driver, prompt, { [`${warm}/${rankOf(cold.outputs)}`]: 5 }, 'the prompt is known')
  for (let round = 0; round < 3; round += 1) {
    const again = await driver.call(routerEndpoint.generate, generateRequest(prompt))
    assert.deepEqual([workerOf(again.outputs), rankOf(again.outputs)], [warm, rankOf(cold.outputs)])
    const usage = (again.outputs.at(-1) as { completion_usage: { prompt_tokens_details: { cached_tokens: number } } }).completion_usage
    assert.equal(usage.prompt_tokens_details.cached_tokens, 80, 'a cache hit')
  }
  // Placed by hand: every rank holds what it was given, minus what it dropped.
  const other = randomTokens(random, 64)
  const direct = (worker: SdkWorker, dpRank: number, tokens: readonly number[], extra?: Record<string, unknown>) =>
    driver.call('dynamo.backend.generate', generateRequest(tokens, { routing: { dp_rank: dpRank }, ...(extra === undefined ? {} : { extra_args: extra }) }), { instance: worker.id })
  await direct(first, 0, other)
  await direct(first, 1, other.slice(0, 32))
  await direct(second, 1, [...other, ...randomTokens(random, 32)])
  await scoresBecome(driver, other, { [`${first.id}/0`]: 4, [`${first.id}/1`]: 2, [`${second.id}/1`]: 4 }, 'what three ranks hold')
  await direct(first, 0, other, { drop: 1 })
  await scoresBecome(driver, other, { [`${first.id}/0`]: 3, [`${first.id}/1`]: 2, [`${second.id}/1`]: 4 }, 'a dropped block')
  await direct(second, 1, other, { clear: true })
  const held = { [`${first.id}/0`]: 3, [`${first.id}/1`]: 2 }
  await scoresBecome(driver, other, held, 'a cleared rank')
  // A router started late asks the workers for it all.
  const routers = (): bigint[] => deployment.records('instances', 'dynamo/router/generate').map(({ value }) => BigInt(value['instance_id'] as bigint))
  const killed = routers()
  deployment.signal(router, 'SIGKILL')
  await router.exited
  const late = await deployment.realRouter(target, 'late-router')
  await until('the late router answers', async () => Object.keys(await scores(driver, other)).length > 0)
  await scoresBecome(driver, other, held, 'the late router recovers the index')
  const home = `${warm}/${rankOf(cold.outputs)}`
  await scoresBecome(driver, prompt, home === `${second.id}/1` ? {} : { [home]: 5 }, 'and the first prompt')
  assert.equal(late.child.exitCode, null)
  // The record of the killed router stands until it expires.
  const lateId = routers().find((id) => !killed.includes(id))
  assert.ok(lateId !== undefined)
  await drainsUnderLoad(deployment, driver, lateId, [first, second])
}

/** SIGTERM for one of two workers while requests come without pause through the real router. */
async function drainsUnderLoad(deployment: Deployment, driver: Driver, router: bigint, [first, second]: readonly [SdkWorker, SdkWorker]): Promise<void> {
  let stopped = false
  const failed: string[] = []
  let givenUp = 0
  const random = seeded(9)
  const load = Promise.all(Array.from({ length: 6 }, async () => {
    while (!stopped) {
      const request = generateRequest(randomTokens(random, 40), { stop_conditions: { max_tokens: 20 } })
      const first = await driver.call(routerEndpoint.generate, request, { instance: router })
      // The original's router gives up requests without a prologue when their worker's record goes, and tries nobody else.
      const isGivenUp = (first.error?.message ?? '').includes('disconnected before response stream was established')
      if (isGivenUp) givenUp += 1
      const { error, outputCount } = isGivenUp ? await driver.call(routerEndpoint.generate, request, { instance: router }) : first
      if (error !== null || outputCount !== 20) failed.push(error?.message ?? `${outputCount} outputs`)
    }
  }))
  const [base, other] = [requestsOf(first).length, requestsOf(second).length]
  await until('both workers work', () => requestsOf(first).length > base + 4 && requestsOf(second).length > other + 4)
  assert.equal(await deployment.stop(first.process, 'SIGTERM', 30_000), 0)
  const atEnd = requestsOf(second).length
  await until('the other worker goes on', () => requestsOf(second).length > atEnd + 6)
  stopped = true
  await load
  assert.deepEqual(failed, [])
  const unfinished = requestsOf(first).length - first.events().filter((event) => event.ev === 'done').length
  assert.ok(unfinished <= givenUp, `it finished all that it took, but for ${unfinished}; the router gave up ${givenUp}`)
}

/** Chat requests until `stop`; gives the answers that were not as they should be. */
async function chatLoad(port: number, streams: number, stop: () => boolean): Promise<{ done: number; bad: string[] }> {
  const bad: string[] = []
  let done = 0
  await Promise.all(Array.from({ length: streams }, async (_, stream) => {
    for (let round = 0; !stop(); round += 1) {
      const isStream = (stream + round) % 2 === 0
      const { status, body } = await chat(port, { messages: [{ role: 'user', content: `the river and the town ${stream} ${round}` }], max_tokens: 30, stream: isStream })
      if (status !== 200 || (isStream ? !body.trimEnd().endsWith('data: [DONE]') || body.includes('"error"') : !body.includes('"finish_reason":"length"'))) bad.push(`${status} ${body.slice(-300)}`)
      done += 1
    }
  }))
  return { done, bad }
}

async function chat(port: number, request: Record<string, unknown>): Promise<{ status: number; body: string }> {
  const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ model: 'tiny', ...request }), signal: AbortSignal.timeout(30_000),
  })
  return { status: response.status, body: await response.text() }
}

async function realFrontend(deployment: Deployment, args: readonly (string | number)[] = []): Promise<{ port: number; frontend: Managed }> {
  const port = await freePort()
  const frontend = deployment.module('frontend', 'dynamo.frontend', ['--http-port', port, ...args])
  await until('the first answer', async () => {
    if (frontend.child.exitCode !== null) throw new Error(`the frontend ended: ${frontend.log().slice(-1000)}`)
    return chat(port, { messages: [{ role: 'user', content: 'warm up' }], max_tokens: 2 }).then(({ status }) => status === 200, () => false)
  }, 60_000)
  return { port, frontend }
}

const modelsOf = async (port: number): Promise<string[]> =>
  ((await (await fetch(`http://127.0.0.1:${port}/v1/models`, { signal: AbortSignal.timeout(5000) })).json()) as { data: { id: string }[] }).data.map(({ id }) => id).sort()

const requestsOf = (worker: SdkWorker): WorkerEvent[] => worker.events().filter((event) => event.ev === 'request')

async function underRealFrontend(deployment: Deployment): Promise<void> {
  const prefill = await sdkWorker(deployment, 'prefill', { endpoint: 'dynamo.prefill.generate', role: 'prefill', kv: true })
  const decode = await Promise.all(['d0', 'd1'].map((label) => sdkWorker(deployment, label, { endpoint: 'dynamo.decode.generate', role: 'decode', delayMs: 10 })))
  // When a record goes, the original's frontend gives up requests to it that have no prologue yet, and tries them again if it may.
  const { port, frontend } = await realFrontend(deployment, ['--router-mode', 'kv', '--migration-limit', '3'])
  const [first, second] = decode as [SdkWorker, SdkWorker]
  await until('the prompt is computed in the prefill worker', async () => {
    await chat(port, { messages: [{ role: 'user', content: 'is it two stages now' }], max_tokens: 2 })
    return requestsOf(prefill).length > 0
  })
  const handed = await until('a decode worker got the hand-over', () => decode.flatMap(requestsOf).find((event) => event['prefillResult'] !== null))
  const { disaggregated_params: params } = handed['prefillResult'] as { disaggregated_params: { kv_transfer_params: { remote_engine_id: string } } }
  assert.equal(params.kv_transfer_params.remote_engine_id, prefill.id.toString(16))
  // One of two decode workers is drained under load.
  let stopped = false
  const load = chatLoad(port, 6, () => stopped)
  await until('both decode workers work', () => requestsOf(first).length > 4 && requestsOf(second).length > 4)
  const code = await deployment.stop(first.process, 'SIGTERM', 30_000)
  assert.equal(code, 0)
  assert.ok(first.events().some((event) => event.ev === 'ended'), 'an orderly end')
  const before = requestsOf(second).length
  await until('the other worker goes on', () => requestsOf(second).length > before + 6)
  stopped = true
  const { done, bad } = await load
  assert.deepEqual(bad, [], `${done} requests`)
  const givenUp = [...stripVTControlCharacters(frontend.log()).matchAll(/Cancelled stream registrations.*? cancelled=(\d+)/g)].reduce((sum, [, count]) => sum + Number(count), 0)
  const unfinished = requestsOf(first).length - first.events().filter((event) => event.ev === 'done').length
  assert.ok(unfinished <= givenUp, `the drained worker finished all that it took, but for ${unfinished}; the frontend gave up ${givenUp}`)
}

async function bootstrapUnderRealFrontend(deployment: Deployment): Promise<void> {
  const bootstrapPort = await freePort()
  const prefill = await sdkWorker(deployment, 'prefill', { endpoint: 'dynamo.prefill.generate', role: 'prefill', kv: true, bootstrapPort })
  const decode = await sdkWorker(deployment, 'decode', { endpoint: 'dynamo.decode.generate', role: 'decode' })
  const { port } = await realFrontend(deployment, ['--router-mode', 'kv'])
  const pair = await until('both legs share a room', async () => {
    assert.equal((await chat(port, { messages: [{ role: 'user', content: 'meet in a room' }], max_tokens: 3 })).status, 200)
    const legs = [requestsOf(prefill).at(-1), requestsOf(decode).at(-1)].map((event) => event?.['bootstrap'] as { bootstrap_room: string; bootstrap_port: number } | null | undefined)
    return legs[0] != null && legs[1] != null && legs
  })
  assert.equal(String(pair[0]?.bootstrap_room), String(pair[1]?.bootstrap_room))
  assert.equal(pair[1]?.bootstrap_port, bootstrapPort)
}

async function besidePythonWorkers(deployment: Deployment): Promise<void> {
  const python = await deployment.worker('python')
  const own = await sdkWorker(deployment, 'own', { plainCard: true })
  const { port, frontend } = await realFrontend(deployment, ['--router-mode', 'round-robin'])
  await until('both workers of one endpoint get requests', async () => {
    assert.equal((await chat(port, { messages: [{ role: 'user', content: 'who answers' }], max_tokens: 2 })).status, 200)
    return requestsOf(own).length > 1 && python.events().filter((event) => event.ev === 'request').length > 1
  })
  assert.doesNotMatch(frontend.log(), /incompatible/i, 'the cards have one checksum')
}

async function adaptersAndTaints(deployment: Deployment): Promise<void> {
  const [first, second] = await Promise.all(['a', 'b'].map((label) => sdkWorker(deployment, label, { kv: true }))) as [SdkWorker, SdkWorker]
  const { port } = await realFrontend(deployment, ['--router-mode', 'kv'])
  const driver = await deployment.driver()
  const tell = (worker: SdkWorker, extra: Record<string, unknown>) =>
    driver.call('dynamo.backend.generate', generateRequest([1, 2], { extra_args: extra }), { instance: worker.id })
  assert.deepEqual(await modelsOf(port), ['tiny'])
  assert.equal((await tell(first, { lora: 'Style One' })).error, null)
  await until('the frontend lists the adapter', async () => (await modelsOf(port)).includes('Style One'))
  const answer = await until('the adapter answers', async () => {
    const { status, body } = await chat(port, { model: 'Style One', messages: [{ role: 'user', content: 'in style' }], max_tokens: 2 })
    return status === 200 && body
  })
  assert.match(answer, /"model":"Style One"/)
  assert.ok([first, second].flatMap(requestsOf).some((event) => event['lora'] === 'Style One'), 'the worker is told the adapter')
  assert.equal((await tell(first, { lora: '-Style One' })).error, null)
  await until('the adapter is gone', async () => !(await modelsOf(port)).includes('Style One'))
  // Taints, changed while the worker runs, decide who may be chosen.
  await deployment.realRouter(target)
  const tainted = (): Promise<{ worker: bigint | null; message: string }> =>
    driver.call(routerEndpoint.generate, generateRequest(randomTokens(seeded(3), 40), { routing: { routing_constraints: { required_taints: ['blue'] } } }))
      .then(({ outputs, error }) => ({ worker: outputs.length > 0 ? workerOf(outputs) : null, message: error?.message ?? '' }))
  await until('nobody is blue', async () => /no endpoints|No worker|not|unavailable/i.test((await tainted()).message))
  assert.equal((await tell(second, { taints: ['blue', 'green'] })).error, null)
  for (let round = 0; round < 4; round += 1) await until('the blue worker is chosen', async () => (await tainted()).worker === second.id)
}

async function calledByPython(deployment: Deployment): Promise<void> {
  const workers = await Promise.all(['a', 'b'].map((label) => sdkWorker(deployment, label, { delayMs: 20 }))) as [SdkWorker, SdkWorker]
  const driver = await deployment.driver()
  await until('both are known', async () => (await driver.instances('dynamo.backend.generate')).length === 2)
  for (let round = 0; round < 4; round += 1) assert.equal((await driver.call('dynamo.backend.generate', generateRequest([1, 2, 3]))).outputCount, 4)
  assert.deepEqual(workers.map((worker) => requestsOf(worker).length), [2, 2], 'in turn')
  const [first] = workers
  await driver.call('dynamo.backend.generate', generateRequest([1]), { instance: first.id, contextId: 'abc-1', metadata: { tenant: 'blue' } })
  const seen = requestsOf(first).at(-1)
  assert.deepEqual([seen?.['id'], seen?.['metadata']], ['abc-1', { tenant: 'blue' }])
  const long = generateRequest([1], { stop_conditions: { max_tokens: 500 } })
  for (const [count, option, killed] of [[1, { cancelAfter: 2 }, false], [2, { dropAfter: 2 }, true]] as const) {
    await driver.call('dynamo.backend.generate', long, { instance: first.id, ...option })
    const heard = await until(`cancel ${count} is heard`, () => {
      const all = first.events().filter((event) => event.ev === 'cancelled')
      return all.length === count && all
    })
    assert.deepEqual([heard.at(-1)?.['killed'], (heard.at(-1)?.['i'] as number) < 60], [killed, true])
  }
  // Errors come to Python's client as those of Python's own workers do.
  const python = await deployment.worker('python', ['--fail', 'typed', '--endpoint', 'dynamo.python.generate'])
  for (const name of ['InvalidArgument', 'EngineShutdown', 'TypeError'] as const) {
    const request = generateRequest([1], { extra_args: { raise: name } })
    const own = await driver.call('dynamo.backend.generate', request, { instance: first.id })
    const real = await driver.call('dynamo.python.generate', request, { instance: python.id })
    assert.match(own.error?.message ?? 'no error', new RegExp(`${name} on purpose`))
    assert.deepEqual([own.outputCount, own.error], [real.outputCount, real.error], name)
  }
  for (const [name, message] of [['HttpError', /HttpError on purpose.*422/], ['Error', /^(Internal|Unknown): .*Error on purpose/]] as const) {
    assert.match((await driver.call('dynamo.backend.generate', generateRequest([1], { extra_args: { raise: name } }), { instance: first.id })).error?.message ?? 'no error', message)
  }
}

const tokensOf = async (stream: AsyncIterable<WireValue>): Promise<number[]> => {
  const tokens: number[] = []
  for await (const item of stream) tokens.push(...((item as { token_ids?: number[] }).token_ids ?? []))
  return tokens
}

async function callsPythonWorkers(deployment: Deployment): Promise<void> {
  const [first, second] = await Promise.all(['a', 'b'].map((label) => deployment.worker(label, ['--delay', '0.03']))) as [Awaited<ReturnType<Deployment['worker']>>, Awaited<ReturnType<Deployment['worker']>>]
  const runtime = await createRuntime({ env: { ...deployment.env, DYN_LOG: 'warn' } })
  try {
    const client = await runtime.endpoint('dynamo.backend.generate').client()
    await until('both are known', () => client.instanceIds().length === 2)
    const asked = (worker: typeof first): WorkerEvent[] => worker.events().filter((event) => event.ev === 'request')
    const request = generateRequest([1, 2, 3]) as { [name: string]: WireValue }
    for (let round = 0; round < 4; round += 1) assert.equal((await tokensOf(await client.roundRobin(request))).length, 4)
    assert.deepEqual([asked(first).length, asked(second).length], [2, 2], 'in turn')
    for (let round = 0; round < 12; round += 1) await tokensOf(await client.random({ ...request, stop_conditions: { max_tokens: 1 } }))
    assert.equal(asked(first).length + asked(second).length, 16)
    const context = new Context({ id: 'own-id', metadata: { tenant: 'blue' } })
    assert.equal((await tokensOf(await client.direct(request, second.id, { context }))).length, 4)
    const seen = asked(second).at(-1) as unknown as { ctx_id: string; metadata: Record<string, string> }
    assert.deepEqual([seen.ctx_id, seen.metadata], ['own-id', { tenant: 'blue' }])
    await endsCalls(client, first)
    await assert.rejects(client.direct(request, 77n), (error: unknown) => error instanceof DynamoError && error.failure.class === 'Unavailable' && /instance_id=77 not found/.test(error.message))
    await seesFailures(deployment, client)
  } finally {
    await runtime.shutdown()
  }
}

/** Stop, kill, leaving and an aborted signal reach the worker, each as what it is. */
async function endsCalls(client: Client, worker: Awaited<ReturnType<Deployment['worker']>>): Promise<void> {
  const long = generateRequest([1], { stop_conditions: { max_tokens: 400 } }) as { [name: string]: WireValue }
  const ways: readonly (readonly [string, (stream: Awaited<ReturnType<Client['direct']>>, end: AbortController) => void, boolean])[] = [
    ['stop', (stream) => stream.stop(), false], ['context', (stream) => stream.context.stopGenerating(), false],
    ['kill', (stream) => stream.kill(), true], ['signal', (_stream, end) => end.abort(), true], ['leave', () => {}, true],
  ]
  for (const [index, [name, act, killed]] of ways.entries()) {
    const end = new AbortController()
    const stream = await client.direct(long, worker.id, { signal: end.signal })
    let items = 0
    try {
      for await (const _item of stream) {
        items += 1
        if (items === 2) act(stream, end)
        if (items === 2 && name === 'leave') break
      }
    } catch (error) {
      assert.ok(error instanceof DynamoError, `${name}: ${String(error)}`)
    }
    const heard = await until(`the worker hears of ${name}`, () => {
      const all = worker.events().filter((event) => event.ev === 'cancelled')
      return all.length === index + 1 && all
    }, 10_000)
    assert.equal(heard.at(-1)?.['killed'], killed, name)
    assert.ok(items < 100, name)
  }
}

async function seesFailures(deployment: Deployment, client: Client): Promise<void> {
  const request = (raise: string): { [name: string]: WireValue } => generateRequest([1], { extra_args: { raise } }) as { [name: string]: WireValue }
  const typed = await deployment.worker('typed', ['--fail', 'typed'])
  await until('the typed worker is known', () => client.instanceIds().includes(typed.id))
  for (const [name, kind, failureClass] of [['InvalidArgument', InvalidArgument, 'InvalidRequest'], ['ValueError', InvalidArgument, 'InvalidRequest'], ['TimeoutError', ConnectionTimeout, 'DeadlineExceeded'],
    ['EngineShutdown', DynamoError, 'Unavailable'], ['RuntimeError', DynamoError, 'Internal']] as const) {
    await assert.rejects(client.direct(request(name), typed.id).then(tokensOf), (error: unknown) => error instanceof kind && error.failure.class === failureClass && error.message.includes(`${name} on purpose`), name)
  }
  const dying = await deployment.worker('dying', ['--fail', 'exit-after:2'])
  await until('the dying worker is known', () => client.instanceIds().includes(dying.id))
  await assert.rejects(client.direct(request('x'), dying.id).then(tokensOf), (error: unknown) => error instanceof DynamoError && error.failure.class === 'Unavailable')
}

export const sdkScenarios: readonly Scenario[] = [
  { name: 'sdk-real-router', run: underRealRouter },
  { name: 'sdk-real-frontend', run: underRealFrontend },
  { name: 'sdk-real-frontend-bootstrap', run: bootstrapUnderRealFrontend },
  { name: 'sdk-beside-python', run: besidePythonWorkers },
  { name: 'sdk-adapters-taints', run: adaptersAndTaints },
  { name: 'sdk-python-client', run: calledByPython },
  { name: 'sdk-calls-python', run: callsPythonWorkers },
]
