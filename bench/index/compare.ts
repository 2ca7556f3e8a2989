/** The index, the decision and the decoding of KV events beside their counterparts, in turns, after their answers were compared. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { loadAverage } from '../results.ts'
import { jsonOf, prepareCounterpart } from './counterpart.ts'
import type { DecisionTimes } from './decision-worker.ts'
import type { DecodingRow } from './decoding.ts'
import { differingPhase, type Digests } from './digest.ts'
import type { GrowthPauses, IndexTimes, OurIndexTimes } from './worker.ts'
import { writeWorkload, type WorkloadShape } from './workload.ts'

export interface IndexRow {
  readonly shape: WorkloadShape
  /** What ours was compared with: the counterpart, or, where that refuses the workload, the plain index. */
  readonly comparedWith: 'counterpart' | 'plain index'
  readonly ours: readonly OurIndexTimes[]
  /** Empty without the counterpart. */
  readonly rust: readonly IndexTimes[]
  readonly rustBytes: number | null
  readonly storedBlocks: number
}

export interface DecisionRow {
  readonly workers: number
  readonly tokens: number
  readonly ours: readonly DecisionTimes[]
  readonly rust: readonly DecisionTimes[]
}

export interface IndexFigures {
  /** Version of the compiler, or why there is no counterpart. */
  readonly rust: { readonly rustc: string } | { readonly missing: string }
  readonly index: readonly IndexRow[]
  readonly decisions: readonly DecisionRow[]
  readonly growth: readonly GrowthPauses[]
  readonly decoding: readonly (readonly DecodingRow[])[]
  readonly loadAfter: number
}

/** The default of the real router: four event threads. */
const rustKind = 'compressed-4'
/** One event thread: the order of all events is kept, which the shape of the tree depends on. */
const rustDigestKind = 'compressed-1'

const shapes: readonly WorkloadShape[] = [
  { ranks: 8, entries: 100_000, depth: 16, names: 'shared' },
  { ranks: 8, entries: 100_000, depth: 128, names: 'shared' },
  { ranks: 64, entries: 1_000_000, depth: 128, names: 'shared' },
  { ranks: 64, entries: 1_000_000, depth: 1024, names: 'shared' },
  { ranks: 256, entries: 1_000_000, depth: 128, names: 'shared' },
  { ranks: 256, entries: 10_000_000, depth: 128, names: 'shared' },
  { ranks: 64, entries: 1_000_000, depth: 128, names: 'per rank' },
]
/** What is compared with the plain index, which is far too slow for the files that are timed. */
const plainShape = { ranks: 8, entries: 4000, depth: 64 } as const
const growthShape: WorkloadShape = { ranks: 256, entries: 10_000_000, depth: 128, names: 'shared' }

export interface CompareOptions {
  readonly rounds: number
  /** Workloads of more entries, and decisions over more workers, are left out. */
  readonly entriesMax: number
  readonly progress: (text: string) => void
}

const here = dirname(fileURLToPath(import.meta.url))
const ours = <T>(script: string, ...args: string[]): T => jsonOf<T>(process.execPath, ['--max-old-space-size=8192', join(here, script), ...args])
/** With the collector on the one thread, so that the CPU time of the process is what the event took. */
const growthOf = (file: string): GrowthPauses => jsonOf(process.execPath, ['--single-threaded-gc', '--max-old-space-size=8192', join(here, 'worker.js'), 'growth', file])

/** Runs `first` and `second` once per round, in an order that changes. */
function inTurns(rounds: number, first: () => void, second: (() => void) | null): void {
  for (let round = 0; round < rounds; round += 1) {
    if (round % 2 === 0) first()
    second?.()
    if (round % 2 === 1) first()
  }
}

function compareIndex(file: string, shape: WorkloadShape, storedBlocks: number, rounds: number, binary: string | null): IndexRow {
  const isRefused = shape.names === 'per rank' || binary === null
  const compared = isRefused ? `${file}-small` : file
  if (isRefused) writeWorkload(compared, { ...plainShape, names: shape.names })
  const expected = isRefused ? ours<Digests>('worker.js', 'oracle', compared) : jsonOf<Digests>(binary, ['digest', rustDigestKind, file])
  const phase = differingPhase(ours<Digests>('worker.js', 'digest', compared), expected)
  if (phase !== null) throw new Error(`${JSON.stringify(shape)}: answers differ when ${phase}`)
  const row = { ours: [] as OurIndexTimes[], rust: [] as IndexTimes[] }
  inTurns(rounds, () => { row.ours.push(ours('worker.js', 'time', file)) }, binary === null ? null : () => { row.rust.push(jsonOf(binary, ['time', rustKind, file])) })
  const rustBytes = binary === null ? null : jsonOf<{ bytes: number }>(binary, ['memory', rustKind, file]).bytes
  return { shape, comparedWith: isRefused ? 'plain index' : 'counterpart', ...row, rustBytes, storedBlocks }
}

function compareDecisions(rounds: number, binary: string | null, progress: (text: string) => void): DecisionRow[] {
  const rows: DecisionRow[] = []
  for (const workers of [8, 64, 256, 1000]) {
    for (const tokens of [256, 4096, 16384]) {
      progress(`decision: ${workers} workers, ${tokens} tokens`)
      const args = [String(workers), String(tokens)]
      const row = { workers, tokens, ours: [] as DecisionTimes[], rust: [] as DecisionTimes[] }
      inTurns(rounds, () => { row.ours.push(ours('decision-worker.js', ...args)) }, binary === null ? null : () => { row.rust.push(jsonOf(binary, ['decide', ...args])) })
      rows.push(row)
    }
  }
  return rows
}

/** Errors: answers of the index differ from the counterpart's, or a run fails. */
export function compareIndexes({ rounds, entriesMax, progress }: CompareOptions): IndexFigures {
  const counterpart = prepareCounterpart(progress)
  const binary = 'binary' in counterpart ? counterpart.binary : null
  if ('missing' in counterpart) progress(`without the Rust counterpart: ${counterpart.missing}`)
  const folder = mkdtempSync(join(tmpdir(), 'warmpath-bench-'))
  const file = join(folder, 'workload')
  const index: IndexRow[] = []
  const growth: GrowthPauses[] = []
  try {
    for (const shape of shapes.filter(({ entries }) => entries <= entriesMax)) {
      progress(`index: ${shape.ranks} ranks, ${shape.entries} entries, depth ${shape.depth}, names ${shape.names}`)
      const storedBlocks = writeWorkload(file, shape)
      index.push(compareIndex(file, shape, storedBlocks, rounds, binary))
    }
    progress('index: pauses while it grows')
    writeWorkload(file, { ...growthShape, entries: Math.min(growthShape.entries, entriesMax) })
    for (let round = 0; round < rounds; round += 1) growth.push(growthOf(file))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  const decisions = compareDecisions(rounds, binary, progress)
  progress('decoding of KV events')
  const decoding = Array.from({ length: rounds }, () => ours<DecodingRow[]>('decoding.js'))
  return { rust: 'rustc' in counterpart ? { rustc: counterpart.rustc } : { missing: counterpart.missing }, index, decisions, growth, decoding, loadAfter: loadAverage() }
}
