/** What a change did: ours as it is beside ours at another ref, cell by cell. */
import { cellText, type FrontendFigures } from './frontend-compare.ts'
import { digits, span, table } from './markdown.ts'
import { median } from './measure.ts'
import type { RouterFigures } from './router-compare.ts'

/** Figures of the same cell in the same rounds. */
interface Pair {
  readonly cell: string
  readonly before: readonly Figures[]
  readonly now: readonly Figures[]
}

interface Figures {
  readonly cpuUsPerRequest: number
  readonly firstP50Ms: number
  readonly latencyP50Ms: number
}

const shown: readonly (readonly [name: string, figure: keyof Figures])[] = [['CPU us per request', 'cpuUsPerRequest'], ['first p50, ms', 'firstP50Ms'], ['p50, ms', 'latencyP50Ms']]

export const frontendPairs = ({ cells }: FrontendFigures): Pair[] => cells.map((cell) => ({ cell: cellText(cell), before: cell.turns.real, now: cell.turns.ours }))

export const routerPairs = ({ cells }: RouterFigures): Pair[] => cells.map(({ mode, concurrency, outputTokens, turns }) => ({
  cell: mode === 'best' ? `best_worker_id, ${concurrency} at once` : `${concurrency} at once, ${outputTokens} tokens`, before: turns.real, now: turns.ours,
}))

/** One row for each figure of each cell. The ratio is that of the medians, its span that of the rounds. */
export function againstText(ref: string, pairs: readonly Pair[]): string {
  const rows = pairs.flatMap(({ cell, before, now }) => shown.map(([name, figure]) => {
    const [old, own] = [before.map((turn) => turn[figure]), now.map((turn) => turn[figure])]
    const byRound = own.map((value, round) => value / (old[round] ?? Number.NaN))
    return [cell, name, span(old), span(own), digits(median(own) / median(old), 3), `${digits(Math.min(...byRound), 3)} to ${digits(Math.max(...byRound), 3)}`]
  }))
  return table(['Cell', 'Figure', `at ${ref}`, 'now', 'now / before', 'by round'], rows)
}
