/** A model card that cannot be used as it stands. The message names field, value and what was expected. */
export class CardError extends Error {
  readonly field: string
  readonly value: string
  constructor(field: string, value: unknown, expected: string) {
    const shown = shownValue(value)
    super(`model card: ${field} is ${shown}, expected ${expected}`)
    this.name = 'CardError'
    this.field = field
    this.value = shown
  }
}

const shownLength = 100

function shownValue(value: unknown): string {
  if (value === undefined) return 'missing'
  const text = JSON.stringify(value, (_key, part: unknown) => (typeof part === 'bigint' ? String(part) : part)) ?? String(value)
  return text.length > shownLength ? `${text.slice(0, shownLength)}…` : text
}
