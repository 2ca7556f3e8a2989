/** What an index finds, as few numbers: equal digests mean equal answers. `bench/rust/src/index.rs` does the same. */
import type { OverlapScores, PrefixIndex } from '../../src/index/contract.ts'
import type { HashList } from '../../src/model/hash-list.ts'

/** Number of matches and two sums over all (query, rank, depth), in any order. */
export type Digest = readonly [number, number, number]

/** The digest after each phase; `restored` is before the cuts. */
export interface Digests {
  readonly stored: Digest
  readonly evicted: Digest
  readonly restored: Digest
  readonly cut: Digest
}

export function digestOf(index: PrefixIndex, queries: readonly HashList[], scores: OverlapScores): Digest {
  let count = 0
  let first = 0
  let second = 0
  queries.forEach((query, number) => {
    index.find(query, scores)
    for (let rank = 0; rank < scores.slotCount; rank += 1) {
      const depth = scores.device[rank]!
      if (depth === 0) continue
      let mixed = Math.imul(number + 1, 0x9e3779b1) ^ Math.imul(rank + 1, 0x85ebca77)
      mixed = Math.imul(mixed ^ (mixed >>> 15), 0xc2b2ae3d) ^ Math.imul(depth, 0x27d4eb2f)
      mixed = Math.imul(mixed ^ (mixed >>> 13), 0x165667b1)
      count += 1
      first = (first + mixed) >>> 0
      second = (second + Math.imul((mixed << 11) | (mixed >>> 21), depth)) >>> 0
    }
  })
  return [count, first, second]
}

/** The first phase whose digests differ, or null. */
export function differingPhase(ours: Digests, theirs: Digests): keyof Digests | null {
  return (Object.keys(ours) as (keyof Digests)[]).find((phase) => ours[phase].some((part, at) => part !== theirs[phase][at])) ?? null
}
