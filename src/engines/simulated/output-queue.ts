/** Between a rank, which never waits, and the reader of one request. */
import type { FinishReason, SequenceListener } from './sequence.ts'

/** One output of a request. */
export interface EngineOutput extends QueuedOutput {
  readonly promptTokens: number
  /** Prompt tokens that were cached when the request was admitted. */
  readonly cachedTokens: number
  readonly dpRank: number
}

export interface QueuedOutput {
  readonly tokens: readonly number[]
  readonly finishReason: FinishReason | null
  /** Output tokens up to and with this one. */
  readonly outputTokens: number
}

/** Beyond this backlog a take gets all that waits, as one output. */
const backlogMax = 64

/** Bounds: as many tokens as the request may produce. One reader. */
export class OutputQueue implements SequenceListener {
  #tokens: number[] = []
  #finish: FinishReason | null = null
  #taken = 0
  #closed = false
  #wake: (() => void) | null = null

  onToken(token: number): void {
    this.#tokens.push(token)
    this.#wakeReader()
  }

  onFinish(reason: FinishReason): void {
    this.#finish = reason
    this.#wakeReader()
  }

  /** The reader gets nothing more. */
  close(): void {
    this.#closed = true
    this.#wakeReader()
  }

  /** The next output; null after `close`. */
  async take(): Promise<QueuedOutput | null> {
    while (this.#tokens.length === 0 && !this.#closed) {
      await new Promise<void>((resolve) => { this.#wake = resolve })
    }
    if (this.#closed) return null
    const tokens = this.#tokens.splice(0, this.#tokens.length > backlogMax ? this.#tokens.length : 1)
    this.#taken += tokens.length
    return { tokens, finishReason: this.#tokens.length === 0 ? this.#finish : null, outputTokens: this.#taken }
  }

  #wakeReader(): void {
    this.#wake?.()
    this.#wake = null
  }
}
