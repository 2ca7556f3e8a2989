/** Choosing in one pool: workers that are set aside come last, those that failed this request not at all. */
import type { Decision, OnDecided, Parked, Refusal } from '../model/decision.ts'
import type { RoutingRequest } from '../model/routing-request.ts'
import type { WorkerId } from '../model/worker.ts'
import type { LogFields } from '../ports.ts'
import type { GenerateRequest } from '../dynamo/wire/generate-request.ts'
import { noWorkers } from './refusal-failure.ts'
import type { RemoteIndex } from '../replicas/remote-index.ts'
import type { RoutedPool } from './routed-pool.ts'

export interface Choice {
  readonly request: Omit<RoutingRequest, 'excludedWorkerIds' | 'avoidedWorkerIds'>
  /** Workers that failed this request, and those that cannot serve it. */
  readonly excluded: ReadonlySet<WorkerId>
}

/** The request with the policy class that its metadata names. */
export function withPolicyClass(generate: GenerateRequest, metadata: Readonly<Record<string, string>>): GenerateRequest {
  const policyClass = metadata['policy-class']
  return policyClass === undefined ? generate : { ...generate, routing: { ...generate.routing, policyClass } }
}

/** Chooses and books. `parked`: the answer comes through `onDecided`, and only then. Better a doubtful worker than none. */
export function chooseWorker(pool: RoutedPool, choice: Choice, onDecided: OnDecided): Decision | Refusal | Parked {
  return pool.remote === null ? choose(pool, choice, onDecided) : chooseRemotely(pool, pool.remote, choice, onDecided)
}

/** Another router's index is asked first. */
function chooseRemotely(pool: RoutedPool, remote: RemoteIndex, choice: Choice, onDecided: OnDecided): Decision | Refusal | Parked {
  const at: { answer: Decision | Refusal | Parked | null; isLate: boolean; cancel: () => void } = { answer: null, isLate: false, cancel: () => {} }
  const stop = remote.lookUp(choice.request, () => {
    const answer = choose(pool, choice, onDecided)
    if (!at.isLate) at.answer = answer
    else if (answer.kind === 'parked') at.cancel = () => answer.cancel()
    else onDecided(answer)
  })
  if (at.answer !== null) return at.answer
  at.isLate = true
  at.cancel = stop
  return { kind: 'parked', requestId: choice.request.requestId, cancel: () => at.cancel() }
}

function choose(pool: RoutedPool, choice: Choice, onDecided: OnDecided): Decision | Refusal | Parked {
  return pool.router?.submit(completed(pool, choice), onDecided) ?? noWorkers(choice.request.requestId)
}

/** The choice as of now: books nothing, and does not wait. */
export function previewWorker(pool: RoutedPool, choice: Choice): Decision | Refusal {
  return pool.router?.select(completed(pool, choice)) ?? noWorkers(choice.request.requestId)
}

/** For the log: who decided, where a policy of one's own is loaded. */
export function policyFields({ policy }: Decision): LogFields {
  if (policy === undefined) return {}
  if (!policy.decided) return { policy: 'builtin', reason: policy.why }
  return { policy: policy.name, ...(policy.score === null ? {} : { policy_score: policy.score }) }
}

const completed = (pool: RoutedPool, { request, excluded }: Choice): RoutingRequest =>
  ({ ...request, excludedWorkerIds: excluded, avoidedWorkerIds: pool.setAsideIds() })
