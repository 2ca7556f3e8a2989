/** Reading and applying one recovery answer, one bounded step at a time. */
import type { Codec } from '../../ports.ts'
import type { RankCursor } from './rank-cursor.ts'
import type { Recovery } from './recovery.ts'
import type { AnswerEvents, RecoveryAnswer } from './recovery-codec.ts'
import { isUnreadable, readRecoveryAnswer } from './recovery-codec.ts'

export interface RecoveryTaskInput {
  readonly body: Uint8Array
  readonly codec: Codec
  readonly recovery: Recovery
  /** False when the recovery was cancelled or the cursor replaced: the rest is dropped. */
  isCurrent(): boolean
}

export interface RecoveryTaskOutcome {
  /** The answer is used up. Called before the cursor is told, which may begin another recovery. */
  onDone(): void
  /** The answer spoke of another rank. */
  onFenced(): void
}

export class RecoveryTask {
  readonly #input: RecoveryTaskInput
  readonly #cursor: RankCursor
  readonly #outcome: RecoveryTaskOutcome
  readonly #reader: Generator<undefined, RecoveryAnswer>
  #events: AnswerEvents | null = null
  #lastEventId = 0n
  #kind: 'dump' | 'replay' = 'dump'

  constructor(input: RecoveryTaskInput, cursor: RankCursor, outcome: RecoveryTaskOutcome) {
    this.#input = input
    this.#cursor = cursor
    this.#outcome = outcome
    this.#reader = readRecoveryAnswer(input.body, input.codec)
  }

  /** Does a step. False: nothing is left to do. */
  step(): boolean {
    if (!this.#input.isCurrent()) return false
    try {
      return this.#events === null ? this.#read() : this.#applyNext(this.#events)
    } catch (error) {
      if (!isUnreadable(error)) throw error
      // What a dump has replaced so far is not the whole: only another dump can follow.
      const isHalfDump = this.#events !== null && this.#kind === 'dump'
      this.#input.recovery.retry(`unreadable answer: ${error.message}`, isHalfDump ? null : undefined)
      return false
    }
  }

  #read(): boolean {
    const step = this.#reader.next()
    if (!step.done) return true
    const answer = step.value
    const { recovery } = this.#input
    switch (answer.kind) {
      case 'failed': recovery.retry(answer.message); return false
      case 'invalid_range': recovery.retry(answer.message, null); return false
      case 'too_new': this.#onTooNew(answer.newestAvailable); return false
      default:
    }
    this.#events = answer.events
    this.#kind = answer.kind
    this.#lastEventId = answer.lastEventId
    recovery.totalEvents = answer.events.count
    recovery.appliedEvents = 0
    recovery.newEvents = 0
    this.#cursor.beginAnswer(answer.kind)
    return true
  }

  #applyNext(events: AnswerEvents): boolean {
    const event = events.next()
    if (event === null) {
      this.#outcome.onDone()
      this.#cursor.finishAnswer(this.#lastEventId)
      return false
    }
    const { recovery } = this.#input
    const known = this.#cursor.lastEventId
    recovery.appliedEvents += 1
    if (this.#cursor.recovered(event)) {
      if (this.#kind === 'dump' || this.#cursor.lastEventId !== known) recovery.newEvents += 1
      return true
    }
    this.#outcome.onFenced()
    return false
  }

  /** Nothing after what is known, or a source that is behind it and so has begun anew. */
  #onTooNew(newestAvailable: bigint): void {
    const { recovery } = this.#input
    const known = this.#cursor.lastEventId
    if (known !== null && newestAvailable < known) return recovery.retry('the source is behind what it said before', null)
    this.#outcome.onDone()
    this.#cursor.finishCurrent()
  }
}
