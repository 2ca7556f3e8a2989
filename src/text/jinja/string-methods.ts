/** Python's methods of str that templates may call. */
import { bind, integer, text } from './arguments.ts'
import { iterate } from './operators.ts'
import { formatBraces } from './brace-format.ts'
import { codePoints, failure, type PyArguments, PyFunction, PyList, PyTuple, PyUndefined, type PyValue, typeName, WHITESPACE } from './values.ts'

type Method = (self: string, args: PyArguments) => PyValue

const LEADING = new RegExp(`^[${WHITESPACE}]+`)
const TRAILING = new RegExp(`[${WHITESPACE}]+$`)
/** Python's line ends, CR LF being one. */
const LINE_ENDS = '\\n\\r\\v\\f\\x1c-\\x1e\\x85\\u2028\\u2029'
const LINE_END = new RegExp(`\\r\\n|[${LINE_ENDS}]`, 'g')
const SPACE_ONLY = new RegExp(`^[${WHITESPACE}]+$`)
const WORDS = new RegExp(`[^${WHITESPACE}]+`, 'g')

/** `strip`, `lstrip` and `rstrip`: white space, or any of the given characters. */
export function strip(self: string, characters: string | null, side: 'both' | 'left' | 'right'): string {
  if (characters === null) {
    const started = side === 'right' ? self : self.replace(LEADING, '')
    if (side === 'left') return started
    // Searching for trailing space by expression would be quadratic on long runs inside.
    let end = started.length
    while (end > 0 && SPACE_ONLY.test(started[end - 1] as string)) end--
    return started.slice(0, end)
  }
  const set = new Set(characters)
  const points = Array.from(self)
  let from = 0
  let to = points.length
  if (side !== 'right') while (from < to && set.has(points[from] as string)) from++
  if (side !== 'left') while (to > from && set.has(points[to - 1] as string)) to--
  return points.slice(from, to).join('')
}

const stripping =
  (name: string, side: 'both' | 'left' | 'right'): Method =>
  (self, args) => {
    const [characters] = bind(name, ['chars'], args)
    return strip(self, characters === undefined || characters === null ? null : text(name, characters), side)
  }

function split(self: string, args: PyArguments, fromRight: boolean): PyValue {
  const owner = fromRight ? 'rsplit' : 'split'
  const [separator, limit] = bind(owner, ['sep', 'maxsplit'], args)
  const most = integer(owner, limit, -1)
  const parts = separator === undefined || separator === null ? splitSpace(self, most, fromRight) : splitText(self, text(owner, separator), most, fromRight)
  return new PyList(parts)
}

function splitText(self: string, separator: string, most: number, fromRight: boolean): string[] {
  if (separator === '') throw failure('empty separator')
  const parts = self.split(separator)
  if (most < 0 || parts.length <= most + 1) return parts
  if (fromRight) return [parts.slice(0, parts.length - most).join(separator), ...parts.slice(parts.length - most)]
  return [...parts.slice(0, most), parts.slice(most).join(separator)]
}

function splitSpace(self: string, most: number, fromRight: boolean): string[] {
  const words = [...self.matchAll(WORDS)]
  if (most < 0 || words.length <= most) return words.map((word) => word[0])
  if (fromRight) {
    const rest = words[words.length - most - 1] as RegExpExecArray
    const head = self.slice(0, rest.index + rest[0].length)
    return [head, ...words.slice(words.length - most).map((word) => word[0])]
  }
  return [...words.slice(0, most).map((word) => word[0]), self.slice((words[most] as RegExpExecArray).index).replace(TRAILING, '')]
}

/** `splitlines`: all line ends that Python knows. */
export function splitLines(self: string, keepEnds = false): string[] {
  const lines: string[] = []
  let start = 0
  for (const end of self.matchAll(LINE_END)) {
    lines.push(self.slice(start, keepEnds ? end.index + end[0].length : end.index))
    start = end.index + end[0].length
  }
  if (start < self.length) lines.push(self.slice(start))
  return lines
}

/** `replace`; an empty old text stands between all characters. */
export function replaceText(self: string, old: string, by: string, count: number): string {
  if (old === '') {
    const points = Array.from(self)
    const most = count < 0 ? points.length + 1 : Math.min(count, points.length + 1)
    return points.map((point, i) => (i < most ? by + point : point)).join('') + (most > points.length ? by : '')
  }
  const parts = self.split(old)
  if (count < 0 || parts.length <= count + 1) return parts.join(by)
  return parts.slice(0, count + 1).join(by) + old + parts.slice(count + 1).join(old)
}

/** Part of the text that `start` and `end` name, and where it begins, both in code points. */
function region(owner: string, self: string, start: PyValue | undefined, end: PyValue | undefined): { part: string; offset: number; empty: boolean } {
  const points = codePoints(self)
  const bound = (value: PyValue | undefined, open: number): number => {
    if (value === undefined || value === null) return open
    const place = integer(owner, value, open)
    return Math.min(Math.max(place < 0 ? place + points.length : place, 0), points.length)
  }
  const from = bound(start, 0)
  const to = bound(end, points.length)
  const beyond = typeof start === 'number' && start > points.length
  return { part: Array.from(points).slice(from, to).join(''), offset: from, empty: from > to || beyond }
}

const edge =
  (name: 'startswith' | 'endswith'): Method =>
  (self, args) => {
    const [affix, start, end] = bind(name, ['prefix', 'start', 'end'], args, 1)
    const { part, empty } = region(name, self, start, end)
    const candidates = affix instanceof PyTuple ? affix.items.map((item) => text(name, item)) : [text(name, affix)]
    return !empty && candidates.some((candidate) => (name === 'startswith' ? part.startsWith(candidate) : part.endsWith(candidate)))
  }

const search =
  (name: 'find' | 'rfind' | 'index' | 'rindex'): Method =>
  (self, args) => {
    const [needle, start, end] = bind(name, ['sub', 'start', 'end'], args, 1)
    const { part, offset, empty } = region(name, self, start, end)
    const wanted = text(name, needle)
    const found = empty ? -1 : name.startsWith('r') ? part.lastIndexOf(wanted) : part.indexOf(wanted)
    if (found < 0 && name.endsWith('index')) throw failure('substring not found')
    return found < 0 ? -1 : offset + codePoints(part.slice(0, found)).length
  }

const aligned =
  (name: 'ljust' | 'rjust' | 'center'): Method =>
  (self, args) => {
    const [width, fill] = bind(name, ['width', 'fillchar'], args, 1)
    return align(self, integer(name, width, 0), fill === undefined ? ' ' : text(name, fill), name)
  }

/** Pads to a width in code points. */
export function align(self: string, width: number, fill: string, name: 'ljust' | 'rjust' | 'center'): string {
  if (codePoints(fill).length !== 1) throw failure('The fill character must be exactly one character long')
  const missing = width - codePoints(self).length
  if (missing <= 0) return self
  if (missing > 1_000_000) throw failure('a width of more than a million characters')
  if (name === 'ljust') return self + fill.repeat(missing)
  if (name === 'rjust') return fill.repeat(missing) + self
  // Python puts the odd one to the left only when the width is odd too.
  const left = Math.floor(missing / 2) + (missing & width & 1)
  return fill.repeat(left) + self + fill.repeat(missing - left)
}

const every =
  (name: string, pattern: RegExp): Method =>
  (self, args) => {
    bind(name, [], args)
    return pattern.test(self)
  }

const cased =
  (name: string, wanted: RegExp, unwanted: RegExp): Method =>
  (self, args) => {
    bind(name, [], args)
    return wanted.test(self) && !unwanted.test(self)
  }

const mapped =
  (name: string, map: (self: string) => PyValue): Method =>
  (self, args) => {
    bind(name, [], args)
    return map(self)
  }

const affixRemoval =
  (name: 'removeprefix' | 'removesuffix'): Method =>
  (self, args) => {
    const affix = text(name, bind(name, ['affix'], args, 1)[0])
    if (name === 'removeprefix') return self.startsWith(affix) ? self.slice(affix.length) : self
    return affix !== '' && self.endsWith(affix) ? self.slice(0, -affix.length) : self
  }

const partitioning =
  (name: 'partition' | 'rpartition'): Method =>
  (self, args) => {
    const separator = text(name, bind(name, ['sep'], args, 1)[0])
    if (separator === '') throw failure('empty separator')
    const at = name === 'partition' ? self.indexOf(separator) : self.lastIndexOf(separator)
    if (at < 0) return new PyTuple(name === 'partition' ? [self, '', ''] : ['', '', self])
    return new PyTuple([self.slice(0, at), separator, self.slice(at + separator.length)])
  }

export const capitalize = (self: string): string => {
  const first = String.fromCodePoint(...(self === '' ? [] : [self.codePointAt(0) as number]))
  return first.toUpperCase() + self.slice(first.length).toLowerCase()
}

/** The first letter of every run of letters is upper case, the others lower. */
export const titleCase = (self: string): string => self.replace(/\p{Cased}+/gu, (run) => capitalize(run))

const DIGIT = '\\p{Nd}\\u00b2\\u00b3\\u00b9\\u2070\\u2074-\\u2079\\u2080-\\u2089\\u2460-\\u2468\\u2474-\\u247c\\u2488-\\u2490\\u24ea\\u24f5-\\u24fd\\u24ff\\u2776-\\u277e\\u2780-\\u2788\\u278a-\\u2792'

/** By name; a str attribute that is not here is refused when the template is loaded. */
export const STRING_METHODS: ReadonlyMap<string, Method> = new Map<string, Method>([
  ['strip', stripping('strip', 'both')],
  ['lstrip', stripping('lstrip', 'left')],
  ['rstrip', stripping('rstrip', 'right')],
  ['split', (self, args) => split(self, args, false)],
  ['rsplit', (self, args) => split(self, args, true)],
  ['splitlines', (self, args) => new PyList(splitLines(self, bind('splitlines', ['keepends'], args)[0] === true))],
  [
    'replace',
    (self, args) => {
      const [old, by, count] = bind('replace', ['old', 'new', 'count'], args, 2)
      return replaceText(self, text('replace', old), text('replace', by), integer('replace', count, -1))
    },
  ],
  ['startswith', edge('startswith')],
  ['endswith', edge('endswith')],
  ['find', search('find')],
  ['rfind', search('rfind')],
  ['index', search('index')],
  ['rindex', search('rindex')],
  [
    'count',
    (self, args) => {
      const [needle, start, end] = bind('count', ['sub', 'start', 'end'], args, 1)
      const { part, empty } = region('count', self, start, end)
      const wanted = text('count', needle)
      return empty ? 0 : wanted === '' ? codePoints(part).length + 1 : part.split(wanted).length - 1
    },
  ],
  ['upper', mapped('upper', (self) => self.toUpperCase())],
  ['lower', mapped('lower', (self) => self.toLowerCase())],
  ['capitalize', mapped('capitalize', capitalize)],
  ['title', mapped('title', titleCase)],
  [
    'join',
    (self, args) =>
      iterate(bind('join', ['iterable'], args, 1)[0] as PyValue)
        .map((item, i) => {
          if (typeof item !== 'string') throw failure(item instanceof PyUndefined ? item.message : `sequence item ${i}: expected str instance, ${typeName(item)} found`)
          return item
        })
        .join(self),
  ],
  ['format', (self, args) => formatBraces(self, args)],
  ['ljust', aligned('ljust')],
  ['rjust', aligned('rjust')],
  ['center', aligned('center')],
  [
    'zfill',
    (self, args) => {
      const width = integer('zfill', bind('zfill', ['width'], args, 1)[0], 0)
      const signed = /^[-+]/.test(self)
      return (signed ? self.slice(0, 1) : '') + align(signed ? self.slice(1) : self, width - (signed ? 1 : 0), '0', 'rjust')
    },
  ],
  ['removeprefix', affixRemoval('removeprefix')],
  ['removesuffix', affixRemoval('removesuffix')],
  ['partition', partitioning('partition')],
  ['rpartition', partitioning('rpartition')],
  ['isdigit', every('isdigit', new RegExp(`^[${DIGIT}]+$`, 'u'))],
  ['isdecimal', every('isdecimal', /^\p{Nd}+$/u)],
  ['isalpha', every('isalpha', /^\p{L}+$/u)],
  ['isspace', every('isspace', SPACE_ONLY)],
  ['isascii', every('isascii', /^[\0-\x7f]*$/)],
  ['isupper', cased('isupper', /\p{Lu}/u, /[\p{Ll}\p{Lt}]/u)],
  ['islower', cased('islower', /\p{Ll}/u, /[\p{Lu}\p{Lt}]/u)],
])

/** A method bound to its text, or undefined. */
export function stringMethod(self: string, name: string): PyFunction | undefined {
  const method = STRING_METHODS.get(name)
  return method === undefined ? undefined : new PyFunction(name, (args) => method(self, args))
}
