/**
 * Ours beside the real router on the same workers: equal choices, equal overlap, also after restarts.
 *
 * Both index the same workers' events; each books what goes through it, so load is made equal by sending the same pinned
 * requests through both.
 */
import assert from 'node:assert/strict'
import { generateRequest, type Deployment, type Driver, type Managed } from '../deployment.ts'
import { randomTokens, routerEndpoint, seeded, workerOf, type OverlapAnswer, type Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

const ours = { generate: 'dynamo.ours.generate', bestWorkerId: 'dynamo.ours.best_worker_id', overlapScores: 'dynamo.ours.get_overlap_scores' } as const
const target = ['--endpoint', 'dynamo.backend.generate', '--router-block-size', '16'] as const

interface Explained {
  readonly worker_id: bigint | number
  readonly candidates: readonly { readonly worker_id: bigint | number; readonly dp_rank: number; readonly cost: number }[]
}

/** Prompts that share prefixes: a few roots, each with branches. */
function promptTree(random: () => number): () => number[] {
  const roots = Array.from({ length: 6 }, () => randomTokens(random, 16 * (4 + Math.floor(random() * 12))))
  const branches = roots.flatMap((root) => Array.from({ length: 5 }, () => [...root, ...randomTokens(random, 16 * (1 + Math.floor(random() * 10)))]))
  return () => {
    const base = branches[Math.floor(random() * branches.length)] as number[]
    const cut = base.slice(0, Math.max(16, Math.floor(random() * base.length)))
    return random() < 0.5 ? [...base, ...randomTokens(random, Math.floor(random() * 40))] : [...cut, ...randomTokens(random, Math.floor(random() * 60))]
  }
}

const overlapOf = async (driver: Driver, endpoint: string, tokens: readonly number[]): Promise<OverlapAnswer> => {
  const result = await driver.call(endpoint, { token_ids: tokens })
  assert.equal(result.error, null)
  return result.outputs[0] as OverlapAnswer
}

/** Waits until the event streams have settled: both routers and two looks in a row agree on a probe. */
async function settled(driver: Driver, probes: readonly (readonly number[])[]): Promise<void> {
  let before = ''
  await until('both indexes settle', async () => {
    const answers = await Promise.all(probes.flatMap((tokens) => [overlapOf(driver, ours.overlapScores, tokens), overlapOf(driver, routerEndpoint.overlapScores, tokens)]))
    const text = JSON.stringify(answers.map((answer) => answer.workers.map((row) => [String(row.worker_id), row.dp_rank, row.device_blocks])))
    const pairsEqual = answers.every((answer, index) => index % 2 === 1 || rowsOf(answer) === rowsOf(answers[index + 1] as OverlapAnswer))
    const isSettled = pairsEqual && text === before
    before = text
    return isSettled
  }, 30_000)
}

const rowsOf = (answer: OverlapAnswer): string =>
  JSON.stringify([answer.block_size, answer.num_blocks, answer.workers.map((row) => [String(row.worker_id), row.dp_rank, row.device_blocks])])

async function explain(port: number, tokens: readonly number[]): Promise<Explained> {
  const response = await fetch(`http://127.0.0.1:${port}/explain?ids=string`, { method: 'POST', body: JSON.stringify(tokens), headers: { 'content-type': 'application/json' } })
  assert.equal(response.status, 200)
  return await response.json() as Explained
}

/** The port that our router printed for its HTTP mirror. */
export const httpPortOf = (router: Managed): Promise<number> =>
  until('the HTTP mirror says its port', () => Number(/http:\/\/127\.0\.0\.1:(\d+)/.exec(router.log())?.[1] ?? 0) || null)

async function equalChoices(deployment: Deployment, workers: number, ranks: number): Promise<void> {
  // Slow outputs: open requests neither end nor evict what others hold while choices are compared.
  deployment.mocker('mockers', ['--num-workers', workers, ...(ranks > 1 ? ['--data-parallel-size', ranks] : []), '--num-gpu-blocks-override', 4096, '--decode-speedup-ratio', 0.02])
  const ids = await deployment.registered('dynamo/backend/generate', workers, undefined, 'mdc')
  const [router] = await Promise.all([
    deployment.router([...target, '--http-port', '0'], { component: 'ours', label: 'ours' }), deployment.realRouter(target),
  ])
  const port = await httpPortOf(router)
  const driver = await deployment.driver()
  const random = seeded(20260101 + workers * 10 + ranks)
  const nextPrompt = promptTree(random)
  const probes = Array.from({ length: 8 }, nextPrompt)
  await until('both routers know every worker', async () =>
    (await overlapOf(driver, ours.overlapScores, probes[0] as number[])).workers.length === workers * ranks &&
    (await overlapOf(driver, routerEndpoint.overlapScores, probes[0] as number[])).workers.length === workers * ranks)
  // Warm the workers alike for both: straight to them.
  const sent: number[][] = []
  for (let count = 0; count < 20 * workers; count += 10) {
    await Promise.all(Array.from({ length: 10 }, () => {
      const rank = Math.floor(random() * ranks)
      // Two blocks of its own: what several workers hold alike would tie.
      const tokens = [...nextPrompt(), ...randomTokens(random, 32)]
      sent.push(tokens)
      const request = generateRequest(tokens, { routing: { dp_rank: rank }, stop_conditions: { max_tokens: 1, ignore_eos: true } })
      return driver.call('dynamo.backend.generate', request, { instance: ids[Math.floor(random() * ids.length)] as bigint, quiet: true })
    }))
  }
  await settled(driver, probes)
  // Mostly prompts that one worker has seen whole: with a prefix that nobody or everybody holds, costs tie.
  const nextQuestion = (): number[] =>
    random() < 0.95 ? [...(sent[Math.floor(random() * sent.length)] as number[]), ...randomTokens(random, Math.floor(random() * 40))] : nextPrompt()
  let untied = 0
  let opened = 0
  let ended = 0
  for (const [round, load] of [0, 8, 32].entries()) {
    for (; opened < load; opened += 1) {
      const request = generateRequest(nextPrompt(), {
        routing: { backend_instance_id: ids[Math.floor(random() * ids.length * 0.7)] as bigint, dp_rank: Math.floor(random() * ranks) },
        stop_conditions: { max_tokens: 20_000, ignore_eos: true },
      })
      for (const endpoint of [ours.generate, routerEndpoint.generate]) {
        await new Promise<void>((resolve) => {
          const whole = driver.call(endpoint, request, { quiet: false, timeoutSeconds: 300, onOutput: () => resolve() })
          void whole.catch(() => undefined).finally(() => { ended += 1; resolve() })
        })
      }
    }
    await settled(driver, probes)
    untied += await compareChoices(driver, port, nextQuestion, round < 2 ? 167 : 166, `${load} open`)
    assert.equal(ended, 0, `requests ended before the choices with ${load} open were compared`)
  }
  assert.ok(untied >= 300, `only ${untied} of 500 prompts were untied`)
  process.stdout.write(`     ${untied} of 500 prompts untied, all equal\n`)
}

/** Compares `count` prompts; gives how many were untied. */
async function compareChoices(driver: Driver, port: number, nextPrompt: () => number[], count: number, label: string): Promise<number> {
  let untied = 0
  for (let index = 0; index < count; index += 1) {
    const tokens = nextPrompt()
    const { candidates } = await explain(port, tokens)
    const least = Math.min(...candidates.map(({ cost }) => cost))
    const best = new Set(candidates.filter(({ cost }) => cost === least).map(({ worker_id: id }) => String(id)))
    if (best.size > 1) continue
    untied += 1
    const [mine, theirs] = await Promise.all([ours.bestWorkerId, routerEndpoint.bestWorkerId].map(async (endpoint) => BigInt((await driver.call(endpoint, tokens)).outputs[0] as bigint | number)))
    assert.equal(mine, theirs, `${label}, prompt ${index} of ${tokens.length} tokens: ${JSON.stringify(candidates.map((row) => [String(row.worker_id), row.dp_rank, row.cost]))}`)
  }
  return untied
}

async function equalOverlap(deployment: Deployment): Promise<void> {
  const before = await deployment.router(target, { component: 'ours', label: 'ours-before' })
  deployment.mocker('mockers', ['--num-workers', 2, '--data-parallel-size', 2, '--num-gpu-blocks-override', 512])
  const ids = await deployment.registered('dynamo/backend/generate', 2, undefined, 'mdc')
  await deployment.realRouter(target)
  const driver = await deployment.driver()
  const random = seeded(77)
  const nextPrompt = promptTree(random)
  const probes = Array.from({ length: 8 }, nextPrompt)
  await until('both routers know every rank', async () =>
    (await overlapOf(driver, ours.overlapScores, probes[0] as number[])).workers.length === 4 &&
    (await overlapOf(driver, routerEndpoint.overlapScores, probes[0] as number[])).workers.length === 4)
  for (let count = 0; count < 80; count += 8) {
    await Promise.all(Array.from({ length: 8 }, () => driver.call('dynamo.backend.generate',
      generateRequest(nextPrompt(), { routing: { dp_rank: Math.floor(random() * 2) }, stop_conditions: { max_tokens: 2, ignore_eos: true } }),
      { instance: ids[Math.floor(random() * 2)] as bigint, quiet: true })))
  }
  await settled(driver, probes)
  const prompts = Array.from({ length: 200 }, nextPrompt)
  const compare = async (label: string): Promise<void> => {
    let partial = 0
    for (const [index, tokens] of prompts.entries()) {
      const [mine, theirs] = await Promise.all([overlapOf(driver, ours.overlapScores, tokens), overlapOf(driver, routerEndpoint.overlapScores, tokens)])
      assert.equal(rowsOf(mine), rowsOf(theirs), `${label}, prompt ${index}`)
      if (mine.workers.some((row) => row.device_blocks > 0 && row.device_blocks < mine.num_blocks)) partial += 1
    }
    assert.ok(partial >= 100, `only ${partial} of 200 prompts overlap in part`)
    process.stdout.write(`     ${label}: 200 prompts equal, ${partial} overlap in part\n`)
  }
  await compare('router started before the workers')
  assert.equal(await deployment.stop(before, 'SIGTERM'), 0, 'drained')
  await until('the record is gone', () => deployment.records('instances', 'dynamo/ours/').length === 0, 5000)
  // A new one knows nothing and has to ask the workers.
  await deployment.router(target, { component: 'ours', label: 'ours-after' })
  await until('the index is recovered', async () => (await driver.instances(ours.overlapScores)).length === 1)
  await until('both routers know every rank', async () => (await overlapOf(driver, ours.overlapScores, probes[0] as number[])).workers.length === 4)
  await settled(driver, probes)
  await compare('router restarted')
}

async function followsTwoSeeds(deployment: Deployment): Promise<void> {
  // Workers that name the same content differently: ours gives each its whole credit.
  for (const seed of [1, 2]) {
    deployment.warmpath(`worker-${seed}`, ['worker', '--endpoint', 'dynamo.backend.generate', '--model-name', 'tiny', '--block-size', 16, '--hash-seed', seed])
  }
  const ids = await deployment.registered('dynamo/backend/generate', 2, undefined, 'mdc')
  await deployment.router(target)
  const driver = await deployment.driver()
  const first = randomTokens(seeded(5), 64)
  const longer = [...first, ...randomTokens(seeded(6), 64)]
  for (const instance of ids) {
    for (const tokens of [first, longer]) {
      const result = await driver.call('dynamo.backend.generate', generateRequest(tokens, { stop_conditions: { max_tokens: 1 } }), { instance })
      assert.equal(result.error, null)
    }
  }
  await until('both workers have all 8 blocks', async () => {
    const scores = await overlapOf(driver, routerEndpoint.overlapScores, longer)
    return scores.workers.length === 2 && scores.workers.every((row) => row.device_blocks === 8)
  })
  assert.ok(ids.includes(workerOf((await driver.call(routerEndpoint.generate, generateRequest(longer))).outputs)))
}

export const equalityScenarios: readonly Scenario[] = [
  { name: 'equality-choices-2-workers', timeoutSeconds: 240, run: (deployment) => equalChoices(deployment, 2, 2) },
  { name: 'equality-choices-8-workers', timeoutSeconds: 400, run: (deployment) => equalChoices(deployment, 8, 2) },
  { name: 'equality-overlap-and-recovery', timeoutSeconds: 180, run: equalOverlap },
  { name: 'equality-two-hash-seeds', run: followsTwoSeeds },
]
