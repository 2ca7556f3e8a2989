/** One selection after the other over reused columns: collect, let the router measure, score, choose. */
import type { RoutingRequest } from '../model/routing-request.ts'
import type { RankSlot } from '../model/worker.ts'
import type { Random } from '../ports.ts'
import { collectCandidates } from './candidates.ts'
import { CandidateTable } from './candidate-table.ts'
import { chooseBySampling, chooseMinimum } from './choice.ts'
import type { Choice, ChoiceKind } from './choice.ts'
import { scoreCandidates } from './cost.ts'
import type { CostInput } from './cost.ts'
import type { OverloadTest, SchedulableWorker } from './eligibility.ts'
import type { TwoTierParameters } from './selection-policy.ts'
import { scoreTwoTier } from './two-tier.ts'

/** The candidates and the choice of the selection in progress; valid until the next `collect`. */
export class Selection {
  table = new CandidateTable()
  #weights = new Float64Array(16)
  readonly #choice: Choice = { row: -1, kind: 'minimum' }

  /** How the last row was chosen. */
  get kind(): ChoiceKind {
    return this.#choice.kind
  }

  /** Starts with all eligible ranks. */
  collect(workers: readonly SchedulableWorker[], allSlots: Int32Array, request: RoutingRequest, overload: OverloadTest | null): void {
    this.table = this.table.withRoom(allSlots.length)
    collectCandidates(this.table, workers, allSlots, request, overload)
  }

  /** Leaves only the candidates among these slots; without effect when none is. Before they are measured. */
  keep(slots: readonly RankSlot[]): void {
    const { slot, taintFactor, count } = this.table
    let kept = 0
    for (let row = 0; row < count; row++) {
      if (!slots.includes(slot[row]!)) continue
      slot[kept] = slot[row]!
      taintFactor[kept] = taintFactor[row]!
      kept += 1
    }
    if (kept > 0) this.table.count = kept
  }

  /** Starts with one rank that was given. Preferred taints do not count. */
  collectOne(slot: RankSlot): void {
    this.table.slot[0] = slot
    this.table.taintFactor[0] = 1
    this.table.count = 1
  }

  /**
   * Scores the candidates, whose overlap and load are filled in, and chooses a row; -1 when a cost is not finite.
   * `twoTier`: by that policy instead of the builtin cost, always at temperature 0.
   */
  choose(input: CostInput, temperature: number, random: Random, twoTier: TwoTierParameters | null = null): number {
    const { table } = this
    if (twoTier !== null) {
      scoreTwoTier(table, input, twoTier)
      chooseMinimum(table.cost, table.count, random, this.#choice)
      return this.#choice.row
    }
    scoreCandidates(table, input)
    const { cost, count } = table
    for (let row = 0; row < count; row++) if (!Number.isFinite(cost[row]!)) return -1
    if (temperature === 0 || count === 1) chooseMinimum(cost, count, random, this.#choice)
    else {
      if (count > this.#weights.length) this.#weights = new Float64Array(table.cost.length)
      chooseBySampling(cost, count, temperature, random, this.#weights, this.#choice)
    }
    return this.#choice.row
  }
}
