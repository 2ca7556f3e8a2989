/** Values that a model writes as plain text, given the type that the tool's schema asks for. */
import { compactJson, isJson } from './json-text.ts'
import type { ToolDefinition } from './output-parser.ts'
import { pythonLiteral } from './python-literal.ts'

type Schema = { readonly [key: string]: unknown }

const isObject = (value: unknown): value is Schema => typeof value === 'object' && value !== null && !Array.isArray(value)

/** Schema of one parameter; undefined when the tool or the parameter is unknown. */
export function parameterSchema(tools: readonly ToolDefinition[], tool: string, parameter: string): Schema | undefined {
  const parameters = tools.find(({ name }) => name === tool)?.parameters
  const properties = isObject(parameters) ? parameters['properties'] : undefined
  const schema = isObject(properties) ? properties[parameter] : undefined
  return isObject(schema) ? schema : undefined
}

/** The type that a schema names first; of alternatives the first that is not null. */
function typeOf(schema: Schema | undefined): string | undefined {
  if (schema === undefined) return undefined
  const { type } = schema
  if (typeof type === 'string') return type.toLowerCase()
  if (Array.isArray(type)) return type.find((each): each is string => typeof each === 'string' && each !== 'null')?.toLowerCase()
  for (const name of ['anyOf', 'oneOf']) {
    const choices = schema[name]
    if (Array.isArray(choices)) {
      const found = choices.map((choice) => (isObject(choice) ? typeOf(choice) : undefined)).find((each) => each !== undefined && each !== 'null')
      if (found !== undefined) return found
    }
  }
  return undefined
}

const text = (value: string): string => JSON.stringify(value)

/** The JSON text of a value. A value that is not of its type stays text. `keepsFractions`: `1.0` stays as it is written. */
export function typedValue(value: string, schema: Schema | undefined, keepsFractions = false): string {
  const trimmed = value.trim()
  if (trimmed.toLowerCase() === 'null') return 'null'
  const type = typeOf(schema)
  if (type === undefined || ['string', 'str', 'text', 'enum'].includes(type)) return text(value)
  if (/^(?:int|uint|long|short|unsigned)/.test(type)) return /^[+-]?\d+$/.test(trimmed) ? trimmed.replace(/^\+/, '').replace(/^(-?)0+(?=\d)/, '$1') : text(value)
  if (/^(?:num|float|double)/.test(type)) return (keepsFractions && isJson(trimmed) ? trimmed : numberText(trimmed)) ?? text(value)
  if (type.startsWith('bool')) return trimmed.toLowerCase() === 'true' ? 'true' : 'false'
  if (isJson(trimmed)) return compactJson(trimmed)
  return pythonLiteral(trimmed) ?? text(value)
}

/** A whole number without its fraction. */
function numberText(value: string): string | null {
  if (!/^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/.test(value)) return null
  const number = Number(value)
  if (/^[+-]?\d+$/.test(value)) return value.replace(/^\+/, '')
  return Number.isFinite(number) ? String(number) : null
}

/** A JSON object of members that are JSON texts already; a name that comes again replaces its value. */
export function objectText(members: Iterable<readonly [string, string]>): string {
  const last = new Map(members)
  return `{${[...last].map(([name, value]) => `${text(name)}:${value}`).join(',')}}`
}
