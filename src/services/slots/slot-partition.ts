/** What running requests occupy on the workers of one model and routing group. Source: router-algorithm 8 and 16.3. */
import { ActiveSequences } from '../../load/active-sequences.ts'
import { hashCount, type HashList } from '../../model/hash-list.ts'
import type { WorkerRank } from '../../model/worker.ts'
import type { BookingListener } from '../../router/bookings.ts'
import { WorkerDirectory } from '../../router/worker-directory.ts'

export interface SlotRequest {
  readonly requestId: string
  readonly rank: WorkerRank
  readonly sequence: HashList
  /** Prompt tokens to compute; 0: none are counted. */
  readonly promptTokens: number
}

export interface WorkerRange {
  readonly workerId: bigint
  readonly dpStart: number
  readonly dpSize: number
}

export interface SlotLoad extends WorkerRank {
  readonly activePrefillTokens: number
  readonly activeDecodeBlocks: number
  readonly activeRequests: number
}

export class SlotPartition {
  readonly blockSize: number
  /** Null: nobody is told. */
  readonly listener: BookingListener | null
  readonly #directory = new WorkerDirectory()
  readonly #sequences: ActiveSequences

  constructor(blockSize: number, expiryMs: number, makeListener: ((rankOf: (requestId: string) => WorkerRank | null) => BookingListener) | null) {
    this.blockSize = blockSize
    this.#sequences = new ActiveSequences({ expiryMs })
    this.listener = makeListener?.((requestId) => this.rankOf(requestId)) ?? null
  }

  get requestCount(): number {
    return this.#sequences.bookingCount
  }

  /** Requests and prompts that were not tracked because a bound was reached. */
  get refusals(): number {
    return this.#sequences.refusedBookings + this.#sequences.pathlessBookings
  }

  get workers(): WorkerRange[] {
    return this.#directory.ordered.map(({ workerId, dpStart, slots }) => ({ workerId, dpStart, dpSize: slots.length }))
  }

  /** False: it is there already. */
  register({ workerId, dpStart, dpSize }: WorkerRange): boolean {
    if (this.#directory.get(workerId) !== undefined) return false
    this.#directory.upsert({ workerId, dpStart, dpSize, totalKvBlocks: null, maxNumBatchedTokens: null, taints: [], topologyDomains: new Map() })
    this.#sequences.ensureSlots(this.#directory.slotEnd)
    return true
  }

  /** Drops a worker with its requests. False: it is not there. */
  unregister(workerId: bigint): boolean {
    const slots = this.#directory.remove(workerId)
    for (const slot of slots) {
      this.#sequences.dropSlot(slot)
      this.#directory.reuse(slot)
    }
    return slots.length > 0
  }

  rankOf(requestId: string): WorkerRank | null {
    const slot = this.#sequences.slotOf(requestId)
    return slot < 0 ? null : this.#directory.rankOf(slot)
  }

  add({ requestId, rank, sequence, promptTokens }: SlotRequest, nowMs: number): 'booked' | 'duplicate' | 'full' | 'unknown-rank' {
    const slot = this.#directory.slotOf(rank.workerId, rank.dpRank)
    if (slot < 0) return 'unknown-rank'
    return this.#sequences.add({ requestId, slot, sequence, prefillTokens: promptTokens, promptTokens, expectedOutputTokens: null }, this.blockSize, nowMs)
  }

  prefillCompleted(requestId: string): boolean {
    return this.#sequences.prefillCompleted(requestId)
  }

  free(requestId: string): boolean {
    return this.#sequences.free(requestId)
  }

  expire(nowMs: number): void {
    this.#sequences.expire(nowMs)
  }

  /** By worker id, then rank. */
  loads(): SlotLoad[] {
    return Array.from(this.#directory.slots, (slot) => ({
      ...this.#directory.rankOf(slot), activePrefillTokens: this.#sequences.prefillTokens[slot]!, activeDecodeBlocks: this.#sequences.activeBlocks(slot),
      activeRequests: this.#sequences.requests[slot]!,
    }))
  }

  /** Loads as they would be with one more prompt. */
  project(sequence: HashList): SlotLoad[] {
    this.#sequences.match(sequence)
    const blocks = hashCount(sequence)
    return Array.from(this.#directory.slots, (slot) => ({
      ...this.#directory.rankOf(slot), activePrefillTokens: this.#sequences.prefillTokens[slot]!,
      activeDecodeBlocks: this.#sequences.activeBlocks(slot) + blocks - this.#sequences.livePrefix(slot), activeRequests: this.#sequences.requests[slot]!,
    }))
  }
}
