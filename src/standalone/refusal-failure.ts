/** A router's refusal as a failure for the caller. */
import type { Refusal, RefusalReason } from '../model/decision.ts'
import type { Failure, FailureClass, FailureReason } from '../model/failure.ts'

const identities: Readonly<Record<RefusalReason, readonly [FailureClass, FailureReason]>> = {
  'no-workers': ['Unavailable', 'backend.unavailable'],
  'none-eligible': ['Unavailable', 'backend.unavailable'],
  'all-overloaded': ['CapacityExhausted', 'capacity.pool_exhausted'],
  'pinned-unknown': ['InvalidRequest', 'request.invalid_argument'],
  'pinned-not-allowed': ['InvalidRequest', 'request.invalid_argument'],
  'pinned-rank': ['InvalidRequest', 'request.invalid_argument'],
  'pinned-overloaded': ['CapacityExhausted', 'capacity.worker_overloaded'],
  'pinned-set-aside': ['Unavailable', 'backend.unavailable'],
  'session-conflict': ['InvalidRequest', 'request.invalid_argument'],
  'duplicate-request': ['Conflict', 'request.conflict'],
  'invalid-override': ['InvalidRequest', 'request.invalid_argument'],
  'queue-limit': ['CapacityExhausted', 'capacity.exhausted'],
  'queue-full': ['CapacityExhausted', 'capacity.exhausted'],
  'queue-timeout': ['DeadlineExceeded', 'router.queue_deadline_exceeded'],
  'queue-closed': ['Unavailable', 'backend.unavailable'],
  'non-finite-cost': ['Internal', 'runtime.internal'],
}

export function refusalFailure(refusal: Refusal): Failure {
  const [failureClass, reason] = identities[refusal.reason]
  return { class: failureClass, reason, message: refusal.message }
}

/** Whether a limit or the end of the queue refused the request, and not the workers. */
export const isQueueRefusal = ({ reason }: Refusal): boolean => reason === 'queue-limit' || reason === 'queue-full' || reason === 'queue-timeout' || reason === 'queue-closed'

/** The refusal of a pool without a single usable worker. */
export const noWorkers = (requestId: string): Refusal => ({
  kind: 'refused', requestId, reason: 'no-workers', exclusions: [],
  message: 'no endpoints available to route work: no worker of the target endpoint is known; start one, or see that router and workers share discovery and namespace',
})
