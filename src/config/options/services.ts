/** Options of the services over HTTP: selection service, indexer, slot tracker. Names and defaults are Dynamo's. */
import { booleanOption, integerOption, maybeInteger, maybePath, maybeText, textOption } from '../option.ts'
import { disaggOptions } from './disagg.ts'
import { queueOptions } from './queue.ts'
import { routerCoreOptions } from './router-core.ts'
import { configFileOption } from './router-own.ts'
import { routerRuntimeOptions, runtimeOptions } from './runtime.ts'
import { selectionOptions } from './selection.ts'

const since = 'Dynamo 1.6'
const serving = 'Serving'
const replicas = 'Replicas'
const sessions = 'Sessions'
const pending = 'Selections that are not booked yet'
const workers = 'Workers at start'
const own = { origin: 'warmpath' as const, since: 'Warmpath 0.3' }

const port = (value: number) => integerOption(value, { name: 'port', since, minimum: 0, maximum: 65535, section: serving, help: 'Port to serve on; 0 takes a free one.' })

/** Dynamo's services listen on all addresses, so these do; it is said at start. */
const host = textOption('0.0.0.0', {
  ...own, name: 'host', env: ['WARMPATH_SERVICE_HOST'], section: serving,
  help: 'Address to bind. Nobody is asked for a key: bind 127.0.0.1, or an address that only trusted callers reach.',
})
const drainSeconds = integerOption(10, {
  ...own, name: 'drain-timeout', env: ['WARMPATH_SERVICE_DRAIN_TIMEOUT'], minimum: 0, maximum: 3600, unit: 'seconds', section: serving,
  help: 'How long open calls may take to end after SIGTERM.',
})
const threads = integerOption(4, {
  name: 'threads', since, minimum: 1, section: serving, noEffect: 'cache events are applied on one thread', help: 'Accepted for compatibility.',
})

const replicaOptions = {
  replicaSyncPort: maybeInteger({
    name: 'replica-sync-port', since, minimum: 1, maximum: 65535, section: replicas, defaultText: 'off',
    help: 'Port on which running requests (and bindings of sessions) are told to replicas, over ZeroMQ.',
  }),
  replicaSyncPeers: maybeText({
    name: 'replica-sync-peers', since, section: replicas, help: 'Replicas that are listened to, as tcp://HOST:PORT separated by commas; Dynamo\'s too. Needs --replica-sync-port.',
  }),
}

const {
  overlapScoreCredit, overlapScoreCreditDecay, overlapScoreWeight, prefillLoadScale, decodeActiveRequestWeight, hostCacheHitWeight, diskCacheHitWeight,
  temperature, useKvEvents, ttlSeconds, assumeKvReuse, trackPrefillTokens, trackingHash, trackingKeyFile, trackingKeyId, policyConfig, eventThreads,
} = routerCoreOptions
const { workerSelectionPolicy, prefillPolicy, decodePolicy, predictedTtlSeconds, maxTreeSize, pruneTargetRatio, prefillLoadModel, aisPerfConfig } = selectionOptions
const { conditionalDisagg, conditionalDisaggConfig } = disaggOptions

const routingOptions = {
  overlapScoreCredit, overlapScoreCreditDecay, overlapScoreWeight, prefillLoadScale, decodeActiveRequestWeight, hostCacheHitWeight, diskCacheHitWeight,
  temperature, useKvEvents, ttlSeconds, predictedTtlSeconds, maxTreeSize, pruneTargetRatio, assumeKvReuse, trackPrefillTokens,
  trackingHash, trackingKeyFile, trackingKeyId, policyConfig, eventThreads, workerSelectionPolicy, prefillPolicy, decodePolicy, prefillLoadModel, aisPerfConfig,
  approximateCachePolicy: {
    ...selectionOptions.approximateCachePolicy,
    help: 'Accepted for compatibility: this service knows assumed blocks by their time alone, as the original does; lru is warned of.',
  },
  ...queueOptions,
  queuePolicy: { ...queueOptions.queuePolicy, choices: ['fcfs', 'wspt', 'lcfs'] },
  conditionalDisagg: { ...conditionalDisagg, help: 'With the rules below, answers tell whether the chosen worker is busy (decode_busy, prefill_busy).' },
  conditionalDisaggConfig,
}

export const selectServiceOptions = {
  config: configFileOption,
  port: port(8092), host, drainSeconds, threads,
  indexerPeers: maybeText({ name: 'indexer-peers', since, section: replicas, help: 'Selection services or indexers whose index is read at start, as http://HOST:PORT separated by commas; the first that answers counts.' }),
  ...replicaOptions,
  sessionAffinityTtlSeconds: maybeInteger({
    name: 'session-affinity-ttl-secs', since, minimum: 1, maximum: 31_536_000, unit: 'seconds', isNullable: true, section: sessions, defaultText: 'off',
    help: 'Keep the requests of a session (session_id) on one worker until the session was idle for so long.',
  }),
  cacheTtlSeconds: integerOption(120, { name: 'selection-cache-ttl-secs', since, minimum: 0, unit: 'seconds', section: pending, help: 'How long a selection waits for its reservation.' }),
  cacheEntriesMax: integerOption(4096, { name: 'selection-cache-max-entries', since, minimum: 0, section: pending, help: 'Most selections that wait; the oldest go.' }),
  cacheBytesMax: integerOption(268_435_456, { name: 'selection-cache-max-bytes', since, minimum: 0, unit: 'bytes', section: pending, help: 'Most bytes of hashes that they keep; the oldest go.' }),
  ...routingOptions,
  activeRequestExpirySeconds: routerRuntimeOptions.activeRequestExpirySeconds,
  zmqIoThreads: runtimeOptions.zmqIoThreads,
}

export const slotTrackerOptions = {
  config: configFileOption,
  port: port(8091), host, drainSeconds, ...replicaOptions,
  activeRequestExpirySeconds: routerRuntimeOptions.activeRequestExpirySeconds,
}

export const indexerOptions = {
  config: configFileOption,
  port: port(8090), host, drainSeconds, threads,
  blockSize: maybeInteger({ name: 'block-size', since, minimum: 1, maximum: 65536, unit: 'tokens', section: workers, needs: ['workers'], help: 'Tokens per KV cache block of the workers of --workers.' }),
  workers: maybeText({ name: 'workers', since, section: workers, help: 'Workers to follow from the start, as ID[:RANK]=ADDRESS separated by commas.' }),
  modelName: textOption('default', { name: 'model-name', since, section: workers, needs: ['workers'], help: 'Model of the workers of --workers.' }),
  routingGroup: textOption('default', { name: 'routing-group', since, section: workers, needs: ['workers'], help: 'Routing group of the workers of --workers.' }),
  peers: maybeText({ name: 'peers', since, section: replicas, help: 'Indexers whose index is read at start, as http://HOST:PORT separated by commas; the first that answers counts.' }),
  accessLog: maybePath({ name: 'access-log', since, section: 'Log', help: 'File for one line of JSON per call.' }),
  traceIdHeader: textOption('x-trace-id', { name: 'trace-id-header', since, section: 'Log', needs: ['accessLog'], help: 'Header whose value stands in the access log as trace_id.' }),
  accessLogLocalTime: booleanOption(false, { name: 'access-log-local-time', since, section: 'Log', needs: ['accessLog'], help: 'Times of the access log in the local zone instead of UTC.' }),
  zmqIoThreads: runtimeOptions.zmqIoThreads,
}
