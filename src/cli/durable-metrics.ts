/** Metrics of state that outlives the router, and of recoveries under way. */
import type { MetricSet } from '../observability/metric-set.ts'
import type { RoutedPool } from '../standalone/routed-pool.ts'

/** Shown at each scrape. Durable events and state on disk: only where they are kept. */
export function showDurableMetrics(set: MetricSet, pools: () => readonly RoutedPool[]): void {
  const gauge = (name: string, help: string) => set.gauge(name, help, {}, []).with()
  const running = gauge('warmpath_kv_recoveries_running', 'Recoveries of ranks that run or wait')
  const progress = gauge('warmpath_kv_recovery_applied_events', 'Events applied so far by the recoveries under way')
  const total = gauge('warmpath_kv_recovery_expected_events', 'Events in the answers of the recoveries under way, as far as they have come')
  const oldest = gauge('warmpath_kv_recovery_oldest_seconds', 'Age of the oldest recovery under way')
  const restarts = gauge('warmpath_kv_source_restarts', 'Times that an event source began to count anew')
  const shortfalls = set.counter('warmpath_kv_reuse_shortfalls_total', 'Answers with less of the prompt in the worker\'s cache than expected, by what they led to', {}, ['step'])
  const durable = {
    messages: gauge('warmpath_durable_messages', 'Durable KV events received'), malformed: gauge('warmpath_durable_malformed', 'Durable KV events that could not be read'),
    unknownWaiting: gauge('warmpath_durable_unknown_worker_events', 'Durable KV events that wait until their worker is known'),
    unknownDropped: gauge('warmpath_durable_unknown_worker_drops', 'Durable KV events whose worker never became known'),
    streamMessages: gauge('warmpath_durable_stream_messages', 'Messages in the stream of durable KV events'),
    snapshotsWritten: gauge('warmpath_durable_snapshots_written', 'Snapshots written to the object store'),
    snapshotsFailed: gauge('warmpath_durable_snapshots_failed', 'Snapshots that could not be written'),
    consumersLost: gauge('warmpath_durable_consumers_lost', 'Times that our consumer had to be made anew'),
    peersRemoved: gauge('warmpath_durable_consumers_removed', 'Consumers of other routers that were removed'),
  }
  const state = {
    written: gauge('warmpath_state_snapshots_written', 'Snapshots written to --state-dir'), failed: gauge('warmpath_state_snapshots_failed', 'Snapshots that could not be written there'),
    refused: gauge('warmpath_state_files_refused', 'Files in --state-dir that could not be used'), restoredRanks: gauge('warmpath_state_restored_ranks', 'Ranks that were given their blocks back'),
  }
  set.onScrape(() => {
    const all = pools()
    const recoveries = all.flatMap(({ follower }) => follower?.recoveries() ?? [])
    running.set(recoveries.length)
    progress.set(recoveries.reduce((sum, { appliedEvents }) => sum + appliedEvents, 0))
    total.set(recoveries.reduce((sum, { totalEvents }) => sum + (totalEvents ?? 0), 0))
    oldest.set(recoveries.reduce((most, { durationMs }) => Math.max(most, durationMs / 1000), 0))
    for (const step of ['tail', 'dump', 'lose'] as const) shortfalls.with(step).set(all.reduce((sum, { follower }) => sum + (follower?.stats().shortfalls[step] ?? 0), 0))
    restarts.set(all.reduce((sum, { follower }) => sum + (follower?.stats().cursor.restarts ?? 0), 0))
    for (const key of Object.keys(durable) as (keyof typeof durable)[]) durable[key].set(all.reduce((sum, pool) => sum + (pool.durable?.stats()[key] ?? 0), 0))
    for (const key of Object.keys(state) as (keyof typeof state)[]) state[key].set(all.reduce((sum, pool) => sum + (pool.state?.stats[key] ?? 0), 0))
  })
}
