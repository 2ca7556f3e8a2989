/** Jinja's filters on texts and numbers. Each takes what stands before the bar and its arguments. */
import { bind, integer, text } from './arguments.ts'
import { attribute, attributePath } from './attributes.ts'
import { arithmetic, compare, iterate, lengthOf, truth } from './operators.ts'
import { fixed, percentFormat } from './percent-format.ts'
import { dumpJson, pyStr } from './printing.ts'
import { align, capitalize, replaceText, splitLines, strip } from './string-methods.ts'
import { codePoints, failure, fromJson, isInt, present, PyDict, PyFloat, PyIterator, PyList, PyTuple, PyUndefined, pyInt, type PyArguments, type PyValue, typeName, WHITESPACE } from './values.ts'

export type Filter = (value: PyValue, args: PyArguments) => PyValue

const plain =
  (name: string, map: (value: PyValue) => PyValue): Filter =>
  (value, args) => {
    bind(name, [], args)
    return map(value)
  }

/** `tojson`: `json.dumps` with the options that chat templates may give. */
function toJson(value: PyValue, args: PyArguments): PyValue {
  const [ensureAscii, indent, separators, sortKeys] = bind('tojson', ['ensure_ascii', 'indent', 'separators', 'sort_keys'], args)
  let step: string | null = null
  if (typeof indent === 'string') step = indent
  else if (indent !== undefined && indent !== null) step = ' '.repeat(Math.max(0, integer('tojson', indent, 0)))
  let itemSeparator = step === null ? ', ' : ','
  let keySeparator = ': '
  if (separators !== undefined && separators !== null) {
    const [first, second] = iterate(separators)
    itemSeparator = text('tojson', first)
    keySeparator = text('tojson', second)
  }
  return dumpJson(value, {
    ensureAscii: ensureAscii !== undefined && truth(ensureAscii),
    indent: step,
    itemSeparator,
    keySeparator,
    sortKeys: sortKeys !== undefined && truth(sortKeys),
  })
}

const JSON_STRING_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?/gs

/** Numbers keep their form: each becomes what a lossless parser makes of it. */
function fromJsonFilter(value: PyValue): PyValue {
  const source = text('fromjson', value)
  try {
    JSON.parse(source)
    const marked = source.replace(JSON_STRING_OR_NUMBER, (part) => (part.startsWith('"') ? part : `{"isLosslessNumber":true,"value":"${part}"}`))
    return fromJson(JSON.parse(marked))
  } catch (cause) {
    throw failure(`fromjson: the text is not valid JSON (${cause instanceof Error ? cause.message : String(cause)})`)
  }
}

function indentFilter(value: PyValue, args: PyArguments): PyValue {
  const [width, first, blank] = bind('indent', ['width', 'first', 'blank'], args)
  const step = typeof width === 'string' ? width : ' '.repeat(Math.max(0, integer('indent', width, 4)))
  // The newline at the end keeps a last empty line, as in the original.
  const lines = splitLines(`${text('indent', value)}\n`)
  const rest = lines.slice(1).map((line) => (line !== '' || (blank !== undefined && truth(blank)) ? step + line : line))
  return (first !== undefined && truth(first) ? step : '') + [lines[0] ?? '', ...rest].join('\n')
}

function round(value: PyValue, args: PyArguments): PyValue {
  const [precision, method] = bind('round', ['precision', 'method'], args)
  const digits = integer('round', precision, 0)
  const way = method === undefined ? 'common' : text('round', method)
  if (way !== 'common' && way !== 'ceil' && way !== 'floor') throw failure('method must be common, ceil or floor')
  if (value instanceof PyUndefined) throw failure(value.message)
  if (way !== 'common') {
    const scaled = arithmetic('*', value, digits < 0 ? new PyFloat(10 ** digits) : 10 ** digits)
    const number = scaled instanceof PyFloat ? scaled.value : Number(scaled)
    return arithmetic('/', pyInt(BigInt(way === 'ceil' ? Math.ceil(number) : Math.floor(number))), digits < 0 ? new PyFloat(10 ** digits) : 10 ** digits)
  }
  if (typeof value === 'boolean' || isInt(value)) {
    if (digits >= 0) return pyInt(BigInt(value))
    throw failure('round: a negative precision is not supported for an int')
  }
  if (!(value instanceof PyFloat)) throw failure(`type ${typeName(value)} doesn't define __round__ method`)
  if (digits < 0) throw failure('round: a negative precision is not supported')
  return new PyFloat(Number.isFinite(value.value) ? Number(fixed(value.value, digits)) : value.value)
}

const NUMBER = /^[+-]?(?:\d+(?:_\d+)*\.?(?:\d+(?:_\d+)*)?|\.\d+(?:_\d+)*)(?:e[+-]?\d+(?:_\d+)*)?$/i

/** Python's `float(text)`, or null. */
function parseFloatText(source: string): number | null {
  const trimmed = strip(source, null, 'both')
  if (/^[+-]?(?:inf|infinity)$/i.test(trimmed)) return trimmed.startsWith('-') ? -Infinity : Infinity
  if (/^[+-]?nan$/i.test(trimmed)) return Number.NaN
  return NUMBER.test(trimmed) ? Number(trimmed.replaceAll('_', '')) : null
}

function toInt(value: PyValue, args: PyArguments): PyValue {
  const [fallback, base] = bind('int', ['default', 'base'], args)
  const other = present(fallback, 0)
  if (typeof value === 'boolean') return Number(value)
  if (isInt(value)) return value
  if (value instanceof PyFloat) return Number.isFinite(value.value) ? pyInt(BigInt(Math.trunc(value.value))) : other
  if (value instanceof PyUndefined) throw failure(value.message)
  if (typeof value !== 'string') return other
  const radix = integer('int', base, 10)
  const source = strip(value, null, 'both').replace(/^([+-]?)0_*[xob](?=[0-9a-f])/i, (whole, sign: string) => (radix === 16 || radix === 8 || radix === 2 ? sign : whole))
  if (radix === 10 && /^[+-]?\d+(?:_\d+)*$/.test(source)) return pyInt(BigInt(source.replaceAll('_', '').replace('+', '')))
  if (radix !== 10) {
    const parsed = /^[+-]?[0-9a-z]+$/i.test(source) ? Number.parseInt(source, radix) : Number.NaN
    if (Number.isSafeInteger(parsed) && Math.abs(parsed).toString(radix) === source.replace(/^[+-]?0*(?=.)/, '').toLowerCase()) return parsed
  }
  const number = parseFloatText(value)
  return number !== null && Number.isFinite(number) ? pyInt(BigInt(Math.trunc(number))) : other
}

function toFloat(value: PyValue, args: PyArguments): PyValue {
  const [fallback] = bind('float', ['default'], args)
  if (value instanceof PyUndefined) throw failure(value.message)
  if (value instanceof PyFloat) return value
  if (typeof value === 'boolean' || isInt(value)) return new PyFloat(Number(value))
  const number = typeof value === 'string' ? parseFloatText(value) : null
  return number === null ? present(fallback, new PyFloat(0)) : new PyFloat(number)
}

function truncate(value: PyValue, args: PyArguments): PyValue {
  const [length, killWords, end, leeway] = bind('truncate', ['length', 'killwords', 'end', 'leeway'], args)
  const most = integer('truncate', length, 255)
  const tail = end === undefined ? '...' : text('truncate', end)
  if (most < codePoints(tail).length) throw failure(`truncate: the length is less than that of ${JSON.stringify(tail)}`)
  if (value === null) throw failure("object of type 'NoneType' has no len()")
  if (lengthOf(value) <= most + integer('truncate', leeway === null ? undefined : leeway, 5)) return value
  const source = Array.from(text('truncate', value))
  const cut = source.slice(0, most - codePoints(tail).length).join('')
  if (killWords !== undefined && truth(killWords)) return cut + tail
  const blank = cut.lastIndexOf(' ')
  return (blank < 0 ? cut : cut.slice(0, blank)) + tail
}

const SEPARATED = new RegExp(`([-${WHITESPACE}({\\[<]+)`)

/** Jinja's own `title`, which differs from the method of str. */
const titleFilter = (source: string): string =>
  source
    .split(SEPARATED)
    .map((part) => {
      const first = part === '' ? '' : String.fromCodePoint(part.codePointAt(0) as number)
      return first.toUpperCase() + part.slice(first.length).toLowerCase()
    })
    .join('')

function defaultFilter(value: PyValue, args: PyArguments): PyValue {
  const [fallback, boolean] = bind('default', ['default_value', 'boolean'], args)
  const absent = value instanceof PyUndefined || (boolean !== undefined && truth(boolean) && !truth(value))
  return absent ? present(fallback, '') : value
}

function join(value: PyValue, args: PyArguments): PyValue {
  const [between, path] = bind('join', ['d', 'attribute'], args)
  const items = path === undefined || path === null ? iterate(value) : iterate(value).map(attributePath(path))
  return items.map(pyStr).join(between === undefined ? '' : pyStr(between))
}

function sum(value: PyValue, args: PyArguments): PyValue {
  const [path, start] = bind('sum', ['attribute', 'start'], args)
  const items = path === undefined || path === null ? iterate(value) : iterate(value).map(attributePath(path))
  if (typeof start === 'string') throw failure("sum() can't sum strings [use ''.join(seq) instead]")
  return items.reduce<PyValue>((total, item) => arithmetic('+', total, item), present(start, 0))
}

function reverse(value: PyValue): PyValue {
  if (typeof value === 'string') return [...value].reverse().join('')
  return new PyIterator([...iterate(value)].reverse())
}

function formatFilter(value: PyValue, args: PyArguments): PyValue {
  if (args.named.size === 0) return percentFormat(pyStr(value), new PyTuple(args.positional))
  if (args.positional.length > 0) throw failure("can't handle positional and keyword arguments at the same time")
  const named = new PyDict()
  for (const [name, argument] of args.named) named.set(name, argument)
  return percentFormat(pyStr(value), named)
}

/** By name; one that is not in this or the other table is refused when the template is loaded. */
export const TEXT_FILTERS: ReadonlyMap<string, Filter> = new Map<string, Filter>([
  ['tojson', toJson],
  ['fromjson', plain('fromjson', fromJsonFilter)],
  [
    'trim',
    (value, args) => {
      const [characters] = bind('trim', ['chars'], args)
      return strip(pyStr(value), characters === undefined || characters === null ? null : text('trim', characters), 'both')
    },
  ],
  ['upper', plain('upper', (value) => pyStr(value).toUpperCase())],
  ['lower', plain('lower', (value) => pyStr(value).toLowerCase())],
  ['capitalize', plain('capitalize', (value) => capitalize(pyStr(value)))],
  ['title', plain('title', (value) => titleFilter(pyStr(value)))],
  ['string', plain('string', pyStr)],
  // Only at the end of an output; elsewhere it is refused when the template is loaded.
  ['safe', plain('safe', pyStr)],
  [
    'replace',
    (value, args) => {
      const [old, by, count] = bind('replace', ['old', 'new', 'count'], args, 2)
      return replaceText(pyStr(value), pyStr(old as PyValue), pyStr(by as PyValue), count === null ? -1 : integer('replace', count, -1))
    },
  ],
  ['indent', indentFilter],
  ['center', (value, args) => align(pyStr(value), integer('center', bind('center', ['width'], args)[0], 80), ' ', 'center')],
  ['truncate', truncate],
  ['wordcount', plain('wordcount', (value) => (pyStr(value).match(/[\p{L}\p{N}_]+/gu) ?? []).length)],
  ['format', formatFilter],
  ['int', toInt],
  ['float', toFloat],
  [
    'abs',
    plain('abs', (value) => {
      if (value instanceof PyFloat) return new PyFloat(Math.abs(value.value))
      return compare('<', value, 0) < 0 ? arithmetic('-', 0, value) : arithmetic('+', 0, value)
    }),
  ],
  ['round', round],
  ['default', defaultFilter],
  ['d', defaultFilter],
  ['length', plain('length', lengthOf)],
  [
    'count',
    plain('count', (value) => {
      if (value === null) throw failure("object of type 'NoneType' has no len()")
      return lengthOf(value)
    }),
  ],
  ['join', join],
  ['sum', sum],
  ['reverse', plain('reverse', reverse)],
  ['list', plain('list', (value) => new PyList(iterate(value)))],
  [
    'items',
    plain('items', (value) => {
      if (value instanceof PyUndefined) return new PyIterator([])
      if (!(value instanceof PyDict)) throw failure('Can only get item pairs from a mapping.')
      return new PyIterator(value.entries().map(([key, item]) => new PyTuple([key, item])))
    }),
  ],
  [
    'attr',
    (value, args) => {
      const [name] = bind('attr', ['name'], args, 1)
      // The filter looks at attributes alone: keys of a dict do not count.
      if (value instanceof PyDict && !['get', 'items', 'keys', 'values', 'copy'].includes(text('attr', name))) return new PyUndefined(`'dict object' has no attribute '${text('attr', name)}'`)
      return attribute(value, text('attr', name))
    },
  ],
])
