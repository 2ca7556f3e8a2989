/**
 * From command line, environment and files to the typed, checked and frozen values of one command.
 *
 * Flag over environment over `--config` file over default; `--load-aware` and the `router:` mapping of a policy file come on top, as in Dynamo.
 */
import { splitArguments } from './arguments.ts'
import { flagSpellings } from './option.ts'
import { placeOf } from './draft.ts'
import type { Draft, Environment, ReadFile, SourceKind, ValueSource } from './draft.ts'
import type { Option, OptionTable, OptionValue } from './option.ts'
import { applyRouterRules } from './router-rules.ts'
import type { CommandName, CommandValues } from './table.ts'
import { tables } from './table.ts'
import { UsageError, editDistance } from './usage-error.ts'
import { valueFromText, valueFromYaml } from './value.ts'
import type { PrefillLoadModel } from '../router/contract.ts'
import { noProfiles, type PolicyProfiles } from './policy-profiles.ts'
import { readConfigFile } from './yaml-files.ts'
import type { SelectionPolicies } from './worker-selection.ts'

export type { Environment, ReadFile, SourceKind, ValueSource }

export interface ParsedConfig<Command extends CommandName = CommandName> {
  readonly kind: 'config'
  readonly command: Command
  readonly values: CommandValues<Command>
  readonly sources: Readonly<Record<string, ValueSource>>
  /** One line each, to be logged as warnings when the log stands. */
  readonly warnings: readonly string[]
  /** The 32 bytes of `--router-tracking-key-file`, or null. Never printed. */
  readonly trackingKey: Uint8Array | null
  /** The selection policy of a pool by its role; null for commands that route nothing. */
  readonly selectionPolicies: SelectionPolicies | null
  /** Policy classes of the policy file. */
  readonly policyProfiles: PolicyProfiles
  /** How prompt work decays; null: not. */
  readonly prefillLoadModel: PrefillLoadModel | null
}

export type ParsedCommand<Command extends CommandName = CommandName> = ParsedConfig<Command> | { readonly kind: 'help' } | { readonly kind: 'version' }

export interface ParseOptions {
  /** False lets `--endpoint` be left out. */
  readonly needsTarget?: boolean
  /** Values that were changed while running, by key; they go before everything else. */
  readonly changes?: Readonly<Record<string, OptionValue>>
}

/** Errors: `UsageError` with one line. Reads files only when an option names one. */
export async function parseCommand<Command extends CommandName>(
  command: Command, argv: readonly string[], env: Environment, readFile: ReadFile, { needsTarget = true, changes = {} }: ParseOptions = {},
): Promise<ParsedCommand<Command>> {
  const table: OptionTable = tables[command]
  const split = splitArguments(command, argv, flagSpellings(table))
  if (split.wantsHelp) return { kind: 'help' }
  if (split.wantsVersion) return { kind: 'version' }

  const draft: Draft = { command, table, values: {}, sources: {}, warnings: [] }
  for (const [key, option] of Object.entries(table)) {
    draft.values[key] = option.default
    draft.sources[key] = { kind: 'default', name: null }
  }
  const warned = new Set<string>()
  readFlags(draft, split.given, warned)
  readEnvironment(draft, env, warned)
  noteMisspelled(draft, env)
  const configPath = draft.values['config']
  if (typeof configPath === 'string') await mergeConfigFile(draft, configPath, readFile)
  const rules = command === 'router' || command === 'frontend' || command === 'select-service' ? await applyRouterRules(draft, readFile, { needsTarget: needsTarget && command === 'router', changes }) : null
  refuseUnavailable(draft)
  noteReplacedAndIdle(draft)
  return deepFreeze({
    kind: 'config', command, values: draft.values as CommandValues<Command>, sources: draft.sources, warnings: draft.warnings,
    trackingKey: rules?.trackingKey ?? null, selectionPolicies: rules?.selectionPolicies ?? null, policyProfiles: rules?.policyProfiles ?? noProfiles, prefillLoadModel: rules?.prefillLoadModel ?? null,
  })
}

function readFlags(draft: Draft, given: ReturnType<typeof splitArguments>['given'], warned: Set<string>): void {
  for (const { flag, text } of given) {
    draft.values[flag.key] = text === null ? flag.switchValue : valueFromText(flag.option, text, flag.spelling)
    draft.sources[flag.key] = { kind: 'flag', name: flag.spelling }
    if (flag.isOlder && flag.option.replacement === null && !warned.has(flag.key)) {
      warned.add(flag.key)
      const no = flag.switchValue === false ? 'no-' : ''
      draft.warnings.push(`${flag.spelling} is an older name; use --${no}${flag.option.name}`)
    }
  }
}

function readEnvironment(draft: Draft, env: Environment, warned: Set<string>): void {
  for (const [key, option] of Object.entries(draft.table)) {
    if (draft.sources[key]?.kind === 'flag') continue
    const name = [...option.env, ...option.olderEnv].find((candidate) => isSet(option, env[candidate]))
    if (name === undefined) continue
    draft.values[key] = valueFromText(option, env[name] ?? '', name)
    draft.sources[key] = { kind: 'env', name }
    if (option.olderEnv.includes(name) && !warned.has(name)) {
      warned.add(name)
      draft.warnings.push(`${name} is an older name; use ${option.env[0] ?? ''}`)
    }
  }
}

const knownVariables = new Set(Object.values(tables).flatMap((table: OptionTable) =>
  Object.values(table).flatMap((option) => [...option.env, ...option.olderEnv])))

/** Variables of others are none of ours; one that is nearly ours is a slip that would otherwise go unseen. */
function noteMisspelled(draft: Draft, env: Environment): void {
  for (const name of Object.keys(env)) {
    if (!/^(?:DYN_ROUTER|WARMPATH)_/.test(name) || knownVariables.has(name)) continue
    const near = [...knownVariables].find((known) => Math.abs(known.length - name.length) <= 2 && editDistance(name, known) <= 2)
    if (near !== undefined) draft.warnings.push(`${name} is not a variable that is read; did you mean ${near}?`)
  }
}

/** An empty variable sets nothing, but for switches, where it means off. */
function isSet(option: Option, text: string | undefined): boolean {
  return text !== undefined && (text.trim() !== '' || option.type === 'boolean')
}

async function mergeConfigFile(draft: Draft, path: string, readFile: ReadFile): Promise<void> {
  const entries = await readConfigFile(path, draft.command, draft.table, readFile)
  for (const { key, name, raw } of entries) {
    const option = draft.table[key]
    if (option === undefined) continue
    const value = valueFromYaml(option, raw, `${path}: ${name}`)
    if (draft.sources[key]?.kind !== 'default') continue
    draft.values[key] = value
    draft.sources[key] = { kind: 'file', name: path }
  }
}

const given = (draft: Draft, key: string): boolean => {
  const kind = draft.sources[key]?.kind
  return kind === 'flag' || kind === 'env' || kind === 'file' || kind === 'policy-config'
}

function refuseUnavailable(draft: Draft): void {
  for (const [key, option] of Object.entries(draft.table)) {
    if (option.unavailable === null || !given(draft, key)) continue
    const value = draft.values[key] ?? null
    const isRefused = option.unavailable.refuses?.(value) ?? value !== option.default
    if (isRefused) {
      const choice = option.choices === null ? '' : ` ${String(value)}`
      throw new UsageError(`${placeOf(draft, key)}${choice}: not available in this version (${option.unavailable.why}; ${option.unavailable.mend})`)
    }
  }
}

/** Options that a table lacks cannot be missed. */
function lacksNeeded(draft: Draft, { needs }: Option): boolean {
  const known = needs.filter((key) => draft.table[key] !== undefined)
  return known.length > 0 && known.every((key) => draft.values[key] === null || draft.values[key] === false)
}

const namesOf = (draft: Draft, keys: readonly string[]): string[] =>
  keys.flatMap((key) => (draft.table[key] === undefined ? [] : [`--${draft.table[key].name}`]))

function noteReplacedAndIdle(draft: Draft): void {
  for (const [key, option] of Object.entries(draft.table)) {
    if (!given(draft, key)) continue
    // A switch that is off asks for nothing, so there is nothing to say.
    const isOff = option.type === 'boolean' && draft.values[key] === false
    if (option.noEffect !== null && !isOff) draft.warnings.push(`${placeOf(draft, key)} has no effect: ${option.noEffect}`)
    else if (lacksNeeded(draft, option) && !isOff) draft.warnings.push(`${placeOf(draft, key)} has no effect without ${namesOf(draft, option.needs).join(' or ')}; set it, or leave ${option.isFlag ? `--${option.name}` : option.name} out`)
    if (option.replacement !== null) draft.warnings.push(`${placeOf(draft, key)} is an older option; use ${option.replacement}`)
  }
}

/** Freezes plain objects and arrays all the way down; typed arrays cannot be frozen and are left. */
function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value) || Object.isFrozen(value)) return value
  for (const member of Object.values(value)) deepFreeze(member)
  return Object.freeze(value)
}
