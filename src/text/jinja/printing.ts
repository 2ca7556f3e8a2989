/** How Python prints values: `str`, `repr` and `json.dumps`. */
import { failure, PyDict, PyFloat, PyFunction, PyIterator, PyList, PyLoop, PyNamespace, PyRange, PyTuple, PyUndefined, PyView, type PyValue, typeName } from './values.ts'

/** `str(value)`, which is what `{{ value }}` prints. */
export function pyStr(value: PyValue): string {
  if (typeof value === 'string') return value
  if (value instanceof PyUndefined) return ''
  return pyRepr(value)
}

export function pyRepr(value: PyValue): string {
  if (value === null) return 'None'
  switch (typeof value) {
    case 'boolean':
      return value ? 'True' : 'False'
    case 'number':
    case 'bigint':
      return String(value)
    case 'string':
      return reprString(value)
  }
  if (value instanceof PyFloat) return reprFloat(value.value)
  if (value instanceof PyList) return `[${value.items.map(pyRepr).join(', ')}]`
  if (value instanceof PyTuple) return value.items.length === 1 ? `(${pyRepr(value.items[0] as PyValue)},)` : `(${value.items.map(pyRepr).join(', ')})`
  if (value instanceof PyDict) return reprDict(value)
  if (value instanceof PyRange) return value.step === 1 ? `range(${value.start}, ${value.stop})` : `range(${value.start}, ${value.stop}, ${value.step})`
  if (value instanceof PyView) return `${value.kind}([${value.items.map(pyRepr).join(', ')}])`
  if (value instanceof PyUndefined) return 'Undefined'
  if (value instanceof PyNamespace) return `<Namespace {${[...value.attributes].map(([name, item]) => `${reprString(name)}: ${pyRepr(item)}`).join(', ')}}>`
  if (value instanceof PyLoop) return `<LoopContext ${value.index0 + 1}/${value.items.length}>`
  if (value instanceof PyIterator) throw failure('a generator cannot be printed; add "| list"')
  throw failure(`the ${value instanceof PyFunction ? `function "${value.name}"` : typeName(value)} cannot be printed; call it`)
}

const reprDict = (dict: PyDict): string =>
  `{${dict
    .entries()
    .map(([key, value]) => `${pyRepr(key)}: ${pyRepr(value)}`)
    .join(', ')}}`

/** The shortest digits that read back, with Python's bounds for exponents. */
export function reprFloat(value: number): string {
  if (Number.isNaN(value)) return 'nan'
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf'
  if (Object.is(value, -0)) return '-0.0'
  const [mantissa, exponentText] = value.toExponential().split('e') as [string, string]
  const exponent = Number(exponentText)
  if (value !== 0 && (exponent < -4 || exponent >= 16)) {
    return `${mantissa}e${exponent < 0 ? '-' : '+'}${String(Math.abs(exponent)).padStart(2, '0')}`
  }
  const negative = mantissa.startsWith('-')
  const digits = mantissa.replace('-', '').replace('.', '')
  let text: string
  if (exponent < 0) text = `0.${'0'.repeat(-exponent - 1)}${digits}`
  else if (digits.length <= exponent + 1) text = `${digits.padEnd(exponent + 1, '0')}.0`
  else text = `${digits.slice(0, exponent + 1)}.${digits.slice(exponent + 1)}`
  return negative ? `-${text}` : text
}

const NOT_PRINTABLE = /[\p{C}\p{Z}]/u

export function reprString(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'"
  let out = quote
  for (const character of text) {
    const code = character.codePointAt(0) as number
    if (character === quote || character === '\\') out += `\\${character}`
    else if (character === '\n') out += '\\n'
    else if (character === '\r') out += '\\r'
    else if (character === '\t') out += '\\t'
    else if (character !== ' ' && NOT_PRINTABLE.test(character)) out += escapeCode(code)
    else out += character
  }
  return out + quote
}

function escapeCode(code: number): string {
  const hex = code.toString(16)
  if (code <= 0xff) return `\\x${hex.padStart(2, '0')}`
  return code <= 0xffff ? `\\u${hex.padStart(4, '0')}` : `\\U${hex.padStart(8, '0')}`
}

export interface JsonStyle {
  readonly ensureAscii: boolean
  /** Null for one line; else what stands before each level. */
  readonly indent: string | null
  readonly itemSeparator: string
  readonly keySeparator: string
  readonly sortKeys: boolean
}

/** `json.dumps(value)`. */
export function dumpJson(value: PyValue, style: JsonStyle, level = 0): string {
  if (value === null) return 'null'
  switch (typeof value) {
    case 'boolean':
      return value ? 'true' : 'false'
    case 'number':
    case 'bigint':
      return String(value)
    case 'string':
      return quoteJson(value, style.ensureAscii)
  }
  if (value instanceof PyFloat) return jsonFloat(value.value)
  if (value instanceof PyList || value instanceof PyTuple) {
    return wrap('[', ']', value.items.map((item) => dumpJson(item, style, level + 1)), style, level)
  }
  if (value instanceof PyDict) {
    const entries = value.entries().map(([key, item]) => [jsonKey(key), item] as const)
    if (style.sortKeys) entries.sort(([a], [b]) => compareText(a, b))
    const members = entries.map(([key, item]) => `${quoteJson(key, style.ensureAscii)}${style.keySeparator}${dumpJson(item, style, level + 1)}`)
    return wrap('{', '}', members, style, level)
  }
  throw failure(`Object of type ${typeName(value)} is not JSON serializable${value instanceof PyUndefined ? `: ${value.message}` : ''}`)
}

function wrap(open: string, close: string, members: readonly string[], style: JsonStyle, level: number): string {
  if (members.length === 0) return open + close
  if (style.indent === null) return open + members.join(style.itemSeparator) + close
  const inner = `\n${style.indent.repeat(level + 1)}`
  return `${open}${inner}${members.join(style.itemSeparator + inner)}\n${style.indent.repeat(level)}${close}`
}

function jsonKey(key: PyValue): string {
  if (typeof key === 'string') return key
  if (key === null) return 'null'
  if (typeof key === 'boolean') return key ? 'true' : 'false'
  return key instanceof PyFloat ? jsonFloat(key.value) : pyRepr(key)
}

const jsonFloat = (value: number): string => (Number.isNaN(value) ? 'NaN' : Number.isFinite(value) ? reprFloat(value) : value > 0 ? 'Infinity' : '-Infinity')

function quoteJson(text: string, ensureAscii: boolean): string {
  // Lone surrogates are left as they are: they cannot be in a request.
  const quoted = JSON.stringify(text)
  return ensureAscii ? quoted.replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`) : quoted
}

/** Order of strings by code points, as Python has it. */
export function compareText(a: string, b: string): number {
  if (a === b) return 0
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) {
    const left = a.charCodeAt(i)
    const right = b.charCodeAt(i)
    if (left === right) continue
    // Surrogates stand for code points past all others.
    const leftHigh = left >= 0xd800 && left <= 0xdfff
    const rightHigh = right >= 0xd800 && right <= 0xdfff
    return leftHigh === rightHigh ? left - right : leftHigh ? 1 : -1
  }
  return a.length - b.length
}
