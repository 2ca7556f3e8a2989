/** The waiting requests of one policy class: those for any worker, and one lane per pinned rank. */
import { ClassQueue, compareItems, type QueueItem } from './class-queue.ts'

/** Whether a request may go now. */
export type MayGo<Item> = (item: Item) => boolean

interface Lane<Item extends QueueItem> {
  readonly queue: ClassQueue<Item>
  /** Its first request could not go when it was asked last, and no room was made since. */
  isBlocked: boolean
}

/**
 * Requests that wait in one class.
 *
 * Invariants: a lane is kept while it holds requests; a request for any worker holds back those behind it, a pinned one only its own lane.
 * Cost: logarithmic to add and remove; `next` asks the shared head, then lanes in the order of their heads until one may go.
 */
export class ClassLanes<Item extends QueueItem> {
  readonly #shared = new ClassQueue<Item>()
  readonly #lanes = new Map<string, Lane<Item>>()
  /** Sums over the waiting items. */
  promptTokens = 0
  cachedTokens = 0
  size = 0

  /** All items, in no order. */
  get items(): readonly Item[] {
    return this.#lanes.size === 0 ? this.#shared.items : [...this.#shared.items, ...[...this.#lanes.values()].flatMap(({ queue }) => queue.items)]
  }

  push(item: Item): void {
    this.size += 1
    this.promptTokens += item.promptTokens
    this.cachedTokens += item.cachedTokens
    if (item.lane === null) return this.#shared.push(item)
    let lane = this.#lanes.get(item.lane)
    if (lane === undefined) this.#lanes.set(item.lane, (lane = { queue: new ClassQueue<Item>(), isBlocked: false }))
    lane.queue.push(item)
  }

  /** Without effect when the item does not wait here. */
  remove(item: Item): boolean {
    const queue = item.lane === null ? this.#shared : this.#lanes.get(item.lane)?.queue
    if (queue === undefined || !queue.remove(item)) return false
    if (item.lane !== null && queue.size === 0) this.#lanes.delete(item.lane)
    this.size -= 1
    this.promptTokens -= item.promptTokens
    this.cachedTokens -= item.cachedTokens
    return true
  }

  /** Room may have been made: lanes are asked again. */
  recheck(): void {
    for (const lane of this.#lanes.values()) lane.isBlocked = false
  }

  /** The first request that may go, by the order of the heads; undefined: none. */
  next(mayGo: MayGo<Item>): Item | undefined {
    const { head } = this.#shared
    const shared = head !== undefined && mayGo(head) ? head : undefined
    if (this.#lanes.size === 0) return shared
    for (;;) {
      const lane = this.#firstLane()
      const pinned = lane?.queue.head
      if (lane === undefined || pinned === undefined || (shared !== undefined && compareItems(shared, pinned) < 0)) return shared
      if (mayGo(pinned)) return pinned
      lane.isBlocked = true
    }
  }

  /** The lane whose head comes first of those not known to be blocked. */
  #firstLane(): Lane<Item> | undefined {
    let first: Lane<Item> | undefined
    for (const lane of this.#lanes.values()) {
      if (!lane.isBlocked && (first === undefined || compareItems(lane.queue.head!, first.queue.head!) < 0)) first = lane
    }
    return first
  }
}
