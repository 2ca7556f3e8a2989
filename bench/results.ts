/** What a run of the benchmarks leaves behind: figures, and under which circumstances they were taken. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { dirname, join } from 'node:path'
import { dynamoVersion } from '../interop/dynamo-venv.ts'
import { repoRoot } from '../test/repo-root.ts'
import type { FrontendFigures } from './frontend-compare.ts'
import type { IndexFigures } from './index/compare.ts'
import type { DecisionRow } from './kernels/decision.ts'
import type { EventDecodingRow } from './kernels/event-decoding.ts'
import type { HashingRow } from './kernels/hashing.ts'
import type { IndexRow } from './kernels/index.ts'
import type { ThreadFigures } from './kernels/threads.ts'
import type { RouterFigures } from './router-compare.ts'
import type { StartupFigures } from './startup.ts'

export interface KernelFigures {
  readonly hashing: readonly HashingRow[]
  readonly index: readonly IndexRow[]
  readonly decision: readonly DecisionRow[]
  readonly eventDecoding: readonly EventDecodingRow[]
}

export interface Circumstances {
  /** ISO 8601, the day and minute of the start. */
  readonly date: string
  /** Commit of the measured tree, with `+` when files were changed. */
  readonly commit: string
  readonly versions: { readonly warmpath: string; readonly dynamo: string; readonly node: string; readonly kernel: string }
  readonly machine: { readonly cpu: string; readonly cores: number; readonly memoryGiB: number }
  /** Load average of the last minute when the section began: what else was running. */
  readonly loadBefore: number
  readonly rounds: number
  readonly seconds: number
}

export interface Section<Figures> {
  readonly circumstances: Circumstances
  readonly figures: Figures
}

export interface Results {
  readonly format: 'warmpath-bench'
  readonly version: 1
  readonly kernels?: Section<KernelFigures>
  readonly threads?: Section<ThreadFigures>
  readonly index?: Section<IndexFigures>
  readonly router?: Section<RouterFigures>
  readonly frontend?: Section<FrontendFigures>
  readonly startup?: Section<StartupFigures>
}

const resultsPath = join(repoRoot, 'bench', 'results', 'latest.json')

export function readResults(): Results {
  if (!existsSync(resultsPath)) return { format: 'warmpath-bench', version: 1 }
  const found = JSON.parse(readFileSync(resultsPath, 'utf8')) as Results
  if (found.format !== 'warmpath-bench' || found.version !== 1) throw new Error('bench/results/latest.json is of another format; remove it')
  return found
}

export function writeResults(results: Results): void {
  mkdirSync(dirname(resultsPath), { recursive: true })
  const rounded = (_key: string, value: unknown): unknown => (typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(5)) : value)
  writeFileSync(resultsPath, `${JSON.stringify(results, rounded, 2)}\n`)
}

export const loadAverage = (): number => loadavg()[0] ?? 0

const git = (...args: string[]): string => execFileSync('git', args, { cwd: repoRoot, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()

function commit(): string {
  try {
    return git('rev-parse', '--short=10', 'HEAD') + (git('status', '--porcelain', '--untracked-files=no', '--', 'src', 'bench', 'package-lock.json') === '' ? '' : '+')
  } catch {
    return 'unknown'
  }
}

/** What can be said before a section starts. */
export function circumstances(rounds: number, seconds: number): Circumstances {
  const { version } = JSON.parse(readFileSync(join(repoRoot, 'package.json'), 'utf8')) as { version: string }
  return {
    date: `${new Date().toISOString().slice(0, 16)}Z`,
    commit: commit(),
    versions: { warmpath: version, dynamo: dynamoVersion, node: process.versions.node, kernel: release() },
    machine: { cpu: cpus()[0]?.model.trim() ?? 'unknown', cores: cpus().length, memoryGiB: Math.round(totalmem() / 2 ** 30) },
    loadBefore: loadAverage(),
    rounds, seconds,
  }
}
