/**
 * Runs policies over the candidates of one router, after the built-in policy has scored and chosen.
 *
 * Whatever a policy does, there is a choice: the built-in one. Who is eligible was settled before.
 */
import type { PolicyVerdict } from '../model/decision.ts'
import type { RoutingRequest } from '../model/routing-request.ts'
import type { WorkerRole } from '../model/worker.ts'
import type { Clock, Random } from '../ports.ts'
import type { CandidateTable } from '../scheduling/candidate-table.ts'
import { chooseBySampling, chooseMinimum, type Choice } from '../scheduling/choice.ts'
import type { CostInput } from '../scheduling/cost.ts'
import { CandidateView, RequestView, ViewSource, type SlotOwners } from './candidate-views.ts'
import type { Policy, PolicyCandidate } from './contract.ts'
import type { PolicyPlaces, PolicySlot } from './policy-slot.ts'

/** One decision in the making: its table is scored by the built-in policy. */
export interface ScoredSelection {
  readonly table: CandidateTable
  readonly input: Pick<CostInput, 'blockSize' | 'trackPrefillTokens'>
  readonly request: RoutingRequest
  readonly temperature: number
  /** The built-in policy's choice. */
  readonly row: number
  readonly isPreview: boolean
}

/** Columns and views of one place; grown, never shrunk. */
interface Run {
  scores: Float64Array
  /** Whether `scores` holds those of this decision: the policy scores, and did. */
  isScored: boolean
}

/** A policy answered with something that is neither a score nor a candidate. */
class InvalidAnswer extends Error {}

/** Cost: without policies two tests; with one no allocation per candidate. */
export class PolicyChooser {
  readonly #places: PolicyPlaces
  readonly #clock: Clock
  readonly #random: Random
  readonly #source: ViewSource
  readonly #request: RequestView
  /** One per row ever seen. */
  readonly #views: CandidateView[] = []
  /** What a selecting policy gets: as long as the table; frozen, so that an index means what it says. */
  #listed: readonly CandidateView[] = []
  readonly #live: Run = { scores: new Float64Array(16), isScored: false }
  readonly #shadow: Run = { scores: new Float64Array(16), isScored: false }
  readonly #choice: Choice = { row: -1, kind: 'minimum' }
  #weights = new Float64Array(16)
  #verdict: PolicyVerdict | null = null

  constructor(places: PolicyPlaces, parts: { readonly owners: SlotOwners; readonly role: WorkerRole; readonly clock: Clock; readonly random: Random }) {
    this.#places = places
    this.#clock = parts.clock
    this.#random = parts.random
    this.#source = new ViewSource(parts.owners)
    this.#request = new RequestView(this.#source, parts.role)
  }

  /** Who decided last, where a policy is loaded; null: none is. */
  get verdict(): PolicyVerdict | null {
    return this.#verdict
  }

  /** A row's score in the last decision; null: the policy selects, or failed. */
  scoreOf(row: number): number | null {
    return this.#live.isScored ? this.#live.scores[row]! : null
  }

  /** Nothing is loaded. */
  get isIdle(): boolean {
    return this.#places.live.policy === null && this.#places.shadow.policy === null
  }

  /** Nobody is asked this time. */
  skip(): void {
    this.#verdict = null
    this.#live.isScored = false
  }

  /** The row that counts. */
  choose(selection: ScoredSelection): number {
    const { live, shadow } = this.#places
    this.#verdict = null
    this.#live.isScored = false
    this.#source.table = selection.table
    this.#request.show(selection.request, selection.input, selection.isPreview)
    const row = live.policy === null ? selection.row : this.#decide(live, live.policy, selection)
    if (shadow.active !== null && !selection.isPreview && selection.table.count > 1) this.#compare(shadow, shadow.active, selection, row)
    return row
  }

  #decide(slot: PolicySlot, policy: Policy, { table, temperature, row }: ScoredSelection): number {
    if (slot.isSetAside) {
      this.#verdict = { name: policy.name, decided: false, why: 'set-aside', score: null }
      return row
    }
    const chosen = this.#run(slot, policy, this.#live, table.count)
    if (chosen < 0) {
      this.#verdict = { name: policy.name, decided: false, why: chosen === threw ? 'exception' : 'invalid', score: null }
      return row
    }
    const taken = this.#live.isScored ? this.#byScore(table.count, temperature) : chosen
    this.#verdict = { name: policy.name, decided: true, why: null, score: this.scoreOf(taken) }
    return taken
  }

  /** The row that a policy selects, 0 when it scores, `threw` or `invalid`. Never throws. */
  #run(slot: PolicySlot, policy: Policy, run: Run, count: number): number {
    run.isScored = false
    const startMs = this.#clock.nowMs()
    try {
      if ('select' in policy) return this.#rowOf(policy.select(this.#candidates(count), this.#request), count)
      this.#score(policy, run, count)
      run.isScored = true
      return 0
    } catch (error) {
      const isInvalid = error instanceof InvalidAnswer
      slot.failed(isInvalid ? 'invalid' : 'exception', isInvalid ? error.message : textOf(error))
      return isInvalid ? invalid : threw
    } finally {
      slot.took((this.#clock.nowMs() - startMs) * 1000)
    }
  }

  #score(policy: Extract<Policy, { score: unknown }>, run: Run, count: number): void {
    if (count > run.scores.length) run.scores = new Float64Array(2 * count)
    for (let row = 0; row < count; row++) {
      const score: unknown = policy.score(this.#view(row), this.#request)
      // NaN is the one number that differs from itself.
      if (typeof score !== 'number' || score !== score) throw invalidScore(score, this.#view(row))
      run.scores[row] = score
    }
  }

  #view(row: number): CandidateView {
    return (this.#views[row] ??= new CandidateView(this.#source, row))
  }

  #candidates(count: number): readonly CandidateView[] {
    if (this.#listed.length !== count) this.#listed = Object.freeze(Array.from({ length: count }, (_, row) => this.#view(row)))
    return this.#listed
  }

  #rowOf(answer: unknown, count: number): number {
    const row = typeof answer === 'number' ? answer : this.#rowOfView(answer, count)
    if (Number.isInteger(row) && row >= 0 && row < count) return row
    quiet(answer)
    throw new InvalidAnswer(`select returned ${shown(answer)}; expected one of its ${count} candidates, or an index below ${count}`)
  }

  #rowOfView(answer: unknown, count: number): number {
    for (let row = 0; row < count; row++) if (this.#views[row] === answer) return row
    return -1
  }

  #byScore(count: number, temperature: number): number {
    const { scores } = this.#live
    if (temperature === 0 || count === 1 || !areFinite(scores, count)) chooseMinimum(scores, count, this.#random, this.#choice)
    else {
      if (count > this.#weights.length) this.#weights = new Float64Array(scores.length)
      chooseBySampling(scores, count, temperature, this.#random, this.#weights, this.#choice)
    }
    return this.#choice.row
  }

  /** Draws nothing: the numbers of the live decision stay what they are. */
  #compare(slot: PolicySlot, policy: Policy, { table }: ScoredSelection, liveRow: number): void {
    const run = this.#shadow
    const selected = this.#run(slot, policy, run, table.count)
    if (selected < 0) return
    let [shadowRow, regret]: [number, number | null] = [selected, null]
    if (run.isScored) {
      // Among equals the live choice is as good as any.
      shadowRow = liveRow
      for (let row = 0; row < table.count; row++) if (run.scores[row]! < run.scores[shadowRow]!) shadowRow = row
      const difference = shadowRow === liveRow ? 0 : run.scores[liveRow]! - run.scores[shadowRow]!
      regret = Number.isFinite(difference) ? difference : null
    }
    this.#places.onCompared?.({ agrees: shadowRow === liveRow, regret, costGapBlocks: table.cost[shadowRow]! - table.cost[liveRow]! })
  }
}

const threw = -1
const invalid = -2

function areFinite(scores: Float64Array, count: number): boolean {
  for (let row = 0; row < count; row++) if (!Number.isFinite(scores[row]!)) return false
  return true
}

function invalidScore(score: unknown, candidate: PolicyCandidate): InvalidAnswer {
  quiet(score)
  const hint = isThenable(score) ? '; a policy must not be async' : ''
  return new InvalidAnswer(`score returned ${shown(score)} for worker ${candidate.workerId} dp_rank ${candidate.dpRank}; expected a number${hint}`)
}

const isThenable = (value: unknown): value is PromiseLike<unknown> =>
  typeof value === 'object' && value !== null && typeof (value as { readonly then?: unknown }).then === 'function'

/** An async policy's rejection belongs to nobody, and must not end the process. */
function quiet(answer: unknown): void {
  if (isThenable(answer)) answer.then(() => {}, () => {})
}

function shown(value: unknown): string {
  if (isThenable(value)) return 'a promise'
  if (typeof value === 'object' && value !== null) return 'an object'
  return String(value).slice(0, 80)
}

/** The message and where it was thrown, in one line. */
function textOf(error: unknown): string {
  if (!(error instanceof Error)) return `threw ${shown(error)}`
  const place = /(?:\(|at )([^()\s]+:\d+:\d+)\)?/.exec(error.stack?.slice(String(error).length) ?? '')?.[1]
  return `${error.name}: ${error.message}${place === undefined ? '' : ` at ${place}`}`.slice(0, 400)
}
