/**
 * One dp rank of a simulated engine: continuous batching in steps over one paged cache.
 *
 * A step gives every decoding sequence one token, then fills the token budget with prompts, oldest first. When blocks run
 * out, the youngest sequence goes back to the queue and computes again later. Time passes on a virtual line that follows the
 * clock, so that steps shorter than a timer's tick still take their share.
 */
import type { RawEvent } from '../../kv-events/raw-event.ts'
import type { Clock, TimerHandle } from '../../ports.ts'
import { BlockCache } from './block-cache.ts'
import { removedEvent, storedEvent, type EngineEventSink } from './engine-event.ts'
import type { FinishReason, Sequence } from './sequence.ts'
import type { EngineSettings } from './settings.ts'

/** Steps worked off in one go when time runs faster than timers; then others get their turn. */
const stepsPerTurnMax = 32
/** How far virtual time may lag behind the clock before the lag is forgotten. */
const lagMaxMs = 20

/** What a rank carries and has done, as a value. */
export interface RankLoad {
  readonly dpRank: number
  readonly runningRequests: number
  readonly waitingRequests: number
  readonly usedBlocks: number
  readonly cachedBlocks: number
  readonly totalBlocks: number
  /** Prompt tokens admitted, and those of them found in the cache; since start. */
  readonly promptTokens: number
  readonly cachedTokens: number
  /** Times that a running sequence was put back for want of blocks. */
  readonly preemptions: number
}

export class Rank {
  readonly dpRank: number
  readonly cache: BlockCache
  readonly #settings: EngineSettings
  readonly #clock: Clock
  readonly #sink: EngineEventSink | null
  readonly #waiting: Sequence[] = []
  readonly #running: Sequence[] = []
  #events: RawEvent[] = []
  /** Removed since the last event. */
  #removedHashes: bigint[] = []
  #timer: TimerHandle | null = null
  #virtualMs = 0
  #stepping = false
  #promptTokens = 0
  #cachedTokens = 0
  #preemptions = 0

  constructor(dpRank: number, settings: EngineSettings, clock: Clock, sink: EngineEventSink | null) {
    this.dpRank = dpRank
    this.#settings = settings
    this.#clock = clock
    this.#sink = sink
    this.cache = new BlockCache(settings.blocks, (hash) => this.#removed(hash))
  }

  get load(): RankLoad {
    return {
      dpRank: this.dpRank,
      runningRequests: this.#running.length,
      waitingRequests: this.#waiting.length,
      usedBlocks: this.cache.usedBlocks,
      cachedBlocks: this.cache.cachedBlocks,
      totalBlocks: this.cache.capacity,
      promptTokens: this.#promptTokens,
      cachedTokens: this.#cachedTokens,
      preemptions: this.#preemptions,
    }
  }

  get requestCount(): number {
    return this.#running.length + this.#waiting.length
  }

  /** Queues a sequence; its first step begins in a later turn. */
  add(sequence: Sequence): void {
    this.#waiting.push(sequence)
    if (this.#timer !== null || this.#stepping) return
    this.#virtualMs = this.#clock.nowMs()
    this.#timer = this.#clock.setTimer(0, () => this.#turn())
  }

  /** Ends a sequence now and frees its blocks; its listener hears nothing more. */
  cancel(sequence: Sequence): void {
    if (sequence.finished) return
    sequence.finished = true
    this.#release(sequence)
    for (const list of [this.#running, this.#waiting]) {
      const index = list.indexOf(sequence)
      if (index >= 0) list.splice(index, 1)
    }
  }

  /** Drops all blocks that no sequence uses, told as removed. */
  dropUnused(): void {
    this.cache.dropUnused()
    this.#flush()
  }

  /** Ends all sequences and timers. */
  close(): void {
    this.#timer?.cancel()
    this.#timer = null
    for (const sequence of [...this.#running, ...this.#waiting]) this.cancel(sequence)
  }

  /** Begins steps until one ends in the future. */
  #turn(): void {
    this.#timer = null
    this.#stepping = true
    try {
      for (let count = 0; count < stepsPerTurnMax; count += 1) {
        const durationMs = this.#schedule()
        this.#flush()
        if (durationMs === null) return
        this.#virtualMs = Math.max(this.#virtualMs, this.#clock.nowMs() - lagMaxMs) + durationMs / this.#settings.speedup
        const delayMs = this.#virtualMs - this.#clock.nowMs()
        if (delayMs > 0) {
          this.#timer = this.#clock.setTimer(delayMs, () => this.#finishThenTurn())
          return
        }
        this.#finishStep()
      }
      this.#timer = this.#clock.setTimer(0, () => this.#turn())
    } finally {
      this.#stepping = false
    }
  }

  #finishThenTurn(): void {
    this.#timer = null
    this.#stepping = true
    this.#finishStep()
    this.#turn()
  }

  /** Decides what the next step computes and takes the blocks for it. Null: nothing to do. Units: ms before speed-up. */
  #schedule(): number | null {
    const { maxBatchedTokens, stepBaseMs, prefillTokenMs, decodeSequenceMs } = this.#settings
    let budget = maxBatchedTokens
    let prefillTokens = 0
    let decodeSequences = 0
    for (let index = 0; index < this.#running.length && budget > 0; index += 1) {
      const sequence = this.#running[index]
      if (sequence === undefined) break
      const count = Math.min(sequence.tokens.length - sequence.computed, budget)
      if (!this.#makeRoom(sequence, sequence.blocksMissing(sequence.computed + count))) break
      if (count === 1 && sequence.outputLength > 0) decodeSequences += 1
      else prefillTokens += count
      sequence.scheduled = count
      budget -= count
    }
    for (const count of this.#admit(budget)) prefillTokens += count
    if (this.#running.every((sequence) => sequence.scheduled === 0)) return null
    return stepBaseMs + prefillTokens * prefillTokenMs + decodeSequences * decodeSequenceMs
  }

  /** Blocks for a running sequence, from the youngest others if need be. False: it was put back itself. */
  #makeRoom(sequence: Sequence, count: number): boolean {
    while (!this.cache.reserve(count)) {
      const victim = this.#running.at(-1)
      if (victim === undefined) throw new Error('no blocks, though nothing runs')
      this.#putBack(victim)
      if (victim === sequence) return false
    }
    sequence.anonymousBlocks += count
    return true
  }

  #putBack(sequence: Sequence): void {
    this.#running.pop()
    this.#release(sequence)
    sequence.computed = 0
    sequence.scheduled = 0
    this.#preemptions += 1
    this.#waiting.unshift(sequence)
  }

  /** Moves waiting sequences into the batch while tokens, seats and blocks last. */
  #admit(budget: number): number[] {
    const counts: number[] = []
    while (budget > 0 && this.#running.length < this.#settings.maxSequences) {
      const sequence = this.#waiting[0]
      if (sequence === undefined) break
      const cachedTokens = this.#takeCached(sequence)
      const length = sequence.tokens.length
      sequence.computed = sequence.request.prefilled ? length - 1 : cachedTokens
      const count = Math.min(length - sequence.computed, budget)
      const blocks = sequence.blocksMissing(sequence.computed + count)
      if (!this.cache.reserve(blocks)) {
        this.#release(sequence)
        sequence.computed = 0
        break
      }
      sequence.anonymousBlocks += blocks
      sequence.scheduled = count
      this.#waiting.shift()
      this.#running.push(sequence)
      this.#countAdmission(sequence, cachedTokens)
      counts.push(count)
      budget -= count
    }
    return counts
  }

  #countAdmission(sequence: Sequence, cachedTokens: number): void {
    if (sequence.cachedTokens !== null) return
    sequence.cachedTokens = cachedTokens
    this.#promptTokens += sequence.promptLength
    this.#cachedTokens += cachedTokens
  }

  /** Takes the cached prefix; at least one token is always computed, as engines do. */
  #takeCached(sequence: Sequence): number {
    for (const hash of sequence.hashes) {
      if (!this.cache.acquire(hash)) break
      sequence.namedBlocks += 1
    }
    return Math.min(sequence.namedBlocks * this.#settings.blockSize, sequence.tokens.length - 1)
  }

  #finishStep(): void {
    for (const sequence of this.#running) {
      if (sequence.scheduled === 0) continue
      sequence.computed += sequence.scheduled
      sequence.scheduled = 0
      this.#nameFullBlocks(sequence)
    }
    this.#flush()
    for (const sequence of this.#running.slice()) {
      if (sequence.finished || sequence.computed !== sequence.tokens.length) continue
      const token = sequence.nextToken()
      const reason = sequence.append(token)
      sequence.listener.onToken(token)
      if (reason !== null && !sequence.finished) this.#finish(sequence, reason)
    }
  }

  #finish(sequence: Sequence, reason: FinishReason): void {
    this.cancel(sequence)
    sequence.listener.onFinish(reason)
  }

  #nameFullBlocks(sequence: Sequence): void {
    const { blockSize } = this.#settings
    const first = sequence.namedBlocks
    const full = Math.floor(sequence.computed / blockSize)
    let runStart = first
    for (let block = first; block < full; block += 1) {
      const hash = sequence.hashes[block]
      if (hash === undefined) throw new Error(`block ${block} of a sequence has no hash`)
      sequence.namedBlocks += 1
      sequence.anonymousBlocks -= 1
      if (this.cache.name(hash)) continue
      this.#stored(sequence, runStart, block)
      runStart = block + 1
    }
    this.#stored(sequence, runStart, Math.max(first, full))
  }

  #stored(sequence: Sequence, start: number, end: number): void {
    if (start >= end || this.#sink === null) return
    const { blockSize } = this.#settings
    this.#closeRemovedRun()
    this.#events.push(storedEvent({
      hashes: sequence.hashes.slice(start, end),
      parentHash: sequence.parentHash(start),
      tokens: sequence.tokens.slice(start * blockSize, end * blockSize),
      blockSize,
      loraName: sequence.request.loraName,
      cacheSalt: sequence.request.cacheSalt,
    }))
  }

  #removed(hash: bigint): void {
    if (this.#sink !== null) this.#removedHashes.push(hash)
  }

  #closeRemovedRun(): void {
    if (this.#removedHashes.length === 0) return
    this.#events.push(removedEvent(this.#removedHashes))
    this.#removedHashes = []
  }

  #release(sequence: Sequence): void {
    this.cache.discard(sequence.anonymousBlocks)
    sequence.anonymousBlocks = 0
    while (sequence.namedBlocks > 0) {
      sequence.namedBlocks -= 1
      const hash = sequence.hashes[sequence.namedBlocks]
      if (hash !== undefined) this.cache.release(hash)
    }
  }

  #flush(): void {
    this.#closeRemovedRun()
    if (this.#events.length === 0) return
    const events = this.#events
    this.#events = []
    this.#sink?.(this.dpRank, events)
  }
}
