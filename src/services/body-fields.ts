/** Fields of JSON bodies, checked: what is wrong is told by name, value and mend. */
import { hashListOf, type HashList } from '../model/hash-list.ts'
import type { JsonObject } from '../ports.ts'

/** A body that does not fit; `status` is that of the answer. */
export class BodyError extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.name = 'BodyError'
    this.status = status
  }
}

const u64Max = (1n << 64n) - 1n
const i64Min = -(1n << 63n)
const i64Max = (1n << 63n) - 1n
const u32Max = 0xffff_ffff

const wrong = (field: string, value: unknown, expected: string): BodyError =>
  new BodyError(422, value === undefined ? `${field} is missing; expected ${expected}` : `${field}: ${shown(value)} is not valid; expected ${expected}`)

function shown(value: unknown): string {
  if (typeof value === 'bigint') return clipped(String(value))
  const text = JSON.stringify(value, (_key, item: unknown) => (typeof item === 'bigint' ? String(item) : item)) ?? 'undefined'
  return clipped(text)
}

const clipped = (text: string): string => (text.length > 60 ? `${text.slice(0, 60)}…` : text)

/** Errors: `BodyError`. */
export function objectOf(value: unknown, field: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(field, value, 'a JSON object')
  return value as JsonObject
}

export function u64Of(value: unknown, field: string): bigint {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return BigInt(value)
  if (typeof value === 'bigint' && value >= 0n && value <= u64Max) return value
  throw wrong(field, value, 'an unsigned 64-bit integer')
}

export function u32Of(value: unknown, field: string): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= u32Max) return value
  throw wrong(field, value, 'a whole number from 0 to 4294967295')
}

const f32Max = 2 ** 128 - 2 ** 104

/** A number as a 32-bit float has it; beyond its range, the largest one. */
export const f32Of = (value: unknown, field: string): number => Math.fround(Math.max(-f32Max, Math.min(f32Max, numberOf(value, field))))

/** A count that has to be exact in a double. */
export function countOf(value: unknown, field: string): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
  throw wrong(field, value, 'a whole number from 0 to 9007199254740991')
}

export function numberOf(value: unknown, field: string): number {
  if (typeof value === 'number' && Number.isFinite(value)) return value
  if (typeof value === 'bigint') return Number(value)
  throw wrong(field, value, 'a number')
}

/** Longest name, id or address: what is kept of a caller's words is bounded by their number. */
const textLengthMax = 4096

export function textOf(value: unknown, field: string): string {
  if (typeof value === 'string' && value.length <= textLengthMax) return value
  throw wrong(field, value, typeof value === 'string' ? `text of at most ${textLengthMax} characters` : 'text')
}

/** Text of any length, which is not kept. */
export function passingTextOf(value: unknown, field: string): string {
  if (typeof value === 'string') return value
  throw wrong(field, value, 'text')
}

export function booleanOf(value: unknown, field: string): boolean {
  if (typeof value === 'boolean') return value
  throw wrong(field, value, 'true or false')
}

export function listOf(value: unknown, field: string): readonly unknown[] {
  if (Array.isArray(value)) return value
  throw wrong(field, value, 'a list')
}

export function tokensOf(value: unknown, field: string): Uint32Array {
  const items = listOf(value, field)
  const tokens = new Uint32Array(items.length)
  for (let index = 0; index < items.length; index++) {
    const item = items[index]
    if (typeof item !== 'number' || item < 0 || item > u32Max || !Number.isInteger(item)) throw wrong(`${field}[${index}]`, item, 'a token id from 0 to 4294967295')
    tokens[index] = item
  }
  return tokens
}

/** Signed 64-bit integers, as hashes are written in JSON here. */
export function hashesOf(value: unknown, field: string): HashList {
  return hashListOf(listOf(value, field).map((item, index) => {
    if (typeof item === 'number' && Number.isSafeInteger(item)) return BigInt(item)
    if (typeof item === 'bigint' && item >= i64Min && item <= i64Max) return item
    throw wrong(`${field}[${index}]`, item, 'a signed 64-bit integer')
  }))
}

export const textListOf = (value: unknown, field: string): string[] => listOf(value, field).map((item, index) => textOf(item, `${field}[${index}]`))

export function textMapOf(value: unknown, field: string): Map<string, string> {
  return new Map(Object.entries(objectOf(value, field)).map(([key, item]) => [key, textOf(item, `${field}.${clipped(key)}`)]))
}

/** A mapping of ranks to text: `{"0": "tcp://…"}`. */
export function rankMapOf(value: unknown, field: string): Map<number, string> {
  return new Map(Object.entries(objectOf(value, field)).map(([key, item]) => {
    if (!/^\d{1,10}$/.test(key) || Number(key) > u32Max) throw wrong(`${field}: its key`, key, 'a rank')
    return [Number(key), textOf(item, `${field}.${key}`)]
  }))
}

export function choiceOf<Choice extends string>(choices: readonly Choice[]): (value: unknown, field: string) => Choice {
  return (value, field) => {
    if ((choices as readonly unknown[]).includes(value)) return value as Choice
    throw wrong(field, value, choices.join(', '))
  }
}

type Reader<Value> = (value: unknown, field: string) => Value

/** How a field is named in errors. `inside`: the field that holds its object; empty: none. */
const named = (field: string, inside: string): string => (inside === '' ? field : `${inside}.${field}`)

/** A field that must be there. */
export const required = <Value>(body: JsonObject, field: string, read: Reader<Value>, inside = ''): Value => read(body[field], named(field, inside))

/** A field that may be left out or null. */
export const maybe = <Value>(body: JsonObject, field: string, read: Reader<Value>, inside = ''): Value | null =>
  body[field] === undefined || body[field] === null ? null : read(body[field], named(field, inside))

/** A field that may be left out, but not null. */
export const withDefault = <Value>(body: JsonObject, field: string, read: Reader<Value>, value: Value, inside = ''): Value =>
  body[field] === undefined ? value : read(body[field], named(field, inside))
