/** Fields of a request that may be absent or null, and the error that names the one that is something else. */
import { FailureError } from '../../model/failure.ts'
import type { MsgpackValue } from '../../msgpack/cursor.ts'

type Value = MsgpackValue
export type ValueMap = { readonly [key: string]: Value }

/** The caller's mistake. */
export function invalid(message: string): FailureError {
  return new FailureError({ class: 'InvalidRequest', reason: 'request.invalid_argument', message })
}

/** What a value is, in words for an error. */
export const kindOf = (value: Value | undefined): string => {
  if (value === null || value === undefined) return 'null'
  if (Array.isArray(value)) return 'an array'
  if (value instanceof Uint8Array) return 'bytes'
  if (typeof value === 'string') return value.length <= 40 ? JSON.stringify(value) : 'a string'
  if (typeof value === 'object') return 'a map'
  return typeof value === 'bigint' || typeof value === 'number' ? `${value}` : typeof value
}

export const isMap = (value: Value | undefined): value is ValueMap =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array)

export function mapOrAbsent(value: Value | undefined, field: string): ValueMap | undefined {
  if (value === undefined || value === null) return undefined
  if (!isMap(value)) throw invalid(`\`${field}\` is ${kindOf(value)}, expected a map`)
  return value
}

export function u64OrAbsent(value: Value | undefined, field: string): bigint | undefined {
  if (value === undefined || value === null) return undefined
  if ((typeof value !== 'bigint' && !(typeof value === 'number' && Number.isInteger(value))) || value < 0 || value > 0xffffffffffffffffn) {
    throw invalid(`\`${field}\` is ${kindOf(value)}, expected an integer in 0..2^64-1`)
  }
  return BigInt(value)
}

export function u32OrAbsent(value: Value | undefined, field: string): number | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > 0xffffffff) {
    throw invalid(`\`${field}\` is ${kindOf(value)}, expected an integer in 0..2^32-1`)
  }
  return value
}

export function numberOrAbsent(value: Value | undefined, field: string): number | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'number') throw invalid(`\`${field}\` is ${kindOf(value)}, expected a number`)
  return value
}

export function booleanOrAbsent(value: Value | undefined, field: string): boolean | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'boolean') throw invalid(`\`${field}\` is ${kindOf(value)}, expected true or false`)
  return value
}

export function stringOrAbsent(value: Value | undefined, field: string): string | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'string') throw invalid(`\`${field}\` is ${kindOf(value)}, expected a string`)
  return value
}

export function arrayOrAbsent(value: Value | undefined, field: string): readonly Value[] | undefined {
  if (value === undefined || value === null) return undefined
  if (!Array.isArray(value)) throw invalid(`\`${field}\` is ${kindOf(value)}, expected an array`)
  return value as readonly Value[]
}
