/** `npm run bench [-- router|frontend|startup|index|kernels|threads …] [options]`: measures, prints, and keeps the figures of runs that count. */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { prepareDynamo, type DynamoInstallation } from '../interop/dynamo-venv.ts'
import { repoRoot } from '../test/repo-root.ts'
import { compareFrontends, topologies, type FrontendCell } from './frontend-compare.ts'
import { frontendText } from './frontend-report.ts'
import { compareIndexes } from './index/compare.ts'
import { indexText } from './index/text.ts'
import { benchDecision } from './kernels/decision.ts'
import { benchEventDecoding } from './kernels/event-decoding.ts'
import { benchHashing } from './kernels/hashing.ts'
import { benchIndex } from './kernels/index.ts'
import { benchThreads } from './kernels/threads.ts'
import { againstText, frontendPairs, routerPairs } from './ref-report.ts'
import { benchmarksPage, kernelsText, routerText, startupText, threadsText } from './report.ts'
import { buildOtherRef } from './other-ref.ts'
import { circumstances, loadAverage, readResults, writeResults, type Results } from './results.ts'
import { compareRouters, type Cell } from './router-compare.ts'
import { measureStartup } from './startup.ts'

const help = `npm run bench [-- SECTION ...] [options]

Sections: router, frontend, startup, index, kernels, threads; all when none is named.
  --rounds N        rounds of the comparisons and of the index (7); fewer than 5 are printed but not kept
  --starts N        starts of each router (9); fewer than 9 are not kept
  --seconds S       length of one turn of a comparison (4)
  --entries N       leaves out workloads of the index with more entries (10000000); fewer are not kept
  --cells A,B       router: concurrency x output tokens (1x16,16x16,64x16,16x128)
  --http-cells A,B  frontend: the same (16x16,16x128), each streamed and whole, aggregated and disaggregated
  --cli PATH        our command line (dist/cli/main.js, or WARMPATH_BENCH_CLI)
  --router-args=T   more arguments for both routers, such as "--no-router-kv-events"
  --against REF     router and frontend of this git ref in place of the real ones (npm run bench:compare REF); not kept
  --profile FOLDER  CPU profiles of our processes there; not kept
  --force           begin in spite of a load average above 1.5; not kept
  --keep            keep the figures all the same
`
const sectionNames: readonly string[] = ['router', 'frontend', 'startup', 'index', 'kernels', 'threads']
const loadMax = 1.5
const say = (text: string): void => { process.stdout.write(`${text}\n`) }

class BenchError extends Error {}

function readOptions() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      entries: { type: 'string', default: '10000000' },
      rounds: { type: 'string', default: '7' }, starts: { type: 'string', default: '9' }, seconds: { type: 'string', default: '4' },
      cells: { type: 'string', default: '1x16,16x16,64x16,16x128' }, cli: { type: 'string', default: process.env['WARMPATH_BENCH_CLI'] ?? join(repoRoot, 'dist', 'cli', 'main.js') },
      'http-cells': { type: 'string', default: '16x16,16x128' }, 'router-args': { type: 'string', default: '' }, profile: { type: 'string' }, against: { type: 'string' }, force: { type: 'boolean', default: false }, keep: { type: 'boolean', default: false }, help: { type: 'boolean', default: false },
    },
  })
  const sections = positionals.length > 0 ? positionals : values.against === undefined ? [...sectionNames] : ['router', 'frontend']
  const unknown = sections.find((name) => !sectionNames.includes(name))
  if (unknown !== undefined) throw new BenchError(`section ${unknown} is unknown; there are ${sectionNames.join(', ')}`)
  return {
    sections, entriesMax: positive('--entries', values.entries), help: values.help, force: values.force, keep: values.keep, routerArguments: values['router-args'].split(' ').filter(Boolean), cliPath: resolve(values.cli), profile: values.profile ?? null, against: values.against ?? null,
    rounds: positive('--rounds', values.rounds), starts: positive('--starts', values.starts), seconds: positive('--seconds', values.seconds), cells: parseCells('--cells', values.cells), httpCells: parseCells('--http-cells', values['http-cells']),
  }
}

function positive(flag: string, text: string): number {
  const value = Number(text)
  if (!(value > 0) || (flag !== '--seconds' && !Number.isInteger(value))) throw new BenchError(`${flag} ${text}: a number above 0 is needed`)
  return value
}

interface Size {
  readonly concurrency: number
  readonly outputTokens: number
}

function parseCells(flag: string, text: string): Size[] {
  return text.split(',').map((cell) => {
    const [, concurrency, outputTokens] = /^([1-9]\d*)x([1-9]\d*)$/.exec(cell) ?? []
    if (concurrency === undefined) throw new BenchError(`${flag} ${cell}: write CONCURRENCYxTOKENS, such as 16x128`)
    return { concurrency: Number(concurrency), outputTokens: Number(outputTokens) }
  })
}

const routerCells = (sizes: readonly Size[]): Cell[] =>
  [...sizes.map((size) => ({ mode: 'generate' as const, ...size })), { mode: 'best', concurrency: 16, outputTokens: 0 }]

const frontendCells = (sizes: readonly Size[]): FrontendCell[] =>
  topologies.flatMap((topology) => [true, false].flatMap((stream) => sizes.map((size) => ({ topology, stream, ...size }))))

function requireDynamo(): DynamoInstallation {
  const dynamo = prepareDynamo()
  if ('unavailable' in dynamo) throw new BenchError(`the comparison needs the real Dynamo: ${dynamo.unavailable}`)
  return dynamo
}

async function run(): Promise<void> {
  const options = readOptions()
  if (options.help) return say(help)
  const { sections, cliPath } = options
  const load = loadAverage()
  if (load > loadMax && !options.force) {
    throw new BenchError(`the load average is ${load.toFixed(2)}, above ${loadMax}: figures taken now would be of the machine's other work. Wait, or use --force`)
  }
  const needsDynamo = sections.some((name) => name !== 'kernels' && name !== 'index' && name !== 'threads')
  if (needsDynamo && !existsSync(cliPath)) throw new BenchError(`${cliPath} is not there: run npm run build, or name it with --cli`)
  const dynamo = needsDynamo ? requireDynamo() : null
  const other = options.against === null ? null : buildOtherRef(options.against)
  if (other !== null) say(`beside ours at ${options.against}, which is called "real" while it runs`)
  try {
    await measure(options, dynamo, other?.cliPath ?? null)
  } finally {
    other?.remove()
  }
}

async function measure(options: ReturnType<typeof readOptions>, dynamo: DynamoInstallation | null, otherCliPath: string | null): Promise<void> {
  const { sections, rounds, seconds, starts, cliPath } = options
  const results: { -readonly [Key in keyof Results]: Results[Key] } = { ...readResults() }
  if (options.profile !== null) mkdirSync(options.profile, { recursive: true })
  if (sections.includes('router') && dynamo !== null) {
    const facts = circumstances(rounds, seconds)
    const figures = await compareRouters({ dynamo, cliPath, otherCliPath, rounds, seconds, cells: routerCells(options.cells), routerArguments: options.routerArguments, profileFolder: options.profile, progress: say })
    results.router = { circumstances: facts, figures }
    say(`\n${options.against === null ? routerText(results.router) : againstText(options.against, routerPairs(figures))}\n`)
  }
  if (sections.includes('frontend') && dynamo !== null) {
    const facts = circumstances(rounds, seconds)
    const figures = await compareFrontends({ dynamo, cliPath, otherCliPath, rounds, seconds, cells: frontendCells(options.httpCells), profileFolder: options.profile, progress: say })
    results.frontend = { circumstances: facts, figures }
    say(`\n${options.against === null ? frontendText(results.frontend) : againstText(options.against, frontendPairs(figures))}\n`)
  }
  if (sections.includes('startup') && dynamo !== null) {
    const facts = circumstances(starts, 0)
    results.startup = { circumstances: facts, figures: await measureStartup(dynamo, cliPath, starts) }
    say(`\n${startupText(results.startup)}\n`)
  }
  if (sections.includes('index')) {
    const facts = circumstances(rounds, 0)
    results.index = { circumstances: facts, figures: compareIndexes({ rounds, entriesMax: options.entriesMax, progress: say }) }
    say(`\n${indexText(results.index)}\n`)
  }
  if (sections.includes('kernels')) {
    const facts = circumstances(rounds, 0)
    const figures = { hashing: benchHashing(), index: benchIndex(rounds), decision: benchDecision(), eventDecoding: benchEventDecoding() }
    results.kernels = { circumstances: facts, figures }
    say(`\n${kernelsText(results.kernels)}\n`)
  }
  if (sections.includes('threads')) {
    const facts = circumstances(rounds, 0)
    const figures = await benchThreads(rounds)
    if (figures === null) say('threads: not measured, the CPU time of a thread is read on Linux alone')
    else {
      results.threads = { circumstances: facts, figures }
      say(`\n${threadsText(results)}\n`)
    }
  }
  const counts = !options.force && options.entriesMax >= 10_000_000 && options.profile === null && rounds >= 5 && (starts >= 9 || !sections.includes('startup'))
  if (options.against !== null || (!counts && !options.keep)) return say('not kept: too few rounds or starts, forced, profiled, or against another ref (--keep keeps it)')
  writeResults(results)
  writeFileSync(join(repoRoot, 'docs', 'benchmarks.md'), benchmarksPage(readResults()))
  say('kept in bench/results/latest.json and docs/benchmarks.md')
}

try {
  await run()
} catch (error) {
  process.stderr.write(`bench: ${error instanceof BenchError || (error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS') === true ? (error as Error).message : (error as Error).stack}\n`)
  process.exitCode = 1
}
