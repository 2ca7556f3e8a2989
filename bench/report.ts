/** Results as Markdown: what the terminal shows and what `docs/benchmarks.md` holds. */
import { indexText } from './index/text.ts'
import { median } from './measure.ts'
import { frontendText } from './frontend-report.ts'
import { circumstancesText, digits, short, span, table, verdict, verdictTable, type Verdict } from './markdown.ts'
import type { KernelFigures, Results, Section } from './results.ts'
import { middle, type CellFigures, type RouterFigures, type Turn } from './router-compare.ts'
import { idleSeconds, type StartupFigures } from './startup.ts'

const cellName = ({ mode, concurrency, outputTokens }: CellFigures): string =>
  mode === 'best' ? `best_worker_id, ${concurrency} at once` : `${concurrency} at once, ${outputTokens} tokens`

/** The ratio of medians, and the spread of the rounds' own ratios. */
function cpuRatio({ turns }: CellFigures): { readonly ratio: number; readonly byRound: number[] } {
  return {
    ratio: middle(turns.ours, 'cpuUsPerRequest') / middle(turns.real, 'cpuUsPerRequest'),
    byRound: turns.ours.map((turn, round) => turn.cpuUsPerRequest / (turns.real[round] as Turn).cpuUsPerRequest),
  }
}

function addedMs(cell: CellFigures, target: 'real' | 'ours', figure: 'latencyP50Ms' | 'latencyP99Ms'): number {
  return cell.turns.direct.length === 0 ? Number.NaN : middle(cell.turns[target], figure) - middle(cell.turns.direct, figure)
}

const addedRatio = (cell: CellFigures): number => addedMs(cell, 'ours', 'latencyP50Ms') / addedMs(cell, 'real', 'latencyP50Ms')

export function routerVerdicts({ cells }: RouterFigures): Verdict[] {
  return cells.flatMap((cell) => cell.mode === 'best' ? [verdict(`CPU per call, ours / real, ${cellName(cell)}`, cpuRatio(cell).ratio, 0.5)] : [
    verdict(`CPU per request, ours / real, ${cellName(cell)}`, cpuRatio(cell).ratio, 0.33),
    verdict(`added p50, ours / real, ${cellName(cell)}`, addedRatio(cell), 0.5),
  ])
}

export const startupVerdicts = ({ helpSeconds, registeredSeconds, idleRssMiB }: StartupFigures): Verdict[] => [
  verdict('`warmpath --help`', median(helpSeconds), 0.3, ' s'),
  verdict('`warmpath router` until registered', median(registeredSeconds.ours), 0.7, ' s'),
  verdict(`resident memory after ${idleSeconds} s idle`, idleRssMiB.ours, 150, ' MiB'),
]

export function routerText({ circumstances, figures }: Section<RouterFigures>): string {
  const rows = figures.cells.flatMap((cell) => (['direct', 'real', 'ours'] as const).filter((target) => cell.turns[target].length > 0).map((target) => {
    const turns = cell.turns[target]
    return [
      cellName(cell), target, span(turns.map((turn) => turn.cpuUsPerRequest)), short(middle(turns, 'requestsPerSecond')), short(middle(turns, 'firstP50Ms')),
      short(middle(turns, 'latencyP50Ms')), short(middle(turns, 'latencyP99Ms')), short(middle(turns, 'rssMiB')), turns.reduce((sum, turn) => sum + turn.errors, 0),
    ]
  }))
  const ratios = figures.cells.map((cell) => {
    const { byRound } = cpuRatio(cell)
    return [
      cellName(cell), digits(cpuRatio(cell).ratio, 3), `${digits(Math.min(...byRound), 3)} to ${digits(Math.max(...byRound), 3)}`,
      digits(addedMs(cell, 'real', 'latencyP50Ms'), 2), digits(addedMs(cell, 'ours', 'latencyP50Ms'), 2), digits(addedRatio(cell), 3),
      digits(addedMs(cell, 'real', 'latencyP99Ms'), 2), digits(addedMs(cell, 'ours', 'latencyP99Ms'), 2),
    ]
  })
  return [
    circumstancesText(circumstances, 'rounds'),
    verdictTable(routerVerdicts(figures)),
    'Ours beside the real router; medians of the rounds. Added latency is over the direct row.',
    table(['Cell', 'CPU ours / real', 'by round', 'added p50 real, ms', 'added p50 ours, ms', 'ours / real', 'added p99 real, ms', 'added p99 ours, ms'], ratios),
    `Prompts of ${figures.inputTokens} tokens, blocks of 16. CPU is that of the router's process tree (direct: of one of the two workers), median and span of the rounds.`,
    table(['Cell', 'Target', 'CPU us per request', 'req/s', 'first output p50, ms', 'p50, ms', 'p99, ms', 'RSS, MiB', 'errors'], rows),
    `Both routers run with their defaults${figures.routerArguments.length === 0 ? '' : ` and \`${figures.routerArguments.join(' ')}\``}. The workers publish no KV events: the real ` +
      'router\'s index stays empty, ours notes each prompt for the worker it went to. The real router\'s log level is warn, where it still writes ' +
      `a line per request; ours is info, where it writes two: ${figures.logLines.real} and ${figures.logLines.ours} lines in this run. Negative added latency: the direct client reads ` +
      'every token by itself, through a router several at once, and the client is what these cores are busy with.',
  ].join('\n\n')
}

export function startupText({ circumstances, figures }: Section<StartupFigures>): string {
  const seconds = (values: readonly number[]): string => span(values, (value) => digits(value, 3))
  return [
    circumstancesText(circumstances, 'starts of each'),
    verdictTable(startupVerdicts(figures)),
    table(['Figure', 'real', 'ours'], [
      ['`--help`, s', '-', seconds(figures.helpSeconds)],
      ['until registered in file discovery, s', seconds(figures.registeredSeconds.real), seconds(figures.registeredSeconds.ours)],
      [`resident memory after ${idleSeconds} s idle, MiB`, short(figures.idleRssMiB.real), short(figures.idleRssMiB.ours)],
    ]),
  ].join('\n\n')
}

export function kernelsText({ circumstances, figures }: Section<KernelFigures>): string {
  return [
    circumstancesText(circumstances, 'rounds of the index, 9 samples of the rest'),
    '### Hashing',
    'The WebAssembly kernel, and the plain TypeScript form that it is checked against before each measurement. Copies in and out are included.',
    table(['Tokens', 'Block', 'local, ns/block', 'local + sequence, ns/block', 'local + sequence, Mtok/s', 'plain TypeScript, ns/block'],
      figures.hashing.map((row) => [row.tokens, row.blockSize, short(row.localNsPerBlock), short(row.bothNsPerBlock), short(row.bothMtokPerSecond), short(row.oracleNsPerBlock)])),
    '### Index',
    'Conversations of four turns over shared prefixes, three quarters of a turn in one event and the rest block by block; half of the prefixes queried are known. ' +
      'Names: whether all ranks give a block the same hash, or each its own, as engines with other hash seeds do. Bytes are per (rank, block): reserved by the ' +
      'index\'s own account, and measured as growth of heap and array buffers.',
    table(['Ranks', 'Entries', 'Depth', 'Names', 'store, Mblocks/s', 'find p50, us', 'find p99, us', 'remove, Mblocks/s', 'bytes reserved', 'bytes measured'],
      figures.index.map((row) => [row.ranks, row.entries, row.depth, row.names, short(row.storeMblocksPerSecond), short(row.findP50Us), short(row.findP99Us),
        short(row.removeMblocksPerSecond), digits(row.reservedBytesPerEntry, 1), digits(row.measuredBytesPerEntry, 1)])),
    '### Decision',
    'Hash, look up, weigh, book, first output and the end of an older booking, with two open bookings per worker; blocks of 16, half of each prompt known.',
    table(['Workers', 'Tokens', 'p50, us', 'p99, us'], figures.decision.map((row) => [row.workers, row.tokens, short(row.p50Us), short(row.p99Us)])),
    '### Decoding of KV events',
    'One message of the event plane, from its frames to typed events.',
    table(['Events', 'Blocks each', 'Bytes', 'us per message', 'Mblocks/s'],
      figures.eventDecoding.map((row) => [row.events, row.blocksPerEvent, row.bytes, short(row.us), short(row.mblocksPerSecond)])),
  ].join('\n\n')
}

/** CPU microseconds per request that one router needs, of the cell that the estimate is made from. */
const wholeRequest = (router: Results['router']): number | null => {
  const cell = router?.figures.cells.find(({ mode, concurrency, outputTokens }) => mode === 'generate' && concurrency === 16 && outputTokens === 16)
  return cell === undefined ? null : middle(cell.turns.ours, 'cpuUsPerRequest')
}

/** What two threads do, and what follows for sixteen. Needs the section `threads`. */
export function threadsText({ threads, router }: Results): string {
  if (threads === undefined) return ''
  const { rows, ownerUs, askerUs } = threads.figures
  const wholeUs = wholeRequest(router)
  const decideUs = rows.find(({ kernel }) => kernel === 'decide')?.oneUs ?? 0
  const estimate = wholeUs === null ? [] : [
    `Estimate, not a measurement, for 16 cores with one thread that decides and 15 that carry requests: of ${short(wholeUs)} us per request (16 at once, 16 tokens, above) ` +
      `${short(ownerUs)} us are serial, ${digits((100 * ownerUs) / wholeUs, 1)} %; the other threads need ${short(wholeUs - decideUs + askerUs)} us each. That gives ` +
      `${digits(wholeUs / Math.max(ownerUs, (wholeUs - decideUs + askerUs) / 15), 1)} times the requests of one thread, and the thread that decides is full at ` +
      `${digits(wholeUs / ownerUs, 0)} times. Left out: memory bandwidth, the kernel's network stack, events.`,
  ]
  return [
    circumstancesText(threads.circumstances, 'rounds of 0.8 s'),
    'The router runs on one thread (decision 0012): this is what more could bring. Relay: 128 items of one token cut from a byte stream, looked at, passed on, the first and the last edited. Decision: prompts of 512 ' +
      'tokens hashed, looked up, booked and freed, 64 workers, each thread with an index and bookings of its own, as two routers have them; on one shared index it is not measured. CPU is that of the threads. Scaling: what two threads do ' +
      'per CPU second each, by what one does; by the clock it is less where other programs have the cores. On a busy machine one thread alone is as slow as beside another: only an idle ' +
      'one shows what threads cost each other.',
    table(['Kernel', 'one thread, us', 'two threads, us', 'scaling', 'Must', 'Met', 'by the clock'], rows.map((row) => [
      row.kernel === 'relay' ? 'relay of a stream' : 'decision, an index each', short(row.oneUs), short(row.twoUs), digits(row.scaling, 2), 'at least 1.6',
      row.kernel === 'decide' ? '**no**: not one index' : row.scaling < 1.6 ? '**no**' : row.wallScaling < 1.6 ? 'by CPU time alone' : 'yes', digits(row.wallScaling, 2),
    ])),
    `One thread that decides for another, by messages: ${short(ownerUs)} us of CPU per request there, ${short(askerUs)} us in the thread that asks.`,
    ...estimate,
  ].join('\n\n')
}

/** The whole page. */
export function benchmarksPage(results: Results): string {
  const { router, frontend, startup, index, kernels } = results
  return [
    '# Benchmarks',
    'Written by `npm run bench` from `bench/results/latest.json`; do not edit. Figures are of the machine and day that each section names.',
    'The figures to quote are CPU per request of the process tree and the latency it adds. Requests per second are capped by the Python client and ' +
      'workers, which share the cores with the router: the direct row is the ceiling for any router.',
    ...(router === undefined ? [] : ['## The router beside the real one', routerText(router)]),
    ...(frontend === undefined ? [] : ['## The frontend beside the real one', frontendText(frontend)]),
    ...(startup === undefined ? [] : ['## Start', startupText(startup)]),
    ...(index === undefined ? [] : ['## Index, decisions and KV events beside the Rust crate', indexText(index)]),
    ...(kernels === undefined ? [] : ['## Kernels', kernelsText(kernels)]),
    ...(results.threads === undefined ? [] : ['## Threads', threadsText(results)]),
    '## How to repeat',
    '```\nnpm run bench                        # everything, about twenty minutes\nnpm run bench -- router --rounds 7    # one comparison alone\nnpm run bench -- frontend\n' +
      'npm run bench -- index --rounds 5     # the counterpart needs cargo; half an hour\n' +
      'npm run bench -- kernels startup threads\nnpm run bench -- router --cells 16x16 --rounds 1 --seconds 1 --force    # a first look: not kept\n```',
    'The comparison needs Python 3.10 or later: the real Dynamo is installed into a git-ignored folder, or taken from `WARMPATH_DYNAMO_VENV`. Nothing else may run ' +
      'meanwhile: the run does not begin above a load average of 1.5. Both routers run in one deployment with file discovery, TCP and ZMQ, each over two trivial workers; ' +
      'worker, real router and ours are loaded in turns, in an order that changes. A turn in which nothing completes or an answer has the wrong number of tokens ends the run.',
  ].join('\n\n') + '\n'
}
