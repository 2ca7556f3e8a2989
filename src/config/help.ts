/** The text of `warmpath COMMAND --help`, made from the option table. */
import type { Option, OptionTable } from './option.ts'
import { commandSummaries, tables } from './table.ts'
import type { CommandName } from './table.ts'

const column = 34
const width = 118

/** Placeholder of an option's value in help and pages. */
export function placeholder(option: Option): string {
  if (option.choices !== null) return `{${option.choices.join(',')}}`
  if (option.type === 'endpoint') return 'NAMESPACE.COMPONENT.ENDPOINT'
  if (option.type === 'path') return 'FILE'
  if (option.unit !== null) return option.unit.toUpperCase()
  return option.type === 'string' ? 'TEXT' : 'NUMBER'
}

export function defaultText(option: Option): string {
  if (option.defaultText !== null) return option.defaultText
  if (option.default === null) return 'unset'
  if (option.type === 'boolean') return option.default === true ? 'on' : 'off'
  return String(option.default)
}

export function optionTitle(option: Option): string {
  if (!option.isFlag) return option.env[0] ?? option.name
  return option.type === 'boolean' ? `--[no-]${option.name}` : `--${option.name} ${placeholder(option)}`
}

/** Options that stand in help with a text of their own, by section, in table order. */
export function sectionsOf(table: OptionTable): Map<string, Option[]> {
  const sections = new Map<string, Option[]>()
  for (const option of Object.values(table)) {
    if (option.isHidden || option.noEffect !== null || isUnbuilt(option)) continue
    sections.set(option.section, [...(sections.get(option.section) ?? []), option])
  }
  return sections
}

/** True when no value but the default is of use. */
export function isUnbuilt(option: Option): boolean {
  if (option.unavailable === null) return false
  return option.choices === null || option.choices.length <= 2
}

function wrap(text: string, indent: number): string {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && indent + line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else {
      line = line === '' ? word : `${line} ${word}`
    }
  }
  lines.push(line)
  return lines.join(`\n${' '.repeat(indent)}`)
}

function entry(option: Option): string {
  const title = `  ${optionTitle(option)}`
  const lead = title.length + 2 > column ? `${title}\n${' '.repeat(column)}` : title.padEnd(column)
  const variables = option.isFlag && option.env.length > 0 ? `${option.env.join(', ')}; ` : ''
  return `${lead}${wrap(`${option.help} [${variables}default ${defaultText(option)}]`, column)}\n`
}

/** Ends with a line feed. */
export function helpText(command: CommandName): string {
  const table: OptionTable = tables[command]
  const usage = command === 'router' ? '--endpoint NAMESPACE.COMPONENT.ENDPOINT [options]' : '[options]'
  let text = `Usage: warmpath ${command} ${usage}\n\n${commandSummaries[command]}\nFlags win over environment${table['config'] === undefined ? '' : ', environment over the --config file'}.\n`
  const sections = sectionsOf(table)
  for (const [section, options] of sections) {
    const flags = options.filter((option) => option.isFlag)
    if (flags.length > 0) text += `\n${section}\n${flags.map(entry).join('')}`
  }
  text += `\nOther\n  ${'-h, --help'.padEnd(column - 2)}Show this text.\n  ${'--version'.padEnd(column - 2)}Show the version.\n`
  const variables = [...sections.values()].flat().filter((option) => !option.isFlag)
  if (variables.length > 0) text += `\nEnvironment without flags\n${variables.map(entry).join('')}`
  const accepted = Object.values(table).filter((option) => option.isFlag && (option.isHidden || option.noEffect !== null || isUnbuilt(option)))
  const older = Object.values(table).flatMap((option) => option.olderNames.map(({ name }) => name))
  const names = [...accepted.map(({ name }) => name), ...older].map((name) => `--${name}`)
  if (names.length > 0) text += `\nAlso accepted for compatibility (docs/options.md says how):\n  ${wrap(names.join(', '), 2)}\n`
  return text
}

/** Ends with a line feed. */
export function overviewText(): string {
  const rows = Object.entries(commandSummaries).map(([name, summary]) => `  ${name.padEnd(16)}${summary}\n`).join('')
  return 'Usage: warmpath COMMAND [options]\n\nCommands\n' + rows +
    `  ${'config print'.padEnd(16)}Shows the value and the source of every option, and starts nothing.\n` +
    '\nwarmpath COMMAND --help lists the options of a command. warmpath --version shows the version.\n' +
    'Exit codes: 0 ended as asked, 1 failed at run time, 2 wrong options.\n'
}
