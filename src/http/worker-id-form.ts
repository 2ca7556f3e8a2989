/** Worker ids in HTTP bodies: bare numbers by default, decimal strings accepted, and given when asked for. */
import type { Json, JsonObject } from '../ports.ts'
import { invalidBody } from './lossless-body.ts'

const idFields = new Set([
  'worker_id', 'backend_instance_id', 'prefill_worker_id', 'decode_worker_id', 'allowed_worker_ids', 'router_id', 'instance_id',
])

const u64Max = (1n << 64n) - 1n

function idOf(value: Json, field: string): Json {
  if (typeof value === 'number' || typeof value === 'bigint' || value === null) return value
  if (typeof value === 'string' && /^\d{1,20}$/.test(value) && BigInt(value) <= u64Max) return BigInt(value)
  throw invalidBody(`${field} must be a worker id: an unsigned 64-bit integer, bare or as a decimal string`)
}

/** A request whose `routing` names workers by decimal strings, with those as integers. Errors: InvalidRequest with the field. */
export function withIntegerIds(request: JsonObject): JsonObject {
  const routing = request['routing']
  if (routing === null || typeof routing !== 'object' || Array.isArray(routing)) return request
  const changed: Record<string, Json> = {}
  for (const [name, value] of Object.entries(routing as JsonObject)) {
    if (!idFields.has(name)) changed[name] = value
    else if (Array.isArray(value)) changed[name] = value.map((item: Json, index) => idOf(item, `routing.${name}[${index}]`))
    else changed[name] = idOf(value, `routing.${name}`)
  }
  return { ...request, routing: changed }
}

/** The same value with every worker id as a decimal string. */
export function withStringIds(value: Json, isId = false): Json {
  if (typeof value === 'number' || typeof value === 'bigint') return isId ? String(value) : value
  if (value === null || typeof value !== 'object') return value
  if (Array.isArray(value)) return value.map((item: Json) => withStringIds(item, isId))
  return Object.fromEntries(Object.entries(value as JsonObject).map(([name, item]) => [name, withStringIds(item, idFields.has(name))]))
}
