/**
 * Prompt blocks of live requests: which rank holds which prompt prefix, and how often it is used.
 *
 * One tree of sequence hashes serves all ranks, because prompts repeat across ranks. An *edge* is a run of blocks that every rank
 * holds whole or not at all; where two prompts part, or one ends, the edge is split. The same hash below two parents is two
 * blocks. A *hold* is one edge on one rank: how many live requests go through it, and the weight of each of its blocks.
 *
 * Weights are summed as the original does, which keeps a tree for each rank: one rounding per edge of that tree. A *run* is such an edge:
 * holds of one rank in a row, cut only where prompts of this very rank part or end. All holds of a run have the same users and weight.
 */
import { hashCount } from '../model/hash-list.ts'
import type { HashList } from '../model/hash-list.ts'
import type { RankSlot } from '../model/worker.ts'
import { IdTable } from './id-table.ts'
import { grownFloat64, grownInt32, grownUint32 } from './typed-arrays.ts'

/** No hold: the end of an empty path. */
export const noHold = -1

const root = -1
const none = -1

function edgeHash(parent: number, low: number, high: number): number {
  let hash = Math.imul(low ^ Math.imul(parent + 2, 0x9e3779b1), 0x85ebca6b)
  hash ^= hash >>> 15
  hash = Math.imul(hash ^ high, 0xc2b2ae35)
  hash ^= hash >>> 13
  return (Math.imul(hash, 0x27d4eb2f) ^ hash) >>> 0
}

function holdHash(edge: number, slot: number): number {
  let hash = Math.imul(edge ^ Math.imul(slot + 1, 0x9e3779b1), 0x85ebca6b)
  hash ^= hash >>> 14
  return (Math.imul(hash, 0xc2b2ae35) ^ hash) >>> 0
}

/** Words that two lists have in common from the given offsets, in whole hashes. */
function commonBlocks(left: HashList, right: HashList, rightFrom: number): number {
  const words = Math.min(left.length, right.length - rightFrom)
  let word = 0
  while (word < words && left[word] === right[rightFrom + word]) word += 1
  return word >>> 1
}

/** The end of a list to keep: without a copy unless most of the list would be kept for it in vain. */
const keptFrom = (sequence: HashList, word: number): HashList => word === 0 ? sequence : 2 * word <= sequence.length ? sequence.subarray(word) : sequence.slice(word)

/** Live prompt prefixes per rank. Bounds: `blocksMax` blocks. Cost: 8 bytes per block, about 120 per edge and 64 per hold. */
export class PathTree {
  readonly #blocksMax: number
  #blockCount = 0
  // Edges; a free edge's parent is the next free one.
  readonly #edgeBlocks: HashList[] = []
  #edgeParent = new Int32Array(64)
  #edgeFirstHold = new Int32Array(64)
  #edgeFree = none
  readonly #edges = new IdTable()
  // Holds; a free hold's `next` is the next free one.
  #holdEdge = new Int32Array(64)
  #holdSlot = new Int32Array(64)
  #holdUsers = new Uint32Array(64)
  #holdWeight = new Float64Array(64)
  #holdNext = new Int32Array(64)
  #holdPrevious = new Int32Array(64)
  /** The next hold downwards of the same run. */
  #holdBelow = new Int32Array(64)
  #holdEnd = 0
  #holdFree = none
  readonly #holds = new IdTable()
  // What `match` found, per rank slot: blocks, true for the match of that number only.
  #matched = new Int32Array(0)
  #matchedAt = new Uint32Array(0)
  #matchNumber = 0
  /** Holds per rank slot. */
  #slotHolds = new Uint32Array(0)
  /** Sum of block weights per rank, one running double each, as the original keeps it. */
  weights: Float64Array = new Float64Array(0)

  constructor(blocksMax: number) {
    this.#blocksMax = blocksMax
  }

  /** Blocks of all ranks together. */
  get blockCount(): number {
    return this.#blockCount
  }

  /** Makes room for slots below `count`. */
  ensureSlots(count: number): void {
    if (count <= this.weights.length) return
    this.weights = grownFloat64(this.weights, count)
    this.#slotHolds = grownUint32(this.#slotHolds, count)
    this.#matched = grownInt32(this.#matched, this.weights.length)
    this.#matchedAt = grownUint32(this.#matchedAt, this.weights.length)
  }

  /** Whether a path of so many new blocks still fits. */
  hasRoom(blocks: number): boolean {
    return this.#blockCount + blocks <= this.#blocksMax
  }

  /** Adds one user of a path on a rank; new blocks weigh 1. The list is kept and must not change. Returns the hold at its end, or `noHold` for an empty path. */
  acquire(slot: RankSlot, sequence: HashList): number {
    let parent = root
    let hold = noHold
    let added = 0
    for (let word = 0; word < sequence.length;) {
      let edge = this.#findEdge(parent, sequence[word]!, sequence[word + 1]!)
      if (edge < 0) edge = this.#makeEdge(parent, keptFrom(sequence, word))
      else {
        const common = commonBlocks(this.#edgeBlocks[edge]!, sequence, word)
        if (common < hashCount(this.#edgeBlocks[edge]!)) edge = this.#split(edge, common)
      }
      const above = hold
      hold = this.#findHold(edge, slot)
      if (hold !== noHold) this.#holdUsers[hold]! += 1
      else {
        hold = this.#makeHold(edge, slot)
        // What is new is one run.
        if (above !== noHold) this.#holdBelow[above] = added > 0 ? hold : noHold
        added += hashCount(this.#edgeBlocks[edge]!)
      }
      word += this.#edgeBlocks[edge]!.length
      parent = edge
    }
    if (hold !== noHold) this.#holdBelow[hold] = noHold
    this.weights[slot]! += added
    this.#blockCount += added
    return hold
  }

  /** Takes away the user that `acquire` added; blocks without a user go. */
  release(slot: RankSlot, last: number): void {
    let run = 0
    let hold = last
    while (hold !== noHold) {
      const edge = this.#holdEdge[hold]!
      const above = this.#edgeParent[edge]!
      const next = above === root ? noHold : this.#findHold(above, slot)
      const users = this.#holdUsers[hold]! - 1
      this.#holdUsers[hold] = users
      if (users === 0) {
        run += hashCount(this.#edgeBlocks[edge]!)
        const weight = this.#holdWeight[hold]!
        if (next === noHold || this.#holdBelow[next] !== hold) {
          this.weights[slot]! -= run * weight
          run = 0
        }
        this.#dropHold(hold)
      }
      hold = next
    }
    if (this.#slotHolds[slot] === 0) this.weights[slot] = 0
  }

  /** Gives weight `fraction` to the blocks from `last` upwards that have a single user. */
  decay(slot: RankSlot, last: number, fraction: number): void {
    let run = 0
    let hold = last
    while (hold !== noHold && this.#holdUsers[hold] === 1) {
      const edge = this.#holdEdge[hold]!
      const above = this.#edgeParent[edge]!
      const next = above === root ? noHold : this.#findHold(above, slot)
      run += hashCount(this.#edgeBlocks[edge]!)
      const old = this.#holdWeight[hold]!
      this.#holdWeight[hold] = fraction
      if (next === noHold || this.#holdBelow[next] !== hold) {
        this.weights[slot]! += run * (fraction - old)
        run = 0
      }
      hold = next
    }
  }

  /** Finds the longest prefix of a sequence that is live on any rank; `livePrefix` then answers for each rank. */
  match(sequence: HashList): number {
    this.#matchNumber = (this.#matchNumber + 1) >>> 0
    if (this.#matchNumber === 0) {
      this.#matchedAt.fill(0)
      this.#matchNumber = 1
    }
    const number = this.#matchNumber
    let parent = root
    let word = 0
    while (word < sequence.length) {
      const edge = this.#findEdge(parent, sequence[word]!, sequence[word + 1]!)
      if (edge < 0) break
      const blocks = this.#edgeBlocks[edge]!
      const common = commonBlocks(blocks, sequence, word)
      word += 2 * common
      for (let hold = this.#edgeFirstHold[edge]!; hold !== noHold; hold = this.#holdNext[hold]!) {
        const slot = this.#holdSlot[hold]!
        this.#matched[slot] = word >>> 1
        this.#matchedAt[slot] = number
      }
      if (2 * common < blocks.length) break
      parent = edge
    }
    return word >>> 1
  }

  /** Blocks of the sequence given to `match` last that are live on a rank. */
  livePrefix(slot: RankSlot): number {
    return this.#matchedAt[slot] === this.#matchNumber ? this.#matched[slot]! : 0
  }

  // ---- Edges ---------------------------------------------------------------------------------------------------------------

  #findEdge(parent: number, low: number, high: number): number {
    const { cells, mask } = this.#edges
    let cell = edgeHash(parent, low, high) & mask
    for (;;) {
      const edge = cells[cell]!
      if (edge < 0) return -1
      const blocks = this.#edgeBlocks[edge]!
      if (blocks[0] === low && blocks[1] === high && this.#edgeParent[edge] === parent) return edge
      cell = (cell + 1) & mask
    }
  }

  #makeEdge(parent: number, blocks: HashList): number {
    let edge = this.#edgeFree
    if (edge >= 0) this.#edgeFree = this.#edgeParent[edge]!
    else {
      edge = this.#edgeBlocks.length
      if (edge >= this.#edgeParent.length) {
        this.#edgeParent = grownInt32(this.#edgeParent, edge + 1)
        this.#edgeFirstHold = grownInt32(this.#edgeFirstHold, edge + 1)
      }
    }
    this.#edgeBlocks[edge] = blocks
    this.#edgeParent[edge] = parent
    this.#edgeFirstHold[edge] = noHold
    this.#edges.insert(edge, edgeHash(parent, blocks[0]!, blocks[1]!))
    return edge
  }

  /** Cuts the first `count` blocks off into an edge of their own, which is returned. The rest keeps its number, children and holds. */
  #split(edge: number, count: number): number {
    const blocks = this.#edgeBlocks[edge]!
    this.#edges.remove(edge)
    const upper = this.#makeEdge(this.#edgeParent[edge]!, blocks.subarray(0, 2 * count))
    const rest = blocks.subarray(2 * count)
    this.#edgeBlocks[edge] = rest
    this.#edgeParent[edge] = upper
    this.#edges.insert(edge, edgeHash(upper, rest[0]!, rest[1]!))
    for (let hold = this.#edgeFirstHold[edge]!; hold !== noHold; hold = this.#holdNext[hold]!) {
      const made = this.#makeHold(upper, this.#holdSlot[hold]!)
      this.#holdUsers[made] = this.#holdUsers[hold]!
      this.#holdWeight[made] = this.#holdWeight[hold]!
      const above = this.#edgeParent[upper] === root ? noHold : this.#findHold(this.#edgeParent[upper]!, this.#holdSlot[hold]!)
      if (above !== noHold && this.#holdBelow[above] === hold) this.#holdBelow[above] = made
      this.#holdBelow[made] = hold
    }
    return upper
  }

  #dropEdge(edge: number): void {
    this.#edges.remove(edge)
    this.#edgeBlocks[edge] = noBlocks
    this.#edgeParent[edge] = this.#edgeFree
    this.#edgeFree = edge
  }

  // ---- Holds ---------------------------------------------------------------------------------------------------------------

  #findHold(edge: number, slot: number): number {
    const { cells, mask } = this.#holds
    let cell = holdHash(edge, slot) & mask
    for (;;) {
      const hold = cells[cell]!
      if (hold < 0) return noHold
      if (this.#holdEdge[hold] === edge && this.#holdSlot[hold] === slot) return hold
      cell = (cell + 1) & mask
    }
  }

  /** A hold with one user and weight 1; blocks and weights are counted by the caller. */
  #makeHold(edge: number, slot: number): number {
    let hold = this.#holdFree
    if (hold >= 0) this.#holdFree = this.#holdNext[hold]!
    else {
      hold = this.#holdEnd
      this.#holdEnd += 1
      if (hold >= this.#holdEdge.length) this.#growHolds()
    }
    const next = this.#edgeFirstHold[edge]!
    this.#holdEdge[hold] = edge
    this.#holdSlot[hold] = slot
    this.#holdUsers[hold] = 1
    this.#holdWeight[hold] = 1
    this.#holdNext[hold] = next
    this.#holdPrevious[hold] = noHold
    this.#holdBelow[hold] = noHold
    this.#slotHolds[slot]! += 1
    if (next !== noHold) this.#holdPrevious[next] = hold
    this.#edgeFirstHold[edge] = hold
    this.#holds.insert(hold, holdHash(edge, slot))
    return hold
  }

  #dropHold(hold: number): void {
    const edge = this.#holdEdge[hold]!
    const [previous, next] = [this.#holdPrevious[hold]!, this.#holdNext[hold]!]
    this.#blockCount -= hashCount(this.#edgeBlocks[edge]!)
    this.#slotHolds[this.#holdSlot[hold]!]! -= 1
    this.#holds.remove(hold)
    if (next !== noHold) this.#holdPrevious[next] = previous
    if (previous !== noHold) this.#holdNext[previous] = next
    else this.#edgeFirstHold[edge] = next
    this.#holdNext[hold] = this.#holdFree
    this.#holdFree = hold
    // Who holds a deeper edge holds this one: it has no children.
    if (this.#edgeFirstHold[edge] === noHold) this.#dropEdge(edge)
  }

  #growHolds(): void {
    const count = this.#holdEnd
    this.#holdEdge = grownInt32(this.#holdEdge, count)
    this.#holdSlot = grownInt32(this.#holdSlot, count)
    this.#holdUsers = grownUint32(this.#holdUsers, count)
    this.#holdWeight = grownFloat64(this.#holdWeight, count)
    this.#holdNext = grownInt32(this.#holdNext, count)
    this.#holdPrevious = grownInt32(this.#holdPrevious, count)
    this.#holdBelow = grownInt32(this.#holdBelow, count)
  }
}

const noBlocks = new Uint32Array(0)
