/** What a client is told when its request cannot be served: one failure, two bodies (OpenAI's nested one, Dynamo's flat one). */
import { STATUS_CODES } from 'node:http'
import { httpStatusByClass } from '../http/http-status.ts'
import { FailureError, type Failure, type FailureClass, type FailureReason } from '../model/failure.ts'
import type { JsonObject } from '../ports.ts'

export interface ApiErrorDetail {
  readonly class: FailureClass
  readonly reason: FailureReason
  /** For the client: names field, value and mend. */
  readonly message: string
  /** The request field at fault. */
  readonly param?: string
  /** OpenAI's `code`; default: the reason. */
  readonly code?: string
  /** Where the class has no status of its own (405). */
  readonly status?: number
  readonly retryAfterSeconds?: number
  readonly headers?: Readonly<Record<string, string>>
}

/** A failure that is ready to be shown to the client. */
export class ApiError extends Error {
  readonly detail: ApiErrorDetail
  constructor(detail: ApiErrorDetail, options?: ErrorOptions) {
    super(detail.message, options)
    this.name = 'ApiError'
    this.detail = detail
  }
}

/** A 400 that names the field. */
export const invalidField = (param: string, message: string, code?: string): ApiError =>
  new ApiError({ class: 'InvalidRequest', reason: 'request.invalid', message, param, ...(code === undefined ? {} : { code }) })

export interface ErrorForm {
  /** Status of a full pool: 529 as in Dynamo, or what the operator says. */
  readonly overloadStatus: number
  /** Dynamo's flat body instead of OpenAI's nested one. */
  readonly dynamoErrors: boolean
  /** Of the API that was asked; default OpenAI's. `bare`: of operators, where Dynamo's body is the message alone. */
  readonly style?: 'openai' | 'anthropic' | 'bare'
}

const retryAfterDefaultSeconds = 1
const statusesToRetry = new Set([429, 503, 529])

/** Classes whose text may come from inside a worker; the client sees a fixed sentence, the log has the text. */
const hiddenClasses = new Set<FailureClass>(['Internal', 'BackendProtocol'])

/** Any thrown value as what the client is told. `requestId` lets the client name the log line. */
export function apiErrorOf(error: unknown, requestId: string): ApiErrorDetail {
  if (error instanceof ApiError) return error.detail
  if (error instanceof FailureError) return detailOf(error.failure, requestId)
  return detailOf({ class: 'Internal', reason: 'runtime.unclassified', message: '' }, requestId)
}

function detailOf(failure: Failure, requestId: string): ApiErrorDetail {
  const { class: failureClass, reason, publicDetail } = failure
  const base = { class: failureClass, reason }
  if (publicDetail?.type === 'message') return { ...base, message: publicDetail.message }
  if (hiddenClasses.has(failureClass)) return { ...base, message: `the model failed while it answered request ${requestId} (${reason}); try again, and see the server's log if it persists` }
  return { ...base, message: failure.message === '' ? reason : failure.message }
}

/** The one table from failures to statuses: that of the classes, with the overload status of this server and 429 for a missed queue deadline. */
export function statusOf(detail: ApiErrorDetail, form: ErrorForm): number {
  if (detail.status !== undefined) return detail.status
  if (detail.class === 'CapacityExhausted') return form.overloadStatus
  if (detail.reason === 'router.queue_deadline_exceeded') return 429
  return httpStatusByClass[detail.class]
}

/** `retry-after` where waiting helps, and what the error brings itself. */
export function errorHeaders(detail: ApiErrorDetail, status: number): Record<string, string> {
  const headers: Record<string, string> = { ...detail.headers }
  const overloaded = detail.class === 'CapacityExhausted'
  if (statusesToRetry.has(status) || overloaded) headers['retry-after'] = String(Math.max(1, Math.ceil(detail.retryAfterSeconds ?? retryAfterDefaultSeconds)))
  return headers
}

/** Body of an answer with that status. */
export function errorBody(detail: ApiErrorDetail, form: ErrorForm): JsonObject {
  const status = statusOf(detail, form)
  if (form.style === 'anthropic') return { type: 'error', error: { type: anthropicTypeOf(status, form), message: detail.message } }
  if (form.dynamoErrors && form.style === 'bare') return { error: detail.message }
  if (form.dynamoErrors) return { message: detail.message, type: phraseOf(status, form), code: status }
  return { error: { message: detail.message, type: typeOf(status, form), param: detail.param ?? null, code: detail.code ?? detail.reason } }
}

/** The same inside a stream, whose status has been sent already: it carries the status itself. */
export function streamErrorBody(detail: ApiErrorDetail, form: ErrorForm): JsonObject {
  const status = statusOf(detail, form)
  const type = typeOf(status, form)
  if (form.dynamoErrors) return { error: { message: detail.message, type, code: status } }
  return { error: { message: detail.message, type, param: detail.param ?? null, code: detail.code ?? detail.reason, status } }
}

function typeOf(status: number, form: ErrorForm): string {
  if (status === form.overloadStatus || status === 503) return 'service_unavailable'
  if (status === 401) return 'authentication_error'
  if (status === 403) return 'permission_error'
  if (status === 429) return 'rate_limit_error'
  if (status === 504) return 'timeout_error'
  return status < 500 ? 'invalid_request_error' : 'internal_server_error'
}

function anthropicTypeOf(status: number, form: ErrorForm): string {
  if (status === form.overloadStatus || status === 529) return 'overloaded_error'
  switch (status) {
    case 401: return 'authentication_error'
    case 403: return 'permission_error'
    case 404: return 'not_found_error'
    case 413: return 'request_too_large'
    case 429: return 'rate_limit_error'
    case 504: return 'timeout_error'
    default: return status < 500 ? 'invalid_request_error' : 'api_error'
  }
}

const phraseOf = (status: number, form: ErrorForm): string =>
  status === form.overloadStatus ? 'Overloaded' : (STATUS_CODES[status] ?? 'Error')

/** Dynamo's label `error_type` of `requests_total`. */
export function errorTypeLabel(detail: ApiErrorDetail): string {
  switch (detail.class) {
    case 'InvalidRequest': case 'PayloadTooLarge': case 'UnsupportedMedia': return 'validation'
    case 'NotFound': return 'not_found'
    case 'CapacityExhausted': case 'RateLimited': return 'overload'
    case 'Cancelled': return 'cancelled'
    case 'NotImplemented': return 'not_implemented'
    default: return 'internal'
  }
}
