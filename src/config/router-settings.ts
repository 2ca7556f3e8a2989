/** What the router's values mean to the parts that use them. */
import type { WorkerRole } from '../model/worker.ts'
import type { EndpointId } from '../ports.ts'
import { queuePolicies, singleClassProfile } from '../queue/policy-profile.ts'
import type { QueueSettings } from '../router/admission.ts'
import type { RouterSettings, TrackingHashSettings } from '../router/contract.ts'
import type { ParsedConfig } from './parse-command.ts'
import type { RouterValues } from './table.ts'

/** What only the workers' cards tell. */
export interface CardFacts {
  /** The size in use: that of the workers, or `--router-block-size` when no card tells. */
  readonly blockSize: number
  readonly isEagle: boolean
  readonly role: WorkerRole
  /** Part of keyed tracking hashes. */
  readonly routingGroup: string
}

/** The values that a router is made from: of `warmpath router` or `warmpath frontend`. */
export interface RouterConfig extends Pick<ParsedConfig, 'trackingKey' | 'policyProfiles' | 'selectionPolicies' | 'prefillLoadModel'> {
  readonly values: Pick<RouterValues,
    | 'overlapScoreCredit' | 'overlapScoreCreditDecay' | 'prefillLoadScale' | 'decodeActiveRequestWeight' | 'hostCacheHitWeight' | 'diskCacheHitWeight'
    | 'temperature' | 'useKvEvents' | 'trackActiveBlocks' | 'trackOutputBlocks' | 'assumeKvReuse' | 'trackPrefillTokens' | 'ttlSeconds' | 'predictedTtlSeconds'
    | 'approximateCachePolicy' | 'maxTreeSize' | 'pruneTargetRatio' | 'sharedCacheMultiplier' | 'activeRequestExpirySeconds' | 'activeDecodeBlocksThreshold'
    | 'activePrefillTokensThreshold' | 'activePrefillTokensThresholdFraction' | 'queueThreshold' | 'queuePolicy' | 'overlapRefreshSeconds' | 'queueTimeoutSeconds'
    | 'trackingKeyId'
  > & Partial<Pick<RouterValues, 'indexMemoryBytes'>>
}

/** Settings of one `KvRouter`, frozen. */
export function routerSettingsOf(config: RouterConfig, facts: CardFacts): RouterSettings {
  const { values } = config
  return Object.freeze({
    blockSize: facts.blockSize,
    isEagle: facts.isEagle,
    role: facts.role,
    ...(config.selectionPolicies === null ? {} : { selectionPolicy: config.selectionPolicies[facts.role] }),
    overlapScoreCredit: values.overlapScoreCredit,
    overlapScoreCreditDecay: values.overlapScoreCreditDecay,
    prefillLoadScale: values.prefillLoadScale,
    decodeActiveRequestWeight: values.decodeActiveRequestWeight,
    hostCacheHitWeight: values.hostCacheHitWeight,
    diskCacheHitWeight: values.diskCacheHitWeight,
    temperature: values.temperature,
    useKvEvents: values.useKvEvents,
    trackActiveBlocks: values.trackActiveBlocks,
    trackOutputBlocks: values.trackOutputBlocks,
    assumeKvReuse: values.assumeKvReuse,
    trackPrefillTokens: values.trackPrefillTokens,
    tracking: trackingOf(config, facts.routingGroup),
    ttlSeconds: values.ttlSeconds,
    predictedTtlSeconds: values.predictedTtlSeconds,
    approximateCachePolicy: values.approximateCachePolicy === 'lru' ? 'lru' : 'ttl',
    indexMemoryBytes: values.indexMemoryBytes ?? null,
    maxTreeSize: values.maxTreeSize,
    pruneTargetRatio: values.pruneTargetRatio,
    prefillLoadModel: config.prefillLoadModel,
    sharedCacheMultiplier: values.sharedCacheMultiplier,
    activeRequestExpirySeconds: values.activeRequestExpirySeconds,
    queue: queueSettingsOf(config, facts),
    activeDecodeBlocksThreshold: values.activeDecodeBlocksThreshold,
    activePrefillTokensThreshold: values.activePrefillTokensThreshold,
    activePrefillTokensThresholdFraction: values.activePrefillTokensThresholdFraction,
  })
}

/** The model's own classes, else those for all, else one class with the threshold of the options. */
function queueSettingsOf({ values, policyProfiles }: RouterConfig, { routingGroup: model }: CardFacts): QueueSettings {
  const single = singleClassProfile(values.queueThreshold, queuePolicies.find((policy) => policy === values.queuePolicy) ?? 'fcfs')
  return Object.freeze({
    profile: policyProfiles.models.get(model) ?? policyProfiles.root ?? single,
    overlapRefreshAfterSeconds: values.overlapRefreshSeconds > 0 ? values.overlapRefreshSeconds : null,
    timeoutSeconds: values.queueTimeoutSeconds > 0 ? values.queueTimeoutSeconds : null,
  })
}

function trackingOf({ values, trackingKey }: RouterConfig, routingGroup: string): TrackingHashSettings {
  if (trackingKey === null) return Object.freeze({ mode: 'public-xxh3-v1' })
  return Object.freeze({ mode: 'keyed-xxh3-v1', key: trackingKey, keyId: values.trackingKeyId ?? '', routingGroup })
}

export interface RouterTarget {
  /** Namespace and component that the router serves under. */
  readonly namespace: string
  readonly component: string
  /** Endpoint of the workers. */
  readonly workers: EndpointId
}

/** Where the router serves and whom it routes to. Source: behaviour 1.1, `DYN_NAMESPACE` and its worker suffix. */
export function routerTargetOf(values: Pick<RouterValues, 'endpoint' | 'component' | 'namespace' | 'namespaceWorkerSuffix'>): RouterTarget {
  const [endpointNamespace = '', component = '', endpoint = ''] = (values.endpoint ?? '').split('.')
  const namespace = values.namespace ?? endpointNamespace
  const suffix = values.namespaceWorkerSuffix
  return {
    namespace,
    component: values.component,
    workers: { namespace: suffix === null ? namespace : `${namespace}-${suffix}`, component, endpoint },
  }
}
