/** Goal: the tree counts as one block at a time would. Method: random requests against plain maps, exact to the last bit. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { hashListOf } from '../model/hash-list.ts'
import { PathTree } from './path-tree.ts'

interface PlainBlock {
  users: number
  weight: number
}

/** Blocks by their whole path, a map per rank; one block at a time. */
class PlainTree {
  readonly #ranks: Map<string, PlainBlock>[]
  readonly weights: number[]

  constructor(slots: number) {
    this.#ranks = Array.from({ length: slots }, () => new Map())
    this.weights = Array.from({ length: slots }, () => 0)
  }

  #paths = (hashes: readonly number[]): string[] => hashes.map((_hash, index) => hashes.slice(0, index + 1).join(' '))

  acquire(slot: number, hashes: readonly number[]): void {
    const blocks = this.#ranks[slot]!
    let above: PlainBlock | null = null
    for (const path of this.#paths(hashes)) {
      let block = blocks.get(path)
      if (block === undefined) {
        block = { users: 0, weight: 1 }
        blocks.set(path, block)
        if (above !== null) above.users += 1
        this.weights[slot]! += 1
      }
      above = block
    }
    if (above !== null) above.users += 1
  }

  release(slot: number, hashes: readonly number[]): void {
    const blocks = this.#ranks[slot]!
    for (const path of this.#paths(hashes).reverse()) {
      const block = blocks.get(path)!
      block.users -= 1
      if (block.users > 0) return
      this.weights[slot]! -= block.weight
      blocks.delete(path)
    }
  }

  decay(slot: number, hashes: readonly number[], fraction: number): void {
    const blocks = this.#ranks[slot]!
    let run = 0
    let runWeight = 0
    for (const path of this.#paths(hashes).reverse()) {
      const block = blocks.get(path)!
      if (block.users !== 1) break
      if (block.weight !== runWeight) {
        if (run > 0) this.weights[slot]! += run * (fraction - runWeight)
        run = 0
        runWeight = block.weight
      }
      run += 1
      block.weight = fraction
    }
    if (run > 0) this.weights[slot]! += run * (fraction - runWeight)
  }

  livePrefix(slot: number, hashes: readonly number[]): number {
    const missing = this.#paths(hashes).findIndex((path) => !this.#ranks[slot]!.has(path))
    return missing < 0 ? hashes.length : missing
  }

  get blockCount(): number {
    return this.#ranks.reduce((sum, blocks) => sum + blocks.size, 0)
  }
}

const slots = 3
const path = fc.array(fc.integer({ min: 1, max: 2 }), { minLength: 1, maxLength: 9 })
const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('acquire' as const), slot: fc.nat(slots - 1), hashes: path }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('release' as const), pick: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('decay' as const), pick: fc.nat(), fraction: fc.integer({ min: 0, max: 10 }).map((tenths) => tenths / 10) }) },
)

test('paths are counted as block by block', () => {
  fc.assert(fc.property(fc.array(step, { maxLength: 60 }), path, (steps, probe) => {
    const tree = new PathTree(1000)
    tree.ensureSlots(slots)
    const plain = new PlainTree(slots)
    const open: { readonly slot: number; readonly hashes: readonly number[]; readonly hold: number }[] = []
    for (const each of steps) {
      if (each.kind === 'acquire') {
        plain.acquire(each.slot, each.hashes)
        open.push({ ...each, hold: tree.acquire(each.slot, hashListOf(each.hashes.map(BigInt))) })
      } else if (open.length > 0) {
        const at = each.pick % open.length
        const { slot, hashes, hold } = open[at]!
        if (each.kind === 'release') {
          open.splice(at, 1)
          plain.release(slot, hashes)
          tree.release(slot, hold)
        } else {
          plain.decay(slot, hashes, each.fraction)
          tree.decay(slot, hold, each.fraction)
        }
      }
      assert.deepEqual([...tree.weights.subarray(0, slots)], plain.weights)
      assert.equal(tree.blockCount, plain.blockCount)
    }
    const live = Array.from({ length: slots }, (_, slot) => plain.livePrefix(slot, probe))
    assert.equal(tree.match(hashListOf(probe.map(BigInt))), Math.max(...live))
    assert.deepEqual(live.map((_blocks, slot) => tree.livePrefix(slot)), live)
  }), { numRuns: 1500 })
})

test('nothing is left when every request has ended', () => {
  const tree = new PathTree(1000)
  tree.ensureSlots(1)
  const holds = [[1, 2, 3], [1, 2], [1, 2, 4, 5], [9]].map((hashes) => tree.acquire(0, hashListOf(hashes.map(BigInt))))
  assert.equal(tree.blockCount, 6)
  for (const hold of holds) tree.release(0, hold)
  assert.equal(tree.blockCount, 0)
  assert.equal(tree.match(hashListOf([1n])), 0)
  assert.equal(tree.hasRoom(1000), true)
  assert.equal(tree.hasRoom(1001), false)
})
