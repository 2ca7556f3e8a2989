/** Typed reading of a request body: every mistake is a 400 that names field, value and mend. */
import type { Json, JsonObject } from '../ports.ts'
import { invalidField } from './api-error.ts'

export interface NumberRange {
  readonly min?: number
  readonly max?: number
  /** `min` itself is outside. */
  readonly above?: boolean
}

export const u32Max = 4_294_967_295
const shownLengthMax = 60

/** A value as it may stand in a message: short. */
export function shown(value: Json | undefined): string {
  if (value === undefined) return 'nothing'
  if (Array.isArray(value)) return `a list of ${value.length}`
  if (value !== null && typeof value === 'object') return 'an object'
  const text = typeof value === 'string' ? JSON.stringify(value) : String(value)
  return text.length > shownLengthMax ? `${text.slice(0, shownLengthMax)}…` : text
}

export const isJsonObject = (value: Json | undefined): value is JsonObject =>
  value !== null && typeof value === 'object' && !Array.isArray(value)

export const isJsonList = (value: Json | undefined): value is readonly Json[] => Array.isArray(value)

/** The members of one JSON object. `null` counts as absent. */
export class Fields {
  readonly object: JsonObject
  readonly #path: string

  /** `path`: where the object stands in the body, '' for the body itself. */
  constructor(object: JsonObject, path = '') {
    this.object = object
    this.#path = path
  }

  name(field: string): string {
    return this.#path === '' ? field : `${this.#path}.${field}`
  }

  get(field: string): Json | undefined {
    return Object.hasOwn(this.object, field) ? (this.object[field] ?? undefined) : undefined
  }

  boolean(field: string): boolean | undefined {
    const value = this.get(field)
    if (value === undefined || typeof value === 'boolean') return value
    throw this.wrong(field, 'must be true or false', value)
  }

  text(field: string): string | undefined {
    const value = this.get(field)
    if (value === undefined || typeof value === 'string') return value
    throw this.wrong(field, 'must be a string', value)
  }

  number(field: string, range: NumberRange = {}): number | undefined {
    const value = this.get(field)
    if (value === undefined) return undefined
    if (typeof value !== 'number') throw this.wrong(field, 'must be a number', value)
    this.#checkRange(field, value, range)
    return value
  }

  /** A number that the worker's side holds in 32 bits: rounded here, so that both see the same. */
  float32(field: string, range: NumberRange = {}): number | undefined {
    const value = this.number(field, range)
    return value === undefined ? undefined : Math.fround(value)
  }

  integer(field: string, range: NumberRange = {}): number | undefined {
    const value = this.get(field)
    if (value === undefined) return undefined
    if (typeof value !== 'number' || !Number.isInteger(value)) throw this.wrong(field, 'must be an integer', value)
    this.#checkRange(field, value, range)
    return value
  }

  /** An integer of 64 bits, kept exact. */
  wide(field: string, min: bigint, max: bigint): number | bigint | undefined {
    const value = this.get(field)
    if (value === undefined) return undefined
    if (typeof value !== 'bigint' && !(typeof value === 'number' && Number.isInteger(value))) throw this.wrong(field, 'must be an integer', value)
    const exact = BigInt(value)
    if (exact < min || exact > max) throw this.wrong(field, `must be between ${min} and ${max}`, value)
    return value
  }

  group(field: string): Fields | undefined {
    const value = this.get(field)
    if (value === undefined) return undefined
    if (!isJsonObject(value)) throw this.wrong(field, 'must be an object', value)
    return new Fields(value, this.name(field))
  }

  list(field: string): readonly Json[] | undefined {
    const value = this.get(field)
    if (value === undefined || isJsonList(value)) return value
    throw this.wrong(field, 'must be a list', value)
  }

  texts(field: string): readonly string[] | undefined {
    const values = this.list(field)
    values?.forEach((value, index) => {
      if (typeof value !== 'string') throw this.wrong(`${field}[${index}]`, 'must be a string', value)
    })
    return values as readonly string[] | undefined
  }

  /** Token ids: u32, below `vocabularySize` when given. */
  tokenIds(field: string, vocabularySize = u32Max): readonly number[] | undefined {
    const values = this.list(field)
    if (values !== undefined) checkTokenIds(values, this.name(field), vocabularySize)
    return values as readonly number[] | undefined
  }

  wrong(field: string, rule: string, value: Json | undefined): Error {
    const name = this.name(field)
    return invalidField(name, `\`${name}\` ${rule}, got ${shown(value)}`)
  }

  #checkRange(field: string, value: number, { min = -Infinity, max = Infinity, above = false }: NumberRange): void {
    if (value <= max && (above ? value > min : value >= min)) return
    const rule = max === Infinity
      ? `must be ${above ? 'greater than' : 'at least'} ${min}`
      : `must be between ${min} and ${max}${above ? ` (${min} excluded)` : ''}`
    throw this.wrong(field, rule, value)
  }
}

/** Errors: the first value that is not an id of the vocabulary. */
export function checkTokenIds(values: readonly Json[], name: string, vocabularySize: number): void {
  for (let index = 0; index < values.length; index += 1) {
    const value = values[index]
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < vocabularySize) continue
    throw invalidField(`${name}[${index}]`, `\`${name}[${index}]\` must be a token id from 0 to ${vocabularySize - 1}, got ${shown(value)}`)
  }
}
