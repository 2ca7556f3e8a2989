/** Python's literals as JSON: strings, numbers, True, False, None, lists, tuples and dicts of them. */

interface Cursor {
  readonly text: string
  at: number
}

const depthMax = 64

/** JSON of a literal that is the whole text; null when it is none. */
export function pythonLiteral(text: string): string | null {
  const cursor: Cursor = { text, at: 0 }
  skip(cursor)
  const value = literal(cursor, 0)
  skip(cursor)
  return cursor.at === text.length ? value : null
}

export interface PythonCall {
  readonly name: string
  readonly arguments: readonly (readonly [string, string])[]
}

/** Calls with named arguments, `[f(a=1), g()]`; null for anything else. An argument that is no literal is left out. */
export function pythonCalls(text: string): readonly PythonCall[] | null {
  const cursor: Cursor = { text, at: 0 }
  if (!take(cursor, '[')) return null
  const calls: PythonCall[] = []
  for (;;) {
    skip(cursor)
    if (calls.length > 0 && take(cursor, ']')) break
    const call = pythonCall(cursor)
    if (call === null) return null
    calls.push(call)
    skip(cursor)
    if (take(cursor, ']')) break
    if (!take(cursor, ',')) return null
  }
  return cursor.at === text.length ? calls : null
}

function pythonCall(cursor: Cursor): PythonCall | null {
  const name = match(cursor, /[A-Za-z_]\w*/y)
  skip(cursor)
  if (name === null || !take(cursor, '(')) return null
  const given: [string, string][] = []
  skip(cursor)
  while (!take(cursor, ')')) {
    const key = match(cursor, /[A-Za-z_]\w*/y)
    skip(cursor)
    if (key === null || !take(cursor, '=')) return null
    skip(cursor)
    const from = cursor.at
    const value = literal(cursor, 0)
    skip(cursor)
    if (value !== null && (cursor.text[cursor.at] === ',' || cursor.text[cursor.at] === ')')) given.push([key, value])
    else {
      cursor.at = from
      if (!skipExpression(cursor)) return null
    }
    if (take(cursor, ',')) skip(cursor)
    else if (cursor.text[cursor.at] !== ')') return null
  }
  return { name, arguments: given }
}

/** To the comma or parenthesis that ends an argument. */
function skipExpression(cursor: Cursor): boolean {
  let depth = 0
  for (; cursor.at < cursor.text.length; cursor.at += 1) {
    const char = cursor.text[cursor.at] as string
    if (char === '"' || char === "'") {
      if (string(cursor) === null) return false
      cursor.at -= 1
    } else if ('([{'.includes(char)) depth += 1
    else if (')]}'.includes(char)) {
      if (depth === 0) return true
      depth -= 1
    } else if (char === ',' && depth === 0) return true
  }
  return false
}

function literal(cursor: Cursor, depth: number): string | null {
  if (depth > depthMax) return null
  const char = cursor.text[cursor.at]
  if (char === '"' || char === "'") return string(cursor)
  if (char === '[' || char === '(') return list(cursor, char === '[' ? ']' : ')', depth)
  if (char === '{') return dict(cursor, depth)
  const word = match(cursor, /[A-Za-z_]+/y)
  if (word !== null) return { True: 'true', False: 'false', None: 'null', true: 'true', false: 'false', null: 'null' }[word] ?? null
  const number = match(cursor, /[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?/y)
  if (number === null) return null
  const plain = number.replace(/_/g, '').replace(/^\+/, '').replace(/^(-?)0+(?=\d)/, '$1')
  return /^-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?$/.test(plain) ? plain : String(Number(plain))
}

function list(cursor: Cursor, end: string, depth: number): string | null {
  cursor.at += 1
  const items: string[] = []
  skip(cursor)
  while (!take(cursor, end)) {
    const item = literal(cursor, depth + 1)
    if (item === null) return null
    items.push(item)
    skip(cursor)
    if (take(cursor, ',')) skip(cursor)
    else if (cursor.text[cursor.at] !== end) return null
  }
  return `[${items.join(',')}]`
}

function dict(cursor: Cursor, depth: number): string | null {
  cursor.at += 1
  const items: string[] = []
  skip(cursor)
  while (!take(cursor, '}')) {
    const key = literal(cursor, depth + 1)
    skip(cursor)
    if (key === null || !take(cursor, ':')) return null
    skip(cursor)
    const value = literal(cursor, depth + 1)
    if (value === null) return null
    items.push(`${key.startsWith('"') ? key : JSON.stringify(key)}:${value}`)
    skip(cursor)
    if (take(cursor, ',')) skip(cursor)
    else if (cursor.text[cursor.at] !== '}') return null
  }
  return `{${items.join(',')}}`
}

const escapes: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r', '\\': '\\', "'": "'", '"': '"', '\n': '', a: '\u0007', b: '\b', f: '\f', v: '\v', 0: '\0' }

function string(cursor: Cursor): string | null {
  const quote = cursor.text[cursor.at] as string
  let value = ''
  for (cursor.at += 1; cursor.at < cursor.text.length; cursor.at += 1) {
    const char = cursor.text[cursor.at] as string
    if (char === quote) {
      cursor.at += 1
      return JSON.stringify(value)
    }
    if (char !== '\\') {
      value += char
      continue
    }
    cursor.at += 1
    const code = match(cursor, /x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}/y)
    if (code !== null) {
      const point = Number.parseInt(code.slice(1), 16)
      if (point > 0x10ffff) return null
      value += String.fromCodePoint(point)
      cursor.at -= 1
    } else {
      const next = cursor.text[cursor.at] ?? ''
      value += escapes[next] ?? `\\${next}`
    }
  }
  return null
}

function match(cursor: Cursor, pattern: RegExp): string | null {
  pattern.lastIndex = cursor.at
  const found = pattern.exec(cursor.text)
  if (found === null || found[0] === '') return null
  cursor.at += found[0].length
  return found[0]
}

function take(cursor: Cursor, char: string): boolean {
  if (cursor.text[cursor.at] !== char) return false
  cursor.at += 1
  return true
}

function skip(cursor: Cursor): void {
  while (/\s/.test(cursor.text[cursor.at] ?? '')) cursor.at += 1
}
