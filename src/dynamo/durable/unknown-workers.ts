/** Durable events of workers that discovery does not know yet: they wait, within a bound, until it does. */
import type { RouterEvent } from '../../model/kv-event.ts'
import type { WorkerId } from '../../model/worker.ts'

export interface UnknownWorkersLimits {
  /** Events of all workers together. */
  readonly eventsMax: number
  /** How long a worker's events wait for it. Units: ms. */
  readonly waitMs: number
}

/** State: events per worker, in order. The worker that waits longest is given up first. */
export class UnknownWorkers {
  /** Events given up, because of the bound or the time. */
  dropped = 0
  readonly #limits: UnknownWorkersLimits
  readonly #waiting = new Map<WorkerId, { readonly sinceMs: number; readonly events: RouterEvent[] }>()
  #count = 0

  constructor(limits: UnknownWorkersLimits = { eventsMax: 131_072, waitMs: 30_000 }) {
    this.#limits = limits
  }

  get count(): number {
    return this.#count
  }

  hold(event: RouterEvent, nowMs: number): void {
    let waiting = this.#waiting.get(event.workerId)
    if (waiting === undefined) this.#waiting.set(event.workerId, (waiting = { sinceMs: nowMs, events: [] }))
    waiting.events.push(event)
    this.#count += 1
    while (this.#count > this.#limits.eventsMax) {
      const [first] = this.#waiting.keys()
      this.dropped += this.take(first as WorkerId).length
    }
  }

  /** The worker's events, which wait no longer. */
  take(workerId: WorkerId): readonly RouterEvent[] {
    const events = this.#waiting.get(workerId)?.events ?? []
    this.#waiting.delete(workerId)
    this.#count -= events.length
    return events
  }

  /** Gives up what has waited too long. */
  tick(nowMs: number): void {
    for (const [workerId, { sinceMs }] of this.#waiting) {
      if (nowMs - sinceMs > this.#limits.waitMs) this.dropped += this.take(workerId).length
    }
  }
}
