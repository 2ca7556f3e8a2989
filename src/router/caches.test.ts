/** What the router takes ranks to hold beyond their events: assumed, predicted and shared blocks; and prompts that must not meet. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { localBlockHashes, sequenceHashes } from '../hashing/block-hashes.ts'
import type { Decision, Refusal } from '../model/decision.ts'
import type { RoutingRequest } from '../model/routing-request.ts'
import { sharedHitsOf } from '../model/shared-cache.ts'
import type { WorkerDescription } from '../model/worker.ts'
import type { SharedCache } from '../ports.ts'
import type { RouterSettings } from './contract.ts'
import { KvRouter } from './kv-router.ts'
import { defaultRouterSettings } from './settings.ts'

const blockSize = 4

function rig(settings: Partial<RouterSettings>, workers: readonly Partial<WorkerDescription>[], sharedCache?: SharedCache) {
  const time = { nowMs: 0 }
  const clock = { nowMs: () => time.nowMs, epochMs: () => time.nowMs, setTimer: () => ({ cancel: () => undefined }) }
  const router = new KvRouter({ ...defaultRouterSettings, blockSize, ...settings }, { clock, random: { float: () => 0.5, u64: () => [1, 2] }, ...(sharedCache === undefined ? {} : { sharedCache }) })
  workers.forEach((fields, index) => router.upsertWorker({
    workerId: BigInt(index + 1), dpStart: 0, dpSize: 1, totalKvBlocks: null, maxNumBatchedTokens: null, taints: [], topologyDomains: new Map(), ...fields,
  }))
  return { router, time }
}

const range = (from: number, count: number): Uint32Array => Uint32Array.from({ length: count }, (_, index) => from + index)
const ask = (requestId: string, tokens: Uint32Array, fields: Partial<RoutingRequest> = {}): RoutingRequest => ({ requestId, model: 'm', tokens, ...fields })
const to = (workerId: bigint): Partial<RoutingRequest> => ({ pin: { workerId, dpRank: 0 } })

function chosen(outcome: Decision | Refusal): Decision {
  assert.equal(outcome.kind, 'chosen', outcome.kind === 'refused' ? outcome.message : '')
  return outcome as Decision
}

/** Device blocks of a prompt per rank. */
const heldOf = (router: KvRouter, tokens: Uint32Array, fields: Partial<RoutingRequest> = {}): number[] =>
  router.overlap({ tokens, ...fields }).rows.map(({ deviceBlocks }) => deviceBlocks)

const lru = { useKvEvents: false, approximateCachePolicy: 'lru' as const }

test('lru: assumed blocks stay without limit of time until the worker\'s capacity is used up, the oldest prompt first', () => {
  const { router, time } = rig(lru, [{ totalKvBlocks: 5 }])
  for (const [index, from] of [100, 200].entries()) {
    chosen(router.route(ask(`r${index}`, range(from, 8))))
    router.free(`r${index}`)
  }
  time.nowMs = 10 * 3600 * 1000
  router.tick()
  assert.deepEqual([heldOf(router, range(100, 8)), heldOf(router, range(200, 8))], [[2], [2]])
  chosen(router.route(ask('r2', range(300, 8))))
  assert.deepEqual([100, 200, 300].map((from) => heldOf(router, range(from, 8))[0]), [1, 2, 2], 'the deepest block of the oldest prompt makes room')
  router.free('r2')
  chosen(router.route(ask('r3', range(100, 8))))
  router.free('r3')
  assert.deepEqual([100, 200, 300].map((from) => heldOf(router, range(from, 8))[0]), [2, 1, 2], 'use renews')
})

test('lru: blocks of running requests stay, their partial blocks take room, outputs become blocks', () => {
  const { router } = rig(lru, [{ totalKvBlocks: 4 }])
  assert.equal(router.wantsOutputTokens, true)
  chosen(router.route(ask('old', range(500, 8))))
  router.free('old')
  chosen(router.route(ask('a', range(1, 10))))
  assert.deepEqual([heldOf(router, range(500, 8)), heldOf(router, range(1, 8))], [[1], [2]], 'two blocks and the begun one leave room for one')
  router.outputTokens('a', 3, [11, 12, 13])
  assert.deepEqual(heldOf(router, range(1, 16)), [3], 'tokens 1 to 12 are three blocks now')
  router.outputTokens('a', 8, [14, 15, 16, 17, 18])
  assert.deepEqual([heldOf(router, range(1, 16)), heldOf(router, range(500, 8))], [[4], [0]])
  assert.deepEqual(router.rankBlocks.bounded, {
    ranks: 1, leases: 1, idle: 0, privateBlocks: 1, resident: 5, overCapacity: 1, evicted: 2, evictions: 2, extensions: 2, agingRanks: 0, agings: 0,
  })
  router.free('a')
  assert.deepEqual(heldOf(router, range(1, 16)), [4])
})

test('lru: outputs hash as the next prompt does, with adapter, namespace and Eagle mode', () => {
  for (const isEagle of [false, true]) {
    const { router } = rig({ ...lru, isEagle }, [{ totalKvBlocks: 50 }])
    const salted = { loraName: 'a', cacheNamespace: 'n' }
    chosen(router.route(ask('x', range(1, 6), salted)))
    for (let token = 7; token <= 30; token++) router.outputTokens('x', token - 6, [token])
    router.free('x')
    assert.deepEqual([heldOf(router, range(1, 40), salted), heldOf(router, range(1, 40))], [[7], [0]])
  }
})

test('lru: a worker that tells no capacity ages by time; a worker that leaves takes its blocks along', () => {
  const { router, time } = rig({ ...lru, ttlSeconds: 2 }, [{ totalKvBlocks: 10 }, {}])
  chosen(router.route(ask('a', range(1, 8), to(1n))))
  chosen(router.route(ask('b', range(1, 8), to(2n))))
  assert.deepEqual(heldOf(router, range(1, 8)), [2, 2])
  time.nowMs = 2100
  router.tick()
  assert.deepEqual(heldOf(router, range(1, 8)), [2, 0])
  router.removeWorker(1n)
  assert.equal(router.indexEntryCount, 0)
  assert.equal(router.free('a'), false)
})

test('predicted blocks count on the device until their time is over, beside the blocks of events', () => {
  const { router, time } = rig({ predictedTtlSeconds: 1 }, [{}, {}])
  const local = localBlockHashes(range(1, 12), { blockSize })
  chosen(router.route(ask('a', range(1, 8), to(1n))))
  router.applyEvent({ workerId: 2n, dpRank: 0, storageTier: 'device', residencyDomain: 'worker', eventId: 1n,
    data: { kind: 'stored', parentHash: null, startPosition: null, blockHashes: sequenceHashes(local), tokensHashes: local, mmInfos: null } })
  assert.deepEqual(heldOf(router, range(1, 12)), [2, 3])
  assert.equal(chosen(router.select(ask('b', range(1, 12), to(1n)))).cachedTokens, 8)
  time.nowMs = 1100
  router.tick()
  assert.deepEqual(heldOf(router, range(1, 12)), [0, 3])
  chosen(router.route(ask('c', range(1, 8), to(2n))))
  router.applyEvent({ workerId: 2n, dpRank: 0, storageTier: 'device', residencyDomain: 'worker', eventId: 2n, data: { kind: 'cleared' } })
  assert.deepEqual(heldOf(router, range(1, 12)), [0, 2], 'the blocks of events are gone, what is predicted stays')
  time.nowMs = 2300
  router.tick()
  assert.deepEqual(heldOf(router, range(1, 12)), [0, 0])
})

test('assumed blocks beyond the bound are pruned to its share, the oldest first', () => {
  const { router, time } = rig({ useKvEvents: false, maxTreeSize: 6, pruneTargetRatio: 0.5 }, [{}])
  for (const from of [100, 200, 300]) {
    chosen(router.route(ask(`r${from}`, range(from, 8))))
    time.nowMs += 1000
  }
  assert.deepEqual([100, 200, 300].map((from) => heldOf(router, range(from, 8))[0]), [2, 2, 2], 'six are not too many')
  chosen(router.route(ask('r400', range(400, 4))))
  assert.deepEqual([100, 200, 300, 400].map((from) => heldOf(router, range(from, 8))[0]), [0, 0, 2, 1])
  assert.equal(router.boundCounts.prunedBlocks, 4)
})

test('a shared cache counts beyond what the rank holds, by its multiplier, and in reports', () => {
  const shared: SharedCache = { setWorker() {}, hits: () => sharedHitsOf([true, true, false, true]) }
  const { router } = rig({ predictedTtlSeconds: 9 }, [{}, {}], shared)
  chosen(router.route(ask('a', range(1, 8), to(1n))))
  router.free('a')
  const [warm, cold] = chosen(router.select(ask('b', range(1, 16)))).explain().candidates
  assert.deepEqual([warm?.credit, cold?.credit], [2 + 0.5, 1.5])
  assert.deepEqual(router.overlap({ tokens: range(1, 16) }).shared, { ranges: [[0, 2], [3, 4]], total: 3, error: null })
  assert.equal(router.overlap({ tokens: range(1, 16), includeShared: false }).shared, null)
  const dear = rig({ sharedCacheMultiplier: 1 }, [{}], shared).router
  assert.equal(chosen(dear.select(ask('b', range(1, 16)))).explain().candidates[0]?.credit, 3)
})

test('prompts of different adapter, namespace or image share nothing: assumed, predicted, and in load', () => {
  const image = (hash: bigint): Partial<RoutingRequest> => ({ blockMmInfos: [{ mmObjects: [{ mmHash: hash, offsets: [] }] }, null] })
  const kinds: readonly Partial<RoutingRequest>[] = [{}, { loraName: 'a' }, { loraName: 'b' }, { cacheNamespace: 'a' }, { loraName: 'a', cacheNamespace: 'a' }, image(1n), image(2n)]
  for (const settings of [{ useKvEvents: false }, lru, { predictedTtlSeconds: 60 }]) {
    const { router } = rig(settings, [{ totalKvBlocks: 1000 }])
    kinds.forEach((kind, index) => {
      for (const other of kinds) assert.deepEqual(heldOf(router, range(1, 8), other), [kinds.indexOf(other) < index ? 2 : 0])
      const decision = chosen(router.route(ask(`r${index}`, range(1, 8), kind)))
      assert.deepEqual([decision.deviceBlocks, router.loads()[0]?.activeDecodeBlocks], [0, 2 * (index + 1)])
      assert.equal(chosen(router.select(ask('again', range(1, 8), kind))).deviceBlocks, 2)
    })
    // The same prompt again is no further load of blocks.
    kinds.forEach((kind, index) => { chosen(router.route(ask(`s${index}`, range(1, 8), kind))) })
    assert.equal(router.loads()[0]?.activeDecodeBlocks, 2 * kinds.length)
  }
})

test('keyed tracking hashes keep adapters and namespaces apart, too', () => {
  const tracking = { mode: 'keyed-xxh3-v1' as const, key: new Uint8Array(32).fill(7), keyId: 'k', routingGroup: 'g' }
  const { router } = rig({ tracking }, [{}])
  const kinds: readonly Partial<RoutingRequest>[] = [{}, { loraName: 'a' }, { cacheNamespace: 'a' }, { model: 'other' }]
  for (const round of [1, 2]) {
    kinds.forEach((kind, index) => { chosen(router.route(ask(`r${round}.${index}`, range(1, 8), kind))) })
    assert.equal(router.loads()[0]?.activeDecodeBlocks, 8)
  }
})

test('the measured load model: after a first prompt, work shrinks while it is done', () => {
  const { router, time } = rig({ prefillLoadModel: { kind: 'measured' } }, [{}, {}])
  chosen(router.route(ask('a', range(1, 100), to(1n))))
  time.nowMs = 200
  assert.deepEqual(router.loads().map(({ activePrefillTokens }) => activePrefillTokens), [100, 0], 'nothing is known yet')
  router.prefillCompleted('a')
  router.free('a')
  chosen(router.route(ask('b', range(1000, 50), to(2n))))
  time.nowMs = 250
  assert.deepEqual(router.loads().map(({ activePrefillTokens }) => activePrefillTokens), [0, 25], 'two milliseconds per token')
  time.nowMs = 1000
  assert.equal(chosen(router.select(ask('c', range(5000, 8), to(2n)))).explain().candidates[0]?.activePrefillTokens, 0)
  router.free('b')
  assert.deepEqual(router.loads().map(({ activePrefillTokens }) => activePrefillTokens), [0, 0])
})
