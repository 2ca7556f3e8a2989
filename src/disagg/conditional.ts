/**
 * Conditional disaggregation: whether one request skips the prefill workers, because the decode worker that it would go to has most of
 * its prompt cached, or because the prefill worker is busy. Source: router-algorithm 14.
 */

export const conditionalPolicies = ['isl_bounding', 'prefill_load', 'isl_or_load'] as const
export type ConditionalPolicy = (typeof conditionalPolicies)[number]

/** Rules, already validated. Source: Dynamo 1.6.1 `--router-conditional-disagg-config`. */
export interface ConditionalDisagg {
  readonly policy: ConditionalPolicy
  /** Tokens: only prompts with fewer uncached ones skip. */
  readonly effIslThreshold: number
  /** 0..1: only prompts of which less than this share is uncached skip. */
  readonly effIslRatioThreshold: number
  /** Multiple of a prefill worker's largest batch; set whenever the policy looks at prefill load. */
  readonly prefillBusyThreshold: number | null
  /** Share of a decode worker's blocks up to which it takes prompts; null: always. */
  readonly decodeBusyThreshold: number | null
}

const fields = ['policy', 'eff_isl_threshold', 'eff_isl_ratio_threshold', 'prefill_busy_threshold', 'decode_busy_threshold']

type Parsed = { readonly kind: 'rules'; readonly rules: ConditionalDisagg } | { readonly kind: 'problem'; readonly problem: string }

const problem = (text: string): Parsed => ({ kind: 'problem', problem: text })

const looksAtPrefill = (policy: ConditionalPolicy): boolean => policy !== 'isl_bounding'

/**
 * Reads the rules from JSON text; null text means the defaults. `queueThreshold` stands in for a missing prefill threshold.
 * A problem names the field, its value and what is expected.
 */
export function parseConditionalDisagg(text: string | null, queueThreshold: number | null): Parsed {
  let value: unknown
  try {
    value = JSON.parse(text ?? '{}')
  } catch (error) {
    return problem(`is not JSON (${error instanceof Error ? error.message : String(error)})`)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return problem('must be a JSON object')
  const given = value as Readonly<Record<string, unknown>>
  const unknown = Object.keys(given).find((name) => !fields.includes(name))
  if (unknown !== undefined) return problem(`has an unknown field ${JSON.stringify(unknown)}; the fields are ${fields.join(', ')}`)
  const { policy = 'isl_bounding' } = given
  const known = conditionalPolicies.find((name) => name === policy)
  if (known === undefined) return problem(`policy is ${JSON.stringify(policy)}; expected one of ${conditionalPolicies.join(', ')}`)
  const wrong = [
    numberProblem(given, 'eff_isl_threshold', { integer: true, max: Number.MAX_SAFE_INTEGER, nullable: false }),
    numberProblem(given, 'eff_isl_ratio_threshold', { integer: false, max: 1, nullable: false }),
    numberProblem(given, 'prefill_busy_threshold', { integer: false, max: Number.MAX_VALUE, nullable: true }),
    numberProblem(given, 'decode_busy_threshold', { integer: false, max: Number.MAX_VALUE, nullable: true }),
  ].find((text) => text !== null)
  if (wrong !== undefined && wrong !== null) return problem(wrong)
  const numberOf = (name: string, otherwise: number): number => (given[name] as number | undefined) ?? otherwise
  const prefillBusyThreshold = (given['prefill_busy_threshold'] as number | null | undefined) ?? queueThreshold
  if (looksAtPrefill(known) && prefillBusyThreshold === null) {
    return problem(`policy ${known} needs prefill_busy_threshold, a multiple of a prefill worker's largest batch; set it, or --router-queue-threshold`)
  }
  return {
    kind: 'rules',
    rules: {
      policy: known, effIslThreshold: numberOf('eff_isl_threshold', 2048), effIslRatioThreshold: numberOf('eff_isl_ratio_threshold', 0.7), prefillBusyThreshold,
      decodeBusyThreshold: (given['decode_busy_threshold'] as number | null | undefined) ?? null,
    },
  }
}

function numberProblem(given: Readonly<Record<string, unknown>>, name: string, { integer, max, nullable }: { readonly integer: boolean; readonly max: number; readonly nullable: boolean }): string | null {
  const value = given[name]
  if (value === undefined || (value === null && nullable)) return null
  const isNumber = typeof value === 'number' && Number.isFinite(value) && (!integer || Number.isInteger(value))
  if (isNumber && value >= 0 && value <= max) return null
  return `${name} is ${JSON.stringify(value)}; expected ${integer ? 'a whole number' : 'a number'} ${max === 1 ? 'from 0 to 1' : 'of 0 or more'}${nullable ? ', or null' : ''}`
}

/** What one decision looks at: a preview of both stages, nothing booked. */
export interface BypassFacts {
  readonly promptTokens: number
  /** Of the decode worker that the request would go to, tiers weighted. */
  readonly cachedTokens: number
  /** The decode worker's blocks with this request, and all it has; null: unknown. */
  readonly decodeBlocks: number | null
  readonly decodeTotalBlocks: number | null
  /** Prompt tokens that the prefill worker it would go to has to compute; null: none would be chosen. Asked only when a policy needs it. */
  prefillLoad(): { readonly activeTokens: number; readonly maxBatchTokens: number | null } | null
}

/** Why a request skips the prefill workers, or why it does not. */
export type BypassVerdict =
  | { readonly bypass: true; readonly reason: 'cached' | 'prefill_busy' }
  | { readonly bypass: false; readonly reason: 'policy' | 'decode_busy' | 'decode_unknown' }

/** Batch of a worker that does not tell. Source: router-algorithm 9.6. */
const unknownBatchTokens = 10_000_000

/** Tokens of the prompt that the decode worker would have to compute. */
export const netNewTokens = ({ promptTokens, cachedTokens }: Pick<BypassFacts, 'promptTokens' | 'cachedTokens'>): number =>
  Math.max(0, promptTokens - Math.min(cachedTokens, promptTokens))

/** Whether a request skips the prefill workers. */
export function bypassVerdict(rules: ConditionalDisagg, facts: BypassFacts): BypassVerdict {
  const reason = policyReason(rules, facts)
  if (reason === null) return { bypass: false, reason: 'policy' }
  if (rules.decodeBusyThreshold !== null) {
    if (facts.decodeBlocks === null || facts.decodeTotalBlocks === null) return { bypass: false, reason: 'decode_unknown' }
    if (facts.decodeBlocks > rules.decodeBusyThreshold * facts.decodeTotalBlocks) return { bypass: false, reason: 'decode_busy' }
  }
  return { bypass: true, reason }
}

function policyReason(rules: ConditionalDisagg, facts: BypassFacts): 'cached' | 'prefill_busy' | null {
  if (rules.policy !== 'prefill_load') {
    const left = netNewTokens(facts)
    if (left < rules.effIslThreshold && left / Math.max(1, facts.promptTokens) < rules.effIslRatioThreshold) return 'cached'
  }
  if (rules.policy === 'isl_bounding' || rules.prefillBusyThreshold === null) return null
  const load = facts.prefillLoad()
  return load !== null && load.activeTokens > rules.prefillBusyThreshold * (load.maxBatchTokens ?? unknownBatchTokens) ? 'prefill_busy' : null
}
