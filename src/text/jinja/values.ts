/**
 * Python's values as templates see them.
 *
 * None is null, bool is boolean, int is an integral number (bigint past 2^53), str is string; the rest are the classes
 * below. All are immutable but for namespaces: the sandbox in which Python renders chat templates refuses changes too.
 */
import { TemplateError } from '../template-error.ts'

export type PyValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | PyFloat
  | PyList
  | PyTuple
  | PyDict
  | PyRange
  | PyView
  | PyIterator
  | PyUndefined
  | PyFunction
  | PyNamespace
  | PyLoop

export class PyFloat {
  readonly value: number

  constructor(value: number) {
    this.value = value
  }
}

export class PyList {
  readonly items: readonly PyValue[]

  constructor(items: readonly PyValue[]) {
    this.items = items
  }
}

export class PyTuple {
  readonly items: readonly PyValue[]

  constructor(items: readonly PyValue[]) {
    this.items = items
  }
}

export class PyRange {
  readonly start: number
  readonly stop: number
  readonly step: number
  readonly items: readonly number[]

  constructor(start: number, stop: number, step: number, items: readonly number[]) {
    this.start = start
    this.stop = stop
    this.step = step
    this.items = items
  }
}

/** `keys()`, `values()` or `items()` of a dict. */
export class PyView {
  readonly kind: 'dict_keys' | 'dict_values' | 'dict_items'
  readonly items: readonly PyValue[]

  constructor(kind: 'dict_keys' | 'dict_values' | 'dict_items', items: readonly PyValue[]) {
    this.kind = kind
    this.items = items
  }
}

/** What can be gone through once: generators of filters. */
export class PyIterator {
  #items: readonly PyValue[]

  constructor(items: readonly PyValue[]) {
    this.#items = items
  }

  /** All that is left; nothing the next time. */
  take(): readonly PyValue[] {
    const items = this.#items
    this.#items = []
    return items
  }

  takeFirst(): PyValue | undefined {
    const first = this.#items[0]
    this.#items = this.#items.slice(1)
    return first
  }
}

/** A name, key or attribute that is not there; most uses of it fail with the message. */
export class PyUndefined {
  readonly message: string

  constructor(message: string) {
    this.message = message
  }
}

/** Positional and named arguments of a call. */
export interface PyArguments {
  readonly positional: readonly PyValue[]
  readonly named: ReadonlyMap<string, PyValue>
}

export class PyFunction {
  readonly name: string
  readonly call: (args: PyArguments) => PyValue

  constructor(name: string, call: (args: PyArguments) => PyValue) {
    this.name = name
    this.call = call
  }
}

export class PyNamespace {
  readonly attributes: Map<string, PyValue>

  constructor(attributes: Map<string, PyValue>) {
    this.attributes = attributes
  }
}

/** The `loop` of a for statement. */
export class PyLoop {
  readonly items: readonly PyValue[]
  index0 = 0
  lastChanged: PyValue | undefined

  constructor(items: readonly PyValue[]) {
    this.items = items
  }
}

/** Keys are str, numbers, bools or None; 1, 1.0 and True are one key, as in Python. */
export class PyDict {
  readonly #entries = new Map<string | number | bigint | null, { readonly key: PyValue; value: PyValue }>()

  get size(): number {
    return this.#entries.size
  }

  get(key: PyValue): PyValue | undefined {
    return this.#entries.get(keyId(key))?.value
  }

  has(key: PyValue): boolean {
    return this.#entries.has(keyId(key))
  }

  /** Only while the dict is being made. */
  set(key: PyValue, value: PyValue): void {
    const id = keyId(key)
    const known = this.#entries.get(id)
    if (known === undefined) this.#entries.set(id, { key, value })
    else known.value = value
  }

  keys(): PyValue[] {
    return [...this.#entries.values()].map((entry) => entry.key)
  }

  values(): PyValue[] {
    return [...this.#entries.values()].map((entry) => entry.value)
  }

  entries(): (readonly [PyValue, PyValue])[] {
    return [...this.#entries.values()].map((entry) => [entry.key, entry.value] as const)
  }
}

function keyId(key: PyValue): string | number | bigint | null {
  if (key === null || typeof key === 'string' || typeof key === 'number' || typeof key === 'bigint') return key
  if (typeof key === 'boolean') return key ? 1 : 0
  if (key instanceof PyFloat) return key.value
  throw failure(`unhashable type: '${typeName(key)}' as a dict key`)
}

/** The first that is there; unlike `??` it takes None for a value. */
export function present(...candidates: readonly (PyValue | undefined)[]): PyValue {
  for (const candidate of candidates) if (candidate !== undefined) return candidate
  return null
}

/** A failure while rendering. */
export const failure = (message: string): TemplateError => new TemplateError('failed', message)

export const isInt = (value: PyValue): value is number | bigint => typeof value === 'number' || typeof value === 'bigint'

/** The smallest form of an int. */
export const pyInt = (value: bigint): number | bigint =>
  value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value

/** Python's name of a value's type, for messages. */
export function typeName(value: PyValue): string {
  if (value === null) return 'NoneType'
  switch (typeof value) {
    case 'boolean':
      return 'bool'
    case 'number':
    case 'bigint':
      return 'int'
    case 'string':
      return 'str'
  }
  if (value instanceof PyFloat) return 'float'
  if (value instanceof PyList) return 'list'
  if (value instanceof PyTuple) return 'tuple'
  if (value instanceof PyDict) return 'dict'
  if (value instanceof PyRange) return 'range'
  if (value instanceof PyView) return value.kind
  if (value instanceof PyIterator) return 'generator'
  if (value instanceof PyUndefined) return 'Undefined'
  if (value instanceof PyNamespace) return 'Namespace'
  return value instanceof PyLoop ? 'LoopContext' : 'function'
}

/** Deepest nesting of messages, tools and variables that is taken. */
const DEPTH_MAX = 200

/** JSON as Python's `json.loads` gives it. Numbers of a lossless parser keep their form, so that 1.0 stays 1.0. */
export function fromJson(value: unknown, depth = 0): PyValue {
  if (depth > DEPTH_MAX) throw failure(`messages, tools or variables are nested more than ${DEPTH_MAX} deep`)
  if (value === undefined || value === null) return null
  if (typeof value === 'string' || typeof value === 'boolean') return value
  if (typeof value === 'bigint') return pyInt(value)
  if (typeof value === 'number') return Number.isSafeInteger(value) && !Object.is(value, -0) ? value : new PyFloat(value)
  if (Array.isArray(value)) return new PyList(value.map((item) => fromJson(item, depth + 1)))
  if (typeof value !== 'object') throw failure(`a ${typeof value} is not a JSON value`)
  const lossless = value as { readonly isLosslessNumber?: unknown; readonly value?: unknown }
  if (lossless.isLosslessNumber === true && typeof lossless.value === 'string') return numberFromText(lossless.value)
  const dict = new PyDict()
  for (const [key, item] of Object.entries(value)) if (item !== undefined) dict.set(key, fromJson(item, depth + 1))
  return dict
}

/** A JSON number by its text: an int unless it has a point or an exponent. */
export const numberFromText = (text: string): PyValue => (/^-?\d+$/.test(text) ? pyInt(BigInt(text)) : new PyFloat(Number(text)))

/** Python's idea of white space in str methods and in `\s`. */
export const WHITESPACE = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000'

/** Code points; strings without surrogates are their own. */
export const codePoints = (text: string): ArrayLike<string> & Iterable<string> => (/[\ud800-\udfff]/.test(text) ? Array.from(text) : text)
