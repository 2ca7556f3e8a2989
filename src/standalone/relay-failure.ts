/** How a worker's failure is told to the caller. */
import type { Failure, FailureReason } from '../model/failure.ts'

/**
 * Transport reasons seen towards a worker, as backend reasons: the caller's own connection to the router is sound, and Dynamo's
 * clients would set the router aside for a `transport.*` or `worker_unavailable` failure. Class and whether it may be migrated
 * stay the same.
 */
const backendReasons: Readonly<Partial<Record<FailureReason, FailureReason>>> = {
  'transport.cannot_connect': 'backend.cannot_connect',
  'transport.disconnected': 'backend.disconnected',
  'transport.connection_timeout': 'backend.connection_timeout',
  'backend.worker_unavailable': 'backend.cannot_connect',
}

/** The failure as it goes to the caller. */
export function relayedFailure(failure: Failure): Failure {
  const reason = backendReasons[failure.reason]
  if (reason === undefined) return failure
  const { legacyType: _legacyType, ...rest } = failure
  return { ...rest, reason }
}
