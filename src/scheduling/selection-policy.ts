/** Named selection policies: their types, parameters and which one a pool uses. Source: router-algorithm 9.4 and 10.1. */
import type { WorkerRole } from '../model/worker.ts'

/** Parameters of the builtin cost; those left out are the router's own settings. Ranges as in the options. */
export interface DefaultCostParameters {
  readonly overlapScoreCredit?: number
  readonly overlapScoreCreditDecay?: number
  readonly prefillLoadScale?: number
  readonly decodeActiveRequestWeight?: number
  readonly hostCacheHitWeight?: number
  readonly diskCacheHitWeight?: number
  readonly sharedCacheMultiplier?: number
  readonly temperature?: number
}

/** Parameters of the policy of two tiers: balance first, then cache. */
export interface TwoTierParameters {
  /** Share of the prompt that the best device overlap must exceed to count. 0 to 1. */
  readonly cacheThreshold: number
  /** The spread of active requests that counts as imbalance: more than this many ... */
  readonly balanceAbsThreshold: number
  /** ... and the most above this multiple of the least. At least 1. */
  readonly balanceRelThreshold: number
}

/** One named policy, checked. */
export type SelectionPolicySettings =
  | { readonly type: 'dynamo-default-cost-fn'; readonly name: string; readonly parameters: DefaultCostParameters }
  | { readonly type: 'dynamo-two-tier-cost-fn'; readonly name: string; readonly parameters: TwoTierParameters }

/** The `worker_selection` section of a policy file, checked: its instances, and the name of one per role. */
export interface WorkerSelectionSettings {
  readonly instances: ReadonlyMap<string, SelectionPolicySettings>
  readonly byRole: Readonly<Partial<Record<WorkerRole, string>>>
}

/** The builtin cost with the router's settings, under its reserved name. */
export const defaultSelectionPolicy: SelectionPolicySettings = { type: 'dynamo-default-cost-fn', name: 'default', parameters: {} }

interface ParameterRule {
  readonly key: string
  readonly minimum: number
  readonly maximum: number
}

const atLeast = (key: string, minimum = 0, maximum = Infinity): ParameterRule => ({ key, minimum, maximum })

const defaultCostRules: Readonly<Record<string, ParameterRule>> = {
  overlap_score_credit: atLeast('overlapScoreCredit'),
  overlap_score_credit_decay: atLeast('overlapScoreCreditDecay'),
  prefill_load_scale: atLeast('prefillLoadScale'),
  decode_active_request_weight: atLeast('decodeActiveRequestWeight'),
  host_cache_hit_weight: atLeast('hostCacheHitWeight', 0, 1),
  disk_cache_hit_weight: atLeast('diskCacheHitWeight', 0, 1),
  shared_cache_multiplier: atLeast('sharedCacheMultiplier', 0, 1),
  router_temperature: atLeast('temperature'),
}

const twoTierRules: Readonly<Record<string, ParameterRule>> = {
  cache_threshold: atLeast('cacheThreshold', 0, 1),
  balance_abs_threshold: atLeast('balanceAbsThreshold'),
  balance_rel_threshold: atLeast('balanceRelThreshold', 1),
}

const twoTierDefaults: TwoTierParameters = { cacheThreshold: 0.5, balanceAbsThreshold: 32, balanceRelThreshold: 1.1 }

/** Types of policies that an instance may name. */
export const selectionPolicyTypes = ['dynamo-default-cost-fn', 'dynamo-two-tier-cost-fn'] as const

/**
 * An instance from its written form. Gives the reason as text when a type is unknown, a parameter is unknown or out of range.
 * `parameters`: names as in the policy file, values as parsed.
 */
export function selectionPolicyFrom(name: string, type: string, parameters: Readonly<Record<string, unknown>>): SelectionPolicySettings | string {
  if (!/^[A-Za-z0-9_.-]+$/.test(name)) return `name ${JSON.stringify(name)} is not valid; expected letters, digits, ., - and _`
  if (name === defaultSelectionPolicy.name) return 'the name default is reserved; give the instance another one'
  if (type === 'dynamo-default-cost-fn') {
    const read = readParameters(defaultCostRules, parameters)
    return typeof read === 'string' ? read : { type, name, parameters: read }
  }
  if (type === 'dynamo-two-tier-cost-fn') {
    const read = readParameters(twoTierRules, parameters)
    return typeof read === 'string' ? read : { type, name, parameters: { ...twoTierDefaults, ...read } }
  }
  return `type ${JSON.stringify(type)} is not known; expected ${selectionPolicyTypes.join(' or ')}`
}

function readParameters(rules: Readonly<Record<string, ParameterRule>>, parameters: Readonly<Record<string, unknown>>): Record<string, number> | string {
  const read: Record<string, number> = {}
  for (const [name, value] of Object.entries(parameters)) {
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined
    if (rule === undefined) return `parameter ${name} is not known; expected ${Object.keys(rules).join(', ')}`
    // YAML readers give whole numbers as bigints when asked to.
    const number = typeof value === 'bigint' ? Number(value) : value
    if (typeof number !== 'number' || !Number.isFinite(number) || number < rule.minimum || number > rule.maximum) {
      const range = rule.maximum === Infinity ? `a number of at least ${rule.minimum}` : `a number from ${rule.minimum} to ${rule.maximum}`
      return `parameter ${name}: ${String(value)} is not valid; expected ${range}`
    }
    read[rule.key] = number
  }
  return read
}

/** What names a pool's policy, first one first; null or '' = not given. */
export interface SelectionPolicyNames {
  /** `--router-prefill-policy` for prefill pools, `--router-decode-policy` for all others. */
  readonly option: string | null
  /** `DYN_ROUTER_WORKER_SELECTION_POLICY`. */
  readonly environment: string | null
}

/** The policy of a pool. Gives the reason as text when a name stands for none. */
export function selectionPolicyFor(role: WorkerRole, names: SelectionPolicyNames, selection: WorkerSelectionSettings | null): SelectionPolicySettings | string {
  const name = names.option || names.environment || selection?.byRole[role] || defaultSelectionPolicy.name
  if (name === defaultSelectionPolicy.name) return defaultSelectionPolicy
  const found = selection?.instances.get(name)
  if (found !== undefined) return found
  const known = [defaultSelectionPolicy.name, ...(selection?.instances.keys() ?? [])].join(', ')
  return `no selection policy is named ${JSON.stringify(name)}; the policy file has ${known}`
}
