/** `'%s and %d' % (a, b)`. */
import { pyRepr, pyStr, reprFloat } from './printing.ts'
import { codePoints, failure, isInt, PyDict, PyFloat, PyList, PyRange, PyTuple, PyUndefined, type PyValue, typeName } from './values.ts'

const FIELD = /%(?:\(([^)]*)\))?([-+ #0]*)(\*|\d+)?(?:\.(\*|\d+))?[hlL]?(.?)/gsu

/** Errors: too few or too many arguments, a conversion that is not supported. */
export function percentFormat(format: string, argument: PyValue): string {
  const list = argument instanceof PyTuple ? argument.items : [argument]
  let used = 0
  let named = false
  const next = (): PyValue => {
    if (used >= list.length) throw failure('not enough arguments for format string')
    return list[used++] as PyValue
  }
  const text = format.replace(FIELD, (_whole, name: string | undefined, flags: string, width: string | undefined, precision: string | undefined, conversion: string) => {
    if (conversion === '%') return '%'
    if (width === '*' || precision === '*') throw failure('"*" in a format string is not supported')
    let value: PyValue
    if (name === undefined) value = next()
    else {
      if (!(argument instanceof PyDict)) throw failure('format requires a mapping')
      named = true
      const found = argument.get(name)
      if (found === undefined) throw failure(`KeyError: ${pyRepr(name)}`)
      value = found
    }
    return pad(convert(value, conversion, flags, precision === undefined ? null : Number(precision)), flags, Number(width ?? 0), conversion)
  })
  // Whatever has subscripts may be a mapping to Python; only others must be used up.
  const subscriptable = argument instanceof PyDict || argument instanceof PyList || argument instanceof PyRange || argument instanceof PyUndefined
  if (!named && used < list.length && !subscriptable) throw failure('not all arguments converted during string formatting')
  return text
}

function convert(value: PyValue, conversion: string, flags: string, precision: number | null): string {
  switch (conversion) {
    case 's':
    case 'r': {
      const text = conversion === 's' ? pyStr(value) : pyRepr(value)
      return precision === null ? text : [...text].slice(0, precision).join('')
    }
    case 'd':
    case 'i':
    case 'u':
      return sign(String(integer(value)), flags)
    case 'x':
      return sign(integer(value).toString(16), flags)
    case 'X':
      return sign(integer(value).toString(16).toUpperCase(), flags)
    case 'o':
      return sign(integer(value).toString(8), flags)
    case 'f':
    case 'F':
      return sign(fixed(real(value), precision ?? 6), flags)
    case 'e': {
      const [mantissa, exponent] = real(value).toExponential(precision ?? 6).split('e') as [string, string]
      return sign(`${mantissa}e${exponent.slice(0, 1)}${exponent.slice(1).padStart(2, '0')}`, flags)
    }
    case 'c':
      return isInt(value) ? String.fromCodePoint(Number(value)) : pyStr(value)
    default:
      throw failure(`the conversion "%${conversion}" is not supported`)
  }
}

function integer(value: PyValue): bigint {
  if (typeof value === 'boolean') return value ? 1n : 0n
  if (isInt(value)) return BigInt(value)
  if (value instanceof PyFloat && Number.isFinite(value.value)) return BigInt(Math.trunc(value.value))
  throw failure(value instanceof PyUndefined ? value.message : `%d format: a real number is required, not ${typeName(value)}`)
}

function real(value: PyValue): number {
  if (value instanceof PyFloat) return value.value
  if (typeof value === 'boolean' || isInt(value)) return Number(value)
  throw failure(value instanceof PyUndefined ? value.message : `must be real number, not ${typeName(value)}`)
}

const sign = (text: string, flags: string): string => (text.startsWith('-') ? text : flags.includes('+') ? `+${text}` : flags.includes(' ') ? ` ${text}` : text)

function pad(text: string, flags: string, width: number, conversion: string): string {
  const missing = width - codePoints(text).length
  if (missing <= 0) return text
  if (flags.includes('-')) return text + ' '.repeat(missing)
  if (!flags.includes('0') || 'src'.includes(conversion)) return ' '.repeat(missing) + text
  const signed = /^[-+ ]/.test(text)
  return (signed ? text.slice(0, 1) : '') + '0'.repeat(missing) + (signed ? text.slice(1) : text)
}

/** Digits after the point, exact halves to the even neighbour as Python rounds them. */
export function fixed(value: number, digits: number): string {
  if (!Number.isFinite(value)) return reprFloat(value)
  if (digits > 60 || Math.abs(value) >= 1e21) throw failure('a number is too large for this format')
  const text = value.toFixed(digits)
  const exact = Math.abs(value).toFixed(Math.min(100, digits + 40))
  const point = exact.indexOf('.')
  const tail = exact.slice(point + 1 + digits)
  if (!/^50*$/.test(tail)) return text
  // A tie: toFixed goes away from zero.
  const down = exact.slice(0, digits === 0 ? point : point + 1 + digits)
  return Number(down.at(-1)) % 2 === 0 ? `${value < 0 ? '-' : ''}${down}` : text
}
