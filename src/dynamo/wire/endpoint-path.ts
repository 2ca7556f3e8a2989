/** Names and addresses of endpoints: text ids, discovery keys, and the path that a request carries. */
import type { EndpointId } from '../../ports.ts'
import { malformed } from './wire-error.ts'

/** Reads `ns.comp.ep` or `ns/comp/ep`, with or without `dyn://`, as Dynamo does: further parts join the endpoint name, missing ones become `NS`, `C`, `E`. */
export function parseEndpointId(text: string): EndpointId {
  const parts = text.trim().replace(/^dyn:\/\//, '').split(/[./]/).filter((part) => part !== '')
  return { namespace: parts[0] ?? 'NS', component: parts[1] ?? 'C', endpoint: parts.slice(2).join('_') || 'E' }
}

/** The dotted form `ns.comp.ep`. */
export function formatEndpointId(endpoint: EndpointId): string {
  return `${endpoint.namespace}.${endpoint.component}.${endpoint.endpoint}`
}

/** The discovery key of an instance, relative to `v1/instances` and `v1/mdc`: names are not encoded, the id is hex. */
export function instanceKey(endpoint: EndpointId, instanceId: bigint): string {
  return `${endpoint.namespace}/${endpoint.component}/${endpoint.endpoint}/${instanceId.toString(16)}`
}

/** The endpoint and instance of a discovery key, or null for another form. `suffix`: what follows (a LoRA card), or null. */
export function parseInstanceKey(key: string): (EndpointId & { readonly instanceId: bigint; readonly suffix: string | null }) | null {
  const [namespace, component, endpoint, id, ...rest] = key.split('/')
  if (namespace === undefined || component === undefined || endpoint === undefined || id === undefined) return null
  if (!/^[0-9a-f]{1,16}$/.test(id) || namespace === '' || component === '' || endpoint === '') return null
  return { namespace, component, endpoint, instanceId: BigInt(`0x${id}`), suffix: rest.length === 0 ? null : rest.join('/') }
}

/** The path by which a TCP server tells its endpoints apart: `%` and `/` in names are escaped, nothing else. */
export function instancePath(endpoint: EndpointId, instanceId: bigint): string {
  return `${instanceId.toString(16)}/${escapeName(endpoint.namespace)}/${escapeName(endpoint.component)}/${escapeName(endpoint.endpoint)}`
}

/**
 * The NATS subject of an endpoint of an instance, as its record has it.
 *
 * Errors: a name with space or wildcard, which no subject can have.
 */
export function natsSubject(endpoint: EndpointId, instanceId: bigint): string {
  const subject = `${endpoint.namespace}_${endpoint.component}.${endpoint.endpoint}-${instanceId.toString(16)}`
  if (/[\s*>]|\.\.|^\.|\.$/.test(subject)) throw new Error(`${formatEndpointId(endpoint)} cannot be served over NATS: names must be without space, * and >`)
  return subject
}

function escapeName(name: string): string {
  return name.replaceAll('%', '%25').replaceAll('/', '%2F')
}

/** Where an instance listens and the path to ask it for. */
export interface TcpAddress {
  readonly host: string
  readonly port: number
  readonly path: string
}

/** Reads `host:port/path` or `[v6]:port/path`. Errors: `WireError` with the text. */
export function parseTcpAddress(text: string): TcpAddress {
  const match = /^(?:tcp:\/\/)?(\[([0-9a-fA-F:.%a-z]+)\]|[^:/[\]]+):(\d{1,5})(?:\/(.*))?$/s.exec(text)
  const port = Number(match?.[3])
  if (match === null || port < 1 || port > 65535) throw malformed(`TCP address ${JSON.stringify(text.slice(0, 200))}: expected HOST:PORT/PATH`)
  return { host: match[2] ?? (match[1] as string), port, path: match[4] ?? '' }
}

/** The text of an address; IPv6 hosts in brackets. */
export function formatTcpAddress(host: string, port: number, path?: string): string {
  const authority = `${host.includes(':') ? `[${host}]` : host}:${port}`
  return path === undefined ? authority : `${authority}/${path}`
}
