/** Busy thresholds over the router's own loads and what workers report; they can change while running. */
import type { ActiveSequences } from '../load/active-sequences.ts'
import { OverloadMonitor, type OverloadThresholds, type RankCapacity } from '../load/overload-monitor.ts'
import type { RankSlot } from '../model/worker.ts'
import type { OverloadTest } from '../scheduling/eligibility.ts'
import type { WorkerDirectory } from './worker-directory.ts'

/** Load of a worker as it says itself; null leaves the old value. */
export interface ReportedLoad {
  readonly activeDecodeBlocks: number | null
  readonly activePrefillTokens: number | null
  readonly kvUsedBlocks: number | null
}

export class OverloadWatch {
  readonly #loads: ActiveSequences
  #monitor: OverloadMonitor
  /** Null: no threshold is set. */
  test: OverloadTest | null = null

  constructor(loads: ActiveSequences, thresholds: OverloadThresholds) {
    this.#loads = loads
    this.#monitor = this.#armed(thresholds)
  }

  setRank(slot: RankSlot, capacity: RankCapacity, isNew: boolean): void {
    this.#monitor.setRank(slot, capacity, isNew)
  }

  /** The router's own load of a rank has changed. */
  observe(slot: RankSlot): void {
    if (this.#monitor.enabled) this.#monitor.observe(slot, this.#loads.activeBlocks(slot), this.#loads.prefillTokens[slot]!, null)
  }

  report(slot: RankSlot, load: ReportedLoad): void {
    this.#monitor.observe(slot, load.activeDecodeBlocks, load.activePrefillTokens, load.kvUsedBlocks)
  }

  /** Other thresholds; reported loads count again with the next report. */
  setThresholds(thresholds: OverloadThresholds, directory: WorkerDirectory): void {
    this.#monitor = this.#armed(thresholds)
    for (const worker of directory.ordered) {
      for (const slot of worker.slots) {
        this.#monitor.setRank(slot, worker.description, true)
        this.observe(slot)
      }
    }
  }

  #armed(thresholds: OverloadThresholds): OverloadMonitor {
    const monitor = new OverloadMonitor(thresholds)
    this.test = monitor.enabled ? (worker) => worker.slots.every((slot) => monitor.isOverloaded(slot)) : null
    return monitor
  }
}
