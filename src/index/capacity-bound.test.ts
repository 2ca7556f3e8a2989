/** The capacity bound against lists of plain objects, and its rules one by one. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { hashListOf, hashesToBigints } from '../model/hash-list.ts'
import { CapacityBound, type BoundState } from './capacity-bound.ts'

/** The same in plain objects: a copy is its name, its pins and the moment it was given free. */
class PlainBound {
  readonly evicted: string[] = []
  readonly #ranks = new Map<number, { capacity: number; copies: Map<bigint, { pins: number; released: number }>; alone: number }>()
  readonly #leases = new Map<string, { slot: number; names: bigint[]; alone: number }>()
  #moment = 0

  bind(slot: number, capacity: number): void {
    const rank = this.#ranks.get(slot)
    if (rank === undefined) this.#ranks.set(slot, { capacity, copies: new Map(), alone: 0 })
    else rank.capacity = capacity
    this.#evict(slot)
  }

  pin(id: string, slot: number, names: readonly bigint[], alone: number, isNew: boolean): void {
    if (isNew && (this.#leases.has(id) || !this.#ranks.has(slot))) return
    const lease = isNew ? { slot, names: [], alone: 0 } : this.#leases.get(id)
    if (lease === undefined) return
    this.#leases.set(id, lease)
    const rank = this.#ranks.get(lease.slot)!
    for (const name of names) {
      const copy = rank.copies.get(name) ?? { pins: 0, released: 0 }
      copy.pins += 1
      rank.copies.set(name, copy)
      lease.names.push(name)
    }
    rank.alone += alone - lease.alone
    lease.alone = alone
    this.#evict(lease.slot)
  }

  release(id: string): void {
    const lease = this.#leases.get(id)
    if (lease === undefined) return
    this.#leases.delete(id)
    const rank = this.#ranks.get(lease.slot)!
    rank.alone -= lease.alone
    for (const name of [...lease.names].reverse()) {
      const copy = rank.copies.get(name)!
      copy.pins -= 1
      copy.released = this.#moment++
    }
    this.#evict(lease.slot)
  }

  clear(slot: number): void {
    const rank = this.#ranks.get(slot)
    if (rank === undefined) return
    rank.copies.clear()
    rank.alone = 0
    for (const [id, lease] of this.#leases) if (lease.slot === slot) this.#leases.delete(id)
  }

  counts(slots: number): number[] {
    return Array.from({ length: slots }, (_, slot) => this.#ranks.get(slot)?.copies.size ?? 0)
  }

  get state(): BoundState {
    const ranks = [...this.#ranks.values()]
    const sum = (read: (rank: (typeof ranks)[number]) => number): number => ranks.reduce((total, rank) => total + read(rank), 0)
    return {
      ranks: ranks.length, leases: this.#leases.size, idle: sum(({ copies }) => [...copies.values()].filter(({ pins }) => pins === 0).length),
      privateBlocks: sum(({ alone }) => alone), resident: sum(({ copies, alone }) => copies.size + alone),
      overCapacity: sum(({ copies, alone, capacity }) => Math.max(0, copies.size + alone - capacity)),
    }
  }

  #evict(slot: number): void {
    const rank = this.#ranks.get(slot)!
    while (rank.copies.size + rank.alone > rank.capacity) {
      const [first] = [...rank.copies].filter(([, { pins }]) => pins === 0).sort(([, a], [, b]) => a.released - b.released)
      if (first === undefined) return
      rank.copies.delete(first[0])
      this.evicted.push(`${slot}:${first[0]}`)
    }
  }
}

/** Prompts are paths in a small tree, so that they share prefixes; a name stands for the path to it. */
const namesOf = (path: readonly number[]): bigint[] => path.map((_, depth) => path.slice(0, depth + 1).reduce((name, step) => name * 4n + BigInt(step) + 1n, 7n))

const slots = 3
const id = fc.constantFrom('a', 'b', 'c', 'd', 'e')
const path = fc.array(fc.nat(2), { maxLength: 5 })
const operations = fc.array(fc.oneof(
  { weight: 5, arbitrary: fc.record({ op: fc.constant('lease' as const), id, slot: fc.nat(slots - 1), path, alone: fc.nat(1) }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('extend' as const), id, step: fc.nat(2), alone: fc.nat(1) }) },
  { weight: 5, arbitrary: fc.record({ op: fc.constant('release' as const), id }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('bind' as const), slot: fc.nat(slots - 1), capacity: fc.integer({ min: 1, max: 9 }) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('clear' as const), slot: fc.nat(slots - 1) }) },
), { minLength: 1, maxLength: 80, size: 'max' })

test('gives up the same copies in the same order as the plain model', () => {
  fc.assert(fc.property(operations, (script) => {
    const evicted: string[] = []
    const bound = new CapacityBound((slot, hashes) => { for (const name of hashesToBigints(hashes)) evicted.push(`${slot}:${name}`) })
    const plain = new PlainBound()
    const paths = new Map<string, number[]>()
    for (const model of [bound, plain]) model.bind(0, 6)
    for (const step of script) {
      if (step.op === 'lease') {
        if (bound.slotOf(step.id) < 0) paths.set(step.id, [...step.path])
        bound.lease(step.id, step.slot, hashListOf(namesOf(step.path)), step.alone)
        plain.pin(step.id, step.slot, namesOf(step.path), step.alone, true)
      } else if (step.op === 'extend') {
        const longer = [...(paths.get(step.id) ?? []), step.step]
        paths.set(step.id, longer)
        bound.extend(step.id, hashListOf(namesOf(longer).slice(-1)), step.alone)
        plain.pin(step.id, 0, namesOf(longer).slice(-1), step.alone, false)
      } else if (step.op === 'release') for (const model of [bound, plain]) model.release(step.id)
      else if (step.op === 'bind') for (const model of [bound, plain]) model.bind(step.slot, step.capacity)
      else for (const model of [bound, plain]) model.clear(step.slot)
      assert.deepEqual(evicted, plain.evicted)
      assert.deepEqual(Array.from({ length: slots }, (_, slot) => bound.copiesOf(slot)), plain.counts(slots))
      assert.deepEqual(bound.state, plain.state)
    }
  }), { numRuns: 300 })
})

test('what live requests hold stays, even beyond the capacity', () => {
  const evicted: bigint[] = []
  const bound = new CapacityBound((_, hashes) => { evicted.push(...hashesToBigints(hashes)) })
  bound.bind(0, 2)
  bound.lease('a', 0, hashListOf([1n, 2n, 3n]), 1)
  assert.deepEqual([evicted, bound.copyCount], [[], 3])
  bound.release('a')
  assert.deepEqual([evicted, bound.copyCount, bound.evictedCount], [[3n], 2, 1])
})

test('a rank that is dropped leaves no copy and no lease', () => {
  const bound = new CapacityBound(() => assert.fail('nothing is evicted'))
  bound.bind(4, 10)
  bound.lease('a', 4, hashListOf([1n, 2n]), 0)
  bound.drop(4)
  assert.deepEqual([bound.copyCount, bound.leaseCount, bound.has(4), bound.slotOf('a')], [0, 0, false, -1])
  bound.bind(4, 10)
  bound.lease('a', 4, hashListOf([1n]), 0)
  assert.equal(bound.copiesOf(4), 1)
})
