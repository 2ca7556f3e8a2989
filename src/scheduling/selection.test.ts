import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { RoutingRequest } from '../model/routing-request.ts'
import type { Random } from '../ports.ts'
import { chooseBySampling } from './choice.ts'
import type { Choice } from './choice.ts'
import type { CostWeights } from './cost.ts'
import type { SchedulableWorker } from './eligibility.ts'
import { overrideError } from './override.ts'
import { referenceAcceptable, referenceProbabilities, referenceScores } from './reference-selector.ts'
import type { ReferencePool, ReferenceRank } from './reference-selector.ts'
import { Selection } from './selection.ts'

function seeded(seed: number): Random {
  let state = seed >>> 0
  const word = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return (mixed ^ (mixed >>> 14)) >>> 0
  }
  return { float: () => word() / 2 ** 32, u64: () => [word(), word()] }
}

const defaults: CostWeights = {
  overlapScoreCredit: 1, overlapScoreCreditDecay: 0, prefillLoadScale: 1, decodeActiveRequestWeight: 0, hostCacheHitWeight: 0.75, diskCacheHitWeight: 0.25,
}

interface Rig {
  readonly ranks: readonly ReferenceRank[]
  readonly pool: ReferencePool
  readonly request: Omit<RoutingRequest, 'tokens'> & { readonly promptTokens: number; readonly trackPrefillTokens: boolean }
  readonly temperature?: number
}

/** Runs the real selection over the oracle's ranks; one worker per two neighbouring ranks of equal id. */
function run(rig: Rig, selection: Selection, random: Random): { readonly row: number; readonly costs: Map<string, number>; readonly key: string } {
  const { ranks, request, pool } = rig
  const workers = new Map<bigint, { workerId: bigint; dpStart: number; slots: number[]; taints: Set<string>; loraNames: Set<string> }>()
  ranks.forEach((rank, slot) => {
    const worker = workers.get(rank.workerId) ?? { workerId: rank.workerId, dpStart: rank.dpRank, slots: [], taints: new Set(rank.taints), loraNames: new Set() }
    worker.slots.push(slot)
    workers.set(rank.workerId, worker)
  })
  const list: SchedulableWorker[] = [...workers.values()]
  selection.collect(list, Int32Array.from(list.flatMap(({ slots }) => slots)), { ...request, tokens: new Uint32Array(0) }, null)
  const { table } = selection
  for (let row = 0; row < table.count; row++) {
    const rank = ranks[table.slot[row]!]!
    table.deviceBlocks[row] = rank.deviceBlocks
    table.hostBlocks[row] = rank.hostBlocks
    table.diskBlocks[row] = rank.diskBlocks
    table.activePrefillTokens[row] = rank.activePrefillTokens
    table.activeRequests[row] = rank.activeRequests
    table.potentialDecodeBlocks[row] = rank.potentialDecodeBlocks
  }
  if (table.count === 0) return { row: -1, costs: new Map(), key: '' }
  const row = selection.choose({
    weights: pool.weights, blockSize: pool.blockSize, promptTokens: request.promptTokens, trackPrefillTokens: request.trackPrefillTokens,
    poolLabel: pool.role === 'prefill' ? 'prefill' : 'decode', loadOnly: pool.role === 'decode' || pool.weights.overlapScoreCredit === 0,
  }, rig.temperature ?? 0, random)
  const keyAt = (at: number): string => { const { workerId, dpRank } = ranks[table.slot[at]!]!; return `${workerId}.${dpRank}` }
  return { row, costs: new Map(Array.from({ length: table.count }, (_, at) => [keyAt(at), table.cost[at]!])), key: keyAt(row) }
}

const taintNames = ['slow', 'zone=a', 'zone=b'] as const
const rankArbitrary = fc.record({
  deviceBlocks: fc.nat(9), hostBlocks: fc.nat(4), diskBlocks: fc.nat(4),
  activePrefillTokens: fc.nat(60), activeRequests: fc.nat(3), potentialDecodeBlocks: fc.nat(30),
})
const weight = fc.constantFrom(0, 0.25, 0.5, 1, 1.75, 3)
const rigs: fc.Arbitrary<Rig> = fc.record({
  ranks: fc.array(fc.record({ taints: fc.subarray([...taintNames]), ranks: fc.array(rankArbitrary, { minLength: 1, maxLength: 3 }) }), { minLength: 1, maxLength: 5 })
    .map((workers) => workers.flatMap(({ taints, ranks }, worker) => ranks.map((rank, dpRank) => ({ ...rank, taints, dpRank, workerId: 2n ** 40n + BigInt(worker) })))),
  pool: fc.record({
    weights: fc.record({
      overlapScoreCredit: weight, overlapScoreCreditDecay: weight, prefillLoadScale: weight, decodeActiveRequestWeight: weight,
      hostCacheHitWeight: fc.constantFrom(0, 0.1, 0.75, 1), diskCacheHitWeight: fc.constantFrom(0, 0.25, 1),
    }),
    blockSize: fc.constantFrom(1, 4, 7, 16), role: fc.constantFrom('aggregated', 'prefill', 'decode'),
  }),
  request: fc.record({
    requestId: fc.constant('r'), model: fc.constant('m'), promptTokens: fc.nat(100), trackPrefillTokens: fc.boolean(),
    requiredTaints: fc.subarray([...taintNames], { maxLength: 1 }),
    preferredTaints: fc.dictionary(fc.constantFrom(...taintNames), fc.constantFrom(-1, -0.25, 0.5, 2)).map((weights) => new Map(Object.entries(weights))),
    excludedWorkerIds: fc.subarray([2n ** 40n, 2n ** 40n + 1n]).map((ids) => new Set(ids)),
  }, { requiredKeys: ['requestId', 'model', 'promptTokens', 'trackPrefillTokens'] }),
}) as fc.Arbitrary<Rig>

test('costs and choice are those of the reference selector', () => {
  const selection = new Selection()
  fc.assert(fc.property(rigs, fc.integer(), (rig, seed) => {
    const scores = referenceScores(rig.ranks, rig.request, rig.pool)
    const { costs, key } = run(rig, selection, seeded(seed))
    assert.deepEqual(costs, new Map(scores.map(({ rank, cost }) => [`${rank.workerId}.${rank.dpRank}`, cost])))
    if (scores.length === 0) return
    const acceptable = referenceAcceptable(scores).map(({ rank }) => `${rank.workerId}.${rank.dpRank}`)
    assert.ok(acceptable.includes(key), `${key} is not in ${acceptable.join()}`)
    assert.equal(selection.kind, acceptable.length > 1 ? 'tie' : 'minimum')
  }), { numRuns: 500 })
})

const rank = (index: number, potentialDecodeBlocks: number): ReferenceRank => ({
  workerId: BigInt(index), dpRank: 0, taints: [], deviceBlocks: 0, hostBlocks: 0, diskBlocks: 0,
  activePrefillTokens: 0, activeRequests: 0, potentialDecodeBlocks,
})

const request = { requestId: 'r', model: 'm', promptTokens: 0, trackPrefillTokens: true }

test('the worked example: 86 tokens in blocks of 8 over four ranks with hits in all tiers', () => {
  const tiers = [[4, 3, 1], [3, 2, 3], [8, 0, 0], [5, 1, 0]] as const
  const ranks = tiers.map(([deviceBlocks, hostBlocks, diskBlocks], index) => ({ ...rank(index, 10), deviceBlocks, hostBlocks, diskBlocks }))
  const rig = { ranks, pool: { weights: defaults, blockSize: 8, role: 'aggregated' as const }, request: { ...request, promptTokens: 86 } }
  const selection = new Selection()
  const { costs, key } = run(rig, selection, seeded(1))
  assert.deepEqual([...costs.values()], [14.25, 15.5, 12.75, 15])
  assert.equal(key, '2.0')
  assert.deepEqual([...selection.table.cachedTokens.subarray(0, 4)].map((cached) => 86 - cached), [34, 44, 22, 40])
})

/** Shares of each rank over many draws. */
function shares(rig: Rig, draws: number): number[] {
  const selection = new Selection()
  const random = seeded(7)
  const counts = rig.ranks.map(() => 0)
  for (let draw = 0; draw < draws; draw++) counts[run(rig, selection, random).row]! += 1
  return counts.map((count) => count / draws)
}

const closeTo = (found: readonly number[], expected: readonly number[], within: number): void =>
  found.forEach((share, index) => assert.ok(Math.abs(share - expected[index]!) < within, `${found.join()} instead of ${expected.join()}`))

test('ties are broken uniformly, whatever the order of the ranks', () => {
  const pool = { weights: defaults, blockSize: 4, role: 'aggregated' as const }
  closeTo(shares({ ranks: [5, 9, 5, 5].map((blocks, index) => rank(index, blocks)), pool, request }, 12_000), [1 / 3, 0, 1 / 3, 1 / 3], 0.02)
})

test('sampling follows the recorded shares for costs 4, 24, 44 at two temperatures', () => {
  const pool = { weights: defaults, blockSize: 4, role: 'aggregated' as const }
  const ranks = [4, 24, 44].map((blocks, index) => rank(index, blocks))
  closeTo(shares({ ranks, pool, request, temperature: 0.5 }, 12_000), [0.665, 0.245, 0.09], 0.02)
  closeTo(shares({ ranks, pool, request, temperature: 1.5 }, 12_000), [0.448, 0.321, 0.23], 0.02)
  const expected = referenceProbabilities(referenceScores(ranks, request, pool), 0.5)
  closeTo([0.665, 0.245, 0.09], expected, 0.001)
})

test('sampling survives a cost range beyond doubles, and equal costs are uniform', () => {
  const choice: Choice = { row: -1, kind: 'minimum' }
  const draw = (costs: readonly number[], float: number): number => {
    chooseBySampling(Float64Array.from(costs), costs.length, 1, { float: () => float, u64: () => [0, 0] }, new Float64Array(4), choice)
    return choice.row
  }
  assert.deepEqual([0, 0.5, 0.75, 0.999].map((float) => draw([-1.7e308, 1.7e308], float)), [0, 0, 1, 1])
  assert.deepEqual([0.1, 0.3, 0.6, 0.9].map((float) => draw([3, 3, 3, 3], float)), [0, 1, 2, 3])
})

test('a cost that is not finite is refused, not chosen', () => {
  const pool = { weights: { ...defaults, decodeActiveRequestWeight: 1e308 }, blockSize: 4, role: 'aggregated' as const }
  const selection = new Selection()
  const ranks = [{ ...rank(0, 1), activeRequests: 1e10 }, rank(1, 1)]
  selection.collect([{ workerId: 0n, dpStart: 0, slots: [0, 1], taints: new Set(), loraNames: new Set() }], Int32Array.of(0, 1), { ...request, tokens: new Uint32Array(0) }, null)
  ranks.forEach((each, row) => { selection.table.activeRequests[row] = each.activeRequests })
  assert.equal(selection.choose({ ...pool, promptTokens: 0, trackPrefillTokens: true, poolLabel: 'decode', loadOnly: false }, 0, seeded(1)), -1)
})

test('an override out of range is refused by its wire name and value', () => {
  assert.equal(overrideError({ overlapScoreCredit: 0, routerTemperature: 3, sharedCacheMultiplier: 1, assumeKvReuse: false }), null)
  assert.match(overrideError({ routerTemperature: -1 }) ?? '', /router_temperature .* got -1/)
  assert.match(overrideError({ prefillLoadScale: Infinity }) ?? '', /prefill_load_scale .* got Infinity/)
  assert.match(overrideError({ overlapScoreWeight: NaN }) ?? '', /overlap_score_weight .* got NaN/)
  assert.match(overrideError({ sharedCacheMultiplier: 1.5 }) ?? '', /shared_cache_multiplier must be between 0 and 1, got 1.5/)
})
