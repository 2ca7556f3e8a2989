/**
 * Metric families whose cells are plain numbers, so that counting costs nanoseconds; the Prometheus client formats them when scraped.
 *
 * A family keeps at most `labelSetLimit` label sets; further ones are counted together under the value `other`.
 */
import { Counter, Gauge, Histogram } from 'prom-client'
import type { Metric, Registry } from 'prom-client'

export const labelSetLimit = 4096
const overflowValue = 'other'

export class NumberCell {
  value = 0
  inc(by = 1): void {
    this.value += by
  }
  set(value: number): void {
    this.value = value
  }
}

/** Observations between bounds; a bound belongs to the bucket below it. Cost: one pass over the bounds. */
export class HistogramCell {
  readonly bounds: readonly number[]
  /** Per bucket, not cumulated; the last one is for values above all bounds. */
  readonly counts: Float64Array
  sum = 0
  constructor(bounds: readonly number[]) {
    this.bounds = bounds
    this.counts = new Float64Array(bounds.length + 1)
  }
  /** Ignores what is not a number. */
  observe(value: number): void {
    if (Number.isNaN(value)) return
    const { bounds, counts } = this
    let at = 0
    while (at < bounds.length && value > (bounds[at] ?? 0)) at += 1
    counts[at] = (counts[at] ?? 0) + 1
    this.sum += value
  }
}

interface FamilyOptions {
  readonly name: string
  readonly help: string
  readonly registry: Registry
  /** The same on every cell. */
  readonly base: Readonly<Record<string, string>>
  /** Names of the labels that tell cells apart. */
  readonly labels: readonly string[]
}

type Labels = Readonly<Record<string, string>>
interface Sample {
  readonly metricName: string
  readonly labels: Labels
  readonly value: number
}

const recentMax = 4

function isSame(left: readonly string[], right: readonly string[]): boolean {
  for (let index = 0; index < right.length; index += 1) if (left[index] !== right[index]) return false
  return left.length === right.length
}

class Cells<Cell> {
  readonly #base: Labels
  readonly #names: readonly string[]
  readonly #make: () => Cell
  readonly #cells = new Map<string, { readonly labels: Labels; readonly cell: Cell }>()
  /** Asked for last, by the values: most are asked for again and again. */
  readonly #recent: { readonly values: readonly string[]; readonly cell: Cell }[] = []
  #oldest = 0

  constructor(base: Labels, names: readonly string[], make: () => Cell) {
    this.#base = base
    this.#names = names
    this.#make = make
  }

  at(values: readonly string[]): Cell {
    for (const each of this.#recent) if (isSame(each.values, values)) return each.cell
    const cell = this.#find(values)
    this.#recent[this.#oldest] = { values, cell }
    this.#oldest = (this.#oldest + 1) % recentMax
    return cell
  }

  #find(values: readonly string[]): Cell {
    let key = values[0] ?? ''
    for (let index = 1; index < values.length; index += 1) key += `\u0000${values[index]}`
    const found = this.#cells.get(key)
    if (found !== undefined) return found.cell
    if (this.#cells.size >= labelSetLimit && values.some((value) => value !== overflowValue)) {
      return this.#find(this.#names.map(() => overflowValue))
    }
    const labels: Record<string, string> = { ...this.#base }
    for (const [index, name] of this.#names.entries()) labels[name] = values[index] ?? ''
    const cell = this.#make()
    this.#cells.set(key, { labels, cell })
    return cell
  }

  drop(values: readonly string[]): void {
    this.#recent.length = 0
    this.#oldest = 0
    this.#cells.delete(values.join('\u0000'))
  }

  entries(): Iterable<{ readonly labels: Labels; readonly cell: Cell }> {
    return this.#cells.values()
  }
}

/** `with` gives the cell of one label set; keep it where it is used often. */
export interface Family<Cell> {
  with(...values: string[]): Cell
  /** Forgets a label set. */
  drop(...values: string[]): void
}

const numberSamples = (name: string, cells: Cells<NumberCell>): Sample[] =>
  Array.from(cells.entries(), ({ labels, cell }) => ({ metricName: name, labels, value: cell.value }))

function histogramSamples(name: string, cells: Cells<HistogramCell>): Sample[] {
  const samples: Sample[] = []
  for (const { labels, cell } of cells.entries()) {
    let count = 0
    for (const [index, inBucket] of cell.counts.entries()) {
      count += inBucket
      const bound = cell.bounds[index]
      samples.push({ metricName: `${name}_bucket`, labels: { ...labels, le: bound === undefined ? '+Inf' : String(bound) }, value: count })
    }
    samples.push({ metricName: `${name}_sum`, labels, value: cell.sum }, { metricName: `${name}_count`, labels, value: count })
  }
  return samples
}

/** Puts our samples where the client looks for its own. */
function present(metric: Metric, type: 'counter' | 'gauge' | 'histogram', options: FamilyOptions, samples: () => Sample[]): void {
  const get = () => Promise.resolve({ name: options.name, help: options.help, type, values: samples(), aggregator: 'sum' })
  Object.assign(metric, { get, getForPromString: get })
}

const family = <Cell>(cells: Cells<Cell>): Family<Cell> => ({
  with: (...values) => cells.at(values),
  drop: (...values) => cells.drop(values),
})

const clientOptions = ({ name, help, registry, base, labels }: FamilyOptions) =>
  ({ name, help, registers: [registry], labelNames: [...Object.keys(base), ...labels] })

export function counterFamily(options: FamilyOptions): Family<NumberCell> {
  const cells = new Cells(options.base, options.labels, () => new NumberCell())
  present(new Counter(clientOptions(options)), 'counter', options, () => numberSamples(options.name, cells))
  return family(cells)
}

export function gaugeFamily(options: FamilyOptions): Family<NumberCell> {
  const cells = new Cells(options.base, options.labels, () => new NumberCell())
  present(new Gauge(clientOptions(options)), 'gauge', options, () => numberSamples(options.name, cells))
  return family(cells)
}

/** `bounds`: upper bounds, increasing. */
export function histogramFamily(options: FamilyOptions & { readonly bounds: readonly number[] }): Family<HistogramCell> {
  const cells = new Cells(options.base, options.labels, () => new HistogramCell(options.bounds))
  present(new Histogram({ ...clientOptions(options), buckets: [...options.bounds] }), 'histogram', options, () => histogramSamples(options.name, cells))
  return family(cells)
}
