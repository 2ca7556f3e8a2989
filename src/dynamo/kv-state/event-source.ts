/** Records of bucket `v1/event_sources`: a worker rank that publishes KV events. Source: Dynamo 1.6.1 discovery. */
import type { EndpointId, InstanceRecord, JsonObject } from '../../ports.ts'
import type { WorkerRank } from '../../model/worker.ts'
import { decodeInstanceRecord, encodeInstanceRecord } from '../wire/instance-record.ts'
import { isObject } from '../wire/json.ts'
import { malformed } from '../wire/wire-error.ts'
import { scopeValue } from '../event-plane/event-keys.ts'

/** Topic of KV events. */
export const kvEventsTopic = 'kv-events'

export interface EventSource {
  readonly publisherId: bigint
  readonly rank: WorkerRank
  /** Where missed events can be asked for; null: a live-only source. */
  readonly recoveryTarget: InstanceRecord | null
}

/** Name of the endpoint at which a source answers recovery requests. */
export const recoveryEndpointName = (publisherId: bigint): string => `worker_kv_query_source_${publisherId.toString(16)}`

/** Reads a source record of topic kv-events. Errors: `WireError` that names the field. */
export function decodeEventSource(value: JsonObject): EventSource {
  if (value['type'] !== 'EventSource') throw malformed('event source: type is not "EventSource"')
  const { metadata } = value
  if (!isObject(metadata)) throw malformed('event source: metadata is not an object')
  const { worker } = metadata
  if (!isObject(worker)) throw malformed('event source: metadata.worker is not an object')
  const publisherId = u64Of(value['publisher_id'], 'publisher_id')
  if (metadata['publisher_id'] !== undefined && u64Of(metadata['publisher_id'], 'metadata.publisher_id') !== publisherId) {
    throw malformed('event source: metadata.publisher_id differs from publisher_id')
  }
  const dpRank = u64Of(worker['dp_rank'], 'metadata.worker.dp_rank')
  if (dpRank > 0xffffffffn) throw malformed(`event source: metadata.worker.dp_rank ${dpRank} is not a u32`)
  const target = metadata['recovery_target']
  return {
    publisherId,
    rank: { workerId: u64Of(worker['worker_id'], 'metadata.worker.worker_id'), dpRank: Number(dpRank) },
    recoveryTarget: target === undefined || target === null ? null : decodeInstanceRecord(target),
  }
}

/** The record of a source of an endpoint. */
export function encodeEventSource(scope: EndpointId, source: EventSource): JsonObject {
  const { type: _type, ...target } = source.recoveryTarget === null ? { type: null } : encodeInstanceRecord(source.recoveryTarget)
  return {
    type: 'EventSource', scope: scopeValue(scope), topic: kvEventsTopic, publisher_id: source.publisherId,
    metadata: {
      kv_state_endpoint: { namespace: scope.namespace, component: scope.component, name: scope.endpoint },
      worker: { worker_id: source.rank.workerId, dp_rank: source.rank.dpRank },
      publisher_id: source.publisherId,
      ...(source.recoveryTarget === null ? {} : { recovery_target: target }),
    },
  }
}

function u64Of(value: unknown, field: string): bigint {
  const id = typeof value === 'bigint' || (typeof value === 'number' && Number.isSafeInteger(value)) ? BigInt(value) : -1n
  if (id < 0n || id >= 1n << 64n) throw malformed(`event source: ${field} is ${String(value)}, expected an unsigned 64-bit integer`)
  return id
}
