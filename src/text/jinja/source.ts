/**
 * Turns a template into one that the template library reads exactly as Python's Jinja reads the original.
 *
 * White space is settled here (`trim_blocks`, `lstrip_blocks`, `-` and `+` marks, the last newline): every text becomes
 * an output of a string in which nothing is left to interpret. Tags are spelled anew token by token. Statements that the
 * library does not know are refused by name; `generation` blocks, which only mark what an assistant said, become a call.
 */
import { OWN_PREFIX, respell, spellString } from './rewrite.ts'
import { readTag, type TagToken, unsupported } from './tokens.ts'
import { WHITESPACE } from './values.ts'

const OPENING = /\{([%#{])([-+]?)/g
const RAW = new RegExp(`\\{%[-+]?[${WHITESPACE}]*raw[${WHITESPACE}]*(?:-%\\}[${WHITESPACE}]*|%\\})`, 'y')
const RAW_END = new RegExp(`\\{%([-+]?)[${WHITESPACE}]*endraw[${WHITESPACE}]*(?:\\+%\\}|-%\\}[${WHITESPACE}]*|%\\}\\n?)`, 'g')
const COMMENT_END = new RegExp(`\\+#\\}|-#\\}[${WHITESPACE}]*|#\\}\\n?`, 'g')
const BLOCK_END = new RegExp(`\\+%\\}|-%\\}[${WHITESPACE}]*|%\\}\\n?`, 'y')
const OUTPUT_END = new RegExp(`-\\}\\}[${WHITESPACE}]*|\\}\\}`, 'y')
const TRAILING_SPACE = new RegExp(`[${WHITESPACE}]+$`)
const ONLY_SPACE = new RegExp(`^[${WHITESPACE}]+$`)

const STATEMENTS: ReadonlySet<string> = new Set(
  'set endset if elif else endif for endfor macro endmacro call endcall filter endfilter break continue generation endgeneration'.split(' '),
)

/** Errors: `TemplateError` of kind unsupported, naming the construct. */
export function respellTemplate(template: string): string {
  const source = template.replace(/\r\n?/g, '\n').replace(/\n$/, '')
  let out = ''
  let at = 0
  /** Whether the last tag ended with a line end, so that white space up to the next tag begins a line. */
  let lineStarts = true
  const emit = (text: string): void => {
    if (text !== '') out += `{{ ${spellString(text)} }}`
  }
  for (;;) {
    OPENING.lastIndex = at
    const opening = OPENING.exec(source)
    if (opening === null) {
      emit(source.slice(at))
      return out
    }
    const [whole, kind, mark] = opening as unknown as [string, string, string]
    emit(stripBefore(source.slice(at, opening.index), mark, kind !== '{', lineStarts))
    at = opening.index + whole.length
    const raw = kind === '%' ? rawBlock(source, opening.index) : null
    if (raw !== null) {
      emit(raw.text)
      at = raw.next
    } else if (kind === '#') at = afterComment(source, at)
    else {
      const tag = readTag(source, at, kind === '%' ? BLOCK_END : OUTPUT_END)
      out += kind === '%' ? statement(tag.tokens) : `{{ ${respell(tag.tokens)} }}`
      at = tag.next
    }
    lineStarts = source[at - 1] === '\n'
  }
}

/** The text before a tag: `-` takes all white space, `lstrip_blocks` that which begins the line. */
function stripBefore(text: string, mark: string, stripsLine: boolean, lineStarts: boolean): string {
  if (mark === '-') return text.replace(TRAILING_SPACE, '')
  if (mark === '+' || !stripsLine) return text
  const lineStart = text.lastIndexOf('\n') + 1
  if (lineStart === 0 && !lineStarts) return text
  return ONLY_SPACE.test(text.slice(lineStart)) ? text.slice(0, lineStart) : text
}

function afterComment(source: string, start: number): number {
  COMMENT_END.lastIndex = start
  const end = COMMENT_END.exec(source)
  if (end === null) throw unsupported('a comment that does not end')
  return end.index + end[0].length
}

function rawBlock(source: string, start: number): { text: string; next: number } | null {
  RAW.lastIndex = start
  const begin = RAW.exec(source)
  if (begin === null) return null
  const from = start + begin[0].length
  RAW_END.lastIndex = from
  const end = RAW_END.exec(source)
  if (end === null) throw unsupported('a raw block that does not end')
  const text = stripBefore(source.slice(from, end.index), end[1] as string, true, begin[0].endsWith('\n'))
  return { text, next: end.index + end[0].length }
}

function statement(tokens: readonly TagToken[]): string {
  const name = tokens[0]
  if (name?.kind !== 'name') throw unsupported('a statement without a name')
  if (!STATEMENTS.has(name.text)) throw unsupported(`the statement "{% ${name.text} %}"`)
  if (name.text === 'generation') return `{% call ${OWN_PREFIX}generation ( ) %}`
  if (name.text === 'endgeneration') return '{% endcall %}'
  if (name.text === 'for' && tokens.some((token) => token.kind === 'name' && token.text === 'recursive')) throw unsupported('the recursive for statement')
  return `{% ${respell(name.text === 'for' ? withPlainIterable(tokens) : tokens)} %}`
}

/** `for x in (a if b)`: the library would take the condition for the loop's own filter. */
function withPlainIterable(tokens: readonly TagToken[]): readonly TagToken[] {
  let depth = 0
  for (const token of tokens) {
    if (token.kind === 'operator' && ['(', '[', '{'].includes(token.text)) depth++
    if (token.kind === 'operator' && [')', ']', '}'].includes(token.text)) depth--
    if (depth === 0 && token.kind === 'name' && token.text === 'if') return tokens
  }
  const last = tokens.at(-1)
  if (last?.kind !== 'operator' || last.text !== ')') return tokens
  return [...tokens, { kind: 'operator', text: '|' }, { kind: 'own', text: `${OWN_PREFIX}same` }]
}
