/** Figures as words and tables. */
import { median } from './measure.ts'
import type { Circumstances } from './results.ts'

export const digits = (value: number, places: number): string => (Number.isFinite(value) ? value.toFixed(places) : '-')

/** Three significant digits, without an exponent. */
export const short = (value: number): string => digits(value, value >= 100 ? 0 : value >= 10 ? 1 : 2)

export function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}

/** The median with the least and the greatest. */
export function span(values: readonly number[], show: (value: number) => string = short): string {
  return values.length === 0 ? '-' : `${show(median(values))} (${show(Math.min(...values))} to ${show(Math.max(...values))})`
}

/** Where and when, as one sentence. */
export function circumstancesText({ date, commit, versions, machine, loadBefore, rounds, seconds }: Circumstances, unit: string): string {
  const turns = seconds > 0 ? ` of ${seconds} s` : ''
  return `${date}, commit ${commit}: Warmpath ${versions.warmpath}, Dynamo ${versions.dynamo}, Node ${versions.node}, Linux ${versions.kernel}, ` +
    `${machine.cores} cores of ${machine.cpu}, ${machine.memoryGiB} GiB; ${rounds} ${unit}${turns}; load average before ${digits(loadBefore, 2)}.`
}

export interface Verdict {
  readonly what: string
  readonly value: string
  readonly target: string
  readonly isMet: boolean
}

export const verdict = (what: string, value: number, max: number, unit = ''): Verdict =>
  ({ what, value: `${digits(value, value < 10 ? 3 : 1)}${unit}`, target: `at most ${max}${unit}`, isMet: value <= max })

export const verdictTable = (verdicts: readonly Verdict[]): string =>
  table(['Figure', 'Measured', 'Target', 'Met'], verdicts.map(({ what, value, target, isMet }) => [what, value, target, isMet ? 'yes' : '**no**']))
