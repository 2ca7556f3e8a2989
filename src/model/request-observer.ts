/** What the service tells of each request; metrics and logs listen. Members must not throw. */
import type { Decision, Refusal } from './decision.ts'
import type { Failure } from './failure.ts'
import type { WorkerRank } from './worker.ts'

export interface RequestObserver {
  onStarted(promptTokens: number, model: string): void
  /** `seconds` since the request arrived. */
  onFirstOutput(seconds: number): void
  /** Seconds since the output before. */
  onNextOutput(seconds: number): void
  onRouted(requestId: string, decision: Decision, model: string): void
  onRefused(refusal: Refusal): void
  /** Prompt tokens that the worker says it took from its cache. */
  onWorkerReused(model: string, tokens: number): void
  /** An attempt failed and another follows. */
  onRetry(failure: Failure): void
  /** A worker was lost in the middle and the request goes on elsewhere. */
  onMigration(failure: Failure): void
  /** The prefill stage failed and the decode worker computes the prompt. */
  onPrefillFallback(reason: string): void
  /** Conditional disaggregation looked at a request: it skips the prefill workers, or takes them; `reason` says why. */
  onConditional(outcome: 'bypass' | 'remote', reason: string): void
  /** What a session's binding meant for the choice of a worker. */
  onSession(stage: 'prefill' | 'decode', outcome: SessionOutcome): void
  /** A prefill worker's topology rule could not be applied. */
  onUnconstrained(): void
  /** A worker was chosen to compute a prompt for another one. */
  onPrefillRouted?(decision: Decision, model: string): void
  /** A request enters (`isIn`) or leaves a stage. `route`: a worker is being chosen. `dispatch`: sent to a worker that has not begun to answer. */
  onStage?(stage: 'route' | 'dispatch', phase: RoutePhase, step: { readonly isIn: boolean; readonly seconds: number | null }): void
  /** An attempt that had outputs has ended. */
  onServed?(served: ServedAttempt): void
  /** The request is over. Exactly once for each `onStarted`. */
  onEnded(outcome: 'success' | 'error' | 'cancelled', outputTokens: number, seconds: number, failure: Failure | null): void
}

/** What a pool does for a request. */
export type RoutePhase = 'aggregated' | 'prefill' | 'decode'

/** Times of one attempt on one rank. */
export interface ServedAttempt {
  readonly rank: WorkerRank
  readonly phase: RoutePhase
  readonly promptTokens: number
  /** From sending to the first output. */
  readonly firstOutputSeconds: number
  /** Between its outputs, on average; null with fewer than two. */
  readonly interOutputSeconds: number | null
}

/** `unbound`: the table of sessions is full; `dropped`: the bound worker cannot serve any more. */
export type SessionOutcome = 'bound' | 'reused' | 'rebound' | 'dropped' | 'waited' | 'unbound' | 'conflict'
