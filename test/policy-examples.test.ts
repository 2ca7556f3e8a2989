/** Goal: the policies of docs/policies.md work as they are written there. Method: the files of examples/ are the page's blocks, loaded and asked by a router. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { KvRouter, defaultRouterSettings, openPolicies, systemPorts } from '../src/index.ts'
import type { RoutingRequest } from '../src/model/routing-request.ts'
import { repoRoot } from './repo-root.ts'

const page = readFileSync(join(repoRoot, 'docs', 'policies.md'), 'utf8')

async function routerWith(file: string): Promise<KvRouter> {
  const path = join(repoRoot, 'examples', file)
  assert.ok(page.includes(`\n${readFileSync(path, 'utf8').trim()}\n\`\`\``), `the page shows ${file}`)
  const policies = await openPolicies({ policy: path })
  policies.close()
  const router = new KvRouter({ ...defaultRouterSettings, blockSize: 16 }, { ...systemPorts(), policies: policies.places })
  for (const workerId of [1n, 2n]) router.upsertWorker({ workerId, dpStart: 0, dpSize: 1, totalKvBlocks: 10, maxNumBatchedTokens: null, taints: [], topologyDomains: new Map() })
  return router
}

const ask = (requestId: string, length: number, more: Partial<RoutingRequest> = {}): RoutingRequest => ({ requestId, model: 'm', tokens: Uint32Array.from({ length }, (_, index) => index), ...more })

function chosen(router: KvRouter, request: RoutingRequest): { workerId: bigint; name: string | undefined } {
  const decision = router.route(request)
  if (decision.kind !== 'chosen') throw new Error(decision.message)
  assert.equal(decision.policy?.decided, true)
  return { workerId: decision.workerId, name: decision.policy?.name }
}

test('policy.ts: a nearly full worker is left alone', async () => {
  const router = await routerWith('policy.ts')
  router.route(ask('full', 144, { pin: { workerId: 1n, dpRank: null } }))
  router.prefillCompleted('full')
  // By load alone the second has more to do.
  router.route(ask('prompt', 80, { pin: { workerId: 2n, dpRank: null }, tokens: new Uint32Array(80).fill(7) }))
  assert.deepEqual(chosen(router, ask('next', 32, { tokens: new Uint32Array(32).fill(9) })), { workerId: 2n, name: 'leave-room' })
})

test('policy-select.js: the idlest of the warm ones, else the idlest of all', async () => {
  const router = await routerWith('policy-select.js')
  router.route(ask('first', 32, { pin: { workerId: 1n, dpRank: null } }))
  assert.deepEqual(chosen(router, ask('cold', 32)), { workerId: 2n, name: 'warm-or-idle' })
})

test('the page names every option, route and field there is', () => {
  for (const name of ['--policy', '--policy-shadow', '--policy-budget-us', '--admin-port', '--admin-token-file', 'GET /settings', 'PATCH', '/reload']) assert.ok(page.includes(name), name)
  const contract = readFileSync(join(repoRoot, 'src', 'policies', 'contract.ts'), 'utf8')
  for (const [, field] of contract.slice(contract.indexOf('interface PolicyCandidate'), contract.indexOf('interface ScoringPolicy')).matchAll(/^ {2}readonly (\w+):/gm)) {
    assert.ok(page.includes(`\`${field}\``), `${field} is on the page`)
  }
})
