/** What pools share with other routers, counted; shown at each scrape. The families are there only where something is shared. */
import type { RouterMetrics } from '../observability/router-metrics.ts'
import type { EndpointId } from '../ports.ts'
import type { RoutedPool } from '../standalone/routed-pool.ts'

export interface ReplicaMetricsSource {
  readonly metrics: RouterMetrics
  readonly replicaSync: boolean
  readonly useRemoteIndexer: boolean
  /** For Dynamo's labels. */
  readonly workers: EndpointId
  readonly routerId: bigint
  pools(): Iterable<RoutedPool>
}

export function showReplicaMetrics(source: ReplicaMetricsSource): void {
  if (source.replicaSync) showBookings(source)
  if (source.useRemoteIndexer) showRemoteIndex(source)
}

function showBookings({ metrics: { set }, pools }: ReplicaMetricsSource): void {
  const gauge = (name: string, help: string) => set.gauge(`warmpath_replica_${name}`, help, {}).with()
  const counter = (name: string, help: string, labels: readonly string[] = []) => set.counter(`warmpath_replica_${name}_total`, help, {}, labels)
  const peers = gauge('peers', 'Other routers that share their load')
  const bookings = gauge('bookings', 'Running requests of other routers that are counted as load')
  const waiting = gauge('waiting_bookings', 'Of them, those whose worker is not known here')
  const events = counter('events', 'Bookings, ends of prompts and ends of requests that were told or taken', ['direction', 'kind'])
  const ignored = counter('events_ignored', 'Events of other routers that changed nothing', ['reason'])
  const refused = counter('refusals', 'What a bound refused', ['bound'])
  const malformed = counter('malformed', 'Messages that could not be read').with()
  const gaps = counter('gaps', 'Times that messages of another router were missing').with()
  const states = counter('states', 'Questions for what stands, answers, and answers that were applied', ['step'])
  const gone = counter('peers_gone', 'Routers that left or fell silent').with()
  const dropped = counter('dropped_bookings', 'Bookings that ended with their router').with()
  set.onScrape(() => {
    const shared = [...pools()].flatMap(({ replicas }) => (replicas === null ? [] : [replicas]))
    const sum = (value: (each: (typeof shared)[number]) => number): number => shared.reduce((total, each) => total + value(each), 0)
    peers.set(sum(({ peerCount }) => peerCount))
    bookings.set(sum(({ bookingCount }) => bookingCount))
    waiting.set(sum(({ waitingCount }) => waitingCount))
    for (const kind of ['add', 'mark', 'free'] as const) {
      events.with('sent', kind).set(sum(({ stats }) => stats.sent[kind]))
      events.with('applied', kind).set(sum(({ stats }) => stats.applied[kind]))
    }
    for (const reason of ['own', 'known', 'unknown_request', 'other_worker', 'late'] as const) ignored.with(reason).set(sum(({ stats }) => stats.ignored[reason]))
    for (const bound of ['peers', 'bookings', 'outgoing', 'kept_blocks'] as const) refused.with(bound).set(sum(({ stats }) => stats.refused[bound]))
    malformed.set(sum(({ stats }) => stats.malformed))
    gaps.set(sum(({ stats }) => stats.gaps))
    states.with('asked').set(sum(({ stats }) => stats.statesAsked))
    states.with('sent').set(sum(({ stats }) => stats.statesSent))
    states.with('applied').set(sum(({ stats }) => stats.statesApplied))
    gone.set(sum(({ stats }) => stats.peersGone))
    dropped.set(sum(({ stats }) => stats.droppedBookings))
  })
}

function showRemoteIndex({ metrics: { set }, pools, workers, routerId }: ReplicaMetricsSource): void {
  const base = { dynamo_namespace: workers.namespace, dynamo_component: workers.component, worker_id: routerId.toString(16) }
  const queries = set.counter('warmpath_remote_indexer_queries_total', 'Prompts that a remote index was asked for', {}).with()
  const queryFailures = set.counter('dynamo_component_router_remote_indexer_query_failures_total', 'Prompts that a remote index gave no answer for', base).with()
  const writeFailures = set.counter('dynamo_component_router_remote_indexer_write_failures_total', 'Decisions that a remote index was not told', base).with()
  set.onScrape(() => {
    const total = { queries: 0, queryFailures: 0, writeFailures: 0 }
    for (const { remote } of pools()) {
      total.queries += remote?.stats.queries ?? 0
      total.queryFailures += remote?.stats.queryFailures ?? 0
      total.writeFailures += remote?.stats.writeFailures ?? 0
    }
    queries.set(total.queries)
    queryFailures.set(total.queryFailures)
    writeFailures.set(total.writeFailures)
  })
}
