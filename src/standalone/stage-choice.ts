/**
 * The choice of a worker for one stage of one request, with what its session is bound to.
 *
 * Hard: the bound worker and rank, or none; when it cannot serve any more, the session chooses anew. Soft: the bound worker where it may be
 * chosen, else another one, to which the session is then bound. The binding is held until the request has ended.
 */
import type { AffinityHold, AffinityTable, AffinityTarget } from '../affinity/affinity-table.ts'
import type { Decision, OnDecided, Parked, Refusal, RefusalReason } from '../model/decision.ts'
import type { RequestObserver } from '../model/request-observer.ts'
import type { Clock } from '../ports.ts'
import { chooseWorker, previewWorker, type Choice } from './choose-worker.ts'
import { phaseOf } from './dispatch-timer.ts'
import type { RoutedPool } from './routed-pool.ts'

export interface StageChoiceParts {
  readonly stage: 'prefill' | 'decode'
  /** Null: no session. */
  readonly sessionKey: string | null
  readonly clock: Clock
  readonly observer: RequestObserver
}

/** Refusals that speak of the bound worker itself and not of its load. */
const cannotServe: ReadonlySet<RefusalReason> = new Set<RefusalReason>([
  'no-workers', 'none-eligible', 'pinned-unknown', 'pinned-not-allowed', 'pinned-rank', 'pinned-set-aside',
])

type Done = (answer: Decision | Refusal) => void

export class StageChoice {
  readonly #parts: StageChoiceParts
  #hold: AffinityHold | null = null
  #table: AffinityTable | null = null
  /** Another request of the session, or a queue, is waited for. */
  #waiting: (() => void) | null = null

  constructor(parts: StageChoiceParts) {
    this.#parts = parts
  }

  /**
   * Chooses and books; `parked`: the answer comes through `onDecided`, and only then. `requested`: the worker that the caller named, which
   * must be the session's.
   */
  choose(pool: RoutedPool, choice: Choice, requested: AffinityTarget | null, onDecided: OnDecided): Decision | Refusal | Parked {
    const { stage, clock, observer } = this.#parts
    if (observer.onStage === undefined && (stage === 'decode' || observer.onPrefillRouted === undefined)) return this.#chosen(pool, choice, requested, onDecided)
    const phase = phaseOf(stage, pool)
    const startMs = clock.nowMs()
    observer.onStage?.('route', phase, { seconds: null, isIn: true })
    const told = <Answer extends Decision | Refusal>(answer: Answer): Answer => {
      observer.onStage?.('route', phase, { seconds: (clock.nowMs() - startMs) / 1000, isIn: false })
      if (stage === 'prefill' && answer.kind === 'chosen') observer.onPrefillRouted?.(answer, choice.request.model)
      return answer
    }
    let isOver = false
    const answer = this.#chosen(pool, choice, requested, (late) => {
      isOver = true
      onDecided(told(late))
    })
    if (answer.kind !== 'parked') return told(answer)
    const cancel = (): void => {
      answer.cancel()
      if (!isOver) observer.onStage?.('route', phase, { seconds: null, isIn: false })
      isOver = true
    }
    return { ...answer, cancel }
  }

  #chosen(pool: RoutedPool, choice: Choice, requested: AffinityTarget | null, onDecided: OnDecided): Decision | Refusal | Parked {
    const { affinity } = pool
    if (this.#parts.sessionKey === null || affinity === null) return chooseWorker(pool, choice, onDecided)
    if (this.#table !== affinity.table) this.release()
    this.#table = affinity.table
    const at: { answer: Decision | Refusal | null; isLate: boolean } = { answer: null, isLate: false }
    new BoundChoice(this, pool, choice, requested, (answer) => {
      if (at.isLate) onDecided(answer)
      else at.answer = answer
    }).step()
    if (at.answer !== null) return at.answer
    at.isLate = true
    return { kind: 'parked', requestId: choice.request.requestId, cancel: () => this.#stopWaiting() }
  }

  /** The choice as of now: books nothing, binds nothing, does not wait. */
  preview(pool: RoutedPool, choice: Choice, requested: AffinityTarget | null): Decision | Refusal {
    const { sessionKey, clock } = this.#parts
    if (sessionKey === null || pool.affinity === null) return previewWorker(pool, choice)
    const found = pool.affinity.table.peek(sessionKey, requested, clock.nowMs())
    if ('conflict' in found) return sessionConflict(choice, found.conflict)
    if (found.target === null || requested !== null || !isThere(pool, choice, found.target)) return previewWorker(pool, choice)
    const answer = previewWorker(pool, steered(choice, found.target))
    return answer.kind === 'refused' && (pool.affinity.mode === 'soft' || cannotServe.has(answer.reason)) ? previewWorker(pool, choice) : answer
  }

  /** The request has ended. */
  release(): void {
    this.#stopWaiting()
    this.#hold?.release(this.#parts.clock.nowMs())
    this.#hold = null
  }

  #stopWaiting(): void {
    const stop = this.#waiting
    this.#waiting = null
    stop?.()
  }

  // ---- For one choice ----

  get parts(): StageChoiceParts {
    return this.#parts
  }

  get hold(): AffinityHold | null {
    return this.#hold
  }

  set hold(hold: AffinityHold | null) {
    this.#hold = hold
  }

  set waiting(stop: (() => void) | null) {
    this.#waiting = stop
  }
}

/** One choice on its way to an answer. */
class BoundChoice {
  readonly #of: StageChoice
  readonly #pool: RoutedPool
  readonly #choice: Choice
  readonly #requested: AffinityTarget | null
  readonly #done: Done
  /** The session's binding was ended once for this choice: a second time it goes unbound. */
  #dropped = false

  constructor(of: StageChoice, pool: RoutedPool, choice: Choice, requested: AffinityTarget | null, done: Done) {
    this.#of = of
    this.#pool = pool
    this.#choice = choice
    this.#requested = requested
    this.#done = done
  }

  step(): void {
    const hold = this.#of.hold ?? this.#acquire()
    if (hold === null) return
    const { target } = hold
    if (target === null) return this.#submit(this.#choice, (answer) => this.#bind(hold, answer, 'bound'))
    if (this.#requested !== null) return this.#submit(this.#choice, (answer) => this.#reuse(hold, answer))
    if (!isThere(this.#pool, this.#choice, target)) return this.#without(hold)
    this.#submit(steered(this.#choice, target), (answer) => this.#reuse(hold, answer))
  }

  /** Null: the answer is given, or comes later. */
  #acquire(): AffinityHold | null {
    const { sessionKey, clock } = this.#of.parts
    const table = this.#pool.affinity?.table
    if (sessionKey === null || table === undefined) {
      this.#submit(this.#choice, this.#done)
      return null
    }
    const acquired = table.acquire(sessionKey, this.#requested, clock.nowMs())
    switch (acquired.kind) {
      case 'hold':
        this.#of.hold = acquired.hold
        return acquired.hold
      case 'wait':
        this.#note('waited')
        this.#of.waiting = acquired.wait(() => this.#resumed())
        return null
      case 'full':
        this.#note('unbound')
        this.#submit(this.#choice, this.#done)
        return null
      case 'conflict':
        this.#note('conflict')
        this.#done(sessionConflict(this.#choice, acquired.message))
        return null
    }
  }

  /** The other request's choice is still under way: this one's comes after it. */
  #resumed(): void {
    let isStopped = false
    this.#of.waiting = () => { isStopped = true }
    queueMicrotask(() => {
      if (isStopped) return
      this.#of.waiting = null
      this.step()
    })
  }

  #submit(choice: Choice, next: Done): void {
    const answer = chooseWorker(this.#pool, choice, (late) => {
      this.#of.waiting = null
      next(late)
    })
    if (answer.kind === 'parked') this.#of.waiting = () => answer.cancel()
    else next(answer)
  }

  #bind(hold: AffinityHold, answer: Decision | Refusal, outcome: 'bound' | 'rebound'): void {
    if (answer.kind === 'chosen') {
      // With the worker first: who waits for the binding asks at once.
      hold.bind({ workerId: answer.workerId, dpRank: answer.dpRank }, this.#of.parts.clock.nowMs())
      this.#note(outcome)
    } else if (outcome === 'bound') {
      hold.release(this.#of.parts.clock.nowMs())
      this.#of.hold = null
    }
    this.#done(answer)
  }

  #reuse(hold: AffinityHold, answer: Decision | Refusal): void {
    if (answer.kind === 'chosen') this.#note('reused')
    else if (this.#requested === null && (this.#pool.affinity?.mode === 'soft' || cannotServe.has(answer.reason))) return this.#without(hold)
    this.#done(answer)
  }

  /** The bound worker is not to be had. */
  #without(hold: AffinityHold): void {
    if (this.#pool.affinity?.mode === 'soft') return this.#submit(this.#choice, (answer) => this.#bind(hold, answer, 'rebound'))
    hold.invalidate()
    this.#of.hold = null
    this.#note('dropped')
    if (this.#dropped) return this.#submit(this.#choice, this.#done)
    this.#dropped = true
    this.step()
  }

  #note(outcome: Parameters<RequestObserver['onSession']>[1]): void {
    const { observer, stage } = this.#of.parts
    observer.onSession(stage, outcome)
  }
}

const isThere = (pool: RoutedPool, { excluded }: Choice, { workerId }: AffinityTarget): boolean =>
  !excluded.has(workerId) && pool.router?.worker(workerId) !== undefined

/** To the bound target and no other; without a rank the worker's ranks are chosen from. */
function steered(choice: Choice, { workerId, dpRank }: AffinityTarget): Choice {
  const { request } = choice
  if (dpRank !== null) return { ...choice, request: { ...request, pin: { workerId, dpRank } } }
  const allowed = request.allowedWorkerIds === undefined || request.allowedWorkerIds.has(workerId) ? [workerId] : []
  return { ...choice, request: { ...request, allowedWorkerIds: new Set(allowed) } }
}

const sessionConflict = ({ request: { requestId } }: Choice, message: string): Refusal =>
  ({ kind: 'refused', requestId, reason: 'session-conflict', message, exclusions: [] })
