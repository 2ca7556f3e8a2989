/** A simulated engine: its dp ranks, and requests as streams of outputs. */
import { FailureError } from '../../model/failure.ts'
import type { Clock } from '../../ports.ts'
import type { EngineEventSink } from './engine-event.ts'
import { OutputQueue, type EngineOutput } from './output-queue.ts'
import { Rank, type RankLoad } from './rank.ts'
import { Sequence, type EngineRequest } from './sequence.ts'
import type { EngineSettings } from './settings.ts'

export interface EnginePorts {
  readonly clock: Clock
  /** Where KV events go; left out: the engine publishes none. */
  readonly events?: EngineEventSink
}

/** One worker's engine. Pure: time comes from the clock, tokens from the prompt. */
export class SimulatedEngine {
  readonly settings: EngineSettings
  readonly #ranks: readonly Rank[]

  constructor(settings: EngineSettings, ports: EnginePorts) {
    this.settings = settings
    this.#ranks = Array.from({ length: settings.dpSize }, (_, index) => new Rank(settings.dpStart + index, settings, ports.clock, ports.events ?? null))
  }

  /** One row per rank. */
  get loads(): readonly RankLoad[] {
    return this.#ranks.map((rank) => rank.load)
  }

  /** Hashes of the blocks that a rank has cached, in no order; for tests and tables. */
  cachedHashes(dpRank: number): bigint[] {
    return [...this.#rank(dpRank).cache.hashes()]
  }

  /** Drops every block that is not in use; each is published as removed. */
  dropUnused(): void {
    for (const rank of this.#ranks) rank.dropUnused()
  }

  /**
   * Runs a request. One output per token, several when the reader is slow; the last has `finishReason`.
   *
   * Aborting ends the stream without a last output and frees the blocks at once; so does leaving the iteration.
   * Errors: FailureError InvalidRequest for an empty or too long prompt or an unknown rank, thrown by the first step.
   */
  async *generate(request: EngineRequest, signal: AbortSignal): AsyncGenerator<EngineOutput, void, undefined> {
    const rank = request.dpRank === null ? this.#leastLoaded() : this.#rank(request.dpRank)
    this.#check(request)
    if (signal.aborted) return
    const queue = new OutputQueue()
    const sequence = new Sequence(request, this.settings, queue)
    const abort = (): void => {
      rank.cancel(sequence)
      queue.close()
    }
    signal.addEventListener('abort', abort, { once: true })
    rank.add(sequence)
    try {
      for (;;) {
        const taken = await queue.take()
        if (taken === null) return
        yield { ...taken, cachedTokens: sequence.cachedTokens ?? 0, promptTokens: sequence.promptLength, dpRank: rank.dpRank }
        if (taken.finishReason !== null) return
      }
    } finally {
      signal.removeEventListener('abort', abort)
      rank.cancel(sequence)
    }
  }

  /** Ends all requests. */
  close(): void {
    for (const rank of this.#ranks) rank.close()
  }

  #check(request: EngineRequest): void {
    const { blocks, blockSize, contextLength } = this.settings
    const limit = Math.min(contextLength, blocks * blockSize)
    const actual = request.tokens.length
    if (actual === 0) throw invalid('token_ids is empty; send at least one token')
    if (actual <= limit) return
    throw new FailureError({
      class: 'InvalidRequest',
      reason: 'request.invalid_argument',
      message: `token_ids has ${actual} tokens; this worker takes at most ${limit}`,
      publicDetail: { type: 'context_length', limit, actual },
    })
  }

  #rank(dpRank: number): Rank {
    const rank = this.#ranks[dpRank - this.settings.dpStart]
    if (rank !== undefined) return rank
    const { dpStart, dpSize } = this.settings
    throw invalid(`routing.dp_rank is ${dpRank}; this worker has ranks ${dpStart} to ${dpStart + dpSize - 1}`)
  }

  #leastLoaded(): Rank {
    return this.#ranks.reduce((best, rank) => (rank.requestCount < best.requestCount ? rank : best))
  }
}

const invalid = (message: string): FailureError =>
  new FailureError({ class: 'InvalidRequest', reason: 'request.invalid_argument', message })
