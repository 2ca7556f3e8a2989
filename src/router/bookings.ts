/**
 * The life of bookings: those of this router's requests, and beside them those that other routers tell of.
 *
 * A peer's booking is load like any other, under an id that no request of this router has. One writer: the router.
 */
import type { ActiveSequences, BookingOutcome } from '../load/active-sequences.ts'
import { sequenceHashes } from '../hashing/block-hashes.ts'
import type { HashList } from '../model/hash-list.ts'
import type { RankSlot, WorkerRank } from '../model/worker.ts'
import type { OverloadWatch } from './overload-watch.ts'
import type { PoolIndex } from './pool-index.ts'
import type { WorkerDirectory } from './worker-directory.ts'

/** What of a booking concerns others. */
export interface BookingNote {
  readonly requestId: string
  readonly rank: WorkerRank
  /** Tracking hashes; null: blocks are not tracked. */
  readonly sequence: HashList | null
  readonly promptTokens: number
  /** Prompt tokens that the rank must compute; 0 when prefill is not tracked. */
  readonly prefillTokens: number
  readonly trackPrefillTokens: boolean
  readonly expectedOutputTokens: number | null
  readonly loraName: string | null
}

/** Told of this router's own bookings. May not throw, nor call the router. */
export interface BookingListener {
  onBooked(note: BookingNote): void
  onPrefillCompleted(requestId: string): void
  /** Freed or expired; not when its worker is gone. */
  onEnded(requestId: string): void
}

/** A booking of an own request on a rank that was chosen before. */
export interface DirectBooking extends BookingNote {
  /** Local hashes of the prompt, for ranks whose cache is assumed from what goes there; null: nothing is assumed. */
  readonly local: HashList | null
}

/** A booking of another router. */
export interface PeerBooking {
  /** Of the caller's choice, and its own among all peers. */
  readonly key: string
  readonly rank: WorkerRank
  readonly sequence: HashList | null
  readonly prefillTokens: number
  readonly expectedOutputTokens: number | null
}

export interface BookingsParts {
  readonly loads: ActiveSequences
  readonly index: PoolIndex
  readonly overload: OverloadWatch
  readonly directory: WorkerDirectory
  readonly blockSize: number
  /** Prompt work as of now, where it decays. */
  refreshLoads(): void
  /** Load has gone: who waits may go. */
  recheck(): void
}

const noTokens = new Uint32Array(0)

/** Request ids are text that people and libraries choose; none begins with this. */
const peerMark = '\u0000peer\u0000'

export class Bookings {
  /** Null: nobody is told. */
  listener: BookingListener | null = null
  readonly #parts: BookingsParts

  constructor(parts: BookingsParts) {
    this.#parts = parts
  }

  /** Books without choosing: no queue, no busy test. */
  book(booking: DirectBooking, nowMs: number): BookingOutcome | 'unknown-rank' {
    const { requestId, rank, sequence, prefillTokens, promptTokens, expectedOutputTokens, local } = booking
    const { loads, index, overload, directory, blockSize } = this.#parts
    const slot = directory.slotOf(rank.workerId, rank.dpRank)
    if (slot < 0) return 'unknown-rank'
    const outcome = loads.add({ requestId, slot, sequence, prefillTokens, promptTokens, expectedOutputTokens }, blockSize, nowMs)
    if (outcome === 'duplicate') return outcome
    if (local !== null && local.length > 0 && index.wantsRecord(slot)) {
      index.record({ requestId, slot, query: { tokens: noTokens }, local, sequence: sequenceHashes(local), isTracked: outcome === 'booked' }, nowMs)
    }
    overload.observe(slot)
    if (outcome === 'booked') this.listener?.onBooked(booking)
    return outcome
  }

  /** Assumes the blocks of a prompt that was booked without them. `local` as in `DirectBooking`. Unknown ids: nothing. */
  assume(requestId: string, local: HashList, nowMs: number): void {
    const { loads, index } = this.#parts
    const slot = loads.slotOf(requestId)
    if (slot < 0 || local.length === 0 || !index.wantsRecord(slot)) return
    index.record({ requestId, slot, query: { tokens: noTokens }, local, sequence: sequenceHashes(local), isTracked: true }, nowMs)
  }

  /** The rank of an own request; null: it is not booked. */
  rankOf(requestId: string): WorkerRank | null {
    const slot = this.#parts.loads.slotOf(requestId)
    return slot < 0 ? null : this.#parts.directory.rankOf(slot)
  }

  /** First output of an own request. Unknown ids: false. */
  prefillCompleted(requestId: string): boolean {
    if (!this.#completePrefill(requestId)) return false
    this.listener?.onPrefillCompleted(requestId)
    return true
  }

  /** Ends an own booking. Unknown ids: false. */
  free(requestId: string): boolean {
    if (!this.#free(requestId)) return false
    this.listener?.onEnded(requestId)
    return true
  }

  /** Drops what gave no sign of life for too long. `onExpired`: of own requests. */
  expire(nowMs: number, onExpired: (requestId: string, slot: RankSlot) => void): void {
    const { loads, index, overload } = this.#parts
    loads.expire(nowMs, (requestId, slot) => {
      overload.observe(slot)
      if (requestId.startsWith(peerMark)) return
      index.release(requestId)
      this.listener?.onEnded(requestId)
      onExpired(requestId, slot)
    })
  }

  // ---- Peers ---------------------------------------------------------------------------------------------------------------

  /** `unknown-rank`: nothing is booked; try again when the worker is known. */
  bookPeer({ key, rank, sequence, prefillTokens, expectedOutputTokens }: PeerBooking, nowMs: number): BookingOutcome | 'unknown-rank' {
    const { loads, overload, directory, blockSize } = this.#parts
    const slot = directory.slotOf(rank.workerId, rank.dpRank)
    if (slot < 0) return 'unknown-rank'
    const requestId = peerMark + key
    const outcome = loads.add({ requestId, slot, sequence, prefillTokens, promptTokens: prefillTokens, expectedOutputTokens }, blockSize, nowMs)
    overload.observe(slot)
    return outcome
  }

  /** A prompt that another router sent to a rank whose blocks are assumed. */
  recordPrompt({ workerId, dpRank }: WorkerRank, local: HashList, sequence: HashList, nowMs: number): void {
    const { directory, index } = this.#parts
    const slot = directory.slotOf(workerId, dpRank)
    if (slot < 0 || local.length === 0 || !index.wantsRecord(slot)) return
    index.record({ requestId: '', slot, query: { tokens: noTokens }, local, sequence, isTracked: false }, nowMs)
  }

  peerPrefillCompleted(key: string): boolean {
    return this.#completePrefill(peerMark + key)
  }

  freePeer(key: string): boolean {
    return this.#free(peerMark + key)
  }

  /** A sign of life. Unknown keys: false. */
  touchPeer(key: string): boolean {
    return this.#parts.loads.touch(peerMark + key)
  }

  #completePrefill(id: string): boolean {
    const { loads, overload } = this.#parts
    const slot = loads.slotOf(id)
    if (slot < 0) return false
    this.#parts.refreshLoads()
    loads.prefillCompleted(id)
    overload.observe(slot)
    this.#parts.recheck()
    return true
  }

  #free(id: string): boolean {
    const { loads, index, overload } = this.#parts
    const slot = loads.slotOf(id)
    if (slot < 0) return false
    loads.free(id)
    index.release(id)
    overload.observe(slot)
    this.#parts.recheck()
    return true
  }
}
