/** Bucket-relative keys: whole-part prefixes, and the parts of instance and card keys. */
import type { EndpointId } from '../../ports.ts'

/** True when `key` is `prefix` or lies below it; `ns/comp` does not match `ns/comp2`. An empty prefix matches all. */
export function isUnderPrefix(key: string, prefix: string): boolean {
  const parts = prefix.endsWith('/') ? prefix.slice(0, -1) : prefix
  if (parts === '') return true
  return key.startsWith(parts) && (key.length === parts.length || key[parts.length] === '/')
}

/** `{ns}/{comp}/{ep}`: the prefix of an endpoint's instances and cards. */
export const endpointPrefix = (endpoint: EndpointId): string =>
  `${endpoint.namespace}/${endpoint.component}/${endpoint.endpoint}`

/** `{ns}/{comp}/{ep}/{iid:x}`, with `/{suffix}` for a LoRA adapter's card. */
export function instanceKey(endpoint: EndpointId, instanceId: bigint, suffix?: string): string {
  const key = `${endpointPrefix(endpoint)}/${instanceId.toString(16)}`
  return suffix === undefined ? key : `${key}/${suffix}`
}

/** What an instance or card key says. `suffix`: of a LoRA adapter's card, else null. */
export interface ParsedInstanceKey extends EndpointId {
  readonly instanceId: bigint
  readonly suffix: string | null
}

const hexId = /^[0-9a-f]{1,16}$/

/** Reads an instance or card key; null when it has another shape. */
export function parseInstanceKey(key: string): ParsedInstanceKey | null {
  const [namespace, component, endpoint, id, ...rest] = key.split('/')
  if (!namespace || !component || !endpoint || id === undefined || !hexId.test(id)) return null
  return { namespace, component, endpoint, instanceId: BigInt(`0x${id}`), suffix: rest.length === 0 ? null : rest.join('/') }
}
