/** Options that Dynamo's standalone router does not have. */
import { booleanOption, endpointOption, integerOption, maybeInteger, maybeNumber, maybePath, maybeText, numberOption, textOption } from '../option.ts'

const warmpath = { origin: 'warmpath' as const, since: 'Warmpath 0.1' }
const serving = 'Serving'
const failing = 'When workers fail'
const overload = 'Overload'
const disagg = 'Prefill and decode'

/** Shared by all commands. */
export const configFileOption = maybePath({
  ...warmpath, name: 'config', env: ['WARMPATH_CONFIG'], section: 'Configuration',
  help: 'YAML file with values for these options, keyed by their names. Flags and environment win over it.',
})

export const routerOwnOptions = {
  config: configFileOption,
  component: textOption('router', {
    ...warmpath, name: 'component', env: ['WARMPATH_COMPONENT'], section: serving,
    help: "Component name under which the router serves. Two routers in one namespace need two names, or they share each other's clients.",
  }),
  force: booleanOption(false, {
    ...warmpath, name: 'force', env: ['WARMPATH_FORCE'], section: serving,
    help: 'Start although another router serves the same name for another target.',
  }),
  prefillEndpoint: endpointOption({
    ...warmpath, name: 'prefill-endpoint', env: ['WARMPATH_PREFILL_ENDPOINT'], section: disagg, defaultText: 'one stage',
    help: 'Workers that compute prompts first, as namespace.component.endpoint; --endpoint then names the decode workers. Prefill, hand-over and decode happen inside.',
  }),
  onPrefillError: textOption('retry,decode-only', {
    ...warmpath, name: 'on-prefill-error', env: ['WARMPATH_ON_PREFILL_ERROR'], section: disagg, choices: ['retry,decode-only', 'retry', 'decode-only', 'fail'], needs: ['prefillEndpoint'],
    help: 'What follows a failed prefill: another prefill worker, then the decode worker alone; or less than that.',
  }),
  decodeKvReuse: booleanOption(false, {
    ...warmpath, name: 'decode-kv-reuse', env: ['WARMPATH_DECODE_KV_REUSE'], section: disagg, needs: ['prefillEndpoint'],
    help: 'After a hand-over, count prompt blocks that several requests share once in the load of a decode worker.',
  }),
  migrationLimit: integerOption(0, {
    ...warmpath, name: 'migration-limit', env: ['WARMPATH_MIGRATION_LIMIT'], minimum: 0, maximum: 100, section: failing,
    help: 'How often a request whose worker is lost in the middle goes on elsewhere, with the tokens so far behind its prompt.',
  }),
  registerModel: maybeText({
    ...warmpath, name: 'register-model', env: ['WARMPATH_REGISTER_MODEL'], section: serving,
    help: "Publish a model card of this name, made from a worker's, so that a frontend can use the router as its model.",
  }),
  httpPort: maybeInteger({
    ...warmpath, name: 'http-port', env: ['WARMPATH_HTTP_PORT'], minimum: 0, maximum: 65535, section: serving, defaultText: 'off',
    help: 'Serve the three endpoints as JSON over HTTP on this port too; 0 takes a free one.',
  }),
  httpHost: textOption('127.0.0.1', {
    ...warmpath, name: 'http-host', env: ['WARMPATH_HTTP_HOST'], section: serving, needs: ['httpPort'], help: 'Address that the HTTP port binds.',
  }),
  strictBlockSize: booleanOption(false, {
    ...warmpath, name: 'strict-block-size', env: ['WARMPATH_STRICT_BLOCK_SIZE'], section: 'Target',
    help: "Leave out workers whose block size differs from --router-block-size, where otherwise the workers' size is used with a warning.",
  }),
  indexMemoryBytes: maybeInteger({
    ...warmpath, name: 'index-memory', env: ['WARMPATH_INDEX_MEMORY'], unit: 'bytes', minimum: 8_388_608, section: 'What is tracked', defaultText: 'no budget',
    help: 'Memory that the prefix index of a pool may reserve; beyond it, ends of prompts that no request and no event has used for longest are forgotten.',
  }),
  kvEventGraceSeconds: numberOption(5, {
    ...warmpath, name: 'kv-event-grace', env: ['WARMPATH_KV_EVENT_GRACE'], unit: 'seconds', minimum: 0, section: 'What is tracked',
    help: 'How long a worker may serve without publishing cache events before its cache is assumed from what was routed to it.',
  }),
  retryLimit: integerOption(2, {
    ...warmpath, name: 'retry-limit', env: ['WARMPATH_RETRY_LIMIT'], minimum: 0, maximum: 100, section: failing,
    help: 'How often a request that failed before its first output is tried on another worker.',
  }),
  firstOutputTimeoutSeconds: numberOption(600, {
    ...warmpath, name: 'first-output-timeout', env: ['WARMPATH_FIRST_OUTPUT_TIMEOUT', 'DYN_HTTP_BACKEND_STREAM_TIMEOUT_SECS'], unit: 'seconds',
    minimum: 0, section: failing, help: 'Longest wait for the first output of a worker; 0 waits for ever.',
  }),
  outputTimeoutSeconds: numberOption(120, {
    ...warmpath, name: 'output-timeout', env: ['WARMPATH_OUTPUT_TIMEOUT', 'DYN_HTTP_BACKEND_STREAM_TIMEOUT_SECS'], unit: 'seconds',
    minimum: 0, section: failing, help: 'Longest silence between two outputs; 0 waits for ever.',
  }),
  activeRequestsMax: integerOption(16_384, {
    ...warmpath, name: 'active-requests-max', env: ['WARMPATH_ACTIVE_REQUESTS_MAX'], minimum: 1, maximum: 1_000_000, unit: 'requests', section: overload,
    help: 'Most requests that the router carries at once; further ones are refused.',
  }),
  activeDecodeBlocksThreshold: maybeNumber({
    ...warmpath, name: 'active-decode-blocks-threshold', env: ['WARMPATH_ACTIVE_DECODE_BLOCKS_THRESHOLD'], minimum: 0, maximum: 1, isNullable: true,
    section: overload, defaultText: 'off', help: 'A worker with more than this share of its blocks in use gets no new requests.',
  }),
  activePrefillTokensThreshold: maybeInteger({
    ...warmpath, name: 'active-prefill-tokens-threshold', env: ['WARMPATH_ACTIVE_PREFILL_TOKENS_THRESHOLD'], minimum: 0, isNullable: true,
    unit: 'tokens', section: overload, defaultText: 'off', help: 'A worker with more prompt tokens than this to process gets no new requests.',
  }),
  activePrefillTokensThresholdFraction: maybeNumber({
    ...warmpath, name: 'active-prefill-tokens-threshold-frac', env: ['WARMPATH_ACTIVE_PREFILL_TOKENS_THRESHOLD_FRAC'], minimum: 0, isNullable: true,
    section: overload, defaultText: 'off', help: "The same as a multiple of the worker's largest batch.",
  }),
}
