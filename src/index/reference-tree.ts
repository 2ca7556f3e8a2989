/**
 * The device tier as plain objects: slow, small, and the oracle of the fast one.
 *
 * An edge-compressed tree over local hashes. An edge is a list of blocks; an owner covers the first `k` of them and is
 * full when it covers all. Each owner knows blocks by the names (engine hashes) that it gave them itself.
 * Source: router-algorithm 4, with names per owner where the original keeps the first writer's only.
 */
import type { ApplyStatus } from '../model/kv-event.ts'

export interface ReferenceBlock {
  readonly local: bigint
  /** The first writer's name. */
  readonly hash: bigint
  edge: Edge
}

interface Edge {
  blocks: ReferenceBlock[]
  /** Slot to covered blocks, `1..blocks.length`. */
  coverage: Map<number, number>
  children: Map<bigint, Edge>
  parent: Edge | null
  /** Had children once. */
  internal: boolean
}

interface GivenBlock {
  readonly local: bigint
  readonly hash: bigint
}

const newEdge = (parent: Edge | null): Edge => ({ blocks: [], coverage: new Map(), children: new Map(), parent, internal: parent === null })

export class ReferenceTree {
  readonly root: Edge = newEdge(null)
  /** All edges with owners, those that can no longer be reached included. */
  readonly #edges = new Set<Edge>()
  /** Slot to name to block. */
  readonly names = new Map<number, Map<bigint, ReferenceBlock>>()

  #namesOf(slot: number): Map<bigint, ReferenceBlock> {
    let names = this.names.get(slot)
    if (names === undefined) this.names.set(slot, (names = new Map()))
    return names
  }

  stored(slot: number, parentHash: bigint | null, given: readonly GivenBlock[]): ApplyStatus {
    if (parentHash === null) return this.#insertBelow(slot, this.root, given)
    if (given.some((block) => block.hash === parentHash)) return 'invalid_block'
    const parent = this.#namesOf(slot).get(parentHash)
    if (parent === undefined) return 'parent_block_not_found'
    const edge = parent.edge
    const after = edge.blocks.indexOf(parent) + 1
    const rest = edge.blocks.slice(after)
    // A parent known by the rank's own name comes from a chain with other names: there content alone decides.
    const ownName = parent.hash !== parentHash
    const same = (a: ReferenceBlock, b: GivenBlock): boolean => a.local === b.local && (ownName || a.hash === b.hash)
    if (given.length <= rest.length && given.every((block, i) => same(rest[i]!, block))) {
      this.#cover(slot, edge, after + given.length)
      this.#name(slot, edge, after, given)
      return 'ok'
    }
    if (!edge.internal && rest.length < given.length && rest.every((block, i) => same(block, given[i]!))) {
      this.#append(slot, edge, given.slice(rest.length))
      this.#name(slot, edge, after, given)
      return 'ok'
    }
    return this.#insertBelow(slot, rest.length > 0 ? this.#split(edge, after) : edge, given)
  }

  #insertBelow(slot: number, start: Edge, given: readonly GivenBlock[]): ApplyStatus {
    let edge = start
    let remaining = given
    while (remaining.length > 0) {
      const child = edge.children.get(remaining[0]!.local)
      if (child === undefined) {
        if (edge.parent !== null && !edge.internal && edge.coverage.get(slot) === edge.blocks.length) {
          const from = edge.blocks.length
          this.#append(slot, edge, remaining)
          this.#name(slot, edge, from, remaining)
          return 'ok'
        }
        const leaf = newEdge(edge)
        this.#edges.add(leaf)
        edge.children.set(remaining[0]!.local, leaf)
        edge.internal = true
        this.#append(slot, leaf, remaining)
        this.#name(slot, leaf, 0, remaining)
        return 'ok'
      }
      let common = 0
      while (common < child.blocks.length && common < remaining.length && child.blocks[common]!.local === remaining[common]!.local) common += 1
      const target = common < remaining.length && common < child.blocks.length ? this.#split(child, common) : child
      this.#cover(slot, target, common)
      this.#name(slot, target, 0, remaining.slice(0, common))
      remaining = remaining.slice(common)
      edge = target
    }
    return 'ok'
  }

  #append(slot: number, edge: Edge, given: readonly GivenBlock[]): void {
    for (const { local, hash } of given) edge.blocks.push({ local, hash, edge })
    this.#cover(slot, edge, edge.blocks.length)
  }

  #cover(slot: number, edge: Edge, count: number): void {
    edge.coverage.set(slot, Math.max(edge.coverage.get(slot) ?? 0, count))
  }

  #name(slot: number, edge: Edge, from: number, given: readonly GivenBlock[]): void {
    const names = this.#namesOf(slot)
    given.forEach((block, i) => names.set(block.hash, edge.blocks[from + i]!))
  }

  /** Cuts `edge` after `length` blocks; returns the prefix, which takes the edge's place below its parent. */
  #split(edge: Edge, length: number): Edge {
    const prefix = newEdge(edge.parent)
    this.#edges.add(prefix)
    prefix.internal = true
    prefix.blocks = edge.blocks.slice(0, length)
    edge.blocks = edge.blocks.slice(length)
    for (const block of prefix.blocks) block.edge = prefix
    for (const [slot, count] of edge.coverage) {
      prefix.coverage.set(slot, Math.min(count, length))
      if (count > length) edge.coverage.set(slot, count - length)
      else edge.coverage.delete(slot)
    }
    const first = prefix.blocks[0]!.local
    if (edge.parent?.children.get(first) === edge) edge.parent.children.set(first, prefix)
    prefix.children.set(edge.blocks[0]!.local, edge)
    edge.parent = prefix
    this.#prune(edge)
    return prefix
  }

  #prune(edge: Edge): void {
    if (![...edge.coverage.values()].includes(edge.blocks.length)) {
      edge.children.clear()
    }
    const first = edge.blocks[0]!.local
    if (edge.coverage.size > 0) return
    this.#edges.delete(edge)
    if (edge.parent?.children.get(first) === edge) edge.parent.children.delete(first)
  }

  removed(slot: number, hashes: readonly bigint[]): ApplyStatus {
    const names = this.#namesOf(slot)
    const unknown = hashes.some((hash) => !names.has(hash))
    for (let i = 0; i < hashes.length; i += 1) {
      const block = names.get(hashes[i]!)
      if (block === undefined) continue
      names.delete(hashes[i]!)
      const edge = block.edge
      const covered = edge.coverage.get(slot) ?? 0
      let position = edge.blocks.indexOf(block)
      for (; i + 1 < hashes.length; i += 1) {
        const next = names.get(hashes[i + 1]!)
        if (next?.edge !== edge || edge.blocks.indexOf(next) >= covered) break
        names.delete(hashes[i + 1]!)
        position = Math.min(position, edge.blocks.indexOf(next))
      }
      if (position >= covered) continue
      this.#uncover(slot, edge, position)
      this.#prune(edge)
    }
    return unknown ? 'block_not_found' : 'ok'
  }

  /** Lowers a coverage; the blocks beyond lose their names. */
  #uncover(slot: number, edge: Edge, position: number): void {
    const names = this.#namesOf(slot)
    const gone = new Set(edge.blocks.slice(position, edge.coverage.get(slot)))
    for (const block of gone) names.delete(block.hash)
    for (const [hash, block] of names) if (gone.has(block)) names.delete(hash)
    if (position === 0) edge.coverage.delete(slot)
    else edge.coverage.set(slot, position)
  }

  drop(slot: number): void {
    for (const edge of this.#edges) {
      if (edge.coverage.delete(slot)) this.#prune(edge)
    }
    this.names.delete(slot)
  }

  /** Blocks that a rank covers, reachable or not. */
  coveredCount(slot: number): number {
    let count = 0
    for (const edge of this.#edges) count += edge.coverage.get(slot) ?? 0
    return count
  }

  /** Covered prefix blocks per slot, and the tree's blocks along the query. `earlyExit`: enough when one rank is left. */
  find(locals: readonly bigint[], earlyExit = false): { readonly scores: Map<number, number>; readonly path: readonly ReferenceBlock[] } {
    const scores = new Map<number, number>()
    const path: ReferenceBlock[] = []
    let active: Set<number> | null = null
    let edge = this.root.children.get(locals[0] ?? -1n)
    while (edge !== undefined) {
      const depth = path.length
      let matched = 0
      while (matched < edge.blocks.length && edge.blocks[matched]!.local === locals[depth + matched]) path.push(edge.blocks[matched++]!)
      const candidates: Iterable<number> = active ?? edge.coverage.keys()
      const next = new Set<number>()
      for (const slot of candidates) {
        const count = edge.coverage.get(slot) ?? 0
        scores.set(slot, depth + Math.min(count, matched))
        if (count === edge.blocks.length) next.add(slot)
      }
      active = next
      if (active.size === 0 || matched < edge.blocks.length || (earlyExit && active.size === 1)) break
      edge = edge.children.get(locals[path.length] ?? -1n)
    }
    return { scores, path }
  }

  /** The name by which `slot` knows a block that it covers: the first writer's if it can, else the smallest of its own. */
  nameOf(slot: number, block: ReferenceBlock): bigint {
    const names = this.#namesOf(slot)
    if (names.get(block.hash) === block) return block.hash
    const own = [...names].filter(([, named]) => named === block).map(([hash]) => hash)
    return own.reduce((a, b) => (b < a ? b : a), own[0] ?? block.hash)
  }

  /** Reachable runs of blocks that a rank covers, parents before children. */
  *runs(slot: number, edge: Edge = this.root, parent: ReferenceBlock | null = null): Generator<{ parent: ReferenceBlock | null; blocks: readonly ReferenceBlock[] }> {
    const covered = edge.coverage.get(slot) ?? 0
    if (covered > 0) yield { parent, blocks: edge.blocks.slice(0, covered) }
    for (const child of edge.children.values()) yield* this.runs(slot, child, edge.blocks.at(-1) ?? null)
  }
}
