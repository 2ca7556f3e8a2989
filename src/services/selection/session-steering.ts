/** Sessions of a partition: which worker a request is to go to, and what its booking makes of the binding. Always hard. */
import type { AffinityHold, AffinityTarget } from '../../affinity/affinity-table.ts'
import { sessionIdBytesMax, utf8Length } from '../../affinity/session-key.ts'
import type { WorkerRank } from '../../model/worker.ts'
import { failure, type Answer } from '../answer.ts'
import type { Partition } from './partition.ts'

/** The caller left while its request waited. */
export class CallerGone extends Error {
  constructor() {
    super('the caller has left')
    this.name = 'CallerGone'
  }
}

/** What is wrong with a session id where sessions are bound; null: nothing. */
export const sessionProblem = (partition: Partition, sessionId: string | null): Answer | null =>
  sessionId !== null && partition.affinity !== null && utf8Length(sessionId) > sessionIdBytesMax
    ? failure(400, `session affinity ID must not exceed ${sessionIdBytesMax} bytes`) : null

/** The session's worker without holding it. */
export function boundTarget({ affinity }: Partition, sessionId: string, nowMs: number): AffinityTarget | null {
  const peeked = affinity?.peek(sessionId, null, nowMs)
  return peeked !== undefined && 'target' in peeked ? peeked.target : null
}

/**
 * Holds a session for a booking; null: the table is full, or there is none, and the request goes where it will. A binding to a worker that
 * has gone is made anew. Waits while another request of the session chooses. Errors: `CallerGone`.
 */
export function holdSession(
  partition: Partition, sessionId: string, now: () => number, signal: AbortSignal | undefined,
): AffinityHold | null | Promise<AffinityHold | null> {
  const { affinity } = partition
  if (affinity === null) return null
  for (;;) {
    const acquired = affinity.acquire(sessionId, null, now())
    if (acquired.kind === 'wait') return waited(acquired.wait, signal).then(() => holdSession(partition, sessionId, now, signal))
    if (acquired.kind !== 'hold') return null
    const { target } = acquired.hold
    if (target === null || isThere(partition, target)) return acquired.hold
    acquired.hold.invalidate()
  }
}

function isThere({ router }: Partition, { workerId, dpRank }: AffinityTarget): boolean {
  const worker = router.worker(workerId)
  return worker !== undefined && (dpRank === null || (dpRank >= worker.dpStart && dpRank < worker.dpStart + worker.dpSize))
}

function waited(wait: (resume: () => void) => () => void, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const leave = (): void => {
      cancel()
      reject(new CallerGone())
    }
    const cancel = wait(() => {
      signal?.removeEventListener('abort', leave)
      resolve()
    })
    if (signal?.aborted === true) leave()
    else signal?.addEventListener('abort', leave, { once: true })
  })
}

/** Binds the held session to the booked rank. The answer: the session is bound elsewhere; its binding is then ended. */
export function commitSession(partition: Partition, hold: AffinityHold | null, sessionId: string, { workerId, dpRank }: WorkerRank, nowMs: number): Answer | null {
  const target = hold?.target ?? null
  if (hold === null) return null
  if (target !== null && isThere(partition, target) && (target.workerId !== workerId || (target.dpRank ?? dpRank) !== dpRank)) {
    hold.invalidate()
    return failure(400, target.workerId === workerId
      ? `session ${sessionId} is bound to DP rank ${target.dpRank}, not ${dpRank}` : `session ${sessionId} is bound to worker ${target.workerId}, not ${workerId}`)
  }
  hold.bind({ workerId, dpRank }, nowMs)
  return null
}
