/**
 * When a snapshot is made, and what may go from the stream then.
 *
 * Written first and purged after: whatever is gone from the stream is in the snapshot. Purged is what every consumer has acknowledged; a
 * consumer that has acknowledged nothing yet holds it all. Routers share one object, the last writer wins; if one has purged beyond
 * what another wrote after it, the other writes again.
 */
import type { RouterEvent } from '../../model/kv-event.ts'
import type { Log } from '../../ports.ts'
import type { JetStreamStore } from './jetstream-store.ts'
import { encodeSnapshot, type SnapshotLayout } from './snapshot-codec.ts'

export interface SnapshotKeeperParts {
  readonly threshold: number
  readonly log: Log
  readonly stats: { snapshotsWritten: number; snapshotsFailed: number; streamMessages: number }
  store(): JetStreamStore | null
  /** Sequence of the newest message that was applied. */
  lastSequence(): number
  dump(): Iterable<readonly RouterEvent[]>
  layout(): Promise<SnapshotLayout>
  /** Events wait for their worker: a snapshot would lose them. */
  isWaiting(): boolean
}

const writesMax = 3
const backoffMaxMs = 60_000

export class SnapshotKeeper {
  readonly #parts: SnapshotKeeperParts
  /** While the stream cannot be made shorter, it is looked at ever more rarely. */
  #notBeforeMs = 0
  #delayMs = 1000

  constructor(parts: SnapshotKeeperParts) {
    this.#parts = parts
  }

  /** Call about once a second. Errors: none. */
  async check(nowMs: number): Promise<void> {
    const { log, stats, threshold } = this.#parts
    const store = this.#parts.store()
    if (store === null) return
    try {
      const { messages } = await store.streamState()
      stats.streamMessages = messages
      if (messages <= threshold || this.#parts.isWaiting() || nowMs < this.#notBeforeMs) return
      const done = await this.#make(store)
      stats.streamMessages = (await store.streamState()).messages
      this.#delayMs = done && stats.streamMessages <= threshold ? 1000 : Math.min(2 * this.#delayMs, backoffMaxMs)
      this.#notBeforeMs = nowMs + this.#delayMs - 1000
    } catch (error) {
      stats.snapshotsFailed += 1
      log.warn({ stage: 'durable', reason: (error as Error).message }, 'no snapshot of the durable KV events could be made')
    }
  }

  /** False: a consumer has not acknowledged anything yet. */
  async #make(store: JetStreamStore): Promise<boolean> {
    const floor = Math.min(...(await store.consumers()).map(({ ackFloor }) => ackFloor))
    if (!Number.isFinite(floor) || floor === 0) return false
    const layout = await this.#parts.layout()
    for (let write = 1; write <= writesMax; write += 1) {
      const applied = this.#parts.lastSequence()
      const events = await this.#collect()
      await store.writeSnapshot(encodeSnapshot(events, layout))
      this.#parts.stats.snapshotsWritten += 1
      if (write === 1) await store.purge(Math.min(floor, applied))
      this.#parts.log.info({ stage: 'durable', events: events.length, layout, floor }, 'snapshot of the durable KV events was written')
      if ((await store.streamState()).firstSequence <= applied + 1) break
    }
    return true
  }

  /** Rank by rank, with other work in between. */
  async #collect(): Promise<RouterEvent[]> {
    const events: RouterEvent[] = []
    for (const rank of this.#parts.dump()) {
      for (const event of rank) events.push({ ...event, eventId: BigInt(events.length) })
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
    return events
  }
}
