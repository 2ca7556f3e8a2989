import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createRouterMetrics } from '../observability/router-metrics.ts'
import type { RoutedPool } from '../standalone/routed-pool.ts'
import { showAssumedCache } from './assumed-cache-metrics.ts'

const workers = { namespace: 'dynamo', component: 'backend', endpoint: 'generate' }

async function shown(useKvEvents: boolean, policy: string): Promise<string[]> {
  const metrics = createRouterMetrics({ version: '1', namespace: 'dynamo', component: 'router', workers, routerId: 10n, role: 'aggregated' })
  const bounded = { ranks: 2, leases: 1, idle: 3, privateBlocks: 1, resident: 9, overCapacity: 4, evicted: 7, evictions: 5, extensions: 6, agingRanks: 1, agings: 8 }
  const pool = { router: { rankBlocks: { bounded } } } as unknown as RoutedPool
  showAssumedCache({ metrics, useKvEvents, policy, workers, routerId: 10n, pools: () => [pool, { router: null } as unknown as RoutedPool] })
  const base = ',?dynamo_component="backend"|,?dynamo_namespace="dynamo"|,?worker_id="a"'
  return (await metrics.text()).split('\n').filter((line) => line.startsWith('dynamo_component_router_approximate_'))
    .map((line) => line.slice('dynamo_component_router_approximate_'.length).replaceAll(new RegExp(base, 'g'), '').replace('{,', '{').replace('{}', ''))
}

test('the policy shows always, as one of three', async () => {
  const lines = (policy: string): string[] => ['configured', 'effective'].flatMap((kind) =>
    ['disabled', 'ttl', 'lru'].map((each) => `cache_${kind}_policy{policy="${each}"} ${each === policy ? 1 : 0}`))
  assert.deepEqual(await shown(true, 'ttl'), lines('disabled'))
  assert.deepEqual(await shown(false, 'ttl'), lines('ttl'))
  assert.deepEqual((await shown(false, 'lru')).slice(0, 6), lines('lru'))
})

test('what bounded ranks hold shows under the names of the original', async () => {
  assert.deepEqual((await shown(false, 'lru')).slice(6), [
    'lru_ranks{policy="lru"} 2', 'lru_ranks{policy="ttl_fallback"} 1', 'lru_leases 1', 'lru_blocks{state="resident"} 9', 'lru_blocks{state="active"} 6', 'lru_blocks{state="inactive"} 3',
    'lru_blocks{state="private"} 1', 'lru_blocks{state="overcapacity"} 4', 'lru_evicted_blocks_total 7', 'lru_eviction_batches_total 5', 'lru_fallback_activations_total 8', 'lru_output_batches_total 6',
  ])
})
