/** Waiting requests in their order, the next one first. Source: router-algorithm 10. */
import type { QueuePolicy } from './policy-profile.ts'

/** What the order depends on. Constant while the request waits. */
export interface QueueItem {
  readonly strictPriority: number
  /** Monotonic milliseconds; Infinity: none. */
  readonly deadlineMs: number
  readonly score: number
  /** Order of arrival. */
  readonly sequence: number
  /** The rank that it is pinned to; null: any worker may take it. Pinned requests wait by rank. */
  readonly lane: string | null
  readonly promptTokens: number
  /** Most prompt tokens that an eligible rank had cached on arrival. */
  readonly cachedTokens: number
  /** Prompt tokens to compute, at least 1: what the request costs its class. */
  readonly cost: number
  /** Place in its heap; -1: waits nowhere. Written by `ClassQueue` alone. */
  position: number
}

/** Larger goes first. `arrivalSeconds` counts from any fixed moment. */
export function orderScore(policy: QueuePolicy, priorityJumpSeconds: number, arrivalSeconds: number, cost: number): number {
  const jump = Math.max(0, priorityJumpSeconds)
  if (policy === 'fcfs') return jump - arrivalSeconds
  if (policy === 'lcfs') return jump + arrivalSeconds
  return (1 + jump) / cost
}

/** Below 0: `a` goes first. Never 0 for two items. */
export function compareItems(a: QueueItem, b: QueueItem): number {
  if (a.strictPriority !== b.strictPriority) return b.strictPriority - a.strictPriority
  if (a.deadlineMs !== b.deadlineMs) return a.deadlineMs < b.deadlineMs ? -1 : 1
  if (a.score !== b.score) return a.score > b.score ? -1 : 1
  return a.sequence - b.sequence
}

/** A binary heap whose items know their place. Cost: logarithmic to add and remove, constant to look. */
export class ClassQueue<Item extends QueueItem> {
  readonly #heap: Item[] = []

  get size(): number {
    return this.#heap.length
  }

  get head(): Item | undefined {
    return this.#heap[0]
  }

  /** All items, in no order. */
  get items(): readonly Item[] {
    return this.#heap
  }

  push(item: Item): void {
    this.#heap.push(item)
    this.#rise(item, this.#heap.length - 1)
  }

  /** Whether the item was here; if not, nothing happens. */
  remove(item: Item): boolean {
    const { position } = item
    if (this.#heap[position] !== item) return false
    item.position = -1
    const last = this.#heap.pop()!
    if (last === item) return true
    if (position > 0 && compareItems(last, this.#heap[(position - 1) >> 1]!) < 0) this.#rise(last, position)
    else this.#sink(last, position)
    return true
  }

  #rise(item: Item, from: number): void {
    const heap = this.#heap
    let position = from
    while (position > 0) {
      const parentAt = (position - 1) >> 1
      const parent = heap[parentAt]!
      if (compareItems(parent, item) <= 0) break
      this.#place(parent, position)
      position = parentAt
    }
    this.#place(item, position)
  }

  #sink(item: Item, from: number): void {
    const heap = this.#heap
    let position = from
    for (;;) {
      let childAt = 2 * position + 1
      if (childAt >= heap.length) break
      if (childAt + 1 < heap.length && compareItems(heap[childAt + 1]!, heap[childAt]!) < 0) childAt += 1
      const child = heap[childAt]!
      if (compareItems(item, child) <= 0) break
      this.#place(child, position)
      position = childAt
    }
    this.#place(item, position)
  }

  #place(item: Item, position: number): void {
    this.#heap[position] = item
    item.position = position
  }
}
