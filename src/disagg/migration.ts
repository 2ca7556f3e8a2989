/** Going on with a request elsewhere after its worker was lost in the middle. */
import type { Failure, FailureReason } from '../model/failure.ts'

/** Losses of one worker. Source: Dynamo 1.6.1 migratable reasons. */
const migratable: ReadonlySet<FailureReason> = new Set<FailureReason>([
  'transport.cannot_connect', 'transport.disconnected', 'transport.connection_timeout', 'backend.cannot_connect', 'backend.disconnected',
  'backend.connection_timeout', 'backend.response_timeout', 'backend.engine_shutdown', 'backend.stream_incomplete',
  'backend.worker_unavailable', 'capacity.worker_overloaded',
])
const blocking: ReadonlySet<FailureReason> = new Set<FailureReason>([
  'request.cancelled', 'request.deadline_exceeded', 'backend.cancelled', 'capacity.exhausted', 'capacity.pool_exhausted',
])

/** True when the failure is the loss of one worker and nothing in its cause forbids another try. */
export function isMigratable(failure: Failure): boolean {
  for (let cause: Failure | undefined = failure; cause !== undefined; cause = cause.causedBy) if (blocking.has(cause.reason)) return false
  return migratable.has(failure.reason)
}

/** What a request must not ask for, because tokens so far cannot be put behind the prompt: several choices, guided decoding. */
export function canContinue(samplingOptions: { readonly n?: unknown; readonly guided_decoding?: unknown } | undefined): boolean {
  const n = samplingOptions?.n
  if (n !== undefined && n !== null && Number(n) > 1) return false
  const guided = samplingOptions?.guided_decoding
  return guided === undefined || guided === null
}
