/** The time between sending a request to a worker and the begin of its answer there, told to the observer. */
import type { Clock } from '../ports.ts'
import type { RequestObserver, RoutePhase } from '../model/request-observer.ts'
import type { RoutedPool } from './routed-pool.ts'

/** What `pool` does for a request of this stage. */
export const phaseOf = (stage: 'prefill' | 'decode', pool: RoutedPool): RoutePhase =>
  stage === 'decode' && pool.router?.settings.role === 'aggregated' ? 'aggregated' : stage

/** Of one leg. `begun` and `over` may come in any number; the first counts. */
export class DispatchTimer {
  readonly #observer: RequestObserver
  readonly #clock: Clock
  readonly #phase: RoutePhase
  #startMs: number | null

  constructor(observer: RequestObserver, clock: Clock, phase: RoutePhase) {
    this.#observer = observer
    this.#clock = clock
    this.#phase = phase
    this.#startMs = clock.nowMs()
    observer.onStage?.('dispatch', phase, { seconds: null, isIn: true })
  }

  /** The worker has begun its answer. */
  begun(): void {
    if (this.#startMs !== null) this.#end((this.#clock.nowMs() - this.#startMs) / 1000)
  }

  /** The leg is over, begun or not. */
  over(): void {
    if (this.#startMs !== null) this.#end(null)
  }

  #end(seconds: number | null): void {
    this.#startMs = null
    this.#observer.onStage?.('dispatch', this.#phase, { seconds, isIn: false })
  }
}
