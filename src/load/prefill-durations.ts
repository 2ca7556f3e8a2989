/** How long a prompt is computed: the port of the prefill load model, with a table given and with what was measured. */
import type { RankSlot } from '../model/worker.ts'

/** Predicts and learns. `tokens`: prompt tokens that the rank must compute, at least 1. */
export interface PrefillDurations {
  /** Expected milliseconds; null: not known. */
  expectedMs(slot: RankSlot, tokens: number): number | null
  /** A prompt was computed alone on the rank in this time. */
  observed(slot: RankSlot, tokens: number, elapsedMs: number): void
  /** The rank is given to another worker. */
  dropSlot(slot: RankSlot): void
}

/** One point of a table: a prompt of so many tokens takes so many milliseconds. */
export interface DurationPoint {
  readonly tokens: number
  readonly ms: number
}

/** Straight lines between the points of a table; before the first through the origin, beyond the last with its slope. */
export class TableDurations implements PrefillDurations {
  readonly #points: readonly DurationPoint[]

  /** `points`: at least one, tokens rising from 1, milliseconds above 0 and not falling. Errors: RangeError. */
  constructor(points: readonly DurationPoint[]) {
    const problem = durationTableError(points)
    if (problem !== null) throw new RangeError(problem)
    this.#points = [{ tokens: 0, ms: 0 }, ...points]
  }

  expectedMs(_slot: RankSlot, tokens: number): number {
    const points = this.#points
    let upper = 1
    while (upper < points.length - 1 && points[upper]!.tokens < tokens) upper += 1
    const [low, high] = [points[upper - 1]!, points[upper]!]
    return low.ms + ((tokens - low.tokens) * (high.ms - low.ms)) / (high.tokens - low.tokens)
  }

  observed(): void {}

  dropSlot(): void {}
}

/** What is wrong with a table of durations, or null. */
export function durationTableError(points: readonly DurationPoint[]): string | null {
  if (points.length === 0) return 'the table is empty; give pairs of tokens and milliseconds'
  let before: DurationPoint = { tokens: 0, ms: 0 }
  for (const [index, point] of points.entries()) {
    const { tokens, ms } = point
    if (!Number.isFinite(tokens) || !Number.isFinite(ms) || tokens < 1 || ms <= 0) return `entry ${index}: [${tokens}, ${ms}] is not valid; expected tokens of at least 1 and milliseconds above 0`
    if (index > 0 && (tokens <= before.tokens || ms < before.ms)) return `entry ${index}: [${tokens}, ${ms}] does not rise above [${before.tokens}, ${before.ms}]`
    before = point
  }
  return null
}

/** Share of what was known that each further observation leaves. */
const memory = 0.875

interface Measured {
  tokens: number
  ms: number
}

/**
 * Time per token as measured, per rank; a rank without measurements takes that of all ranks together. Recent ones weigh more.
 *
 * Shape: long prompts weigh as much as their tokens. Bounds: two numbers per rank.
 */
export class MeasuredDurations implements PrefillDurations {
  readonly #bySlot = new Map<RankSlot, Measured>()
  readonly #all: Measured = { tokens: 0, ms: 0 }

  expectedMs(slot: RankSlot, tokens: number): number | null {
    const known = this.#bySlot.get(slot) ?? this.#all
    return known.tokens > 0 ? (tokens * known.ms) / known.tokens : null
  }

  observed(slot: RankSlot, tokens: number, elapsedMs: number): void {
    if (!(elapsedMs > 0) || !(tokens > 0)) return
    let known = this.#bySlot.get(slot)
    if (known === undefined) this.#bySlot.set(slot, known = { tokens: 0, ms: 0 })
    for (const each of [known, this.#all]) {
      each.tokens = each.tokens * memory + tokens
      each.ms = each.ms * memory + elapsedMs
    }
  }

  dropSlot(slot: RankSlot): void {
    this.#bySlot.delete(slot)
  }
}
