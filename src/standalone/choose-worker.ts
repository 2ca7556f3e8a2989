/** Choosing in one pool: workers that are set aside come last, those that failed this request not at all. */
import type { Decision, Refusal } from '../model/decision.ts'
import type { RoutingRequest } from '../model/routing-request.ts'
import type { WorkerId } from '../model/worker.ts'
import { noWorkers } from './refusal-failure.ts'
import type { RoutedPool } from './routed-pool.ts'

export interface Choice {
  readonly request: Omit<RoutingRequest, 'excludedWorkerIds'>
  /** Workers that failed this request, and those that cannot serve it. */
  readonly excluded: ReadonlySet<WorkerId>
  readonly book: boolean
}

/** First without the workers that are set aside; when nobody else is left, with them: better a doubtful worker than none. */
export function chooseWorker(pool: RoutedPool, { request, excluded, book }: Choice): Decision | Refusal {
  const { router } = pool
  if (router === null) return noWorkers(request.requestId)
  const ask = (excludedWorkerIds: ReadonlySet<WorkerId>): Decision | Refusal => {
    const complete = { ...request, excludedWorkerIds }
    return book ? router.route(complete) : router.select(complete)
  }
  const aside = pool.setAsideIds()
  if (aside.size === 0) return ask(excluded)
  const careful = ask(new Set([...aside, ...excluded]))
  return careful.kind === 'refused' ? ask(excluded) : careful
}
