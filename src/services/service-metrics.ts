/** Metrics of a service over HTTP: calls by route, and what its state comes to. */
import { addProcessMetrics, MetricSet } from '../observability/metric-set.ts'
import type { FeedStats } from './engine-feed.ts'
import type { ReplicaStats } from './replica-mesh.ts'

/** 0.1 ms, doubled twenty times: as the original's. */
const durationBounds = Array.from({ length: 20 }, (_, index) => 0.0001 * 2 ** index)

export class ServiceMetrics {
  readonly set = new MetricSet()
  readonly #requests
  readonly #errors
  readonly #durations

  /** `prefix`: of the names, `dynamo_kvindexer` say. */
  constructor(prefix: string, version: string) {
    this.#requests = this.set.counter(`${prefix}_requests_total`, 'Calls by route and method', {}, ['endpoint', 'method'])
    this.#errors = this.set.counter(`${prefix}_errors_total`, 'Answers with status 4xx or 5xx by route', {}, ['endpoint', 'status_class'])
    this.#durations = this.set.histogram(`${prefix}_request_duration_seconds`, 'Time from the headers to the answer by route', durationBounds, {}, ['endpoint'])
    this.set.gauge('warmpath_build_info', 'Version of Warmpath', { version }).with().set(1)
    addProcessMetrics(this.set)
  }

  onAnswer(pattern: string | null, method: string, status: number, seconds: number): void {
    const endpoint = pattern?.replaceAll(/:(\w+)/g, '{$1}') ?? 'unknown'
    this.#requests.with(endpoint, knownMethods.has(method) ? method : 'other').inc()
    this.#durations.with(endpoint).observe(seconds)
    if (status >= 400) this.#errors.with(endpoint, status < 500 ? '4xx' : '5xx').inc()
  }

  /** Gauges and counters that are read at each scrape: name, help, value. */
  show(names: readonly (readonly ['gauge' | 'counter', string, string])[], read: () => readonly number[]): void {
    const cells = names.map(([kind, name, help]) => this.set[kind](name, help, {}).with())
    this.set.onScrape(() => read().forEach((value, index) => cells[index]?.set(value)))
  }

  showFeeds(prefix: string, stats: FeedStats): void {
    this.show([
      ['counter', `${prefix}_engine_messages_total`, 'Messages of engines that were applied'],
      ['counter', `${prefix}_engine_messages_stale_total`, 'Messages of engines that had come before'],
      ['counter', `${prefix}_engine_messages_malformed_total`, 'Messages of engines that could not be decoded'],
      ['counter', `${prefix}_engine_gaps_total`, 'Gaps in the messages of an engine that were not filled'],
      ['counter', `${prefix}_engine_messages_replayed_total`, 'Messages that an engine sent again when asked'],
      ['counter', `${prefix}_engine_messages_lost_total`, 'Messages of engines that never came'],
      ['counter', `${prefix}_engine_replays_failed_total`, 'Requests to an engine to send messages again that failed'],
    ], () => [stats.messages, stats.stale, stats.malformed, stats.gaps, stats.replayed, stats.lost, stats.failedReplays])
  }

  showReplicas(prefix: string, stats: ReplicaStats): void {
    this.show([
      ['counter', `${prefix}_replica_messages_sent_total`, 'Messages to replicas'],
      ['counter', `${prefix}_replica_messages_dropped_total`, 'Messages to replicas that were dropped because a bound was reached'],
      ['counter', `${prefix}_replica_messages_received_total`, 'Messages of replicas'],
      ['counter', `${prefix}_replica_messages_malformed_total`, 'Messages of replicas that could not be decoded'],
      ['counter', `${prefix}_replica_messages_passed_over_total`, 'Messages of replicas about unknown models, workers or requests'],
    ], () => [stats.sent, stats.dropped, stats.received, stats.malformed, stats.passedOver])
  }

  get contentType(): string {
    return this.set.contentType
  }

  text(): Promise<string> {
    return this.set.text()
  }
}

const knownMethods = new Set(['GET', 'POST', 'PATCH', 'DELETE', 'HEAD', 'PUT'])
