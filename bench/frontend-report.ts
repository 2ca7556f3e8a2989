/** The frontend's comparison as Markdown. */
import { cellText, sides, type FrontendCellFigures, type FrontendFigures, type Side } from './frontend-compare.ts'
import type { HttpTurn } from './http-load.ts'
import { circumstancesText, digits, short, span, table, verdict, verdictTable, type Verdict } from './markdown.ts'
import { median } from './measure.ts'
import type { Section } from './results.ts'

const middle = ({ turns }: FrontendCellFigures, side: Side, figure: keyof HttpTurn): number => median(turns[side].map((turn) => turn[figure]))

const ratio = (cell: FrontendCellFigures, figure: keyof HttpTurn): number => middle(cell, 'ours', figure) / middle(cell, 'real', figure)

function cpuByRound({ turns }: FrontendCellFigures): string {
  const ratios = turns.ours.map((turn, round) => turn.cpuUsPerRequest / (turns.real[round]?.cpuUsPerRequest ?? Number.NaN))
  return `${digits(Math.min(...ratios), 3)} to ${digits(Math.max(...ratios), 3)}`
}

export const frontendVerdicts = ({ cells }: FrontendFigures): Verdict[] =>
  cells.map((cell) => verdict(`CPU per request, ours / real, ${cellText(cell)}`, ratio(cell, 'cpuUsPerRequest'), 1.2))

export function frontendText({ circumstances, figures }: Section<FrontendFigures>): string {
  const ratios = figures.cells.map((cell) => [
    cellText(cell), digits(ratio(cell, 'cpuUsPerRequest'), 3), cpuByRound(cell), digits(ratio(cell, 'firstP50Ms'), 3), digits(ratio(cell, 'firstP99Ms'), 3),
    digits(ratio(cell, 'latencyP50Ms'), 3), digits(ratio(cell, 'latencyP99Ms'), 3),
  ])
  const rows = figures.cells.flatMap((cell) => sides.map((side) => [
    cellText(cell), side, span(cell.turns[side].map((turn) => turn.cpuUsPerRequest)), short(middle(cell, side, 'requestsPerSecond')), short(middle(cell, side, 'eventsPerRequest')),
    short(middle(cell, side, 'firstP50Ms')), short(middle(cell, side, 'firstP99Ms')), short(middle(cell, side, 'latencyP50Ms')), short(middle(cell, side, 'latencyP99Ms')),
    short(middle(cell, side, 'rssMiB')), cell.turns[side].reduce((sum, turn) => sum + turn.errors, 0),
  ]))
  return [
    circumstancesText(circumstances, 'rounds') + ' One more before them, which does not count.',
    verdictTable(frontendVerdicts(figures)),
    'Ours / real; ratios of the medians of the rounds. First: the first byte of the body, which streamed is the first event.',
    table(['Cell', 'CPU', 'by round', 'first p50', 'first p99', 'p50', 'p99'], ratios),
    `Chat prompts of ${short(figures.promptTokens)} tokens, half of each one of 16 prefixes. CPU is that of the frontend's process tree, median and span of the rounds.`,
    table(['Cell', 'Frontend', 'CPU us per request', 'req/s', 'events', 'first p50, ms', 'first p99, ms', 'p50, ms', 'p99, ms', 'RSS, MiB', 'errors'], rows),
    'Both frontends serve the same Python workers, which give an answer as fast as they can and publish no KV events, with `--router-mode kv` and their default log level: ' +
      `${figures.logLines.real} and ${figures.logLines.ours} lines in this run. The workers are what these cores are busy with: requests per second say little of the frontends.`,
  ].join('\n\n')
}
