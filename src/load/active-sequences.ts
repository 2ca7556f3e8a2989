/**
 * Active sequences: what each rank carries because of live requests. Source: router-algorithm 8.
 *
 * Per rank: live requests, prompt blocks (a block that several requests of the rank share counts once), output blocks and
 * prefill tokens. One writer; time comes as an argument.
 */
import { hashCount } from '../model/hash-list.ts'
import type { HashList } from '../model/hash-list.ts'
import type { RankSlot } from '../model/worker.ts'
import { noHold, PathTree } from './path-tree.ts'
import { PrefillDecay } from './prefill-decay.ts'
import type { PrefillDurations } from './prefill-durations.ts'
import { grownFloat64, grownInt32, grownUint32 } from './typed-arrays.ts'

/** Bounds of the tracking. */
export interface ActiveSequencesLimits {
  /** A booking without a sign of life for longer is dropped by `expire`. */
  readonly expiryMs: number
  /** Live bookings; beyond them requests are routed but not tracked. Default 262,144. */
  readonly bookingsMax?: number
  /** Prompt blocks of all ranks together; beyond them a booking counts its prefill and request only. Default 4,194,304. */
  readonly blocksMax?: number
  /** Predicts how long prompts are computed, by which their tokens decay; left out: they stay until the prompt is done. */
  readonly prefillDurations?: PrefillDurations
}

/** One request to book. */
export interface Booking {
  readonly requestId: string
  readonly slot: RankSlot
  /** Tracking hashes of the complete prompt blocks; null: blocks are not tracked. */
  readonly sequence: HashList | null
  /** Prompt tokens that the rank must still compute; 0 when prefill is not tracked. */
  readonly prefillTokens: number
  readonly promptTokens: number
  readonly expectedOutputTokens: number | null
}

export type BookingOutcome = 'booked' | 'duplicate' | 'full'

/** Calls back for each booking that expired, after it was dropped. */
export type ExpiryListener = (requestId: string, slot: RankSlot) => void

const noExpectation = -1

/** Below it, sums of whole numbers are exact in any order. */
const exactMax = 2 ** 52

/** `sum` plus `term` so many times, rounded each time, as the original adds its output blocks. */
function plusEach(sum: number, term: number, times: number): number {
  if (term === 0) return sum
  if (Number.isInteger(sum) && Number.isInteger(term) && Math.abs(sum) + times * Math.abs(term) < exactMax) return sum + times * term
  let result = sum
  for (let left = times; left > 0; left -= 1) result += term
  return result
}

/** Loads of all ranks, and the bookings that make them. Bounds: see `ActiveSequencesLimits`; counters say when they bite. */
export class ActiveSequences {
  readonly #expiryMs: number
  readonly #bookingsMax: number
  readonly #tree: PathTree
  readonly #bookingById = new Map<string, number>()
  // Bookings by dense number.
  readonly #ids: string[] = []
  readonly #free: number[] = []
  #slot = new Int32Array(16)
  #tail = new Int32Array(16)
  #prefill = new Float64Array(16)
  #promptTokens = new Float64Array(16)
  #expected = new Float64Array(16)
  #blocksSeen = new Float64Array(16)
  #lastSeenMs = new Float64Array(16)
  #freshOutputs = new Uint32Array(16)
  #decayedOutputs = new Uint32Array(16)
  #decayedWeight = new Float64Array(16)
  // Per rank slot: output blocks and the sum of their weights, kept beside that of the prompts, as the original does.
  #outputs = new Float64Array(0)
  #outputWeight = new Float64Array(0)
  #nowMs = 0
  #nextScanMs = 0
  /** Null: prefill tokens do not decay. */
  readonly #decay: PrefillDecay | null
  /** Prefill tokens as booked per rank slot, where they decay. */
  #bookedPrefill: Float64Array = new Float64Array(0)
  /** Prefill tokens per rank slot; where they decay, as of the last `refresh`. */
  prefillTokens: Float64Array = new Float64Array(0)
  /** Live requests per rank slot. */
  requests: Uint32Array = new Uint32Array(0)
  /** Requests that were not booked because `bookingsMax` was reached. */
  refusedBookings = 0
  /** Bookings without prompt blocks because `blocksMax` was reached. */
  pathlessBookings = 0
  /** Bookings dropped by `expire`. */
  expiredBookings = 0

  constructor(limits: ActiveSequencesLimits) {
    this.#expiryMs = limits.expiryMs
    this.#bookingsMax = limits.bookingsMax ?? 262_144
    this.#tree = new PathTree(limits.blocksMax ?? 4_194_304)
    this.#decay = limits.prefillDurations === undefined ? null : new PrefillDecay(limits.prefillDurations)
  }

  get bookingCount(): number {
    return this.#bookingById.size
  }

  /** Live prompt blocks of all ranks. */
  get blockCount(): number {
    return this.#tree.blockCount
  }

  /** Makes room for slots below `count`. */
  ensureSlots(count: number): void {
    this.#tree.ensureSlots(count)
    if (count > this.#outputs.length) {
      this.#outputs = grownFloat64(this.#outputs, count)
      this.#outputWeight = grownFloat64(this.#outputWeight, count)
    }
    if (count > this.requests.length) this.requests = grownUint32(this.requests, count)
    if (count > this.prefillTokens.length) this.prefillTokens = grownFloat64(this.prefillTokens, count)
    if (this.#decay !== null && count > this.#bookedPrefill.length) this.#bookedPrefill = grownFloat64(this.#bookedPrefill, count)
  }

  /** Decode load of a rank in blocks: the sum of weights, rounded half away from zero. */
  activeBlocks(slot: RankSlot): number {
    const weight = this.rawWeight(slot)
    return weight > 0 ? Math.round(weight) : 0
  }

  /** The rank that a live request is booked on, or -1. */
  slotOf(requestId: string): RankSlot | -1 {
    const booking = this.#bookingById.get(requestId)
    return booking === undefined ? -1 : this.#slot[booking]!
  }

  /** Prepares `livePrefix` for one sequence. Returns the longest prefix that is live on any rank. */
  match(sequence: HashList): number {
    return this.#tree.match(sequence)
  }

  /** Blocks of the sequence given to `match` last that live requests of a rank hold. Cost: logarithmic in the prompt's blocks. */
  livePrefix(slot: RankSlot): number {
    return this.requests[slot] === 0 ? 0 : this.#tree.livePrefix(slot)
  }

  /** Books a request. `blockSize` sets where its output blocks begin. */
  add(request: Booking, blockSize: number, nowMs: number): BookingOutcome {
    if (this.#bookingById.has(request.requestId)) return 'duplicate'
    if (this.#bookingById.size >= this.#bookingsMax) {
      this.refusedBookings += 1
      return 'full'
    }
    const { slot, sequence } = request
    const booking = this.#takeNumber()
    let tail = noHold
    if (sequence !== null && sequence.length > 0) {
      if (this.#tree.hasRoom(hashCount(sequence))) tail = this.#tree.acquire(slot, sequence)
      else this.pathlessBookings += 1
    }
    this.#ids[booking] = request.requestId
    this.#slot[booking] = slot
    this.#tail[booking] = tail
    this.#prefill[booking] = request.prefillTokens
    this.#promptTokens[booking] = request.promptTokens
    this.#expected[booking] = request.expectedOutputTokens ?? noExpectation
    this.#blocksSeen[booking] = Math.ceil(request.promptTokens / blockSize)
    this.#lastSeenMs[booking] = nowMs
    this.#freshOutputs[booking] = 0
    this.#decayedOutputs[booking] = 0
    this.#decayedWeight[booking] = 0
    this.#bookingById.set(request.requestId, booking)
    this.requests[slot]! += 1
    if (nowMs > this.#nowMs) this.#nowMs = nowMs
    this.#changePrefill(slot, request.prefillTokens)
    if (request.prefillTokens > 0) this.#decay?.begin(request.requestId, slot, request.prefillTokens, this.#nowMs)
    return 'booked'
  }

  /** The request's prefill tokens are no longer load. A sign of life. Unknown ids: false. */
  prefillCompleted(requestId: string): boolean {
    const booking = this.#bookingById.get(requestId)
    if (booking === undefined) return false
    this.#lastSeenMs[booking] = this.#nowMs
    this.#decay?.end(requestId, true, this.#nowMs)
    this.#changePrefill(this.#slot[booking]!, -this.#prefill[booking]!)
    this.#prefill[booking] = 0
    return true
  }

  /** Whether prefill tokens decay: then `refresh` before they are read. */
  get decaysPrefill(): boolean {
    return this.#decay !== null
  }

  /** Sets the time, and with it the prefill tokens of ranks where they decay. Cost: linear in the ranks; nothing without decay. */
  refresh(nowMs: number): void {
    if (this.#decay === null) return
    if (nowMs > this.#nowMs) this.#nowMs = nowMs
    for (let slot = 0; slot < this.#bookedPrefill.length; slot++) this.#settlePrefill(slot, this.#decay)
  }

  #changePrefill(slot: RankSlot, tokens: number): void {
    if (this.#decay === null) {
      this.prefillTokens[slot]! += tokens
      return
    }
    this.#bookedPrefill[slot]! += tokens
    this.#settlePrefill(slot, this.#decay)
  }

  #settlePrefill(slot: RankSlot, decay: PrefillDecay): void {
    const booked = this.#bookedPrefill[slot]!
    this.prefillTokens[slot] = booked > 0 ? decay.remaining(slot, booked, this.#nowMs) : 0
  }

  /** A sign of life, as of the time given to `add` or `expire` last. Unknown ids: false. */
  touch(requestId: string): boolean {
    const booking = this.#bookingById.get(requestId)
    if (booking === undefined) return false
    this.#lastSeenMs[booking] = this.#nowMs
    return true
  }

  /**
   * Books output blocks up to the request's total length. With an expectation of the output length, the weight of its
   * output blocks and of its own prompt blocks falls as the output grows. A sign of life. Unknown ids: false.
   */
  outputTokens(requestId: string, totalOutputTokens: number, blockSize: number): boolean {
    const booking = this.#bookingById.get(requestId)
    if (booking === undefined) return false
    this.#lastSeenMs[booking] = this.#nowMs
    const blocks = Math.ceil((this.#promptTokens[booking]! + totalOutputTokens) / blockSize)
    const grown = blocks - this.#blocksSeen[booking]!
    if (!(grown > 0)) return true
    this.#blocksSeen[booking] = blocks
    const expected = this.#expected[booking]!
    const fraction = expected === noExpectation ? null : Math.max(0, 1 - totalOutputTokens / Math.max(1, expected))
    this.#addOutputs(booking, grown, fraction)
    return true
  }

  /** Books one output block; `decayFraction` as in `outputTokens`, given by the caller. Unknown ids: false. */
  outputBlock(requestId: string, decayFraction: number | null): boolean {
    const booking = this.#bookingById.get(requestId)
    if (booking === undefined) return false
    this.#lastSeenMs[booking] = this.#nowMs
    this.#addOutputs(booking, 1, decayFraction)
    return true
  }

  /** Ends a booking. Unknown ids: false. */
  free(requestId: string): boolean {
    const booking = this.#bookingById.get(requestId)
    if (booking === undefined) return false
    this.#drop(booking)
    return true
  }

  /** Drops all bookings of a rank. Cost: linear in all live bookings. */
  dropSlot(slot: RankSlot): number {
    let dropped = 0
    for (const booking of this.#bookingById.values()) {
      if (this.#slot[booking] !== slot) continue
      this.#drop(booking)
      dropped += 1
    }
    this.#decay?.dropSlot(slot)
    return dropped
  }

  /** Drops bookings idle for longer than the expiry; looks at all of them at most every twentieth part of it. */
  expire(nowMs: number, onExpired?: ExpiryListener): number {
    if (nowMs > this.#nowMs) this.#nowMs = nowMs
    if (nowMs < this.#nextScanMs) return 0
    this.#nextScanMs = nowMs + Math.min(this.#expiryMs / 20, 10_000)
    let expired = 0
    for (const [requestId, booking] of this.#bookingById) {
      if (nowMs - this.#lastSeenMs[booking]! <= this.#expiryMs) continue
      const slot = this.#slot[booking]!
      this.#drop(booking)
      expired += 1
      this.expiredBookings += 1
      onExpired?.(requestId, slot)
    }
    return expired
  }

  /** The rank's sum of weights before rounding. */
  rawWeight(slot: RankSlot): number {
    return (this.#tree.weights[slot] ?? 0) + (this.#outputWeight[slot] ?? 0)
  }

  #addOutputs(booking: number, count: number, fraction: number | null): void {
    const slot = this.#slot[booking]!
    this.#outputs[slot]! += count
    this.#outputWeight[slot] = plusEach(this.#outputWeight[slot]!, 1, count)
    this.#freshOutputs[booking]! += count
    if (fraction === null) return
    const decayed = this.#decayedOutputs[booking]!
    const fresh = this.#freshOutputs[booking]!
    const aged = plusEach(this.#outputWeight[slot]!, fraction - this.#decayedWeight[booking]!, decayed)
    this.#outputWeight[slot] = plusEach(aged, fraction - 1, fresh)
    this.#decayedOutputs[booking] = decayed + fresh
    this.#decayedWeight[booking] = fraction
    this.#freshOutputs[booking] = 0
    this.#tree.decay(slot, this.#tail[booking]!, fraction)
  }

  #drop(booking: number): void {
    const slot = this.#slot[booking]!
    this.#decay?.end(this.#ids[booking]!, false, this.#nowMs)
    this.#changePrefill(slot, -this.#prefill[booking]!)
    this.#dropOutputs(slot, booking)
    this.#tree.release(slot, this.#tail[booking]!)
    this.requests[slot]! -= 1
    this.#bookingById.delete(this.#ids[booking]!)
    this.#ids[booking] = ''
    this.#free.push(booking)
  }

  #dropOutputs(slot: RankSlot, booking: number): void {
    const [decayed, fresh] = [this.#decayedOutputs[booking]!, this.#freshOutputs[booking]!]
    this.#outputs[slot]! -= decayed + fresh
    const undecayed = plusEach(this.#outputWeight[slot]!, -this.#decayedWeight[booking]!, decayed)
    // Without output blocks, whatever is left is rounding.
    this.#outputWeight[slot] = this.#outputs[slot] === 0 ? 0 : plusEach(undecayed, -1, fresh)
  }

  #takeNumber(): number {
    const reused = this.#free.pop()
    if (reused !== undefined) return reused
    const booking = this.#ids.length
    this.#ids.push('')
    if (booking >= this.#slot.length) this.#grow(booking + 1)
    return booking
  }

  #grow(count: number): void {
    this.#slot = grownInt32(this.#slot, count)
    this.#tail = grownInt32(this.#tail, count)
    this.#prefill = grownFloat64(this.#prefill, count)
    this.#promptTokens = grownFloat64(this.#promptTokens, count)
    this.#expected = grownFloat64(this.#expected, count)
    this.#blocksSeen = grownFloat64(this.#blocksSeen, count)
    this.#lastSeenMs = grownFloat64(this.#lastSeenMs, count)
    this.#freshOutputs = grownUint32(this.#freshOutputs, count)
    this.#decayedOutputs = grownUint32(this.#decayedOutputs, count)
    this.#decayedWeight = grownFloat64(this.#decayedWeight, count)
  }
}
