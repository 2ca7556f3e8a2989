/** Ten thousand requests with cancels, errors and worker deaths; afterwards nothing may be left over. */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { repoRoot } from '../../test/repo-root.ts'
import { freePort, generateRequest, type Deployment, type Managed } from '../deployment.ts'
import { randomTokens, routerEndpoint, seeded, type Scenario } from '../scenario.ts'
import { ready } from './endpoints.ts'
import { until } from '../../test/until.ts'

interface Reading {
  readonly count: number
  readonly heapUsed: number
  readonly descriptors: number
}

async function gauges(port: number): Promise<ReadonlyMap<string, number>> {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`, { headers: { connection: 'close' }, signal: AbortSignal.timeout(5000) })).text()
  return new Map(text.split('\n').filter((line) => line !== '' && !line.startsWith('#')).map((line) => {
    const at = line.lastIndexOf(' ')
    return [line.slice(0, at), Number(line.slice(at + 1))]
  }))
}

const requestCount = 10_000
const width = 48
/** Enough that code is compiled and tables have their size. */
const warmUpCount = 3000

async function churn(deployment: Deployment): Promise<void> {
  const port = await freePort()
  const heapFile = join(deployment.folder, 'heap.json')
  const router = await deployment.router(['--endpoint', 'dynamo.backend.generate', '--router-block-size', '16', '--kv-event-grace', '3600'], {
    env: { DYN_SYSTEM_PORT: `${port}`, NODE_OPTIONS: `--require ${join(repoRoot, 'interop', 'heap-probe.cjs')}`, WARMPATH_HEAP_FILE: heapFile, DYN_LOG: 'error', DYN_RUNTIME_INHIBITED_DURATION_SECS: '1' },
  })
  const started: Managed[] = []
  const start = async (label: string, args: readonly string[]): Promise<bigint> => {
    const worker = await deployment.worker(label, ['--delay', '0.001', ...args], { DYN_LOG: 'error' })
    started.push(worker.process)
    return worker.id
  }
  const driver = await deployment.driver()
  const ids = await Promise.all([start('good', []), start('raises', ['--fail', 'raise-after:1']), start('refuses', ['--fail', 'value-error'])])
  for (const id of ids) await ready(driver, id)
  const random = seeded(4711)
  const roots = Array.from({ length: 8 }, () => randomTokens(random, 64))
  const outcomes = new Map<string, number>()
  const one = async (): Promise<void> => {
    const tokens = [...(roots[Math.floor(random() * roots.length)] as number[]), ...randomTokens(random, Math.floor(random() * 64))]
    const dice = random()
    const options = dice < 0.05 ? { cancelAfter: 1 } : dice < 0.1 ? { dropAfter: 1 } : {}
    const request = generateRequest(tokens, { stop_conditions: { max_tokens: dice < 0.1 ? 50 : 1 + Math.floor(random() * 3), ignore_eos: true } })
    const { error } = await driver.call(routerEndpoint.generate, request, { quiet: true, timeoutSeconds: 60, ...options })
    const outcome = error === null ? (dice < 0.1 ? 'cancelled' : 'answered') : (error.message.split(':')[0] as string)
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
  }
  const batch = async (count: number, atOnce: number): Promise<void> => {
    let left = count
    await Promise.all(Array.from({ length: atOnce }, async () => { while (left-- > 0) await one() }))
  }
  // A first round, wider than the rest, fills the connection pools of the client and the router: what stands after it is the measure.
  await batch(warmUpCount, 3 * width)
  const before = await settledReading(deployment, router, heapFile, port)
  const deaths = (async () => {
    for (let death = 0; death < 4; death += 1) {
      const victim = await deployment.worker(`victim-${death}`, ['--delay', '0.002'], { DYN_LOG: 'error' })
      await ready(driver, victim.id)
      await new Promise((resolve) => setTimeout(resolve, 1500))
      deployment.signal(victim.process, 'SIGKILL')
    }
  })()
  await batch(requestCount - warmUpCount, width)
  await deaths
  await until('dead records go', () => deployment.records('instances', 'dynamo/backend/generate/').length === 3, 30_000)
  const after = await settledReading(deployment, router, heapFile, port)
  process.stdout.write(`     ${[...outcomes].map(([name, count]) => `${name} ${count}`).join(', ')}; descriptors ${before.descriptors} -> ${after.descriptors}; heap ${(before.heapUsed / 1e6).toFixed(1)} -> ${(after.heapUsed / 1e6).toFixed(1)} MB\n`)
  assert.equal([...outcomes.values()].reduce((sum, count) => sum + count, 0), requestCount, 'every request ended')
  assert.ok((outcomes.get('answered') ?? 0) > requestCount / 4)
  assert.ok(Math.abs(after.descriptors - before.descriptors) <= 2, `descriptors ${before.descriptors} -> ${after.descriptors}`)
  assert.ok(after.heapUsed <= before.heapUsed * 1.1, `heap ${before.heapUsed} -> ${after.heapUsed}`)
  for (const process of started) await deployment.stop(process, 'SIGKILL')
  await until('all workers are gone', async () => (await gauges(port)).get('warmpath_workers') === 0, 30_000)
  const left = [...(await gauges(port))].filter(([name, value]) => /^warmpath_(\w+_entries|active_requests)/.test(name) && value !== 0)
  assert.deepEqual(left, [], 'every gauge of entries and bookings is 0')
}

/** Garbage collected, with nothing under way. */
async function settledReading(deployment: Deployment, router: Managed, file: string, port: number): Promise<Reading> {
  await until('nothing is under way', async () => {
    const values = await gauges(port)
    return values.get('warmpath_active_requests') === 0 && values.get('warmpath_bookings_entries') === 0
  })
  const last = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Reading).count : 0
  const read = async (count: number): Promise<Reading> => {
    deployment.signal(router, 'SIGUSR2')
    return until('the heap is read', () => {
      if (!existsSync(file)) return null
      const reading = JSON.parse(readFileSync(file, 'utf8')) as Reading
      return reading.count >= count ? reading : null
    }, 10_000)
  }
  // Sockets of ended streams linger for a moment.
  let reading = await read(last + 1)
  for (let stable = 0; stable < 3;) {
    await new Promise((resolve) => setTimeout(resolve, 500))
    const next = await read(reading.count + 1)
    stable = next.descriptors === reading.descriptors ? stable + 1 : 0
    reading = next
  }
  return reading
}

export const churnScenarios: readonly Scenario[] = [{ name: 'churn', timeoutSeconds: 400, run: churn }]
