/** What the cards of prefill workers lay down for their stage, read once per text; what cannot be used is said in the log. */
import { parseCardRouterConfig, type CardRouterConfig } from '../config/card-router-config.ts'
import type { JsonObject, Log } from '../ports.ts'
import type { RouterSettings } from '../router/contract.ts'

export interface PrefillOverrides {
  /** Null: the router's own settings count. */
  of(routerConfig: JsonObject | null): CardRouterConfig | null
  /** What the card says in place of all that it may say; pool and tracking hash stay. */
  apply(config: CardRouterConfig, own: RouterSettings): RouterSettings
}

/** Texts kept at most; the last ones stay. */
const keptMax = 64

export function prefillOverrides(log: Log): PrefillOverrides {
  const known = new Map<string, CardRouterConfig | null>()
  const read = (routerConfig: JsonObject): CardRouterConfig | null => {
    const parsed = parseCardRouterConfig(routerConfig)
    if (parsed.kind === 'problem') {
      log.error({ stage: 'discovery', reason: parsed.problem }, `the card of a prefill worker has a router_config that cannot be used (${parsed.problem}); this router's own settings count`)
      return null
    }
    const { unapplied } = parsed.config
    log.info({ stage: 'discovery', mode: parsed.config.mode ?? 'kv' }, "the prefill stage takes its settings from its workers' card")
    if (unapplied.length > 0) log.warn({ stage: 'discovery', reason: unapplied.join(', ') }, `of the card's router_config these are not applied: ${unapplied.join(', ')}`)
    return parsed.config
  }
  return {
    of: (routerConfig) => {
      if (routerConfig === null) return null
      const text = JSON.stringify(routerConfig, (_key, value: unknown) => (typeof value === 'bigint' ? `${value}` : value))
      const before = known.get(text)
      if (before !== undefined) return before
      const config = read(routerConfig)
      if (known.size >= keptMax) known.clear()
      known.set(text, config)
      return config
    },
    apply: ({ mode, settings }, { blockSize, isEagle, role, tracking }) => ({ ...settings, blockSize, isEagle, role, tracking, ...(mode === null ? {} : { selectionMode: mode }) }),
  }
}
