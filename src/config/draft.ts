/** Values of a command on their way: rules read and change them, with their sources. */
import type { OptionTable, OptionValue } from './option.ts'

/** `admin`: changed while running. */
export type SourceKind = 'flag' | 'env' | 'file' | 'default' | 'preset' | 'policy-config' | 'derived' | 'admin'

/** Where a value comes from; `name` is the flag, variable or file as it was given. */
export interface ValueSource {
  readonly kind: SourceKind
  readonly name: string | null
}

/** Reads a whole file; throws what the file system says. */
export type ReadFile = (path: string) => Uint8Array
export type Environment = Readonly<Record<string, string | undefined>>

export interface Draft {
  /** Its name, for errors. */
  readonly command: string
  readonly table: OptionTable
  readonly values: Record<string, OptionValue>
  readonly sources: Record<string, ValueSource>
  readonly warnings: string[]
}

/** How a value is called in a message: the flag, variable or file entry that set it. */
export function placeOf(draft: Pick<Draft, 'sources' | 'table'>, key: string): string {
  const source = draft.sources[key]
  const option = draft.table[key]
  const name = option?.name ?? key
  if (source === undefined || source.name === null) return option?.isFlag === false ? (option.env[0] ?? name) : `--${name}`
  if (source.kind === 'file') return `${source.name}: ${name}`
  return source.kind === 'policy-config' ? `${source.name}: router.${option?.policyName ?? name}` : source.name
}
