/**
 * What a worker rank has told of its cache, for routers that come late or missed something: the last events, and a mirror of
 * the blocks held now. Pure; the publisher puts it on the wire.
 */
import { createPrefixIndex } from '../../index/prefix-index.ts'
import type { ApproximatePrefixIndex } from '../../index/contract.ts'
import type { KvEventData, RouterEvent, StorageTier } from '../../model/kv-event.ts'
import type { WorkerRank } from '../../model/worker.ts'
import type { RecoveryReply, RecoveryRequest } from './recovery-codec.ts'

/** A change of a rank's cache, before it has an id. A `RouterEvent` is one too. */
export interface KvChange {
  readonly storageTier: StorageTier
  readonly data: KvEventData
  readonly sessionId?: string
}

/** Events kept for replay. */
export const eventRingMax = 1024

export class KvEventLog {
  readonly rank: WorkerRank
  readonly #ringMax: number
  readonly #mirror: ApproximatePrefixIndex = createPrefixIndex()
  /** Oldest first from `#ringStart` on; at most `#ringMax` events. */
  readonly #ring: RouterEvent[] = []
  #ringStart = 0
  #lastEventId = 0n

  constructor(rank: WorkerRank, ringMax = eventRingMax) {
    this.rank = { workerId: rank.workerId, dpRank: rank.dpRank }
    this.#ringMax = ringMax
  }

  /** Id of the newest event; 0 before the first. */
  get lastEventId(): bigint {
    return this.#lastEventId
  }

  /** Blocks held now, in all tiers. */
  get blockCount(): number {
    return this.#mirror.entryCount
  }

  /** Gives the change the next id, from 1 on, and remembers it. */
  append(change: KvChange): RouterEvent {
    this.#lastEventId += 1n
    const event: RouterEvent = {
      ...this.rank, storageTier: change.storageTier, residencyDomain: 'worker', eventId: this.#lastEventId, data: change.data,
      ...(change.sessionId === undefined ? {} : { sessionId: change.sessionId }),
    }
    if (this.#ring.length < this.#ringMax) this.#ring.push(event)
    else {
      this.#ring[this.#ringStart] = event
      this.#ringStart = (this.#ringStart + 1) % this.#ringMax
    }
    if (change.data.kind === 'cleared') this.#mirror.dropRank(0)
    else this.#mirror.apply(0, change.storageTier, change.data)
    return event
  }

  /** The answer to a router's question. */
  answer(request: RecoveryRequest): RecoveryReply {
    const { workerId, dpRank } = this.rank
    if (request.workerId !== workerId) return { Error: `worker_id ${request.workerId} asked, this source is of worker_id ${workerId}` }
    if (request.dpRank !== dpRank) return { Error: `dp_rank ${request.dpRank} asked, this source is of dp_rank ${dpRank}` }
    const { startEventId: start, endEventId: end } = request
    if (start !== null && end !== null && end !== undefined && end < start) return { InvalidRange: { startId: start, endId: end } }
    const oldest = this.#lastEventId - BigInt(this.#ring.length) + 1n
    if (start === null || this.#ring.length === 0 || start < oldest) return this.#dump()
    if (start > this.#lastEventId) {
      return { TooNew: { requestedStart: start, requestedEnd: end ?? this.#lastEventId, newestAvailable: this.#lastEventId } }
    }
    const events: RouterEvent[] = []
    for (let index = Number(start - oldest); index < this.#ring.length; index += 1) {
      events.push(this.#ring[(this.#ringStart + index) % this.#ring.length] as RouterEvent)
    }
    return { Events: { events, lastEventId: this.#lastEventId } }
  }

  #dump(): RecoveryReply {
    const events = this.#mirror.dump(0).map(({ tier, data }, index): RouterEvent => ({
      ...this.rank, storageTier: tier, residencyDomain: 'worker', eventId: BigInt(index), data,
    }))
    return { TreeDump: { events, lastEventId: this.#lastEventId } }
  }
}
