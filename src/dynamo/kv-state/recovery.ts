/**
 * Asking workers for what their ranks hold: attempts with time limit and back-off, a bounded number at once.
 *
 * A recovery keeps its place from the start of an attempt until its owner has dealt with the answer, so that the memory of
 * answers is bounded too; it gives the place up while it backs off. Source: the recovery client of Dynamo 1.6.1.
 */
import type { CallHandle, Clock, Codec, InstanceRecord, Log, Random, RequestPlaneClient, TimerHandle } from '../../ports.ts'
import type { WorkerRank } from '../../model/worker.ts'
import { encodeRecoveryRequest } from './recovery-codec.ts'

export interface RecoveryLimits {
  readonly attemptsMax: number
  readonly attemptTimeoutMs: number
  /** Wait after the first failed attempt; doubles with each. */
  readonly backoffMs: number
  readonly concurrencyMax: number
}

export const recoveryLimits: RecoveryLimits = { attemptsMax: 8, attemptTimeoutMs: 30_000, backoffMs: 200, concurrencyMax: 16 }

/** Spread of initial dumps, and of back-offs, in milliseconds. */
const jitterMs = 3

/** Plain counters; the scheduler alone writes them. */
export interface RecoveryStats {
  started: number
  succeeded: number
  failed: number
  cancelled: number
  attemptsFailed: number
  /** Attempts that run, or whose answer is being applied. */
  running: number
  /** Recoveries that wait for a place. */
  waiting: number
}

export interface RecoverySchedulerParts {
  readonly client: RequestPlaneClient
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly limits?: Partial<RecoveryLimits>
}

export interface RecoveryQuestion {
  readonly rank: WorkerRank
  readonly publisherId: bigint
  readonly target: InstanceRecord
  /** Null: a full dump. */
  readonly startEventId: bigint | null
  /** An answer's item body. The owner ends the attempt with `succeed` or `retry`. */
  onAnswer(body: Uint8Array, codec: Codec): void
  /** An attempt failed and another will follow. May cancel the recovery. */
  onRetry?(): void
  /** All attempts failed. */
  onFail(reason: string): void
}

export type RecoveryPhase = 'waiting' | 'asking' | 'applying' | 'backing_off' | 'ended'

/** Starts recoveries in turn. One per follower. */
export class RecoveryScheduler {
  readonly stats: RecoveryStats = { started: 0, succeeded: 0, failed: 0, cancelled: 0, attemptsFailed: 0, running: 0, waiting: 0 }
  readonly parts: RecoverySchedulerParts
  readonly limits: RecoveryLimits
  readonly #waiting = new Set<Recovery>()

  constructor(parts: RecoverySchedulerParts) {
    this.parts = parts
    this.limits = { ...recoveryLimits, ...parts.limits }
  }

  start(question: RecoveryQuestion): Recovery {
    this.stats.started += 1
    const recovery = new Recovery(this, question)
    recovery.begin()
    return recovery
  }

  /** Gives a place when one is free, in order of asking. */
  enqueue(recovery: Recovery): void {
    this.#waiting.add(recovery)
    this.#next()
  }

  /** The recovery no longer waits. */
  leave(recovery: Recovery): void {
    this.#waiting.delete(recovery)
    this.stats.waiting = this.#waiting.size
  }

  /** A place became free. */
  release(): void {
    this.stats.running -= 1
    this.#next()
  }

  #next(): void {
    for (const recovery of this.#waiting) {
      if (this.stats.running >= this.limits.concurrencyMax) break
      this.#waiting.delete(recovery)
      this.stats.running += 1
      recovery.attempt()
    }
    this.stats.waiting = this.#waiting.size
  }
}

/** One recovery of one rank, from the question to success, failure or cancellation. */
export class Recovery {
  readonly question: RecoveryQuestion
  readonly startedAtMs: number
  /** Events of the answer applied so far, and all in it; null before it came. */
  appliedEvents = 0
  /** Those of them that were not known before. */
  newEvents = 0
  totalEvents: number | null = null
  attempts = 0
  readonly #scheduler: RecoveryScheduler
  #phase: RecoveryPhase = 'waiting'
  #startEventId: bigint | null
  #timer: TimerHandle | null = null
  #call: CallHandle | null = null

  constructor(scheduler: RecoveryScheduler, question: RecoveryQuestion) {
    this.#scheduler = scheduler
    this.question = question
    this.#startEventId = question.startEventId
    this.startedAtMs = scheduler.parts.clock.nowMs()
  }

  get phase(): RecoveryPhase {
    return this.#phase
  }

  /** First event id of the running attempt; null: a full dump. */
  get startEventId(): bigint | null {
    return this.#startEventId
  }

  begin(): void {
    const { clock, random } = this.#scheduler.parts
    if (this.#startEventId === null) this.#timer = clock.setTimer(random.float() * jitterMs, () => this.#scheduler.enqueue(this))
    else this.#scheduler.enqueue(this)
  }

  /** Called by the scheduler when there is a place. */
  attempt(): void {
    const { client, clock, random } = this.#scheduler.parts
    const { rank, target } = this.question
    this.attempts += 1
    this.#phase = 'asking'
    const number = this.attempts
    // What a call tells after its attempt has ended is of no interest.
    const isCurrent = (): boolean => this.#phase === 'asking' && this.attempts === number
    this.#timer = clock.setTimer(this.#scheduler.limits.attemptTimeoutMs, () => {
      if (isCurrent()) this.retry('no answer in time')
    })
    const body = encodeRecoveryRequest({ ...rank, startEventId: this.#startEventId }, target.codec)
    this.#call = client.call(target, { id: requestId(random), codec: target.codec, body: [body] }, {
      onFrame: (_frame, item) => {
        if (!isCurrent()) return
        this.#endCall(false)
        this.#phase = 'applying'
        this.question.onAnswer(item, target.codec)
      },
      onEnd: () => { if (isCurrent()) this.retry('an answer without content') },
      onFail: (failure) => { if (isCurrent()) this.retry(failure.message, this.#startEventId, failure.linkLost === true) },
    })
  }

  /** The answer was applied. */
  succeed(): void {
    if (!this.#end()) return
    this.#scheduler.stats.succeeded += 1
    this.#scheduler.release()
  }

  /** The attempt failed; tries again from `startEventId` after a back-off, if attempts are left. `isOurs`: the worker is not to blame. */
  retry(reason: string, startEventId: bigint | null = this.#startEventId, isOurs = false): void {
    if (this.#phase !== 'asking' && this.#phase !== 'applying') return
    const { parts, limits, stats } = this.#scheduler
    this.#phase = 'backing_off'
    this.#startEventId = startEventId
    this.#endCall(true)
    stats.attemptsFailed += 1
    if (this.attempts >= limits.attemptsMax) {
      this.#phase = 'ended'
      stats.failed += 1
      this.#scheduler.release()
      this.question.onFail(reason)
      return
    }
    const delayMs = limits.backoffMs * 2 ** (this.attempts - 1) + parts.random.float() * jitterMs
    parts.log.debug({
      worker_id: this.question.rank.workerId.toString(), dp_rank: this.question.rank.dpRank, attempt: this.attempts, reason,
    }, 'recovery attempt failed')
    this.#timer = parts.clock.setTimer(delayMs, () => {
      this.#phase = 'waiting'
      this.#scheduler.enqueue(this)
    })
    this.#scheduler.release()
    if (!isOurs) this.question.onRetry?.()
  }

  /** Ends it whatever it does; neither callback is called any more. */
  cancel(): void {
    const holdsPlace = this.#phase === 'asking' || this.#phase === 'applying'
    if (!this.#end()) return
    this.#scheduler.stats.cancelled += 1
    this.#scheduler.leave(this)
    if (holdsPlace) this.#scheduler.release()
  }

  #end(): boolean {
    if (this.#phase === 'ended') return false
    this.#phase = 'ended'
    this.#endCall(true)
    return true
  }

  #endCall(kills: boolean): void {
    this.#timer?.cancel()
    this.#timer = null
    const call = this.#call
    this.#call = null
    if (kills) call?.kill()
  }
}

/** A version 4 UUID, as request ids are written. */
function requestId(random: Random): string {
  const word = (value: number): string => value.toString(16).padStart(8, '0')
  const digits = [...random.u64(), ...random.u64()].map(word).join('')
  return [digits.slice(0, 8), digits.slice(8, 12), `4${digits.slice(13, 16)}`, `8${digits.slice(17, 20)}`, digits.slice(20)].join('-')
}
