/** A router service from its configuration and its planes: the one composition behind `warmpath router` and `warmpath start`. */
import type { ParsedConfig } from '../config/parse-command.ts'
import type { CardRouterConfig } from '../config/card-router-config.ts'
import { conditionalDisaggOf, sessionAffinityOf } from '../config/disagg-rules.ts'
import { routerSettingsOf, routerTargetOf } from '../config/router-settings.ts'
import { createRouterMetrics, type RouterMetrics } from '../observability/router-metrics.ts'
import type { ProcessLog } from '../observability/log.ts'
import { parsePrefillErrorPolicy } from '../disagg/fall-back.ts'
import type { Clock, Discovery, EndpointId, EventPlane, Random, RequestPlaneClient, RequestPlaneServer } from '../ports.ts'
import type { RouterSettings } from '../router/contract.ts'
import { KvRouter } from '../router/kv-router.ts'
import { metered } from '../standalone/metered.ts'
import { remoteOf, type PoolFacts } from '../standalone/pool.ts'
import { StandaloneRouter, type StandaloneRouterOptions } from '../standalone/router-service.ts'
import type { LiveSettings } from './live-settings.ts'
import { showLiveMetrics } from './live-settings-service.ts'
import { showDurableMetrics } from './durable-metrics.ts'
import { durableEventsOf, durableHintOf, stateOf } from './durable-parts.ts'
import type { NatsLink } from '../dynamo/nats/nats-link.ts'
import { prefillOverrides } from './prefill-overrides.ts'
import { showGauges } from './pool-gauges.ts'
import { showAssumedCache } from './assumed-cache-metrics.ts'
import { showReplicaMetrics } from './replica-metrics.ts'
import { SharedCaches } from './shared-caches.ts'
import { packageVersion } from './version.ts'

export interface RouterPlanes {
  /** Started. */
  readonly discovery: Discovery
  readonly server: RequestPlaneServer
  readonly client: RequestPlaneClient
  readonly eventPlane: EventPlane
  /** For durable events. */
  readonly link?: NatsLink
  readonly clock: Clock
  readonly random: Random
  readonly log: ProcessLog
}

export interface AssembledRouter {
  readonly service: StandaloneRouter
  readonly metrics: RouterMetrics
  /** Ends what follows shared caches. */
  close(): void
}

/** Not started yet. `overrides` are for what an embedding command decides itself. `live`: settings that change while it runs; null: none do. */
export function assembleRouter(
  config: ParsedConfig<'router'>, planes: RouterPlanes, overrides: Partial<StandaloneRouterOptions> = {}, live: LiveSettings<'router'> | null = null,
): AssembledRouter {
  const { discovery, clock, random, log } = planes
  const options = { ...serviceOptions(config), ...overrides }
  const metrics = createRouterMetrics({
    version: packageVersion(), namespace: options.namespace, component: options.component, workers: options.workers, routerId: discovery.instanceId, role: 'aggregated',
  })
  const routerOf = (facts: PoolFacts, changes: Partial<RouterSettings>, card: CardRouterConfig | null = null): KvRouter => {
    log.info({ stage: 'start', model: facts.modelName, block_size: facts.blockSize, role: facts.role }, 'KV Routing initialized')
    const settingsOf = (now: ParsedConfig<'router'>): RouterSettings => {
      const settings = { ...routerSettingsOf(now, { ...facts, routingGroup: facts.modelName }), ...changes }
      return card === null ? settings : prefillConfig.apply(card, settings)
    }
    const router = new KvRouter(settingsOf(live?.config ?? config), { clock, random, listener: metrics.listener, ...(live === null ? {} : { policies: live.policies.places }), ...caches.next(), ...remoteOf(facts) })
    live?.follow(router, settingsOf)
    return router
  }
  if (live !== null) showLiveMetrics(metrics.set, live)
  const caches = new SharedCaches(config.values.sharedCacheType, log)
  const prefillConfig = prefillOverrides(log)
  const service = new StandaloneRouter({
    ...planes, options, durableEvents: planes.link === undefined ? null : durableEventsOf(config, { ...planes, link: planes.link }), stateOf: stateOf(config, planes), onUnread: durableHintOf(planes, 'Start this router with --router-durable-kv-events (DYN_ROUTER_DURABLE_KV_EVENTS=true), or the workers without --durable-kv-events'), observer: metrics.requests,
    measured: (name, handler) => metered(metrics.endpoint(name), clock, handler),
    createRouter: (facts) => {
      metrics.setRole(facts.role)
      // Decode workers that may compute prompts are chosen by their caches too.
      return routerOf(facts, options.conditional !== null && facts.role === 'decode' ? { role: 'aggregated' } : {})
    },
    createPrefillRouter: (facts) => routerOf(facts, { trackActiveBlocks: false, trackOutputBlocks: false }, prefillConfig.of(facts.routerConfig)),
    prefillAffinity: (facts) => {
      const own = prefillConfig.of(facts.routerConfig)
      return own === null ? options.sessionAffinity : own.affinity
    },
  })
  showGauges({
    metrics, log, sharedCaches: caches, pools: () => (service.prefill === null ? [service.workers] : [service.workers, service.prefill]),
    activeRequests: () => service.generate.activeCount, isReady: () => service.state === 'ready',
  })
  showDurableMetrics(metrics.set, () => (service.prefill === null ? [service.workers] : [service.workers, service.prefill]))
  showReplicaMetrics({
    metrics, replicaSync: config.values.replicaSync, useRemoteIndexer: config.values.useRemoteIndexer, workers: options.workers, routerId: discovery.instanceId,
    pools: () => (service.prefill === null ? [service.workers] : [service.workers, service.prefill]),
  })
  showAssumedCache({
    metrics, useKvEvents: config.values.useKvEvents, policy: config.values.approximateCachePolicy, workers: options.workers, routerId: discovery.instanceId,
    pools: () => (service.prefill === null ? [service.workers] : [service.workers, service.prefill]),
  })
  return { service, metrics, close: () => caches.close() }
}

function serviceOptions({ values }: ParsedConfig<'router'>): StandaloneRouterOptions {
  const { namespace, component, workers } = routerTargetOf(values)
  return {
    namespace, component, workers, blockSize: values.blockSize, strictBlockSize: values.strictBlockSize, useKvEvents: values.useKvEvents,
    kvEventGraceMs: values.kvEventGraceSeconds * 1000, replicaSync: values.replicaSync, serveIndexer: values.serveIndexer, useRemoteIndexer: values.useRemoteIndexer, minInitialWorkers: values.minInitialWorkers, registerModel: values.registerModel,
    force: values.force, shutdownTimeoutMs: values.shutdownTimeoutSeconds * 1000, shutdownGraceMs: values.shutdownGraceSeconds * 1000,
    codec: values.requestPlaneCodec === 'json' ? 'json' : 'msgpack', retryLimit: values.retryLimit,
    firstOutputTimeoutMs: values.firstOutputTimeoutSeconds * 1000, outputTimeoutMs: values.outputTimeoutSeconds * 1000,
    inhibitedMs: values.inhibitedSeconds * 1000, activeRequestsMax: values.activeRequestsMax,
    prefillWorkers: prefillWorkersOf(values), migrationLimit: values.migrationLimit, migrationLengthMax: values.migrationLengthMax, decodeKvReuse: values.decodeKvReuse,
    onPrefillError: parsePrefillErrorPolicy(values.onPrefillError) ?? { retry: true, decodeOnly: true },
    conditional: conditionalDisaggOf(values), decidesStages: values.prefillEndpoint !== null, sessionAffinity: sessionAffinityOf(values),
  }
}

function prefillWorkersOf({ prefillEndpoint }: ParsedConfig<'router'>['values']): EndpointId | null {
  const [namespace, component, endpoint] = (prefillEndpoint ?? '').split('.')
  return namespace === undefined || component === undefined || endpoint === undefined ? null : { namespace, component, endpoint }
}
