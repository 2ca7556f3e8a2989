/**
 * Workers of Dynamo 1.1 and 1.3 as event sources: they have no source records, but an endpoint per rank that answers recovery
 * questions, `worker_kv_indexer_query_dp<rank>`, whose instance id is the worker's id.
 */
import type { Discovery, EndpointId, Log, Watch } from '../../ports.ts'
import { parseInstanceKey } from '../discovery/store-key.ts'
import { decodeInstanceRecord } from '../wire/instance-record.ts'
import { WireError } from '../wire/wire-error.ts'
import type { EventSource } from './event-source.ts'

/** The rank that an endpoint answers for; null: it is no such endpoint. */
export function rankOfQueryEndpoint(name: string): number | null {
  const digits = /^worker_kv_indexer_query_dp(\d{1,9})$/.exec(name)?.[1]
  return digits === undefined ? null : Number(digits)
}

export interface OlderSourcesParts {
  readonly discovery: Discovery
  /** The worker endpoint; its component is looked at. */
  readonly endpoint: EndpointId
  readonly log: Log
  onSource(source: EventSource): void
  onGone(source: EventSource): void
  onUnusable(key: string, reason: string): void
}

/** Follows them. At most one per record; nothing is kept but the sources that stand. */
export function followOlderSources(parts: OlderSourcesParts): Watch {
  const { discovery, endpoint } = parts
  const known = new Map<string, EventSource>()
  const drop = (key: string): void => {
    const source = known.get(key)
    if (source === undefined) return
    known.delete(key)
    parts.onGone(source)
  }
  return discovery.watch('v1/instances', `${endpoint.namespace}/${endpoint.component}`, (event) => {
    if (event.kind === 'synced') return
    const parsed = parseInstanceKey(event.key)
    const dpRank = parsed === null ? null : rankOfQueryEndpoint(parsed.endpoint)
    if (parsed === null || dpRank === null || parsed.component !== endpoint.component) return
    if (event.kind === 'delete') return drop(event.key)
    try {
      const recoveryTarget = decodeInstanceRecord(event.value)
      const source = { publisherId: recoveryTarget.instanceId, rank: { workerId: recoveryTarget.instanceId, dpRank }, recoveryTarget }
      known.set(event.key, source)
      parts.onSource(source)
    } catch (error) {
      if (!(error instanceof WireError)) throw error
      drop(event.key)
      parts.onUnusable(event.key, error.message)
    }
  })
}
