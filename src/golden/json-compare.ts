/** Comparison of answers of the recorded services: integers of any size, object keys in any order, load lists as sets. */

export type Rows = readonly Readonly<Record<string, unknown>>[]

/** One text for equal values: integers as decimals whether number or bigint, keys in order. */
export function canonical(value: unknown): string {
  if (typeof value === 'bigint') return `${value}`
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null'
  const entries = Object.entries(value).filter(([, item]) => item !== undefined)
  entries.sort(([a], [b]) => (a < b ? -1 : 1))
  return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${canonical(item)}`).join(',')}}`
}

/** As `canonical`, with the items of the list in no order. */
export const canonicalSet = (rows: readonly unknown[]): string => rows.map(canonical).sort().join('\n')

/** Null when equal, else what differs. */
export function difference(expected: unknown, actual: unknown, asSet = false): string | null {
  const [wanted, got] = asSet && Array.isArray(expected) && Array.isArray(actual)
    ? [canonicalSet(expected), canonicalSet(actual)]
    : [canonical(expected), canonical(actual)]
  return wanted === got ? null : `expected ${wanted.slice(0, 600)}, got ${got.slice(0, 600)}`
}
