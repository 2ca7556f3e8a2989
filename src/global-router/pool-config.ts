/**
 * The configuration file of the global router: pools by namespace and how to choose among them.
 *
 * Source: the JSON file of Dynamo's global router 1.6.1, its older names included.
 */
import type { Json, JsonObject } from '../ports.ts'
import type { GridAxis, PoolStrategy, PriorityOverride } from './pool-grid.ts'

/** Pools of one kind. */
export interface PoolGroup {
  /** Namespace of each pool; requests go to its `router.generate`. */
  readonly namespaces: readonly string[]
  /** Smaller is faster. */
  readonly priorities: readonly number[]
  readonly strategy: PoolStrategy
}

export type GlobalRouterConfig = { readonly retriesFasterPools: boolean; readonly warnings: readonly string[] } & (
  | { readonly mode: 'disagg'; readonly prefill: PoolGroup; readonly decode: PoolGroup }
  | { readonly mode: 'agg'; readonly aggregated: PoolGroup }
)

/** A file that cannot be used. The message names the member, its value and what it should be. */
export class PoolConfigError extends Error {}

/** Pools of one kind, and cells of one grid, at most. */
const poolsMax = 1024
const cellsMax = 1_000_000

/** An axis as the file names it: `<name>_min`, `<name>_max`, `<name>_resolution`, with `unit` behind min and max. */
interface AxisName {
  readonly name: string
  readonly unit: '' | '_ms'
}

const isl: AxisName = { name: 'isl', unit: '' }
const contextLength: AxisName = { name: 'context_length', unit: '' }
const ttft: AxisName = { name: 'ttft', unit: '_ms' }
const itl: AxisName = { name: 'itl', unit: '_ms' }

const kinds = {
  prefill: { label: 'prefill', axes: [isl, ttft] },
  decode: { label: 'decode', axes: [contextLength, itl] },
  agg: { label: 'agg', axes: [ttft, itl] },
} as const

/** Checks a parsed file. Errors: `PoolConfigError`. */
export function parsePoolConfig(value: Json): GlobalRouterConfig {
  const file = objectAt(value, 'the file')
  const warnings: string[] = []
  const mode = file['mode'] ?? 'disagg'
  if (mode !== 'disagg' && mode !== 'agg') throw wrong('mode', mode, '"disagg" or "agg"')
  const retries = file['enable_priority_retry'] ?? false
  if (typeof retries !== 'boolean') throw wrong('enable_priority_retry', retries, 'true or false')
  const group = (kind: keyof typeof kinds): PoolGroup => groupOf(file, kind, warnings)
  const known = new Set(['mode', 'enable_priority_retry', ...(mode === 'agg' ? ['agg'] : ['prefill', 'decode']).flatMap((kind) =>
    [`num_${kind}_pools`, `${kind}_pool_dynamo_namespaces`, `${kind}_pool_priorities`, `${kind}_pool_selection_strategy`])])
  for (const name of Object.keys(file)) if (!known.has(name)) warnings.push(`\`${name}\` is not a setting of mode ${mode}; it is ignored`)
  return mode === 'agg'
    ? { mode, retriesFasterPools: retries, aggregated: group('agg'), warnings }
    : { mode, retriesFasterPools: retries, prefill: group('prefill'), decode: group('decode'), warnings }
}

function groupOf(file: JsonObject, kind: keyof typeof kinds, warnings: string[]): PoolGroup {
  const field = (name: string): Json => required(file, name)
  const countName = `num_${kind}_pools`
  const count = wholeAt(field(countName), countName, 1)
  if (count > poolsMax) throw wrong(countName, count, `at most ${poolsMax}`)
  const namesName = `${kind}_pool_dynamo_namespaces`
  const namespaces = listAt(field(namesName), namesName).map((name, index) => {
    if (typeof name !== 'string' || name === '') throw wrong(`${namesName}[${index}]`, name, 'the namespace of a pool')
    return name
  })
  if (namespaces.length !== count) throw wrong(namesName, `${namespaces.length} namespaces`, `${count}, as \`${countName}\` says`)
  const prioritiesName = `${kind}_pool_priorities`
  const priorities = file[prioritiesName] == null
    ? namespaces.map((_name, index) => index)
    : listAt(file[prioritiesName] as Json, prioritiesName).map((priority, index) => wholeAt(priority, `${prioritiesName}[${index}]`))
  if (priorities.length !== count) throw wrong(prioritiesName, `${priorities.length} priorities`, `one for each of the ${count} pools`)
  const strategyName = `${kind}_pool_selection_strategy`
  return { namespaces, priorities, strategy: strategyOf(objectAt(field(strategyName), strategyName), kind, count, warnings) }
}

function strategyOf(strategy: JsonObject, kind: keyof typeof kinds, pools: number, warnings: string[]): PoolStrategy {
  const at = `${kind}_pool_selection_strategy`
  const names: AxisName[] = [...kinds[kind].axes]
  // An aggregated grid has the prompt length as its first axis where the file gives one.
  const hasLength = ['isl_min', 'isl_max', 'isl_resolution'].filter((name) => strategy[name] != null)
  if (kind === 'agg' && hasLength.length > 0) {
    if (hasLength.length < 3) throw wrong(`${at}.${hasLength[0] as string}`, 'given', '`isl_min`, `isl_max` and `isl_resolution` together, or none of them')
    names.unshift(isl)
  }
  const axes = names.map((name) => axisOf(strategy, name, at, warnings))
  if (axes.reduce((cells, { resolution }) => cells * resolution, 1) > cellsMax) throw wrong(at, 'a grid', `at most ${cellsMax} cells`)
  const mappingName = `${kind}_pool_mapping`
  const mapping: number[] = []
  collect(required(strategy, mappingName, at), `${at}.${mappingName}`, axes.map(({ resolution }, index) => ({ resolution, name: (names[index] as AxisName).name })), pools, mapping)
  return { axes, mapping: Int32Array.from(mapping), overrides: overridesOf(strategy['priority_overrides'] ?? [], `${at}.priority_overrides`, pools) }
}

function axisOf(strategy: JsonObject, { name, unit }: AxisName, at: string, warnings: string[]): GridAxis {
  const bound = (side: 'min' | 'max'): number => {
    const current = `${name}_${side}${unit}`
    const older = `${name}_${side}`
    if (strategy[current] === undefined && unit !== '' && strategy[older] !== undefined) {
      warnings.push(`\`${at}.${older}\` is the older name of \`${current}\``)
      return numberAt(strategy[older], `${at}.${older}`)
    }
    return numberAt(required(strategy, current, at), `${at}.${current}`)
  }
  const [min, max] = [bound('min'), bound('max')]
  if (!(min < max)) throw wrong(`${at}.${name}_min${unit}`, min, `less than \`${name}_max${unit}\` (${max})`)
  const resolution = wholeAt(required(strategy, `${name}_resolution`, at), `${at}.${name}_resolution`, 1)
  return { min, max, resolution }
}

/** The cells of a nested list whose shape the axes give. */
function collect(value: Json, at: string, axes: readonly { readonly resolution: number; readonly name: string }[], pools: number, cells: number[]): void {
  const axis = axes[0]
  if (axis === undefined) {
    const pool = wholeAt(value, at)
    if (pool < 0 || pool >= pools) throw wrong(at, pool, `a pool index in 0..${pools - 1}`)
    cells.push(pool)
    return
  }
  const rows = listAt(value, at)
  if (rows.length !== axis.resolution) throw wrong(at, `${rows.length} entries`, `${axis.resolution}, as \`${axis.name}_resolution\` says`)
  for (const [index, row] of rows.entries()) collect(row, `${at}[${index}]`, axes.slice(1), pools, cells)
}

function overridesOf(value: Json, at: string, pools: number): PriorityOverride[] {
  return listAt(value, at).map((entry, index) => {
    const where = `${at}[${index}]`
    const rule = objectAt(entry, where)
    const whole = (name: string): number => wholeAt(required(rule, name, where), `${where}.${name}`)
    const [minPriority, maxPriority, targetPool] = [whole('min_priority'), whole('max_priority'), whole('target_pool')]
    if (minPriority > maxPriority) throw wrong(`${where}.min_priority`, minPriority, `at most \`max_priority\` (${maxPriority})`)
    if (targetPool < 0 || targetPool >= pools) throw wrong(`${where}.target_pool`, targetPool, `a pool index in 0..${pools - 1}`)
    return { minPriority, maxPriority, targetPool }
  })
}

// ---- Members ---------------------------------------------------------------------------------------------------------------

const shownValue = (value: Json): string => {
  const text = typeof value === 'bigint' ? value.toString() : JSON.stringify(value, (_key, item: unknown) => (typeof item === 'bigint' ? item.toString() : item))
  return text.length <= 60 ? text : `${text.slice(0, 57)}...`
}

const wrong = (at: string, value: Json, expected: string): PoolConfigError => new PoolConfigError(`\`${at}\` is ${shownValue(value)}, expected ${expected}`)

function required(object: JsonObject, name: string, at?: string): Json {
  const value = object[name]
  if (value === undefined || value === null) throw new PoolConfigError(`\`${at === undefined ? '' : `${at}.`}${name}\` is missing`)
  return value
}

function objectAt(value: Json, at: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(at, value, 'an object')
  return value as JsonObject
}

function listAt(value: Json, at: string): readonly Json[] {
  if (!Array.isArray(value)) throw wrong(at, value, 'a list')
  return value as readonly Json[]
}

function numberAt(value: Json, at: string): number {
  if (typeof value !== 'number' || !Number.isFinite(value)) throw wrong(at, value, 'a number')
  return value
}

function wholeAt(value: Json, at: string, minimum = Number.MIN_SAFE_INTEGER): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < minimum) throw wrong(at, value, minimum > 0 ? `an integer of at least ${minimum}` : 'an integer')
  return value
}
