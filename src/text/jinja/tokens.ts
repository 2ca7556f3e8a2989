/** Tokens inside of a tag, cut as Python's Jinja cuts them. */
import { TemplateError } from '../template-error.ts'
import { WHITESPACE } from './values.ts'

export interface TagToken {
  readonly kind: 'name' | 'integer' | 'float' | 'string' | 'operator' | 'own'
  /** As the template has it; the decoded text of a string; `own` for names that are spelled anew. */
  readonly text: string
}

export const unsupported = (construct: string): TemplateError => new TemplateError('unsupported', construct)

const SPACE = new RegExp(`[${WHITESPACE}]+`, 'y')
const FLOAT = /(?<!\.)(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?e[+-]?(?:\d+_)*\d+|\.(?:\d+_)*\d+)/iy
const INTEGER = /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*/iy
const NAME = /[A-Za-z_]\w*/y
const STRING = /'([^'\\]*(?:\\.[^'\\]*)*)'|"([^"\\]*(?:\\.[^"\\]*)*)"/sy
const OPERATOR = /\/\/|\*\*|==|!=|>=|<=|[-+/*%~[\](){}><=.:|,;]/y

const CLOSING: ReadonlyMap<string, string> = new Map([
  [')', '('],
  [']', '['],
  ['}', '{'],
])

/** Reads from `start` to the end of the tag, which `end` matches (sticky) outside of all brackets. Errors: what Jinja does not know. */
export function readTag(source: string, start: number, end: RegExp): { readonly tokens: readonly TagToken[]; readonly end: RegExpExecArray; readonly next: number } {
  const tokens: TagToken[] = []
  const brackets: string[] = []
  let at = start
  const match = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at
    const found = pattern.exec(source)
    if (found !== null) at += found[0].length
    return found
  }
  while (at < source.length) {
    if (brackets.length === 0) {
      const closed = match(end)
      if (closed !== null) return { tokens, end: closed, next: at }
    }
    if (match(SPACE) !== null) continue
    const float = match(FLOAT)
    if (float !== null) tokens.push({ kind: 'float', text: float[0] })
    else {
      const integer = match(INTEGER)
      if (integer !== null) tokens.push({ kind: 'integer', text: integer[0] })
      else tokens.push(readWord(match, brackets, source, at))
    }
  }
  throw unsupported('a tag that does not end')
}

function readWord(match: (pattern: RegExp) => RegExpExecArray | null, brackets: string[], source: string, at: number): TagToken {
  const name = match(NAME)
  if (name !== null) return { kind: 'name', text: name[0] }
  const string = match(STRING)
  if (string !== null) return { kind: 'string', text: decodeString(string[1] ?? string[2] ?? '') }
  const operator = match(OPERATOR)
  if (operator === null) throw unsupported(`the character ${JSON.stringify(String.fromCodePoint(source.codePointAt(at) as number))} inside of a tag`)
  const text = operator[0]
  if (text === '(' || text === '[' || text === '{') brackets.push(text)
  const opening = CLOSING.get(text)
  if (opening !== undefined && brackets.pop() !== opening) throw unsupported(`the bracket "${text}" that was not opened`)
  return { kind: 'operator', text }
}

const SIMPLE_ESCAPES: ReadonlyMap<string, string> = new Map([
  ['\n', ''],
  ['\\', '\\'],
  ["'", "'"],
  ['"', '"'],
  ['a', '\x07'],
  ['b', '\b'],
  ['f', '\f'],
  ['n', '\n'],
  ['r', '\r'],
  ['t', '\t'],
  ['v', '\v'],
])

/** Python's escapes; an unknown one stays as it is. */
function decodeString(raw: string): string {
  return raw.replace(/\\(x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8}|[0-7]{1,3}|.)/gsu, (whole, escape: string) => {
    const simple = SIMPLE_ESCAPES.get(escape)
    if (simple !== undefined) return simple
    if (escape.length > 1 && 'xuU'.includes(escape[0] as string)) return String.fromCodePoint(Number.parseInt(escape.slice(1), 16))
    if (/^[0-7]/.test(escape)) return String.fromCodePoint(Number.parseInt(escape, 8))
    if ('xuUN'.includes(escape) || escape.charCodeAt(0) > 0x7f) throw unsupported(`the escape "${whole}" in a string`)
    return whole
  })
}
