/** From resources and readiness to records: whose count, and what they say. Pure. */
import type { Bucket, Json, JsonObject } from '../../ports.ts'
import { isObject } from '../wire/json.ts'

/** Members of `spec.data` by bucket. */
export const dataMembers: Readonly<Record<Bucket, string>> = {
  'v1/instances': 'endpoints', 'v1/mdc': 'model_cards', 'v1/event_channels': 'event_channels', 'v1/event_sources': 'event_sources',
}

const member = (value: Json | undefined, name: string): Json | undefined => (isObject(value) ? (value as JsonObject)[name] : undefined)
const listOf = (value: Json | undefined): readonly Json[] => (Array.isArray(value) ? (value as readonly Json[]) : [])

/** Ready pods by name, with their uid, from EndpointSlices. */
export function readyPods(slices: Iterable<JsonObject>): Map<string, string> {
  const ready = new Map<string, string>()
  for (const slice of slices) {
    for (const endpoint of listOf(slice['endpoints'])) {
      const target = member(endpoint, 'targetRef')
      const [name, uid] = [member(target, 'name'), member(target, 'uid')]
      // Without a word on it an endpoint is ready.
      if (member(member(endpoint, 'conditions'), 'ready') === false) continue
      if (typeof name === 'string' && typeof uid === 'string') ready.set(name, uid)
    }
  }
  return ready
}

/** Ready containers by the name of their resource, with the uid of their pod. */
export function readyContainers(pods: Iterable<JsonObject>): Map<string, string> {
  const ready = new Map<string, string>()
  for (const pod of pods) {
    const [name, uid] = [member(pod['metadata'], 'name'), member(pod['metadata'], 'uid')]
    if (typeof name !== 'string' || typeof uid !== 'string') continue
    for (const status of listOf(member(pod['status'], 'containerStatuses'))) {
      const container = member(status, 'name')
      if (member(status, 'ready') === true && typeof container === 'string') ready.set(container === 'main' ? name : `${name}-${container}`, uid)
    }
  }
  return ready
}

/** Uid of the pod that owns a resource; null when none is told. */
function ownerUid(resource: JsonObject): string | null {
  for (const owner of listOf(member(resource['metadata'], 'ownerReferences'))) {
    const uid = member(owner, 'uid')
    if (member(owner, 'kind') === 'Pod' && typeof uid === 'string') return uid
  }
  return null
}

/** Resources of pods that are ready and the same that wrote them. A resource left behind by an earlier pod of that name does not count. */
export function countedResources(resources: ReadonlyMap<string, JsonObject>, ready: ReadonlyMap<string, string>): JsonObject[] {
  const counted: JsonObject[] = []
  for (const [name, resource] of resources) {
    const uid = ready.get(name)
    if (uid !== undefined && uid === ownerUid(resource)) counted.push(resource)
  }
  return counted
}

/** Records of one bucket by key. */
export function recordsOf(resources: Iterable<JsonObject>, bucket: Bucket): Map<string, JsonObject> {
  const records = new Map<string, JsonObject>()
  for (const resource of resources) {
    const data = member(member(member(resource, 'spec'), 'data'), dataMembers[bucket])
    if (!isObject(data)) continue
    for (const [key, value] of Object.entries(data as JsonObject)) {
      if (isObject(value)) records.set(key, bucket.startsWith('v1/event_') ? scoped(value as JsonObject) : (value as JsonObject))
    }
  }
  return records
}

/** A record of an older writer names its scope by two members. */
function scoped(record: JsonObject): JsonObject {
  if (record['scope'] !== undefined || typeof record['namespace'] !== 'string') return record
  const { namespace, component } = record
  return { ...record, scope: typeof component === 'string' && component !== '' ? { kind: 'component', namespace, component } : { kind: 'namespace', name: namespace } }
}

/** The members that older readers of an event channel look for. */
export function withLegacyScope(record: JsonObject): JsonObject {
  const scope = record['scope']
  const kind = member(scope, 'kind')
  const endpoint = member(scope, 'endpoint')
  const namespace = kind === 'namespace' ? member(scope, 'name') : kind === 'endpoint' ? member(endpoint, 'namespace') : member(scope, 'namespace')
  const component = kind === 'namespace' ? '' : kind === 'endpoint' ? member(endpoint, 'component') : member(scope, 'component')
  return { ...record, ...(typeof namespace === 'string' ? { namespace } : {}), ...(typeof component === 'string' ? { component } : {}) }
}
