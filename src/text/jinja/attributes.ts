/** `value.name` and `value[key]` as the sandbox of Python's renderer resolves them. */
import { bind, integer } from './arguments.ts'
import { equals, iterate, subscript } from './operators.ts'
import { pyRepr } from './printing.ts'
import { stringMethod, STRING_METHODS } from './string-methods.ts'
import { failure, present, type PyArguments, PyDict, PyFloat, PyFunction, PyList, PyLoop, PyNamespace, PyTuple, PyUndefined, PyView, type PyValue, typeName } from './values.ts'

const CHANGING: ReadonlySet<string> = new Set(['append', 'clear', 'extend', 'insert', 'pop', 'popitem', 'remove', 'reverse', 'setdefault', 'sort', 'update'])

type Method<Self> = (self: Self, args: PyArguments) => PyValue

const DICT_METHODS: ReadonlyMap<string, Method<PyDict>> = new Map<string, Method<PyDict>>([
  [
    'get',
    (self, args) => {
      const [key, fallback] = bind('get', ['key', 'default'], args, 1)
      return present(self.get(key as PyValue), fallback)
    },
  ],
  ['items', (self, args) => (bind('items', [], args), new PyView('dict_items', self.entries().map(([key, value]) => new PyTuple([key, value]))))],
  ['keys', (self, args) => (bind('keys', [], args), new PyView('dict_keys', self.keys()))],
  ['values', (self, args) => (bind('values', [], args), new PyView('dict_values', self.values()))],
  ['copy', (self, args) => (bind('copy', [], args), self)],
])

const LIST_METHODS: ReadonlyMap<string, Method<PyList | PyTuple>> = new Map<string, Method<PyList | PyTuple>>([
  ['count', (self, args) => self.items.filter((item) => equals(item, bind('count', ['value'], args, 1)[0] as PyValue)).length],
  [
    'index',
    (self, args) => {
      const [value, start] = bind('index', ['value', 'start'], args, 1)
      const from = integer('index', start, 0)
      const found = self.items.findIndex((item, i) => i >= from && equals(item, value as PyValue))
      if (found < 0) throw failure(`${pyRepr(value as PyValue)} is not in list`)
      return found
    },
  ],
  ['copy', (self, args) => (bind('copy', [], args), self)],
])

/** Attributes of Python's own types that are not rendered here; calling one is refused when the template is loaded. */
export const UNSUPPORTED_METHODS: ReadonlySet<string> = new Set(
  (
    'casefold encode expandtabs format_map isalnum isidentifier isnumeric isprintable istitle maketrans swapcase translate ' +
    'fromkeys as_integer_ratio bit_length bit_count conjugate from_bytes hex is_integer to_bytes fromhex'
  ).split(' '),
)

/** Names that a str, dict, list or number has in Python, whatever the data holds. */
export const KNOWN_METHODS: ReadonlySet<string> = new Set([...STRING_METHODS.keys(), ...DICT_METHODS.keys(), ...LIST_METHODS.keys(), ...CHANGING])

/** `value.name`: the attribute first, then the key. */
export function attribute(value: PyValue, name: string): PyValue {
  if (value instanceof PyUndefined) throw failure(value.message)
  if (value instanceof PyNamespace) return present(value.attributes.get(name), missing(value, name))
  const own = ownAttribute(value, name)
  return own !== undefined ? own : present(subscript(value, name), missing(value, name))
}

/** `value[key]`: the key first, then the attribute. */
export function item(value: PyValue, key: PyValue): PyValue {
  if (value instanceof PyUndefined) throw failure(value.message)
  const found = subscript(value, key)
  if (found !== undefined) return found
  return present(typeof key === 'string' ? ownAttribute(value, key) : undefined, missing(value, key))
}

function missing(value: PyValue, key: PyValue): PyUndefined {
  if (typeof key === 'string') return new PyUndefined(`'${typeName(value)} object' has no attribute ${pyRepr(key)}`)
  return new PyUndefined(`${typeName(value)} object has no element ${pyRepr(key)}`)
}

function ownAttribute(value: PyValue, name: string): PyValue | undefined {
  if (name.startsWith('__')) return new PyUndefined(`access to attribute ${pyRepr(name)} of ${pyRepr(typeName(value))} object is unsafe.`)
  if (typeof value === 'string') return stringMethod(value, name)
  if (value instanceof PyDict || value instanceof PyList) {
    if (CHANGING.has(name) && changes(value, name)) return new PyUndefined(`access to attribute ${pyRepr(name)} of ${pyRepr(typeName(value))} object is unsafe.`)
  }
  if (value instanceof PyDict) return boundTo(value, name, DICT_METHODS)
  if (value instanceof PyList || (value instanceof PyTuple && name !== 'copy')) return boundTo<PyList | PyTuple>(value, name, LIST_METHODS)
  if (value instanceof PyLoop) return loopAttribute(value, name)
  if (value instanceof PyFloat || typeof value === 'number') return name === 'real' ? value : undefined
  return undefined
}

const DICT_CHANGING: ReadonlySet<string> = new Set(['clear', 'pop', 'popitem', 'setdefault', 'update'])

const changes = (value: PyDict | PyList, name: string): boolean => (value instanceof PyDict ? DICT_CHANGING.has(name) : name !== 'popitem' && name !== 'setdefault' && name !== 'update')

function boundTo<Self>(self: Self, name: string, methods: ReadonlyMap<string, Method<Self>>): PyFunction | undefined {
  const method = methods.get(name)
  return method === undefined ? undefined : new PyFunction(name, (args) => method(self, args))
}

function loopAttribute(loop: PyLoop, name: string): PyValue | undefined {
  const { items, index0 } = loop
  switch (name) {
    case 'index':
      return index0 + 1
    case 'index0':
      return index0
    case 'revindex':
      return items.length - index0
    case 'revindex0':
      return items.length - index0 - 1
    case 'first':
      return index0 === 0
    case 'last':
      return index0 === items.length - 1
    case 'length':
      return items.length
    // Only recursive loops are deeper.
    case 'depth':
      return 1
    case 'depth0':
      return 0
    case 'previtem':
      return index0 === 0 ? new PyUndefined('there is no previous item') : items[index0 - 1]
    case 'nextitem':
      return present(items[index0 + 1], new PyUndefined('there is no next item'))
    case 'cycle':
      return new PyFunction('cycle', ({ positional }) => {
        if (positional.length === 0) throw failure('no items for cycling given')
        return positional[index0 % positional.length] as PyValue
      })
    case 'changed':
      return new PyFunction('changed', ({ positional }) => {
        const now = new PyTuple(positional)
        const changed = loop.lastChanged === undefined || !equals(loop.lastChanged, now)
        if (changed) loop.lastChanged = now
        return changed
      })
    default:
      return undefined
  }
}

/** `attribute='a.b.0'` of filters: keys first, then attributes, part by part. */
export function attributePath(path: PyValue): (value: PyValue) => PyValue {
  const parts: PyValue[] = typeof path === 'string' ? path.split('.').map((part) => (/^\d+$/.test(part) ? Number(part) : part)) : [path]
  return (value) => parts.reduce<PyValue>((at, part) => item(at, part), value)
}

/** The last item, for `last`. */
export const lastOf = (value: PyValue): PyValue => {
  const items = iterate(value)
  return present(items[items.length - 1], new PyUndefined('No last item, sequence was empty.'))
}

