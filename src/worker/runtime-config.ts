/** What a worker says of its engine: the `runtime_config` of its card, checked as Dynamo checks it. */
import { topologyTaintPrefix } from '../dynamo/cards/model-card.ts'
import { parseEndpointId } from '../dynamo/wire/endpoint-path.ts'
import type { Json, JsonObject } from '../ports.ts'
import { ArgumentError } from './errors.ts'

/** All may be left out. Names in a card are the same in snake case. */
export interface ModelRuntimeConfig {
  readonly contextLength?: number
  /** KV blocks of one rank. */
  readonly totalKvBlocks?: number
  readonly maxNumSeqs?: number
  readonly maxNumBatchedTokens?: number
  readonly toolCallParser?: string
  readonly reasoningParser?: string
  readonly excludeToolsWhenToolChoiceNone?: boolean
  readonly dataParallelStartRank?: number
  readonly dataParallelSize?: number
  /** Routers may ask this worker for its cache. Default true. */
  readonly enableLocalIndexer?: boolean
  /** Left out: routers find out. */
  readonly kvEventPublishingEnabled?: boolean
  readonly kvEventSourceMode?: string
  /** `namespace.component.endpoint` whose KV state this worker shares. */
  readonly kvStateEndpoint?: string
  readonly enableEagle?: boolean
  readonly taints?: Iterable<string>
  readonly stableRoutingId?: string
  readonly runtimeData?: Readonly<Record<string, Json>>
  /** Where the worker stands: `{ zone: 'a', rack: '7' }`. */
  readonly topologyDomains?: Readonly<Record<string, string>>
  /** The domain that KV blocks must not, or should not, leave. */
  readonly kvTransferDomain?: string
  readonly kvTransferEnforcement?: 'required' | 'preferred'
  /** 0 to 1, with `preferred` only. */
  readonly kvTransferPreferredWeight?: number
  /** Where a prefill worker of SGLang's kind hands over. */
  readonly disaggregatedEndpoint?: { readonly bootstrapHost?: string; readonly bootstrapPort?: number }
}

const place = 'registerModel'
const uintMax = 4_294_967_295

/** The card's form of a runtime config. Errors: `ArgumentError` for the first field that cannot be used. */
export function runtimeConfigSection(config: ModelRuntimeConfig): JsonObject {
  const domains = checkedDomains(config.topologyDomains ?? {})
  checkTransfer(config, domains)
  const taints = [...checkedTaints(config.taints ?? []), ...topologyTaints(domains)]
  const bootstrap = checkedBootstrap(config.disaggregatedEndpoint)
  return {
    ...present('context_length', whole('contextLength', config.contextLength, 1, uintMax)),
    total_kv_blocks: whole('totalKvBlocks', config.totalKvBlocks, 0, Number.MAX_SAFE_INTEGER),
    max_num_seqs: whole('maxNumSeqs', config.maxNumSeqs, 0, Number.MAX_SAFE_INTEGER),
    max_num_batched_tokens: whole('maxNumBatchedTokens', config.maxNumBatchedTokens, 0, Number.MAX_SAFE_INTEGER),
    tool_call_parser: config.toolCallParser ?? null,
    reasoning_parser: config.reasoningParser ?? null,
    tool_call_arguments_format: 'json_string',
    structural_tag_mode: 'off',
    structural_tag_scope: 'auto',
    structural_tag_schema: 'auto',
    exclude_tools_when_tool_choice_none: config.excludeToolsWhenToolChoiceNone ?? true,
    data_parallel_start_rank: whole('dataParallelStartRank', config.dataParallelStartRank, 0, uintMax) ?? 0,
    data_parallel_size: whole('dataParallelSize', config.dataParallelSize, 1, uintMax) ?? 1,
    enable_local_indexer: config.enableLocalIndexer ?? true,
    ...present('kv_event_publishing_enabled', config.kvEventPublishingEnabled),
    ...present('kv_event_source_mode', config.kvEventSourceMode),
    ...present('kv_state_endpoint', stateEndpoint(config.kvStateEndpoint)),
    ...(Object.keys(config.runtimeData ?? {}).length === 0 ? {} : { runtime_data: config.runtimeData as JsonObject }),
    ...(bootstrap === null ? {} : { disaggregated_endpoint: bootstrap }),
    enable_eagle: config.enableEagle ?? false,
    ...(taints.length === 0 ? {} : { taints }),
    ...present('stable_routing_id', config.stableRoutingId),
    ...(domains.size === 0 ? {} : { topology_domains: Object.fromEntries(domains) }),
    ...present('kv_transfer_domain', config.kvTransferDomain),
    ...present('kv_transfer_enforcement', config.kvTransferEnforcement),
    ...present('kv_transfer_preferred_weight', config.kvTransferPreferredWeight),
  }
}

/** The taints that stand for topology domains; no caller may give them. */
export const topologyTaints = (domains: ReadonlyMap<string, string>): string[] =>
  [...domains].map(([domain, value]) => `${topologyTaintPrefix}${domain}=${value}`)

/** A worker's own taints, each once. Errors: one that begins like a topology's, or is no text. */
export function checkedTaints(taints: Iterable<string>, from = `${place}: runtimeConfig`): string[] {
  const checked = new Set<string>()
  for (const taint of taints) {
    if (typeof taint !== 'string') throw new ArgumentError(from, 'taints', taint, 'give texts')
    if (taint.startsWith(topologyTaintPrefix)) throw new ArgumentError(from, 'taints', taint, `${topologyTaintPrefix} is made from topologyDomains; set those instead`)
    checked.add(taint)
  }
  return [...checked]
}

const present = (name: string, value: Json | undefined): JsonObject => (value === undefined || value === null ? {} : { [name]: value })

function whole(field: string, value: number | undefined, least: number, most: number): number | null {
  if (value === undefined) return null
  if (!Number.isInteger(value) || value < least || value > most) throw new ArgumentError(place, `runtimeConfig.${field}`, value, `give a whole number from ${least} to ${most}`)
  return value
}

function checkedDomains(given: Readonly<Record<string, string>>): ReadonlyMap<string, string> {
  const domains = new Map<string, string>()
  for (const [domain, value] of Object.entries(given)) {
    for (const [word, text] of [['key', domain], ['value', value]] as const) {
      const bad = (mend: string): ArgumentError => new ArgumentError(place, `a ${word} of runtimeConfig.topologyDomains`, text, mend)
      if (typeof text !== 'string' || text === '') throw bad('give a text that is not empty')
      if (text.trim() !== text) throw bad('remove the space around it')
      if (text.includes('=')) throw bad('it must not contain =')
    }
    domains.set(domain, value)
  }
  return domains
}

function checkTransfer(config: ModelRuntimeConfig, domains: ReadonlyMap<string, string>): void {
  const { kvTransferDomain: domain, kvTransferEnforcement: enforcement, kvTransferPreferredWeight: weight } = config
  const bad = (field: string, value: unknown, mend: string): ArgumentError => new ArgumentError(place, `runtimeConfig.${field}`, value, mend)
  if (enforcement !== undefined && enforcement !== 'required' && enforcement !== 'preferred') throw bad('kvTransferEnforcement', enforcement, 'give required or preferred')
  if (domain !== undefined && !domains.has(domain)) throw bad('kvTransferDomain', domain, `give a key of topologyDomains (${[...domains.keys()].join(', ') || 'there are none'})`)
  if (enforcement !== undefined && domain === undefined) throw bad('kvTransferDomain', domain, `kvTransferEnforcement ${enforcement} needs it`)
  if (domain !== undefined && enforcement === undefined) throw bad('kvTransferEnforcement', enforcement, 'kvTransferDomain needs it: required or preferred')
  if (enforcement === 'preferred' && weight === undefined) throw bad('kvTransferPreferredWeight', weight, 'kvTransferEnforcement preferred needs it: 0 to 1')
  if (weight === undefined) return
  if (!Number.isFinite(weight) || weight < 0 || weight > 1) throw bad('kvTransferPreferredWeight', weight, 'give a number from 0 to 1')
  if (enforcement !== 'preferred') throw bad('kvTransferPreferredWeight', weight, 'it goes with kvTransferEnforcement preferred only')
}

function checkedBootstrap(given: ModelRuntimeConfig['disaggregatedEndpoint']): JsonObject | null {
  if (given === undefined) return null
  const { bootstrapHost: host, bootstrapPort: port } = given
  if (port !== undefined && (!Number.isInteger(port) || port < 1 || port > 65_535)) throw new ArgumentError(place, 'runtimeConfig.disaggregatedEndpoint.bootstrapPort', port, 'give a port from 1 to 65535')
  return { ...present('bootstrap_host', host), ...present('bootstrap_port', port) }
}

function stateEndpoint(text: string | undefined): JsonObject | null {
  if (text === undefined) return null
  const { namespace, component, endpoint } = parseEndpointId(text)
  return { namespace, component, name: endpoint }
}
