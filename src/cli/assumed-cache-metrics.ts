/** How caches are assumed that nobody reports, under Dynamo's names; shown at each scrape. */
import type { RouterMetrics } from '../observability/router-metrics.ts'
import type { EndpointId } from '../ports.ts'
import type { BoundedRanks } from '../router/pool-index.ts'
import type { RoutedPool } from '../standalone/routed-pool.ts'

export interface AssumedCacheSource {
  readonly metrics: RouterMetrics
  readonly useKvEvents: boolean
  /** `ttl` or `lru`. */
  readonly policy: string
  /** For Dynamo's labels. */
  readonly workers: EndpointId
  readonly routerId: bigint
  pools(): Iterable<RoutedPool>
}

const prefix = 'dynamo_component_router_approximate'
const policies = ['disabled', 'ttl', 'lru'] as const

/** The policy always; what bounded ranks hold where they are bounded. */
export function showAssumedCache({ metrics: { set }, useKvEvents, policy, workers, routerId, pools }: AssumedCacheSource): void {
  const base = { dynamo_namespace: workers.namespace, dynamo_component: workers.component, worker_id: routerId.toString(16) }
  const inForce = useKvEvents ? 'disabled' : policy
  const configured = set.gauge(`${prefix}_cache_configured_policy`, 'How caches are assumed that nobody reports, as asked for', base, ['policy'])
  const effective = set.gauge(`${prefix}_cache_effective_policy`, 'How caches are assumed that nobody reports', base, ['policy'])
  for (const each of policies) for (const family of [configured, effective]) family.with(each).set(each === inForce ? 1 : 0)
  if (inForce !== 'lru') return
  const gauge = (name: string, help: string, labels: readonly string[] = []) => set.gauge(`${prefix}_lru_${name}`, help, base, labels)
  const counter = (name: string, help: string) => set.counter(`${prefix}_lru_${name}_total`, help, base).with()
  const ranks = gauge('ranks', 'Ranks by how their assumed blocks end: by capacity, or by time because their capacity is not known', ['policy'])
  const leases = gauge('leases', 'Running requests that hold assumed blocks').with()
  const blocks = gauge('blocks', 'Assumed blocks of ranks that are bounded by their capacity', ['state'])
  const evicted = counter('evicted_blocks', 'Assumed blocks given up for lack of room')
  const evictions = counter('eviction_batches', 'How often blocks were given up for lack of room')
  const fallbacks = counter('fallback_activations', 'Ranks that came without a known capacity')
  const outputs = counter('output_batches', 'How often complete blocks of outputs were added')
  set.onScrape(() => {
    const all = [...pools()].flatMap(({ router }) => router?.rankBlocks.bounded ?? [])
    const sum = (read: (each: BoundedRanks) => number): number => all.reduce((total, each) => total + read(each), 0)
    ranks.with('lru').set(sum((each) => each.ranks))
    ranks.with('ttl_fallback').set(sum((each) => each.agingRanks))
    leases.set(sum((each) => each.leases))
    blocks.with('resident').set(sum((each) => each.resident))
    blocks.with('active').set(sum((each) => each.resident - each.idle))
    blocks.with('inactive').set(sum((each) => each.idle))
    blocks.with('private').set(sum((each) => each.privateBlocks))
    blocks.with('overcapacity').set(sum((each) => each.overCapacity))
    evicted.set(sum((each) => each.evicted))
    evictions.set(sum((each) => each.evictions))
    fallbacks.set(sum((each) => each.agings))
    outputs.set(sum((each) => each.extensions))
  })
}
