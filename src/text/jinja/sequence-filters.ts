/** Jinja's filters on sequences: choosing, mapping, sorting and grouping. */
import { bind, integer, text } from './arguments.ts'
import { attributePath, lastOf } from './attributes.ts'
import type { Filter } from './filters.ts'
import { compare, equals, iterate, truth } from './operators.ts'
import { failure, present, PyDict, PyIterator, PyList, PyTuple, PyUndefined, type PyArguments, type PyValue } from './values.ts'

/** What these filters need of the renderer: other filters and tests by name. */
export interface FilterContext {
  applyFilter(name: string, value: PyValue, args: PyArguments): PyValue
  applyTest(name: string, value: PyValue, args: PyArguments): boolean
}

const flag = (value: PyValue | undefined): boolean => value !== undefined && truth(value)

/** Sort key: the attribute, in lower case unless case counts. */
function keyOf(path: PyValue | undefined, caseSensitive: PyValue | undefined): (value: PyValue) => PyValue {
  const read = path === undefined || path === null ? (value: PyValue): PyValue => value : attributePath(path)
  return (value) => {
    const key = read(value)
    return typeof key === 'string' && !flag(caseSensitive) ? key.toLowerCase() : key
  }
}

function sorted(items: readonly PyValue[], key: (value: PyValue) => PyValue, reverse: boolean): PyValue[] {
  const keyed = items.map((value) => ({ value, key: key(value) }))
  // Python keeps the order of equals also when it sorts in reverse.
  keyed.sort((a, b) => (reverse ? compare('<', b.key, a.key) : compare('<', a.key, b.key)))
  return keyed.map(({ value }) => value)
}

/** `attribute='a,b'` sorts by several. */
function sortKey(path: PyValue | undefined, caseSensitive: PyValue | undefined): (value: PyValue) => PyValue {
  if (typeof path !== 'string' || !path.includes(',')) return keyOf(path, caseSensitive)
  const keys = path.split(',').map((part) => keyOf(part, caseSensitive))
  return (value) => new PyList(keys.map((key) => key(value)))
}

function sort(value: PyValue, args: PyArguments): PyValue {
  const [reverse, caseSensitive, path] = bind('sort', ['reverse', 'case_sensitive', 'attribute'], args)
  return new PyList(sorted(iterate(value), sortKey(path, caseSensitive), flag(reverse)))
}

function dictSort(value: PyValue, args: PyArguments): PyValue {
  const [caseSensitive, by, reverse] = bind('dictsort', ['case_sensitive', 'by', 'reverse'], args)
  if (!(value instanceof PyDict)) throw failure('dictsort needs a mapping')
  const side = by === undefined ? 'key' : text('dictsort', by)
  if (side !== 'key' && side !== 'value') throw failure('You can only sort by either "key" or "value"')
  const pairs = value.entries().map(([key, item]) => new PyTuple([key, item]))
  const key = keyOf(side === 'key' ? 0 : 1, caseSensitive)
  return new PyList(sorted(pairs, key, flag(reverse)))
}

const extreme =
  (name: 'min' | 'max'): Filter =>
  (value, args) => {
    const [caseSensitive, path] = bind(name, ['case_sensitive', 'attribute'], args)
    const key = keyOf(path, caseSensitive)
    const items = iterate(value)
    if (items.length === 0) return new PyUndefined('No aggregated item, sequence was empty.')
    return items.reduce((best, item) => {
      const order = compare(name === 'min' ? '<' : '>', key(item), key(best))
      return (name === 'min' ? order < 0 : order > 0) ? item : best
    })
  }

function unique(value: PyValue, args: PyArguments): PyValue {
  const [caseSensitive, path] = bind('unique', ['case_sensitive', 'attribute'], args)
  const key = keyOf(path, caseSensitive)
  const seen: PyValue[] = []
  return new PyIterator(
    iterate(value).filter((item) => {
      const itsKey = key(item)
      if (itsKey instanceof PyList || itsKey instanceof PyDict) throw failure('unhashable type: unique takes no lists or dicts')
      if (seen.some((other) => equals(other, itsKey))) return false
      seen.push(itsKey)
      return true
    }),
  )
}

function groupBy(value: PyValue, args: PyArguments): PyValue {
  const [path, fallback, caseSensitive] = bind('groupby', ['attribute', 'default', 'case_sensitive'], args, 1)
  const read = attributePath(path as PyValue)
  const raw = (item: PyValue): PyValue => {
    const key = read(item)
    return key instanceof PyUndefined && fallback !== undefined ? fallback : key
  }
  const folded = (item: PyValue): PyValue => {
    const key = raw(item)
    return typeof key === 'string' && !flag(caseSensitive) ? key.toLowerCase() : key
  }
  const groups: { key: PyValue; items: PyValue[] }[] = []
  for (const item of sorted(iterate(value), folded, false)) {
    const last = groups.at(-1)
    if (last !== undefined && equals(last.key, folded(item))) last.items.push(item)
    else groups.push({ key: folded(item), items: [item] })
  }
  return new PyList(groups.map((group) => new PyTuple([flag(caseSensitive) ? group.key : raw(group.items[0] as PyValue), new PyList(group.items)])))
}

function batch(value: PyValue, args: PyArguments): PyValue {
  const [count, fill] = bind('batch', ['linecount', 'fill_with'], args, 1)
  const size = integer('batch', count, 1)
  if (size < 1) throw failure('batch: the count must be at least 1')
  const items = iterate(value)
  const lines: PyValue[] = []
  for (let i = 0; i < items.length; i += size) {
    const line = items.slice(i, i + size)
    if (fill !== undefined && fill !== null) while (line.length < size) line.push(fill)
    lines.push(new PyList(line))
  }
  return new PyIterator(lines)
}

function sliceFilter(value: PyValue, args: PyArguments): PyValue {
  const [count, fill] = bind('slice', ['slices', 'fill_with'], args, 1)
  const slices = integer('slice', count, 1)
  if (slices < 1) throw failure('slice: the count must be at least 1')
  const items = iterate(value)
  const size = Math.floor(items.length / slices)
  const longer = items.length % slices
  const parts: PyValue[] = []
  let offset = 0
  for (let i = 0; i < slices; i++) {
    const start = offset + i * size
    if (i < longer) offset++
    const part = items.slice(start, offset + (i + 1) * size)
    if (fill !== undefined && fill !== null && i >= longer) part.push(fill)
    parts.push(new PyList(part))
  }
  return new PyIterator(parts)
}

function map(value: PyValue, args: PyArguments, context: FilterContext): PyValue {
  const items = truth(value) || value instanceof PyIterator ? iterate(value) : []
  if (args.positional.length === 0 && args.named.has('attribute')) {
    const read = attributePath(args.named.get('attribute') as PyValue)
    const fallback = args.named.get('default')
    for (const name of args.named.keys()) if (name !== 'attribute' && name !== 'default') throw failure(`Unexpected keyword argument '${name}'`)
    return new PyIterator(
      items.map((item) => {
        const found = read(item)
        return found instanceof PyUndefined && fallback !== undefined ? fallback : found
      }),
    )
  }
  const name = text('map', args.positional[0])
  const rest = { positional: args.positional.slice(1), named: args.named }
  return new PyIterator(items.map((item) => context.applyFilter(name, item, rest)))
}

const choosing =
  (name: string, wanted: boolean, byAttribute: boolean) =>
  (value: PyValue, args: PyArguments, context: FilterContext): PyValue => {
    const offset = byAttribute ? 1 : 0
    if (byAttribute && args.positional.length === 0) throw failure('Missing parameter for attribute name')
    const read = byAttribute ? attributePath(args.positional[0] as PyValue) : (item: PyValue): PyValue => item
    const test = args.positional[offset]
    const rest = { positional: args.positional.slice(offset + 1), named: args.named }
    const items = truth(value) || value instanceof PyIterator ? iterate(value) : []
    return new PyIterator(items.filter((item) => (test === undefined ? truth(read(item)) : context.applyTest(text(name, test), read(item), rest)) === wanted))
  }

function first(value: PyValue): PyValue {
  const none = new PyUndefined('No first item, sequence was empty.')
  if (value instanceof PyIterator) return present(value.takeFirst(), none)
  return present(iterate(value)[0], none)
}

type ContextFilter = (value: PyValue, args: PyArguments, context: FilterContext) => PyValue

/** By name; see `TEXT_FILTERS` for the others. */
export const SEQUENCE_FILTERS: ReadonlyMap<string, ContextFilter> = new Map<string, ContextFilter>([
  ['sort', sort],
  ['dictsort', dictSort],
  ['min', extreme('min')],
  ['max', extreme('max')],
  ['unique', unique],
  ['groupby', groupBy],
  ['batch', batch],
  ['slice', sliceFilter],
  ['map', map],
  ['select', choosing('select', true, false)],
  ['reject', choosing('reject', false, false)],
  ['selectattr', choosing('selectattr', true, true)],
  ['rejectattr', choosing('rejectattr', false, true)],
  ['first', (value) => first(value)],
  [
    'last',
    (value) => {
      if (value instanceof PyIterator) throw failure("'generator' object is not reversible")
      return lastOf(value)
    },
  ],
])
