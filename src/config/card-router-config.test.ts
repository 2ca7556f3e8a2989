import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { JsonObject } from '../ports.ts'
import { parseCardRouterConfig, type CardRouterConfig } from './card-router-config.ts'

/** As `register_model` of Dynamo 1.6.1 writes it. */
const recorded: JsonObject = {
  router_mode: 'k_v',
  kv_router_config: {
    overlap_score_credit: 0.5, overlap_score_credit_decay: 0, prefill_load_scale: 1, host_cache_hit_weight: 0.75, disk_cache_hit_weight: 0.25, router_temperature: 0.3,
    use_kv_events: true, router_replica_sync: false, router_track_active_blocks: true, router_track_output_blocks: false, router_assume_kv_reuse: true,
    router_track_prefill_tokens: true, router_prefill_load_model: 'none', router_ttl_secs: 120, router_queue_threshold: null, router_policy_config: null,
    router_event_threads: 4, skip_initial_worker_wait: false, router_queue_policy: 'fcfs', use_remote_indexer: false, serve_indexer: false, shared_cache_type: 'none',
    router_predicted_ttl_secs: null,
  },
  load_threshold_config: { active_prefill_tokens_threshold: 100 }, enforce_disagg: false, session_affinity_ttl_secs: 5, session_affinity_mode: 'hard',
}
const configOf = (value: JsonObject): CardRouterConfig => {
  const parsed = parseCardRouterConfig(value)
  assert.ok(parsed.kind === 'config', parsed.kind === 'problem' ? parsed.problem : '')
  return parsed.config
}
const problemOf = (value: JsonObject): string => {
  const parsed = parseCardRouterConfig(value)
  return parsed.kind === 'problem' ? parsed.problem : 'accepted'
}

test('a recorded card: mode, costs, thresholds, sessions; active blocks are never tracked', () => {
  const { mode, settings, affinity, unapplied } = configOf(recorded)
  assert.equal(mode, null)
  assert.deepEqual([settings.overlapScoreCredit, settings.temperature, settings.activePrefillTokensThreshold, settings.activeDecodeBlocksThreshold], [0.5, 0.3, 100, null])
  assert.deepEqual([settings.trackActiveBlocks, settings.trackOutputBlocks, settings.trackPrefillTokens], [false, false, true])
  assert.deepEqual(affinity, { ttlMs: 5000, mode: 'hard' })
  assert.deepEqual(unapplied, [])
})

test('what a card leaves out has the default of the original, and what is not applied is named', () => {
  const { mode, settings, affinity, unapplied } = configOf({ router_mode: 'round_robin', kv_router_config: { router_replica_sync: true, router_queue_threshold: 1, durable_kv_events: false, router_reset_states: true } })
  assert.equal(mode, 'round-robin')
  assert.equal(settings.overlapScoreCredit, 1)
  assert.equal(affinity, null)
  assert.deepEqual(unapplied, ['router_replica_sync', 'router_queue_threshold'])
})

test('a card that cannot be used says why', () => {
  assert.match(problemOf({ ...recorded, colour: 1 }), /unknown member colour/)
  assert.match(problemOf({ ...recorded, router_mode: 'best' }), /router_mode is "best"/)
  assert.match(problemOf({ ...recorded, kv_router_config: { overlap: 1 } }), /kv_router_config\.overlap is not known/)
  assert.match(problemOf({ ...recorded, kv_router_config: { host_cache_hit_weight: 2 } }), /host_cache_hit_weight is 2, expected a number from 0 to 1/)
  assert.match(problemOf({ ...recorded, kv_router_config: { use_kv_events: 'yes' } }), /use_kv_events is "yes", expected true or false/)
  assert.match(problemOf({ ...recorded, kv_router_config: { durable_kv_events: true } }), /event plane/)
  assert.match(problemOf({ ...recorded, session_affinity_ttl_secs: 0 }), /session_affinity_ttl_secs is 0/)
})
