/** One process's metrics: a registry of its own, families made short, callbacks before each scrape. */
import { readdirSync } from 'node:fs'
import { Registry } from 'prom-client'
import { counterFamily, gaugeFamily, histogramFamily } from './metric-families.ts'
import type { Family, HistogramCell, NumberCell } from './metric-families.ts'

export type BaseLabels = Readonly<Record<string, string>>

function kept<Cell>(families: Map<string, Family<Cell>>, name: string, make: () => Family<Cell>): Family<Cell> {
  const family = families.get(name) ?? make()
  families.set(name, family)
  return family
}

export class MetricSet {
  readonly registry = new Registry()
  readonly #callbacks: (() => void)[] = []
  /** By name: who asks again for a family gets the same one. */
  readonly #numbers = new Map<string, Family<NumberCell>>()
  readonly #histograms = new Map<string, Family<HistogramCell>>()

  counter(name: string, help: string, base: BaseLabels, labels: readonly string[] = []): Family<NumberCell> {
    return kept(this.#numbers, name, () => counterFamily({ name, help, registry: this.registry, base, labels }))
  }

  gauge(name: string, help: string, base: BaseLabels, labels: readonly string[] = []): Family<NumberCell> {
    return kept(this.#numbers, name, () => gaugeFamily({ name, help, registry: this.registry, base, labels }))
  }

  histogram(name: string, help: string, bounds: readonly number[], base: BaseLabels, labels: readonly string[] = []): Family<HistogramCell> {
    return kept(this.#histograms, name, () => histogramFamily({ name, help, registry: this.registry, base, labels, bounds }))
  }

  /** Called before each scrape, to set gauges. A callback that throws is passed over. */
  onScrape(callback: () => void): void {
    this.#callbacks.push(callback)
  }

  get contentType(): string {
    return this.registry.contentType
  }

  /** Prometheus text. */
  text(): Promise<string> {
    for (const callback of this.#callbacks) {
      try {
        callback()
      } catch {
        // One source that fails must not hide the others.
      }
    }
    return this.registry.metrics()
  }
}

/** The customary `process_*` gauges, read at each scrape. */
export function addProcessMetrics(metrics: MetricSet): void {
  const cpu = metrics.counter('process_cpu_seconds_total', 'CPU time of the process in seconds', {}).with()
  const resident = metrics.gauge('process_resident_memory_bytes', 'Resident memory of the process', {}).with()
  const heap = metrics.gauge('nodejs_heap_size_used_bytes', 'JavaScript heap in use', {}).with()
  const external = metrics.gauge('nodejs_external_memory_bytes', 'Memory outside of the JavaScript heap', {}).with()
  const start = metrics.gauge('process_start_time_seconds', 'Start of the process as Unix time', {}).with()
  const files = process.platform === 'linux' ? metrics.gauge('process_open_fds', 'Open file descriptors', {}).with() : null
  start.set(Math.round(performance.timeOrigin / 1000))
  metrics.onScrape(() => {
    const usage = process.cpuUsage()
    cpu.set((usage.user + usage.system) / 1e6)
    const memory = process.memoryUsage()
    resident.set(memory.rss)
    heap.set(memory.heapUsed)
    external.set(memory.external)
    // The listing holds one descriptor itself.
    if (files !== null) files.set(readdirSync('/proc/self/fd').length - 1)
  })
}
