/** Choice of one row by its cost. Source: router-algorithm 9.3. */
import type { Random } from '../ports.ts'

/** How a row was chosen. */
export type ChoiceKind = 'minimum' | 'tie' | 'sampled'

/** The row chosen last; reused so that a choice allocates nothing. */
export interface Choice {
  row: number
  kind: ChoiceKind
}

/** Chooses the row of least cost; ties are broken uniformly at random. Draws a number per tied row. */
export function chooseMinimum(costs: Float64Array, count: number, random: Random, choice: Choice): void {
  let row = 0
  let least = costs[0]!
  let tied = 1
  for (let other = 1; other < count; other++) {
    const cost = costs[other]!
    if (cost < least) {
      least = cost
      row = other
      tied = 1
    } else if (cost === least) {
      tied += 1
      if (random.float() * tied < 1) row = other
    }
  }
  choice.row = row
  choice.kind = tied > 1 ? 'tie' : 'minimum'
}

/**
 * Draws a row with probability proportional to `exp(-(cost - min) / ((max - min) * temperature))`; equal costs are drawn uniformly.
 *
 * `weights` is scratch of at least `count` entries. `temperature` > 0; costs are finite.
 */
export function chooseBySampling(
  costs: Float64Array, count: number, temperature: number, random: Random, weights: Float64Array, choice: Choice,
): void {
  let least = Infinity
  let most = -Infinity
  for (let row = 0; row < count; row++) {
    const cost = costs[row]!
    if (cost < least) least = cost
    if (cost > most) most = cost
  }
  choice.kind = 'sampled'
  // The range of huge finite costs can overflow: scale them down first.
  const divisor = Number.isFinite(most - least) ? 1 : Math.max(Math.abs(least), Math.abs(most))
  const range = most / divisor - least / divisor
  let total = 0
  for (let row = 0; row < count; row++) {
    const weight = range > 0 ? Math.exp(-(costs[row]! / divisor - least / divisor) / (range * temperature)) : 1
    weights[row] = weight
    total += weight
  }
  const drawn = random.float()
  let cumulative = 0
  for (let row = 0; row < count; row++) {
    cumulative += weights[row]! / total
    if (cumulative >= drawn) {
      choice.row = row
      return
    }
  }
  // Rounding kept the sum just below 1 and the draw fell in between.
  choice.row = count - 1
}
