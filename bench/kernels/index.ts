/**
 * The prefix index under conversations: store, find, remove, and what an entry costs in memory.
 *
 * A conversation has four turns of equal depth; its first is one of few prefixes that many share. Of each turn three quarters
 * come in one event and the rest block by block; one conversation in ten is on two ranks. A query is the beginning of a known
 * conversation, cut anywhere, with an unknown tail.
 */
import { sequenceHashes } from '../../src/hashing/block-hashes.ts'
import { createOverlapScores } from '../../src/index/overlap-scores.ts'
import { createPrefixIndex } from '../../src/index/prefix-index.ts'
import { hashAt, type HashList } from '../../src/model/hash-list.ts'
import type { RemovedBlocks, StoredBlocks } from '../../src/model/kv-event.ts'
import { elapsedNs, liveBytes, median, quantile, wordsFrom } from '../measure.ts'

/** Whether all ranks give a block the same hash, or each its own, as engines with other hash seeds do. */
export type BlockNames = 'shared' | 'per rank'

export interface IndexRow {
  readonly ranks: number
  readonly entries: number
  readonly depth: number
  readonly names: BlockNames
  readonly storeMblocksPerSecond: number
  readonly findP50Us: number
  readonly findP99Us: number
  readonly removeMblocksPerSecond: number
  readonly reservedBytesPerEntry: number
  readonly measuredBytesPerEntry: number
}

interface Workload {
  readonly ranks: number
  readonly stores: readonly { readonly slot: number; readonly data: StoredBlocks }[]
  readonly removals: readonly { readonly slot: number; readonly data: RemovedBlocks }[]
  readonly storedBlocks: number
  readonly removedBlocks: number
  readonly queries: readonly HashList[]
}

interface Shape {
  readonly ranks: number
  readonly entries: number
  readonly depth: number
  readonly names: BlockNames
}

function makeWorkload({ ranks, entries, depth, names }: Shape): Workload {
  const word = wordsFrom(ranks + depth)
  const novel = (blocks: number): HashList => Uint32Array.from({ length: 2 * blocks }, word)
  const turn = depth / 4
  const prefixes = Array.from({ length: 4 * ranks }, () => novel(turn))
  const stores: { slot: number; data: StoredBlocks }[] = []
  const removals: { slot: number; data: RemovedBlocks }[] = []
  const chains: HashList[] = []
  let storedBlocks = 0
  let removedBlocks = 0
  let kept = 0
  while (kept < entries) {
    const local = new Uint32Array(2 * depth)
    local.set(prefixes[word() % prefixes.length] as HashList)
    local.set(novel(depth - turn), 2 * turn)
    const chain = sequenceHashes(local)
    const slot = word() % ranks
    chains.push(local)
    for (const owner of word() % 10 === 0 ? [slot, (slot + 1) % ranks] : [slot]) {
      const hashes = names === 'shared' ? chain : chain.map((half) => Math.imul(half ^ owner, 0x9e3779b1))
      for (const [from, to] of eventRanges(turn)) {
        stores.push({ slot: owner, data: {
          kind: 'stored', parentHash: from === 0 ? null : hashAt(hashes, from - 1), startPosition: null,
          blockHashes: hashes.slice(2 * from, 2 * to), tokensHashes: local.slice(2 * from, 2 * to), mmInfos: null,
        } })
        storedBlocks += to - from
      }
      kept += depth - turn
      // Half of the conversations are evicted, leaves first and eight blocks at a time; what others share stays.
      if (chains.length % 2 === 1) continue
      for (let to = depth; to > turn; to -= 8) {
        const from = Math.max(turn, to - 8)
        removals.push({ slot: owner, data: { kind: 'removed', blockHashes: reversed(hashes.subarray(2 * from, 2 * to)) } })
        removedBlocks += to - from
      }
    }
  }
  const queries = Array.from({ length: 4000 }, () => {
    const query = novel(depth)
    const known = chains[word() % chains.length] as HashList
    query.set(known.subarray(0, 2 * (word() % (depth + 1))))
    return query
  })
  return { ranks, stores, removals, storedBlocks, removedBlocks, queries }
}

function eventRanges(turn: number): [number, number][] {
  const ranges: [number, number][] = []
  for (let start = 0; start < 4 * turn; start += turn) {
    const bulk = start + Math.floor((3 * turn) / 4)
    ranges.push([start, bulk])
    for (let block = bulk; block < start + turn; block += 1) ranges.push([block, block + 1])
  }
  return ranges
}

function reversed(hashes: HashList): HashList {
  const words = new Uint32Array(hashes.length)
  for (let at = 0; at < hashes.length; at += 2) {
    words[at] = hashes[hashes.length - 2 - at] as number
    words[at + 1] = hashes[hashes.length - 1 - at] as number
  }
  return words
}

function measure(shape: Shape, rounds: number): IndexRow {
  const workload = makeWorkload(shape)
  const storeNs: number[] = []
  const removeNs: number[] = []
  const findNs: number[] = []
  let entries = 0
  let reserved = 0
  let measured = 0
  for (let round = 0; round < rounds; round += 1) {
    const before = liveBytes()
    const index = createPrefixIndex()
    storeNs.push(elapsedNs(() => {
      for (const { slot, data } of workload.stores) if (index.apply(slot, 'device', data) !== 'ok') throw new Error('a store was refused')
    }) / workload.storedBlocks)
    entries = index.entryCount
    reserved = index.bytesReserved
    measured = liveBytes() - before
    const scores = createOverlapScores(workload.ranks)
    for (const query of workload.queries) index.find(query, scores)
    for (const query of workload.queries) findNs.push(elapsedNs(() => index.find(query, scores)))
    removeNs.push(elapsedNs(() => {
      for (const { slot, data } of workload.removals) if (index.apply(slot, 'device', data) !== 'ok') throw new Error('a removal was refused')
    }) / workload.removedBlocks)
  }
  return {
    ...shape, entries, storeMblocksPerSecond: 1000 / median(storeNs), removeMblocksPerSecond: 1000 / median(removeNs),
    findP50Us: median(findNs) / 1000, findP99Us: quantile(findNs, 0.99) / 1000,
    reservedBytesPerEntry: reserved / entries, measuredBytesPerEntry: measured / entries,
  }
}

/** Errors: the index refuses a part of the workload. */
export function benchIndex(rounds: number): IndexRow[] {
  const rows: IndexRow[] = []
  for (const names of ['shared', 'per rank'] as const) {
    for (const entries of [100_000, 1_000_000]) {
      for (const ranks of [8, 64]) for (const depth of [32, 128]) rows.push(measure({ ranks, entries, depth, names }, rounds))
    }
  }
  return rows
}
