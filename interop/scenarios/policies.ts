/** A policy of one's own in front of real workers: exchanged under load, by file, SIGHUP and admin API, without a failed request. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { freePort, generateRequest, type Deployment } from '../deployment.ts'
import { randomTokens, routerEndpoint, seeded, workerOf, type Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

const streams = 4

/** What the load found: failures, and who answered each request. */
class Load {
  readonly failures: string[] = []
  readonly answered: bigint[] = []
  #going = true
  #running: Promise<void>[] = []

  start(send: () => Promise<bigint>): void {
    this.#running = Array.from({ length: streams }, async () => {
      while (this.#going) {
        await send().then((worker) => { this.answered.push(worker) }, (error: unknown) => { this.failures.push(String(error)) })
      }
    })
  }

  async stop(): Promise<void> {
    this.#going = false
    await Promise.all(this.#running)
  }

  /** The next `count` answers, asked for after everything that is under way has ended. */
  async next(count: number): Promise<bigint[]> {
    const from = this.answered.length + streams
    await until(`${count} more answers`, () => this.answered.length >= from + count)
    return this.answered.slice(from, from + count)
  }
}

async function exchangedUnderLoad(deployment: Deployment): Promise<void> {
  deployment.mocker('mockers', ['--num-workers', 2])
  const [first, second] = await deployment.registered('dynamo/backend/generate', 2, undefined, 'mdc') as [bigint, bigint]
  const file = join(deployment.folder, 'policy.ts')
  const prefer = (worker: bigint, name: string): void =>
    writeFileSync(file, `import { definePolicy, type PolicyCandidate } from 'warmpath'\nconst best: bigint = ${worker}n\nexport default definePolicy({ name: '${name}', score: ({ workerId }: PolicyCandidate): number => (workerId === best ? 0 : 1) })\n`)
  prefer(first, 'first')
  const token = join(deployment.folder, 'token')
  writeFileSync(token, 'secret')
  const port = await freePort()
  const router = await deployment.router(['--endpoint', 'dynamo.backend.generate', '--policy', file, '--policy-budget-us', 1_000_000, '--admin-port', port, '--admin-token-file', token])
  const driver = await deployment.driver()
  const random = seeded(11)
  const load = new Load()
  load.start(async () => {
    const { outputs, error } = await driver.call(routerEndpoint.generate, generateRequest(randomTokens(random, 40)), { timeoutSeconds: 30 })
    if (error !== null) throw new Error(JSON.stringify(error))
    return workerOf(outputs)
  })
  try {
    assert.deepEqual(new Set(await load.next(20)), new Set([first]))
    prefer(second, 'second')
    await until('the second policy is in force', () => /the policy second is in force/.test(router.log()))
    assert.deepEqual(new Set(await load.next(20)), new Set([second]))

    writeFileSync(file, "import { definePolicy } from 'warmpath'\nexport default definePolicy({ name: 'broken', score(c): number { return c. } })\n")
    await until('the broken file is refused', () => /policy\.ts:2: Expected ident; the policy second stays in force/.test(router.log()))
    assert.deepEqual(new Set(await load.next(20)), new Set([second]))

    prefer(first, 'third')
    router.child.kill('SIGHUP')
    await until('the third policy is in force', () => /the policy third is in force/.test(router.log()))
    assert.deepEqual(new Set(await load.next(20)), new Set([first]))

    writeFileSync(file, "export default { name: 'throws', score() { throw new Error('no') } }\n")
    await until('the built-in policy decides', () => /the policy throws failed \(Error: no/.test(router.log()))
    await load.next(20)

    const patched = await fetch(`http://127.0.0.1:${port}/settings`, {
      method: 'PATCH', headers: { authorization: 'Bearer secret' }, body: JSON.stringify({ policy: null, 'router-temperature': 0.3 }), signal: AbortSignal.timeout(10_000),
    })
    // A flag is what null goes back to.
    assert.equal(patched.status, 200, await patched.clone().text())
    const { settings } = await (await fetch(`http://127.0.0.1:${port}/settings`, { signal: AbortSignal.timeout(10_000) })).json() as { settings: Record<string, { value: unknown; source: string }> }
    assert.deepEqual([settings['router-temperature']?.value, settings['router-temperature']?.source, settings['policy']?.value], [0.3, 'admin', file])
    await load.next(20)
  } finally {
    await load.stop()
  }
  assert.deepEqual(load.failures, [])
}

export const policyScenarios: readonly Scenario[] = [{ name: 'policies', run: exchangedUnderLoad }]
