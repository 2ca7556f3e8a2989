/** The live table of `warmpath start`: one line per worker and rank, redrawn in place. */
import type { RankLoad } from '../engines/simulated/rank.ts'
import type { Clock, TimerHandle } from '../ports.ts'

/** One line: what a rank carries and how warm it is. */
export interface WorkerRow extends Omit<RankLoad, 'preemptions'> {
  readonly workerId: bigint
}

/** Where the table is drawn: a terminal. */
export interface Terminal {
  readonly columns: number
  readonly rows: number
  write(text: string): unknown
}

const redrawEveryMs = 1000
const hideCursor = '\x1b[?25l'
const showCursor = '\x1b[?25h'
const clearBelow = '\x1b[J'

const percent = (part: number, whole: number): string => (whole === 0 ? '-' : `${Math.round((100 * part) / whole)} %`)

const columns: readonly { readonly head: string; readonly width: number; readonly cell: (row: WorkerRow) => string }[] = [
  { head: 'worker', width: 20, cell: (row) => String(row.workerId) },
  { head: 'rank', width: 4, cell: (row) => String(row.dpRank) },
  { head: 'running', width: 7, cell: (row) => String(row.runningRequests) },
  { head: 'waiting', width: 7, cell: (row) => String(row.waitingRequests) },
  { head: 'in use', width: 7, cell: (row) => percent(row.usedBlocks, row.totalBlocks) },
  { head: 'cached blocks', width: 15, cell: (row) => `${row.cachedBlocks}/${row.totalBlocks}` },
  { head: 'prompt tokens', width: 13, cell: (row) => String(row.promptTokens) },
  { head: 'hit rate', width: 8, cell: (row) => percent(row.cachedTokens, row.promptTokens) },
]

const line = (cells: readonly string[]): string => cells.map((cell, index) => cell.padStart(columns[index]?.width ?? 0)).join('  ')

/** Head, one line per row and the totals; at most `linesMax` lines of at most `width` characters. */
export function tableLines(rows: readonly WorkerRow[], width: number, linesMax: number): string[] {
  const shown = rows.slice(0, Math.max(1, linesMax - 3))
  const sum = (field: 'runningRequests' | 'waitingRequests' | 'promptTokens' | 'cachedTokens'): number => rows.reduce((total, row) => total + row[field], 0)
  const lines = [line(columns.map((column) => column.head)), ...shown.map((row) => line(columns.map((column) => column.cell(row))))]
  if (shown.length < rows.length) lines.push(`... and ${rows.length - shown.length} more`)
  lines.push(`${rows.length} ranks, ${sum('runningRequests')} running, ${sum('waitingRequests')} waiting, hit rate ${percent(sum('cachedTokens'), sum('promptTokens'))}`)
  return lines.map((text) => text.slice(0, Math.max(1, width - 1)))
}

/** Draws and redraws a table below what is already on the terminal. */
export class WorkerTable {
  readonly #terminal: Terminal
  readonly #clock: Clock
  readonly #rows: () => readonly WorkerRow[]
  #drawnLines = 0
  #timer: TimerHandle | null = null

  constructor(terminal: Terminal, clock: Clock, rows: () => readonly WorkerRow[]) {
    this.#terminal = terminal
    this.#clock = clock
    this.#rows = rows
  }

  start(): void {
    this.#terminal.write(hideCursor)
    this.#draw()
  }

  /** Leaves the last table on the screen and gives the cursor back. */
  stop(): void {
    this.#timer?.cancel()
    this.#timer = null
    this.#terminal.write(showCursor)
  }

  #draw(): void {
    const lines = tableLines(this.#rows(), this.#terminal.columns || 80, (this.#terminal.rows || 24) - 1)
    const up = this.#drawnLines === 0 ? '' : `\x1b[${this.#drawnLines}A\r`
    this.#terminal.write(`${up}${clearBelow}${lines.join('\n')}\n`)
    this.#drawnLines = lines.length
    this.#timer = this.#clock.setTimer(redrawEveryMs, () => this.#draw())
  }
}
