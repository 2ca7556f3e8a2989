/** Python's operators and protocols on template values: truth, equality, order, arithmetic, membership, iteration, subscripts. */
import { percentFormat } from './percent-format.ts'
import { compareText, pyRepr, pyStr } from './printing.ts'
import { codePoints, failure, isInt, PyDict, PyFloat, PyIterator, PyList, PyLoop, PyNamespace, PyRange, PyTuple, PyUndefined, PyView, pyInt, type PyValue, typeName } from './values.ts'

export function truth(value: PyValue): boolean {
  if (value === null || value === false || value === '' || value instanceof PyUndefined) return false
  if (value === true || typeof value === 'string') return true
  if (isInt(value)) return value != 0
  if (value instanceof PyFloat) return value.value !== 0
  if (value instanceof PyDict) return value.size > 0
  if (value instanceof PyList || value instanceof PyTuple || value instanceof PyRange || value instanceof PyView || value instanceof PyLoop) return value.items.length > 0
  return true
}

/** Null when it is not a number; bools are numbers. */
function numeric(value: PyValue): number | bigint | null {
  if (typeof value === 'boolean') return value ? 1 : 0
  if (isInt(value)) return value
  return value instanceof PyFloat ? value.value : null
}

export function equals(a: PyValue, b: PyValue): boolean {
  if (a === b) return true
  if (a instanceof PyUndefined || b instanceof PyUndefined) return a instanceof PyUndefined && b instanceof PyUndefined
  const left = numeric(a)
  if (left !== null) {
    const right = numeric(b)
    return right !== null && left == right
  }
  if ((a instanceof PyList && b instanceof PyList) || (a instanceof PyTuple && b instanceof PyTuple) || (a instanceof PyRange && b instanceof PyRange)) {
    const others: readonly PyValue[] = b.items
    return a.items.length === others.length && (a.items as readonly PyValue[]).every((item, i) => equals(item, others[i] as PyValue))
  }
  if (a instanceof PyDict && b instanceof PyDict) {
    return a.size === b.size && a.entries().every(([key, value]) => b.has(key) && equals(value, b.get(key) as PyValue))
  }
  return false
}

/** Errors: values without an order. */
export function compare(operator: string, a: PyValue, b: PyValue): number {
  refuseUndefined(a, b)
  const left = numeric(a)
  const right = numeric(b)
  if (left !== null && right !== null) return left < right ? -1 : left > right ? 1 : left == right ? 0 : Number.NaN
  if (typeof a === 'string' && typeof b === 'string') return compareText(a, b)
  if ((a instanceof PyList && b instanceof PyList) || (a instanceof PyTuple && b instanceof PyTuple)) {
    for (let i = 0; i < Math.min(a.items.length, b.items.length); i++) {
      const [x, y] = [a.items[i] as PyValue, b.items[i] as PyValue]
      if (!equals(x, y)) return compare(operator, x, y)
    }
    return a.items.length - b.items.length
  }
  throw failure(`'${operator}' not supported between instances of '${typeName(a)}' and '${typeName(b)}'`)
}

function refuseUndefined(...values: PyValue[]): void {
  for (const value of values) if (value instanceof PyUndefined) throw failure(value.message)
}

/** `needle in haystack`. */
export function contains(haystack: PyValue, needle: PyValue): boolean {
  if (haystack instanceof PyUndefined) return false
  if (typeof haystack === 'string') {
    if (needle instanceof PyUndefined) throw failure(needle.message)
    if (typeof needle !== 'string') throw failure(`'in <string>' requires string as left operand, not ${typeName(needle)}`)
    return haystack.includes(needle)
  }
  if (haystack instanceof PyDict) return !(needle instanceof PyUndefined) && haystack.has(needle)
  return iterate(haystack).some((item) => equals(item, needle))
}

/** Items of anything that can be gone through. Errors: everything else. */
export function iterate(value: PyValue): readonly PyValue[] {
  if (value instanceof PyList || value instanceof PyTuple || value instanceof PyRange || value instanceof PyView) return value.items
  if (value instanceof PyDict) return value.keys()
  if (typeof value === 'string') return [...value]
  if (value instanceof PyIterator) return value.take()
  if (value instanceof PyUndefined) return []
  throw failure(`'${typeName(value)}' object is not iterable`)
}

/** `None` counts as empty here: the renderer of the original is as lenient. */
export function lengthOf(value: PyValue): number {
  if (value === null || value instanceof PyUndefined) return 0
  if (typeof value === 'string') return codePoints(value).length
  if (value instanceof PyDict) return value.size
  if (value instanceof PyList || value instanceof PyTuple || value instanceof PyRange || value instanceof PyView || value instanceof PyLoop) return value.items.length
  throw failure(`object of type '${typeName(value)}' has no len()`)
}

/** `value[key]`, or undefined where Python would look for an attribute next. */
export function subscript(value: PyValue, key: PyValue): PyValue | undefined {
  if (value instanceof PyDict) return key instanceof PyList || key instanceof PyDict ? undefined : value.get(key)
  if (value instanceof PyNamespace) return typeof key === 'string' ? value.attributes.get(key) : undefined
  const index = typeof key === 'boolean' ? Number(key) : key
  if (typeof index !== 'number') return undefined
  if (typeof value === 'string') {
    const characters = codePoints(value)
    return characters[index < 0 ? characters.length + index : index]
  }
  if (value instanceof PyList || value instanceof PyTuple || value instanceof PyRange) return value.items.at(index)
  return undefined
}

/** `value[start:stop:step]`; null bounds are open. */
export function sliceOf(value: PyValue, start: PyValue, stop: PyValue, step: PyValue): PyValue {
  if (value instanceof PyUndefined) throw failure(value.message)
  const items: ArrayLike<PyValue> | null =
    typeof value === 'string' ? codePoints(value) : value instanceof PyList || value instanceof PyTuple || value instanceof PyRange ? value.items : null
  if (items === null) throw failure(`'${typeName(value)}' object is not subscriptable with a slice`)
  const by = step === null ? 1 : sliceBound(step)
  if (by === 0) throw failure('slice step cannot be zero')
  const picked: PyValue[] = []
  const clamp = (bound: PyValue, open: number): number => {
    if (bound === null) return open
    const place = sliceBound(bound)
    const absolute = place < 0 ? place + items.length : place
    return by > 0 ? Math.min(Math.max(absolute, 0), items.length) : Math.min(Math.max(absolute, -1), items.length - 1)
  }
  const from = clamp(start, by > 0 ? 0 : items.length - 1)
  const to = clamp(stop, by > 0 ? items.length : -1)
  for (let i = from; by > 0 ? i < to : i > to; i += by) picked.push(items[i] as PyValue)
  if (typeof value === 'string') return picked.join('')
  if (value instanceof PyTuple) return new PyTuple(picked)
  return value instanceof PyRange ? new PyRange(value.start + from * value.step, value.start + to * value.step, value.step * by, picked as number[]) : new PyList(picked)
}

function sliceBound(bound: PyValue): number {
  if (typeof bound === 'number') return bound
  if (typeof bound === 'boolean') return Number(bound)
  throw failure(bound instanceof PyUndefined ? bound.message : 'slice indices must be integers or None')
}

/** One of `+ - * / // % **`. Errors: types that do not go together, division by zero. */
export function arithmetic(operator: string, a: PyValue, b: PyValue): PyValue {
  refuseUndefined(a, b)
  if (operator === '%' && typeof a === 'string') return percentFormat(a, b)
  const left = numeric(a)
  const right = numeric(b)
  if (left !== null && right !== null) {
    return a instanceof PyFloat || b instanceof PyFloat ? floatArithmetic(operator, Number(left), Number(right)) : intArithmetic(operator, BigInt(left), BigInt(right))
  }
  if (operator === '+') {
    if (typeof a === 'string' && typeof b === 'string') return a + b
    if (a instanceof PyList && b instanceof PyList) return new PyList([...a.items, ...b.items])
    if (a instanceof PyTuple && b instanceof PyTuple) return new PyTuple([...a.items, ...b.items])
    if (typeof a === 'string') throw failure(`can only concatenate str (not "${typeName(b)}") to str`)
  }
  if (operator === '*') {
    const [sequence, count] = isSequence(a) ? [a, right] : [b, left]
    if (isSequence(sequence) && count !== null && !(a instanceof PyFloat) && !(b instanceof PyFloat)) return repeat(sequence, Number(count))
  }
  throw failure(`unsupported operand type(s) for ${operator}: '${typeName(a)}' and '${typeName(b)}'`)
}

const isSequence = (value: PyValue): value is string | PyList | PyTuple => typeof value === 'string' || value instanceof PyList || value instanceof PyTuple

/** Longest text or list that a repetition makes. */
const REPEAT_LENGTH_MAX = 1_000_000

function repeat(sequence: string | PyList | PyTuple, count: number): PyValue {
  const times = Math.max(0, count)
  const length = typeof sequence === 'string' ? sequence.length : sequence.items.length
  if (length * times > REPEAT_LENGTH_MAX) throw failure(`a repetition makes more than ${REPEAT_LENGTH_MAX} items`)
  if (typeof sequence === 'string') return sequence.repeat(times)
  const items = Array.from({ length: times }, () => sequence.items).flat()
  return sequence instanceof PyList ? new PyList(items) : new PyTuple(items)
}

function floatArithmetic(operator: string, a: number, b: number): PyValue {
  if (b === 0 && (operator === '/' || operator === '//' || operator === '%')) throw failure('float division by zero')
  switch (operator) {
    case '+':
      return new PyFloat(a + b)
    case '-':
      return new PyFloat(a - b)
    case '*':
      return new PyFloat(a * b)
    case '/':
      return new PyFloat(a / b)
    case '//':
      return new PyFloat(Math.floor((a - floatModulo(a, b)) / b + 0.5))
    case '%':
      return new PyFloat(floatModulo(a, b))
    default: {
      const power = a ** b
      if (Number.isNaN(power) && !Number.isNaN(a) && !Number.isNaN(b)) throw failure('a power that is not a real number')
      return new PyFloat(power)
    }
  }
}

function floatModulo(a: number, b: number): number {
  const rest = a % b
  return rest !== 0 && rest < 0 !== b < 0 ? rest + b : rest
}

const POWER_BITS_MAX = 4_096

function intArithmetic(operator: string, a: bigint, b: bigint): PyValue {
  if (b === 0n && (operator === '/' || operator === '//' || operator === '%')) throw failure('division by zero')
  switch (operator) {
    case '+':
      return pyInt(a + b)
    case '-':
      return pyInt(a - b)
    case '*':
      return pyInt(a * b)
    case '/':
      return new PyFloat(Number(a) / Number(b))
    case '//': {
      const quotient = a / b
      return pyInt(a % b !== 0n && a < 0n !== b < 0n ? quotient - 1n : quotient)
    }
    case '%': {
      const rest = a % b
      return pyInt(rest !== 0n && rest < 0n !== b < 0n ? rest + b : rest)
    }
    default:
      if (b < 0n) return new PyFloat(Number(a) ** Number(b))
      if (BigInt(a.toString(2).length) * b > BigInt(POWER_BITS_MAX)) throw failure(`a power of more than ${POWER_BITS_MAX} bits`)
      return pyInt(a ** b)
  }
}

/** `-value` and `+value`. */
export function signed(operator: string, value: PyValue): PyValue {
  refuseUndefined(value)
  const number = numeric(value)
  if (number === null) throw failure(`bad operand type for unary ${operator}: '${typeName(value)}'`)
  if (value instanceof PyFloat) return operator === '-' ? new PyFloat(-value.value) : value
  return pyInt(operator === '-' ? -BigInt(number) : BigInt(number))
}

/** A message that shows a value. */
export const shown = (value: PyValue): string => (typeof value === 'string' ? pyRepr(value) : pyStr(value))
