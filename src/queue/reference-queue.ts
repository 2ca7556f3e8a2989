/** Waiting requests served in the plainest way: lists that are sorted anew for every question. Slow; the oracle of the tests. */
import { compareItems, type QueueItem } from './class-queue.ts'
import type { PolicyClass } from './policy-profile.ts'
import type { DispatchTest } from './policy-queue.ts'

export class ReferenceQueue<Item extends QueueItem> {
  readonly #classes: readonly PolicyClass[]
  readonly #items: Item[][]
  readonly #deficits: number[]
  #cursor = 0
  #carry: number | null = null

  constructor(classes: readonly PolicyClass[]) {
    this.#classes = classes
    this.#items = classes.map(() => [])
    this.#deficits = classes.map(() => 0)
  }

  get size(): number {
    return this.#items.reduce((sum, items) => sum + items.length, 0)
  }

  push(item: Item, classIndex: number): void {
    this.#items[classIndex]!.push(item)
  }

  remove(item: Item, classIndex: number): void {
    const before = this.#items[classIndex]!
    this.#items[classIndex] = before.filter((other) => other !== item)
    if (before.length > 0 && this.#items[classIndex]!.length === 0) this.#deficits[classIndex] = 0
  }

  /** The first of all that stand first in their lanes and may go. */
  #head(index: number, mayGo: DispatchTest<Item>): Item | undefined {
    const sorted = [...this.#items[index]!].sort(compareItems)
    return sorted.find((item) => sorted.find(({ lane }) => lane === item.lane) === item && mayGo(item, index))
  }

  pop(mayGo: DispatchTest<Item>): Item | null {
    const carried = this.#carry
    this.#carry = null
    if (this.size === 0) return null
    const order = this.#classes.map((_, step) => (this.#cursor + step) % this.#classes.length)
    const heads = order.filter((index) => this.#head(index, mayGo) !== undefined)
    const pays = (index: number): boolean => this.#head(index, mayGo)!.cost <= this.#deficits[index]!
    const take = (index: number): Item => this.#take(index, this.#head(index, mayGo)!)
    if (carried !== null && heads.includes(carried) && pays(carried)) return take(carried)
    for (const index of order) {
      if (this.#items[index]!.length === 0) this.#deficits[index] = 0
      if (!heads.includes(index)) continue
      if (!pays(index)) this.#deficits[index]! += this.#classes[index]!.quantum
      if (pays(index)) return take(index)
    }
    if (heads.length === 0) return null
    const rounds = Math.min(...heads.map((index) => Math.ceil((this.#head(index, mayGo)!.cost - this.#deficits[index]!) / this.#classes[index]!.quantum)))
    for (const index of heads) this.#deficits[index]! += rounds * this.#classes[index]!.quantum
    return take(heads.find(pays)!)
  }

  #take(index: number, item: Item): Item {
    const left = Math.max(0, this.#deficits[index]! - item.cost)
    this.remove(item, index)
    this.#cursor = (index + 1) % this.#classes.length
    const isEmpty = this.#items[index]!.length === 0
    this.#deficits[index] = isEmpty ? 0 : left
    this.#carry = !isEmpty && left > 0 ? index : null
    return item
  }
}
