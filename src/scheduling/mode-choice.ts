/** Choosing without regard to caches: the router modes beside `kv`. Source: Dynamo 1.6.1, `--router-mode`. */
import type { RankSlot } from '../model/worker.ts'
import type { Random } from '../ports.ts'
import type { CandidateTable } from './candidate-table.ts'

/** `direct` takes only requests that name their worker. */
export type SelectionMode = 'round-robin' | 'random' | 'power-of-two' | 'least-loaded' | 'device-aware-weighted' | 'direct'

/** How much busier than a worker on a CPU one on an accelerator must be before the CPU is taken. */
const acceleratorRatio = 8

/** Chooses among the collected candidates; remembers whose turn it was. Ties of load go round. */
export class ModeChoice {
  readonly #mode: SelectionMode
  #last: RankSlot = -1

  constructor(mode: SelectionMode) {
    this.#mode = mode
  }

  get mode(): SelectionMode {
    return this.#mode
  }

  /** A row of `table`, which has at least one. `isCpu`: of the worker that has this slot. `book`: the turn counts. */
  choose(table: CandidateTable, random: Random, isCpu: (slot: RankSlot) => boolean, book: boolean): number {
    const row = this.#row(table, random, isCpu)
    if (book) this.#last = table.slot[row]!
    return row
  }

  #row(table: CandidateTable, random: Random, isCpu: (slot: RankSlot) => boolean): number {
    const { count, activeRequests } = table
    if (this.#mode === 'random') return drawn(random, count)
    if (this.#mode === 'power-of-two') {
      const first = drawn(random, count)
      const other = count === 1 ? first : (first + 1 + drawn(random, count - 1)) % count
      return activeRequests[other]! < activeRequests[first]! ? other : first
    }
    if (this.#mode === 'least-loaded') return this.#least(table, () => true)
    if (this.#mode === 'device-aware-weighted') {
      const takesCpu = cpuIsFreer(table, isCpu)
      return this.#least(table, (slot) => isCpu(slot) === takesCpu)
    }
    return this.#least(table, () => true, true)
  }

  /** The least loaded row of a group, the next in turn among equals; with `ignoreLoad` all are equal. */
  #least(table: CandidateTable, belongs: (slot: RankSlot) => boolean, ignoreLoad = false): number {
    let best = -1
    for (let row = 0; row < table.count; row++) {
      if (belongs(table.slot[row]!) && (best < 0 || this.#isBefore(table, row, best, ignoreLoad))) best = row
    }
    return best
  }

  #isBefore(table: CandidateTable, row: number, other: number, ignoreLoad: boolean): boolean {
    const load = ignoreLoad ? 0 : table.activeRequests[row]! - table.activeRequests[other]!
    if (load !== 0) return load < 0
    const [slot, otherSlot] = [table.slot[row]!, table.slot[other]!]
    // Those after the last one come before those up to it.
    const [isNext, otherIsNext] = [slot > this.#last, otherSlot > this.#last]
    return isNext === otherIsNext ? slot < otherSlot : isNext
  }
}

const drawn = (random: Random, count: number): number => Math.min(count - 1, Math.floor(random.float() * count))

/** True when there are only CPU workers, or accelerators are `acceleratorRatio` times as busy each. */
function cpuIsFreer(table: CandidateTable, isCpu: (slot: RankSlot) => boolean): boolean {
  let [cpus, cpuRequests, others, otherRequests] = [0, 0, 0, 0]
  for (let row = 0; row < table.count; row++) {
    if (isCpu(table.slot[row]!)) {
      cpus += 1
      cpuRequests += table.activeRequests[row]!
    } else {
      others += 1
      otherRequests += table.activeRequests[row]!
    }
  }
  return others === 0 || (cpus > 0 && cpuRequests * others * acceleratorRatio < otherRequests * cpus)
}
