/** What may change in a published card: its taints, nothing else. Readers keep the old card otherwise. */
import type { Json, JsonObject } from '../../ports.ts'
import { isObject, stringifyJson } from '../wire/json.ts'
import type { ModelCard } from './model-card.ts'
import { topologyTaintPrefix } from './model-card.ts'

/** Why a changed card is refused, or null when it may take the place of the old one. */
export function refusedCardChange(before: ModelCard, after: ModelCard): string | null {
  const changed = changedFields(withoutTaints(before.raw), withoutTaints(after.raw))
  if (changed.length > 0) return `only taints may change, but ${changed.slice(0, 5).join(', ')} differ`
  const expected = new Set([...after.topologyDomains].map(([domain, value]) => `${topologyTaintPrefix}${domain}=${value}`))
  const reserved = reservedTaints(after.raw)
  const same = reserved.length === expected.size && reserved.every((taint) => expected.has(taint))
  return same ? null : `its ${topologyTaintPrefix} taints do not equal its topology_domains`
}

const runtimeOf = (raw: JsonObject): JsonObject => (isObject(raw['runtime_config']) ? (raw['runtime_config'] as JsonObject) : {})

function withoutTaints(raw: JsonObject): JsonObject {
  const { taints: _taints, ...runtime } = runtimeOf(raw)
  return { ...raw, runtime_config: runtime }
}

function reservedTaints(raw: JsonObject): string[] {
  const { taints } = runtimeOf(raw)
  if (!Array.isArray(taints)) return []
  return [...new Set(taints.filter((taint): taint is string => typeof taint === 'string' && taint.startsWith(topologyTaintPrefix)))]
}

/** Names of top-level fields whose values differ, whatever the order of their keys. */
function changedFields(before: JsonObject, after: JsonObject): string[] {
  const names = new Set([...Object.keys(before), ...Object.keys(after)])
  return [...names].filter((name) => canonical(before[name] ?? null) !== canonical(after[name] ?? null))
}

const canonical = (value: Json): string => stringifyJson(sorted(value))

function sorted(value: Json): Json {
  if (Array.isArray(value)) return value.map((item: Json) => sorted(item))
  if (!isObject(value)) return value
  const object = value as JsonObject
  return Object.fromEntries(Object.keys(object).sort().map((name) => [name, sorted(object[name] ?? null)]))
}
