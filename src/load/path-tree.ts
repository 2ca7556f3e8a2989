/**
 * Prompt blocks of live requests: which rank holds which prompt prefix, and how often it is used.
 *
 * One tree of sequence hashes serves all ranks, because prompts repeat across ranks. A *node* is a path from the root, so the
 * same hash below two parents is two nodes. A *block* is one node on one rank: its users (requests that end there, plus blocks
 * right below) and its weight. Blocks of a rank always include those of all shorter prefixes, hence the longest live prefix is
 * found by bisection.
 */
import { hashCount } from '../model/hash-list.ts'
import type { HashList } from '../model/hash-list.ts'
import type { RankSlot } from '../model/worker.ts'
import { IdTable } from './id-table.ts'
import { grownFloat64, grownInt32, grownUint32 } from './typed-arrays.ts'

/** No block: the end of an empty path. */
export const noBlock = -1

const root = -1

function nodeHash(parent: number, low: number, high: number): number {
  let hash = Math.imul(low ^ Math.imul(parent + 2, 0x9e3779b1), 0x85ebca6b)
  hash ^= hash >>> 15
  hash = Math.imul(hash ^ high, 0xc2b2ae35)
  hash ^= hash >>> 13
  return (Math.imul(hash, 0x27d4eb2f) ^ hash) >>> 0
}

function blockHash(node: number, slot: number): number {
  let hash = Math.imul(node ^ Math.imul(slot + 1, 0x9e3779b1), 0x85ebca6b)
  hash ^= hash >>> 14
  return (Math.imul(hash, 0xc2b2ae35) ^ hash) >>> 0
}

/** Live prompt prefixes per rank. Bounds: `blocksMax` blocks. Cost: about 60 bytes per block held by one rank. */
export class PathTree {
  readonly #blocksMax: number
  // Nodes; a free node's parent is the next free one.
  #nodeParent = new Int32Array(64)
  #nodeLow = new Uint32Array(64)
  #nodeHigh = new Uint32Array(64)
  #nodeRanks = new Uint32Array(64)
  #nodeEnd = 0
  #nodeFree = -1
  readonly #nodes = new IdTable()
  // Blocks; a free block's `above` is the next free one.
  #blockNode = new Int32Array(64)
  #blockSlot = new Int32Array(64)
  #blockAbove = new Int32Array(64)
  #blockUsers = new Uint32Array(64)
  #blockWeight = new Float64Array(64)
  #blockEnd = 0
  #blockFree = -1
  readonly #blocks = new IdTable()
  // The nodes of the path matched last.
  #path = new Int32Array(64)
  #pathLength = 0
  /** Sum of block weights per rank, one running double each, as the original keeps it. */
  weights: Float64Array = new Float64Array(0)

  constructor(blocksMax: number) {
    this.#blocksMax = blocksMax
  }

  get blockCount(): number {
    return this.#blocks.size
  }

  get nodeCount(): number {
    return this.#nodes.size
  }

  /** Makes room for slots below `count`. */
  ensureSlots(count: number): void {
    if (count > this.weights.length) this.weights = grownFloat64(this.weights, count)
  }

  /** Whether a path of so many new blocks still fits. */
  hasRoom(blocks: number): boolean {
    return this.#blocks.size + blocks <= this.#blocksMax
  }

  /** Adds one user at the end of a path on a rank; new blocks weigh 1. Returns the last block, or `noBlock` for an empty path. */
  acquire(slot: RankSlot, sequence: HashList): number {
    let node = root
    let block = noBlock
    const words = sequence.length
    for (let word = 0; word < words; word += 2) {
      const low = sequence[word]!
      const high = sequence[word + 1]!
      let child = this.#findNode(node, low, high)
      if (child < 0) child = this.#makeNode(node, low, high)
      let next = this.#findBlock(child, slot)
      if (next < 0) {
        next = this.#makeBlock(child, slot, block)
        if (block !== noBlock) this.#blockUsers[block]! += 1
        this.weights[slot]! += 1
      }
      node = child
      block = next
    }
    if (block !== noBlock) this.#blockUsers[block]! += 1
    return block
  }

  /** Takes away the user that `acquire` added; blocks without a user go. */
  release(slot: RankSlot, last: number): void {
    let block = last
    while (block !== noBlock) {
      const users = this.#blockUsers[block]! - 1
      this.#blockUsers[block] = users
      if (users > 0) return
      const above = this.#blockAbove[block]!
      this.weights[slot]! -= this.#blockWeight[block]!
      this.#dropBlock(block)
      block = above
    }
  }

  /** Gives weight `fraction` to the blocks from `last` upwards that have a single user. */
  decay(slot: RankSlot, last: number, fraction: number): void {
    let block = last
    let run = 0
    let runWeight = 0
    while (block !== noBlock && this.#blockUsers[block] === 1) {
      const old = this.#blockWeight[block]!
      if (old !== runWeight) {
        if (run > 0) this.weights[slot]! += run * (fraction - runWeight)
        run = 0
        runWeight = old
      }
      run += 1
      this.#blockWeight[block] = fraction
      block = this.#blockAbove[block]!
    }
    if (run > 0) this.weights[slot]! += run * (fraction - runWeight)
  }

  /** Finds the longest prefix of a sequence that is live on any rank; `livePrefix` then answers for each rank. */
  match(sequence: HashList): number {
    const count = hashCount(sequence)
    if (count > this.#path.length) this.#path = new Int32Array(Math.max(count, 2 * this.#path.length))
    let node = root
    let length = 0
    while (length < count) {
      node = this.#findNode(node, sequence[2 * length]!, sequence[2 * length + 1]!)
      if (node < 0) break
      this.#path[length] = node
      length += 1
    }
    this.#pathLength = length
    return length
  }

  /** Blocks of the sequence given to `match` last that are live on a rank. */
  livePrefix(slot: RankSlot): number {
    const path = this.#path
    let high = this.#pathLength
    if (high === 0 || this.#findBlock(path[0]!, slot) < 0) return 0
    if (this.#findBlock(path[high - 1]!, slot) >= 0) return high
    let low = 1
    high -= 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      if (this.#findBlock(path[middle - 1]!, slot) >= 0) low = middle
      else high = middle - 1
    }
    return low
  }

  #findNode(parent: number, low: number, high: number): number {
    const { cells, mask } = this.#nodes
    let cell = nodeHash(parent, low, high) & mask
    for (;;) {
      const node = cells[cell]!
      if (node < 0) return -1
      if (this.#nodeLow[node] === low && this.#nodeHigh[node] === high && this.#nodeParent[node] === parent) return node
      cell = (cell + 1) & mask
    }
  }

  #findBlock(node: number, slot: number): number {
    const { cells, mask } = this.#blocks
    let cell = blockHash(node, slot) & mask
    for (;;) {
      const block = cells[cell]!
      if (block < 0) return -1
      if (this.#blockNode[block] === node && this.#blockSlot[block] === slot) return block
      cell = (cell + 1) & mask
    }
  }

  #makeNode(parent: number, low: number, high: number): number {
    let node = this.#nodeFree
    if (node >= 0) this.#nodeFree = this.#nodeParent[node]!
    else {
      node = this.#nodeEnd
      this.#nodeEnd += 1
      if (node >= this.#nodeParent.length) this.#growNodes()
    }
    this.#nodeParent[node] = parent
    this.#nodeLow[node] = low
    this.#nodeHigh[node] = high
    this.#nodeRanks[node] = 0
    this.#nodes.insert(node, nodeHash(parent, low, high))
    return node
  }

  #makeBlock(node: number, slot: number, above: number): number {
    let block = this.#blockFree
    if (block >= 0) this.#blockFree = this.#blockAbove[block]!
    else {
      block = this.#blockEnd
      this.#blockEnd += 1
      if (block >= this.#blockNode.length) this.#growBlocks()
    }
    this.#blockNode[block] = node
    this.#blockSlot[block] = slot
    this.#blockAbove[block] = above
    this.#blockUsers[block] = 0
    this.#blockWeight[block] = 1
    this.#nodeRanks[node]! += 1
    this.#blocks.insert(block, blockHash(node, slot))
    return block
  }

  #dropBlock(block: number): void {
    const node = this.#blockNode[block]!
    this.#blocks.remove(block)
    this.#blockAbove[block] = this.#blockFree
    this.#blockFree = block
    const ranks = this.#nodeRanks[node]! - 1
    this.#nodeRanks[node] = ranks
    if (ranks > 0) return
    this.#nodes.remove(node)
    this.#nodeParent[node] = this.#nodeFree
    this.#nodeFree = node
  }

  #growNodes(): void {
    const count = this.#nodeEnd
    this.#nodeParent = grownInt32(this.#nodeParent, count)
    this.#nodeLow = grownUint32(this.#nodeLow, count)
    this.#nodeHigh = grownUint32(this.#nodeHigh, count)
    this.#nodeRanks = grownUint32(this.#nodeRanks, count)
  }

  #growBlocks(): void {
    const count = this.#blockEnd
    this.#blockNode = grownInt32(this.#blockNode, count)
    this.#blockSlot = grownInt32(this.#blockSlot, count)
    this.#blockAbove = grownInt32(this.#blockAbove, count)
    this.#blockUsers = grownUint32(this.#blockUsers, count)
    this.#blockWeight = grownFloat64(this.#blockWeight, count)
  }
}
