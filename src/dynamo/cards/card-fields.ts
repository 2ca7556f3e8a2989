/** Typed reading of a card's JSON: absent and null are the same, anything else must have its type. */
import type { Json, JsonObject } from '../../ports.ts'
import { isObject } from '../wire/json.ts'
import { CardError } from './card-error.ts'

const maxU32 = 0xffff_ffff

/** One JSON object of a card and where it stands in it. */
export class CardFields {
  readonly #path: string
  readonly #object: JsonObject
  constructor(object: JsonObject, path: string) {
    this.#object = object
    this.#path = path
  }

  has(name: string): boolean {
    return this.raw(name) !== null
  }

  raw(name: string): Json {
    return this.#object[name] ?? null
  }

  text(name: string): string | null {
    const value = this.raw(name)
    if (value === null || typeof value === 'string') return value
    throw this.#bad(name, 'a string')
  }

  requiredText(name: string): string {
    const value = this.text(name)
    if (value === null || value === '') throw this.#bad(name, 'a string that is not empty')
    return value
  }

  flag(name: string): boolean | null {
    const value = this.raw(name)
    if (value === null || typeof value === 'boolean') return value
    throw this.#bad(name, 'true or false')
  }

  /** An integer in [0, max]; `max` is 2^32 - 1 when left out. */
  count(name: string, max: number = maxU32): number | null {
    const value = this.raw(name)
    if (value === null) return null
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= max) return value
    throw this.#bad(name, `an integer between 0 and ${max}`)
  }

  finite(name: string): number | null {
    const value = this.raw(name)
    if (value === null) return null
    if (typeof value === 'number' && Number.isFinite(value)) return value
    throw this.#bad(name, 'a finite number')
  }

  texts(name: string): readonly string[] {
    const value = this.raw(name)
    if (value === null) return []
    if (Array.isArray(value) && value.every((item): item is string => typeof item === 'string')) return value
    throw this.#bad(name, 'a list of strings')
  }

  textMap(name: string): ReadonlyMap<string, string> {
    const value = this.raw(name)
    if (value === null) return new Map()
    if (!isObject(value)) throw this.#bad(name, 'an object of strings')
    const map = new Map<string, string>()
    for (const [key, item] of Object.entries(value)) {
      if (typeof item !== 'string') throw this.#bad(`${name}.${key}`, 'a string', item)
      map.set(key, item)
    }
    return map
  }

  /** A nested object; an absent one is empty. */
  child(name: string): CardFields {
    const value = this.raw(name)
    if (value === null) return new CardFields({}, `${this.#path}${name}.`)
    if (isObject(value)) return new CardFields(value as JsonObject, `${this.#path}${name}.`)
    throw this.#bad(name, 'an object')
  }

  oneOf<T extends string>(name: string, allowed: readonly T[]): T | null {
    const value = this.text(name)
    if (value === null) return null
    const found = allowed.find((item) => item === value)
    if (found === undefined) throw this.#bad(name, `one of ${allowed.join(', ')}`)
    return found
  }

  /** An error about a field of this object. */
  bad(name: string, expected: string): CardError {
    return this.#bad(name, expected)
  }

  #bad(name: string, expected: string, value: unknown = this.#object[name]): CardError {
    return new CardError(`${this.#path}${name}`, value, expected)
  }
}
