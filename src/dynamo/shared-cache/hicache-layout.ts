/** The layout of a shared HiCache from a worker's card. Source: Dynamo 1.6.1, `runtime_data.sglang_hicache_mooncake`. */
import type { HicacheLayout } from '../../model/shared-cache.ts'
import type { Json, JsonObject } from '../../ports.ts'

const isObject = (value: Json | undefined): value is JsonObject => typeof value === 'object' && value !== null && !Array.isArray(value)

/** `card`: `card_json` whole. Null: the worker shares no such cache, or its entry cannot be read. */
export function hicacheLayoutOf(card: JsonObject): HicacheLayout | null {
  const runtime = card['runtime_config']
  const data = isObject(runtime) ? runtime['runtime_data'] : undefined
  const entry = isObject(data) ? data['sglang_hicache_mooncake'] : undefined
  if (!isObject(entry)) return null
  const [pageSize, tpSize, ppSize] = [countOf(entry['page_size']), countOf(entry['tp_size']), countOf(entry['pp_size'])]
  const { backend, is_mla_model: isMla, is_eagle: isEagle, should_split_heads: splitsHeads } = entry
  if (pageSize === null || tpSize === null || ppSize === null || typeof backend !== 'string' || typeof isMla !== 'boolean') return null
  return {
    backend, pageSize, tpSize, ppSize, isMla, isEagle: isEagle === true, splitsHeads: splitsHeads === true,
    tpLcmSize: countOf(entry['tp_lcm_size']), keyPrefix: textOf(entry['key_prefix']) ?? textOf(entry['extra_backend_tag']) ?? '',
    eventsEndpoint: textOf(entry['kv_events_endpoint']),
  }
}

const countOf = (value: Json | undefined): number | null => (typeof value === 'number' && Number.isSafeInteger(value) && value > 0 ? value : null)
const textOf = (value: Json | undefined): string | null => (typeof value === 'string' && value !== '' ? value : null)

/** Whether two workers use the same keys. Where events come from does not count. */
export function isSameLayout(a: HicacheLayout, b: HicacheLayout): boolean {
  return a.backend === b.backend && a.pageSize === b.pageSize && a.tpSize === b.tpSize && a.ppSize === b.ppSize && a.isMla === b.isMla &&
    a.isEagle === b.isEagle && a.tpLcmSize === b.tpLcmSize && a.splitsHeads === b.splitsHeads && a.keyPrefix === b.keyPrefix
}
