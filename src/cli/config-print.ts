/** `warmpath config print [COMMAND] [options]`: the value and the source of every option. */
import { readFileSync } from 'node:fs'
import { parseCommand } from '../config/parse-command.ts'
import type { Environment, ParsedConfig } from '../config/parse-command.ts'
import { helpText } from '../config/help.ts'
import type { Option, OptionTable, OptionValue } from '../config/option.ts'
import { tables } from '../config/table.ts'
import type { CommandName } from '../config/table.ts'
import { UsageError, didYouMean, shown } from '../config/usage-error.ts'

/** Prints to standard output, warnings to standard error. Errors: `UsageError`. */
export async function runConfigPrint(argv: readonly string[], env: Environment): Promise<number> {
  const [first] = argv
  const isCommand = first !== undefined && !first.startsWith('-')
  if (isCommand && !Object.hasOwn(tables, first)) {
    throw new UsageError(`unknown command ${shown(first)}${didYouMean(first, Object.keys(tables))}; one of ${Object.keys(tables).join(', ')}`)
  }
  const command = (isCommand ? first : 'router') as CommandName
  const parsed = await parseCommand(command, isCommand ? argv.slice(1) : argv, env, readFileSync, { needsTarget: false })
  if (parsed.kind === 'help' || parsed.kind === 'version') {
    process.stdout.write(`Usage: warmpath config print [${Object.keys(tables).join('|')}] [options of the command]\n\n${helpText(command)}`)
    return 0
  }
  for (const warning of parsed.warnings) process.stderr.write(`warning: ${warning}\n`)
  process.stdout.write(configText(parsed))
  return 0
}

/** One line per option: name, value, source. Secrets show only whether they are set. */
export function configText({ command, values, sources }: ParsedConfig): string {
  const table: OptionTable = tables[command]
  const rows = Object.entries(table).map(([key, option]) => {
    const { kind, name } = sources[key] ?? { kind: 'default', name: null }
    const value = (values as Readonly<Record<string, OptionValue>>)[key] ?? null
    return [option.name, valueText(option, value), name === null ? kind : `${kind} ${name}`] as const
  })
  const widths = [0, 1].map((index) => Math.min(60, Math.max(...rows.map((row) => (row[index] ?? '').length)))) as [number, number]
  return rows.map(([name, value, source]) => `${name.padEnd(widths[0])}  ${value.padEnd(widths[1])}  ${source}\n`).join('')
}

function valueText(option: Option, value: OptionValue): string {
  if (value === null) return '-'
  if (option.isSecret) return '(set)'
  return typeof value === 'string' ? JSON.stringify(value) : String(value)
}
