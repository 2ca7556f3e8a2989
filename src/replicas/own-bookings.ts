/** This router's bookings as others are told of them: what stands is what a new replica asks for. */
import type { ActiveSequenceEvent } from '../dynamo/wire/active-sequences.ts'
import type { WorkerId } from '../model/worker.ts'
import type { BookingNote } from '../router/bookings.ts'
import type { ReplicaStats } from './replica-stats.ts'

/** Hashes kept for answers, of all bookings; beyond them a booking is told without its blocks. 8 bytes each. */
const keptBlocksMax = 8_388_608

export class OwnBookings {
  readonly #routerId: bigint
  readonly #blockSize: () => number
  readonly #stats: ReplicaStats
  readonly #keptMax: number
  readonly #notes = new Map<string, BookingNote>()
  #keptBlocks = 0

  constructor(routerId: bigint, blockSize: () => number, stats: ReplicaStats, keptMax = keptBlocksMax) {
    this.#routerId = routerId
    this.#blockSize = blockSize
    this.#stats = stats
    this.#keptMax = keptMax
  }

  get size(): number {
    return this.#notes.size
  }

  /** The event that tells of a new booking. */
  booked(note: BookingNote): ActiveSequenceEvent {
    this.#forget(note.requestId)
    const blocks = (note.sequence?.length ?? 0) / 2
    const isKept = this.#keptBlocks + blocks <= this.#keptMax
    if (!isKept) this.#stats.refused.kept_blocks += 1
    this.#keptBlocks += isKept ? blocks : 0
    this.#notes.set(note.requestId, isKept ? note : { ...note, sequence: null })
    return this.#event(note)
  }

  /** Null: not an own booking, or its prompt was done before. */
  prefillCompleted(requestId: string): ActiveSequenceEvent | null {
    const note = this.#notes.get(requestId)
    if (note === undefined) return null
    this.#notes.set(requestId, { ...note, prefillTokens: 0 })
    return this.#bare(note, 'mark_prefill_completed')
  }

  /** Null: not an own booking. */
  ended(requestId: string): ActiveSequenceEvent | null {
    const note = this.#forget(requestId)
    return note === undefined ? null : this.#bare(note, 'free')
  }

  /** Its bookings went with it, here and everywhere. */
  dropWorker(workerId: WorkerId): void {
    for (const [requestId, { rank }] of this.#notes) if (rank.workerId === workerId) this.#forget(requestId)
  }

  clear(): void {
    this.#notes.clear()
    this.#keptBlocks = 0
  }

  /** The worker of an own booking. */
  workerOf(requestId: string): WorkerId | undefined {
    return this.#notes.get(requestId)?.rank.workerId
  }

  /** What stands, in parts of at most `countMax` bookings and about `bytesMax` bytes; at least one part. */
  parts(countMax: number, bytesMax: number): ActiveSequenceEvent[][] {
    const parts: ActiveSequenceEvent[][] = [[]]
    let bytes = 0
    for (const note of this.#notes.values()) {
      const size = 400 + 9 * (note.sequence?.length ?? 0) / 2
      let part = parts[parts.length - 1] as ActiveSequenceEvent[]
      if (part.length >= countMax || (part.length > 0 && bytes + size > bytesMax)) {
        part = []
        parts.push(part)
        bytes = 0
      }
      part.push(this.#event(note))
      bytes += size
    }
    return parts
  }

  #forget(requestId: string): BookingNote | undefined {
    const note = this.#notes.get(requestId)
    if (note === undefined) return undefined
    this.#notes.delete(requestId)
    this.#keptBlocks -= (note.sequence?.length ?? 0) / 2
    return note
  }

  #event(note: BookingNote): ActiveSequenceEvent {
    const { requestId, rank, sequence, prefillTokens, promptTokens, trackPrefillTokens, expectedOutputTokens, loraName } = note
    return {
      requestId, workerId: rank.workerId, dpRank: rank.dpRank, routerId: this.#routerId, loraName,
      data: {
        kind: 'add_request', tokenSequence: sequence, trackPrefillTokens, expectedOutputTokens,
        prefillLoadHint: prefillTokens > 0 ? { initialEffectivePrefillTokens: prefillTokens, expectedPrefillDuration: null } : null,
        promptLoad: promptLoadOf(promptTokens, prefillTokens, this.#blockSize()),
      },
    }
  }

  #bare({ requestId, rank, loraName }: BookingNote, kind: 'mark_prefill_completed' | 'free'): ActiveSequenceEvent {
    return { requestId, workerId: rank.workerId, dpRank: rank.dpRank, routerId: this.#routerId, loraName, data: { kind } }
  }
}

/** Whole blocks of overlap, and the prompt length that leaves exactly the prefill tokens beside them. */
function promptLoadOf(promptTokens: number, prefillTokens: number, blockSize: number): { promptTokens: number; overlapBlocks: number } {
  const overlapBlocks = blockSize > 0 ? Math.floor(Math.max(0, promptTokens - prefillTokens) / blockSize) : 0
  return { promptTokens: prefillTokens + overlapBlocks * blockSize, overlapBlocks }
}
