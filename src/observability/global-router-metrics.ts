/** Metrics of the global router: Dynamo's per endpoint, and which pool took what. */
import { createEndpointMetrics, type EndpointMeter } from './request-plane-metrics.ts'
import { MetricSet, addProcessMetrics } from './metric-set.ts'

export interface GlobalRouterMetricsOptions {
  readonly version: string
  readonly namespace: string
  readonly component: string
  readonly routerId: bigint
}

export interface GlobalRouterReading {
  readonly pools: readonly { readonly kind: string; readonly pool: string; readonly routers: number }[]
  readonly activeRequests: number
  readonly prefillNotes: number
  readonly prefillNoteEvictions: number
}

export class GlobalRouterMetrics {
  readonly set = new MetricSet()
  readonly endpoint: (name: string) => EndpointMeter
  readonly #sent
  readonly #retries
  readonly #failures

  constructor(options: GlobalRouterMetricsOptions) {
    const set = this.set
    this.endpoint = createEndpointMetrics(set, {
      namespace: options.namespace, component: options.component, instanceHex: options.routerId.toString(16), service: 'global_router',
    })
    this.#sent = set.counter('warmpath_global_router_requests_total', 'Requests sent to a router of the pool, further tries included', {}, ['kind', 'pool'])
    this.#retries = set.counter('warmpath_global_router_retries_total', 'Requests that were tried in another pool after the first one failed', {}, ['kind', 'from_pool', 'to_pool'])
    this.#failures = set.counter('warmpath_global_router_failures_total', 'Requests that ended with a failure', {}, ['kind', 'class'])
    set.gauge('warmpath_build_info', 'Version of Warmpath', { version: options.version }).with().set(1)
    addProcessMetrics(set)
  }

  /** Gauges that are read at each scrape. */
  show(read: () => GlobalRouterReading): void {
    const set = this.set
    const routers = set.gauge('warmpath_global_router_pool_routers', 'Routers known in the pool', {}, ['kind', 'pool'])
    const active = set.gauge('warmpath_active_requests', 'Requests whose answer has not ended', {}).with()
    const notes = set.gauge('warmpath_prefill_note_entries', 'Prefill workers remembered for the decode of their request', {}).with()
    const evictions = set.counter('warmpath_prefill_note_evictions_total', 'Prefill workers forgotten early because the bound was reached', {}).with()
    set.onScrape(() => {
      const now = read()
      for (const { kind, pool, routers: count } of now.pools) routers.with(kind, pool).set(count)
      active.set(now.activeRequests)
      notes.set(now.prefillNotes)
      evictions.set(now.prefillNoteEvictions)
    })
  }

  onSent(kind: string, pool: string): void {
    this.#sent.with(kind, pool).inc()
  }

  onRetry(kind: string, from: string, to: string): void {
    this.#retries.with(kind, from, to).inc()
  }

  onEnded(kind: string, failure: { readonly class: string } | null): void {
    if (failure !== null) this.#failures.with(kind, failure.class).inc()
  }

  get contentType(): string {
    return this.set.contentType
  }

  text(): Promise<string> {
    return this.set.text()
  }
}
