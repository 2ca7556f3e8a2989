/**
 * One rank's engine events, consumed directly: messages in order of their sequence, gaps seen, batches made router events. Pure.
 *
 * What was learned of groups and namespaces holds for the feed's life. Source: router-algorithm 3.6.
 */
import { decodeRawBatch } from '../engines/raw-kv-events.ts'
import { RawEventNormaliser } from '../kv-events/raw-event-normaliser.ts'
import type { RouterEvent } from '../model/kv-event.ts'
import type { WorkerRank } from '../model/worker.ts'

/** Plain counters, shared by the feeds of one service. */
export interface FeedStats {
  messages: number
  /** Messages at or below the cursor. */
  stale: number
  malformed: number
  gaps: number
  /** Messages that a replay brought. */
  replayed: number
  /** Messages that no replay brought. */
  lost: number
  /** Replays that ended with an error, or too late. */
  failedReplays: number
}

export const createFeedStats = (): FeedStats => ({ messages: 0, stale: 0, malformed: 0, gaps: 0, replayed: 0, lost: 0, failedReplays: 0 })

export class EngineFeed {
  readonly #rank: WorkerRank
  readonly #normaliser: RawEventNormaliser
  readonly #stats: FeedStats
  readonly #onEvent: (event: RouterEvent) => void
  #last: bigint | null = null

  constructor(rank: WorkerRank, blockSize: number, stats: FeedStats, onEvent: (event: RouterEvent) => void) {
    this.#rank = rank
    this.#normaliser = new RawEventNormaliser({ workerId: rank.workerId, blockSize })
    this.#stats = stats
    this.#onEvent = onEvent
  }

  /** Sequence of the newest message; null before the first. */
  get last(): bigint | null {
    return this.#last
  }

  /** The first sequence that is missing before `sequence`; null: none is. */
  gapBefore(sequence: bigint): bigint | null {
    const expected = this.#last === null ? 0n : this.#last + 1n
    return sequence > expected ? expected : null
  }

  /** Takes a message, whatever came before it; one that came already is passed over. */
  accept(sequence: bigint, payload: Uint8Array, isReplay = false): void {
    if (this.#last !== null && sequence <= this.#last) {
      this.#stats.stale += 1
      return
    }
    const outcome = decodeRawBatch(payload)
    if (outcome.kind === 'refused') {
      // As in the original the cursor stays: the next message shows a gap.
      this.#stats.malformed += 1
      return
    }
    if (isReplay) this.#stats.replayed += 1
    else this.#stats.messages += 1
    for (const event of this.#normaliser.normalise(outcome.batch, { eventId: sequence, defaultDpRank: this.#rank.dpRank })) this.#onEvent(event)
    this.#last = sequence
  }
}
