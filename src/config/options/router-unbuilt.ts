/** Options of Dynamo's router whose mechanism this version lacks: their defaults are accepted, other values end the start. */
import { booleanOption, maybeInteger, maybeNumber, maybeText, integerOption, numberOption, textOption } from '../option.ts'
import type { Option } from '../option.ts'

const unbuilt = 'Not available in this version'
const gone = 'Names of earlier releases'

/** One of the performance model's options; all wait for the same mechanism. */
function aisOption<T extends string | number | null>(name: string, make: (input: Parameters<typeof maybeText>[0]) => Option<T>): Option<T> {
  const env = name.toUpperCase().replaceAll('-', '_')
  return make({
    name: `ais-${name}`, olderNames: name === 'perf-config' ? [] : [{ name: `aic-${name}`, inDynamo16: true }],
    env: [`DYN_AIS_${env}`], olderEnv: name === 'perf-config' ? [] : [`DYN_AIC_${env}`], since: 'Dynamo 1.6', section: unbuilt,
    unavailable: { why: 'prompt work is counted in tokens, without a performance model', mend: 'leave it out' },
    help: `Performance model: ${name}.`,
  })
}
const aisText = (name: string): Option<string | null> => aisOption(name, (input) => maybeText(input))
const aisInteger = (name: string): Option<number | null> =>
  aisOption(name, (input) => maybeInteger(input as Parameters<typeof maybeInteger>[0]))

export const routerUnbuiltOptions = {
  serveIndexer: booleanOption(false, {
    name: 'serve-indexer', env: ['DYN_SERVE_INDEXER'], policyName: 'serve_indexer', section: unbuilt,
    unavailable: { why: 'each router keeps its own index', mend: 'leave it out and let every router read the cache events' },
    help: 'Let other routers ask for cache overlap here.',
  }),
  useRemoteIndexer: booleanOption(false, {
    name: 'use-remote-indexer', env: ['DYN_USE_REMOTE_INDEXER'], policyName: 'use_remote_indexer', section: unbuilt,
    unavailable: { why: 'each router keeps its own index', mend: 'leave it out' },
    help: 'Ask another router for cache overlap.',
  }),
  replicaSync: booleanOption(false, {
    name: 'router-replica-sync', env: ['DYN_ROUTER_REPLICA_SYNC'], policyName: 'router_replica_sync', section: unbuilt,
    unavailable: { why: 'each router counts the requests it routes itself', mend: 'leave it out or run one router per pool' },
    help: 'Share running requests with other routers of the same pool.',
  }),
  durableKvEvents: booleanOption(false, {
    name: 'router-durable-kv-events', olderNames: [{ name: 'durable-kv-events', inDynamo16: false }], env: ['DYN_ROUTER_DURABLE_KV_EVENTS'],
    origin: 'dynamo-removed', removedIn: '1.6', isDeprecatedInDynamo: true, section: unbuilt,
    unavailable: { why: 'events are read from the event plane, not from JetStream', mend: 'leave it out; the index is asked again from the workers at start' },
    help: 'Read cache events from a durable JetStream stream.',
  }),
  queueThreshold: maybeNumber({
    name: 'router-queue-threshold', env: ['DYN_ROUTER_QUEUE_THRESHOLD'], minimum: 0, isNullable: true, isDeprecatedInDynamo: true, section: unbuilt,
    unavailable: { why: 'requests are routed at once', mend: 'leave it out; --active-prefill-tokens-threshold-frac refuses on overload' },
    help: 'Hold requests back while every worker has more prompt work than this fraction of its batch.',
  }),
  queuePolicy: textOption('fcfs', {
    name: 'router-queue-policy', env: ['DYN_ROUTER_QUEUE_POLICY'], choices: ['fcfs', 'wspt'], isDeprecatedInDynamo: true, section: unbuilt,
    unavailable: { why: 'there is no queue', mend: 'leave it out or give fcfs' },
    help: 'Order of requests that are held back.',
  }),
  approximateCachePolicy: textOption('ttl', {
    name: 'router-approximate-cache-policy', env: ['DYN_ROUTER_APPROXIMATE_CACHE_POLICY'], choices: ['ttl', 'lru'], since: 'Dynamo 1.6',
    policyName: 'router_approximate_cache_policy', section: unbuilt,
    unavailable: { why: 'assumed blocks age by time only', mend: 'leave it out or give ttl, with --router-ttl-secs' },
    help: 'How assumed blocks age where no events tell.',
  }),
  predictedTtlSeconds: maybeNumber({
    name: 'router-predicted-ttl-secs', env: ['DYN_ROUTER_PREDICTED_TTL_SECS'], minimum: 0, unit: 'seconds', since: 'Dynamo 1.3',
    isNullable: true, policyName: 'router_predicted_ttl_secs', section: unbuilt,
    unavailable: { why: 'blocks count when their event arrives', mend: 'leave it out' },
    help: 'Assume blocks of a routed request before their event arrives, for this long.',
  }),
  sharedCacheType: textOption('none', {
    name: 'shared-cache-type', env: ['DYN_SHARED_CACHE_TYPE'], choices: ['none', 'hicache'], since: 'Dynamo 1.3', policyName: 'shared_cache_type',
    section: unbuilt, unavailable: { why: 'caches shared between workers are not asked', mend: 'leave it out or give none' },
    help: 'Kind of cache that the workers share.',
  }),
  sharedCacheMultiplier: maybeNumber({
    name: 'shared-cache-multiplier', env: ['DYN_SHARED_CACHE_MULTIPLIER'], minimum: 0, maximum: 1, since: 'Dynamo 1.3', isNullable: true,
    isDeprecatedInDynamo: true, section: unbuilt,
    unavailable: {
      why: 'caches shared between workers are not asked', mend: 'leave it out or give 0',
      refuses: (value) => value !== null && value > 0,
    },
    help: 'What a block in a shared cache is worth.',
  }),
  sessionPrefixIndex: booleanOption(false, {
    name: 'enable-session-prefix-index', env: ['DYN_ENABLE_SESSION_PREFIX_INDEX'], since: 'Dynamo 1.6', policyName: 'enable_session_prefix_index',
    section: unbuilt, unavailable: { why: 'no decision reads it', mend: 'leave it out' },
    help: 'Keep the lineage of blocks per session.',
  }),
  prefillLoadModel: textOption('none', {
    name: 'router-prefill-load-model', env: ['DYN_ROUTER_PREFILL_LOAD_MODEL'], choices: ['none', 'ais'], choiceAliases: { aic: 'ais' },
    policyName: 'router_prefill_load_model', section: unbuilt,
    unavailable: { why: 'prompt work is counted in tokens, without a performance model', mend: 'leave it out or give none' },
    help: 'Model that predicts how prompt work shrinks over time.',
  }),
  prefillPolicy: maybeText({
    name: 'router-prefill-policy', env: ['DYN_ROUTER_PREFILL_POLICY'], since: 'Dynamo 1.6', isDeprecatedInDynamo: true, section: unbuilt,
    unavailable: { why: 'there is one selection policy, default', mend: 'leave it out or give default', refuses: (value) => value !== null && value !== 'default' },
    help: 'Named selection policy for prefill workers.',
  }),
  decodePolicy: maybeText({
    name: 'router-decode-policy', env: ['DYN_ROUTER_DECODE_POLICY'], since: 'Dynamo 1.6', isDeprecatedInDynamo: true, section: unbuilt,
    unavailable: { why: 'there is one selection policy, default', mend: 'leave it out or give default', refuses: (value) => value !== null && value !== 'default' },
    help: 'Named selection policy for decode workers.',
  }),
  workerSelectionPolicy: maybeText({
    name: 'worker-selection-policy', isFlag: false, env: ['DYN_ROUTER_WORKER_SELECTION_POLICY'], since: 'Dynamo 1.6', section: unbuilt,
    unavailable: { why: 'there is one selection policy, default', mend: 'unset it or give default', refuses: (value) => value !== null && value !== 'default' },
    help: 'Named selection policy for all workers.',
  }),
  conditionalDisagg: booleanOption(false, {
    name: 'router-conditional-disagg', env: ['DYN_ROUTER_CONDITIONAL_DISAGG'], since: 'Dynamo 1.6', section: unbuilt,
    unavailable: { why: 'a standalone router routes one pool, in Dynamo too', mend: 'set it on the frontend' },
    help: 'Let short prompts skip remote prefill.',
  }),
  conditionalDisaggConfig: maybeText({
    name: 'router-conditional-disagg-config', env: ['DYN_ROUTER_CONDITIONAL_DISAGG_CONFIG'], since: 'Dynamo 1.6', section: unbuilt,
    unavailable: { why: 'a standalone router routes one pool, in Dynamo too', mend: 'set it on the frontend' },
    help: 'Rules of that, as JSON.',
  }),
  maxTreeSize: integerOption(1048576, {
    name: 'router-max-tree-size', env: ['DYN_ROUTER_MAX_TREE_SIZE'], origin: 'dynamo-removed', removedIn: '1.3', minimum: 0, unit: 'blocks', section: unbuilt,
    unavailable: { why: 'assumed blocks age by time only', mend: 'leave it out; --router-ttl-secs bounds them' },
    help: 'Most assumed blocks.',
  }),
  pruneTargetRatio: numberOption(0.8, {
    name: 'router-prune-target-ratio', env: ['DYN_ROUTER_PRUNE_TARGET_RATIO'], origin: 'dynamo-removed', removedIn: '1.3', minimum: 0, maximum: 1, section: unbuilt,
    unavailable: { why: 'assumed blocks age by time only', mend: 'leave it out; --router-ttl-secs bounds them' },
    help: 'Share of assumed blocks that pruning leaves.',
  }),
  resetStates: booleanOption(false, {
    name: 'router-reset-states', env: ['DYN_ROUTER_RESET_STATES'], origin: 'dynamo-removed', removedIn: '1.6', section: gone,
    noEffect: 'it clears durable JetStream state or the state directory; this version keeps neither and asks the workers for the index at start',
    help: 'Clear durable state at start.',
  }),
  snapshotThreshold: integerOption(1000000, {
    name: 'router-snapshot-threshold', env: ['DYN_ROUTER_SNAPSHOT_THRESHOLD'], origin: 'dynamo-removed', removedIn: '1.6', minimum: 1, section: gone,
    noEffect: 'it says when durable JetStream state or the state directory is snapshot; this version keeps neither and asks the workers for the index at start',
    help: 'Messages between two snapshots of durable state.',
  }),
  aisPerfConfig: aisText('perf-config'),
  aisBackend: aisText('backend'),
  aisSystem: aisText('system'),
  aisBackendVersion: aisText('backend-version'),
  aisTpSize: aisInteger('tp-size'),
  aisModelPath: aisText('model-path'),
  aisMoeTpSize: aisInteger('moe-tp-size'),
  aisMoeEpSize: aisInteger('moe-ep-size'),
  aisAttentionDpSize: aisInteger('attention-dp-size'),
  aisNextn: aisInteger('nextn'),
  aisNextnAcceptRates: aisText('nextn-accept-rates'),
  aisMtpSeed: aisInteger('mtp-seed'),
}
