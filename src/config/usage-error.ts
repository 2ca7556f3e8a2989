/** What is wrong with a command line, a variable or a file, in one line; the process ends with 2 and no stack. */
export class UsageError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'UsageError'
  }
}

/** A value as it is shown in an error: quoted, on one line, at most 80 characters. */
export function shown(value: unknown): string {
  const text = JSON.stringify(typeof value === 'bigint' ? String(value) : value) ?? String(value)
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}

/** ` (did you mean X?)`, or nothing when no candidate is near. */
export function didYouMean(given: string, candidates: Iterable<string>): string {
  const nearest = nearestName(given, candidates)
  return nearest === null ? '' : ` (did you mean ${nearest}?)`
}

/** ` (did you mean X?)`, or `; ` and the mend when no candidate is near. */
export function nearOr(given: string, candidates: Iterable<string>, mend: string): string {
  return didYouMean(given, candidates) || `; ${mend}`
}

/** A name without the dashes of a flag, at most 80 characters. */
const bare = (name: string): string => name.slice(0, 80).replace(/^--(?:no-)?/, '')

/** The candidate at the smallest edit distance, or null when all are further than a third of the name. Dashes of flags do not count. */
export function nearestName(given: string, candidates: Iterable<string>): string | null {
  const name = bare(given)
  const names = [...candidates]
  const bound = Math.min(name.length - 1, Math.max(2, Math.floor(name.length / 3)))
  let best: string | null = null
  let bestDistance = bound + 1
  for (const candidate of names) {
    const distance = editDistance(name, bare(candidate))
    if (distance < bestDistance) {
      best = candidate
      bestDistance = distance
    }
  }
  if (best !== null && bestDistance <= 1) return best
  // A name that is cut short is near to nothing as a whole.
  return names.find((candidate) => name.length >= 3 && bare(candidate).endsWith(`-${name}`)) ?? best
    ?? names.find((candidate) => name.length >= 6 && [bare(candidate).slice(0, name.length), bare(candidate).slice(-name.length)].some((part) => editDistance(name, part) <= 2)) ?? null
}

/** Levenshtein distance. Cost: the product of the lengths. */
export function editDistance(left: string, right: string): number {
  let row = Array.from({ length: right.length + 1 }, (_, index) => index)
  for (let i = 1; i <= left.length; i += 1) {
    const next = [i]
    for (let j = 1; j <= right.length; j += 1) {
      const substituted = (row[j - 1] ?? 0) + (left[i - 1] === right[j - 1] ? 0 : 1)
      next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, substituted))
    }
    row = next
  }
  return row[right.length] ?? 0
}
