/**
 * Splits a command line into settings as Python's argparse does: `--x value`, `--x=value`, prefixes that fit one option,
 * `--x`/`--no-x`, negative numbers as values, `--`, the last of repeated flags.
 */
import { UsageError, didYouMean } from './usage-error.ts'
import type { FlagSpelling } from './option.ts'

export interface GivenFlag {
  readonly flag: FlagSpelling
  /** The argument, or null for a switch. */
  readonly text: string | null
}

export interface SplitArguments {
  readonly wantsHelp: boolean
  readonly wantsVersion: boolean
  readonly given: readonly GivenFlag[]
}

const negativeNumber = /^-(?:\d+(?:_\d+)*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?$/

/** `command` is named in errors. Errors: `UsageError`. */
export function splitArguments(command: string, argv: readonly string[], spellings: readonly FlagSpelling[]): SplitArguments {
  const given: GivenFlag[] = []
  const byName = new Map(spellings.map((flag) => [flag.spelling, flag]))
  for (let at = 0; at < argv.length; at += 1) {
    const argument = argv[at] ?? ''
    if (argument === '--') {
      const rest = argv.slice(at + 1)
      if (rest.length > 0) throw unexpected(command, rest[0] ?? '')
      break
    }
    if (argument === '-h') return { wantsHelp: true, wantsVersion: false, given }
    if (!argument.startsWith('--')) throw unexpected(command, argument)
    const equals = argument.indexOf('=')
    const name = equals < 0 ? argument : argument.slice(0, equals)
    const inline = equals < 0 ? null : argument.slice(equals + 1)
    const flag = lookUp(command, name, byName, spellings)
    if (flag === 'help' || flag === 'version') {
      if (inline !== null) throw new UsageError(`${name} takes no value`)
      // As argparse: what stands after them is not looked at.
      return { wantsHelp: flag === 'help', wantsVersion: flag === 'version', given }
    }
    if (flag.switchValue !== null) {
      if (inline !== null) throw new UsageError(`${name} takes no value; write --${flag.option.name} or --no-${flag.option.name}`)
      given.push({ flag, text: null })
      continue
    }
    if (inline !== null) {
      given.push({ flag, text: inline })
      continue
    }
    const next = argv[at + 1] === '--' ? argv[at + 2] : argv[at + 1]
    const isMissing = next === undefined || (argv[at + 1] !== '--' && looksLikeFlag(next))
    if (isMissing) throw new UsageError(`${name} needs a value; write ${name} VALUE or ${name}=VALUE`)
    given.push({ flag, text: next })
    at += argv[at + 1] === '--' ? 2 : 1
  }
  return { wantsHelp: false, wantsVersion: false, given }
}

function looksLikeFlag(argument: string): boolean {
  return argument.startsWith('-') && argument !== '-' && !negativeNumber.test(argument) && !argument.includes(' ')
}

const unexpected = (command: string, argument: string): UsageError =>
  new UsageError(`unexpected argument ${JSON.stringify(argument)}; warmpath ${command} takes options only, see warmpath ${command} --help`)

function lookUp(
  command: string, name: string, byName: ReadonlyMap<string, FlagSpelling>, spellings: readonly FlagSpelling[],
): FlagSpelling | 'help' | 'version' {
  if (name === '--help') return 'help'
  if (name === '--version') return 'version'
  const exact = byName.get(name)
  if (exact !== undefined) return exact
  // Names of Dynamo 1.6 first: a prefix that fits one of them there must not become ambiguous through ours.
  const inDynamo = name.length > 2 ? spellings.filter((flag) => flag.inDynamo16 && flag.spelling.startsWith(name)) : []
  const isHelp = name.length > 2 && '--help'.startsWith(name)
  if (isHelp && inDynamo.length === 0) return 'help'
  const matches = inDynamo.length > 0 ? inDynamo : spellings.filter((flag) => name.length > 2 && flag.spelling.startsWith(name))
  const first = matches[0]
  if (first === undefined) {
    const candidates = [...byName.keys(), '--help', '--version']
    throw new UsageError(`unknown option ${name}${didYouMean(name, candidates)}; see warmpath ${command} --help`)
  }
  const isSameOption = matches.every((flag) => flag.key === first.key && flag.switchValue === first.switchValue)
  if (!isSameOption) {
    const names = matches.slice(0, 6).map((flag) => flag.spelling).join(', ')
    throw new UsageError(`ambiguous option ${name}: it could be ${names}${matches.length > 6 ? ', ...' : ''}; write the whole name`)
  }
  return matches.find((flag) => !flag.isOlder) ?? first
}
