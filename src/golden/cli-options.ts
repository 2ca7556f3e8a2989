/** Option cases: every name of the real command line is taken, with the same variable, default, choices and standing. */
import { splitArguments } from '../config/arguments.ts'
import { flagSpellings } from '../config/option.ts'
import type { FlagSpelling, Option } from '../config/option.ts'
import { routerOptions } from '../config/table.ts'
import { UsageError } from '../config/usage-error.ts'
import { valueFromText } from '../config/value.ts'
import type { GoldenKind, GoldenOutcome } from './kind.ts'

interface OptionCase {
  readonly names: readonly string[]
  readonly takes_value: boolean
  readonly choices: readonly string[] | null
  readonly env: string | null
  readonly default: string | null
  readonly legacy_alias: string | null
  readonly deprecated: boolean
}

const spellings = flagSpellings(routerOptions)

export const golden: GoldenKind = {
  name: 'cli_options',
  *run(document) {
    for (const item of document['options'] as readonly OptionCase[]) {
      yield { id: item.names[0] ?? '?', outcome: check(item) }
    }
  },
}

function check(item: OptionCase): GoldenOutcome {
  const problem = item.names.includes('--help') ? checkHelp(item) : (checkNames(item) ?? checkValues(item))
  return problem === null ? { kind: 'passed' } : { kind: 'failed', message: problem }
}

function checkHelp({ names }: OptionCase): string | null {
  const missed = names.find((name) => !splitArguments('router', [name], spellings).wantsHelp)
  return missed === undefined ? null : `${missed} does not ask for help`
}

function checkNames(item: OptionCase): string | null {
  const first = spellings.find((flag) => flag.spelling === item.names[0])
  for (const name of item.names) {
    const flag = spellings.find((candidate) => candidate.spelling === name)
    if (flag === undefined) return `${name} is not taken`
    if (flag.option !== first?.option) return `${name} stands for ${flag.option.name}, ${item.names[0]} for ${first?.option.name}`
    if ((flag.switchValue === null) !== item.takes_value) return `${name} ${item.takes_value ? 'takes no value' : 'takes a value'}`
    const problem = checkTaken(item, name, flag)
    if (problem !== null) return problem
  }
  if (item.legacy_alias !== null && !spellings.some((flag) => flag.spelling === item.legacy_alias && flag.isOlder)) return `${item.legacy_alias} is not an older name`
  return null
}

/** The name alone, with a value, and behind an equals sign, reaches its option. */
function checkTaken(item: OptionCase, name: string, { option }: FlagSpelling): string | null {
  const sample = item.choices?.[0] ?? (option.type === 'integer' || option.type === 'number' ? '1' : 'a.b.c')
  const lines = item.takes_value ? [[name, sample], [`${name}=${sample}`]] : [[name]]
  try {
    for (const line of lines) {
      const [given] = splitArguments('router', line, spellings).given
      if (given?.flag.option !== option) return `${line.join(' ')} does not reach ${option.name}`
      if (given.text !== null) valueFromText(option, given.text, name)
    }
  } catch (error) {
    if (error instanceof UsageError) return error.message
    throw error
  }
  return null
}

function checkValues(item: OptionCase): string | null {
  const option = spellings.find((flag) => flag.spelling === item.names[0])?.option
  if (option === undefined) return `${item.names[0]} is not taken`
  if (item.env !== null && !option.env.includes(item.env)) return `variable ${item.env} is not read; it reads ${option.env.join(', ')}`
  const refused = item.choices?.find((choice) => !(option.choices?.includes(choice) ?? true))
  if (refused !== undefined) return `${refused} is not a choice`
  if (item.choices !== null && option.choices === null) return 'has no choices'
  if (item.deprecated && !option.isDeprecatedInDynamo) return 'is not marked as deprecated in Dynamo'
  if (!item.deprecated && option.isDeprecatedInDynamo) return 'is marked as deprecated in Dynamo'
  return checkDefault(item, option)
}

function checkDefault({ default: expected }: OptionCase, option: Option): string | null {
  // Differs by design: without the option the size is that of the workers' cards, where Dynamo assumes 128.
  if (option === routerOptions.blockSize) {
    return expected === null || valueFromText(option, expected, '--router-block-size') === Number(expected) ? null : `${expected} is not taken`
  }
  if (expected === null || expected === 'None') return option.default === null ? null : `default ${String(option.default)}, expected none`
  if (option.default === null) return `no default, expected ${expected}`
  const value = valueFromText(option, expected, option.name)
  return value === option.default ? null : `default ${String(option.default)}, expected ${expected}`
}
