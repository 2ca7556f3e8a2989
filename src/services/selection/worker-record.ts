/** What the selection service is told of a worker, and what it makes of it. Source: router-algorithm 16.1. */
import type { WorkerDescription, WorkerRank } from '../../model/worker.ts'
import type { JsonObject } from '../../ports.ts'
import { ranksPerWorkerMax } from '../../router/worker-directory.ts'
import {
  booleanOf, choiceOf, countOf, maybe, numberOf, rankMapOf, required, textListOf, textMapOf, textOf, u32Of, u64Of, withDefault,
} from '../body-fields.ts'
import type { PartitionKey } from '../partition-key.ts'
import { endpointProblem } from '../zmq-endpoint.ts'

export type Lifecycle = 'incomplete' | 'schedulable' | 'draining' | 'unschedulable'

/** The properties that a registration sets and a patch may change; null: not told. */
export interface WorkerFields {
  readonly endpoint: string | null
  readonly kvEventsEndpoint: string | null
  readonly kvEventsEndpoints: ReadonlyMap<number, string>
  readonly replayEndpoint: string | null
  readonly blockSize: number | null
  readonly dpStart: number | null
  readonly dpSize: number | null
  readonly maxNumBatchedTokens: number | null
  readonly totalKvBlocks: number | null
  readonly stableRoutingId: string | null
  readonly isEagle: boolean | null
  readonly taints: ReadonlySet<string>
  readonly topologyDomains: ReadonlyMap<string, string>
  readonly kvTransferDomain: string | null
  readonly kvTransferEnforcement: 'required' | 'preferred' | null
  readonly kvTransferPreferredWeight: number | null
  readonly hintWorkerType: string | null
  readonly hintControlEndpoints: ReadonlyMap<number, string>
  readonly kvEventSourceMode: string | null
}

export interface WorkerRecord extends WorkerFields {
  readonly workerId: bigint
  readonly key: PartitionKey
  readonly lifecycle: Lifecycle
  /** Why it is not schedulable. */
  readonly reasons: readonly string[]
}

const enforcementOf = choiceOf(['required', 'preferred'] as const)

/** The properties of a registration. Errors: `BodyError`. */
const newFields = (body: JsonObject): WorkerFields => ({
  endpoint: maybe(body, 'endpoint', textOf),
  kvEventsEndpoint: maybe(body, 'kv_events_endpoint', textOf),
  kvEventsEndpoints: withDefault(body, 'kv_events_endpoints', rankMapOf, new Map()),
  replayEndpoint: maybe(body, 'replay_endpoint', textOf),
  blockSize: maybe(body, 'block_size', u32Of),
  dpStart: maybe(body, 'data_parallel_start_rank', u32Of),
  dpSize: maybe(body, 'data_parallel_size', u32Of),
  maxNumBatchedTokens: maybe(body, 'max_num_batched_tokens', countOf),
  totalKvBlocks: maybe(body, 'total_kv_blocks', countOf),
  stableRoutingId: maybe(body, 'stable_routing_id', textOf),
  isEagle: maybe(body, 'is_eagle', booleanOf),
  taints: new Set(withDefault(body, 'taints', textListOf, [])),
  topologyDomains: withDefault(body, 'topology_domains', textMapOf, new Map()),
  kvTransferDomain: maybe(body, 'kv_transfer_domain', textOf),
  kvTransferEnforcement: maybe(body, 'kv_transfer_enforcement', enforcementOf),
  kvTransferPreferredWeight: maybe(body, 'kv_transfer_preferred_weight', numberOf),
  hintWorkerType: maybe(body, 'router_hint_worker_type', textOf),
  hintControlEndpoints: withDefault(body, 'router_hint_source_control_endpoints', rankMapOf, new Map()),
  kvEventSourceMode: maybe(body, 'kv_event_source_mode', textOf),
})

/** A worker as it is registered. Errors: `BodyError`. */
export const newRecord = (body: JsonObject): WorkerRecord => ({
  workerId: required(body, 'worker_id', u64Of),
  key: { model: withDefault(body, 'model_name', textOf, 'default'), group: withDefault(body, 'routing_group', textOf, 'default') },
  lifecycle: 'incomplete', reasons: [],
  ...newFields(body),
})

/** The record with what the patch names; what it leaves out or sets to null stays. Errors: `BodyError`. */
export function patchedRecord(record: WorkerRecord, body: JsonObject): WorkerRecord {
  const fields = newFields(Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null)))
  const named = Object.entries(fields).filter(([, value]) => value !== null && !(value instanceof Map || value instanceof Set))
  const lists = {
    ...(given(body, 'kv_events_endpoints') ? { kvEventsEndpoints: fields.kvEventsEndpoints } : {}),
    ...(given(body, 'taints') ? { taints: fields.taints } : {}),
    ...(given(body, 'topology_domains') ? { topologyDomains: fields.topologyDomains } : {}),
    ...(given(body, 'router_hint_source_control_endpoints') ? { hintControlEndpoints: fields.hintControlEndpoints } : {}),
  }
  return { ...record, ...Object.fromEntries(named), ...lists, lifecycle: 'incomplete', reasons: [] }
}

const given = (body: JsonObject, field: string): boolean => body[field] !== undefined && body[field] !== null

export const dpStartOf = (record: WorkerFields): number => record.dpStart ?? 0
export const dpSizeOf = (record: WorkerFields): number => record.dpSize ?? 1

/** What no worker may ask for; null: nothing. */
export const sizeProblem = (record: WorkerFields): string | null =>
  dpSizeOf(record) > ranksPerWorkerMax ? `data_parallel_size ${dpSizeOf(record)} exceeds the maximum ${ranksPerWorkerMax}` : null

export function ranksOf(record: WorkerFields): number[] {
  const start = dpStartOf(record)
  const end = Math.min(start + dpSizeOf(record), 0xffff_ffff)
  return Array.from({ length: Math.max(0, end - start) }, (_, index) => start + index)
}

/** Where the engine of each rank publishes its KV events. */
export function eventEndpointsOf(record: WorkerFields): ReadonlyMap<number, string> {
  if (record.kvEventsEndpoints.size > 0) return record.kvEventsEndpoints
  return dpSizeOf(record) === 1 && record.kvEventsEndpoint !== null ? new Map([[dpStartOf(record), record.kvEventsEndpoint]]) : new Map()
}

/** What a worker lacks to be chosen. `needsCapacity`: requests may wait; `needsEvents`: its cache is known by its events. */
export function missingOf(record: WorkerFields, needsCapacity: boolean, needsEvents: boolean): string[] {
  const missing: string[] = []
  if (record.endpoint === null || record.endpoint === '') missing.push('endpoint is required')
  if (record.blockSize === null || record.blockSize === 0) missing.push('block_size must be greater than 0')
  if (dpSizeOf(record) === 0) missing.push('data_parallel_size must be greater than 0')
  if (needsCapacity && record.maxNumBatchedTokens === null) missing.push('max_num_batched_tokens is required while queueing is enabled')
  if (!needsEvents) return missing
  const endpoints = eventEndpointsOf(record)
  for (const rank of ranksOf(record)) if ((endpoints.get(rank) ?? '') === '') missing.push(`kv_events endpoint is required for dp_rank ${rank}`)
  if (dpSizeOf(record) > 1 && record.replayEndpoint !== null) missing.push('replay_endpoint is supported only for data_parallel_size 1')
  return missing
}

/** What is wrong with the addresses of a worker's event sockets; null: nothing. */
export function addressProblem(record: WorkerRecord): string | null {
  for (const [rank, endpoint] of eventEndpointsOf(record)) {
    const problem = endpointProblem(endpoint)
    if (problem !== null) return `invalid kv_events endpoint for worker ${record.workerId} dp_rank ${rank}: ${problem}`
  }
  const problem = record.replayEndpoint === null ? null : endpointProblem(record.replayEndpoint)
  return problem === null ? null : `invalid replay endpoint for worker ${record.workerId}: ${problem}`
}

/** The worker as routing sees it. Its taints are those that were told: as in the original, its domains make none. */
export const descriptionOf = (record: WorkerRecord): WorkerDescription => ({
  workerId: record.workerId, dpStart: dpStartOf(record), dpSize: dpSizeOf(record), totalKvBlocks: record.totalKvBlocks,
  maxNumBatchedTokens: record.maxNumBatchedTokens, taints: [...record.taints], topologyDomains: new Map(),
})

/** Whether a schedulable worker has this rank; a null rank: any. */
export function servesRank(record: WorkerRecord | undefined, key: PartitionKey, dpRank: WorkerRank['dpRank'] | null): record is WorkerRecord {
  if (record?.lifecycle !== 'schedulable' || record.key.model !== key.model || record.key.group !== key.group) return false
  return dpRank === null || (dpRank >= dpStartOf(record) && dpRank < dpStartOf(record) + dpSizeOf(record))
}

/** The record as it is shown. */
export function recordJson(record: WorkerRecord): Readonly<Record<string, unknown>> {
  return {
    worker_id: record.workerId, model_name: record.key.model, routing_group: record.key.group, lifecycle: record.lifecycle,
    endpoint: record.endpoint, kv_events_endpoint: record.kvEventsEndpoint,
    ...mapJson('kv_events_endpoints', record.kvEventsEndpoints),
    replay_endpoint: record.replayEndpoint, block_size: record.blockSize, data_parallel_start_rank: record.dpStart,
    data_parallel_size: record.dpSize, max_num_batched_tokens: record.maxNumBatchedTokens, total_kv_blocks: record.totalKvBlocks,
    stable_routing_id: record.stableRoutingId, is_eagle: record.isEagle, taints: [...record.taints],
    topology_domains: Object.fromEntries(record.topologyDomains), kv_transfer_domain: record.kvTransferDomain,
    kv_transfer_enforcement: record.kvTransferEnforcement, kv_transfer_preferred_weight: record.kvTransferPreferredWeight,
    ...(record.hintWorkerType === null ? {} : { router_hint_worker_type: record.hintWorkerType }),
    ...mapJson('router_hint_source_control_endpoints', record.hintControlEndpoints),
    ...(record.kvEventSourceMode === null ? {} : { kv_event_source_mode: record.kvEventSourceMode }),
    ...(record.reasons.length === 0 ? {} : { not_schedulable_reasons: record.reasons }),
  }
}

const mapJson = (name: string, map: ReadonlyMap<number, string>): Readonly<Record<string, unknown>> =>
  map.size === 0 ? {} : { [name]: Object.fromEntries(map) }
