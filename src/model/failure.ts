/**
 * Failure as a value: Dynamo's semantic error identity, from which wire, HTTP and log forms are derived in one place each.
 *
 * Source: the class and reason table of Dynamo 1.6.1.
 */

/** Reasons per class, the first of each class its default. */
export const failureReasons = {
  Internal: ['runtime.unclassified', 'runtime.invalid_error', 'runtime.internal', 'backend.unknown'],
  InvalidRequest: ['request.invalid', 'request.invalid_argument', 'backend.invalid_argument'],
  Unavailable: [
    'backend.unavailable', 'transport.cannot_connect', 'transport.disconnected', 'backend.worker_unavailable',
    'backend.cannot_connect', 'backend.disconnected', 'backend.engine_shutdown', 'backend.stream_incomplete',
  ],
  DeadlineExceeded: [
    'request.deadline_exceeded', 'transport.connection_timeout', 'backend.response_timeout', 'backend.connection_timeout',
    'router.queue_deadline_exceeded',
  ],
  Cancelled: ['request.cancelled', 'backend.cancelled'],
  CapacityExhausted: ['capacity.exhausted', 'capacity.pool_exhausted', 'capacity.worker_overloaded'],
  BackendProtocol: ['backend.protocol'],
  Unauthenticated: ['request.unauthenticated'],
  PermissionDenied: ['request.permission_denied'],
  NotFound: ['request.not_found'],
  Conflict: ['request.conflict'],
  PayloadTooLarge: ['request.payload_too_large'],
  UnsupportedMedia: ['request.unsupported_media'],
  RateLimited: ['request.rate_limited'],
  NotImplemented: ['runtime.not_implemented'],
} as const

export type FailureClass = keyof typeof failureReasons
export type FailureReason = (typeof failureReasons)[FailureClass][number]

/** What a caller may be shown, in Dynamo's `public` form. */
export type PublicDetail =
  | { readonly type: 'message'; readonly message: string }
  | { readonly type: 'size_limit' | 'context_length'; readonly limit: number; readonly actual: number | null }
  | { readonly type: 'rate_limit'; readonly limit: number | null; readonly remaining: number | null }

export interface Failure {
  readonly class: FailureClass
  readonly reason: FailureReason
  readonly message: string
  readonly publicDetail?: PublicDetail
  readonly causedBy?: Failure
  /** Our own connection, shared by all workers, was lost or full: it says nothing of the worker. Not on the wire. */
  readonly linkLost?: true
  /** The legacy `error_type` as received, written back unchanged when the failure is relayed. */
  readonly legacyType?: string | { readonly Backend: string }
}

/** An exception that carries a failure across a layer border. */
export class FailureError extends Error {
  readonly failure: Failure
  constructor(failure: Failure, options?: ErrorOptions) {
    super(failure.message, options)
    this.name = 'FailureError'
    this.failure = failure
  }
}

/**
 * Failures after which the same request may be tried on another worker: transport, unavailability, overload of that one worker, timeout.
 * `capacity.exhausted` and `capacity.pool_exhausted` speak of a whole pool and are not retried, as in Dynamo's migration.
 */
export function isRetryableElsewhere(failure: Failure): boolean {
  if (failure.class === 'Unavailable') return true
  return (
    failure.reason === 'transport.connection_timeout' || failure.reason === 'backend.response_timeout' ||
    failure.reason === 'backend.connection_timeout' || failure.reason === 'capacity.worker_overloaded'
  )
}
