/** `'{} and {name}'.format(...)`: plain fields with width, alignment and the usual types; attributes and indexes are not supported. */
import { pyRepr, pyStr } from './printing.ts'
import { percentFormat } from './percent-format.ts'
import { codePoints, failure, isInt, type PyArguments, PyFloat, type PyValue } from './values.ts'

const FIELD = /\{\{|\}\}|\{([^{}]*)\}|[{}]/g
const SPEC = /^(?:(.)?([<>^]))?([-+ ])?(0)?(\d+)?(?:\.(\d+))?([sdfxXo]?)$/su

/** Errors: missing arguments, a field that is not supported. */
export function formatBraces(format: string, args: PyArguments): string {
  let automatic = 0
  return format.replace(FIELD, (whole, field: string | undefined) => {
    if (whole === '{{') return '{'
    if (whole === '}}') return '}'
    if (field === undefined) throw failure("Single '{' or '}' encountered in format string")
    const [, name, conversion, spec] = /^([^!:]*)(?:!([^:]*))?(?::(.*))?$/s.exec(field) as unknown as [string, string, string | undefined, string | undefined]
    if (/[.[]/.test(name)) throw failure(`the format field "{${field}}" is not supported`)
    const value = /^\d*$/.test(name) ? args.positional[name === '' ? automatic++ : Number(name)] : args.named.get(name)
    if (value === undefined) throw failure(`the format field "{${field}}" has no argument`)
    if (conversion !== undefined && conversion !== 's' && conversion !== 'r') throw failure(`the conversion "!${conversion}" is not supported`)
    return formatValue(conversion === undefined ? value : conversion === 'r' ? pyRepr(value) : pyStr(value), spec ?? '', field)
  })
}

function formatValue(value: PyValue, spec: string, field: string): string {
  if (spec === '') return pyStr(value)
  const parts = SPEC.exec(spec)
  if (parts === null) throw failure(`the format field "{${field}}" is not supported`)
  const [, fill, align, sign, zero, width, precision, type] = parts
  const number = isInt(value) || value instanceof PyFloat
  if (number && type === '' && value instanceof PyFloat) throw failure(`the format field "{${field}}" is not supported for a float; name a type`)
  const conversion = type === '' ? (number ? 'd' : 's') : (type as string)
  if (!number && conversion !== 's') throw failure(`Unknown format code '${conversion}' for a str`)
  const text = percentFormat(`%${sign ?? ''}${precision === undefined ? '' : `.${precision}`}${conversion}`, value)
  const missing = Number(width ?? 0) - codePoints(text).length
  if (missing <= 0) return text
  if (align === undefined && zero !== undefined && number) {
    const signed = /^[-+ ]/.test(text)
    return (signed ? text.slice(0, 1) : '') + '0'.repeat(missing) + (signed ? text.slice(1) : text)
  }
  const side = align ?? (number ? '>' : '<')
  const left = side === '<' ? 0 : side === '>' ? missing : Math.floor(missing / 2)
  return (fill ?? ' ').repeat(left) + text + (fill ?? ' ').repeat(missing - left)
}
