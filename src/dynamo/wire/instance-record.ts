/** Records of bucket `v1/instances`: an endpoint that a process serves. Source: Dynamo 1.6.1 discovery. */
import type { Codec, InstanceRecord, JsonObject, TransportAddress } from '../../ports.ts'
import { isObject } from './json.ts'
import { malformed } from './wire-error.ts'

/**
 * Reads an endpoint record, with or without its `type`.
 *
 * A record without `request_plane_codec` is of a peer that knows JSON only. Errors: `WireError` that names the field.
 */
export function decodeInstanceRecord(value: unknown): InstanceRecord {
  if (!isObject(value)) throw malformed('instance record: expected an object')
  if (value.type !== undefined && value.type !== 'Endpoint') throw malformed(`instance record: type is ${shown(value.type)}, expected "Endpoint"`)
  return {
    namespace: nameOf(value, 'namespace'),
    component: nameOf(value, 'component'),
    endpoint: nameOf(value, 'endpoint'),
    instanceId: idOf(value.instance_id),
    transport: transportOf(value.transport),
    codec: codecOf(value.request_plane_codec),
    deviceType: typeof value.device_type === 'string' ? value.device_type : null,
  }
}

/** The JSON form of an endpoint record. */
export function encodeInstanceRecord(record: InstanceRecord): JsonObject {
  return {
    type: 'Endpoint',
    component: record.component,
    endpoint: record.endpoint,
    namespace: record.namespace,
    instance_id: record.instanceId,
    transport: record.transport,
    ...(record.deviceType === null ? {} : { device_type: record.deviceType }),
    request_plane_codec: record.codec,
  }
}

function nameOf(value: { readonly [key: string]: unknown }, field: string): string {
  const name = value[field]
  if (typeof name !== 'string' || name === '') throw malformed(`instance record: ${field} is ${shown(name)}, expected a name`)
  return name
}

function idOf(value: unknown): bigint {
  const id = typeof value === 'bigint' || (typeof value === 'number' && Number.isSafeInteger(value)) ? BigInt(value) : -1n
  if (id < 0n || id >= 1n << 64n) throw malformed(`instance record: instance_id is ${shown(value)}, expected an unsigned 64-bit integer`)
  return id
}

function transportOf(value: unknown): TransportAddress {
  if (isObject(value)) {
    if (typeof value.tcp === 'string') return { tcp: value.tcp }
    if (typeof value.nats_tcp === 'string') return { nats_tcp: value.nats_tcp }
    if (value.http !== undefined) throw malformed('instance record: transport is http, the request plane of Dynamo 1.1 that is not spoken here; start that process with DYN_REQUEST_PLANE=tcp or nats')
  }
  throw malformed('instance record: transport has neither tcp nor nats_tcp')
}

function codecOf(value: unknown): Codec {
  if (value === undefined || value === null) return 'json'
  if (value === 'msgpack' || value === 'json') return value
  throw malformed(`instance record: request_plane_codec is ${shown(value)}, expected "msgpack" or "json"`)
}

function shown(value: unknown): string {
  return typeof value === 'bigint' ? String(value) : (JSON.stringify(value) ?? 'missing').slice(0, 100)
}
