/** Binds the arguments of a call to names, as Python does. */
import { failure, isInt, type PyArguments, PyUndefined, type PyValue, typeName } from './values.ts'

/** Values in the order of `names`; those not given are undefined. Errors: too many, unknown or doubled arguments, missing ones. */
export function bind(owner: string, names: readonly string[], args: PyArguments, required = 0): readonly (PyValue | undefined)[] {
  if (args.positional.length > names.length) throw failure(`${owner}() takes at most ${names.length} arguments, ${args.positional.length} given`)
  const values: (PyValue | undefined)[] = names.map((_name, i) => args.positional[i])
  for (const [name, value] of args.named) {
    const index = names.indexOf(name)
    if (index < 0) throw failure(`${owner}() got an unexpected keyword argument '${name}'`)
    if (values[index] !== undefined) throw failure(`${owner}() got multiple values for argument '${name}'`)
    values[index] = value
  }
  for (let i = 0; i < required; i++) if (values[i] === undefined) throw failure(`${owner}() misses its argument '${names[i] ?? ''}'`)
  return values
}

/** Errors: not a str. */
export function text(owner: string, value: PyValue | undefined): string {
  if (typeof value === 'string') return value
  throw failure(value instanceof PyUndefined ? value.message : `${owner}() needs a str, not ${typeName(value ?? null)}`)
}

/** A small int; bools count. Errors: anything else. */
export function integer(owner: string, value: PyValue | undefined, fallback: number): number {
  if (value === undefined) return fallback
  if (typeof value === 'boolean') return Number(value)
  if (isInt(value)) return Number(value)
  throw failure(value instanceof PyUndefined ? value.message : `${owner}() needs an int, not ${typeName(value)}`)
}
