/** `npm run interop [-- NAME…]`: unmodified Dynamo parts against our router. Names are scenarios or their beginnings. */
import { Deployment } from './deployment.ts'
import { prepareDynamo, prepareOlder, type DynamoInstallation, type OlderVersion } from './dynamo-venv.ts'
import type { Scenario } from './scenario.ts'
import { scenarios } from './scenarios/index.ts'

const wanted = process.argv.slice(2)
const chosen = scenarios.filter(({ name, onDemand }) => (wanted.length === 0 ? onDemand !== true : wanted.some((part) => name.startsWith(part))))
const counts = { passed: 0, failed: 0, skipped: 0 }
/** Told once more at the end: whoever reads only the last lines sees why. */
const failures: string[] = []

async function runAll(): Promise<void> {
  if (chosen.length === 0) {
    process.stdout.write(`no scenario is called ${wanted.join(', ')}; there are: ${scenarios.map(({ name }) => name).join(', ')}\n`)
    counts.failed += 1
    return
  }
  const dynamo = prepareDynamo()
  if ('unavailable' in dynamo) {
    process.stdout.write(`skipped: ${dynamo.unavailable}\n`)
    if (process.env['WARMPATH_REQUIRE_INTEROP'] === '1') counts.failed += chosen.length
    else counts.skipped += chosen.length
    return
  }
  for (const scenario of chosen) {
    const older = olderOf(scenario, dynamo)
    if (typeof older === 'string') {
      process.stdout.write(`${process.env['WARMPATH_REQUIRE_INTEROP'] === '1' ? 'FAIL' : 'skip'} ${scenario.name}: ${older}\n`)
      counts[process.env['WARMPATH_REQUIRE_INTEROP'] === '1' ? 'failed' : 'skipped'] += 1
      continue
    }
    const deployment = new Deployment(dynamo, scenario.env, older)
    const startedMs = Date.now()
    let failure: unknown = null
    let timer: NodeJS.Timeout | undefined
    try {
      const deadline = new Promise<never>((_resolve, reject) => {
        timer = setTimeout(() => reject(new Error(`not finished within ${scenario.timeoutSeconds ?? 120} s`)), (scenario.timeoutSeconds ?? 120) * 1000)
      })
      await Promise.race([scenario.run(deployment), deadline])
    } catch (error) {
      failure = error
    }
    clearTimeout(timer)
    const keep = failure !== null && process.env['WARMPATH_INTEROP_KEEP'] === '1'
    await deployment.close(keep)
    const seconds = ((Date.now() - startedMs) / 1000).toFixed(1)
    if (failure === null) {
      counts.passed += 1
      process.stdout.write(`ok   ${scenario.name} (${seconds} s)\n`)
    } else {
      counts.failed += 1
      const told = `FAIL ${scenario.name} (${seconds} s)${keep ? ` logs in ${deployment.folder}` : ''}\n${failure instanceof Error ? failure.stack : String(failure)}\n`
      failures.push(told.slice(0, 4000))
      process.stdout.write(told)
    }
  }
}

/** The earlier releases that a scenario asks for, or why one is not to be had. */
function olderOf(scenario: Scenario, current: DynamoInstallation): ReadonlyMap<OlderVersion, DynamoInstallation> | string {
  const found = new Map<OlderVersion, DynamoInstallation>()
  for (const version of scenario.older ?? []) {
    const installation = prepareOlder(version, current)
    if ('unavailable' in installation) return installation.unavailable
    found.set(version, installation)
  }
  return found
}

await runAll()
if (failures.length > 0) process.stdout.write(`\n${failures.join('\n')}\n`)
process.stdout.write(`${counts.passed} passed, ${counts.failed} failed${counts.skipped > 0 ? `, ${counts.skipped} skipped` : ''}\n`)
process.exit(counts.failed === 0 ? 0 : 1)
