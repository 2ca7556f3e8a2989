/** Goal: every mistake in the file is named with member, value and mend; good files are read. Method: one change each of a good file. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Json, JsonObject } from '../ports.ts'
import { PoolConfigError, parsePoolConfig } from './pool-config.ts'
import { poolOf } from './pool-grid.ts'

const prefill = {
  isl_min: 0, isl_max: 200, isl_resolution: 2, ttft_min_ms: 10, ttft_max_ms: 1000, ttft_resolution: 2, prefill_pool_mapping: [[0, 1], [1, 1]],
  priority_overrides: [{ min_priority: 10, max_priority: 100, target_pool: 0 }],
}
const decode = { context_length_min: 0, context_length_max: 200, context_length_resolution: 2, itl_min_ms: 5, itl_max_ms: 50, itl_resolution: 2, decode_pool_mapping: [[0, 1], [1, 1]] }
const good: JsonObject = {
  num_prefill_pools: 2, num_decode_pools: 2, prefill_pool_dynamo_namespaces: ['p0', 'p1'], decode_pool_dynamo_namespaces: ['d0', 'd1'],
  prefill_pool_selection_strategy: prefill, decode_pool_selection_strategy: decode,
}
const agg = { ttft_min_ms: 0, ttft_max_ms: 10, ttft_resolution: 1, itl_min_ms: 0, itl_max_ms: 10, itl_resolution: 2, agg_pool_mapping: [[0, 1]] }
const goodAgg: JsonObject = { mode: 'agg', num_agg_pools: 2, agg_pool_dynamo_namespaces: ['a', 'b'], agg_pool_selection_strategy: agg }

test('a file of each mode is read', () => {
  const config = parsePoolConfig(good)
  assert.ok(config.mode === 'disagg')
  assert.deepEqual(config.prefill.priorities, [0, 1])
  assert.equal(config.retriesFasterPools, false)
  assert.equal(poolOf(config.prefill.strategy, [100, 20], null), 1)
  assert.equal(poolOf(config.prefill.strategy, [100, 20], 40), 0)
  const flat = parsePoolConfig(goodAgg)
  assert.ok(flat.mode === 'agg')
  assert.equal(poolOf(flat.aggregated.strategy, [5, 7], null), 1)
  const deep = parsePoolConfig({ ...goodAgg, agg_pool_selection_strategy: { ...agg, isl_min: 0, isl_max: 100, isl_resolution: 2, agg_pool_mapping: [[[0, 0]], [[1, 1]]] } })
  assert.ok(deep.mode === 'agg')
  assert.equal(poolOf(deep.aggregated.strategy, [80, 5, 1], null), 1)
})

test('older names are read with a warning, unknown members named', () => {
  const { ttft_min_ms: _min, ttft_max_ms: _max, ...rest } = prefill
  const config = parsePoolConfig({ ...good, prefill_pool_selection_strategy: { ...rest, ttft_min: 10, ttft_max: 1000 }, num_agg_pools: 3 })
  assert.deepEqual(config.warnings, [
    '`num_agg_pools` is not a setting of mode disagg; it is ignored',
    '`prefill_pool_selection_strategy.ttft_min` is the older name of `ttft_min_ms`', '`prefill_pool_selection_strategy.ttft_max` is the older name of `ttft_max_ms`',
  ])
})

const within = (strategy: JsonObject, change: JsonObject): JsonObject => ({ ...strategy, ...change })
const mistakes: readonly (readonly [string, Json, RegExp])[] = [
  ['not an object', [1], /^`the file` is \[1\], expected an object$/],
  ['mode', { ...good, mode: 'both' }, /^`mode` is "both", expected "disagg" or "agg"$/],
  ['retry', { ...good, enable_priority_retry: 1 }, /^`enable_priority_retry` is 1, expected true or false$/],
  ['no count', { ...good, num_decode_pools: null }, /^`num_decode_pools` is missing$/],
  ['count', { ...good, num_prefill_pools: 0 }, /^`num_prefill_pools` is 0, expected an integer of at least 1$/],
  ['many', { ...good, num_prefill_pools: 5000 }, /expected at most 1024/],
  ['names', { ...good, num_prefill_pools: 3 }, /^`prefill_pool_dynamo_namespaces` is "2 namespaces", expected 3, as `num_prefill_pools` says$/],
  ['a name', { ...good, decode_pool_dynamo_namespaces: ['d0', 5] }, /^`decode_pool_dynamo_namespaces\[1\]` is 5, expected the namespace of a pool$/],
  ['priorities', { ...good, decode_pool_priorities: [1] }, /one for each of the 2 pools$/],
  ['a priority', { ...good, decode_pool_priorities: [1, true] }, /^`decode_pool_priorities\[1\]` is true, expected an integer$/],
  ['no strategy', { ...good, decode_pool_selection_strategy: null }, /^`decode_pool_selection_strategy` is missing$/],
  ['bounds', { ...good, prefill_pool_selection_strategy: within(prefill, { isl_min: 200 }) }, /^`prefill_pool_selection_strategy.isl_min` is 200, expected less than `isl_max` \(200\)$/],
  ['no bound', { ...good, prefill_pool_selection_strategy: within(prefill, { isl_max: null }) }, /^`prefill_pool_selection_strategy.isl_max` is missing$/],
  ['resolution', { ...good, decode_pool_selection_strategy: within(decode, { itl_resolution: 0 }) }, /itl_resolution` is 0, expected an integer of at least 1$/],
  ['too many cells', { ...good, decode_pool_selection_strategy: within(decode, { itl_resolution: 1_000_000 }) }, /at most 1000000 cells/],
  ['rows', { ...good, decode_pool_selection_strategy: within(decode, { decode_pool_mapping: [[0, 1]] }) }, /decode_pool_mapping` is "1 entries", expected 2, as `context_length_resolution` says$/],
  ['row', { ...good, decode_pool_selection_strategy: within(decode, { decode_pool_mapping: [[0, 1], [1]] }) }, /decode_pool_mapping\[1\]` is "1 entries", expected 2, as `itl_resolution` says$/],
  ['cell', { ...good, decode_pool_selection_strategy: within(decode, { decode_pool_mapping: [[0, 1], [1, 2]] }) }, /decode_pool_mapping\[1\]\[1\]` is 2, expected a pool index in 0..1$/],
  ['range', { ...good, prefill_pool_selection_strategy: within(prefill, { priority_overrides: [{ min_priority: 3, max_priority: 2, target_pool: 0 }] }) }, /priority_overrides\[0\].min_priority` is 3, expected at most `max_priority` \(2\)$/],
  ['target', { ...good, prefill_pool_selection_strategy: within(prefill, { priority_overrides: [{ min_priority: 1, max_priority: 2, target_pool: 2 }] }) }, /target_pool` is 2, expected a pool index in 0..1$/],
  ['half an axis', { ...goodAgg, agg_pool_selection_strategy: within(agg, { isl_min: 0 }) }, /`isl_min`, `isl_max` and `isl_resolution` together/],
]
for (const [name, file, expected] of mistakes) {
  test(`a mistake is named: ${name}`, () => {
    assert.throws(() => parsePoolConfig(file), (error) => error instanceof PoolConfigError && expected.test(error.message) || assert.fail(String(error)))
  })
}
