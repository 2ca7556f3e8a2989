/**
 * Keeps on disk what a pool's router knows of workers that cannot be asked again, and gives it back after a restart.
 *
 * Kept are ranks that are fed by routing decisions, and those whose event source answers no questions. The former's
 * blocks live on as long as they would have without the restart; the latter's count as long as no event is missing since.
 */
import type { RouterEvent } from '../model/kv-event.ts'
import type { WorkerDescription, WorkerRank } from '../model/worker.ts'
import type { Clock, EndpointId, Log } from '../ports.ts'
import type { Router } from '../router/contract.ts'
import { readState, removeState, StateFileError, writeState, type KeptRank, type KeptState } from './state-file.ts'

export interface StateKeeperParts {
  readonly folder: string
  readonly endpoint: EndpointId
  readonly clock: Clock
  readonly log: Log
  /** A snapshot is made after so many events, and each minute when anything has changed. */
  readonly threshold: number
  /** Forget what was kept. */
  readonly reset: boolean
  router(): Router | null
  /** Newest event of a rank with a source that cannot be asked; null: it has none, or it can be asked. */
  liveOnly(rank: WorkerRank): bigint | null
  /** Events applied so far. */
  appliedEvents(): number
}

export interface StateKeeperStats {
  written: number
  failed: number
  /** Files that could not be used. */
  refused: number
  restoredRanks: number
}

const everyMs = 60_000

export class StateKeeper {
  readonly stats: StateKeeperStats = { written: 0, failed: 0, refused: 0, restoredRanks: 0 }
  readonly path: string
  readonly #parts: StateKeeperParts
  readonly #kept = new Map<string, KeptRank>()
  #state: KeptState | null = null
  #writing: Promise<void> | null = null
  #appliedAtWrite = 0
  #entriesAtWrite = 0
  #nextMs: number

  constructor(parts: StateKeeperParts) {
    this.#parts = parts
    this.#nextMs = parts.clock.nowMs() + everyMs
    this.path = `${parts.folder}/${encodeURIComponent(targetOf(parts.endpoint))}.state`
  }

  /** Reads what was kept, or forgets it. Never fails: what cannot be used is logged, and the pool starts empty. */
  async load(): Promise<void> {
    const { log, endpoint, reset } = this.#parts
    const fields = { stage: 'state', path: this.path }
    try {
      if (reset) {
        await removeState(this.path)
        return log.info(fields, 'the state on disk was removed, as --router-reset-states asks')
      }
      const state = await readState(this.path)
      if (state === null) return
      if (state.target !== targetOf(endpoint)) throw new StateFileError(`it is of the workers ${state.target}`)
      this.#state = state
      for (const rank of state.ranks) this.#kept.set(keyOf(rank), rank)
      log.info({ ...fields, ranks: state.ranks.length, age_s: Math.round(this.#ageMs(state) / 1000) }, 'state on disk was read')
    } catch (error) {
      this.stats.refused += 1
      log.warn({ ...fields, reason: (error as Error).message }, 'the state on disk is not used; starting without. It is replaced by the next snapshot')
    }
  }

  /** Whether a rank was fed by routing decisions. */
  wasApproximate(rank: WorkerRank): boolean {
    const kept = this.#kept.get(keyOf(rank))
    return kept !== undefined && kept.lastEventId === null
  }

  /** A rank is fed by routing decisions from now on: what it held comes back. */
  restoreApproximate(rank: WorkerRank): void {
    const router = this.#parts.router()
    const state = this.#usable(router)
    if (router === null || state === null || !this.wasApproximate(rank)) return
    const kept = this.#take(rank) as KeptRank
    const stored = kept.events.map(({ data }) => data).filter((data) => data.kind === 'stored')
    const ageMs = this.#ageMs(state)
    const lives = kept.livesMs?.map((ms) => ms - ageMs) ?? null
    const nowMs = this.#parts.clock.nowMs()
    // A file of before lives were kept: as if all had been routed when it was written.
    const blocks = router.rankBlocks.assume(rank, stored, lives === null ? nowMs - ageMs : nowMs, lives)
    this.#restored(rank, blocks)
  }

  /** What a rank held whose source cannot be asked, and the event after which its next one must come; null: nothing was kept. */
  takeLiveOnly(rank: WorkerRank): { readonly lastEventId: bigint; readonly events: readonly RouterEvent[] } | null {
    if (this.#usable(this.#parts.router()) === null || this.wasApproximate(rank)) return null
    const kept = this.#take(rank)
    if (kept === null || kept.lastEventId === null) return null
    this.#restored(rank, kept.events.length)
    return { lastEventId: kept.lastEventId, events: kept.events }
  }

  /** Ranks of a worker without an event follower. */
  workerKnown(worker: WorkerDescription): void {
    for (let dpRank = worker.dpStart; dpRank < worker.dpStart + worker.dpSize; dpRank += 1) {
      const rank = { workerId: worker.workerId, dpRank }
      if (this.#parts.router()?.rankBlocks.isApproximate(rank) === true) this.restoreApproximate(rank)
    }
  }

  /** Call every second. */
  tick(): void {
    const { clock, threshold } = this.#parts
    const applied = this.#parts.appliedEvents()
    const entries = this.#parts.router()?.indexEntryCount ?? 0
    const isDue = clock.nowMs() >= this.#nextMs && (applied !== this.#appliedAtWrite || entries !== this.#entriesAtWrite)
    if (isDue || applied - this.#appliedAtWrite > threshold) void this.write()
  }

  /** Writes a snapshot now, or waits for the one that is on its way. Errors: none. */
  write(): Promise<void> {
    this.#writing ??= this.#write().finally(() => { this.#writing = null })
    return this.#writing
  }

  async #write(): Promise<void> {
    const { clock, log, endpoint, appliedEvents } = this.#parts
    const router = this.#parts.router()
    this.#nextMs = clock.nowMs() + everyMs
    if (router === null) return
    this.#appliedAtWrite = appliedEvents()
    this.#entriesAtWrite = router.indexEntryCount
    try {
      const ranks: KeptRank[] = []
      for (const rank of ranksOf(router)) {
        const kept = this.#keep(router, rank)
        if (kept !== null) ranks.push(kept)
        await new Promise<void>((resolve) => setImmediate(resolve))
      }
      await writeState(this.path, { target: targetOf(endpoint), blockSize: router.settings.blockSize, isEagle: router.settings.isEagle, writtenAtMs: clock.epochMs(), ranks })
      this.stats.written += 1
      log.debug({ stage: 'state', path: this.path, ranks: ranks.length }, 'state was written')
    } catch (error) {
      this.stats.failed += 1
      log.warn({ stage: 'state', path: this.path, reason: (error as Error).message }, 'the state could not be written; the last one stays')
    }
  }

  /** Null: the rank can be asked again, or is gone. */
  #keep(router: Router, rank: WorkerRank): KeptRank | null {
    const isApproximate = router.rankBlocks.isApproximate(rank)
    const lastEventId = isApproximate === false ? this.#parts.liveOnly(rank) : null
    if (isApproximate === null || (!isApproximate && lastEventId === null)) return null
    const blocks = router.rankBlocks.dump(rank)
    const livesMs = lastEventId === null ? router.rankBlocks.lives(rank, blocks.flatMap(({ data }) => (data.kind === 'stored' ? [data] : [])), this.#parts.clock.nowMs()) : null
    const events = blocks.map(({ tier, data }, index) => ({ ...rank, storageTier: tier, residencyDomain: 'absent' as const, eventId: BigInt(index), data }))
    return { ...rank, lastEventId, events, livesMs }
  }

  /** Hashes mean something for one block size only. */
  #usable(router: Router | null): KeptState | null {
    const state = this.#state
    if (state === null || router === null) return null
    const { blockSize, isEagle } = router.settings
    if (state.blockSize === blockSize && state.isEagle === isEagle) return state
    this.#parts.log.warn({ stage: 'state', path: this.path, kept: state.blockSize, block_size: blockSize }, 'the state on disk is not used: it is of workers with another block size')
    this.stats.refused += 1
    this.#state = null
    this.#kept.clear()
    return null
  }

  #take(rank: WorkerRank): KeptRank | null {
    const kept = this.#kept.get(keyOf(rank)) ?? null
    this.#kept.delete(keyOf(rank))
    return kept
  }

  #restored(rank: WorkerRank, blocks: number): void {
    this.stats.restoredRanks += 1
    this.#parts.log.info({ stage: 'state', worker_id: rank.workerId.toString(), dp_rank: rank.dpRank, blocks }, 'what the worker held before the restart is known again')
  }

  /** A clock that was set back makes no age. */
  #ageMs(state: KeptState): number {
    return Math.max(0, this.#parts.clock.epochMs() - state.writtenAtMs)
  }
}

const targetOf = ({ namespace, component, endpoint }: EndpointId): string => `${namespace}.${component}.${endpoint}`

const keyOf = (rank: WorkerRank): string => `${rank.workerId}/${rank.dpRank}`

function* ranksOf(router: Router): Iterable<WorkerRank> {
  for (const { workerId, dpStart, dpSize } of router.workers) {
    for (let dpRank = dpStart; dpRank < dpStart + dpSize; dpRank += 1) yield { workerId, dpRank }
  }
}
