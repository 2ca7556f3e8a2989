/** A pool of workers as it is routed to: the accepted workers of a `WorkerPoolState`, followed as they come and go. */
import type { EndpointId } from '../ports.ts'
import type { ModelCard } from '../dynamo/cards/model-card.ts'
import { endpointPrefix, instanceKey } from '../dynamo/discovery/store-key.ts'
import { RoutedPool, type RoutedPoolParts } from '../standalone/routed-pool.ts'
import type { WorkerPoolState } from './worker-pools.ts'

export type LivePoolParts = Omit<RoutedPoolParts, 'endpoint' | 'accepts'>

export class LivePool {
  readonly key: string
  readonly model: string
  readonly kind: WorkerPoolState['kind']
  readonly routed: RoutedPool
  readonly #endpoints = new Map<string, EndpointId>()
  #accepted: ReadonlySet<string> = new Set()
  #isSynced = false

  /** `onSynced`: the workers that stood when the pool began are known. */
  constructor(state: WorkerPoolState, parts: LivePoolParts, onSynced: () => void) {
    this.key = state.key
    this.model = state.model
    this.kind = state.kind
    const [endpoint = state.card] = state.endpoints
    this.routed = new RoutedPool({ ...parts, endpoint, accepts: ({ record }) => this.#accepted.has(instanceKey(record, record.instanceId)) })
    this.#accepted = acceptedOf(state)
    this.routed.start()
    this.#endpoints.set(endpointPrefix(endpoint), endpoint)
    void this.routed.firstSync.then(() => {
      this.#isSynced = true
      onSynced()
    })
    this.update(state)
  }

  /** Requests can be routed to a worker. */
  get isUsable(): boolean {
    return this.#isSynced && (this.routed.router?.workerCount ?? 0) > 0
  }

  get workerCount(): number {
    return this.routed.router?.workerCount ?? 0
  }

  get endpoints(): readonly EndpointId[] {
    return [...this.#endpoints.values()]
  }

  has(card: ModelCard): boolean {
    return this.#accepted.has(instanceKey(card, card.instanceId))
  }

  update(state: WorkerPoolState): void {
    this.#accepted = acceptedOf(state)
    const wanted = new Map(state.endpoints.map((endpoint) => [endpointPrefix(endpoint), endpoint]))
    for (const [key, endpoint] of this.#endpoints) {
      // The first one stays: without its workers it costs nothing.
      if (wanted.has(key) || key === endpointPrefix(this.routed.endpoint)) continue
      this.#endpoints.delete(key)
      this.routed.removeEndpoint(endpoint)
    }
    for (const [key, endpoint] of wanted) {
      if (this.#endpoints.has(key)) continue
      this.#endpoints.set(key, endpoint)
      this.routed.addEndpoint(endpoint)
    }
    this.routed.recheck()
  }

  close(): void {
    this.routed.close()
  }
}

const acceptedOf = ({ workers }: WorkerPoolState): ReadonlySet<string> => new Set(workers.map(({ card }) => instanceKey(card, card.instanceId)))
