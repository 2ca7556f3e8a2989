/** The index comparison as Markdown. */
import { median } from '../measure.ts'
import { circumstancesText, digits, short, table } from '../markdown.ts'
import type { Section } from '../results.ts'
import type { DecisionRow, IndexFigures, IndexRow } from './compare.ts'
import type { DecodingRow, DecodingTimes } from './decoding.ts'

interface Judged {
  readonly what: string
  readonly ours: string
  readonly theirs: string
  /** Theirs by ours for speeds, ours by theirs where less is asked for; see `isMore`. */
  readonly value: number
  readonly must: number
  readonly aim: number
  /** More is better. */
  readonly isMore: boolean
}

const middle = <T>(rows: readonly T[], figure: (row: T) => number): number => median(rows.map(figure))

const shapeName = ({ shape }: IndexRow): string => `${shape.ranks} ranks, ${shape.entries / 1e6} M, depth ${shape.depth}${shape.names === 'shared' ? '' : ', names per rank'}`

const bytesOf = (row: IndexRow): number => middle(row.ours, ({ bytesReserved, entries }) => bytesReserved / entries)

function judgeIndex(row: IndexRow): Judged[] {
  const { shape, ours, rust } = row
  const judged: Judged[] = []
  const speed = (what: string, figure: 'findUs' | 'storeNsPerBlock' | 'churnNsPerBlock', unit: string, must: number, aim: number): void => {
    const [own, their] = [middle(ours, (times) => times[figure]), middle(rust, (times) => times[figure])]
    judged.push({ what: `${what}, ${shapeName(row)}`, ours: `${short(own)} ${unit}`, theirs: `${short(their)} ${unit}`, value: their / own, must, aim, isMore: true })
  }
  if (rust.length > 0 && row.comparedWith === 'counterpart') {
    speed('find', 'findUs', 'us', shape.depth > 128 ? 0.5 : shape.ranks >= 64 ? 1 : 0.8, shape.ranks >= 64 && shape.depth <= 128 ? 1.3 : 1)
    speed('store', 'storeNsPerBlock', 'ns/block', 1, 1.5)
    speed('churn', 'churnNsPerBlock', 'ns/block', 0.5, 1)
  }
  judged.push({
    what: `bytes per entry, ${shapeName(row)}`, ours: digits(bytesOf(row), 1), theirs: row.rustBytes === null ? '-' : digits(row.rustBytes / middle(ours, ({ entries }) => entries), 1),
    value: bytesOf(row), must: 85, aim: 64, isMore: false,
  })
  return judged
}

function judgeDecision({ workers, tokens, ours, rust }: DecisionRow): Judged[] {
  if (rust.length === 0) return []
  return (['p50Us', 'p99Us'] as const).map((figure): Judged => {
    const [own, their] = [middle(ours, (times) => times[figure]), middle(rust, (times) => times[figure])]
    return {
      what: `decision ${figure.slice(0, 3)}, ${workers} workers, ${tokens} tokens`, ours: `${short(own)} us`, theirs: `${short(their)} us`, value: own / their,
      must: 1, aim: figure === 'p50Us' ? 0.5 : 0.3, isMore: false,
    }
  })
}

function judgeDecoding({ decoding }: IndexFigures): Judged[] {
  const rows = decoding[0] ?? []
  return rows.flatMap(({ events, blocksPerEvent }, at) => {
    const times = (whose: 'ours' | 'library', figure: keyof DecodingTimes): number => middle(decoding, (rounds) => rounds[at]![whose][figure])
    return (['decodeUs', 'applyUs'] as const).map((figure): Judged => ({
      what: `${figure === 'decodeUs' ? 'decode' : 'decode and apply'}, ${events} events of ${blocksPerEvent} blocks`,
      ours: `${short(times('ours', figure))} us`, theirs: `${short(times('library', figure))} us`, value: times('library', figure) / times('ours', figure),
      must: figure === 'decodeUs' ? 8 : 2, aim: figure === 'decodeUs' ? 15 : 3, isMore: true,
    }))
  })
}

/** Decoding in more figures; nothing from older results, which lack them. */
function decodingTable({ decoding }: IndexFigures): string[] {
  const rows = decoding[0] ?? []
  if (rows.every(({ objectsUs }) => objectsUs === undefined)) return []
  return [table(['Decoding', 'flat words, us', 'and every event an object, us', 'read in general, us', 'counterpart, us'], rows.map(({ events, blocksPerEvent }, at) => {
    const of = (read: (row: DecodingRow) => number | undefined): string => short(middle(decoding, (rounds) => read(rounds[at]!) ?? Number.NaN))
    return [`${events} events of ${blocksPerEvent} blocks`, of(({ ours }) => ours.decodeUs), of(({ objectsUs }) => objectsUs), of(({ generalUs }) => generalUs), of(({ library }) => library.decodeUs)]
  }))]
}

/** What profiles say of the aims that are not reached. */
const whatIsLeft = [
  'What stops the rest, by profile. Store: per new block about half of the index\'s time goes to the one place in the table of names, which is not in the cache; a tenth to splits of the table, a tenth to ' +
    'pages that the system hands out; and an eighth of the measured time is the collector, which sweeps up the events that the measurement makes. Decision of 16384 tokens: two thirds is hashing, where WebAssembly has no ' +
    'product of 64 by 64 bits and needs four multiplications for one. Decision over 1000 workers: four passes over all of them (overlap, loads, costs, choice), some 45 ns per worker; it grows with the workers, as the counterpart\'s does.',
  'The counterpart\'s decision is handed from thread to thread. On an idle machine waking them is most of its time; on a busy one its p50 has been seen at 12 us in place of 68 (8 workers, 256 tokens), and the ratio of ' +
    'p50s between 0.2 and 0.8, above 0.5 for 16384 tokens over 8 and 64 workers.',
].join('\n\n')

export function indexText({ circumstances, figures }: Section<IndexFigures>): string {
  const judged = [...figures.index.flatMap(judgeIndex), ...figures.decisions.flatMap(judgeDecision), ...judgeDecoding(figures)]
  if (figures.growth.length > 0) {
    const longest = middle(figures.growth, ({ longestMs }) => longestMs)
    judged.push({ what: `longest event while the index grows to ${figures.growth[0]!.entries} entries`, ours: `${short(longest)} ms`, theirs: '-', value: longest, must: 20, aim: 5, isMore: false })
  }
  const reaches = ({ value, isMore }: Judged, bound: number): string => (isMore ? value >= bound : value <= bound) ? 'yes' : '**no**'
  return [
    `${circumstancesText(circumstances, 'rounds')} After it: ${digits(figures.loadAfter, 2)}.${'rustc' in figures.rust ? ` ${figures.rust.rustc}.` : ` No counterpart: ${figures.rust.missing}.`}`,
    'Beside `dynamo-kv-router` 1.6.1, both in turns; medians of the rounds. Index, store, churn and decoding: CPU of the whole process. Decisions: wall clock of one ' +
      'prompt routed, booked and freed again and again. Counterpart of the index: its default, the compressed tree behind four event threads; its time includes its queue ' +
      'and the result it allocates. Before anything is timed, every match of every query is compared after storing, evicting, restoring and removing single blocks from the ' +
      'middle. Ranks with names of their own are compared with the plain index, on a small workload, since the counterpart refuses what is stored under a second name. Decoding: beside ' +
      '`@msgpack/msgpack` with 64-bit integers as bigints; apply stores and removes what was decoded. Ratio: how many times faster we are where more is asked for, ours by theirs ' +
      'where less is. The longest event: of the clock and the CPU time, whichever is less, with the collector on the same thread.',
    table(['Figure', 'Ours', 'Counterpart', 'Ratio or value', 'Must', 'Met', 'Aim', 'Reached'], judged.map((row) => [
      row.what, row.ours, row.theirs, short(row.value), `${row.isMore ? 'at least' : 'at most'} ${row.must}`, reaches(row, row.must), String(row.aim), reaches(row, row.aim),
    ])),
    'The same index in more figures.',
    table(['Workload', 'find p50, us', 'find p99, us', 'counterpart p50', 'counterpart p99', 'entries', 'answers compared with'], figures.index.map((row) => [
      shapeName(row), short(middle(row.ours, (times) => times.findP50Us)), short(middle(row.ours, (times) => times.findP99Us)), short(middle(row.rust, (times) => times.findP50Us)),
      short(middle(row.rust, (times) => times.findP99Us)), middle(row.ours, (times) => times.entries), row.comparedWith,
    ])),
    table(['Workload, names per rank', 'store, ns/block', 'churn, ns/block', 'find, us'], figures.index.filter(({ shape }) => shape.names === 'per rank').map((row) => [
      shapeName(row), short(middle(row.ours, (times) => times.storeNsPerBlock)), short(middle(row.ours, (times) => times.churnNsPerBlock)), short(middle(row.ours, (times) => times.findUs)),
    ])),
    ...decodingTable(figures),
    table(['Decision, CPU', 'ours, us', 'counterpart, us', 'ratio'], figures.decisions.map(({ workers, tokens, ours, rust }) => {
      const [own, their] = [middle(ours, ({ cpuUs }) => cpuUs), middle(rust, ({ cpuUs }) => cpuUs)]
      return [`${workers} workers, ${tokens} tokens`, short(own), short(their), digits(own / their, 2)]
    })),
    whatIsLeft,
  ].join('\n\n')
}
