/** What `/v1/models/{id}/ready` tells of a model: workers, their needs and what is missing, per namespace. */
import type { Json, JsonObject } from '../ports.ts'
import type { ModelState, NamespaceState } from './model-state.ts'

/** `reason`: why it is not served now; null when it is. */
export function readinessReport(name: string, state: ModelState, reason: string | null): JsonObject {
  const namespaces = Object.fromEntries([...state.namespaces].map(([namespace, each]) => [namespace, namespaceReport(each)]))
  return { model: name, ready: reason === null, ...(reason === null ? {} : { reason }), namespaces }
}

function namespaceReport({ pools, entries, reason }: NamespaceState): JsonObject {
  const live = pools.filter(({ liveCount }) => liveCount > 0)
  const present = [...new Set(live.map(({ kind }) => (kind === 'legacy' ? 'aggregated' : kind)))]
  const types: Record<string, { workers: number; needs: Json }> = {}
  for (const { kind, liveCount, card } of live) {
    const type = kind === 'legacy' ? 'aggregated' : kind
    types[type] = { workers: (types[type]?.workers ?? 0) + liveCount, needs: card.needs }
  }
  const ready = entries.length > 0
  const missing = new Set(live.flatMap(({ card }) => (card.needs.length === 0 || card.needs.some((group) => group.every((role) => present.includes(role as never))) ? [] : (card.needs[0] ?? []))))
  return {
    ready, ...(ready || reason === null ? {} : { reason }), worker_types: types as JsonObject, present,
    missing_worker_types: [...missing].filter((role) => !present.includes(role as never)),
  }
}
