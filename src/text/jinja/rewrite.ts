/**
 * Spells the tokens of one tag so that the template library reads them as Python's Jinja does.
 *
 * - `a + b ~ c`: `~` binds tighter than `+` in Python, not in the library; the operands are put into brackets.
 * - `x is divisibleby(2)`, `x is in y`: the library knows no arguments of tests; such a test becomes a filter of our own.
 * - `{...} + x`: the library takes a sign after a brace for that of a number; dicts are put into brackets.
 * - `()` and `(x,)`: the library knows neither; they become a call.
 * - `1e20`, `0x1f`, `1_000` and integers past 2^53 become calls with their text.
 * - `a < b < c` cannot be told from `(a < b) < c` afterwards and is refused.
 */
import { type TagToken, unsupported } from './tokens.ts'

/** Names that templates cannot use, for what is spelled anew. */
export const OWN_PREFIX = 'wp__'

const LOWER_OPERATORS: ReadonlySet<string> = new Set([',', ':', '=', '==', '!=', '<', '>', '<=', '>=', '+', '-', ';'])
const LOWER_NAMES: ReadonlySet<string> = new Set(['and', 'or', 'not', 'in', 'if', 'elif', 'else', 'for', 'set', 'call', 'filter', 'macro', 'recursive'])
const COMPARISONS: ReadonlySet<string> = new Set(['==', '!=', '<', '>', '<=', '>='])

/** One level of brackets: where the operand of `~` begins, whether it has been opened, whether a comparison stood before. */
interface Level {
  operandStart: number
  opened: boolean
  compared: boolean
}

/** Blank-separated source of the tag's inside. */
export function respell(tokens: readonly TagToken[]): string {
  return group(withTestFilters(withTupleCalls(tokens))).join(' ')
}

const isOperator = (token: TagToken | undefined, text: string): boolean => token?.kind === 'operator' && token.text === text
const isName = (token: TagToken | undefined, text: string): boolean => token?.kind === 'name' && token.text === text

/** Whether an expression may end with this token, so that a following sign is a binary operator. */
const endsOperand = (token: TagToken | undefined): boolean =>
  token !== undefined && (token.kind === 'operator' ? [')', ']', '}'].includes(token.text) : token.kind !== 'name' || !(LOWER_NAMES.has(token.text) || token.text === 'is'))

function group(tokens: readonly TagToken[]): string[] {
  const out: string[] = []
  const levels: Level[] = [{ operandStart: 0, opened: false, compared: false }]
  const close = (level: Level): void => {
    if (level.opened) out.push(')')
    level.opened = false
  }
  let expectsIn = isName(tokens[0], 'for')
  for (const [i, token] of tokens.entries()) {
    const level = levels.at(-1) as Level
    const previous = tokens[i - 1]
    const isAttribute = isOperator(previous, '.') || (isOperator(previous, '|') && token.kind === 'name') || isName(previous, 'is')
    if (token.kind === 'operator' && ['(', '[', '{'].includes(token.text)) {
      if (token.text === '{') out.push('(')
      out.push(token.text)
      levels.push({ operandStart: out.length, opened: false, compared: false })
    } else if (token.kind === 'operator' && [')', ']', '}'].includes(token.text)) {
      close(level)
      levels.pop()
      out.push(token.text)
      if (token.text === '}') out.push(')')
    } else if (isOperator(token, '~')) {
      if (!level.opened) out.splice(level.operandStart, 0, '(')
      level.opened = true
      out.push('~')
    } else if (!isAttribute && endsConcatenation(token, previous)) {
      close(level)
      const compares = COMPARISONS.has(token.text) || (token.text === 'in' && !(expectsIn && levels.length === 1))
      if (token.text === 'in' && levels.length === 1) expectsIn = false
      if (compares && level.compared) throw unsupported(`the chained comparison at "${token.text}"; compare step by step with "and"`)
      const negatedIn = token.text === 'not' && isName(tokens[i + 1], 'in')
      if (compares) level.compared = true
      else if (token.text !== '+' && token.text !== '-' && !negatedIn) level.compared = false
      out.push(spell(token))
      level.operandStart = out.length
    } else out.push(spell(token))
  }
  close(levels[0] as Level)
  return out
}

function endsConcatenation(token: TagToken, previous: TagToken | undefined): boolean {
  if (token.kind === 'name') return LOWER_NAMES.has(token.text)
  if (token.kind !== 'operator' || !LOWER_OPERATORS.has(token.text)) return false
  return (token.text !== '+' && token.text !== '-') || endsOperand(previous)
}

/** Escapes everything that the library would take for a tag or for white space. */
export const spellString = (text: string): string => `"${text.replace(/[^ !$&'()*+,./0-9:;<=>?@A-Z[\]^_`a-z|~-]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)}"`

function spell(token: TagToken): string {
  if (token.kind === 'string') return spellString(token.text)
  if (token.kind === 'float') {
    const digits = token.text.replaceAll('_', '')
    return /e/i.test(digits) ? `${OWN_PREFIX}float ( "${digits}" )` : digits
  }
  if (token.kind === 'integer') {
    const value = BigInt(token.text.replaceAll('_', ''))
    return value <= BigInt(Number.MAX_SAFE_INTEGER) ? String(value) : `${OWN_PREFIX}int ( "${value}" )`
  }
  if (token.kind === 'name' && token.text.startsWith(OWN_PREFIX)) throw unsupported(`the name "${token.text}"`)
  return token.text
}

/** `()` becomes `wp__tuple()`, `(x,)` and `(x, y,)` likewise with what they hold. */
function withTupleCalls(tokens: readonly TagToken[]): TagToken[] {
  const out: TagToken[] = []
  const openings: { readonly at: number; readonly groups: boolean }[] = []
  for (const [i, token] of tokens.entries()) {
    if (isOperator(token, '(')) openings.push({ at: out.length, groups: !endsOperand(tokens[i - 1]) && !isName(tokens[0], 'call') })
    if (isOperator(token, ')')) {
      const opening = openings.pop()
      const trailing = isOperator(tokens[i - 1], ',')
      if (opening?.groups === true && (trailing || isOperator(tokens[i - 1], '('))) {
        if (trailing) out.pop()
        out.splice(opening.at, 0, { kind: 'own', text: `${OWN_PREFIX}tuple` })
      }
    }
    out.push(token)
  }
  return out
}

/** `x is [not] test(args)` becomes `x | wp__is__test(args)`. */
function withTestFilters(tokens: readonly TagToken[]): TagToken[] {
  const out: TagToken[] = []
  for (let i = 0; i < tokens.length; i++) {
    const token = tokens[i] as TagToken
    if (!isName(token, 'is') || isOperator(tokens[i - 1], '.')) {
      out.push(token)
      continue
    }
    const negated = isName(tokens[i + 1], 'not')
    const nameAt = i + (negated ? 2 : 1)
    const name = tokens[nameAt]
    const next = tokens[nameAt + 1]
    if (name?.kind !== 'name') throw unsupported('a test without a name')
    if (isName(next, 'is')) throw unsupported('a chain of tests')
    if (!takesArgument(next)) {
      out.push(token)
      continue
    }
    out.push({ kind: 'operator', text: '|' }, { kind: 'own', text: `${OWN_PREFIX}${negated ? 'isnot' : 'is'}__${name.text}` })
    if (isOperator(next, '(')) {
      i = nameAt
      continue
    }
    const end = operandEnd(tokens, nameAt + 1)
    out.push({ kind: 'operator', text: '(' }, ...withTestFilters(tokens.slice(nameAt + 1, end)), { kind: 'operator', text: ')' })
    i = end - 1
  }
  return out
}

function takesArgument(token: TagToken | undefined): boolean {
  if (token === undefined) return false
  if (token.kind === 'operator') return ['(', '[', '{'].includes(token.text)
  return token.kind !== 'name' || !['else', 'or', 'and', 'if', 'is', 'in', 'not', 'recursive'].includes(token.text)
}

/** Index after a name, literal or bracket and what hangs on it: `.name`, `[...]`, `(...)`. */
function operandEnd(tokens: readonly TagToken[], start: number): number {
  let at = afterBrackets(tokens, start)
  for (;;) {
    if (isOperator(tokens[at], '.')) at += 2
    else if (isOperator(tokens[at], '[') || isOperator(tokens[at], '(')) at = afterBrackets(tokens, at)
    else return at
  }
}

function afterBrackets(tokens: readonly TagToken[], start: number): number {
  let depth = 0
  for (let at = start; at < tokens.length; at++) {
    const token = tokens[at] as TagToken
    if (token.kind === 'operator' && ['(', '[', '{'].includes(token.text)) depth++
    if (token.kind === 'operator' && [')', ']', '}'].includes(token.text)) depth--
    if (depth === 0) return at + 1
  }
  return tokens.length
}
