/** Which options may change while a router runs, and a request to change them. */
import type { Option, OptionTable, OptionValue } from './option.ts'
import { UsageError, didYouMean } from './usage-error.ts'
import { valueFromYaml } from './value.ts'

/** Options whose value is taken over while running; policy files are read anew as a whole. */
export const changeableKeys: readonly string[] = [
  'overlapScoreCredit', 'overlapScoreCreditDecay', 'prefillLoadScale', 'decodeActiveRequestWeight', 'hostCacheHitWeight', 'diskCacheHitWeight',
  'sharedCacheMultiplier', 'temperature', 'prefillPolicy', 'decodePolicy', 'workerSelectionPolicy', 'policyConfig', 'queueThreshold', 'queuePolicy',
  'queueTimeoutSeconds', 'overlapRefreshSeconds', 'activeDecodeBlocksThreshold', 'activePrefillTokensThreshold', 'activePrefillTokensThresholdFraction',
  'policy', 'policyShadow', 'policyBudgetUs',
]

/** What is wrong with one entry. */
export interface ChangeProblem {
  readonly field: string
  readonly message: string
}

/** Values by option key; undefined: back to what flags, variables and files say. */
export type RequestedChanges = ReadonlyMap<string, OptionValue | undefined>

const isMapping = (value: unknown): value is Readonly<Record<string, unknown>> => typeof value === 'object' && value !== null && !Array.isArray(value)

/** Reads a body of option names to values; null takes a setting back. Gives all problems, or the changes. */
export function readChanges(body: unknown, table: OptionTable): { readonly changes: RequestedChanges } | { readonly problems: readonly ChangeProblem[] } {
  if (!isMapping(body) || Object.keys(body).length === 0) {
    return { problems: [{ field: '', message: 'the body is no JSON object with settings; send names and values, such as {"router-temperature": 0.2}' }] }
  }
  const keyByName = new Map(Object.entries(table).map(([key, { name }]) => [name, key]))
  const changeableNames = changeableKeys.flatMap((key) => table[key]?.name ?? [])
  const changes = new Map<string, OptionValue | undefined>()
  const problems: ChangeProblem[] = []
  for (const [field, raw] of Object.entries(body)) {
    const name = field.replaceAll('_', '-')
    const key = keyByName.get(name)
    const option = key === undefined ? undefined : table[key]
    if (key === undefined || option === undefined) problems.push({ field, message: `unknown setting ${JSON.stringify(field.slice(0, 80))}${didYouMean(name, changeableNames)}; GET /settings lists them` })
    else if (!changeableKeys.includes(key)) problems.push({ field, message: `${field} cannot change while running; restart with --${option.name}` })
    else if (changes.has(key)) problems.push({ field, message: `${field} is given twice; keep one` })
    else readOne(option, key, field, raw, changes, problems)
  }
  return problems.length > 0 ? { problems } : { changes }
}

function readOne(option: Option, key: string, field: string, raw: unknown, changes: Map<string, OptionValue | undefined>, problems: ChangeProblem[]): void {
  try {
    changes.set(key, raw === null ? undefined : valueFromYaml(option, raw, field))
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    problems.push({ field, message: error.message })
  }
}
