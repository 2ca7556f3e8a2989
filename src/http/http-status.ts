/** The one table from failure classes to HTTP answers. */
import type { Failure, FailureClass } from '../model/failure.ts'
import type { JsonObject } from '../ports.ts'

/** HTTP status per failure class. 529 for a full pool is what Dynamo's frontend answers; 499 is never seen by a client that has left. */
export const httpStatusByClass: Readonly<Record<FailureClass, number>> = {
  Internal: 500,
  InvalidRequest: 400,
  Unavailable: 503,
  DeadlineExceeded: 504,
  Cancelled: 499,
  CapacityExhausted: 529,
  BackendProtocol: 502,
  Unauthenticated: 401,
  PermissionDenied: 403,
  NotFound: 404,
  Conflict: 409,
  PayloadTooLarge: 413,
  UnsupportedMedia: 415,
  RateLimited: 429,
  NotImplemented: 501,
}

/** A failure as a JSON body: `{"error":{"class","reason","message","code"}}`. */
export const failureBody = (failure: Failure): JsonObject => ({
  error: {
    class: failure.class,
    reason: failure.reason,
    message: failure.message,
    code: httpStatusByClass[failure.class],
  },
})
