/** Options of Dynamo's router about who is selected by what: named policies, assumed and shared caches, the prefill load model. */
import { booleanOption, maybeInteger, maybeNumber, maybePath, maybeText, numberOption, textOption } from '../option.ts'
import type { Option, OptionInput } from '../option.ts'

const cost = 'Cost of a worker'
const state = 'What is tracked'

/** One of the predictor's options that a table of durations replaces. */
function aisOption<T extends string | number | null>(name: string, make: (input: OptionInput<T>) => Option<T>): Option<T> {
  const env = name.toUpperCase().replaceAll('-', '_')
  return make({
    name: `ais-${name}`, olderNames: [{ name: `aic-${name}`, inDynamo16: true }], env: [`DYN_AIS_${env}`], olderEnv: [`DYN_AIC_${env}`],
    since: 'Dynamo 1.6', section: 'Not available in this version',
    unavailable: { why: "NVIDIA's predictor is not built in; durations come from a table or are measured", mend: 'leave it out and give --ais-perf-config, a table of durations' },
    help: `Performance model: ${name}.`,
  } as OptionInput<T>)
}
const aisText = (name: string): Option<string | null> => aisOption<string | null>(name, maybeText)
const aisInteger = (name: string): Option<number | null> => aisOption<number | null>(name, maybeInteger)

const policyName = (name: string, env: string, workers: string, isFlag = true): Option<string | null> => maybeText({
  name, env: [env], isFlag, since: 'Dynamo 1.6', isDeprecatedInDynamo: isFlag, section: cost, defaultText: 'the policy file, else default',
  help: `Named selection policy for ${workers}: an instance of worker_selection in --router-policy-config, or default.`,
})

export const selectionOptions = {
  prefillPolicy: policyName('router-prefill-policy', 'DYN_ROUTER_PREFILL_POLICY', 'prefill workers'),
  decodePolicy: policyName('router-decode-policy', 'DYN_ROUTER_DECODE_POLICY', 'all other workers'),
  workerSelectionPolicy: policyName('worker-selection-policy', 'DYN_ROUTER_WORKER_SELECTION_POLICY', 'all workers', false),
  approximateCachePolicy: textOption('ttl', {
    name: 'router-approximate-cache-policy', env: ['DYN_ROUTER_APPROXIMATE_CACHE_POLICY'], choices: ['ttl', 'lru'], since: 'Dynamo 1.6',
    policyName: 'router_approximate_cache_policy', section: state,
    help: 'How assumed blocks age without events: by --router-ttl-secs, or, where a worker tells its capacity, when room is needed (lru, needs --no-router-kv-events).',
  }),
  predictedTtlSeconds: maybeNumber({
    name: 'router-predicted-ttl-secs', env: ['DYN_ROUTER_PREDICTED_TTL_SECS'], minimum: 0, unit: 'seconds', since: 'Dynamo 1.3', defaultText: 'off',
    isNullable: true, policyName: 'router_predicted_ttl_secs', section: state,
    help: 'Count blocks of a routed request on its worker before their event arrives, for this long. Needs --router-kv-events.',
  }),
  maxTreeSize: maybeInteger({
    name: 'router-max-tree-size', env: ['DYN_ROUTER_MAX_TREE_SIZE'], origin: 'dynamo-removed', removedIn: '1.3', minimum: 1, unit: 'blocks',
    section: state, defaultText: 'off', help: 'Most assumed blocks that age by time; the oldest go when there are more. Releases before 1.3 had 1048576.',
  }),
  pruneTargetRatio: numberOption(0.8, {
    name: 'router-prune-target-ratio', env: ['DYN_ROUTER_PRUNE_TARGET_RATIO'], origin: 'dynamo-removed', removedIn: '1.3', minimum: 0, maximum: 1,
    section: state, help: 'Share of --router-max-tree-size that is left when the oldest assumed blocks go.',
  }),
  sharedCacheType: textOption('none', {
    name: 'shared-cache-type', env: ['DYN_SHARED_CACHE_TYPE'], choices: ['none', 'hicache'], since: 'Dynamo 1.3', policyName: 'shared_cache_type',
    section: cost,
    help: 'Cache that the workers share: hicache follows the Mooncake master that SGLang workers name in their cards.',
  }),
  sharedCacheMultiplier: maybeNumber({
    name: 'shared-cache-multiplier', env: ['DYN_SHARED_CACHE_MULTIPLIER'], minimum: 0, maximum: 1, since: 'Dynamo 1.3', isNullable: true,
    isDeprecatedInDynamo: true, section: cost, defaultText: '0.5 with a shared cache',
    help: 'What a block in a shared cache is worth beside one in device memory.',
  }),
  sessionPrefixIndex: booleanOption(false, {
    name: 'enable-session-prefix-index', env: ['DYN_ENABLE_SESSION_PREFIX_INDEX'], since: 'Dynamo 1.6', policyName: 'enable_session_prefix_index',
    section: state, noEffect: 'no decision and no answer reads that index, in Dynamo neither', help: 'Accepted for compatibility. Needs --router-kv-events.',
  }),
  prefillLoadModel: textOption('none', {
    name: 'router-prefill-load-model', env: ['DYN_ROUTER_PREFILL_LOAD_MODEL'], choices: ['none', 'ais', 'measured'], choiceAliases: { aic: 'ais' },
    policyName: 'router_prefill_load_model', section: state,
    help: 'How prompt work shrinks while it is done: not, by a table of durations (ais, needs --ais-perf-config), or by what was measured per worker.',
  }),
  aisPerfConfig: maybePath({
    name: 'ais-perf-config', env: ['DYN_AIS_PERF_CONFIG'], since: 'Dynamo 1.6', section: state,
    help: 'File with durations of prompts for --router-prefill-load-model ais: YAML or JSON with prefill_durations, pairs of tokens and milliseconds.',
  }),
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
