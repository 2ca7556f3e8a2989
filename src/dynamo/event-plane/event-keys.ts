/**
 * Keys, subjects and scope objects of the event plane. Those of an endpoint are of Dynamo 1.6.1; events of a component or a
 * namespace travel as 1.1 and 1.3 name them, without escapes.
 */
import type { EndpointId, EventScope, JsonObject, Random } from '../../ports.ts'

const encoder = new TextEncoder()

/** One key part: bytes `[A-Za-z0-9_-]` stay, every other byte becomes `%XX`. */
export function encodeKeySegment(segment: string): string {
  if (/^[A-Za-z0-9_-]*$/.test(segment)) return segment
  let encoded = ''
  for (const byte of encoder.encode(segment)) {
    const character = String.fromCharCode(byte)
    encoded += /[A-Za-z0-9_-]/.test(character) ? character : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
  }
  return encoded
}

/** The key prefix of one topic of a scope, in `v1/event_channels` and, of endpoints, `v1/event_sources`. */
export function eventTopicPrefix(scope: EventScope, topic: string): string {
  if (!isEndpoint(scope)) return `${scope.namespace}/${scope.component ?? ''}/${topic}`
  const [namespace, component, endpoint, name] = [scope.namespace, scope.component, scope.endpoint, topic].map(encodeKeySegment)
  return `namespace/${namespace}/component/${component}/endpoint/${endpoint}/topic/${name}`
}

/** The key of one publisher's record. */
export const eventKey = (scope: EventScope, topic: string, publisherId: bigint): string =>
  `${eventTopicPrefix(scope, topic)}/${publisherId.toString(16)}`

/** The publisher id at the end of an event key, or null when it is not one. */
export function publisherIdOfKey(key: string): bigint | null {
  const tail = key.slice(key.lastIndexOf('/') + 1)
  return /^[0-9a-f]{1,16}$/.test(tail) ? BigInt(`0x${tail}`) : null
}

/** The `scope` value of the records of an endpoint. */
export const scopeValue = (scope: EndpointId): JsonObject => ({
  kind: 'endpoint',
  endpoint: { namespace: scope.namespace, component: scope.component, name: scope.endpoint },
})

/** The subject of a scope's events, without the topic. */
export function eventSubjectPrefix(scope: EventScope): string {
  if (!isEndpoint(scope)) return `namespace.${scope.namespace}${scope.component === null ? '' : `.component.${scope.component}`}`
  const [namespace, component, endpoint] = [scope.namespace, scope.component, scope.endpoint].map(encodeKeySegment)
  return `namespace.${namespace}.component.${component}.endpoint.${endpoint}`
}

/** The subject of a topic over NATS, and the first frame behind a ZMQ broker. */
export const eventSubject = (scope: EventScope, topic: string): string =>
  `${eventSubjectPrefix(scope)}.${isEndpoint(scope) ? encodeKeySegment(topic) : topic}`

/** The scope at which releases before 1.6 publish the events of an endpoint's component. */
export const componentScope = ({ namespace, component }: EndpointId): EventScope => ({ namespace, component, endpoint: null })

/** The scope at which releases before 1.6 publish loads. */
export const namespaceScope = ({ namespace }: EndpointId): EventScope => ({ namespace, component: null, endpoint: null })

/** Whether events travel in the form of 1.6. */
export const isEndpoint = (scope: EventScope): scope is EndpointId => scope.endpoint !== null && scope.component !== null

/** The key prefix under which the brokers of a namespace are registered. */
export const brokerPrefix = (namespace: string): string => `namespace/${encodeKeySegment(namespace)}/component/zmq_broker`

/** A new publisher's id: 53 bits at random. */
export function newPublisherId(random: Random): bigint {
  const [low, high] = random.u64()
  return (BigInt(high & 0x1fffff) << 32n) | BigInt(low)
}

/** The record of one publisher. */
export const channelRecord = (scope: EventScope, topic: string, publisherId: bigint, transport: JsonObject): JsonObject => ({
  type: 'EventChannel', ...(isEndpoint(scope) ? { scope: scopeValue(scope) } : { namespace: scope.namespace, component: scope.component ?? '' }),
  topic, instance_id: publisherId, transport,
})
