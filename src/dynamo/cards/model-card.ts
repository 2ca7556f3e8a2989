/** Model cards, records of bucket `v1/mdc`: what a worker says of its model, its ranks and its capacity. Source: Dynamo 1.1 to 1.6.1. */
import type { WorkerDescription, WorkerRole } from '../../model/worker.ts'
import type { EndpointId, JsonObject } from '../../ports.ts'
import { hicacheLayoutOf } from '../shared-cache/hicache-layout.ts'
import { isObject } from '../wire/json.ts'
import { CardError } from './card-error.ts'
import { CardFields } from './card-fields.ts'

/** Taints with this start are made from the topology and are no taints of the worker's own. */
export const topologyTaintPrefix = 'dynamo.topology/'

const roles: readonly WorkerRole[] = ['aggregated', 'prefill', 'decode', 'encode']

/** How KV blocks may travel from this prefill worker to a decode worker. */
export interface KvTransferRule {
  /** A key of `topologyDomains`. */
  readonly domain: string
  readonly enforcement: 'required' | 'preferred' | null
  /** Set when and only when preferred. */
  readonly preferredWeight: number | null
}

export interface ModelCard extends EndpointId {
  readonly instanceId: bigint
  readonly displayName: string
  readonly slug: string
  /** Tokens per KV block; null when the card does not say (absent or 0). */
  readonly blockSize: number | null
  /** Surfaces: `Chat`, `Completions`, `Prefill` ...; empty for none. */
  readonly modelType: readonly string[]
  readonly modelInput: string | null
  /** `worker_type`; without it prefill when the model type says so, else aggregated. */
  readonly role: WorkerRole
  /** The card has a `worker_type`, as from Dynamo 1.3 on. */
  readonly declaresRole: boolean
  /** Roles that must be there for this one to serve: any of the groups, all of a group. */
  readonly needs: readonly (readonly string[])[]
  readonly isEagle: boolean
  readonly totalKvBlocks: number | null
  readonly maxNumSeqs: number | null
  readonly maxNumBatchedTokens: number | null
  readonly contextLength: number | null
  readonly dpStart: number
  readonly dpSize: number
  /** The worker's own taints. */
  readonly taints: readonly string[]
  readonly topologyDomains: ReadonlyMap<string, string>
  readonly kvTransfer: KvTransferRule | null
  /** Null: the card does not say (before 1.6). */
  readonly publishesKvEvents: boolean | null
  readonly enableLocalIndexer: boolean
  /** Where a prefill worker of SGLang's kind takes the hand-over. */
  readonly bootstrap: { readonly host: string; readonly port: number } | null
  readonly stableRoutingId: string | null
  /** Set on the card of a LoRA adapter. */
  readonly loraName: string | null
  readonly aliases: readonly string[]
  /** `card_json` whole, with fields that are not known here. */
  readonly raw: JsonObject
}

/**
 * Reads a `v1/mdc` record. `suffix`: what follows the instance id in its key, of a LoRA adapter's card.
 * Errors: CardError, naming field and value. Unknown fields stay in `raw`.
 */
export function parseModelCard(record: JsonObject, suffix: string | null = null): ModelCard {
  const outer = new CardFields(record, '')
  if (outer.has('type') && outer.text('type') !== 'Model') throw outer.bad('type', '"Model"')
  const raw = record['card_json']
  if (!isObject(raw)) throw new CardError('card_json', raw, 'an object')
  const card = new CardFields(raw as JsonObject, 'card_json.')
  const runtime = card.child('runtime_config')
  const displayName = card.requiredText('display_name')
  return {
    namespace: outer.requiredText('namespace'),
    component: outer.requiredText('component'),
    endpoint: outer.requiredText('endpoint'),
    instanceId: readInstanceId(outer),
    displayName,
    slug: card.text('slug') ?? slugOf(displayName),
    blockSize: card.count('kv_cache_block_size') || null,
    modelInput: card.text('model_input'),
    ...readRole(card),
    ...readRuntime(runtime),
    ...readRanks(runtime),
    ...readTopology(runtime),
    contextLength: runtime.count('context_length') || card.count('context_length') || card.count('architectural_max_context_length') || null,
    loraName: card.child('lora').text('name') ?? (suffix === null && !outer.has('model_suffix') ? null : displayName),
    aliases: card.texts('aliases'),
    raw: raw as JsonObject,
  }
}

/** Lower case; what is not `[a-z0-9-_]` becomes `_`. */
export const slugOf = (name: string): string => name.toLowerCase().replace(/[^a-z0-9\-_]/g, '_')

/** What the core knows of the worker with this card. `loraNames`: adapters of its further cards. */
export function describeWorker(card: ModelCard, loraNames: readonly string[] = []): WorkerDescription {
  const hicache = hicacheLayoutOf(card.raw)
  return {
    workerId: card.instanceId,
    dpStart: card.dpStart,
    dpSize: card.dpSize,
    totalKvBlocks: card.totalKvBlocks,
    maxNumBatchedTokens: card.maxNumBatchedTokens,
    taints: card.taints,
    topologyDomains: card.topologyDomains,
    loraNames,
    publishesKvEvents: card.publishesKvEvents,
    ...(hicache === null ? {} : { hicache }),
  }
}

/** A worker that has no card: one rank, nothing known. */
export function describeUnknownWorker(workerId: bigint): WorkerDescription {
  return {
    workerId, dpStart: 0, dpSize: 1, totalKvBlocks: null, maxNumBatchedTokens: null, taints: [], topologyDomains: new Map(), publishesKvEvents: null,
  }
}

function readInstanceId(outer: CardFields): bigint {
  const value = outer.raw('instance_id')
  const id = typeof value === 'bigint' || (typeof value === 'number' && Number.isSafeInteger(value)) ? BigInt(value) : -1n
  if (id < 0n || id >= 1n << 64n) throw outer.bad('instance_id', 'an unsigned 64-bit integer')
  return id
}

function readRole(card: CardFields): Pick<ModelCard, 'modelType' | 'role' | 'declaresRole' | 'needs'> {
  const modelType = (card.text('model_type') ?? '').split('|').map((part) => part.trim()).filter((part) => part !== '')
  const declared = card.oneOf('worker_type', roles)
  if (declared === null && modelType.includes('Prefill')) return { modelType, role: 'prefill', declaresRole: false, needs: [['decode']] }
  const needs = card.raw('needs') ?? []
  const valid = Array.isArray(needs) && needs.every((group) => Array.isArray(group) && group.every((role) => typeof role === 'string'))
  if (!valid) throw card.bad('needs', 'a list of lists of worker types')
  return { modelType, role: declared ?? 'aggregated', declaresRole: declared !== null, needs: needs as readonly (readonly string[])[] }
}

type Runtime = 'isEagle' | 'totalKvBlocks' | 'maxNumSeqs' | 'maxNumBatchedTokens' | 'publishesKvEvents' | 'enableLocalIndexer' | 'bootstrap' | 'stableRoutingId'

function readRuntime(runtime: CardFields): Pick<ModelCard, Runtime> {
  const { MAX_SAFE_INTEGER: max } = Number
  const bootstrap = runtime.child('disaggregated_endpoint')
  const [host, port] = [bootstrap.text('bootstrap_host'), bootstrap.count('bootstrap_port', 65_535)]
  return {
    isEagle: runtime.flag('enable_eagle') ?? false,
    totalKvBlocks: runtime.count('total_kv_blocks', max),
    maxNumSeqs: runtime.count('max_num_seqs', max),
    maxNumBatchedTokens: runtime.count('max_num_batched_tokens', max),
    publishesKvEvents: runtime.flag('kv_event_publishing_enabled'),
    enableLocalIndexer: runtime.flag('enable_local_indexer') ?? true,
    bootstrap: host === null || port === null ? null : { host, port },
    stableRoutingId: runtime.text('stable_routing_id'),
  }
}

/** Ranks of one worker at most; beyond, the card is taken for wrong. */
export const maxDpSize = 4_096

function readRanks(runtime: CardFields): Pick<ModelCard, 'dpStart' | 'dpSize'> {
  const dpSize = runtime.count('data_parallel_size', maxDpSize) ?? 1
  if (dpSize === 0) throw runtime.bad('data_parallel_size', `an integer between 1 and ${maxDpSize}`)
  return { dpStart: runtime.count('data_parallel_start_rank') ?? 0, dpSize }
}

function readTopology(runtime: CardFields): Pick<ModelCard, 'taints' | 'topologyDomains' | 'kvTransfer'> {
  const topologyDomains = runtime.textMap('topology_domains')
  const taints = runtime.texts('taints').filter((taint) => !taint.startsWith(topologyTaintPrefix))
  const domain = runtime.text('kv_transfer_domain')
  const enforcement = runtime.oneOf('kv_transfer_enforcement', ['required', 'preferred'])
  const preferredWeight = runtime.finite('kv_transfer_preferred_weight')
  if (domain === null) return { taints, topologyDomains, kvTransfer: null }
  if (!topologyDomains.has(domain)) throw runtime.bad('kv_transfer_domain', 'a key of topology_domains')
  if (enforcement === 'preferred' && preferredWeight === null) throw runtime.bad('kv_transfer_preferred_weight', 'a number, because the enforcement is preferred')
  return { taints, topologyDomains, kvTransfer: { domain, enforcement, preferredWeight: enforcement === 'preferred' ? preferredWeight : null } }
}
