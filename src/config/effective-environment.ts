/** The environment as a part that reads variables itself must see it: with the values of the `--config` file where no variable is set. */
import type { Environment } from './draft.ts'
import type { OptionTable, OptionValue } from './option.ts'
import type { ParsedConfig } from './parse-command.ts'
import { tables } from './table.ts'

/** Values from the file under the first variable of their option; everything else as it is in `env`. */
export function effectiveEnvironment({ command, values, sources }: ParsedConfig, env: Environment): Environment {
  const table: OptionTable = tables[command]
  const merged: Record<string, string | undefined> = { ...env }
  for (const [key, option] of Object.entries(table)) {
    const [name] = option.env
    const value = (values as Readonly<Record<string, OptionValue>>)[key] ?? null
    if (sources[key]?.kind === 'file' && name !== undefined && value !== null) merged[name] = String(value)
  }
  return merged
}
