/** Options of `warmpath frontend`: those of Dynamo's frontend, the router's where they apply, and our own. */
import { booleanOption, integerOption, maybeInteger, maybeNumber, maybeText, textOption, type Option, type OptionInput, type OptionValue } from '../option.ts'
import { disaggOptions } from './disagg.ts'
import { queueOptions } from './queue.ts'
import { httpOptions } from './http.ts'
import { routerCoreOptions } from './router-core.ts'
import { routerOwnOptions } from './router-own.ts'
import { frontendDurableOptions } from './durable.ts'
import { runtimeOptions } from './runtime.ts'
import { selectionOptions } from './selection.ts'

const own = { origin: 'warmpath' as const, since: 'Warmpath 0.2' }
const serving = 'Serving'
const models = 'Models'
const failing = 'When workers fail'
const disagg = 'Prefill and decode'
const overload = 'Overload'
const unbuilt = 'Not available in this version'

/** A flag in the frontend, a variable alone elsewhere. */
const asFlag = <T extends OptionValue>(option: Option<T>): Option<T> => ({ ...option, isFlag: true })

/** What the frontend lacks: another value than the default ends the start. */
const lacking = (why: string, mend = 'leave it out') => ({ section: unbuilt, unavailable: { why, mend } })
const lackingText = (name: string, env: string, why: string, mend?: string) => maybeText({ name, env: [env], ...lacking(why, mend), help: `Dynamo's --${name}.` })
const lackingSwitch = (name: string, env: string, why: string, mend?: string) => booleanOption(false, { name, env: [env], ...lacking(why, mend), help: `Dynamo's --${name}.` })
const idle = (name: string, env: string, noEffect: string, more: Partial<OptionInput<string | null>> = {}) =>
  maybeText({ name, env: [env], section: serving, noEffect, help: 'Accepted for compatibility.', ...more })

const { endpoint: _endpoint, blockSize: _blockSize, ...costOptions } = routerCoreOptions
const { config, onPrefillError, decodeKvReuse, indexMemoryBytes, kvEventGraceSeconds, retryLimit, firstOutputTimeoutSeconds, outputTimeoutSeconds, activeRequestsMax } = routerOwnOptions

export const frontendOptions = {
  config,
  httpPort: integerOption(8000, {
    name: 'http-port', env: ['DYN_HTTP_PORT'], minimum: 0, maximum: 65535, section: serving, help: 'Port of the HTTP API; 0 takes a free one.',
  }),
  httpHost: textOption('0.0.0.0', {
    name: 'http-host', env: ['DYN_HTTP_HOST'], section: serving, help: 'Address that the HTTP API binds. 0.0.0.0 is every interface of the machine; a warning says so.',
  }),
  adminToken: maybeText({
    ...own, name: 'admin-token', env: ['WARMPATH_ADMIN_TOKEN'], isSecret: true, section: serving, defaultText: 'loopback only',
    help: 'What writes to /busy_threshold from other machines must carry as `Authorization: Bearer`.',
  }),
  dynamoErrors: booleanOption(false, {
    ...own, name: 'dynamo-errors', env: ['WARMPATH_DYNAMO_ERRORS'], section: serving,
    help: "Errors in the flat form of Dynamo's frontend instead of OpenAI's nested one.",
  }),
  bodyLimitMb: integerOption(45, {
    name: 'http-body-limit-mb', isFlag: false, env: ['DYN_HTTP_BODY_LIMIT_MB'], minimum: 1, maximum: 2000, unit: 'megabytes', section: serving, help: 'Longest request body.',
  }),
  metricsPrefix: textOption('dynamo_frontend', {
    name: 'metrics-prefix', env: ['DYN_METRICS_PREFIX'], section: serving, help: 'First part of the names of the request metrics in /metrics.',
  }),
  adminApiDisabled: booleanOption(false, {
    name: 'disable-frontend-admin-api', isFlag: false, env: ['DYN_DISABLE_FRONTEND_ADMIN_API'], section: serving, help: 'Do not serve /busy_threshold.',
  }),
  ignoreUnknownParameters: booleanOption(false, {
    name: 'ignore-openai-fe-unsupported-fields', isFlag: false, env: ['DYN_IGNORE_OPENAI_FE_UNSUPPORTED_FIELDS'], section: serving,
    help: 'Pass over unknown request parameters instead of refusing them.',
  }),
  ...httpOptions,
  metadataHeader: textOption('x-dynamo-meta-', {
    name: 'metadata-header', isFlag: false, env: ['DYN_METADATA_HEADER'], section: serving, help: 'Request headers that begin so become metadata of the request.',
  }),
  namespace: maybeText({ name: 'namespace', env: ['DYN_NAMESPACE'], section: models, defaultText: 'all', help: 'Serve only models of exactly this namespace.' }),
  namespacePrefix: maybeText({
    name: 'namespace-prefix', env: ['DYN_NAMESPACE_PREFIX'], section: models, defaultText: 'all', help: 'Serve models of namespaces that begin so; goes before --namespace.',
  }),
  blockSize: maybeInteger({
    name: 'kv-cache-block-size', olderNames: [{ name: 'router-block-size', inDynamo16: false }], env: ['DYN_KV_CACHE_BLOCK_SIZE'], minimum: 1, maximum: 65536, unit: 'tokens',
    section: models, defaultText: "the workers' own", help: "Tokens per KV cache block, for workers whose card does not tell; a card's own size counts.",
  }),
  routerMode: textOption('kv', {
    name: 'router-mode', env: ['DYN_ROUTER_MODE'], choices: ['kv', 'round-robin', 'random', 'power-of-two', 'least-loaded', 'device-aware-weighted', 'direct'],
    section: 'Routing', help: 'How workers are chosen: kv by cached prefix and load (Dynamo\'s default is round-robin); direct takes only requests that name their worker.',
  }),
  requirePrefill: booleanOption(false, {
    ...own, name: 'require-prefill', env: ['WARMPATH_REQUIRE_PREFILL'], section: disagg,
    help: "A model whose workers' needs are not met is not served, also after it once was; otherwise decode workers then compute prompts themselves.",
  }),
  onPrefillError,
  decodeKvReuse,
  migrationLimit: integerOption(3, {
    name: 'migration-limit', env: ['DYN_MIGRATION_LIMIT'], minimum: 0, maximum: 100, section: failing,
    help: "How often a request whose worker is lost in the middle goes on elsewhere, with the tokens so far behind its prompt; Dynamo's default is 0.",
  }),
  retryLimit,
  firstOutputTimeoutSeconds,
  outputTimeoutSeconds,
  indexMemoryBytes,
  kvEventGraceSeconds,
  activeRequestsMax,
  overloadStatus: integerOption(529, {
    name: 'overload-status', env: ['DYN_HTTP_OVERLOAD_STATUS_CODE'], origin: 'dynamo', minimum: 400, maximum: 599, section: overload,
    help: 'HTTP status when every worker is above its busy threshold.',
  }),
  activeDecodeBlocksThreshold: maybeNumber({
    name: 'active-decode-blocks-threshold', env: ['DYN_ACTIVE_DECODE_BLOCKS_THRESHOLD'], minimum: 0, maximum: 1, isNullable: true, section: overload, defaultText: 'off',
    help: 'A worker with more than this share of its blocks in use gets no new requests.',
  }),
  activePrefillTokensThreshold: maybeInteger({
    name: 'active-prefill-tokens-threshold', env: ['DYN_ACTIVE_PREFILL_TOKENS_THRESHOLD'], minimum: 0, isNullable: true, unit: 'tokens', section: overload, defaultText: 'off',
    help: 'A worker with more prompt tokens than this to process gets no new requests.',
  }),
  activePrefillTokensThresholdFraction: maybeNumber({
    name: 'active-prefill-tokens-threshold-frac', env: ['DYN_ACTIVE_PREFILL_TOKENS_THRESHOLD_FRAC'], minimum: 0, isNullable: true, section: overload, defaultText: 'off',
    help: "The same as a multiple of the worker's largest batch.",
  }),
  ...costOptions,
  ...selectionOptions,
  ...queueOptions,
  ...frontendDurableOptions,
  ...disaggOptions,
  discoveryBackend: asFlag(runtimeOptions.discoveryBackend),
  requestPlane: asFlag(runtimeOptions.requestPlane),
  responsePlane: asFlag(runtimeOptions.responsePlane),
  eventPlane: asFlag(runtimeOptions.eventPlane),
  enforceDisagg: booleanOption(false, {
    name: 'enforce-disagg', env: ['DYN_ENFORCE_DISAGG'], section: serving, noEffect: 'Dynamo ignores it too; --require-prefill is the strict form', help: 'Accepted for compatibility.',
  }),
  interactive: lackingSwitch('interactive', 'DYN_INTERACTIVE', 'there is no chat in the terminal', 'use the HTTP API'),
  modelName: lackingText('model-name', 'DYN_MODEL_NAME', 'models are those of the workers'),
  modelPath: lackingText('model-path', 'DYN_MODEL_PATH', "model files are those of the workers' cards"),
  kserveGrpc: lackingSwitch('kserve-grpc-server', 'DYN_KSERVE_GRPC_SERVER', 'there is no gRPC server'),
  grpcMetricsPort: idle('grpc-metrics-port', 'DYN_GRPC_METRICS_PORT', 'there is no gRPC server'),
  dumpConfigTo: lackingText('dump-config-to', 'DYN_DUMP_CONFIG_TO', 'nothing is written', 'use warmpath config print frontend'),
  routeExtension: lackingText('frontend-route-extension', 'DYN_FRONTEND_ROUTE_EXTENSIONS', 'extensions are Python code'),
  toolDispatch: lackingSwitch('enable-streaming-tool-dispatch', 'DYN_ENABLE_STREAMING_TOOL_DISPATCH', 'tool calls are not parsed'),
  reasoningDispatch: lackingSwitch('enable-streaming-reasoning-dispatch', 'DYN_ENABLE_STREAMING_REASONING_DISPATCH', 'reasoning is not parsed'),
  reasoningFieldName: idle('reasoning-field-name', 'DYN_REASONING_FIELD_NAME', 'reasoning is not parsed'),
  excludeTools: idleSwitch('exclude-tools-when-tool-choice-none', 'DYN_EXCLUDE_TOOLS_WHEN_TOOL_CHOICE_NONE', 'the card of the model says it'),
  chatProcessor: textOption('dynamo', {
    name: 'dyn-chat-processor', env: ['DYN_CHAT_PROCESSOR'], choices: ['dynamo', 'vllm', 'sglang'], ...lacking('templates and tokens are made here'), help: "Dynamo's --dyn-chat-processor.",
  }),
  debugPerf: idleSwitch('dyn-debug-perf', 'DYN_DEBUG_PERF', '/metrics tells the time of each stage'),
  preprocessWorkers: idle('dyn-preprocess-workers', 'DYN_PREPROCESS_WORKERS', 'long prompts are tokenized off the event loop anyway'),
  tokenizer: idle('tokenizer', 'DYN_TOKENIZER', 'there is one tokenizer, equal to the Hugging Face one'),
  tokenizerFallback: booleanOption(true, {
    name: 'tokenizer-fallback', env: ['DYN_TOKENIZER_FALLBACK'], section: serving, noEffect: 'there is one tokenizer, equal to the Hugging Face one', help: 'Accepted for compatibility.',
  }),
  trustRemoteCode: lackingSwitch('trust-remote-code', 'DYN_TRUST_REMOTE_CODE', 'no code of a model is run'),
}

function idleSwitch(name: string, env: string, noEffect: string): Option<boolean> {
  return booleanOption(false, { name, env: [env], section: serving, noEffect, help: 'Accepted for compatibility.' })
}
