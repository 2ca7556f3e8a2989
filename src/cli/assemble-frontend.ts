/** A frontend from its configuration and its planes: the one composition behind `warmpath frontend` and `warmpath start`. */
import type { ParsedConfig } from '../config/parse-command.ts'
import { conditionalDisaggOf, sessionAffinityOf } from '../config/disagg-rules.ts'
import { routerSettingsOf } from '../config/router-settings.ts'
import { parsePrefillErrorPolicy } from '../disagg/fall-back.ts'
import { cardFileSource } from '../frontend/card-file-source.ts'
import type { FrontendModelsOptions, PoolStage } from '../frontend/frontend-models.ts'
import { FrontendService, type FrontendServiceParts } from '../frontend/frontend-service.ts'
import type { ProcessLog } from '../observability/log.ts'
import { createRouterMetrics, type RouterMetrics } from '../observability/router-metrics.ts'
import { FrontendMetrics } from '../openai/frontend-metrics.ts'
import type { RankFigures } from '../openai/stage-metrics.ts'
import type { LivePool } from '../frontend/live-pool.ts'
import type { TextModel } from '../text/text-model.ts'
import type { OpenAiServerOptions } from '../openai/openai-server.ts'
import type { Clock, Discovery, EventPlane, Random, RequestPlaneClient, RequestPlaneServer } from '../ports.ts'
import { ServedIndexes } from '../replicas/served-indexes.ts'
import { metered } from '../standalone/metered.ts'
import type { RouterSettings } from '../router/contract.ts'
import { KvRouter } from '../router/kv-router.ts'
import { remoteOf, routerConfigOf } from '../standalone/pool.ts'
import type { SelectionMode } from '../scheduling/mode-choice.ts'
import { absentText } from '../text/absent-text.ts'
import { loadTextModel } from '../text/load-text-model.ts'
import type { NatsLink } from '../dynamo/nats/nats-link.ts'
import { durableHintOf } from './durable-parts.ts'
import type { LiveSettings } from './live-settings.ts'
import { showLiveMetrics } from './live-settings-service.ts'
import { prefillOverrides } from './prefill-overrides.ts'
import { showGauges } from './pool-gauges.ts'
import { showAssumedCache } from './assumed-cache-metrics.ts'
import { showReplicaMetrics } from './replica-metrics.ts'
import { SharedCaches } from './shared-caches.ts'
import { packageVersion } from './version.ts'

export interface FrontendPlanes {
  /** Started. */
  readonly discovery: Discovery
  readonly client: RequestPlaneClient
  /** For the indexes that are served; left out: none are. */
  readonly server?: RequestPlaneServer
  readonly link?: NatsLink
  readonly eventPlane: EventPlane
  readonly clock: Clock
  readonly random: Random
  readonly log: ProcessLog
}

export interface AssembledFrontend {
  readonly service: FrontendService
  readonly metrics: RouterMetrics
  /** Ends what follows shared caches. */
  close(): void
  /** Options of the HTTP server; only once the service has started. */
  httpOptions(): OpenAiServerOptions
}

const unreadMend = 'Put `warmpath router --router-durable-kv-events` between, or start the workers without --durable-kv-events'

/** Not started yet. `live`: settings that change while it runs; null: none do. */
export function assembleFrontend(config: ParsedConfig<'frontend'>, planes: FrontendPlanes, live: LiveSettings<'frontend'> | null = null): AssembledFrontend {
  const { discovery, clock, random, log } = planes
  const { values } = config
  const namespace = values.namespace ?? 'dynamo'
  const workers = { namespace, component: 'frontend', endpoint: 'generate' }
  const metrics = createRouterMetrics({ version: packageVersion(), namespace, component: 'frontend', workers, routerId: discovery.instanceId, role: 'aggregated' })
  const mode = selectionMode(config)
  const caches = new SharedCaches(values.sharedCacheType, log)
  const prefillConfig = prefillOverrides(log)
  const options = modelsOptions(config, mode)
  const api = new FrontendMetrics({
    prefix: values.metricsPrefix, models: () => service.models.figures().map((model) => ({ ...model, migrationLimit: values.migrationLimit })),
    ranks: () => rankFigures(service.models.pools), tokenizerCache: () => tokenizerCounts(service.models.list()),
  })
  const served = mode === null ? servedIndexes(config, planes, metrics, () => service.models.pools) : null
  const service = new FrontendService({
    ...planes, options, served, onPools: () => served?.indexes.changed(), onUnread: durableHintOf(planes, unreadMend), observer: metrics.requests, observerOf: (role, model) => ({ ...metrics.ofPool(role, model).requests, onStage: api.stages.onStage, onServed: api.stages.onServed }),
    service: {
      namespace: values.namespace, namespacePrefix: values.namespacePrefix, requirePrefill: values.requirePrefill,
      shutdownTimeoutMs: values.shutdownTimeoutSeconds * 1000,
    },
    prefillConfig: (card) => prefillConfig.of(routerConfigOf(card)),
    loadText: (card, signal) => card.modelInput === 'Text' ? Promise.resolve(absentText) : loadTextModel(cardFileSource(card, { signal }), { log, clock }),
    createRouter: (facts, stage) => {
      log.info({ stage: 'start', model: facts.modelName, block_size: facts.blockSize, role: facts.role, mode: values.routerMode }, 'KV Routing initialized')
      const own = stage === 'prefill' ? prefillConfig.of(facts.routerConfig) : null
      const settingsOf = (now: ParsedConfig<'frontend'>): RouterSettings => {
        const settings = { ...routerSettingsOf(now, { ...facts, routingGroup: facts.modelName }), ...stageSettings(stage, options.conditional !== null), ...(mode === null ? {} : { selectionMode: mode }) }
        return own === null ? settings : prefillConfig.apply(own, settings)
      }
      const router = new KvRouter(settingsOf(live?.config ?? config), {
        clock, random, listener: metrics.ofPool(stage === 'prefill' ? 'prefill' : facts.role, facts.modelName).listener,
        ...(live === null ? {} : { policies: live.policies.places }), ...caches.next(), ...remoteOf(facts),
      })
      live?.follow(router, settingsOf)
      return router
    },
  })
  if (live !== null) {
    showLiveMetrics(metrics.set, live)
    live.onThresholds = (thresholds) => service.models.changeBusyThresholds(thresholds)
  }
  showGauges({
    metrics, log, sharedCaches: caches, pools: () => [...service.models.pools].map(({ routed }) => routed),
    activeRequests: () => service.models.activeCount, isReady: () => service.isReady,
  })
  showReplicaMetrics({
    metrics, replicaSync: values.replicaSync, useRemoteIndexer: values.useRemoteIndexer, workers, routerId: discovery.instanceId,
    pools: () => [...service.models.pools].map(({ routed }) => routed),
  })
  showAssumedCache({
    metrics, useKvEvents: values.useKvEvents, policy: values.approximateCachePolicy, workers, routerId: discovery.instanceId,
    pools: () => [...service.models.pools].map(({ routed }) => routed),
  })
  return {
    service, metrics, close: () => caches.close(),
    httpOptions: () => ({
      host: values.httpHost, port: values.httpPort, catalog: service.models, log, clock, meter: api,
      overloadStatus: values.overloadStatus, dynamoErrors: values.dynamoErrors, adminRoutes: !values.adminApiDisabled,
      ...(values.adminToken === null ? {} : { adminToken: values.adminToken }),
      bodyLimitBytes: values.bodyLimitMb * 1024 * 1024, ignoreUnknownParameters: values.ignoreUnknownParameters, metadataPrefix: values.metadataHeader,
      extensionDisabled: values.extensionDisabled, version: packageVersion(), ...(values.anthropicApi ? { anthropic: { stripPreamble: values.stripAnthropicPreamble } } : {}),
      paths: {
        chat: values.chatPath, completions: values.completionsPath, responses: values.responsesPath, messages: values.messagesPath, embeddings: values.embeddingsPath,
        models: values.modelsPath, health: values.healthPath, live: values.livePath, metrics: values.metricsPath,
      },
      metrics: async () => ({ contentType: metrics.contentType, text: (await metrics.text()) + (await api.text()) }),
    }),
  }
}

/** The indexes of the pools for others, when they are to be served; a plain decode stage has none. */
function servedIndexes({ values }: ParsedConfig<'frontend'>, planes: FrontendPlanes, metrics: RouterMetrics, pools: () => Iterable<LivePool>): NonNullable<FrontendServiceParts['served']> | null {
  const { server } = planes
  if (server === undefined || !values.serveIndexer) return null
  const isConditional = conditionalDisaggOf(values) !== null
  const indexes = new ServedIndexes({
    ...planes, server, codec: values.requestPlaneCodec === 'json' ? 'json' : 'msgpack', isApproximate: !values.useKvEvents,
    measured: (name, handler) => metered(metrics.endpoint(name), planes.clock, handler),
    sources: () => [...pools()].filter(({ kind }) => kind !== 'decode' || isConditional)
      .map(({ endpoints, model, routed }) => ({ endpoints, modelName: model, router: routed.router })),
  })
  return { server, indexes }
}

/** Null: by cached prefix and load. The preset of `--load-aware` means that mode too, as in Dynamo. */
function selectionMode({ values }: ParsedConfig<'frontend'>): SelectionMode | null {
  return values.routerMode === 'kv' || values.loadAware ? null : (values.routerMode as SelectionMode)
}

/** The prefill stage never tracks active blocks. Decode workers that may compute prompts are chosen by their caches too. */
const stageSettings = (stage: PoolStage, isConditional: boolean): Partial<RouterSettings> => {
  if (stage === 'prefill') return { trackActiveBlocks: false, trackOutputBlocks: false }
  return stage === 'decode' && isConditional ? { role: 'aggregated' } : {}
}

function modelsOptions({ values }: ParsedConfig<'frontend'>, mode: SelectionMode | null): FrontendModelsOptions {
  return {
    blockSize: values.blockSize, useKvEvents: values.useKvEvents && mode === null, kvEventGraceMs: values.kvEventGraceSeconds * 1000, replicaSync: values.replicaSync, useRemoteIndexer: values.useRemoteIndexer && mode === null,
    minInitialWorkers: values.minInitialWorkers,
    busyThresholds: {
      activeDecodeBlocks: values.activeDecodeBlocksThreshold, activePrefillTokens: values.activePrefillTokensThreshold,
      activePrefillTokensFraction: values.activePrefillTokensThresholdFraction,
    },
    retryLimit: values.retryLimit, firstOutputTimeoutMs: values.firstOutputTimeoutSeconds * 1000, outputTimeoutMs: values.outputTimeoutSeconds * 1000,
    inhibitedMs: values.inhibitedSeconds * 1000, activeRequestsMax: values.activeRequestsMax, migrationLimit: values.migrationLimit, migrationLengthMax: values.migrationLengthMax,
    onPrefillError: parsePrefillErrorPolicy(values.onPrefillError) ?? { retry: true, decodeOnly: true }, decodeKvReuse: values.decodeKvReuse,
    conditional: conditionalDisaggOf(values), decidesStages: true, sessionAffinity: sessionAffinityOf(values),
  }
}

function* rankFigures(pools: Iterable<LivePool>): Generator<RankFigures> {
  for (const { routed: { router } } of pools) for (const row of router?.loads() ?? []) yield { ...row, phase: router?.settings.role ?? 'aggregated' }
}

/** Models that share their files share their tokenizer. */
function tokenizerCounts(models: Iterable<{ readonly text: TextModel }>): { readonly hits: number; readonly misses: number } {
  const all = [...new Set([...models].map(({ text }) => text))].map((text) => text.counters())
  return { hits: all.reduce((sum, { segmentHits }) => sum + segmentHits, 0), misses: all.reduce((sum, { segmentMisses }) => sum + segmentMisses, 0) }
}
