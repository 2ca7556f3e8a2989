/** Waiting requests of all classes, served by deficit round robin. Source: router-algorithm 10. */
import { ClassLanes } from './class-lanes.ts'
import type { QueueItem } from './class-queue.ts'
import type { PolicyClass } from './policy-profile.ts'

export type LimitKind = 'requests' | 'raw_isl_tokens' | 'cached_tokens'

/** A limit of a class that is reached. */
export interface LimitReached {
  readonly kind: LimitKind
  readonly current: number
  readonly limit: number
}

/** Whether a request that stands first in its lane may go now. */
export type DispatchTest<Item> = (item: Item, classIndex: number) => boolean

/**
 * Waiting requests by class.
 *
 * State: lanes and a deficit per class, the cursor of the round, and the class that may go on with what its deficit has left.
 * Deterministic: depends on the calls alone. Cost of `pop`: one test per class and lane that is not known to be blocked, and a removal.
 */
export class PolicyQueue<Item extends QueueItem> {
  readonly #classes: readonly PolicyClass[]
  readonly #queues: readonly ClassLanes<Item>[]
  readonly #deficits: Float64Array
  /** Each class's request that may go in the present `pop`; null: not asked yet, undefined: none. */
  readonly #candidates: (Item | null | undefined)[]
  #cursor = 0
  #carry = -1
  #size = 0

  constructor(classes: readonly PolicyClass[]) {
    this.#classes = classes
    this.#queues = classes.map(() => new ClassLanes<Item>())
    this.#deficits = new Float64Array(classes.length)
    this.#candidates = classes.map(() => null)
  }

  get size(): number {
    return this.#size
  }

  queueOf(classIndex: number): ClassLanes<Item> {
    return this.#queues[classIndex]!
  }

  /** The first limit of the class that is reached before anything is added, or null. */
  limitReached(classIndex: number, workerCount: number): LimitReached | null {
    const { limits } = this.#classes[classIndex]!
    const { size, promptTokens, cachedTokens } = this.#queues[classIndex]!
    return reached('requests', limits.requests, size, workerCount) ??
      reached('raw_isl_tokens', limits.promptTokens, promptTokens, workerCount) ??
      reached('cached_tokens', limits.cachedTokens, cachedTokens, workerCount)
  }

  push(item: Item, classIndex: number): void {
    this.#queues[classIndex]!.push(item)
    this.#size += 1
  }

  /** Takes a waiting item out, whatever its turn. Without effect when it does not wait. */
  remove(item: Item, classIndex: number): void {
    const queue = this.#queues[classIndex]!
    if (!queue.remove(item)) return
    this.#size -= 1
    if (queue.size === 0) this.#deficits[classIndex] = 0
  }

  /** Room may have been made: pinned requests are asked again. */
  recheck(): void {
    for (const queue of this.#queues) queue.recheck()
  }

  /** Takes out the next item that may go, or gives null. */
  pop(mayGo: DispatchTest<Item>): Item | null {
    if (this.#size === 0) {
      this.#carry = -1
      return null
    }
    this.#candidates.fill(null)
    const carried = this.#carry
    this.#carry = -1
    if (carried >= 0 && this.#isOpen(carried, mayGo) && this.#isPaid(carried)) return this.#take(carried)
    return this.#inTurn(mayGo) ?? this.#afterRounds()
  }

  /** One round: each class gets its quantum until one can pay. */
  #inTurn(mayGo: DispatchTest<Item>): Item | null {
    const count = this.#classes.length
    for (let step = 0; step < count; step++) {
      const index = (this.#cursor + step) % count
      if (!this.#isOpen(index, mayGo)) {
        if (this.#queues[index]!.size === 0) this.#deficits[index] = 0
        continue
      }
      if (this.#isPaid(index)) return this.#take(index)
      this.#deficits[index]! += this.#classes[index]!.quantum
      if (this.#isPaid(index)) return this.#take(index)
    }
    return null
  }

  /** As many rounds at once as the first class needs that can pay. */
  #afterRounds(): Item | null {
    const count = this.#classes.length
    let rounds = Infinity
    for (let index = 0; index < count; index++) {
      const candidate = this.#candidates[index]
      if (candidate) rounds = Math.min(rounds, Math.ceil((candidate.cost - this.#deficits[index]!) / this.#classes[index]!.quantum))
    }
    if (rounds === Infinity) return null
    for (let index = 0; index < count; index++) {
      if (this.#candidates[index]) this.#deficits[index]! += rounds * this.#classes[index]!.quantum
    }
    for (let step = 0; step < count; step++) {
      const index = (this.#cursor + step) % count
      if (this.#candidates[index] && this.#isPaid(index)) return this.#take(index)
    }
    return null
  }

  #isOpen(index: number, mayGo: DispatchTest<Item>): boolean {
    if (this.#candidates[index] === null) this.#candidates[index] = this.#queues[index]!.next((item) => mayGo(item, index))
    return this.#candidates[index] !== undefined
  }

  #isPaid(index: number): boolean {
    return this.#candidates[index]!.cost <= this.#deficits[index]!
  }

  #take(index: number): Item {
    const queue = this.#queues[index]!
    const item = this.#candidates[index]!
    queue.remove(item)
    this.#size -= 1
    this.#cursor = (index + 1) % this.#classes.length
    const left = Math.max(0, this.#deficits[index]! - item.cost)
    this.#deficits[index] = queue.size === 0 ? 0 : left
    if (queue.size > 0 && left > 0) this.#carry = index
    return item
  }
}

function reached(kind: LimitKind, perWorker: number | null, current: number, workerCount: number): LimitReached | null {
  if (perWorker === null) return null
  const limit = perWorker * workerCount
  return current >= limit ? { kind, current, limit } : null
}
