import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { localBlockHashes, sequenceHashes } from '../hashing/block-hashes.ts'
import type { Decision, Refusal } from '../model/decision.ts'
import type { RouterEvent } from '../model/kv-event.ts'
import type { RoutingRequest } from '../model/routing-request.ts'
import type { WorkerDescription } from '../model/worker.ts'
import type { Random } from '../ports.ts'
import type { RouterListener, RouterSettings } from './contract.ts'
import { KvRouter } from './kv-router.ts'
import { defaultRouterSettings } from './settings.ts'

const blockSize = 4

function seeded(seed: number): Random {
  let state = seed >>> 0
  const word = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state
  }
  return { float: () => word() / 2 ** 32, u64: () => [word(), word()] }
}

interface Rig {
  readonly router: KvRouter
  readonly time: { nowMs: number }
}

function rig(settings: Partial<RouterSettings> = {}, listener: RouterListener = {}): Rig {
  const time = { nowMs: 0 }
  const clock = { nowMs: () => time.nowMs, epochMs: () => time.nowMs, setTimer: () => ({ cancel: () => undefined }) }
  return { router: new KvRouter({ ...defaultRouterSettings, blockSize, ...settings }, { clock, random: seeded(1), listener }), time }
}

const worker = (workerId: bigint, fields: Partial<WorkerDescription> = {}): WorkerDescription => ({
  workerId, dpStart: 0, dpSize: 1, totalKvBlocks: 100, maxNumBatchedTokens: 1000, taints: [], topologyDomains: new Map(), ...fields,
})

const tokens = (...values: number[]): Uint32Array => Uint32Array.from(values)
const prompt = tokens(1, 2, 3, 4, 5, 6, 7, 8, 9)

const ask = (fields: Partial<RoutingRequest> = {}): RoutingRequest => ({ requestId: 'r', model: 'm', tokens: prompt, ...fields })

function chosen(outcome: Decision | Refusal): Decision {
  assert.equal(outcome.kind, 'chosen', outcome.kind === 'refused' ? outcome.message : '')
  return outcome as Decision
}

function refused(outcome: Decision | Refusal): Refusal {
  assert.equal(outcome.kind, 'refused')
  return outcome as Refusal
}

function stored(workerId: bigint, content: Uint32Array, fields: Partial<RouterEvent> = {}): RouterEvent {
  const tokensHashes = localBlockHashes(content, { blockSize })
  return {
    workerId, dpRank: 0, storageTier: 'device', residencyDomain: 'worker', eventId: 1n,
    data: { kind: 'stored', parentHash: null, startPosition: null, blockHashes: sequenceHashes(tokensHashes), tokensHashes, mmInfos: null }, ...fields,
  }
}

test('the worker whose cache is warm is chosen, and the decision explains each term', () => {
  const { router } = rig()
  for (const id of [1n, 2n, 3n]) router.upsertWorker(worker(id))
  assert.equal(router.applyEvent(stored(2n, prompt)), 'ok')
  const decision = chosen(router.route(ask()))
  assert.deepEqual(
    [decision.workerId, decision.deviceBlocks, decision.cachedTokens, decision.effectivePrefillTokens, decision.promptBlocks, decision.booked],
    [2n, 2, 8, 1, 2, true],
  )
  const { candidates, choice } = decision.explain()
  assert.equal(choice, 'minimum')
  assert.deepEqual(candidates.map(({ workerId, cost, prefillTerm, decodeTerm }) => [workerId, cost, prefillTerm, decodeTerm]), [
    [1n, 4.25, 2.25, 2], [2n, 2.25, 0.25, 2], [3n, 4.25, 2.25, 2],
  ])
})

test('an explanation outlives other calls but not the next decision', () => {
  const { router } = rig()
  router.upsertWorker(worker(1n))
  const decision = chosen(router.select(ask()))
  router.overlap({ tokens: prompt })
  assert.equal(decision.explain().candidates.length, 1)
  router.select(ask())
  assert.throws(() => decision.explain(), /until the next decision/)
})

test('loads: booking, first output and end', () => {
  const { router } = rig()
  router.upsertWorker(worker(1n))
  chosen(router.route(ask()))
  const row = { workerId: 1n, dpRank: 0, cachedBlocks: 0 }
  assert.deepEqual(router.loads(), [{ ...row, activePrefillTokens: 9, activeDecodeBlocks: 2, activeRequests: 1 }])
  assert.equal(router.prefillCompleted('r'), true)
  assert.deepEqual(router.loads(), [{ ...row, activePrefillTokens: 0, activeDecodeBlocks: 2, activeRequests: 1 }])
  assert.deepEqual([router.free('r'), router.free('r'), router.prefillCompleted('r')], [true, false, false])
  assert.deepEqual(router.loads(), [{ ...row, activePrefillTokens: 0, activeDecodeBlocks: 0, activeRequests: 0 }])
})

test('refusals carry the words of Dynamo', () => {
  const { router } = rig()
  const reasonAndText = (request: Partial<RoutingRequest>): [string, string] => {
    const { reason, message } = refused(router.select(ask(request)))
    return [reason, message]
  }
  assert.match(reasonAndText({})[1], /^no endpoints available to route work/)
  router.upsertWorker(worker(1n, { taints: ['slow'] }))
  router.upsertWorker(worker(2n, { dpStart: 4, dpSize: 2 }))
  const allowed = new Set([2n])
  assert.deepEqual(reasonAndText({ pin: { workerId: 9n, dpRank: null } }), ['pinned-unknown', 'nvext.backend_instance_id=9 does not identify a known worker'])
  assert.deepEqual(reasonAndText({ pin: { workerId: 1n, dpRank: 0 }, allowedWorkerIds: allowed }), ['pinned-not-allowed', 'pinned worker 1 is not in allowed worker set'])
  assert.match(reasonAndText({ pin: { workerId: 2n, dpRank: null } })[1], /^Pinned worker 2 requires an explicit dp_rank because it has multiple or unknown DP ranks/)
  assert.equal(reasonAndText({ pin: { workerId: 2n, dpRank: 3 } })[1], 'Pinned worker 2 dp_rank 3 is not eligible: worker 2 dp_rank 3 is outside [4, 6)')
  assert.equal(reasonAndText({ pin: { workerId: 1n, dpRank: null }, excludedWorkerIds: new Set([1n]) })[0], 'pinned-set-aside')
  assert.equal(reasonAndText({ pin: { workerId: 2n, dpRank: 4 }, requiredTaints: ['slow'] })[0], 'none-eligible')
  assert.deepEqual(reasonAndText({ requiredTaints: ['zone=a'] }), ['none-eligible', 'no endpoints available to route work: 2 missing-taint (zone=a)'])
  assert.deepEqual(reasonAndText({ allowedWorkerIds: new Set() }), ['none-eligible', 'no endpoints available to route work: 2 not-allowed'])
  assert.equal(reasonAndText({ dpRank: 7 })[0], 'none-eligible')
  assert.match(reasonAndText({ override: { routerTemperature: -1 } })[1], /router_temperature/)
  chosen(router.route(ask({ pin: { workerId: 2n, dpRank: 5 } })))
  assert.deepEqual(
    refused(router.route(ask())).message,
    'Request r already exists (assigned to worker WorkerWithDpRank { worker_id: 2, dp_rank: 5 })',
  )
})

test('eligibility: ranks asked for, topology taints, excluded workers, adapters', () => {
  const { router } = rig()
  router.upsertWorker(worker(1n, { dpSize: 2, topologyDomains: new Map([['rack', 'r1']]) }))
  router.upsertWorker(worker(2n, { loraNames: ['sql'] }))
  const ranks = (request: Partial<RoutingRequest>): string[] =>
    chosen(router.select(ask(request))).explain().candidates.map(({ workerId, dpRank }) => `${workerId}.${dpRank}`)
  assert.deepEqual(ranks({}), ['1.0', '1.1', '2.0'])
  assert.deepEqual(ranks({ dpRank: 1 }), ['1.1'])
  assert.deepEqual(ranks({ requiredTaints: ['dynamo.topology/rack=r1'] }), ['1.0', '1.1'])
  assert.deepEqual(ranks({ excludedWorkerIds: new Set([1n]) }), ['2.0'])
  assert.deepEqual(ranks({ loraName: 'sql' }), ['2.0'])
  assert.deepEqual(ranks({ loraName: 'sql', excludedWorkerIds: new Set([2n]) }), ['1.0', '1.1'])
  assert.deepEqual(ranks({ loraName: 'other' }), ['1.0', '1.1', '2.0'])
  assert.deepEqual(chosen(router.select(ask({ dpRank: 1 }))).explain().exclusions, [
    { workerId: 2n, dpRank: 0, reason: 'rank-not-asked', detail: 'dp_rank 1' },
    { workerId: 1n, dpRank: 0, reason: 'rank-not-asked', detail: 'dp_rank 1' },
  ])
  assert.deepEqual(chosen(router.select(ask({ loraName: 'sql' }))).explain().exclusions, [
    { workerId: 1n, dpRank: null, reason: 'lacks-adapter', detail: 'sql' },
  ])
  assert.deepEqual(chosen(router.select(ask({ pin: { workerId: 2n, dpRank: null } }))).explain(), {
    ...chosen(router.select(ask({ pin: { workerId: 2n, dpRank: 0 } }))).explain(), choice: 'pinned',
  })
})

test('busy thresholds: overloaded workers are passed over, then refused as overloaded, pinned ones at once', () => {
  const { router } = rig({ activePrefillTokensThreshold: 8 })
  router.upsertWorker(worker(1n))
  router.upsertWorker(worker(2n))
  const first = chosen(router.route(ask({ requestId: 'a' })))
  const second = chosen(router.route(ask({ requestId: 'b' })))
  assert.notEqual(first.workerId, second.workerId)
  const all = refused(router.route(ask({ requestId: 'c' })))
  assert.equal(all.reason, 'all-overloaded')
  assert.match(all.message, /^all eligible workers are overloaded/)
  assert.equal(refused(router.route(ask({ requestId: 'c', pin: { workerId: 1n, dpRank: null } }))).reason, 'pinned-overloaded')
  assert.equal(refused(router.route(ask({ requestId: 'c', requiredTaints: ['x'] }))).reason, 'none-eligible')
  router.prefillCompleted('a')
  assert.equal(chosen(router.route(ask({ requestId: 'c' }))).workerId, first.workerId)
  router.reportLoad({ workerId: first.workerId, dpRank: 0 }, { activeDecodeBlocks: null, activePrefillTokens: 0, kvUsedBlocks: null })
  assert.equal(chosen(router.route(ask({ requestId: 'd' }))).workerId, first.workerId)
})

test('busy thresholds can be changed while requests run', () => {
  const { router } = rig()
  router.upsertWorker(worker(1n))
  chosen(router.route(ask({ requestId: 'a' })))
  router.setBusyThresholds({ decodeBlocks: null, prefillTokens: 8, prefillTokensFraction: null })
  assert.equal(refused(router.route(ask({ requestId: 'b' }))).reason, 'all-overloaded')
  router.setBusyThresholds({ decodeBlocks: null, prefillTokens: null, prefillTokensFraction: null })
  chosen(router.route(ask({ requestId: 'b' })))
})

test('modes beside kv: loads decide, not caches; direct takes named workers only', () => {
  const { router } = rig({ selectionMode: 'least-loaded' })
  router.upsertWorker(worker(1n))
  router.upsertWorker(worker(2n))
  assert.equal(router.applyEvent(stored(1n, prompt)), 'ok')
  const first = chosen(router.route(ask({ requestId: 'a' })))
  assert.notEqual(chosen(router.route(ask({ requestId: 'b' }))).workerId, first.workerId)
  const direct = rig({ selectionMode: 'direct' }).router
  direct.upsertWorker(worker(1n))
  assert.match(refused(direct.route(ask())).message, /direct routing needs the worker/)
  assert.equal(chosen(direct.route(ask({ pin: { workerId: 1n, dpRank: null } }))).workerId, 1n)
})

test('without events a routed prompt counts as cached until its time is over; selecting records nothing', () => {
  const { router, time } = rig({ useKvEvents: false, ttlSeconds: 1 })
  router.upsertWorker(worker(1n))
  router.select(ask())
  assert.equal(router.overlap({ tokens: prompt }).rows[0]?.deviceBlocks, 0)
  chosen(router.route(ask()))
  assert.equal(router.overlap({ tokens: prompt }).rows[0]?.deviceBlocks, 2)
  time.nowMs = 1200
  router.tick()
  assert.equal(router.overlap({ tokens: prompt }).rows[0]?.deviceBlocks, 0)
})

test('a worker that publishes no events is indexed by decisions until its first event', () => {
  const modes: string[] = []
  const { router } = rig({}, { onIndexMode: (rank, mode) => modes.push(`${rank.workerId} ${mode}`) })
  router.upsertWorker(worker(1n, { publishesKvEvents: false }))
  chosen(router.route(ask()))
  assert.equal(router.overlap({ tokens: prompt }).rows[0]?.deviceBlocks, 2)
  const other = tokens(9, 9, 9, 9)
  assert.equal(router.applyEvent(stored(1n, other)), 'ok')
  assert.equal(router.overlap({ tokens: prompt }).rows[0]?.deviceBlocks, 0)
  assert.equal(router.overlap({ tokens: other }).rows[0]?.deviceBlocks, 1)
  router.setIndexMode({ workerId: 1n, dpRank: 0 }, 'approximate')
  assert.equal(router.overlap({ tokens: other }).rows[0]?.deviceBlocks, 0)
  assert.deepEqual(modes, ['1 approximate', '1 events', '1 approximate'])
})

test('events: foreign domains and unknown ranks change nothing, cleared empties all tiers of its rank', () => {
  const statuses: string[] = []
  const { router } = rig({}, { onEventApplied: (kind, tier, status) => statuses.push(`${kind} ${tier} ${status}`) })
  router.upsertWorker(worker(1n))
  router.upsertWorker(worker(2n))
  for (const id of [1n, 2n]) for (const storageTier of ['device', 'disk'] as const) router.applyEvent(stored(id, prompt, { storageTier }))
  assert.equal(router.applyEvent(stored(1n, prompt, { residencyDomain: 'cache_owner' })), 'unsupported_residency_domain')
  assert.equal(router.applyEvent(stored(1n, prompt, { residencyDomain: 'unsupported' })), 'unsupported_residency_domain')
  assert.equal(router.applyEvent(stored(7n, prompt)), 'invalid_block')
  router.applyEvent({ ...stored(1n, prompt, { residencyDomain: 'absent' }), data: { kind: 'cleared' } })
  assert.deepEqual(router.overlap({ tokens: prompt }).rows.map(({ deviceBlocks, diskExtensionBlocks }) => [deviceBlocks, diskExtensionBlocks]), [[0, 0], [2, 0]])
  router.resetRank({ workerId: 2n, dpRank: 0 })
  assert.equal(router.indexEntryCount, 0)
  assert.deepEqual(statuses.slice(-2), ['stored device invalid_block', 'cleared device ok'])
})

test('a worker that changes its ranks keeps blocks and bookings of those that stay', () => {
  const { router } = rig()
  router.upsertWorker(worker(1n, { dpStart: 0, dpSize: 2 }))
  for (const dpRank of [0, 1]) router.applyEvent(stored(1n, prompt, { dpRank }))
  for (const dpRank of [0, 1]) chosen(router.route(ask({ requestId: `r${dpRank}`, pin: { workerId: 1n, dpRank } })))
  router.upsertWorker(worker(1n, { dpStart: 1, dpSize: 2 }))
  assert.deepEqual(router.loads().map(({ dpRank, activeRequests, cachedBlocks }) => [dpRank, activeRequests, cachedBlocks]), [[1, 1, 2], [2, 0, 0]])
  assert.deepEqual([router.free('r0'), router.free('r1')], [false, true])
  router.removeWorker(1n)
  router.upsertWorker(worker(5n))
  assert.deepEqual(router.overlap({ tokens: prompt }).rows, [{ workerId: 5n, dpRank: 0, deviceBlocks: 0, hostExtensionBlocks: 0, diskExtensionBlocks: 0 }])
})

test('listeners hear of new workers, of changed ranks and of approximate ranks that are given up', () => {
  const heard: string[] = []
  const { router } = rig({}, {
    onWorkerAdded: ({ workerId, dpStart, dpSize }) => heard.push(`${workerId} has ${dpStart}+${dpSize}`),
    onIndexMode: ({ dpRank }, mode) => heard.push(`${dpRank} ${mode}`),
    onWorkerRemoved: (workerId) => heard.push(`${workerId} gone`),
  })
  router.upsertWorker(worker(1n, { dpSize: 2, publishesKvEvents: false }))
  router.upsertWorker(worker(1n, { dpSize: 2, publishesKvEvents: false, taints: ['slow'] }))
  router.upsertWorker(worker(1n, { dpSize: 1, publishesKvEvents: false }))
  router.removeWorker(1n)
  router.removeWorker(1n)
  router.upsertWorker(worker(2n, { dpSize: 2 ** 32 - 1 }))
  assert.deepEqual(heard, ['1 has 0+2', '0 approximate', '1 approximate', '1 events', '1 has 0+1', '1 gone', '2 has 0+4096'])
})

test('a plain decode pool is routed by load alone and books the whole prompt', () => {
  const { router } = rig({ role: 'decode' })
  router.upsertWorker(worker(1n))
  router.applyEvent(stored(1n, prompt))
  const decision = chosen(router.select(ask()))
  assert.deepEqual([decision.cachedTokens, decision.effectivePrefillTokens, decision.cost], [0, 9, 4.25])
})

test('settings and overrides: reuse, prefill tracking, block tracking', () => {
  const { router } = rig()
  router.upsertWorker(worker(1n))
  chosen(router.route(ask({ requestId: 'a' })))
  chosen(router.route(ask({ requestId: 'b' })))
  assert.equal(router.loads()[0]?.activeDecodeBlocks, 2)
  chosen(router.route(ask({ requestId: 'c', override: { assumeKvReuse: false, trackPrefillTokens: false, overlapScoreCredit: 9 } })))
  assert.deepEqual([router.loads()[0]?.activeDecodeBlocks, router.loads()[0]?.activePrefillTokens], [4, 18])
  const untracked = rig({ trackActiveBlocks: false }).router
  untracked.upsertWorker(worker(1n))
  assert.equal(chosen(untracked.route(ask())).explain().candidates[0]?.potentialDecodeBlocks, 0)
  assert.equal(untracked.loads()[0]?.activeDecodeBlocks, 0)
})

test('keyed tracking counts shared prompts as public tracking does', () => {
  const { router } = rig({ tracking: { mode: 'keyed-xxh3-v1', key: new Uint8Array(32).fill(7), keyId: 'k', routingGroup: 'default' } })
  router.upsertWorker(worker(1n))
  chosen(router.route(ask({ requestId: 'a' })))
  chosen(router.route(ask({ requestId: 'b' })))
  assert.equal(router.loads()[0]?.activeDecodeBlocks, 2)
  assert.throws(() => rig({ tracking: { mode: 'keyed-xxh3-v1', key: new Uint8Array(5), keyId: 'k', routingGroup: 'default' } }), /32/)
})

test('Eagle windows need one token more than the block', () => {
  const { router } = rig({ isEagle: true })
  router.upsertWorker(worker(1n))
  assert.deepEqual([4, 5, 8, 9].map((length) => chosen(router.select(ask({ tokens: prompt.subarray(0, length) }))).promptBlocks), [0, 1, 1, 2])
  assert.equal(chosen(router.route(ask({ tokens: tokens() }))).cost, 0)
})

test('an idle booking expires and its listener hears of it', () => {
  const expired: string[] = []
  const { router, time } = rig({ activeRequestExpirySeconds: 10 }, { onBookingExpired: (requestId, rank) => expired.push(`${requestId} ${rank.workerId}`) })
  router.upsertWorker(worker(1n))
  chosen(router.route(ask({ requestId: 'idle' })))
  chosen(router.route(ask({ requestId: 'busy' })))
  time.nowMs = 9000
  router.tick()
  router.outputTokens('busy', 3)
  time.nowMs = 12_000
  router.tick()
  assert.deepEqual([expired, router.bookingCount], [['idle 1'], 1])
})

const action = fc.record({
  op: fc.constantFrom('route', 'prefill', 'output', 'free', 'worker', 'gone'),
  id: fc.nat(7), worker: fc.nat(3), length: fc.nat(20), value: fc.nat(2),
})

test('whatever happens, loads are never negative, and all zero when every request has ended', () => {
  fc.assert(fc.property(fc.array(action, { maxLength: 50 }), fc.boolean(), fc.boolean(), (script, trackOutputBlocks, useKvEvents) => {
    const { router } = rig({ trackOutputBlocks, useKvEvents })
    router.upsertWorker(worker(0n, { dpSize: 2 }))
    for (const { op, id, worker: index, length, value } of script) {
      const requestId = `r${id}`
      if (op === 'route') router.route(ask({ requestId, tokens: new Uint32Array(length).fill(value), expectedOutputTokens: 8 }))
      else if (op === 'prefill') router.prefillCompleted(requestId)
      else if (op === 'output') router.outputTokens(requestId, length)
      else if (op === 'free') router.free(requestId)
      else if (op === 'worker') router.upsertWorker(worker(BigInt(index), { dpStart: value, dpSize: 1 + (length % 3) }))
      else router.removeWorker(BigInt(index))
      for (const row of router.loads()) assert.ok(row.activePrefillTokens >= 0 && row.activeDecodeBlocks >= 0 && row.activeRequests >= 0)
      assert.equal(router.loads().reduce((sum, row) => sum + row.activeRequests, 0), router.bookingCount)
    }
    for (let id = 0; id <= 7; id++) router.free(`r${id}`)
    assert.equal(router.bookingCount, 0)
    for (const row of router.loads()) assert.deepEqual([row.activePrefillTokens, row.activeDecodeBlocks, row.activeRequests], [0, 0, 0])
  }), { numRuns: 200 })
})
