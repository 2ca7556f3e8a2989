/** The index on one workload file, in a process of its own: `worker.js digest|oracle|time|growth FILE` prints one line of JSON. */
import { createOverlapScores } from '../../src/index/overlap-scores.ts'
import { createPrefixIndex, type TieredPrefixIndex } from '../../src/index/prefix-index.ts'
import { ReferenceIndex } from '../../src/index/reference-index.ts'
import type { PrefixIndex } from '../../src/index/contract.ts'
import { quantile } from '../measure.ts'
import { digestOf, type Digests } from './digest.ts'
import { readWorkload, type Workload, type WorkloadPhase } from './workload.ts'

/** What one timed run measures. CPU time is of the whole process, compilation and collection included. */
export interface IndexTimes {
  readonly storeNsPerBlock: number
  /** CPU per query, mean of the best of four passes. */
  readonly findUs: number
  readonly findP50Us: number
  readonly findP99Us: number
  readonly churnNsPerBlock: number
}

export interface OurIndexTimes extends IndexTimes {
  readonly entries: number
  readonly bytesReserved: number
}

/**
 * How long single events take while the index grows: what the wall clock says or the CPU time of the whole process, whichever is less.
 * Both are at least the pause: the clock runs on while other programs have the core, the CPU time counts threads that compile.
 */
export interface GrowthPauses {
  readonly entries: number
  readonly bytesReserved: number
  readonly longestMs: number
  /** The longest by the clock alone. */
  readonly longestWallMs: number
  /** Events that took longer than a millisecond. */
  readonly overOneMs: number
  readonly events: number
}

const cpuNs = (): number => {
  const { user, system } = process.cpuUsage()
  return 1000 * (user + system)
}

type Wanted = 'stored' | 'removed' | 'all'

/** CPU nanoseconds that the events of a phase take. */
function apply(index: PrefixIndex, phase: WorkloadPhase, wanted: Wanted = 'all', checks = true): number {
  let spent = 0
  for (const batch of phase.batches()) {
    const begin = cpuNs()
    for (const { rank, data } of batch) {
      if (wanted !== 'all' && data.kind !== wanted) continue
      const status = index.apply(rank, 'device', data)
      if (status !== 'ok' && checks) throw new Error(`an event was refused: ${status}`)
    }
    spent += cpuNs() - begin
  }
  return spent
}

/** Indexes of the warm-up: kept, so that nothing is swept up in the timed part. */
const warmed: PrefixIndex[] = []

function digest(index: PrefixIndex, { ranks, stores, churn, cuts, queries }: Workload): Digests {
  const scores = createOverlapScores(ranks)
  apply(index, stores)
  const stored = digestOf(index, queries, scores)
  apply(index, churn, 'removed')
  const evicted = digestOf(index, queries, scores)
  apply(index, churn, 'stored')
  const restored = digestOf(index, queries, scores)
  apply(index, cuts, 'all', false)
  return { stored, evicted, restored, cut: digestOf(index, queries, scores) }
}

/** A service is long past compilation when its index is large: so is what is timed. */
function warm(load: Workload): void {
  for (let events = 0; events < 150_000;) {
    const index = createPrefixIndex()
    warmed.push(index)
    for (const batch of load.stores.batches()) {
      for (const { rank, data } of batch) index.apply(rank, 'device', data)
      events += batch.length
      if (events > 150_000) break
    }
    findAll(index, load, 1)
    for (const batch of load.churn.batches()) for (const { rank, data } of batch) index.apply(rank, 'device', data)
  }
}

function findAll(index: TieredPrefixIndex, { ranks, queries }: Workload, passes: number): number {
  const scores = createOverlapScores(ranks)
  let best = Infinity
  for (let pass = 0; pass < passes; pass += 1) {
    const begin = cpuNs()
    for (const query of queries) index.find(query, scores)
    best = Math.min(best, cpuNs() - begin)
  }
  return best
}

const storePasses = (blocks: number): number => blocks < 500_000 ? 8 : 1

function time(load: Workload): OurIndexTimes {
  warm(load)
  let index = createPrefixIndex()
  let storeNs = apply(index, load.stores)
  // Small ones again: one pass is as long as what else a process does.
  for (let pass = 1; pass < storePasses(load.stores.blocks); pass += 1) {
    warmed.push(index)
    index = createPrefixIndex()
    storeNs = Math.min(storeNs, apply(index, load.stores))
  }
  const { entryCount: entries, bytesReserved } = index
  const findNs = findAll(index, load, 4)
  const scores = createOverlapScores(load.ranks)
  const calls = load.queries.map((query) => {
    const begin = performance.now()
    index.find(query, scores)
    return 1000 * (performance.now() - begin)
  })
  const churnNs = Math.min(...Array.from({ length: 6 }, () => apply(index, load.churn)))
  return {
    entries, bytesReserved, storeNsPerBlock: storeNs / load.stores.blocks, findUs: findNs / 1000 / load.queries.length,
    findP50Us: quantile(calls, 0.5), findP99Us: quantile(calls, 0.99), churnNsPerBlock: churnNs / load.churn.blocks,
  }
}

function growth(load: Workload): GrowthPauses {
  warm(load)
  const index = createPrefixIndex()
  let longestMs = 0
  let longestWallMs = 0
  let overOneMs = 0
  // As many events at a time as a message of the event plane holds.
  for (const batch of load.stores.batches(128)) {
    let [wall, cpu] = [performance.now(), cpuNs()]
    for (const { rank, data } of batch) {
      index.apply(rank, 'device', data)
      const [wallAfter, cpuAfter] = [performance.now(), cpuNs()]
      const pause = Math.min(wallAfter - wall, (cpuAfter - cpu) / 1e6)
      if (pause > 1) overOneMs += 1
      longestMs = Math.max(longestMs, pause)
      longestWallMs = Math.max(longestWallMs, wallAfter - wall)
      wall = wallAfter
      cpu = cpuAfter
    }
  }
  return { entries: index.entryCount, bytesReserved: index.bytesReserved, longestMs, longestWallMs, overOneMs, events: load.stores.events }
}

const [command, file] = process.argv.slice(2)
const load = readWorkload(file ?? '')
const commands: Record<string, () => unknown> = {
  digest: () => digest(createPrefixIndex(), load),
  oracle: () => digest(new ReferenceIndex(), load),
  time: () => time(load),
  growth: () => growth(load),
}
const result = commands[command ?? '']?.()
if (result === undefined) throw new Error('usage: worker.js digest|oracle|time|growth FILE')
process.stdout.write(`${JSON.stringify(result)}\n`)
