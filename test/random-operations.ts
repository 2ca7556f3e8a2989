/** Random operations on the router and on its oracle side by side; every answer is compared. A seed gives the same run again. */
import assert from 'node:assert/strict'
import { localBlockHashes, sequenceHashes } from '../src/hashing/block-hashes.ts'
import { sharedHitsOf } from '../src/model/shared-cache.ts'
import { hashAt } from '../src/model/hash-list.ts'
import type { KvEventData, RouterEvent, StorageTier } from '../src/model/kv-event.ts'
import type { RoutingRequest } from '../src/model/routing-request.ts'
import type { WorkerDescription, WorkerRank } from '../src/model/worker.ts'
import type { SharedCache } from '../src/ports.ts'
import type { RouterSettings } from '../src/router/contract.ts'
import { KvRouter } from '../src/router/kv-router.ts'
import { ReferenceRouter } from './reference-router.ts'
import { defaultRouterSettings } from '../src/router/settings.ts'

export interface OperationCounts {
  operations: number
  decisions: number
  refusals: number
  ties: number
  /** Decisions whose chosen rank held blocks of the prompt. */
  warm: number
}

/** Operations before settings and workers are drawn anew. */
const episodeLength = 250

class Draw {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  below(count: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * count)
  }

  one<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!
  }

  chance(percent: number): boolean {
    return this.below(100) < percent
  }

  some<T>(items: readonly T[]): T[] {
    return items.filter(() => this.chance(50))
  }
}

const taintNames = ['slow', 'zone=a', 'zone=b']
const blockSize = 4

function drawSettings(draw: Draw): RouterSettings {
  const weight = (): number => draw.one([0, 0.25, 0.5, 1, 1, 1.75])
  const parameters = { overlapScoreCredit: weight(), prefillLoadScale: weight(), hostCacheHitWeight: draw.one([0, 0.5, 1]), sharedCacheMultiplier: draw.one([0, 0.5]) }
  const policies = [
    {}, {}, {}, { selectionPolicy: { type: 'dynamo-default-cost-fn', name: 'mine', parameters } as const },
    { selectionPolicy: { type: 'dynamo-two-tier-cost-fn', name: 'even', parameters: { cacheThreshold: 0.4, balanceAbsThreshold: 1, balanceRelThreshold: 1.5 } } as const },
  ]
  const useKvEvents = draw.chance(75)
  return {
    ...defaultRouterSettings, blockSize, isEagle: draw.chance(20), role: draw.one(['aggregated', 'aggregated', 'prefill', 'decode'] as const), ...draw.one(policies),
    overlapScoreCredit: weight(), overlapScoreCreditDecay: draw.one([0, 0, 1]), prefillLoadScale: weight(), decodeActiveRequestWeight: draw.one([0, 0, 2]),
    hostCacheHitWeight: draw.one([0, 0.75, 1]), diskCacheHitWeight: draw.one([0, 0.25, 1]), useKvEvents, ttlSeconds: 2,
    predictedTtlSeconds: useKvEvents && draw.chance(30) ? 1 : null, trackActiveBlocks: draw.chance(85), assumeKvReuse: draw.chance(85), trackPrefillTokens: draw.chance(80),
  }
}

/** One router with its oracle, and what has been asked of them. */
class Episode {
  readonly #draw: Draw
  readonly #counts: OperationCounts
  readonly #settings: RouterSettings
  readonly #router: KvRouter
  readonly #oracle: ReferenceRouter
  readonly #workers = new Map<bigint, WorkerDescription>()
  readonly #live: string[] = []
  #nowMs = 0
  #nextRequest = 0

  constructor(draw: Draw, counts: OperationCounts) {
    this.#draw = draw
    this.#counts = counts
    this.#settings = drawSettings(draw)
    // Holds blocks by their first token: enough for gaps between ranges.
    const shared: SharedCache = {
      setWorker() {},
      hits: ({ tokens }) => sharedHitsOf(Array.from({ length: Math.floor(tokens.length / blockSize) }, (_, block) => tokens[block * blockSize]! % 3 === 1)),
    }
    const sharedCache = draw.chance(30) ? { sharedCache: shared } : {}
    const clock = { nowMs: () => this.#nowMs, epochMs: () => this.#nowMs, setTimer: () => ({ cancel: () => undefined }) }
    this.#router = new KvRouter(this.#settings, { clock, random: { float: () => draw.below(1 << 20) / (1 << 20), u64: () => [draw.below(2 ** 32), draw.below(2 ** 32)] }, ...sharedCache })
    this.#oracle = new ReferenceRouter(this.#settings, sharedCache.sharedCache)
    for (let index = 0; index < 3; index++) this.#upsert()
  }

  step(): void {
    const roll = this.#draw.below(100)
    this.#counts.operations += 1
    if (roll < 30) this.#event()
    else if (roll < 70) this.#decide(roll < 58)
    else if (roll < 85) this.#change()
    else if (roll < 90) this.#time()
    else if (roll < 93) this.#upsert()
    else if (roll < 94) this.#remove()
    else this.#compareReports()
  }

  #upsert(): void {
    const draw = this.#draw
    const worker: WorkerDescription = {
      workerId: 2n ** 60n + BigInt(draw.below(5)), dpStart: draw.below(2), dpSize: 1 + draw.below(2), totalKvBlocks: 100, maxNumBatchedTokens: 1000,
      taints: draw.some(taintNames), topologyDomains: new Map(), loraNames: draw.chance(30) ? ['adapter'] : [],
    }
    this.#workers.set(worker.workerId, worker)
    this.#router.upsertWorker(worker)
    this.#oracle.upsertWorker(worker)
  }

  #remove(): void {
    const workerId = 2n ** 60n + BigInt(this.#draw.below(5))
    this.#workers.delete(workerId)
    this.#router.removeWorker(workerId)
    this.#oracle.removeWorker(workerId)
  }

  #rank(): WorkerRank {
    return { workerId: 2n ** 60n + BigInt(this.#draw.below(5)), dpRank: this.#draw.below(3) }
  }

  /** Prompts share prefixes: blocks are drawn from three kinds. Of `salted` ones some belong to an adapter, a namespace or hold an image. */
  #prompt(): Pick<RoutingRequest, 'tokens' | 'loraName' | 'cacheNamespace' | 'blockMmInfos'> {
    const draw = this.#draw
    const blocks = Array.from({ length: draw.below(6) }, () => draw.one([[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9]]))
    const tokens = Uint32Array.from([...blocks.flat(), ...Array.from({ length: draw.below(4) }, () => 7)])
    return {
      tokens, ...(draw.chance(15) ? { loraName: 'adapter' } : {}), ...(draw.chance(10) ? { cacheNamespace: 'tenant' } : {}),
      ...(draw.chance(10) ? { blockMmInfos: [null, { mmObjects: [{ mmHash: BigInt(1 + draw.below(2)), offsets: [] }] }] } : {}),
    }
  }

  #event(): void {
    const draw = this.#draw
    const prompt = this.#prompt()
    const local = localBlockHashes(prompt.tokens, { ...prompt, blockSize, isEagle: this.#settings.isEagle })
    const names = sequenceHashes(local)
    const count = local.length / 2
    const from = count === 0 || draw.chance(60) ? 0 : draw.below(count)
    const kind = draw.below(20)
    const data: KvEventData = kind === 0 ? { kind: 'cleared' }
      : kind < 7 ? { kind: 'removed', blockHashes: names.slice(2 * from) }
        : { kind: 'stored', parentHash: from === 0 ? null : hashAt(names, from - 1), startPosition: null, blockHashes: names.slice(2 * from), tokensHashes: local.slice(2 * from), mmInfos: null }
    const storageTier: StorageTier = draw.chance(70) ? 'device' : draw.one(['host_pinned', 'disk', 'external'])
    const event: RouterEvent = { ...this.#rank(), storageTier, residencyDomain: 'worker', eventId: 1n, data }
    assert.equal(this.#router.applyEvent(event), this.#oracle.applyEvent(event))
  }

  #request(): RoutingRequest {
    const draw = this.#draw
    const ids = [...this.#workers.keys()]
    return {
      requestId: `r${this.#nextRequest++}`, model: 'm', ...this.#prompt(),
      ...(draw.chance(10) ? { allowedWorkerIds: new Set(draw.some(ids)) } : {}), ...(draw.chance(10) ? { excludedWorkerIds: new Set(draw.some(ids)) } : {}),
      ...(draw.chance(10) ? { requiredTaints: [draw.one(taintNames)] } : {}), ...(draw.chance(5) ? { dpRank: draw.below(3) } : {}),
      ...(draw.chance(15) ? { preferredTaints: new Map(draw.some(taintNames).map((taint) => [taint, draw.one([-1, -0.25, 0.5, 2])])) } : {}),
      ...(draw.chance(10) && ids.length > 0 ? { affinity: { workerId: draw.one([...ids, 999n]), dpRank: draw.one([null, 0, 1]) } } : {}),
      ...(draw.chance(15) ? { override: { ...(draw.chance(50) ? { assumeKvReuse: draw.chance(50) } : {}), ...(draw.chance(50) ? { trackPrefillTokens: draw.chance(50) } : {}) } } : {}),
    }
  }

  #decide(book: boolean): void {
    const request = this.#request()
    const scores = this.#oracle.scores(request)
    const answer = book ? this.#router.route(request) : this.#router.select(request)
    if (answer.kind === 'refused') {
      this.#counts.refusals += 1
      assert.deepEqual([answer.reason, scores.length], [this.#workers.size === 0 ? 'no-workers' : 'none-eligible', 0])
      return
    }
    this.#counts.decisions += 1
    const { candidates } = answer.explain()
    const seen = candidates.map((each) => [each.workerId, each.dpRank, each.deviceBlocks, each.hostExtensionBlocks, each.diskExtensionBlocks, each.activePrefillTokens, each.activeRequests, each.potentialDecodeBlocks, each.cost])
    const expected = scores.map(({ rank, cost }) => [rank.workerId, rank.dpRank, rank.deviceBlocks, rank.hostBlocks, rank.diskBlocks, rank.activePrefillTokens, rank.activeRequests, rank.potentialDecodeBlocks, cost])
    assert.deepEqual(seen, expected)
    const acceptable = this.#oracle.acceptable(request)
    assert.ok(acceptable.includes(`${answer.workerId}.${answer.dpRank}`), `chose ${answer.workerId}.${answer.dpRank} instead of ${acceptable.join()}`)
    if (acceptable.length > 1) this.#counts.ties += 1
    if (answer.deviceBlocks > 0) this.#counts.warm += 1
    if (!book) return
    this.#oracle.book(request, answer, this.#nowMs)
    this.#live.push(request.requestId)
  }

  #change(): void {
    const draw = this.#draw
    const id = this.#live.length === 0 || draw.chance(3) ? 'unknown' : draw.one(this.#live)
    const kind = draw.below(this.#live.length > 12 ? 4 : 10)
    if (kind < 3) {
      assert.equal(this.#router.free(id), this.#oracle.free(id))
      if (this.#live.includes(id)) this.#live.splice(this.#live.indexOf(id), 1)
    } else if (kind < 7) assert.equal(this.#router.prefillCompleted(id), this.#oracle.prefillCompleted(id))
    else assert.equal(this.#router.outputBlock(id, null), this.#oracle.outputBlock(id))
  }

  #time(): void {
    this.#nowMs += this.#draw.below(900)
    this.#router.tick()
    this.#oracle.expire(this.#nowMs)
  }

  /** A preview of an empty prompt shows every rank's load. */
  #compareReports(): void {
    assert.equal(this.#router.bookingCount, this.#oracle.bookingCount)
    const scores = this.#oracle.scores({ requestId: 'loads', model: 'm', tokens: new Uint32Array(0) })
    assert.deepEqual(
      this.#router.loads().map((row) => [row.workerId, row.dpRank, row.activePrefillTokens, row.activeDecodeBlocks, row.activeRequests]),
      scores.map(({ rank }) => [rank.workerId, rank.dpRank, rank.activePrefillTokens, rank.potentialDecodeBlocks, rank.activeRequests]),
    )
  }
}

/** Runs `count` operations. Errors: AssertionError with seed and number of the operation that differs. */
export function runRandomOperations(seed: number, count: number, onProgress: (counts: OperationCounts) => void = () => {}): OperationCounts {
  const draw = new Draw(seed)
  const counts: OperationCounts = { operations: 0, decisions: 0, refusals: 0, ties: 0, warm: 0 }
  try {
    while (counts.operations < count) {
      const episode = new Episode(draw, counts)
      for (let step = 0; step < episodeLength && counts.operations < count; step++) episode.step()
      onProgress(counts)
    }
  } catch (error) {
    throw new Error(`seed ${seed}, operation ${counts.operations}: ${error instanceof Error ? error.message : String(error)}`, { cause: error })
  }
  return counts
}
