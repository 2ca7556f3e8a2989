/**
 * The order of one rank's KV events: what to apply, what to hold back, when to ask the worker for what was missed.
 *
 * A pure state machine: it is told of events and recovery answers and speaks through `CursorEffects`.
 * States: `initial` (nothing known), `live` (all up to `lastEventId` applied), `recovering` (a recovery runs, live events
 * wait in a bounded buffer), `fenced` (the source spoke of another rank; ignored until it is replaced).
 * Source: event ingress of Dynamo 1.6.1's router.
 */
import type { RouterEvent } from '../../model/kv-event.ts'
import type { WorkerRank } from '../../model/worker.ts'

export type CursorState = 'initial' | 'live' | 'recovering' | 'fenced'

/** What a cursor does to the world. */
export interface CursorEffects {
  apply(event: RouterEvent): void
  /** Forget all blocks of the rank. */
  reset(): void
  /** Ask the source for its events from `startEventId` on; null: for a full dump. One recovery runs at a time. */
  requestRecovery(startEventId: bigint | null): void
  /** End the running recovery; its answer must not come any more. */
  cancelRecovery(): void
}

/** Plain counters, shared by the cursors of one follower. */
export interface CursorStats {
  /** Events at or below the cursor. */
  ignoredOld: number
  /** Missing event ids that led to a recovery or, without one, to a reset. */
  gaps: number
  bufferEvicted: number
  /** Events applied although earlier ones are missing. */
  appliedDegraded: number
  fenced: number
  /** Times that a source began to count anew. */
  restarts: number
}

export const createCursorStats = (): CursorStats => ({ ignoredOld: 0, gaps: 0, bufferEvicted: 0, appliedDegraded: 0, fenced: 0, restarts: 0 })

/** Live events that wait during a recovery, per rank. */
export const recoveryBufferMax = 1024

export interface RankCursorOptions {
  readonly rank: WorkerRank
  readonly effects: CursorEffects
  readonly stats: CursorStats
  /** False: a live-only source. */
  readonly canRecover: boolean
  readonly bufferMax?: number
}

/** One source's cursor; made anew when the source of the rank changes. */
export class RankCursor {
  readonly #options: RankCursorOptions
  readonly #bufferMax: number
  readonly #buffer: RouterEvent[] = []
  #state: CursorState = 'initial'
  #last: bigint | null = null
  /** Start of the newest recovery that was to fill a gap: the same question is not asked twice. */
  #gapAsked: bigint | null = null
  #isDump = false
  /** Id of the newest live event, applied or not. */
  #seen: bigint | null = null
  /** Where the source stood when it seemed to begin anew. */
  #suspected: bigint | null = null
  #falseAlarms = 0
  /** Events of that kind that are not looked at, after alarms that were none. */
  #ignored = 0
  /** Events were applied over a gap that nobody filled: only a full dump can mend that. */
  #isDegraded = false

  constructor(options: RankCursorOptions) {
    this.#options = options
    this.#bufferMax = options.bufferMax ?? recoveryBufferMax
  }

  get state(): CursorState {
    return this.#state
  }

  /** Id of the newest event that counts as applied; null before the first. */
  get lastEventId(): bigint | null {
    return this.#last
  }

  get bufferedCount(): number {
    return this.#buffer.length
  }

  /** The source was found: asks for what it holds, if it can tell. */
  start(): void {
    if (this.#state === 'initial' && this.#options.canRecover) this.#recover(null)
  }

  /** Goes on after an event that a process before this one has applied. */
  resume(lastEventId: bigint): void {
    if (this.#state !== 'initial') return
    this.#last = lastEventId
    this.#state = 'live'
  }

  /** The source is taken for gone: what is known of it goes, and it is asked for all that it holds. */
  lose(): void {
    if (this.#state === 'fenced') return
    if (this.#state === 'recovering') this.#options.effects.cancelRecovery()
    this.#begin()
    this.start()
  }

  /** A live event of this rank. */
  onEvent(event: RouterEvent): void {
    if (this.#state === 'fenced') return
    if (this.#isRestart(event)) return this.#restart(event)
    const last = this.#last
    if (last !== null && event.eventId <= last) {
      this.#options.stats.ignoredOld += 1
      return
    }
    if (event.data.kind === 'cleared' && event.residencyDomain === 'absent') return this.#clearAll(event)
    if (this.#state === 'recovering') return this.#hold(event)
    if (last !== null && event.eventId === last + 1n) return this.#apply(event)
    if (last !== null) this.#options.stats.gaps += 1
    if (this.#options.canRecover) {
      this.#hold(event)
      this.#gapAsked = last === null ? null : last + 1n
      this.#recover(this.#gapAsked)
      return
    }
    if (last !== null) this.#options.effects.reset()
    this.#apply(event)
  }

  /**
   * Asks whether anything came after the newest known event, for a source that has gone quiet: the loss of the last message
   * shows in no gap. Asks from the newest known event on, which a healthy source can always answer.
   */
  checkTail(): void {
    if (this.#state === 'initial') this.start()
    else if (this.#state === 'live' && this.#options.canRecover && this.#last !== null) {
      this.#recover(this.#isDegraded ? null : this.#last)
    }
  }

  /** Asks for all that the source holds; what is known counts until the answer comes. */
  relearn(): void {
    if (this.#state === 'initial') this.start()
    else if (this.#state === 'live' && this.#options.canRecover) this.#recover(null)
  }

  /** The recovery's answer begins. A dump replaces all that was known of the rank. */
  beginAnswer(kind: 'dump' | 'replay'): void {
    if (this.#state !== 'recovering') return
    this.#isDump = kind === 'dump'
    if (this.#isDump) {
      this.#options.effects.reset()
      this.#last = null
    }
  }

  /** One event of the answer. False: it speaks of another rank, the rank is reset and fenced, the rest must not come. */
  recovered(event: RouterEvent): boolean {
    if (this.#state !== 'recovering') return false
    const { rank, effects, stats } = this.#options
    if (event.workerId !== rank.workerId || event.dpRank !== rank.dpRank) {
      this.#state = 'fenced'
      this.#last = null
      this.#buffer.length = 0
      stats.fenced += 1
      effects.reset()
      return false
    }
    // Ids inside a dump are synthetic.
    if (this.#isDump) effects.apply(event)
    else if (this.#last === null || event.eventId > this.#last) this.#apply(event)
    return true
  }

  /** All of the answer was applied; `lastEventId` is the newest event in it, null when the answer knew of none. */
  finishAnswer(lastEventId: bigint | null): void {
    if (this.#state !== 'recovering') return
    if (this.#suspected !== null && lastEventId !== null) {
      this.#falseAlarms = lastEventId >= this.#suspected ? this.#falseAlarms + 1 : 0
      this.#ignored = this.#falseAlarms === 0 ? 0 : 64 << Math.min(this.#falseAlarms, 10)
      this.#suspected = null
    }
    const known = this.#last
    if (lastEventId !== null && (known === null || lastEventId > known)) this.#last = lastEventId
    if (this.#isDump) this.#isDegraded = false
    this.#state = this.#last === null ? 'initial' : 'live'
    this.#drain(false)
  }

  /** The source has nothing from the asked start on. */
  finishCurrent(): void {
    if (this.#state !== 'recovering') return
    this.#state = this.#last === null ? 'initial' : 'live'
    this.#drain(true)
  }

  /** No attempt succeeded: goes on with what is here. */
  recoveryFailed(): void {
    if (this.#state !== 'recovering') return
    this.#state = this.#last === null ? 'initial' : 'live'
    this.#drain(true)
  }

  /** Live events of one source come in order: an id that does not grow, and is not new, is of a source that counts anew. */
  #isRestart(event: RouterEvent): boolean {
    const seen = this.#seen
    this.#seen = event.eventId
    if (seen === null || event.eventId > seen || this.#last === null || event.eventId > this.#last) return false
    if (this.#ignored > 0) {
      this.#ignored -= 1
      return false
    }
    return true
  }

  /** What is known is of an engine that is no more: it goes at once, and the source is asked. */
  #restart(event: RouterEvent): void {
    const { effects, stats, canRecover } = this.#options
    stats.restarts += 1
    if (this.#state === 'recovering') effects.cancelRecovery()
    const last = this.#last
    this.#begin()
    this.#suspected = last
    if (!canRecover) return this.#apply(event)
    this.#hold(event)
    this.#recover(null)
  }

  /** Nothing is known. */
  #begin(): void {
    this.#buffer.length = 0
    this.#suspected = null
    this.#last = null
    this.#gapAsked = null
    this.#isDegraded = false
    this.#state = 'initial'
    this.#options.effects.reset()
  }

  #recover(startEventId: bigint | null): void {
    this.#state = 'recovering'
    this.#options.effects.requestRecovery(startEventId)
  }

  #apply(event: RouterEvent): void {
    this.#last = event.eventId
    if (this.#state === 'initial') this.#state = 'live'
    this.#options.effects.apply(event)
  }

  #hold(event: RouterEvent): void {
    if (this.#buffer.length >= this.#bufferMax) {
      this.#buffer.shift()
      this.#options.stats.bufferEvicted += 1
    }
    this.#buffer.push(event)
  }

  /** A clear of every domain needs nothing that came before it. */
  #clearAll(event: RouterEvent): void {
    if (this.#state === 'recovering') {
      this.#options.effects.cancelRecovery()
      this.#state = 'live'
    }
    this.#isDegraded = false
    this.#apply(event)
    this.#drain(false)
  }

  /**
   * Applies held events above the cursor in order. A further gap is recovered again, unless `acceptsGaps` or the same was asked
   * before: then the source cannot or will not fill it, and the events are applied all the same.
   */
  #drain(acceptsGaps: boolean): void {
    const held = this.#buffer.splice(0).sort((a, b) => (a.eventId < b.eventId ? -1 : a.eventId > b.eventId ? 1 : 0))
    for (let index = 0; index < held.length; index += 1) {
      const event = held[index] as RouterEvent
      const last = this.#last
      if (last !== null && event.eventId <= last) continue
      const isNext = last !== null && event.eventId === last + 1n
      if (!isNext && !acceptsGaps && last !== null && this.#options.canRecover && last + 1n !== this.#gapAsked) {
        this.#options.stats.gaps += 1
        this.#buffer.push(...held.slice(index))
        this.#gapAsked = last + 1n
        this.#recover(this.#gapAsked)
        return
      }
      if (!isNext) {
        this.#options.stats.appliedDegraded += 1
        this.#isDegraded = true
      }
      this.#apply(event)
    }
  }
}
