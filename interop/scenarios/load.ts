/**
 * Many streams through our frontend while prefill and decode workers are killed, stopped, sent away and added at random: no error, no request
 * without an end, nothing booked afterwards. `npm run interop -- load` runs `WARMPATH_LOAD_SECONDS` (300) with `WARMPATH_LOAD_STREAMS` (200) streams;
 * the default suite a short form.
 */
import assert from 'node:assert/strict'
import { setTimeout as delay } from 'node:timers/promises'
import { Agent, request } from 'undici'
import { freePort, type Deployment, type Managed } from '../deployment.ts'
import { seeded, type Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

type Stage = 'prefill' | 'decode'

const componentOf = (stage: Stage): string => (stage === 'prefill' ? 'prefill' : 'backend')

interface LoadWorker {
  readonly process: Managed
  readonly stage: Stage
  state: 'running' | 'stopped' | 'gone'
}

interface LoadOptions {
  readonly seconds: number
  readonly streams: number
  /** Between two changes of workers. */
  readonly changeMs: number
}

/** Per stage; at least one of them runs at any time. */
const workersMin = 2
const workersMax = 4

class Pools {
  readonly #deployment: Deployment
  readonly #random: () => number
  readonly #workers: LoadWorker[] = []
  readonly counts = { mockers: 0, added: 0, killed: 0, stopped: 0, left: 0 }
  #next = 0

  constructor(deployment: Deployment, random: () => number) {
    this.#deployment = deployment
    this.#random = random
  }

  /** Resolves when it is in discovery. Two of four are real mockers. */
  async add(stage: Stage): Promise<void> {
    const number = this.#next++
    const isReal = number % 4 >= 2
    const label = `${stage}-${number}`
    const before = new Set(this.#ids(componentOf(stage)))
    const process = isReal ? this.#mocker(label, stage) : this.#worker(label, stage)
    if (isReal) this.counts.mockers += 1
    await until(`${label} is there`, () => {
      if (process.child.exitCode !== null) throw new Error(`${label} ended: ${process.log().slice(-800)}`)
      return this.#ids(componentOf(stage)).some((id) => !before.has(id))
    }, 60_000)
    this.#workers.push({ process, stage, state: 'running' })
  }

  #mocker(label: string, stage: Stage): Managed {
    return this.#deployment.mocker(label, ['--disaggregation-mode', stage, '--endpoint', `dyn://dynamo.${componentOf(stage)}.generate`, '--max-num-seqs', 512, '--speedup-ratio', stage === 'prefill' ? 10 : 1], { DYN_LOG: 'warn' })
  }

  #worker(label: string, stage: Stage): Managed {
    return this.#deployment.warmpath(label, [
      'worker', '--role', stage, '--endpoint', `dynamo.${componentOf(stage)}.generate`, '--model-path', this.#deployment.dynamo.modelPath, '--model-name', 'tiny',
      '--decode-ms-per-token', 80, '--decode-ms-per-sequence', 0, '--prefill-ms-per-token', 0.02, '--max-num-seqs', 512,
    ], { DYN_LOG: 'warn', DYN_SYSTEM_PORT: '-1' })
  }

  #ids(component: string): string[] {
    return this.#deployment.records('mdc', `dynamo/${component}/generate`).map(({ key }) => key)
  }

  #of(stage: Stage, state: LoadWorker['state']): LoadWorker[] {
    return this.#workers.filter((worker) => worker.stage === stage && worker.state === state)
  }

  /** One change of a kind and a pool by chance, such that a worker of each stage goes on. */
  async change(): Promise<void> {
    const stage: Stage = this.#random() < 0.5 ? 'prefill' : 'decode'
    const running = this.#of(stage, 'running')
    const stopped = this.#of(stage, 'stopped')
    const victim = running[Math.floor(this.#random() * running.length)]
    const dice = this.#random()
    if (running.length + stopped.length < workersMin || running.length < 2 || (dice < 0.3 && running.length + stopped.length < workersMax)) {
      this.counts.added += 1
      return this.add(stage)
    }
    if (victim === undefined) return
    if (dice < 0.6) {
      this.counts.killed += 1
      victim.state = 'gone'
      this.#deployment.signal(victim.process, 'SIGKILL')
    } else if (dice < 0.85) {
      this.counts.stopped += 1
      victim.state = 'stopped'
      this.#deployment.signal(victim.process, 'SIGSTOP')
      const pauseMs = 500 + this.#random() * 6000
      void delay(pauseMs).then(() => {
        if (victim.state !== 'stopped') return
        this.#deployment.signal(victim.process, 'SIGCONT')
        victim.state = 'running'
      })
    } else {
      this.counts.left += 1
      victim.state = 'gone'
      this.#deployment.signal(victim.process, 'SIGTERM')
    }
  }
}

const words = ['river', 'town', 'bridge', 'light', 'morning', 'water', 'street', 'harbour']

interface Outcomes {
  done: number
  tokens: number
  readonly faults: string[]
  readonly durationsMs: number[]
}

/** One stream: whole, or a fault is noted. */
async function stream(port: number, agent: Agent, random: () => number, outcomes: Outcomes): Promise<void> {
  const tokens = 5 + Math.floor(random() * 40)
  const content = `${words[Math.floor(random() * words.length)]} `.repeat(20 + Math.floor(random() * 60))
  const startedMs = performance.now()
  try {
    const response = await request(`http://127.0.0.1:${port}/v1/chat/completions`, {
      method: 'POST', dispatcher: agent, headers: { 'content-type': 'application/json' }, headersTimeout: 60_000, bodyTimeout: 60_000,
      body: JSON.stringify({ model: 'tiny', stream: true, stream_options: { include_usage: true }, max_tokens: tokens, ignore_eos: true, messages: [{ role: 'user', content }] }),
    })
    const text = await response.body.text()
    const usage = Number(/"completion_tokens":(\d+)/.exec(text)?.[1])
    if (response.statusCode !== 200) outcomes.faults.push(`status ${response.statusCode}: ${text.slice(0, 300)}`)
    else if (text.includes('"error"')) outcomes.faults.push(`error in the stream: ${text.slice(-400)}`)
    else if (!text.trimEnd().endsWith('data: [DONE]')) outcomes.faults.push(`no end: ${text.slice(-200)}`)
    else if (usage !== tokens) outcomes.faults.push(`${usage} of ${tokens} tokens`)
    outcomes.tokens += usage
  } catch (error) {
    outcomes.faults.push(`broken after ${Math.round(performance.now() - startedMs)} ms: ${(error as Error).message}`)
  }
  outcomes.done += 1
  outcomes.durationsMs.push(performance.now() - startedMs)
}

/** Sum of a family's samples that match. */
function total(metrics: string, name: string): number {
  return metrics.split('\n').filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `)).reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0)
}

async function load(deployment: Deployment, { seconds, streams, changeMs }: LoadOptions): Promise<void> {
  const seed = Number(process.env['WARMPATH_LOAD_SEED'] ?? Math.floor(Math.random() * 1e6))
  process.stdout.write(`     seed ${seed} (WARMPATH_LOAD_SEED), ${streams} streams, ${seconds} s\n`)
  const random = seeded(seed)
  const pools = new Pools(deployment, random)
  for (let index = 0; index < workersMin; index += 1) for (const stage of ['prefill', 'decode'] as const) await pools.add(stage)
  const port = await freePort()
  // As it comes: its own limits of retries, migrations and time.
  const frontend = deployment.warmpath('frontend', ['frontend', '--http-port', port, '--http-host', '127.0.0.1'], { DYN_LOG: 'warn' })
  const metrics = async (): Promise<string> => (await request(`http://127.0.0.1:${port}/metrics`)).body.text()
  await until('the model is listed', async () => {
    if (frontend.child.exitCode !== null) throw new Error(frontend.log().slice(-1500))
    try {
      return (await (await request(`http://127.0.0.1:${port}/v1/models`)).body.text()).includes('"tiny"')
    } catch {
      return false
    }
  })
  const agent = new Agent({ connections: streams })
  const outcomes: Outcomes = { done: 0, tokens: 0, faults: [], durationsMs: [] }
  const end = performance.now() + seconds * 1000
  const isOver = (): boolean => performance.now() >= end
  const clients = Promise.all(Array.from({ length: streams }, async () => { while (!isOver()) await stream(port, agent, random, outcomes) }))
  const changes = (async () => { while (!isOver()) { await delay(changeMs * (0.5 + random())); if (!isOver()) await pools.change() } })()
  await changes
  await clients
  await agent.close()
  const settled = await until('nothing is under way and nothing booked', async () => {
    const text = await metrics()
    return total(text, 'warmpath_active_requests') === 0 && total(text, 'warmpath_bookings_entries') === 0 ? text : null
  }, 30_000)
  report(outcomes, pools, settled, seconds)
  assert.doesNotMatch(frontend.log(), /worker refused/, 'all workers are of one pool')
  assert.deepEqual(outcomes.faults.slice(0, 5), [], `${outcomes.faults.length} of ${outcomes.done} requests`)
  assert.ok(outcomes.done >= streams)
  assert.ok(pools.counts.killed + pools.counts.stopped > 0, 'workers were killed or stopped')
}

function report({ done, tokens, faults, durationsMs }: Outcomes, { counts }: Pools, metrics: string, seconds: number): void {
  const sorted = durationsMs.toSorted((left, right) => left - right)
  const at = (part: number): string => `${((sorted[Math.floor(sorted.length * part)] ?? 0) / 1000).toFixed(1)} s`
  process.stdout.write(`     ${done} requests (${(done / seconds).toFixed(0)}/s), ${tokens} tokens, ${faults.length} faults; took ${at(0.5)} (half), ${at(0.99)} (99 of 100), ${at(0.9999)} (longest)\n`)
  process.stdout.write(`     workers: ${Object.entries(counts).map(([name, count]) => `${name} ${count}`).join(', ')}; migrations ${total(metrics, 'warmpath_migrations_total')}, retries ${total(metrics, 'warmpath_retries_total')}, prefill fall-backs ${total(metrics, 'warmpath_prefill_fallback_total')}\n`)
}

const fullSeconds = Number(process.env['WARMPATH_LOAD_SECONDS'] ?? 300)

export const loadScenarios: readonly Scenario[] = [
  { name: 'short-load', timeoutSeconds: 180, run: (deployment) => load(deployment, { seconds: 30, streams: 60, changeMs: 1500 }) },
  { name: 'load', onDemand: true, timeoutSeconds: fullSeconds + 240, run: (deployment) => load(deployment, { seconds: fullSeconds, streams: Number(process.env['WARMPATH_LOAD_STREAMS'] ?? 200), changeMs: 2500 }) },
]
