/** Reads one value as a flag, a variable or a YAML file gives it, and checks its range. Every error names place, value and mend. */
import type { Option, OptionValue } from './option.ts'
import { UsageError, didYouMean, shown } from './usage-error.ts'

const trueWords = new Set(['true', '1', 'yes', 'on'])
const falseWords = new Set(['false', '0', 'no', 'off', ''])
const integerText = /^[+-]?\d+(?:_\d+)*$/
const numberText = /^[+-]?(?:\d+(?:_\d+)*\.?(?:\d+(?:_\d+)*)?|\.\d+(?:_\d+)*)(?:[eE][+-]?\d+)?$/
const endpointPart = /^[A-Za-z0-9_-]+$/

/** What a value must look like, for errors and pages. */
export function expectation(option: Option): string {
  if (option.choices !== null) return `one of ${option.choices.join(option.choices.some((choice) => choice.includes(',')) ? ' | ' : ', ')}`
  const range = rangeText(option)
  if (option.type === 'boolean') return 'true or false'
  if (option.type === 'integer') return `a whole number${range}`
  if (option.type === 'number') return `a finite number${range}`
  if (option.type === 'endpoint') return 'namespace.component.endpoint, such as dynamo.backend.generate'
  if (option.type === 'path') return 'the path of a file'
  return typeof option.default === 'string' && option.default !== '' ? 'a text that is not empty' : 'a text'
}

function rangeText({ minimum, maximum, unit }: Option): string {
  const of = unit === null ? '' : ` of ${unit}`
  if (minimum !== null && maximum !== null) return `${of} from ${minimum} to ${maximum}`
  if (minimum !== null) return `${of}, ${minimum} or more`
  return maximum === null ? of : `${of}, at most ${maximum}`
}

const reject = (option: Option, place: string, raw: unknown): UsageError =>
  new UsageError(`${place}: ${option.isSecret ? 'the value' : shown(raw)} is not valid; expected ${expectation(option)}`)

/** A value from text: a flag's argument or a variable. */
export function valueFromText(option: Option, text: string, place: string): OptionValue {
  const trimmed = text.trim()
  if (option.isNullable && (trimmed === '' || trimmed === 'None')) return option.default
  switch (option.type) {
    case 'boolean': {
      const word = trimmed.toLowerCase()
      if (trueWords.has(word)) return true
      if (falseWords.has(word)) return false
      throw new UsageError(`${place}: ${shown(text)} is not valid; use true, 1, yes, on or false, 0, no, off`)
    }
    case 'integer':
      if (!integerText.test(trimmed)) throw reject(option, place, text)
      return checked(option, Number(trimmed.replaceAll('_', '')), place, text)
    case 'number':
      if (!numberText.test(trimmed)) throw reject(option, place, text)
      return checked(option, Number(trimmed.replaceAll('_', '')), place, text)
    default:
      return checkedText(option, text, place)
  }
}

/** A value from a YAML document. Null means the default. */
export function valueFromYaml(option: Option, raw: unknown, place: string): OptionValue {
  if (raw === null || raw === undefined) return option.default
  if (option.type === 'boolean') {
    if (typeof raw === 'boolean') return raw
    throw reject(option, place, raw)
  }
  if (option.type === 'integer' || option.type === 'number') {
    if (typeof raw === 'string' && option.isNullable) return valueFromText(option, raw, place)
    if (typeof raw !== 'number') throw reject(option, place, raw)
    return checked(option, raw, place, raw)
  }
  if (typeof raw !== 'string') throw reject(option, place, raw)
  return checkedText(option, raw, place)
}

function checked(option: Option, value: number, place: string, raw: unknown): number {
  const isWhole = option.type !== 'integer' || Number.isSafeInteger(value)
  const isLow = option.minimum !== null && value < option.minimum
  const isHigh = option.maximum !== null && value > option.maximum
  if (!Number.isFinite(value) || !isWhole || isLow || isHigh) throw reject(option, place, raw)
  return value
}

function checkedText(option: Option, text: string, place: string): string {
  if (option.choices !== null) {
    const wanted = option.choiceAliases[text.trim().toLowerCase()] ?? text.trim().toLowerCase()
    if (option.choices.includes(wanted)) return wanted
    throw new UsageError(`${place}: ${shown(text)} is not valid${didYouMean(wanted, option.choices)}; expected ${expectation(option)}`)
  }
  if (option.type === 'endpoint') {
    const path = text.trim().replace(/^dyn:\/\//, '')
    const parts = path.split('.')
    if (parts.length !== 3 || !parts.every((part) => endpointPart.test(part))) throw reject(option, place, text)
    return path
  }
  // An empty path names nothing, and an empty address or name would silently be another one.
  if (text.trim() === '' && (option.type === 'path' || (typeof option.default === 'string' && option.default !== ''))) throw reject(option, place, text)
  return text
}
