/** `router_config` of a prefill worker's card: what replaces this router's own settings for the prefill stage. Source: Dynamo 1.6.1 `RouterConfig`. */
import type { AffinityRules } from '../affinity/affinity-table.ts'
import type { JsonObject } from '../ports.ts'
import type { RouterSettings } from '../router/contract.ts'
import { defaultRouterSettings } from '../router/settings.ts'

type Mode = NonNullable<RouterSettings['selectionMode']>

/** Settings that a card lays down, with the defaults for what it leaves out. */
export interface CardRouterConfig {
  /** Null: by cached prefix and load. */
  readonly mode: Mode | null
  /** Without block size, role and tracking hash, which are the pool's. */
  readonly settings: Omit<RouterSettings, 'blockSize' | 'isEagle' | 'role' | 'tracking' | 'selectionMode' | 'queue' | 'selectionPolicy'>
  readonly affinity: AffinityRules | null
  /** Members with another value than the default that are not applied. */
  readonly unapplied: readonly string[]
}

export type ParsedCardConfig = { readonly kind: 'config'; readonly config: CardRouterConfig } | { readonly kind: 'problem'; readonly problem: string }

type NumberKey = 'overlapScoreCredit' | 'overlapScoreCreditDecay' | 'prefillLoadScale' | 'decodeActiveRequestWeight' | 'hostCacheHitWeight' | 'diskCacheHitWeight' | 'temperature' | 'ttlSeconds'
type FlagKey = 'useKvEvents' | 'assumeKvReuse' | 'trackPrefillTokens'
type ThresholdKey = 'activeDecodeBlocksThreshold' | 'activePrefillTokensThreshold' | 'activePrefillTokensThresholdFraction'
interface NumberField {
  readonly key: NumberKey
  readonly max: number
}
const unbounded = Number.MAX_VALUE
const numberFields: Readonly<Record<string, NumberField>> = {
  overlap_score_credit: { key: 'overlapScoreCredit', max: unbounded }, overlap_score_credit_decay: { key: 'overlapScoreCreditDecay', max: unbounded },
  prefill_load_scale: { key: 'prefillLoadScale', max: unbounded }, decode_active_request_weight: { key: 'decodeActiveRequestWeight', max: unbounded },
  host_cache_hit_weight: { key: 'hostCacheHitWeight', max: 1 }, disk_cache_hit_weight: { key: 'diskCacheHitWeight', max: 1 },
  router_temperature: { key: 'temperature', max: unbounded }, router_ttl_secs: { key: 'ttlSeconds', max: unbounded },
}
const booleanFields: Readonly<Record<string, FlagKey>> = {
  use_kv_events: 'useKvEvents', router_assume_kv_reuse: 'assumeKvReuse', router_track_prefill_tokens: 'trackPrefillTokens',
}
/** Never true for the prefill stage, whatever the card says. */
const forcedOff = ['router_track_active_blocks', 'router_track_output_blocks']
/** Known members that are not applied, with their defaults. */
const unappliedDefaults: Readonly<Record<string, unknown>> = {
  router_replica_sync: false, router_prefill_load_model: 'none', router_queue_threshold: null, router_queue_policy: 'fcfs', router_policy_config: null,
  router_approximate_cache_policy: 'ttl', router_predicted_ttl_secs: null, use_remote_indexer: false, serve_indexer: false, shared_cache_type: 'none',
  shared_cache_multiplier: null, enable_session_prefix_index: false, router_prefill_policy: null, router_decode_policy: null, router_tracking_hash: 'public-xxh3-v1',
  router_tracking_key_file: null, router_tracking_key_id: null, conditional_disagg_enabled: false,
}
/** What speaks of threads, start-up or a mechanism that is off by the member above. */
const ignored = [
  'router_event_threads', 'skip_initial_worker_wait', 'router_snapshot_threshold', 'router_reset_states', 'overlap_score_weight', 'conditional_disagg_policy',
  'conditional_disagg_eff_isl_threshold', 'conditional_disagg_eff_isl_ratio_threshold', 'conditional_disagg_prefill_busy_threshold',
  'conditional_disagg_decode_busy_threshold', 'session_affinity_soft',
]
const outerMembers = ['router_mode', 'kv_router_config', 'load_threshold_config', 'enforce_disagg', 'session_affinity_ttl_secs', 'session_affinity_mode']
const thresholdFields = {
  active_decode_blocks_threshold: 'activeDecodeBlocksThreshold', active_prefill_tokens_threshold: 'activePrefillTokensThreshold',
  active_prefill_tokens_threshold_frac: 'activePrefillTokensThresholdFraction',
} as const
const modes: Readonly<Record<string, Mode | null>> = {
  kv: null, roundrobin: 'round-robin', random: 'random', poweroftwo: 'power-of-two', poweroftwochoices: 'power-of-two', leastloaded: 'least-loaded',
  deviceawareweighted: 'device-aware-weighted', direct: 'direct',
}

/** Thrown inside; becomes a problem. */
class CardConfigError extends Error {}

const objectOf = (value: unknown, at: string): JsonObject => {
  if (value === undefined || value === null) return {}
  if (typeof value !== 'object' || Array.isArray(value)) throw new CardConfigError(`${at} is ${JSON.stringify(value)}, expected an object`)
  return value as JsonObject
}

function numberOf(value: unknown, at: string, max: number): number {
  if (typeof value === 'number' && Number.isFinite(value) && value >= 0 && value <= max) return value
  throw new CardConfigError(`${at} is ${JSON.stringify(value)}, expected a number ${max === 1 ? 'from 0 to 1' : 'of 0 or more'}`)
}

/** Reads a card's `router_config`. Unknown members are a problem, as in Dynamo. */
export function parseCardRouterConfig(value: JsonObject): ParsedCardConfig {
  try {
    return { kind: 'config', config: read(value) }
  } catch (error) {
    if (error instanceof CardConfigError) return { kind: 'problem', problem: error.message }
    throw error
  }
}

function read(value: JsonObject): CardRouterConfig {
  const unknown = Object.keys(value).find((name) => !outerMembers.includes(name))
  if (unknown !== undefined) throw new CardConfigError(`router_config has an unknown member ${unknown}`)
  const { blockSize: _size, isEagle: _eagle, role: _role, tracking: _tracking, selectionMode: _mode, queue: _queue, selectionPolicy: _policy, ...defaults } = defaultRouterSettings
  const unapplied: string[] = []
  const kv = readKv(objectOf(value['kv_router_config'], 'router_config.kv_router_config'), unapplied)
  const thresholds: Partial<Record<ThresholdKey, number>> = {}
  const given = objectOf(value['load_threshold_config'], 'router_config.load_threshold_config')
  for (const [name, key] of Object.entries(thresholdFields)) {
    const threshold = given[name] ?? null
    if (threshold !== null) thresholds[key] = numberOf(threshold, `router_config.load_threshold_config.${name}`, unbounded)
  }
  return {
    mode: modeOf(value['router_mode']), affinity: affinityOf(value), unapplied,
    settings: { ...defaults, ...kv, ...thresholds, trackActiveBlocks: false, trackOutputBlocks: false },
  }
}

function readKv(given: JsonObject, unapplied: string[]): Partial<Record<NumberKey, number> & Record<FlagKey, boolean>> {
  const settings: Partial<Record<NumberKey, number> & Record<FlagKey, boolean>> = {}
  for (const [name, value] of Object.entries(given)) {
    const at = `router_config.kv_router_config.${name}`
    const number = numberFields[name]
    const flag = booleanFields[name]
    if (number !== undefined) settings[number.key] = numberOf(value, at, number.max)
    else if (flag !== undefined) {
      if (typeof value !== 'boolean') throw new CardConfigError(`${at} is ${JSON.stringify(value)}, expected true or false`)
      settings[flag] = value
    } else if (name === 'durable_kv_events') {
      if (value === true) throw new CardConfigError(`${at} is true: events are read from the event plane only`)
    } else if (Object.hasOwn(unappliedDefaults, name)) {
      if ((value ?? null) !== unappliedDefaults[name]) unapplied.push(name)
    } else if (!forcedOff.includes(name) && !ignored.includes(name)) throw new CardConfigError(`${at} is not known`)
  }
  return settings
}

function modeOf(value: unknown): Mode | null {
  const name = typeof value === 'string' ? value.toLowerCase().replace(/[^a-z]/g, '') : ''
  const mode = Object.hasOwn(modes, name) ? modes[name] : undefined
  if (mode === undefined) throw new CardConfigError(`router_config.router_mode is ${JSON.stringify(value)}, expected one of ${Object.keys(modes).join(', ')}`)
  return mode
}

function affinityOf(value: JsonObject): AffinityRules | null {
  const ttl = value['session_affinity_ttl_secs'] ?? null
  if (ttl === null) return null
  const seconds = numberOf(ttl, 'router_config.session_affinity_ttl_secs', 31_536_000)
  if (!Number.isInteger(seconds) || seconds < 1) throw new CardConfigError(`router_config.session_affinity_ttl_secs is ${seconds}, expected a whole number from 1 to 31536000`)
  const mode = value['session_affinity_mode'] ?? 'hard'
  if (mode !== 'hard' && mode !== 'soft') throw new CardConfigError(`router_config.session_affinity_mode is ${JSON.stringify(mode)}, expected hard or soft`)
  return { ttlMs: 1000 * seconds, mode }
}
