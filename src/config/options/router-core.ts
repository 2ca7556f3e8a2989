/** Options of the router that Dynamo's standalone router has, or had, and that this version carries out. */
import { booleanOption, endpointOption, integerOption, maybeInteger, maybeNumber, maybePath, maybeText, numberOption, textOption } from '../option.ts'

const older = (name: string) => [{ name, inDynamo16: true }]
const target = 'Target'
const cost = 'Cost of a worker'
const state = 'What is tracked'

export const routerCoreOptions = {
  endpoint: endpointOption({
    name: 'endpoint', env: ['DYN_ROUTER_ENDPOINT'], section: target, defaultText: 'required',
    help: 'Workers to route to, as namespace.component.endpoint.',
  }),
  blockSize: maybeInteger({
    name: 'router-block-size', olderNames: older('block-size'), env: ['DYN_ROUTER_BLOCK_SIZE'], unit: 'tokens', minimum: 1, maximum: 65536,
    section: target, defaultText: "the workers' own",
    help: "Tokens per KV cache block. Left out, it is read from the workers' model cards; a worker without a card needs it.",
  }),
  overlapScoreCredit: numberOption(1, {
    name: 'router-kv-overlap-score-credit', env: ['DYN_ROUTER_KV_OVERLAP_SCORE_CREDIT'], minimum: 0, since: 'Dynamo 1.3',
    isDeprecatedInDynamo: true, section: cost,
    help: 'How much of the prompt work a block in device memory saves. Above 1 a warm worker is preferred beyond the work it saves.',
  }),
  overlapScoreCreditDecay: numberOption(0, {
    name: 'router-kv-overlap-score-credit-decay', env: ['DYN_ROUTER_KV_OVERLAP_SCORE_CREDIT_DECAY'], minimum: 0, since: 'Dynamo 1.3',
    isDeprecatedInDynamo: true, section: cost,
    help: 'How fast that credit fades on a worker with more prompt work than the least loaded one; 1 halves it at one prompt of excess.',
  }),
  overlapScoreWeight: maybeNumber({
    name: 'router-kv-overlap-score-weight', olderNames: older('kv-overlap-score-weight'),
    env: ['DYN_ROUTER_KV_OVERLAP_SCORE_WEIGHT', 'DYN_OVERLAP_SCORE_WEIGHT'], minimum: 0, replacement: '--router-prefill-load-scale',
    isDeprecatedInDynamo: true, isHidden: true, section: cost,
    help: 'Name of earlier releases: sets --router-prefill-load-scale; 0 also sets the overlap credit to 0.',
  }),
  prefillLoadScale: numberOption(1, {
    name: 'router-prefill-load-scale', env: ['DYN_ROUTER_PREFILL_LOAD_SCALE'], minimum: 0, since: 'Dynamo 1.3', isDeprecatedInDynamo: true,
    section: cost, help: 'Weight of prompt work against decode blocks. Higher favours time to first token; 0 routes by decode load alone.',
  }),
  decodeActiveRequestWeight: numberOption(0, {
    name: 'router-decode-active-request-weight', env: ['DYN_ROUTER_DECODE_ACTIVE_REQUEST_WEIGHT'], minimum: 0, since: 'Dynamo 1.6',
    isDeprecatedInDynamo: true, section: cost, unit: 'blocks', help: 'Cost of each request that a worker already serves, in blocks.',
  }),
  hostCacheHitWeight: numberOption(0.75, {
    name: 'router-host-cache-hit-weight', env: ['DYN_ROUTER_HOST_CACHE_HIT_WEIGHT'], minimum: 0, maximum: 1, since: 'Dynamo 1.3',
    policyName: 'host_cache_hit_weight', section: cost, help: 'What a block in host memory is worth beside one in device memory.',
  }),
  diskCacheHitWeight: numberOption(0.25, {
    name: 'router-disk-cache-hit-weight', env: ['DYN_ROUTER_DISK_CACHE_HIT_WEIGHT'], minimum: 0, maximum: 1, since: 'Dynamo 1.3',
    policyName: 'disk_cache_hit_weight', section: cost, help: 'What a block on disk or in an external store is worth beside one in device memory.',
  }),
  temperature: numberOption(0, {
    name: 'router-temperature', env: ['DYN_ROUTER_TEMPERATURE'], minimum: 0, isDeprecatedInDynamo: true, section: cost,
    help: 'Spread of the choice: 0 takes the cheapest worker, more draws among all of them by cost.',
  }),
  useKvEvents: booleanOption(true, {
    name: 'router-kv-events', olderNames: older('kv-events'), env: ['DYN_ROUTER_USE_KV_EVENTS'], policyName: 'use_kv_events', section: state,
    help: 'Learn from cache events of the workers what they hold. Off: assume that a worker holds what was sent to it, for --router-ttl-secs.',
  }),
  ttlSeconds: numberOption(120, {
    name: 'router-ttl-secs', env: ['DYN_ROUTER_TTL_SECS'], unit: 'seconds', minimum: 0, policyName: 'router_ttl_secs', section: state,
    help: 'How long a block is assumed to be cached where no events tell.',
  }),
  trackActiveBlocks: booleanOption(true, {
    name: 'router-track-active-blocks', olderNames: older('track-active-blocks'), env: ['DYN_ROUTER_TRACK_ACTIVE_BLOCKS'],
    policyName: 'router_track_active_blocks', section: state, help: 'Count the blocks of running requests as load.',
  }),
  trackOutputBlocks: booleanOption(false, {
    name: 'router-track-output-blocks', olderNames: older('track-output-blocks'), env: ['DYN_ROUTER_TRACK_OUTPUT_BLOCKS'],
    policyName: 'router_track_output_blocks', section: state,
    help: 'Count the blocks of the output as it grows too. Needs --router-track-active-blocks.',
  }),
  assumeKvReuse: booleanOption(true, {
    name: 'router-assume-kv-reuse', olderNames: older('assume-kv-reuse'), env: ['DYN_ROUTER_ASSUME_KV_REUSE'],
    policyName: 'router_assume_kv_reuse', section: state, help: 'Count a prefix that several running requests of a worker share once.',
  }),
  trackPrefillTokens: booleanOption(true, {
    name: 'router-track-prefill-tokens', env: ['DYN_ROUTER_TRACK_PREFILL_TOKENS'], policyName: 'router_track_prefill_tokens', section: state,
    help: 'Count prompt tokens that are not yet processed as load.',
  }),
  trackingHash: textOption('public-xxh3-v1', {
    name: 'router-tracking-hash', env: ['DYN_ROUTER_TRACKING_HASH'], choices: ['public-xxh3-v1', 'keyed-xxh3-v1'], since: 'Dynamo 1.6',
    policyName: 'router_tracking_hash', section: state, help: 'How running requests are identified when shared prefixes are counted.',
  }),
  trackingKeyFile: maybePath({
    name: 'router-tracking-key-file', env: ['DYN_ROUTER_TRACKING_KEY_FILE'], since: 'Dynamo 1.6', policyName: 'router_tracking_key_file',
    section: state, help: 'File with the 32 raw bytes of the key for keyed-xxh3-v1.',
  }),
  trackingKeyId: maybeText({
    name: 'router-tracking-key-id', env: ['DYN_ROUTER_TRACKING_KEY_ID'], since: 'Dynamo 1.6', policyName: 'router_tracking_key_id',
    section: state, help: 'Name of that key; part of what is hashed.',
  }),
  loadAware: booleanOption(false, {
    name: 'load-aware', env: ['DYN_ROUTER_LOAD_AWARE'], since: 'Dynamo 1.3', isDeprecatedInDynamo: true, section: cost,
    help: 'Preset that routes by load alone: no overlap credit, no cache events, no assumed reuse, active blocks and prompt tokens tracked.',
  }),
  policyConfig: maybePath({
    name: 'router-policy-config', env: ['DYN_ROUTER_POLICY_CONFIG'], since: 'Dynamo 1.3', section: target,
    help: 'YAML file whose `router:` mapping overrides flags and environment. `worker_selection` names selection policies; `policy_classes` and what goes with them make classes of waiting requests, for all models or, under `models`, for one.',
  }),
  eventThreads: integerOption(4, {
    name: 'router-event-threads', env: ['DYN_ROUTER_EVENT_THREADS'], minimum: 1, policyName: 'router_event_threads', section: state,
    noEffect: 'Warmpath applies cache events on one thread',
    help: 'Accepted for compatibility.',
  }),
}
