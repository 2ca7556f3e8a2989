/**
 * Dynamo's error JSON and failures, both ways; and what an exception of a handler becomes on the wire.
 *
 * `class` with `reason` is the identity; `error_type` is the older form, written for older readers and read from older writers.
 * Source: Dynamo 1.6.1 `DynamoError`.
 */
import { FailureError, failureReasons, type Failure, type FailureClass, type FailureReason, type PublicDetail } from '../../model/failure.ts'
import type { WireObject } from './body.ts'
import { isObject } from './json.ts'

/** Bytes of a message at most; longer ones are cut. */
export const diagnosticBytesMax = 4096

const truncation = '...[truncated]'
const causesMax = 16

const classByReason: ReadonlyMap<string, FailureClass> = new Map(
  (Object.entries(failureReasons) as [FailureClass, readonly FailureReason[]][]).flatMap(([name, reasons]) => reasons.map((reason) => [reason, name] as const)),
)

/** The default reason of every name that `class` or `error_type` may have: canonical classes and older ones. */
const reasonByName: ReadonlyMap<string, FailureReason> = new Map<string, FailureReason>([
  ['Unknown', 'runtime.unclassified'],
  ['InvalidArgument', 'request.invalid_argument'],
  ['CannotConnect', 'transport.cannot_connect'],
  ['Disconnected', 'transport.disconnected'],
  ['ConnectionTimeout', 'transport.connection_timeout'],
  ['ResponseTimeout', 'backend.response_timeout'],
  ['ResourceExhausted', 'capacity.pool_exhausted'],
  ['WorkerOverloaded', 'capacity.worker_overloaded'],
  ['WorkerUnavailable', 'backend.worker_unavailable'],
  ['Internal', 'runtime.internal'],
  ...(['InvalidRequest', 'Unavailable', 'DeadlineExceeded', 'Cancelled', 'CapacityExhausted', 'BackendProtocol', 'Unauthenticated', 'PermissionDenied',
    'NotFound', 'Conflict', 'PayloadTooLarge', 'UnsupportedMedia', 'RateLimited', 'NotImplemented'] as const)
    .map((name) => [name, failureReasons[name][0]] as const),
])

/** `error_type: {"Backend": NAME}` and its reason. */
const reasonByBackendName: ReadonlyMap<string, FailureReason> = new Map<string, FailureReason>([
  ['Unknown', 'backend.unknown'],
  ['InvalidArgument', 'backend.invalid_argument'],
  ['CannotConnect', 'backend.cannot_connect'],
  ['Disconnected', 'backend.disconnected'],
  ['ConnectionTimeout', 'backend.connection_timeout'],
  ['ResponseTimeout', 'backend.response_timeout'],
  ['Cancelled', 'backend.cancelled'],
  ['EngineShutdown', 'backend.engine_shutdown'],
  ['StreamIncomplete', 'backend.stream_incomplete'],
])

type LegacyType = string | { readonly Backend: string }

const legacyByReason: ReadonlyMap<FailureReason, LegacyType> = new Map<FailureReason, LegacyType>([
  ...[...reasonByBackendName].map(([name, reason]) => [reason, { Backend: name }] as const),
  ['backend.response_timeout', 'ResponseTimeout'],
  ['transport.cannot_connect', 'CannotConnect'],
  ['transport.disconnected', 'Disconnected'],
  ['transport.connection_timeout', 'ConnectionTimeout'],
  ['backend.worker_unavailable', 'WorkerUnavailable'],
])

const legacyByClass: Readonly<Record<FailureClass, string>> = {
  Internal: 'Unknown',
  Unauthenticated: 'Unknown',
  PermissionDenied: 'Unknown',
  NotFound: 'Unknown',
  Conflict: 'Unknown',
  BackendProtocol: 'Unknown',
  NotImplemented: 'Unknown',
  InvalidRequest: 'InvalidArgument',
  PayloadTooLarge: 'InvalidArgument',
  UnsupportedMedia: 'InvalidArgument',
  DeadlineExceeded: 'ResponseTimeout',
  CapacityExhausted: 'ResourceExhausted',
  RateLimited: 'ResourceExhausted',
  Cancelled: 'Cancelled',
  Unavailable: 'Unavailable',
}

/** The JSON form of a failure, in the field order of Dynamo. Messages are cut to `diagnosticBytesMax`. */
export function failureToWire(failure: Failure, depth = 0): WireObject {
  const message = bounded(failure.message)
  return {
    error_type: failure.legacyType ?? legacyByReason.get(failure.reason) ?? legacyByClass[failure.class],
    class: failure.class,
    reason: failure.reason,
    message,
    diagnostic: message,
    ...(failure.publicDetail === undefined ? {} : { public: failure.publicDetail }),
    ...(failure.causedBy === undefined || depth >= causesMax ? {} : { caused_by: failureToWire(failure.causedBy, depth + 1) }),
  }
}

/**
 * Reads error JSON: whole, with `error_type` and `message` only, or with `class` only.
 *
 * A class and reason that do not belong together, or that nobody knows, become Internal `runtime.invalid_error` without public detail. Never throws.
 */
export function failureFromWire(value: unknown, depth = 0): Failure {
  if (!isObject(value)) return invalidError(typeof value === 'string' ? value : 'an error that is not an object')
  const message = bounded(textOf(value.diagnostic) ?? textOf(value.message) ?? '')
  const legacyType = legacyOf(value.error_type)
  const declared = legacyOf(value.class) ?? legacyType ?? 'Unknown'
  const reason = typeof value.reason === 'string' ? value.reason : value.reason === undefined || value.reason === null ? reasonOf(legacyType ?? declared) : ''
  const name = classByReason.get(reason)
  const declaredClass = classByReason.get(reasonOf(declared))
  const causedBy = isObject(value.caused_by) && depth < causesMax ? { causedBy: failureFromWire(value.caused_by, depth + 1) } : {}
  if (name === undefined || name !== declaredClass) return { ...invalidError(message), ...causedBy }
  const publicDetail = publicOf(value.public ?? value.public_details)
  return {
    class: name,
    reason: reason as FailureReason,
    message,
    ...(publicDetail === null ? {} : { publicDetail }),
    ...causedBy,
    ...(legacyType === null ? {} : { legacyType }),
  }
}

/**
 * What an exception thrown by a request handler says to the caller: a `FailureError` its own failure, others by their name
 * as Dynamo does it for Python's, with the name before the message.
 */
export function failureOfException(error: unknown): Failure {
  if (error instanceof FailureError) return error.failure
  if (!(error instanceof Error)) return { class: 'Internal', reason: 'backend.unknown', message: bounded(String(error)) }
  const code = (error as NodeJS.ErrnoException).code
  const reason = (typeof code === 'string' ? reasonByErrorCode.get(code) : undefined) ?? reasonByErrorName.get(error.name) ?? 'backend.unknown'
  return { class: classByReason.get(reason) as FailureClass, reason, message: bounded(`${error.name}: ${error.message}`) }
}

const reasonByErrorName: ReadonlyMap<string, FailureReason> = new Map<string, FailureReason>([
  ['TypeError', 'backend.invalid_argument'],
  ['RangeError', 'backend.invalid_argument'],
  ['TimeoutError', 'backend.connection_timeout'],
  ['AbortError', 'backend.cancelled'],
])

const reasonByErrorCode: ReadonlyMap<string, FailureReason> = new Map<string, FailureReason>([
  ['ETIMEDOUT', 'backend.connection_timeout'],
  ['ECONNREFUSED', 'backend.disconnected'],
  ['ECONNRESET', 'backend.disconnected'],
  ['EPIPE', 'backend.disconnected'],
])

function invalidError(message: string): Failure {
  return { class: 'Internal', reason: 'runtime.invalid_error', message: bounded(message) }
}

/** A name or a backend name as the wire has it; null when it is absent or of another form. */
function legacyOf(value: unknown): LegacyType | null {
  if (typeof value === 'string') return value
  return isObject(value) && typeof value.Backend === 'string' ? { Backend: value.Backend } : null
}

function reasonOf(type: LegacyType): FailureReason {
  if (typeof type === 'string') return reasonByName.get(type) ?? 'runtime.unclassified'
  return reasonByBackendName.get(type.Backend) ?? 'backend.unknown'
}

function publicOf(value: unknown): PublicDetail | null {
  if (!isObject(value)) return null
  switch (value.type) {
    case 'message': return typeof value.message === 'string' ? { type: 'message', message: value.message } : null
    case 'size_limit': case 'context_length': {
      const limit = countOf(value.limit)
      return limit === null ? null : { type: value.type, limit, actual: countOf(value.actual) }
    }
    case 'rate_limit': return { type: 'rate_limit', limit: countOf(value.limit), remaining: countOf(value.remaining) }
    default: return null
  }
}

function countOf(value: unknown): number | null {
  if (typeof value !== 'number' && typeof value !== 'bigint') return null
  const count = Number(value)
  return Number.isFinite(count) && count >= 0 ? count : null
}

function textOf(value: unknown): string | null {
  return typeof value === 'string' ? value : null
}

/** Text of at most `diagnosticBytesMax` bytes, cut between characters. */
function bounded(text: string): string {
  if (text.length * 3 <= diagnosticBytesMax || Buffer.byteLength(text) <= diagnosticBytesMax) return text
  let end = Math.min(text.length, diagnosticBytesMax - truncation.length)
  while (Buffer.byteLength(text.slice(0, end)) > diagnosticBytesMax - truncation.length) end -= Math.max(1, (Buffer.byteLength(text.slice(0, end)) - diagnosticBytesMax + truncation.length) >> 2)
  const last = text.charCodeAt(end - 1)
  return text.slice(0, last >= 0xd800 && last <= 0xdbff ? end - 1 : end) + truncation
}

