/** JSON as text: where a value ends, what its members are written like, what a cut one may have become. Never reads numbers, so none are changed. */

const isSpace = (char: string | undefined): boolean => char === ' ' || char === '\n' || char === '\t' || char === '\r'

export function skipSpace(text: string, at: number): number {
  let next = at
  while (isSpace(text[next])) next += 1
  return next
}

/** Follows a value in braces or brackets through text that grows. Cost: every character once. */
export class JsonValueEnd {
  #at: number
  #open = ''
  #inString = false
  #escaped = false

  constructor(at: number) {
    this.#at = at
  }

  /** Offset behind the value, -1 while it is open. `text` begins as it did before. */
  find(text: string): number {
    for (; this.#at < text.length; this.#at += 1) {
      const char = text[this.#at] as string
      if (this.#inString) this.#string(char)
      else if (char === '"') this.#inString = true
      else if (char === '{' || char === '[') this.#open += char === '{' ? '}' : ']'
      else if (char === '}' || char === ']') {
        this.#open = this.#open.slice(0, -1)
        if (this.#open === '') {
          this.#at += 1
          return this.#at
        }
      }
    }
    return -1
  }

  get inString(): boolean {
    return this.#inString
  }

  /** What would close the value at the end of the text. */
  closing(): string {
    return (this.#inString ? '"' : '') + [...this.#open].reverse().join('')
  }

  /** The text ends in a backslash that escapes nothing yet. */
  get escaped(): boolean {
    return this.#escaped
  }

  #string(char: string): void {
    if (this.#escaped) this.#escaped = false
    else if (char === '\\') this.#escaped = true
    else if (char === '"') this.#inString = false
  }
}

export function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/** Offset behind the value that begins at `at`; -1 when it does not end. */
function valueEnd(text: string, at: number): number {
  const first = text[at]
  if (first === '{' || first === '[') return new JsonValueEnd(at).find(text)
  if (first === '"') {
    for (let next = at + 1; next < text.length; next += 1) {
      if (text[next] === '\\') next += 1
      else if (text[next] === '"') return next + 1
    }
    return -1
  }
  let next = at
  while (next < text.length && !isSpace(text[next]) && !',]}:'.includes(text[next] as string)) next += 1
  return next
}

/** Members of an object, their values as they are written; null when the text is no object. */
export function membersOf(text: string): Map<string, string> | null {
  if (!text.startsWith('{') || !isJson(text)) return null
  const members = new Map<string, string>()
  let at = skipSpace(text, 1)
  while (text[at] !== '}') {
    const keyEnd = valueEnd(text, at)
    const key = JSON.parse(text.slice(at, keyEnd)) as string
    const from = skipSpace(text, skipSpace(text, keyEnd) + 1)
    const to = valueEnd(text, from)
    members.set(key, text.slice(from, to))
    at = skipSpace(text, to)
    if (text[at] === ',') at = skipSpace(text, at + 1)
  }
  return members
}

/** Objects and lists that stand one behind the other, with blanks, commas or semicolons between them; null when there is anything else. */
export function valuesOf(text: string): { readonly complete: readonly string[]; readonly rest: string } | null {
  const complete: string[] = []
  let at = skipSpace(text, 0)
  while (at < text.length) {
    if (text[at] !== '{' && text[at] !== '[') return null
    const end = new JsonValueEnd(at).find(text)
    if (end < 0) return { complete, rest: text.slice(at) }
    complete.push(text.slice(at, end))
    at = skipSpace(text, end)
    if (complete.length > 0 && (text[at] === ';' || text[at] === ',')) at = skipSpace(text, at + 1)
  }
  return { complete, rest: '' }
}

/** The items of a list that are complete, also when the list is not. */
export const itemsOf = (list: string): { readonly complete: readonly string[]; readonly rest: string } | null => {
  const inner = list.slice(1)
  const end = inner.trimEnd()
  return valuesOf(end.endsWith(']') && isJson(list) ? end.slice(0, -1) : inner)
}

/** A value that was cut, closed where it stands; null when that gives no JSON. */
export function repaired(text: string): string | null {
  const end = new JsonValueEnd(skipSpace(text, 0))
  if (end.find(text) >= 0) return null
  const closed = (end.escaped ? text.slice(0, -1) : text) + end.closing()
  return isJson(closed) ? closed : null
}

/** Without the blanks between its parts. */
export function compactJson(text: string): string {
  let compact = ''
  let inString = false
  for (let at = 0; at < text.length; at += 1) {
    const char = text[at] as string
    if (inString) {
      compact += char
      if (char === '\\') compact += text[(at += 1)] ?? ''
      else if (char === '"') inString = false
    } else if (!isSpace(char)) {
      compact += char
      inString = char === '"'
    }
  }
  return compact
}
