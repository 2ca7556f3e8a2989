/**
 * What a rank's answers say of its cache, held against what was expected: a shortfall is the first sign of blocks that are not there.
 *
 * Pure. A shortfall may also be an eviction that was under way; so the source is asked before anything goes, ever more rarely while
 * nothing is found.
 */

/** What to do: `tail`: ask for events that were lost; `dump`: for all that it holds; `lose`: nobody can be asked, and the blocks are not there. */
export type ReuseStep = 'none' | 'tail' | 'dump' | 'lose'

export interface ReuseReport {
  /** Prompt tokens that the index credited. */
  readonly expectedTokens: number
  /** Prompt tokens that the worker found in its cache. */
  readonly reportedTokens: number
  /** Engines compute the end of the prompt anew, up to a block. */
  readonly blockSize: number
}

/** After a question, until the next; doubles with each that finds nothing. */
const askEveryMs = 5_000
/** After one that found something, which may have been events under way. */
const askAgainMs = 1_000
const askEveryMaxMs = 640_000
/** Requests in a row that found nothing of what was expected. */
const missesMax = 3

/** One rank's. Cost: a few comparisons per answer. */
export class ReuseWatch {
  #notBeforeMs = -Infinity
  #askedMs = -Infinity
  /** Shortfalls that led to a question, since the last answer that was as expected. */
  #asked = 0
  #misses = 0
  /** It has told of tokens found: its zeros mean something. */
  #hasFound = false

  /** `canAsk`: the rank has a source that answers. */
  take({ expectedTokens, reportedTokens, blockSize }: ReuseReport, nowMs: number, canAsk: boolean): ReuseStep {
    if (reportedTokens > 0) {
      this.#hasFound = true
      this.#misses = 0
    }
    if (expectedTokens - reportedTokens <= blockSize) {
      if (expectedTokens > blockSize) this.#asked = 0
      return 'none'
    }
    if (!canAsk) {
      if (reportedTokens > 0 || !this.#hasFound) return 'none'
      this.#misses += 1
      if (this.#misses < missesMax) return 'none'
      this.#misses = 0
      return 'lose'
    }
    if (nowMs < this.#notBeforeMs) return 'none'
    this.#notBeforeMs = nowMs + Math.min(askEveryMaxMs, askEveryMs * 2 ** this.#asked)
    this.#asked += 1
    this.#askedMs = nowMs
    // What a question for the tail does not show, a source that counts anew past the old ids, a full one does.
    return this.#asked % 2 === 1 ? 'tail' : 'dump'
  }

  /** The question brought something to light: the next sign counts soon. */
  found(): void {
    this.#asked = 0
    this.#notBeforeMs = this.#askedMs + askAgainMs
  }
}
