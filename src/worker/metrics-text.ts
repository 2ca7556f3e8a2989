/** Prometheus texts of several sources as one: families of one name stand together, told once. */

/** Joins texts; a family keeps the help and type of the first that has it. */
export function joinMetrics(texts: readonly string[]): string {
  const families = new Map<string, { head: string[]; rows: string[] }>()
  for (const text of texts) {
    let current: { head: string[]; rows: string[] } | null = null
    let isNew = false
    for (const line of text.split('\n')) {
      if (line === '') continue
      const head = /^# (HELP|TYPE) (\S+)/.exec(line)
      if (head !== null) {
        const name = head[2] as string
        if (head[1] === 'HELP' || current === null) {
          isNew = !families.has(name)
          current = families.get(name) ?? { head: [], rows: [] }
          families.set(name, current)
        }
        if (isNew) current.head.push(line)
        continue
      }
      if (current === null) families.set('', (current = families.get('') ?? { head: [], rows: [] }))
      current.rows.push(line)
    }
  }
  return [...families.values()].flatMap(({ head, rows }) => [...head, ...rows]).map((line) => `${line}\n`).join('')
}
