/** The known name that a mistyped one most likely means. */

const comparedLengthMax = 256

/** Undefined when nothing is near: more than half of the letters differ. */
export function nearestName(wanted: string, names: readonly string[]): string | undefined {
  const target = wanted.slice(0, comparedLengthMax).toLowerCase()
  let best: { readonly name: string; readonly distance: number } | undefined
  for (const name of names) {
    const candidate = name.slice(0, comparedLengthMax).toLowerCase()
    const partial = target !== '' && (candidate.endsWith(`/${target}`) || target.endsWith(`/${candidate}`))
    const distance = partial ? 0 : editDistance(target, candidate)
    if (distance <= Math.max(target.length, candidate.length) / 2 && (best === undefined || distance < best.distance)) best = { name, distance }
  }
  return best?.name
}

/** Insertions, deletions and exchanges that make one text the other. Cost: product of the lengths. */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index)
  for (let i = 1; i <= from.length; i += 1) {
    const next = [i]
    for (let j = 1; j <= to.length; j += 1) {
      const exchange = (row[j - 1] ?? 0) + (from[i - 1] === to[j - 1] ? 0 : 1)
      next.push(Math.min(exchange, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[to.length] ?? 0
}
