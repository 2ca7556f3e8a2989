/**
 * One rank as the follower sees it: its sources, the cursor of the one that counts, the running recovery and the index mode.
 *
 * Invariant: there is a cursor exactly when the rank is expected (its worker is known) and has one single source. A source in the
 * form of 1.1 and 1.3 counts where there is none in that of 1.6.
 */
import type { RouterEvent } from '../../model/kv-event.ts'
import type { WorkerRank } from '../../model/worker.ts'
import type { Clock, Codec, Log, TimerHandle } from '../../ports.ts'
import type { EventSource } from './event-source.ts'
import type { CursorStats } from './rank-cursor.ts'
import { RankCursor } from './rank-cursor.ts'
import type { Recovery, RecoveryScheduler } from './recovery.ts'
import { RecoveryTask } from './recovery-task.ts'
import { ReuseWatch, type ReuseReport, type ReuseStep } from './reuse-watch.ts'

export type IndexMode = 'events' | 'approximate'

/** What ranks share; the follower provides it. */
export interface RankContext {
  readonly clock: Clock
  readonly log: Log
  readonly scheduler: RecoveryScheduler
  readonly cursorStats: CursorStats
  /** How long an expected rank may be without a usable source before it is indexed approximately. */
  readonly graceMs: number
  /** How long a source must be quiet before it is asked whether its last events were lost; 0: never. */
  readonly quietMs: number
  apply(event: RouterEvent): void
  reset(rank: WorkerRank): void
  setMode(rank: WorkerRank, mode: IndexMode, reason: string): void
  addTask(task: RecoveryTask): void
  /** What was kept of a rank whose source cannot be asked; null: nothing. */
  takeKept(rank: WorkerRank): KeptBlocks | null
}

/** Blocks of a rank up to an event. */
export interface KeptBlocks {
  readonly lastEventId: bigint
  readonly events: readonly RouterEvent[]
}

/** Several sources on one rank are what a publisher's change looks like: what is known is not trusted for longer. */
const ambiguousMsMax = 1500
/** A source that stays quiet is asked again after twice the time, up to this factor of the first. */
const quietFactorMax = 256
/** A worker in doubt that has not answered for so long is taken for gone. */
const doubtMs = 1000
/** So many attempts at a quiet check that reach nobody do the same. */
const silentAttempts = 2
/** After a failed recovery the next try on our own comes after this factor. */
const failedFactor = 25

export class FollowedRank {
  readonly rank: WorkerRank
  /** Those with a record of their own, by publisher. */
  readonly sources = new Map<bigint, EventSource>()
  #older: EventSource | null = null
  /** Durable events have come, and no source of its own. */
  #isDurable = false
  readonly #context: RankContext
  #isExpected = false
  #publishesKvEvents: boolean | null = null
  #active: EventSource | null = null
  #cursor: RankCursor | null = null
  #recovery: Recovery | null = null
  #mode: IndexMode = 'events'
  #grace: TimerHandle | null = null
  /** When a quiet check is due; null while there is nobody to ask. */
  #checkAtMs: number | null = null
  #quietFactor = 1
  /** Runs while the worker is in doubt. */
  #doubt: TimerHandle | null = null
  #reuse: ReuseWatch | null = null
  /** The way to the source was reopened while a question ran: the answer may be older than that. */
  #isResumed = false
  /** The running question is a quiet check that has not been answered yet. */
  #isQuietUnanswered = false

  constructor(rank: WorkerRank, context: RankContext) {
    this.rank = rank
    this.#context = context
  }

  get isExpected(): boolean {
    return this.#isExpected
  }

  get isEmpty(): boolean {
    return !this.#isExpected && this.sources.size === 0 && this.#older === null
  }

  get mode(): IndexMode {
    return this.#mode
  }

  /** The cursor of the single source; null while there is none, or several. */
  get cursor(): RankCursor | null {
    return this.#cursor
  }

  get recovery(): Recovery | null {
    return this.#recovery
  }

  /** The worker is known. `publishesKvEvents` as its card says, null when it does not. */
  expect(publishesKvEvents: boolean | null): void {
    const hasChanged = !this.#isExpected || this.#publishesKvEvents !== publishesKvEvents
    this.#isExpected = true
    this.#publishesKvEvents = publishesKvEvents
    if (!hasChanged) return
    this.#grace?.cancel()
    this.#grace = null
    this.#reconcile()
  }

  /** The worker, or this rank of it, is gone; the router has forgotten its blocks. */
  forget(): void {
    this.#isExpected = false
    this.#detach()
    // Known from its events alone.
    if (this.#older?.recoveryTarget === null) this.#older = null
    this.#isDurable = false
    this.#mode = 'events'
    this.#grace?.cancel()
    this.#grace = null
  }

  /** Fed by durable events. */
  get isDurable(): boolean {
    return this.#isDurable
  }

  /** A durable event; it counts where the rank has no source of its own. False: it has one. */
  onDurable(event: RouterEvent): boolean {
    if (this.sourceCount > 0) return false
    this.#isDurable = true
    this.#grace?.cancel()
    this.#grace = null
    this.#setMode('events', 'durable events were found')
    this.#context.apply(event)
    return true
  }

  /** How many sources claim the rank. */
  get sourceCount(): number {
    return this.sources.size > 0 || this.#older === null ? this.sources.size : 1
  }

  putSource(source: EventSource): void {
    const known = this.sources.get(source.publisherId)
    this.sources.set(source.publisherId, source)
    // A changed address is used from the next recovery on; a source that begins or ceases to recover is another source.
    const isSame = known !== undefined && (known.recoveryTarget === null) === (source.recoveryTarget === null)
    if (isSame && this.#active === known) this.#active = source
    this.#reconcile()
  }

  removeSource(publisherId: bigint): void {
    this.sources.delete(publisherId)
    this.#reconcile()
  }

  /** The rank's source in the form of 1.1 and 1.3; null: it is gone. */
  setOlder(source: EventSource | null): void {
    const known = this.#older
    this.#older = source
    const isSame = known !== null && source !== null && (known.recoveryTarget === null) === (source.recoveryTarget === null)
    if (isSame && this.#active === known) this.#active = source
    this.#reconcile()
  }

  /** An event in the older form has come: a rank without any source has one, whether it can be asked or not. */
  heardOlder(): void {
    if (this.#older === null && this.sources.size === 0 && this.#isExpected) {
      this.setOlder({ publisherId: this.rank.workerId, rank: this.rank, recoveryTarget: null })
    }
  }

  /** A live event of the single source. */
  onEvent(event: RouterEvent): void {
    this.#checkAfter(1)
    this.#cursor?.onEvent(event)
  }

  /** Asks a source that has gone quiet whether its last events were lost. */
  checkQuiet(nowMs: number): void {
    if (this.#checkAtMs === null || nowMs < this.#checkAtMs || this.#recovery !== null || this.#context.quietMs === 0) return
    this.#checkAfter(Math.min(Math.max(1, 2 * this.#quietFactor), quietFactorMax))
    this.#cursor?.checkTail()
    this.#isQuietUnanswered = this.#recovery !== null
  }

  /** What an answer of the rank says of its cache. Gives what was done about it. */
  reused(report: ReuseReport): ReuseStep {
    const cursor = this.#cursor
    if (cursor === null || this.#recovery !== null) return 'none'
    this.#reuse ??= new ReuseWatch()
    const step = this.#reuse.take(report, this.#context.clock.nowMs(), this.#active?.recoveryTarget !== null)
    if (step === 'tail') cursor.checkTail()
    else if (step === 'dump') cursor.relearn()
    else if (step === 'lose') cursor.lose()
    return step
  }

  /** The way to the source was closed for a while: it is asked soon, and then as after an event. */
  resumed(): void {
    this.#isResumed = this.#recovery !== null
    if (this.#checkAtMs !== null) this.#checkAfter(0)
  }

  /**
   * A call to the worker has failed. One that can be asked is asked, and what is known of it goes unless it answers soon. Of others what was
   * assumed goes when the connection was lost, what was reported only when nobody listens at its address: it would not come again.
   */
  doubt(sign: 'failed' | 'disconnected' | 'unreachable'): void {
    if (!this.#isExpected) return
    const cursor = this.#cursor
    if (cursor === null || this.#active?.recoveryTarget === null) {
      if (sign === 'failed' || (sign === 'disconnected' && this.#mode === 'events')) return
      if (cursor === null) this.#context.reset(this.rank)
      else cursor.lose()
      return
    }
    if (this.#doubt !== null || cursor.lastEventId === null || this.#recovery?.phase === 'applying') return
    this.#doubt = this.#context.clock.setTimer(doubtMs, () => this.#lose(cursor))
    cursor.checkTail()
  }

  #lose(cursor: RankCursor): void {
    this.#endDoubt()
    if (cursor !== this.#cursor) return
    this.#context.log.info({ worker_id: this.rank.workerId.toString(), dp_rank: this.rank.dpRank }, 'a worker that failed does not answer; its blocks count no more until it does')
    cursor.lose()
  }

  #endDoubt(): void {
    this.#isQuietUnanswered = false
    this.#doubt?.cancel()
    this.#doubt = null
  }

  #checkAfter(factor: number): void {
    this.#quietFactor = factor
    this.#checkAtMs = this.#context.clock.nowMs() + factor * this.#context.quietMs
  }

  #reconcile(): void {
    const [first] = this.sources.values()
    const single = this.sources.size > 1 ? null : first ?? this.#older
    const wanted = this.#isExpected ? single : null
    if (wanted === this.#active && (wanted !== null || this.#grace !== null)) return
    const hadSource = this.#active !== null
    this.#detach()
    if (!this.#isExpected) return
    if (wanted !== null) return this.#attach(wanted)
    // While several sources claim the rank nothing is known to be wrong yet.
    if (hadSource && this.sourceCount === 0) this.#context.reset(this.rank)
    if (this.#mode === 'events') this.#awaitSource()
  }

  #attach(source: EventSource): void {
    const context = this.#context
    const { rank } = this
    this.#grace?.cancel()
    this.#grace = null
    if (this.#mode === 'events') context.reset(rank)
    else this.#setMode('events', 'a single event source was found')
    this.#active = source
    this.#isDurable = false
    this.#cursor = new RankCursor({
      rank, stats: context.cursorStats, canRecover: source.recoveryTarget !== null,
      effects: {
        apply: (event) => context.apply(event),
        reset: () => context.reset(rank),
        requestRecovery: (startEventId) => this.#ask(startEventId),
        cancelRecovery: () => this.#endRecovery(),
      },
    })
    this.#cursor.start()
    const kept = source.recoveryTarget === null ? context.takeKept(rank) : null
    if (kept === null) return
    for (const event of kept.events) context.apply(event)
    this.#cursor.resume(kept.lastEventId)
  }

  /** Newest event of a source that cannot be asked; null: there is no such source. */
  get liveOnlyEventId(): bigint | null {
    return this.#active !== null && this.#active.recoveryTarget === null ? this.#cursor?.lastEventId ?? null : null
  }

  /** The rank was indexed approximately before a restart: without a source it is again, at once. */
  wasApproximate(): void {
    if (!this.#isExpected || this.sourceCount > 0 || this.#isDurable || this.#mode === 'approximate') return
    this.#grace?.cancel()
    this.#grace = null
    this.#setMode('approximate', 'it was before the restart, and has no event source')
  }

  #detach(): void {
    this.#endDoubt()
    this.#endRecovery()
    this.#cursor = null
    this.#active = null
    this.#checkAtMs = null
    this.#reuse = null
  }

  #awaitSource(): void {
    this.#grace?.cancel()
    this.#grace = null
    if (this.#isDurable) return
    if (this.#publishesKvEvents === false) return this.#setMode('approximate', 'its card says that it publishes no KV events')
    const { graceMs } = this.#context
    this.#grace = this.#context.clock.setTimer(this.sources.size > 1 ? Math.min(graceMs, ambiguousMsMax) : graceMs, () => {
      this.#grace = null
      if (this.#active !== null) return
      this.#setMode('approximate', this.sources.size === 0 ? 'it has no event source' : `${this.sources.size} event sources claim the same rank`)
    })
  }

  #setMode(mode: IndexMode, reason: string): void {
    if (this.#mode === mode) return
    this.#mode = mode
    // Events and decisions must not mix in the index.
    this.#context.reset(this.rank)
    this.#context.setMode(this.rank, mode, reason)
  }

  #ask(startEventId: bigint | null): void {
    const source = this.#active
    const cursor = this.#cursor
    if (source === null || source.recoveryTarget === null || cursor === null) return
    const recovery = this.#context.scheduler.start({
      rank: this.rank, publisherId: source.publisherId, target: source.recoveryTarget, startEventId,
      onAnswer: (body, codec) => this.#onAnswer(cursor, { body, codec }),
      onRetry: () => this.#onRetry(cursor),
      onFail: (reason) => this.#onFail(cursor, reason),
    })
    this.#recovery = recovery
  }

  /** Nobody answers a worker in doubt, or quiet checks: what it held is of no use to anyone. */
  #onRetry(cursor: RankCursor): void {
    const isSilent = this.#isQuietUnanswered && (this.#recovery?.attempts ?? 0) >= silentAttempts
    if (this.#doubt !== null || isSilent) this.#lose(cursor)
  }

  #onAnswer(cursor: RankCursor, answer: { readonly body: Uint8Array; readonly codec: Codec }): void {
    const recovery = this.#recovery
    if (recovery === null || cursor !== this.#cursor) return
    this.#endDoubt()
    const task = new RecoveryTask({ ...answer, recovery, isCurrent: () => this.#recovery === recovery && this.#cursor === cursor }, cursor, {
      // The recovery is over before the cursor goes on, because the cursor may begin the next one.
      onDone: () => {
        this.#recovery = null
        recovery.succeed()
        if (this.#isResumed) this.#checkAfter(0)
        else if (recovery.newEvents > 0 || recovery.startEventId === null) this.#checkAfter(1)
        this.#isResumed = false
        if (recovery.newEvents > 0 && recovery.startEventId !== null) this.#reuse?.found()
        this.#logRecovered(recovery)
      },
      onFenced: () => {
        this.#endRecovery()
        this.#context.log.error(this.#fields(recovery), 'the source answered with events of another rank; it is ignored until it is replaced')
      },
    })
    this.#context.addTask(task)
  }

  #onFail(cursor: RankCursor, reason: string): void {
    const recovery = this.#recovery
    if (recovery === null || cursor !== this.#cursor) return
    this.#recovery = null
    if (this.#doubt !== null) return this.#lose(cursor)
    this.#checkAfter(failedFactor)
    this.#context.log.warn({ ...this.#fields(recovery), reason }, 'missed KV events could not be recovered; overlaps of this worker may be wrong until it answers')
    cursor.recoveryFailed()
  }

  #endRecovery(): void {
    const recovery = this.#recovery
    this.#recovery = null
    recovery?.cancel()
  }

  #logRecovered(recovery: Recovery): void {
    const isDump = recovery.startEventId === null
    const message = isDump ? 'blocks of the worker are known' : 'missed KV events were fetched'
    if (recovery.newEvents > 0) this.#context.log.info(this.#fields(recovery), message)
    else this.#context.log.debug(this.#fields(recovery), message)
  }

  #fields(recovery: Recovery) {
    return {
      worker_id: this.rank.workerId.toString(), dp_rank: this.rank.dpRank, attempts: recovery.attempts, events: recovery.newEvents,
      duration_ms: Math.round(this.#context.clock.nowMs() - recovery.startedAtMs),
    }
  }
}
