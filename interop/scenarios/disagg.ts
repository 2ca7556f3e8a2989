/** Two stages inside our router, over real mockers and scripted workers of every flavour. */
import assert from 'node:assert/strict'
import { generateRequest, type Deployment, type Driver, type WorkerEvent } from '../deployment.ts'
import { routerEndpoint, workerOf, type OutputMap, type Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

const target = ['--endpoint', 'dynamo.backend.generate', '--prefill-endpoint', 'dynamo.prefill.generate'] as const
const prompt = Array.from({ length: 96 }, (_, index) => (index * 7) % 500)
const ask = generateRequest(prompt, { stop_conditions: { max_tokens: 6, ignore_eos: true } })

const lengthOf = (outputs: readonly unknown[]): number => (outputs as OutputMap[]).reduce((sum, output) => sum + output.token_ids.length, 0)

/** Waits until a request really takes both stages. */
async function twoStages(driver: Driver): Promise<{ readonly prefill: bigint; readonly decode: bigint; readonly outputs: readonly unknown[] }> {
  return until('a request takes both stages', async () => {
    const { outputs, error } = await driver.call(routerEndpoint.generate, ask)
    if (error !== null) return null
    const worker = (outputs[0] as OutputMap).routing_data?.worker_id
    if (worker === undefined) return null
    const [prefill, decode] = [BigInt(worker.prefill_worker_id), BigInt(worker.decode_worker_id)]
    return prefill === decode ? null : { prefill, decode, outputs }
  }, 60_000)
}

async function realMockers(deployment: Deployment, more: readonly string[]): Promise<void> {
  deployment.mocker('prefill', ['--disaggregation-mode', 'prefill', '--num-workers', 2, ...more, ...(more.includes('sglang') ? ['--bootstrap-ports', `${19000 + (process.pid % 500) * 2},${19001 + (process.pid % 500) * 2}`] : [])])
  deployment.mocker('decode', ['--disaggregation-mode', 'decode', '--num-workers', 2, ...more])
  const prefills = await deployment.registered('dynamo/prefill/generate', 2, undefined, 'mdc')
  const decoders = await deployment.registered('dynamo/backend/generate', 2, undefined, 'mdc')
  await deployment.router(target)
  const driver = await deployment.driver()
  const { prefill, decode, outputs } = await twoStages(driver)
  assert.ok(prefills.includes(prefill) && decoders.includes(decode))
  assert.equal(lengthOf(outputs), 6)
  // The prompt is warm where it was computed.
  await until('the prefill index follows', async () => {
    const { outputs: again } = await driver.call(routerEndpoint.generate, ask)
    return ((again.at(-1) as OutputMap).routing_data?.timing?.['kv_hit_rate'] ?? 0) > 0
  })
  const answers = await Promise.all(Array.from({ length: 40 }, (_, index) => driver.call(routerEndpoint.generate, generateRequest([...prompt, index], { stop_conditions: { max_tokens: 6, ignore_eos: true } }))))
  for (const { outputs: each, error } of answers) {
    assert.equal(error, null)
    assert.equal(lengthOf(each), 6)
    const worker = (each[0] as OutputMap).routing_data?.worker_id
    assert.ok(prefills.includes(BigInt(worker?.prefill_worker_id ?? 0)), 'each request takes both stages')
  }
}

const requestOf = (events: readonly WorkerEvent[]): Record<string, unknown> => (events.filter((event) => event.ev === 'request').at(-1) as unknown as { request: Record<string, unknown> }).request
const outputOf = (events: readonly WorkerEvent[]): Record<string, unknown> => (events.filter((event) => event.ev === 'chunk').at(-1) as unknown as { output: Record<string, unknown> }).output

async function flavours(deployment: Deployment): Promise<void> {
  for (const flavour of ['vllm', 'trtllm', 'sglang', 'sglang-advertised'] as const) {
    const namespace = flavour.replace('-', '')
    const kind = flavour.startsWith('sglang') ? 'sglang' : flavour
    const prefill = await deployment.worker(`p-${flavour}`, [
      '--role', 'prefill', '--flavour', kind, '--endpoint', `${namespace}.prefill.generate`, '--dp-size', '2',
      ...(flavour === 'sglang-advertised' ? ['--bootstrap-host', '127.0.0.1', '--bootstrap-port', '8998'] : []),
    ])
    const decode = await deployment.worker(`d-${flavour}`, ['--role', 'decode', '--flavour', kind, '--endpoint', `${namespace}.backend.generate`])
    await deployment.router(['--endpoint', `${namespace}.backend.generate`, '--prefill-endpoint', `${namespace}.prefill.generate`], { label: `r-${flavour}`, namespace })
    const driver = await deployment.driver()
    const outputs = await until(`${flavour}: both stages`, async () => {
      const { outputs: values, error } = await driver.call(`${namespace}.router.generate`, ask)
      return error === null && prefill.events().some((event) => event.ev === 'request') && workerOf(values) === decode.id && values
    })
    assert.equal(lengthOf(outputs), 6, flavour)
    const request = requestOf(decode.events())
    const routing = request['routing'] as Record<string, unknown>
    assert.equal(BigInt(routing['prefill_worker_id'] as bigint), prefill.id, flavour)
    if (kind === 'sglang') {
      const info = request['bootstrap_info'] as Record<string, unknown>
      const left = requestOf(prefill.events())
      if (flavour === 'sglang-advertised') {
        assert.deepEqual(info, left['bootstrap_info'])
        assert.equal(BigInt(info['bootstrap_room'] as bigint) % 2n, BigInt((left['routing'] as Record<string, number>)['dp_rank'] as number))
      } else {
        const handed = outputOf(prefill.events())['disaggregated_params'] as Record<string, unknown>
        assert.equal(info['bootstrap_room'], handed['bootstrap_room'])
      }
    } else {
      const handed = outputOf(prefill.events())['disaggregated_params']
      assert.deepEqual((request['prefill_result'] as Record<string, unknown>)['disaggregated_params'], handed, `${flavour}: verbatim`)
    }
  }
}

async function prefillDies(deployment: Deployment): Promise<void> {
  const prefill = await deployment.worker('p0', ['--role', 'prefill', '--endpoint', 'dynamo.prefill.generate'])
  const decode = await deployment.worker('d0', ['--role', 'decode'])
  const router = await deployment.router(target)
  const driver = await deployment.driver()
  await twoStages(driver)
  deployment.signal(prefill.process, 'SIGKILL')
  for (let round = 0; round < 10; round += 1) {
    const { outputs, error } = await driver.call(routerEndpoint.generate, ask, { timeoutSeconds: 30 })
    assert.equal(error, null, 'decode-only answers, not errors')
    assert.equal(workerOf(outputs), decode.id)
  }
  await until('the log says what became of the prompts', () => router.log().includes('the decode worker computes the prompt itself'))
  await deployment.worker('p1', ['--role', 'prefill', '--endpoint', 'dynamo.prefill.generate'])
  await twoStages(driver)
}

async function decodeDies(deployment: Deployment): Promise<void> {
  await deployment.worker('p0', ['--role', 'prefill', '--endpoint', 'dynamo.prefill.generate'])
  const decoders = await Promise.all(['d0', 'd1'].map((label) => deployment.worker(label, ['--role', 'decode', '--fail', 'exit-after:2', '--fail-first', '1'])))
  await deployment.router([...target, '--migration-limit', '3'])
  const driver = await deployment.driver()
  await until('the router knows all', async () => (await driver.call(routerEndpoint.overlapScores, { token_ids: prompt })).outputs.length === 1 && deployment.records('mdc', 'dynamo/backend/generate').length === 2)
  // Each decode worker dies once: the stream goes on on the other as long as one is left.
  const { outputs, error } = await driver.call(routerEndpoint.generate, generateRequest(prompt, { stop_conditions: { max_tokens: 3, ignore_eos: true } }), { timeoutSeconds: 60 })
  const seen = decoders.flatMap((worker) => worker.events().filter((event) => event.ev === 'request')) as unknown as { request: { token_ids: number[]; stop_conditions: { max_tokens: number } } }[]
  assert.ok(seen.some(({ request }) => request.token_ids.length === prompt.length + 2 && request.stop_conditions.max_tokens === 1), 'the tokens so far are behind the prompt')
  assert.equal(error, null)
  assert.equal(lengthOf(outputs), 3)
}

export const disaggScenarios: readonly Scenario[] = [
  { name: 'disagg-mockers-vllm', timeoutSeconds: 150, run: (deployment) => realMockers(deployment, []) },
  { name: 'disagg-mockers-sglang', timeoutSeconds: 150, run: (deployment) => realMockers(deployment, ['--engine-type', 'sglang']) },
  { name: 'disagg-flavours', timeoutSeconds: 150, run: flavours },
  { name: 'disagg-prefill-dies', timeoutSeconds: 150, run: prefillDies },
  { name: 'disagg-decode-dies', timeoutSeconds: 150, run: decodeDies },
]
