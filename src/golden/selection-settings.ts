/** Settings of the selection service, from the environment that a case was recorded with. */
import type { RouterSettings } from '../router/contract.ts'
import { selectionPolicyFor, selectionPolicyFrom } from '../scheduling/selection-policy.ts'
import type { SelectionPolicySettings } from '../scheduling/selection-policy.ts'
import { parse } from 'yaml'
import { defaultRouterSettings } from '../router/settings.ts'

type Change = (text: string) => Partial<RouterSettings>

const isOn = (text: string): boolean => ['1', 'true', 'on', 'yes'].includes(text.toLowerCase())

const changes: Readonly<Record<string, Change>> = {
  DYN_ROUTER_KV_OVERLAP_SCORE_CREDIT: (text) => ({ overlapScoreCredit: Number(text) }),
  DYN_ROUTER_KV_OVERLAP_SCORE_CREDIT_DECAY: (text) => ({ overlapScoreCreditDecay: Number(text) }),
  DYN_ROUTER_PREFILL_LOAD_SCALE: (text) => ({ prefillLoadScale: Number(text) }),
  DYN_ROUTER_DECODE_ACTIVE_REQUEST_WEIGHT: (text) => ({ decodeActiveRequestWeight: Number(text) }),
  DYN_ROUTER_HOST_CACHE_HIT_WEIGHT: (text) => ({ hostCacheHitWeight: Number(text) }),
  DYN_ROUTER_DISK_CACHE_HIT_WEIGHT: (text) => ({ diskCacheHitWeight: Number(text) }),
  DYN_ROUTER_TRACK_PREFILL_TOKENS: (text) => ({ trackPrefillTokens: isOn(text) }),
  DYN_ROUTER_TRACK_ACTIVE_BLOCKS: (text) => ({ trackActiveBlocks: isOn(text) }),
  DYN_ROUTER_ASSUME_KV_REUSE: (text) => ({ assumeKvReuse: isOn(text) }),
  DYN_ROUTER_USE_KV_EVENTS: (text) => ({ useKvEvents: isOn(text) }),
  DYN_USE_KV_EVENTS: (text) => ({ useKvEvents: isOn(text) }),
  DYN_ROUTER_TTL_SECS: (text) => ({ ttlSeconds: Number(text) }),
  DYN_ROUTER_PREDICTED_TTL_SECS: (text) => ({ predictedTtlSeconds: Number(text) }),
  DYN_ROUTER_POLICY_CONFIG: (text) => ({ selectionPolicy: policyOf(text) }),
  DYN_OVERLAP_SCORE_WEIGHT: (text) => overlapWeight(Number(text)),
  DYN_ROUTER_KV_OVERLAP_SCORE_WEIGHT: (text) => overlapWeight(Number(text)),
}

/** The old weight scales prefill; 0 also takes the credit away. */
const overlapWeight = (weight: number): Partial<RouterSettings> => ({ prefillLoadScale: weight, ...(weight === 0 ? { overlapScoreCredit: 0 } : {}) })

/** The policy of an aggregated pool in a policy file, given as text. */
function policyOf(text: string): SelectionPolicySettings {
  const { worker_selection: section } = parse(text) as {
    worker_selection: { aggregated?: string; instances: { name: string; type: string; parameters?: Record<string, unknown> }[] }
  }
  const instances = section.instances.map(({ name, type, parameters }) => [name, selectionPolicyFrom(name, type, parameters ?? {})] as const)
  const wrong = instances.find(([, policy]) => typeof policy === 'string')
  if (wrong !== undefined) throw new Error(String(wrong[1]))
  const known = new Map(instances as [string, SelectionPolicySettings][])
  const policy = selectionPolicyFor('aggregated', { option: null, environment: null }, { instances: known, byRole: { aggregated: section.aggregated ?? 'default' } })
  if (typeof policy === 'string') throw new Error(policy)
  return policy
}

const mechanisms: Readonly<Record<string, string>> = {
  DYN_ROUTER_APPROXIMATE_CACHE_POLICY: 'the approximate LRU policy',
  DYN_ROUTER_QUEUE_THRESHOLD: 'queueing',
}

/** Settings for an environment, or the name of a mechanism that this version does not offer. */
export function settingsOf(env: Readonly<Record<string, string>>, blockSize: number): RouterSettings | { readonly missing: string } {
  let settings: RouterSettings = { ...defaultRouterSettings, blockSize }
  for (const [name, text] of Object.entries(env)) {
    const change = changes[name]
    if (change === undefined) return { missing: mechanisms[name] ?? name }
    settings = { ...settings, ...change(text) }
  }
  return settings
}
