/** Errors with the names of Dynamo's: a handler throws them and the caller sees their class; a client throws them for what it was told. */
import { FailureError, type Failure, type FailureReason, type PublicDetail } from '../model/failure.ts'

/** Any failure of Dynamo's. `failure` has class, reason and message. */
export class DynamoError extends FailureError {
  constructor(failure: Failure, options?: ErrorOptions) {
    super(failure, options)
    this.name = new.target.name
  }
}

/** Bad input, such as a prompt longer than the context; the caller may see the message. */
export class InvalidArgument extends DynamoError {
  constructor(message: string, publicDetail: PublicDetail = { type: 'message', message }) {
    super({ class: 'InvalidRequest', reason: 'backend.invalid_argument', message, publicDetail })
  }
}

/** No connection came about. */
export class CannotConnect extends DynamoError {
  constructor(message: string) {
    super({ class: 'Unavailable', reason: 'backend.cannot_connect', message })
  }
}

/** A connection was lost. */
export class Disconnected extends DynamoError {
  constructor(message: string) {
    super({ class: 'Unavailable', reason: 'backend.disconnected', message })
  }
}

/** Connecting or answering took too long. */
export class ConnectionTimeout extends DynamoError {
  constructor(message: string) {
    super({ class: 'DeadlineExceeded', reason: 'backend.connection_timeout', message })
  }
}

/** The request was cancelled. */
export class Cancelled extends DynamoError {
  constructor(message: string) {
    super({ class: 'Cancelled', reason: 'backend.cancelled', message })
  }
}

/** The engine has gone down. */
export class EngineShutdown extends DynamoError {
  constructor(message: string) {
    super({ class: 'Unavailable', reason: 'backend.engine_shutdown', message })
  }
}

/** The stream ended before the answer did. */
export class StreamIncomplete extends DynamoError {
  constructor(message: string) {
    super({ class: 'Unavailable', reason: 'backend.stream_incomplete', message })
  }
}

/** Nobody can serve the request yet. */
export class WorkerUnavailable extends DynamoError {
  constructor(message: string) {
    super({ class: 'Unavailable', reason: 'backend.worker_unavailable', message })
  }
}

/** Nothing more is known. */
export class Unknown extends DynamoError {
  constructor(message: string) {
    super({ class: 'Internal', reason: 'backend.unknown', message })
  }
}

const httpMessageMax = 8192

/** An answer in HTTP's terms: 4xx is a bad request to the caller. Errors: `RangeError` for a code outside 0 to 599. */
export class HttpError extends DynamoError {
  readonly code: number
  constructor(code: number, message: string) {
    if (!Number.isInteger(code) || code < 0 || code > 599) throw new RangeError(`HttpError: code is ${code}; give a whole number from 0 to 599`)
    const text = message.length > httpMessageMax ? `${message.slice(0, httpMessageMax - 3)}...` : message
    const said = JSON.stringify({ message: text, code })
    super(code >= 400 && code < 500 ? { class: 'InvalidRequest', reason: 'request.invalid', message: said } : { class: 'Internal', reason: 'backend.unknown', message: said })
    this.code = code
  }
}

type NamedError = new (message: string) => DynamoError

/** Which class stands for a failure that came over the wire. */
const classByReason: Partial<Record<FailureReason, NamedError>> = {
  'backend.invalid_argument': InvalidArgument,
  'request.invalid_argument': InvalidArgument,
  'request.invalid': InvalidArgument,
  'transport.cannot_connect': CannotConnect,
  'backend.cannot_connect': CannotConnect,
  'transport.disconnected': Disconnected,
  'backend.disconnected': Disconnected,
  'transport.connection_timeout': ConnectionTimeout,
  'backend.connection_timeout': ConnectionTimeout,
  'backend.response_timeout': ConnectionTimeout,
  'request.cancelled': Cancelled,
  'backend.cancelled': Cancelled,
  'backend.engine_shutdown': EngineShutdown,
  'backend.stream_incomplete': StreamIncomplete,
  'backend.worker_unavailable': WorkerUnavailable,
  'backend.unavailable': WorkerUnavailable,
  'backend.unknown': Unknown,
  'runtime.unclassified': Unknown,
}

/** The error of a failure, of the class with its name, `DynamoError` where there is none; `failure` is kept as it came. */
export function errorOfFailure(failure: Failure, cause?: unknown): DynamoError {
  const kind = classByReason[failure.reason]
  const options = cause === undefined ? undefined : { cause }
  const error = new DynamoError(failure, options)
  if (kind === undefined) return error
  Object.setPrototypeOf(error, kind.prototype as object)
  error.name = kind.name
  return error
}

/** What a caller of the SDK is shown for any error of a call. */
export const asDynamoError = (error: unknown): unknown => (error instanceof FailureError && !(error instanceof DynamoError) ? errorOfFailure(error.failure, error) : error)

/** An argument that cannot be used. The message names field, value and mend. */
export class ArgumentError extends TypeError {
  readonly field: string
  constructor(place: string, field: string, value: unknown, mend: string) {
    super(`${place}: ${field} is ${shown(value)}; ${mend}`)
    this.name = 'ArgumentError'
    this.field = field
  }
}

function shown(value: unknown): string {
  const text = JSON.stringify(value, (_key, item: unknown) => (typeof item === 'bigint' ? item.toString() : typeof item === 'number' && !Number.isFinite(item) ? String(item) : item))
  return text === undefined ? 'not given' : text.length > 120 ? `${text.slice(0, 117)}...` : text
}
