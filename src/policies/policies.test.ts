/** Goal: a policy of one's own decides, never harms, and the built-in one is such a policy. Method: routers with small pools, a clock of our own, and the fast path as oracle. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { WorkerDescription } from '../model/worker.ts'
import type { Clock } from '../ports.ts'
import * as hashes from '../hashing/block-hashes.ts'
import { KvRouter } from '../router/kv-router.ts'
import { defaultRouterSettings } from '../router/settings.ts'
import type { RouterSettings } from '../router/contract.ts'
import { systemRandom } from '../system-ports.ts'
import { costPolicy } from './builtin-policy.ts'
import { definePolicy, policyProblem, type Policy, type PolicyCandidate } from './contract.ts'
import { policyPlaces, type PolicyPlaces, type ShadowComparison } from './policy-slot.ts'

/** Time that policies take is what they say. */
class TestClock implements Clock {
  ms = 0
  nowMs(): number { return this.ms }
  epochMs(): number { return this.ms }
  setTimer(): { cancel(): void } { return { cancel() {} } }
}

const worker = (id: number, more: Partial<WorkerDescription> = {}): WorkerDescription =>
  ({ workerId: BigInt(id), dpStart: 0, dpSize: 1, totalKvBlocks: 1000, maxNumBatchedTokens: 8192, taints: [], topologyDomains: new Map(), ...more })

function routerWith(places: PolicyPlaces, { workers = 3, clock = new TestClock(), settings = {} }: { workers?: number; clock?: Clock; settings?: Partial<RouterSettings> } = {}): KvRouter {
  const router = new KvRouter({ ...defaultRouterSettings, blockSize: 16, ...settings }, { clock, random: systemRandom(), policies: places })
  for (let id = 1; id <= workers; id += 1) router.upsertWorker(worker(id))
  return router
}

let next = 0
const ask = (more: object = {}): { requestId: string; model: string; tokens: Uint32Array } =>
  ({ requestId: `r${next++}`, model: 'm', tokens: Uint32Array.from({ length: 40 }, (_, index) => index), ...more })

function chosen(router: KvRouter, more: object = {}): Extract<ReturnType<KvRouter['route']>, { kind: 'chosen' }> {
  const decision = router.route(ask(more))
  assert.equal(decision.kind, 'chosen')
  return decision as never
}

const highest: Policy = definePolicy({ name: 'highest-id', score: ({ workerId }) => -Number(workerId) })

test('a scoring policy decides, and the explanation shows its name and scores beside the built-in cost', () => {
  const router = routerWith(policyPlaces({ live: highest }))
  const decision = chosen(router)
  assert.equal(decision.workerId, 3n)
  assert.deepEqual(decision.policy, { name: 'highest-id', decided: true, why: null, score: -3 })
  const { choice, candidates, policy } = decision.explain()
  assert.equal(choice, 'policy')
  assert.equal(policy?.name, 'highest-id')
  assert.deepEqual(candidates.map(({ policyScore, cost }) => [policyScore, cost]), [[-1, 4.5], [-2, 4.5], [-3, 4.5]])
})

test('a selecting policy gives a candidate or its index; the list is the same frozen one while the pool is', () => {
  const lists = new Set<readonly PolicyCandidate[]>()
  const byView = routerWith(policyPlaces({ live: definePolicy({ name: 'view', select: (all) => { lists.add(all); return all.find(({ workerId }) => workerId === 2n) ?? 0 } }) }))
  assert.deepEqual([chosen(byView).workerId, chosen(byView).workerId, lists.size], [2n, 2n, 1])
  assert.ok(Object.isFrozen([...lists][0]))
  const byIndex = routerWith(policyPlaces({ live: definePolicy({ name: 'index', select: () => 1 }) }))
  const decision = chosen(byIndex)
  assert.deepEqual([decision.workerId, decision.policy?.score], [2n, null])
})

test('what a policy sees of candidates and request is what the router knows', () => {
  const seen: Record<string, unknown>[] = []
  const router = routerWith(policyPlaces({
    live: definePolicy({
      name: 'looks',
      score(candidate, request) {
        const { workerId, dpRank, worker: { totalKvBlocks }, deviceBlocks, cachedTokens, activePrefillTokens, activeRequests, potentialDecodeBlocks, taintFactor, builtinCost } = candidate
        seen.push({ workerId, dpRank, totalKvBlocks, deviceBlocks, cachedTokens, activePrefillTokens, activeRequests, potentialDecodeBlocks, taintFactor, builtinCost, promptTokens: request.promptTokens, promptBlocks: request.promptBlocks, least: request.leastActivePrefillTokens, isPreview: request.isPreview })
        return 0
      },
    }),
  }), { workers: 0 })
  router.upsertWorker(worker(9, { dpStart: 2, dpSize: 2 }))
  router.select(ask())
  const plain = { workerId: 9n, totalKvBlocks: 1000, deviceBlocks: 0, cachedTokens: 0, activePrefillTokens: 0, activeRequests: 0, potentialDecodeBlocks: 3, taintFactor: 1, builtinCost: 5.5, promptTokens: 40, promptBlocks: 3, least: 0, isPreview: true }
  assert.deepEqual(seen, [{ ...plain, dpRank: 2, potentialDecodeBlocks: 2, builtinCost: 4.5 }, { ...plain, dpRank: 3, potentialDecodeBlocks: 2, builtinCost: 4.5 }])
})

test('exceptions, NaN, promises and choices that are no candidates fall back for that decision, and are counted', () => {
  const bad: [string, Policy][] = [
    ['exception', { name: 'throws', score: () => { throw new Error('broken') } }],
    ['invalid', { name: 'nan', score: () => NaN }],
    ['invalid', { name: 'text', score: (() => '1') as never }],
    ['invalid', { name: 'async', score: (async () => { throw new Error('nobody waits') }) as never }],
    ['invalid', { name: 'beyond', select: () => 3 }],
    ['invalid', { name: 'negative', select: () => -1 }],
    ['invalid', { name: 'foreign', select: () => ({}) as never }],
    ['exception', { name: 'sorts', select: (all) => { (all as PolicyCandidate[]).sort(); (all as PolicyCandidate[]).length = 0; return 0 } }],
    ['exception', { name: 'writes', score: (candidate) => { (candidate as { deviceBlocks: number }).deviceBlocks = 9; return 1 } }],
  ]
  for (const [kind, policy] of bad) {
    const reasons: string[] = []
    const places = policyPlaces({ live: policy, listener: { onFailure: (_slot, failure, reason) => reasons.push(`${failure} ${reason}`) } })
    const router = routerWith(places)
    // The built-in policy's choice: a worker that nobody has used yet.
    assert.equal(new Set([chosen(router), chosen(router), chosen(router)].map(({ workerId }) => workerId)).size, 3, policy.name)
    assert.deepEqual([places.live.counts.exception + places.live.counts.invalid, places.live.counts[kind as 'invalid']], [3, 3], policy.name)
    assert.match(reasons[0]!, new RegExp(`^${kind} .+`))
    const decision = chosen(router)
    assert.deepEqual(decision.policy, { name: policy.name, decided: false, why: kind, score: null })
    assert.ok(['minimum', 'tie'].includes(decision.explain().choice))
  }
})

test('eligibility is not up to a policy, nor a worker that the request names', () => {
  const router = routerWith(policyPlaces({ live: highest }))
  assert.equal(chosen(router, { allowedWorkerIds: new Set([1n, 2n]) }).workerId, 2n)
  const pinned = chosen(router, { pin: { workerId: 1n, dpRank: null } })
  assert.deepEqual([pinned.workerId, pinned.policy, pinned.explain().choice], [1n, undefined, 'pinned'])
})

test('three calls over the budget in a row set a policy aside until it is loaded again; a quick one in between forgives', () => {
  const clock = new TestClock()
  let takesMs = 2
  const slow: Policy = { name: 'slow', select: () => { clock.ms += takesMs; return 2 } }
  const places = policyPlaces({ live: slow, budgetUs: 1000 })
  const router = routerWith(places, { clock })
  assert.deepEqual([chosen(router).workerId, chosen(router).workerId], [3n, 3n])
  takesMs = 1
  chosen(router)
  takesMs = 2
  for (let call = 0; call < 3; call += 1) assert.equal(chosen(router).workerId, 3n)
  assert.ok(places.live.isSetAside)
  const after = chosen(router)
  assert.notEqual(after.workerId, 3n)
  assert.equal(after.policy?.why, 'set-aside')
  assert.deepEqual(places.live.counts, { decisions: 6, exception: 0, invalid: 0, overBudget: 5, setAside: 1 })
  places.live.load(slow)
  assert.equal(chosen(router).workerId, 3n)
})

test('a shadow policy reports disagreement and regret, and decides nothing, whatever it does', () => {
  const compared: ShadowComparison[] = []
  const places = policyPlaces({ shadow: highest, onCompared: (each) => compared.push(each) })
  const router = routerWith(places, { workers: 2 })
  chosen(router, { pin: { workerId: 2n, dpRank: null } })
  assert.equal(chosen(router).workerId, 1n)
  assert.deepEqual(compared, [{ agrees: false, regret: 1, costGapBlocks: 2.5 }], 'two and a half blocks of work are on the second worker')
  router.select(ask())
  assert.equal(compared.length, 1, 'a question is no decision')
  places.shadow.load({ name: 'throws', select: () => { throw new Error('broken') } })
  assert.equal(chosen(router).policy, undefined)
  assert.equal(places.shadow.counts.exception, 1)
  places.shadow.load({ name: 'equal', score: () => 1 })
  chosen(router)
  assert.deepEqual(compared[1], { agrees: true, regret: 0, costGapBlocks: 0 }, 'among equals every choice is the best')
})

test('the same numbers are drawn with a shadow policy as without', () => {
  const draws = (places: PolicyPlaces): number => {
    let count = 0
    const router = new KvRouter({ ...defaultRouterSettings, blockSize: 16 }, { clock: new TestClock(), random: { float: () => { count += 1; return 0.5 }, u64: () => [1, 2] }, policies: places })
    for (let id = 1; id <= 4; id += 1) router.upsertWorker(worker(id))
    for (let call = 0; call < 5; call += 1) router.route(ask())
    return count
  }
  assert.equal(draws(policyPlaces({ shadow: { name: 'equal', score: () => 0 } })), draws(policyPlaces({})))
})

test('a temperature above 0 draws among scores; infinite scores are only compared', () => {
  const router = routerWith(policyPlaces({ live: definePolicy({ name: 'flat', score: ({ workerId }) => (workerId === 1n ? 1 : 0) }) }), { settings: { temperature: 5 } })
  const taken = new Set(Array.from({ length: 200 }, () => chosen(router).workerId))
  assert.equal(taken.size, 3)
  const never = routerWith(policyPlaces({ live: { name: 'never', score: ({ workerId }) => (workerId === 2n ? -1 : Infinity) } }), { settings: { temperature: 5 } })
  assert.equal(chosen(never).workerId, 2n)
})

test('definePolicy names the field and the mend', () => {
  assert.throws(() => definePolicy({ name: 'a b', score: () => 1 }), /definePolicy: the policy has the name "a b"; expected 1 to 64 letters/)
  assert.throws(() => definePolicy({ name: 'x' } as never), /neither score nor select/)
  assert.throws(() => definePolicy({ name: 'x', score: () => 1, select: () => 0 }), /both score and select/)
  assert.throws(() => definePolicy({ name: 'x', score: 1 } as never), /score that is a number; expected a function/)
  assert.match(policyProblem(null) ?? '', /is null/)
  assert.match(policyProblem({ name: 'builtin', score: () => 1 }) ?? '', /reserved/)
})

// ---- The built-in policy on the same interface -------------------------------------------------------------------------------

const weight = fc.constantFrom(0, 0.25, 0.5, 1, 1.75, 3)
const weights = fc.record({
  overlapScoreCredit: weight, overlapScoreCreditDecay: weight, prefillLoadScale: weight, decodeActiveRequestWeight: weight,
  hostCacheHitWeight: fc.constantFrom(0, 0.1, 0.75, 1), diskCacheHitWeight: fc.constantFrom(0, 0.25, 1),
})
const step = fc.record({
  kind: fc.constantFrom('route', 'route', 'stored', 'prefill', 'free'), prefix: fc.nat(3), length: fc.nat(90), worker: fc.nat(3),
  tier: fc.constantFrom('device', 'host_pinned', 'disk'), trackPrefillTokens: fc.boolean(), likes: fc.boolean(),
})

test('the built-in policy as a policy of one\'s own scores and decides like the fast path', () => {
  fc.assert(fc.property(weights, fc.constantFrom('aggregated', 'prefill', 'decode'), fc.array(step, { minLength: 1, maxLength: 25 }), (given, role, steps) => {
    const compared: ShadowComparison[] = []
    const places = policyPlaces({ live: costPolicy(given), shadow: costPolicy(given), onCompared: (each) => compared.push(each) })
    const router = new KvRouter({ ...defaultRouterSettings, ...given, blockSize: 8, role: role as 'decode' }, { clock: new TestClock(), random: systemRandom(), policies: places })
    for (let id = 1; id <= 4; id += 1) router.upsertWorker(worker(id, { taints: id % 2 === 0 ? ['slow'] : [] }))
    const open: string[] = []
    for (const { kind, prefix, length, worker: index, tier, trackPrefillTokens, likes } of steps) {
      const tokens = Uint32Array.from({ length }, (_, at) => 1000 * prefix + at)
      if (kind === 'free') router.free(open.shift() ?? '')
      else if (kind === 'prefill') router.prefillCompleted(open[0] ?? '')
      else if (kind === 'stored') store(router, BigInt(index + 1), tokens, tier as 'device')
      else {
        const request = ask({ tokens, override: { trackPrefillTokens }, ...(likes ? { preferredTaints: new Map([['slow', -0.5]]) } : {}) })
        const decision = router.route(request)
        assert.equal(decision.kind, 'chosen')
        if (decision.kind !== 'chosen') return
        open.push(request.requestId)
        const { candidates } = decision.explain()
        for (const { policyScore, cost } of candidates) assert.equal(policyScore, cost)
        assert.equal(decision.cost, Math.min(...candidates.map(({ cost }) => cost)), 'at temperature 0 the least cost is taken')
        assert.equal(decision.policy?.decided, true)
      }
    }
    assert.ok(compared.every(({ agrees }) => agrees))
  }), { numRuns: 200 })
})

function store(router: KvRouter, workerId: bigint, tokens: Uint32Array, storageTier: 'device'): void {
  const blockHashes = hashes.sequenceHashes(hashes.localBlockHashes(tokens, { blockSize: 8 }))
  router.applyEvent({
    workerId, dpRank: 0, storageTier, residencyDomain: 'worker', eventId: 1n,
    data: { kind: 'stored', parentHash: null, startPosition: null, blockHashes, tokensHashes: hashes.localBlockHashes(tokens, { blockSize: 8 }), mmInfos: null },
  })
}
