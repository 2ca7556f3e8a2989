/** Golden cases that are in no file: recorded from the real library and its services just now, with a seed that is told, and compared as the stored ones. */
import { randomBytes } from 'node:crypto'
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { golden as hashing } from '../../src/golden/hashing.ts'
import type { GoldenDocument, GoldenKind } from '../../src/golden/kind.ts'
import { golden as radixTree } from '../../src/golden/radix-tree.ts'
import { golden as slots } from '../../src/golden/slots.ts'
import { golden as trackingHash } from '../../src/golden/tracking-hash.ts'
import { repoRoot } from '../../test/repo-root.ts'
import { until } from '../../test/until.ts'
import { freePort, parseLossless, type Deployment } from '../deployment.ts'
import type { Scenario } from '../scenario.ts'

const kinds: readonly GoldenKind[] = [hashing, trackingHash, radixTree, slots]

async function answers(deployment: Deployment, label: string, module: string, env: NodeJS.ProcessEnv): Promise<number> {
  const port = await freePort()
  const service = deployment.module(label, module, ['--port', port], env)
  await until(`${label} answers`, async () => {
    if (service.child.exitCode !== null) throw new Error(`${label} ended: ${service.log().slice(-800)}`)
    return fetch(`http://127.0.0.1:${port}/health`).then(({ ok }) => ok, () => false)
  }, 60_000)
  return port
}

async function freshCases(deployment: Deployment): Promise<void> {
  const seed = Number(process.env['WARMPATH_GOLDEN_SEED'] ?? Date.now() % 2 ** 31)
  const count = Number(process.env['WARMPATH_GOLDEN_CASES'] ?? 100)
  const folder = join(deployment.folder, 'golden')
  mkdirSync(folder)
  const key = randomBytes(32)
  const keyFile = join(folder, 'tracking.key')
  writeFileSync(keyFile, key)
  const selection = { DYN_ROUTER_USE_KV_EVENTS: 'false' }
  const ports = await Promise.all([
    answers(deployment, 'slot-tracker', 'dynamo.slot_tracker', {}), answers(deployment, 'public-hashes', 'dynamo.select_service', selection),
    answers(deployment, 'keyed-hashes', 'dynamo.select_service', { ...selection, DYN_ROUTER_TRACKING_HASH: 'keyed-xxh3-v1', DYN_ROUTER_TRACKING_KEY_FILE: keyFile, DYN_ROUTER_TRACKING_KEY_ID: 'epoch-1' }),
  ])
  const recorder = deployment.spawn('recorder', deployment.dynamo.python, [join(repoRoot, 'interop', 'python', 'record_golden.py'), folder, seed, count, ...ports, key.toString('hex'), 'epoch-1'])
  assert.equal(await recorder.exited, 0, `the recorder (seed ${seed}): ${recorder.log().slice(-1500)}`)
  const told: string[] = []
  for (const kind of kinds) {
    const document = parseLossless(readFileSync(join(folder, `${kind.name}.json`), 'utf8')) as GoldenDocument
    let passed = 0
    for (const { id, outcome } of kind.run(document)) {
      assert.equal(outcome.kind, 'passed', `WARMPATH_GOLDEN_SEED=${seed} WARMPATH_GOLDEN_CASES=${count}: ${kind.name} ${id}: ${outcome.kind === 'failed' ? outcome.message : ''}`)
      passed += 1
    }
    told.push(`${kind.name} ${passed}`)
  }
  process.stdout.write(`  seed ${seed}: ${told.join(', ')} cases passed\n`)
}

export const goldenScenarios: readonly Scenario[] = [{ name: 'golden: new cases from the real library', timeoutSeconds: 300, run: freshCases }]
