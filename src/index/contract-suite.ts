/**
 * What every prefix index must do, as named cases that throw when it does not; any test runner can run them.
 * The worked examples of router-algorithm 4 to 6 and 18.3, and workers whose engines name the same content differently.
 */
import { hashesToBigints, hashListOf } from '../model/hash-list.ts'
import type { ApplyStatus, KvEventData, StorageTier } from '../model/kv-event.ts'
import type { ApproximatePrefixIndex, PrefixIndexOptions } from './contract.ts'
import { createOverlapScores } from './overlap-scores.ts'

export interface ContractCase {
  readonly name: string
  /** Throws when the index fails the case. */
  readonly run: () => void
}

type Create = (options?: PrefixIndexOptions) => ApproximatePrefixIndex

function expectEqual(actual: unknown, expected: unknown, what: string): void {
  const [got, wanted] = [JSON.stringify(actual), JSON.stringify(expected)]
  if (got !== wanted) throw new Error(`${what}: ${got} instead of ${wanted}`)
}

const localsOf = (contents: readonly number[]) => hashListOf(contents.map(BigInt))

const storedOf = (parent: number | null, contents: readonly number[], names: readonly number[]): KvEventData => ({
  kind: 'stored', parentHash: parent === null ? null : BigInt(parent), startPosition: null, mmInfos: null,
  blockHashes: localsOf(names), tokensHashes: localsOf(contents),
})

/** One index with short words for its operations. */
class Bench {
  readonly index: ApproximatePrefixIndex
  readonly #scores = createOverlapScores(0)

  constructor(index: ApproximatePrefixIndex) {
    this.index = index
  }

  store(slot: number, parent: number | null, contents: readonly number[], names: readonly number[], tier: StorageTier = 'device'): ApplyStatus {
    return this.index.apply(slot, tier, storedOf(parent, contents, names))
  }

  remove(slot: number, names: readonly number[], tier: StorageTier = 'device'): ApplyStatus {
    return this.index.apply(slot, tier, { kind: 'removed', blockHashes: localsOf(names) })
  }

  /** Expects `[device, host, disk]` per slot; trailing slots that were never used are left out. */
  expectScores(contents: readonly number[], expected: readonly (readonly [number, number, number])[], what: string): void {
    this.index.find(localsOf(contents), this.#scores)
    const { device, host, disk } = this.#scores
    expectEqual(expected.map((_, slot) => [device[slot] ?? 0, host[slot] ?? 0, disk[slot] ?? 0]), expected, what)
  }

  expectDevice(contents: readonly number[], expected: readonly number[], what: string): void {
    this.expectScores(contents, expected.map((blocks) => [blocks, 0, 0]), what)
  }
}

const [a, b, c, d, x, y, k, z] = [1, 2, 3, 4, 5, 6, 7, 8]

/** All cases for one implementation. */
export function prefixIndexContract(create: Create): ContractCase[] {
  const cases: Record<string, (bench: Bench) => void> = { ...deviceCases, ...ownNameCases, ...lowerTierCases, ...approximateCases }
  const list = Object.entries(cases).map(([name, run]) => ({ name, run: () => run(new Bench(create({ ttlMs: 1000 }))) }))
  return [...list, { name: 'a full index refuses stores, says so, and goes on', run: () => refusesBeyondBound(new Bench(create({ entriesMax: 4 }))) }]
}

const deviceCases: Record<string, (bench: Bench) => void> = {
  'two ranks share a prefix and part; removing a middle block forgets the rest of its edge'(bench) {
    bench.store(0, null, [a, b, c, d], [11, 12, 13, 14])
    bench.store(1, null, [a, b, x], [11, 12, 15])
    bench.expectDevice([a, b, c, d], [4, 2], 'before')
    bench.expectDevice([a, b, x, y], [2, 3], 'other branch')
    bench.expectDevice([z], [0, 0], 'unknown')
    expectEqual(bench.remove(0, [13]), 'ok', 'removed')
    bench.expectDevice([a, b, c, d], [2, 2], 'after the removal')
    expectEqual(bench.store(0, 14, [x], [16]), 'parent_block_not_found', 'store below a forgotten block')
    expectEqual(bench.store(0, 12, [9], [19]), 'ok', 'store below a held block')
    bench.expectDevice([a, b, 9], [3, 2], 'at the end')
    expectEqual(bench.index.blockCount(0, 'device'), 3, 'blocks of the first rank')
  },
  'a store below an unknown parent is dropped whole'(bench) {
    expectEqual(bench.store(0, 99, [k], [17]), 'parent_block_not_found', 'status')
    bench.expectDevice([k], [0], 'scores')
    expectEqual(bench.index.entryCount, 0, 'entries')
  },
  'a block that is its own parent is refused'(bench) {
    bench.store(0, null, [a], [11])
    expectEqual(bench.store(0, 11, [b, c], [12, 11]), 'invalid_block', 'status')
    bench.expectDevice([a, b, c], [1], 'scores')
  },
  'unknown hashes are told, the others of the event apply'(bench) {
    bench.store(0, null, [a, b], [11, 12])
    expectEqual(bench.remove(0, [99, 12]), 'block_not_found', 'status')
    bench.expectDevice([a, b], [1], 'scores')
    expectEqual(bench.remove(0, [11, 11]), 'ok', 'a hash twice in one event')
    expectEqual(bench.index.entryCount, 0, 'entries')
  },
  'storing again changes nothing'(bench) {
    for (let i = 0; i < 3; i += 1) expectEqual(bench.store(0, null, [a, b], [11, 12]), 'ok', 'status')
    expectEqual(bench.index.blockCount(0, 'device'), 2, 'blocks')
  },
  'cleared forgets one rank in all tiers'(bench) {
    for (const slot of [0, 1]) {
      bench.store(slot, null, [a], [11])
      bench.store(slot, 11, [b], [12], 'host_pinned')
      bench.store(slot, 12, [c], [13], 'disk')
    }
    expectEqual(bench.index.apply(0, 'device', { kind: 'cleared' }), 'ok', 'status')
    bench.expectScores([a, b, c], [[0, 0, 0], [1, 1, 1]], 'scores')
    expectEqual([bench.index.blockCount(0, 'host_pinned'), bench.index.entryCount], [0, 3], 'counts')
  },
  'a slot can be used again after its rank was dropped'(bench) {
    bench.store(0, null, [a, b], [11, 12])
    bench.index.dropRank(0)
    expectEqual(bench.store(0, 11, [b], [12]), 'parent_block_not_found', 'an old name')
    bench.store(0, null, [a, c], [11, 13])
    bench.expectDevice([a, b], [1], 'scores')
  },
  'a dump rebuilds the rank'(bench) {
    bench.store(0, null, [a, b, c], [11, 12, 13])
    bench.store(1, null, [a, b, x], [21, 22, 25])
    bench.store(1, 22, [y], [26])
    bench.store(1, 26, [z], [28], 'host_pinned')
    const events = bench.index.dump(1)
    bench.index.dropRank(1)
    for (const { tier, data } of events) expectEqual(bench.index.apply(1, tier, data), 'ok', 'replay')
    bench.expectScores([a, b, y, z], [[2, 0, 0], [3, 1, 0]], 'scores')
  },
  'lists of different length are refused'(bench) {
    const data: KvEventData = { kind: 'stored', parentHash: null, startPosition: null, mmInfos: null, blockHashes: localsOf([11]), tokensHashes: localsOf([a, b]) }
    expectEqual(bench.index.apply(0, 'device', data), 'invalid_block', 'status')
  },
  'many ranks on one prefix are told apart'(bench) {
    for (let slot = 0; slot < 200; slot += 1) bench.store(slot, null, [a, b, c, d].slice(0, 1 + (slot % 4)), [11, 12, 13, 14].slice(0, 1 + (slot % 4)))
    bench.expectDevice([a, b, c, d], Array.from({ length: 200 }, (_, slot) => 1 + (slot % 4)), 'scores')
    for (let slot = 0; slot < 200; slot += 2) bench.index.dropRank(slot)
    bench.expectDevice([a, b, c, d], Array.from({ length: 200 }, (_, slot) => (slot % 2 === 0 ? 0 : 1 + (slot % 4))), 'after half were dropped')
  },
}

const ownNameCases: Record<string, (bench: Bench) => void> = {
  'a chain under own names counts in full'(bench) {
    bench.store(0, null, [a, b, c, d], [101, 102, 103, 104])
    bench.store(1, null, [a, b], [201, 202])
    expectEqual(bench.store(1, 202, [c], [203]), 'ok', 'the third block')
    expectEqual(bench.store(1, 203, [d], [204]), 'ok', 'the fourth block')
    bench.expectDevice([a, b, c, d], [4, 4], 'scores')
    expectEqual(bench.store(1, 104, [x], [205]), 'parent_block_not_found', "the other rank's name")
  },
  'blocks under own names are removed by own names only'(bench) {
    bench.store(0, null, [a, b], [101, 102])
    bench.store(1, null, [a, b], [201, 202])
    expectEqual(bench.remove(1, [102]), 'block_not_found', "the other rank's name")
    bench.expectDevice([a, b], [2, 2], 'nothing happened')
    expectEqual(bench.remove(1, [202]), 'ok', 'own name')
    bench.expectDevice([a, b], [2, 1], 'one block less')
    expectEqual(bench.remove(0, [102, 101]), 'ok', 'the first writer leaves')
    bench.expectDevice([a, b], [0, 1], 'the other stays')
    expectEqual(bench.store(1, 201, [b], [202]), 'ok', 'and goes on')
    bench.expectDevice([a, b], [0, 2], 'at the end')
  },
  'two engines that grow one prompt in turn'(bench) {
    const prompt = Array.from({ length: 40 }, (_, i) => 500 + i)
    prompt.forEach((content, i) => {
      for (const slot of [0, 1, 2]) {
        const base = 1000 * (slot + 1)
        expectEqual(bench.store(slot, i === 0 ? null : base + i - 1, [content], [base + i]), 'ok', `block ${i} of rank ${slot}`)
      }
    })
    bench.expectDevice(prompt, [40, 40, 40], 'grown')
    for (let i = 39; i >= 20; i -= 1) expectEqual(bench.remove(1, [2000 + i]), 'ok', `removal of ${i}`)
    bench.expectDevice(prompt, [40, 20, 40], 'half evicted')
    bench.index.dropRank(0)
    bench.expectDevice(prompt, [0, 20, 40], 'first writer gone')
    expectEqual(bench.store(1, 2019, [prompt[20] as number], [2020]), 'ok', 'restored')
    bench.expectDevice(prompt, [0, 21, 40], 'restored')
  },
  'tiers below go on from own names'(bench) {
    bench.store(0, null, [a, b], [101, 102])
    bench.store(1, null, [a, b], [201, 202])
    bench.store(0, 102, [c], [103], 'host_pinned')
    bench.store(1, 202, [c, d], [203, 204], 'host_pinned')
    bench.store(1, 204, [x], [205], 'disk')
    bench.expectScores([a, b, c, d, x], [[2, 1, 0], [2, 2, 1]], 'scores')
    bench.remove(1, [203], 'host_pinned')
    bench.expectScores([a, b, c, d, x], [[2, 1, 0], [2, 0, 0]], 'after a removal by own name')
  },
  'two engines share content below from the root'(bench) {
    bench.store(0, null, [a, b], [101, 102], 'host_pinned')
    expectEqual(bench.store(1, null, [a, b], [201, 202], 'host_pinned'), 'ok', 'other names')
    bench.expectScores([a, b], [[0, 2, 0], [0, 2, 0]], 'scores')
    bench.remove(0, [101], 'host_pinned')
    bench.expectScores([a, b], [[0, 0, 0], [0, 2, 0]], 'after the other was removed')
  },
}

const lowerTierCases: Record<string, (bench: Bench) => void> = {
  'tiers extend in the order host, disk, external'(bench) {
    bench.store(0, null, [a], [11])
    bench.store(0, 11, [b], [12], 'host_pinned')
    bench.store(0, 12, [c], [13], 'external')
    bench.store(0, 13, [d], [14], 'host_pinned')
    bench.expectScores([a, b, c, d], [[1, 1, 1]], 'host is not asked again')
    bench.store(1, null, [a, b], [11, 12], 'disk')
    bench.expectScores([a, b, c], [[1, 1, 1], [0, 0, 2]], 'from the root')
  },
  'a removal below takes one edge and leaves deeper ones'(bench) {
    bench.store(0, null, [a, b, c], [11, 12, 13], 'disk')
    bench.remove(0, [12], 'disk')
    bench.expectScores([a, b, c], [[0, 0, 1]], 'cut')
    bench.store(0, 11, [b], [12], 'disk')
    bench.expectScores([a, b, c], [[0, 0, 3]], 'mended')
  },
  'unknown parents are taken below, contradictions are not'(bench) {
    expectEqual(bench.store(0, 99, [a], [11], 'host_pinned'), 'ok', 'unknown parent')
    expectEqual(bench.store(0, 98, [a], [11], 'host_pinned'), 'invalid_block', 'a name at two places')
    expectEqual(bench.store(0, 99, [a], [12], 'host_pinned'), 'invalid_block', 'two names at one place')
    expectEqual(bench.remove(0, [77], 'host_pinned'), 'ok', 'an unknown name')
    expectEqual(bench.index.blockCount(0, 'host_pinned'), 1, 'blocks')
  },
}

const approximateCases: Record<string, (bench: Bench) => void> = {
  'recorded blocks live for the time to live, rounded up'(bench) {
    expectEqual(bench.index.record(0, localsOf([a, b]), localsOf([11, 12]), 50), 'ok', 'recorded')
    bench.expectDevice([a, b, c], [2], 'at once')
    expectEqual(bench.index.expire(1099), 0, 'too early')
    bench.expectDevice([a, b], [2], 'still')
    expectEqual([bench.index.expire(1100), bench.index.recordedCount, bench.index.entryCount], [2, 0, 0], 'gone')
  },
  'recording again refreshes the common prefix'(bench) {
    bench.index.record(0, localsOf([a, b]), localsOf([11, 12]), 0)
    bench.index.record(0, localsOf([a, c]), localsOf([11, 13]), 600)
    expectEqual(bench.index.expire(1000), 1, 'only the branch that was not refreshed')
    bench.expectDevice([a, b], [1], 'first prompt')
    bench.expectDevice([a, c], [2], 'second prompt')
    expectEqual(bench.index.expire(1600), 2, 'the rest')
    expectEqual(bench.index.entryCount, 0, 'entries')
  },
  'an end before earlier ones is kept, and told per block'(bench) {
    bench.index.record(0, localsOf([x]), localsOf([19]), 900)
    bench.index.record(0, localsOf([a, b, c]), localsOf([11, 12, 13]), 0)
    bench.index.record(0, localsOf([a, b]), localsOf([11, 12]), 300)
    expectEqual(bench.index.recordedEnds(0, [localsOf([11, 12, 13]), localsOf([19, 18])]).map((ends) => [...ends]), [[1300, 1300, 1000], [1900, 0]], 'ends')
    expectEqual(bench.index.recordedEnds(1, [localsOf([11])]).map((ends) => [...ends]), [[0]], 'of another rank')
    expectEqual(bench.index.expire(1000), 1, 'the end of the prompt')
    bench.expectDevice([a, b, c], [2], 'what is left of it')
    expectEqual(bench.index.expire(1300), 2, 'the rest of it')
    expectEqual([bench.index.expire(1899), bench.index.expire(1900)], [0, 1], 'the other')
  },
  'a rank names the leading blocks that it holds, on the device and in host memory, in its own words'(bench) {
    bench.store(0, null, [a, b, c], [101, 102, 103])
    bench.store(1, null, [a, b], [201, 202])
    bench.store(1, 202, [c], [203], 'host_pinned')
    bench.store(1, 203, [d], [204], 'disk')
    bench.store(2, null, [a], [301], 'host_pinned')
    const namesOf = (slot: number, contents: readonly number[]): number[] => hashesToBigints(bench.index.prefixNames(slot, localsOf(contents))).map(Number)
    expectEqual(namesOf(0, [a, b, x]), [101, 102], 'as far as the prompt is the same')
    expectEqual(namesOf(1, [a, b, c, d]), [201, 202, 203], 'the disk does not count')
    expectEqual(namesOf(2, [a, b]), [301], 'host memory alone')
    expectEqual(namesOf(3, [a]), [], 'a rank without blocks')
    expectEqual(namesOf(0, []), [], 'an empty prompt')
  },
  'an approximate rank and an event-driven one share the tree'(bench) {
    bench.store(0, null, [a, b], [101, 102])
    bench.index.record(1, localsOf([a, b, c]), localsOf([11, 12, 13]), 0)
    bench.expectDevice([a, b, c], [2, 3], 'both')
    bench.index.expire(5000)
    bench.expectDevice([a, b, c], [2, 0], 'the recorded one ends')
  },
  'a dropped rank has nothing left to expire'(bench) {
    bench.index.record(0, localsOf([a, b]), localsOf([11, 12]), 0)
    bench.index.record(1, localsOf([a]), localsOf([11]), 0)
    bench.index.dropRank(0)
    expectEqual(bench.index.recordedCount, 1, 'pairs')
    bench.store(0, null, [a], [11])
    expectEqual(bench.index.expire(5000), 1, 'only the other rank')
    bench.expectDevice([a], [1, 0], 'scores')
  },
}

function refusesBeyondBound(bench: Bench): void {
  bench.store(0, null, [a, b, c], [11, 12, 13])
  expectEqual(bench.store(1, null, [x, y], [15, 16]), 'capacity_exhausted', 'a store')
  expectEqual(bench.store(1, null, [x, y], [15, 16], 'disk'), 'capacity_exhausted', 'a store below')
  expectEqual(bench.index.record(1, localsOf([x, y]), localsOf([15, 16]), 0), 'capacity_exhausted', 'a recording')
  expectEqual([bench.index.capacityRefusals, bench.index.recordedCount, bench.index.entryCount], [3, 0, 3], 'counts')
  bench.remove(0, [13, 12, 11])
  expectEqual(bench.store(1, null, [x, y], [15, 16]), 'ok', 'after the prompt has gone')
}
