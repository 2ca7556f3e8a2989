/** Goal: the one tree counts as a tree for each rank would. Method: random requests against plain trees, exact to the last bit. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { hashListOf } from '../model/hash-list.ts'
import { PathTree } from './path-tree.ts'

/** A run of blocks that prompts of its rank hold whole. */
interface PlainEdge {
  hashes: readonly number[]
  parent: PlainEdge | null
  readonly children: Map<number, PlainEdge>
  /** Live prompts that end here. */
  ends: number
  weight: number
}

/** A tree for each rank, its edges cut where prompts of this rank part or end, and never joined again. */
class PlainTree {
  readonly #ranks: Map<number, PlainEdge>[]
  readonly weights: number[]

  constructor(slots: number) {
    this.#ranks = Array.from({ length: slots }, () => new Map())
    this.weights = Array.from({ length: slots }, () => 0)
  }

  acquire(slot: number, hashes: readonly number[]): PlainEdge {
    let parent: PlainEdge | null = null
    let siblings = this.#ranks[slot]!
    for (let at = 0; at < hashes.length;) {
      let edge = siblings.get(hashes[at]!)
      if (edge === undefined) {
        edge = { hashes: hashes.slice(at), parent, children: new Map(), ends: 0, weight: 1 }
        siblings.set(hashes[at]!, edge)
        this.weights[slot]! += edge.hashes.length
      } else {
        let common = 0
        while (common < edge.hashes.length && edge.hashes[common] === hashes[at + common]) common += 1
        if (common < edge.hashes.length) edge = this.#cut(siblings, edge, common)
      }
      at += edge.hashes.length
      parent = edge
      siblings = edge.children
    }
    parent!.ends += 1
    return parent!
  }

  #cut(siblings: Map<number, PlainEdge>, edge: PlainEdge, count: number): PlainEdge {
    const upper: PlainEdge = { hashes: edge.hashes.slice(0, count), parent: edge.parent, children: new Map(), ends: 0, weight: edge.weight }
    edge.hashes = edge.hashes.slice(count)
    edge.parent = upper
    upper.children.set(edge.hashes[0]!, edge)
    siblings.set(upper.hashes[0]!, upper)
    return upper
  }

  release(slot: number, last: PlainEdge): void {
    last.ends -= 1
    for (let edge: PlainEdge | null = last; edge !== null && edge.ends + edge.children.size === 0; edge = edge.parent) {
      this.weights[slot]! -= edge.hashes.length * edge.weight
      ;(edge.parent?.children ?? this.#ranks[slot]!).delete(edge.hashes[0]!)
    }
    if (this.#ranks[slot]!.size === 0) this.weights[slot] = 0
  }

  decay(slot: number, last: PlainEdge, fraction: number): void {
    for (let edge: PlainEdge | null = last; edge !== null && edge.ends + edge.children.size === 1; edge = edge.parent) {
      this.weights[slot]! += edge.hashes.length * (fraction - edge.weight)
      edge.weight = fraction
    }
  }

  livePrefix(slot: number, hashes: readonly number[]): number {
    let at = 0
    for (let edge = this.#ranks[slot]!.get(hashes[0]!); edge !== undefined; edge = edge.children.get(hashes[at]!)) {
      for (const hash of edge.hashes) {
        if (hash !== hashes[at]) return at
        at += 1
      }
    }
    return at
  }

  get blockCount(): number {
    const count = (edges: Map<number, PlainEdge>): number => [...edges.values()].reduce((sum, edge) => sum + edge.hashes.length + count(edge.children), 0)
    return this.#ranks.reduce((sum, edges) => sum + count(edges), 0)
  }
}

const slots = 3
const path = fc.array(fc.integer({ min: 1, max: 2 }), { minLength: 1, maxLength: 9 })
const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('acquire' as const), slot: fc.nat(slots - 1), hashes: path }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('release' as const), pick: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('decay' as const), pick: fc.nat(), fraction: fc.integer({ min: 0, max: 10 }).map((tenths) => tenths / 10) }) },
)

test('paths are counted as by a tree for each rank', () => {
  fc.assert(fc.property(fc.array(step, { maxLength: 60 }), path, (steps, probe) => {
    const tree = new PathTree(1000)
    tree.ensureSlots(slots)
    const plain = new PlainTree(slots)
    const open: { readonly slot: number; readonly edge: PlainEdge; readonly hold: number }[] = []
    for (const each of steps) {
      if (each.kind === 'acquire') {
        open.push({ slot: each.slot, edge: plain.acquire(each.slot, each.hashes), hold: tree.acquire(each.slot, hashListOf(each.hashes.map(BigInt))) })
      } else if (open.length > 0) {
        const at = each.pick % open.length
        const { slot, edge, hold } = open[at]!
        if (each.kind === 'release') {
          open.splice(at, 1)
          plain.release(slot, edge)
          tree.release(slot, hold)
        } else {
          plain.decay(slot, edge, each.fraction)
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
