/**
 * Which worker a session is bound to, for one pool. Pure: moments come with each call.
 *
 * absent -> initializing (the first request chooses freely, others wait for it) -> bound (leases of running requests; idle time counts
 * from the end of the last one) -> absent. Source: router-algorithm 11.
 */
import type { WorkerId } from '../model/worker.ts'

/** A null rank: any rank of the worker. */
export interface AffinityTarget {
  readonly workerId: WorkerId
  readonly dpRank: number | null
}

/** Whether sessions are bound, and what a binding means. */
export interface AffinityRules {
  readonly ttlMs: number
  /** Hard: the bound worker as long as it is there. Soft: another where that one may not be chosen. */
  readonly mode: 'hard' | 'soft'
}

/** A binding as replicas tell each other; of two, the one with the larger (sequence, writerId) holds. */
export interface AffinityUpdate {
  readonly sessionKey: string
  readonly target: AffinityTarget
  readonly sequence: bigint
  readonly writerId: bigint
}

export interface AffinityTableOptions {
  /** How long a binding without a running request lasts. */
  readonly ttlMs: number
  /** This router, in updates. */
  readonly writerId: bigint
  /** Left out: 65,536, as in Dynamo 1.6.1. */
  readonly maxSessions?: number
  /** Told of every binding made or used, for replicas. Must not throw. */
  publish?(update: AffinityUpdate): void
}

/** What became of a replica's update. */
export type ApplyOutcome = 'inserted' | 'refreshed' | 'replaced' | 'ignored-own' | 'ignored-initializing' | 'ignored-older' | 'refused-full'

export type Acquired =
  | { readonly kind: 'hold'; readonly hold: AffinityHold }
  /** Another request of the session chooses now. `wait` calls `resume` once, when it is worth asking again; it returns what ends the waiting. */
  | { readonly kind: 'wait'; wait(resume: () => void): () => void }
  /** The table has no room for another session. */
  | { readonly kind: 'full' }
  /** The request names another worker than the session's. */
  | { readonly kind: 'conflict'; readonly message: string }

interface Initializing {
  readonly kind: 'initializing'
  readonly waiters: Set<() => void>
}
interface Bound {
  readonly kind: 'bound'
  target: AffinityTarget
  leases: number
  /** Counts while there are no leases. */
  deadlineMs: number
  sequence: bigint
  writerId: bigint
}
type Entry = Initializing | Bound

export const sessionsMaxDefault = 65_536
const sweepMaxMs = 30_000

/** Null when the request may go where the session is bound. */
function conflict(bound: AffinityTarget, requested: AffinityTarget | null): string | null {
  if (requested === null) return null
  if (bound.workerId !== requested.workerId) return `the session is bound to worker ${bound.workerId}, not ${requested.workerId}; leave the worker id out, or use another session`
  if (requested.dpRank === null || bound.dpRank === requested.dpRank) return null
  return bound.dpRank === null
    ? `the session is bound to worker ${bound.workerId} without a rank; leave dp_rank ${requested.dpRank} out`
    : `the session is bound to dp_rank ${bound.dpRank} of worker ${bound.workerId}, not ${requested.dpRank}; leave dp_rank out`
}

/** A request's part in a binding: from `acquire` to `release`. */
export class AffinityHold {
  readonly #table: AffinityTable
  readonly #sessionKey: string
  #entry: Entry | null

  constructor(table: AffinityTable, sessionKey: string, entry: Entry) {
    this.#table = table
    this.#sessionKey = sessionKey
    this.#entry = entry
  }

  /** Null: this request chooses, and says with `bind` what it chose. */
  get target(): AffinityTarget | null {
    return this.#entry?.kind === 'bound' ? this.#entry.target : null
  }

  /** The session goes to this target from now on. Without effect when the binding was ended by another. */
  bind(target: AffinityTarget, nowMs: number): void {
    if (this.#entry !== null) this.#entry = this.#table.bindEntry(this.#sessionKey, this.#entry, target, nowMs)
  }

  /** The target cannot serve: the session is unbound for all. Ends the hold. */
  invalidate(): void {
    const entry = this.#entry
    this.#entry = null
    if (entry !== null) this.#table.dropEntry(this.#sessionKey, entry)
  }

  /** The request is over. Without a binding made, the next request of the session chooses. */
  release(nowMs: number): void {
    const entry = this.#entry
    this.#entry = null
    if (entry !== null) this.#table.releaseEntry(this.#sessionKey, entry, nowMs)
  }
}

export class AffinityTable {
  readonly #options: AffinityTableOptions
  readonly #maxSessions: number
  readonly #entries = new Map<string, Entry>()
  #sequence = 0n
  #nextSweepMs = 0

  constructor(options: AffinityTableOptions) {
    this.#options = options
    this.#maxSessions = options.maxSessions ?? sessionsMaxDefault
  }

  /** Sessions with a binding, or about to get one. */
  get size(): number {
    return this.#entries.size
  }

  /** `requested`: the worker that the request names itself. */
  acquire(sessionKey: string, requested: AffinityTarget | null, nowMs: number): Acquired {
    const entry = this.#live(sessionKey, nowMs)
    if (entry === undefined) {
      if (this.#entries.size >= this.#maxSessions) this.#sweepNow(nowMs)
      if (this.#entries.size >= this.#maxSessions) return { kind: 'full' }
      const made: Initializing = { kind: 'initializing', waiters: new Set() }
      this.#entries.set(sessionKey, made)
      return { kind: 'hold', hold: new AffinityHold(this, sessionKey, made) }
    }
    if (entry.kind === 'initializing') {
      return {
        kind: 'wait',
        wait: (resume) => {
          entry.waiters.add(resume)
          return () => void entry.waiters.delete(resume)
        },
      }
    }
    const message = conflict(entry.target, requested)
    if (message !== null) return { kind: 'conflict', message }
    entry.leases += 1
    return { kind: 'hold', hold: new AffinityHold(this, sessionKey, entry) }
  }

  /** The binding as it stands; changes nothing. */
  peek(sessionKey: string, requested: AffinityTarget | null, nowMs: number): { readonly target: AffinityTarget | null } | { readonly conflict: string } {
    const entry = this.#entries.get(sessionKey)
    if (entry?.kind !== 'bound' || isOver(entry, nowMs)) return { target: null }
    const message = conflict(entry.target, requested)
    return message === null ? { target: entry.target } : { conflict: message }
  }

  /** A binding that a replica made or used. The caller sees to it that the worker is known here. */
  apply(update: AffinityUpdate, nowMs: number): ApplyOutcome {
    const { sessionKey, target, sequence, writerId } = update
    if (writerId === this.#options.writerId) return 'ignored-own'
    if (sequence > this.#sequence) this.#sequence = sequence
    const entry = this.#live(sessionKey, nowMs)
    if (entry === undefined) {
      if (this.#entries.size >= this.#maxSessions) this.#sweepNow(nowMs)
      if (this.#entries.size >= this.#maxSessions) return 'refused-full'
      this.#entries.set(sessionKey, { kind: 'bound', target, leases: 0, deadlineMs: nowMs + this.#options.ttlMs, sequence, writerId })
      return 'inserted'
    }
    if (entry.kind === 'initializing') return 'ignored-initializing'
    const isSame = entry.target.workerId === target.workerId && entry.target.dpRank === target.dpRank
    const isNewer = sequence > entry.sequence || (sequence === entry.sequence && writerId > entry.writerId)
    if (isNewer) Object.assign(entry, { target, sequence, writerId })
    else if (!isSame) return 'ignored-older'
    entry.deadlineMs = nowMs + this.#options.ttlMs
    return isSame ? 'refreshed' : 'replaced'
  }

  /** A worker has gone: its sessions are unbound. Cost: all sessions. */
  dropWorker(workerId: WorkerId): number {
    let dropped = 0
    for (const [key, entry] of this.#entries) {
      if (entry.kind !== 'bound' || entry.target.workerId !== workerId) continue
      this.#entries.delete(key)
      dropped += 1
    }
    return dropped
  }

  /** Removes bindings whose idle time is over; call every second or so. Looks at the sessions every 30 s, or every time to live if that is shorter. */
  tick(nowMs: number): void {
    if (nowMs >= this.#nextSweepMs) this.#sweepNow(nowMs)
  }

  #sweepNow(nowMs: number): void {
    this.#nextSweepMs = nowMs + Math.min(this.#options.ttlMs, sweepMaxMs)
    for (const [key, entry] of this.#entries) if (isOver(entry, nowMs)) this.#entries.delete(key)
  }

  #live(sessionKey: string, nowMs: number): Entry | undefined {
    const entry = this.#entries.get(sessionKey)
    if (entry === undefined || !isOver(entry, nowMs)) return entry
    this.#entries.delete(sessionKey)
    return undefined
  }

  // ---- For holds ----

  bindEntry(sessionKey: string, entry: Entry, target: AffinityTarget, nowMs: number): Entry | null {
    if (this.#entries.get(sessionKey) !== entry) return null
    this.#sequence += 1n
    const version = { sequence: this.#sequence, writerId: this.#options.writerId }
    let bound: Bound
    if (entry.kind === 'bound') bound = Object.assign(entry, { target, ...version })
    else {
      bound = { kind: 'bound', target, leases: 1, deadlineMs: nowMs + this.#options.ttlMs, ...version }
      this.#entries.set(sessionKey, bound)
      wake(entry)
    }
    this.#options.publish?.({ sessionKey, target, ...version })
    return bound
  }

  dropEntry(sessionKey: string, entry: Entry): void {
    if (this.#entries.get(sessionKey) === entry) this.#entries.delete(sessionKey)
    if (entry.kind === 'initializing') wake(entry)
  }

  releaseEntry(sessionKey: string, entry: Entry, nowMs: number): void {
    if (entry.kind === 'initializing') return this.dropEntry(sessionKey, entry)
    entry.leases -= 1
    entry.deadlineMs = nowMs + this.#options.ttlMs
    if (this.#entries.get(sessionKey) !== entry) return
    const { target, sequence, writerId } = entry
    this.#options.publish?.({ sessionKey, target, sequence, writerId })
  }
}

const isOver = (entry: Entry, nowMs: number): boolean => entry.kind === 'bound' && entry.leases === 0 && entry.deadlineMs <= nowMs

/** Each waiter asks again; the first of them may have to choose. */
function wake(entry: Initializing): void {
  const waiters = [...entry.waiters]
  entry.waiters.clear()
  for (const resume of waiters) resume()
}
