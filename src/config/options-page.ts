/** The page docs/options.md, made from the option table. */
import { defaultText, isUnbuilt, optionTitle, sectionsOf } from './help.ts'
import type { Option, OptionTable } from './option.ts'
import { commandSummaries, tables } from './table.ts'
import type { CommandName } from './table.ts'
import { expectation } from './value.ts'

const intro = `# Options

Made from the option table by \`npm run docs\`; do not edit.

A value comes from the flag, else from the environment, else from the \`--config\` file, else it is the default.
\`warmpath config print COMMAND ...\` shows every value with its source and starts nothing.

- Flags: \`--flag value\` or \`--flag=value\`; a prefix that fits one option; \`--flag\` and \`--no-flag\` for switches; the last of repeated flags counts.
- Environment: an empty variable counts as not set, for switches as off. Switches take true, 1, yes, on and false, 0, no, off.
- The \`--config\` file is YAML: a mapping from option names (without the dashes, \`-\` or \`_\`) to values. Settings without a flag have the name
  in brackets.
- A wrong name or value ends the start with exit code 2 and one line that says what is wrong and what is near.

## Policy files

\`--router-policy-config FILE\` is read as Dynamo reads it: the \`router:\` mapping overrides flags, environment and the \`--load-aware\` preset, and one
warning lists what it overrode. Its names stand in the column *Policy file*. \`worker_selection\` names selection policies. The other sections of such a
file (\`policy_classes\`, \`request_classifier\` and so on) are not available in this version and end the start.
`

const cell = (text: string): string => text.replaceAll('|', '\\|')
const code = (text: string): string => `\`${cell(text)}\``

function row(option: Option): string {
  const title = option.isFlag ? code(optionTitle(option)) : `(${code(option.name)})`
  const env = option.env.length === 0 ? '' : option.env.map(code).join(', ')
  const dynamo = option.isDeprecatedInDynamo ? ' Deprecated in Dynamo 1.6, kept here.' : ''
  const policy = option.policyName === null ? '' : code(option.policyName)
  return `| ${title} | ${env} | ${cell(defaultText(option))} | ${cell(expectation(option))} | ${policy} | ${cell(option.help)}${dynamo} | ${option.since} |\n`
}

const header = '| Option | Environment | Default | Values | Policy file | Meaning | Since |\n|---|---|---|---|---|---|---|\n'

function commandPage(command: CommandName): string {
  const table: OptionTable = tables[command]
  let page = `\n## warmpath ${command}\n\n${commandSummaries[command]}\n`
  for (const [section, options] of sectionsOf(table)) page += `\n### ${section}\n\n${header}${options.map(row).join('')}`
  return page + olderNames(table) + compatibility(table)
}

function olderNames(table: OptionTable): string {
  const rows = Object.values(table).flatMap((option) => [
    ...option.olderNames.map(({ name }) => `| ${code(`--${name}`)} | ${code(option.replacement ?? `--${option.name}`)} |\n`),
    ...option.olderEnv.map((name) => `| ${code(name)} | ${code(option.env[0] ?? '')} |\n`),
    ...(option.replacement === null ? [] : [`| ${code(`--${option.name}`)}, ${option.env.map(code).join(', ')} | ${code(option.replacement)} |\n`]),
  ])
  if (rows.length === 0) return ''
  return `\n### Older names\n\nEach gives one warning that names the current one. Switches have their \`--no-\` forms too.\n\n| Older | Current |\n|---|---|\n${rows.join('')}`
}

function compatibility(table: OptionTable): string {
  const options = Object.values(table)
  const idle = options.filter((option) => option.noEffect !== null)
  const unbuilt = options.filter((option) => option.unavailable !== null)
  let page = ''
  if (idle.length > 0) {
    page += '\n### Accepted without effect\n\nOne line says so when they are given.\n\n| Option | Environment | Why |\n|---|---|---|\n'
    page += idle.map((option) => `| ${nameOf(option)} | ${option.env.map(code).join(', ')} | ${cell(option.noEffect ?? '')} |\n`).join('')
  }
  if (unbuilt.length > 0) {
    page += '\n### Not available in this version\n\nThe default is accepted; another value ends the start with exit code 2.\n\n'
    page += '| Option | Environment | Accepted | Why | Instead |\n|---|---|---|---|---|\n'
    page += unbuilt.map(unbuiltRow).join('')
  }
  return page
}

const nameOf = (option: Option): string => (option.isFlag ? code(`--${option.name}`) : `(${code(option.name)})`)

function unbuiltRow(option: Option): string {
  const accepted = isUnbuilt(option) ? defaultText(option) : (option.choices ?? []).filter((choice) => option.unavailable?.refuses?.(choice) !== true).join(', ')
  const { why, mend } = option.unavailable ?? { why: '', mend: '' }
  return `| ${nameOf(option)} | ${option.env.map(code).join(', ')} | ${accepted} | ${cell(why)} | ${cell(mend)} |\n`
}

/** The whole page. */
export function optionsPage(): string {
  return intro + (Object.keys(tables) as CommandName[]).map(commandPage).join('')
}
