/** Bindings of sessions shared with the other routers of one worker endpoint. Best effort: a binding that is missed is made anew. */
import type { AffinityTable, AffinityUpdate } from '../affinity/affinity-table.ts'
import { decodeSessionAffinity, encodeSessionAffinity, sessionAffinityTopic } from '../dynamo/wire/session-affinity.ts'
import { WireError } from '../dynamo/wire/wire-error.ts'
import type { Clock, EndpointId, EventPlane, EventPublisher, Log, Watch } from '../ports.ts'
import type { Router } from '../router/contract.ts'
import type { ReplicaStats } from './replica-stats.ts'

export interface AffinityLinkParts {
  readonly endpoint: EndpointId
  readonly plane: EventPlane
  readonly clock: Clock
  readonly log: Log
  readonly stats: ReplicaStats
  router(): Router | null
  table(): AffinityTable | null
}

export class AffinityLink {
  readonly #parts: AffinityLinkParts
  readonly #watch: Watch
  #publisher: EventPublisher | null = null
  #closed = false

  constructor(parts: AffinityLinkParts) {
    this.#parts = parts
    this.#watch = parts.plane.subscribe(parts.endpoint, sessionAffinityTopic, ({ payload }) => this.#hear(payload))
    parts.plane.publisher(parts.endpoint, sessionAffinityTopic).then((publisher) => {
      if (this.#closed) void publisher.close().catch(() => {})
      else this.#publisher = publisher
    }, (error: unknown) => {
      if (!this.#closed) parts.log.error({ stage: 'replicas', reason: (error as Error).message }, 'bindings of sessions cannot be shared: no publisher')
    })
  }

  publish({ sessionKey, target, sequence, writerId }: AffinityUpdate): void {
    this.#publisher?.publish(encodeSessionAffinity({ sessionId: sessionKey, ...target, sequence, writerId }))
  }

  close(): void {
    this.#closed = true
    this.#watch.close()
    this.#publisher?.close().catch(() => {})
  }

  #hear(payload: Uint8Array): void {
    const { router, table, clock, stats, log } = this.#parts
    try {
      const { sessionId, workerId, dpRank, sequence, writerId } = decodeSessionAffinity(payload)
      // A worker that is not known cannot be told from one that is gone.
      if (router()?.worker(workerId) === undefined) return
      table()?.apply({ sessionKey: sessionId, target: { workerId, dpRank }, sequence, writerId }, clock.nowMs())
    } catch (error) {
      if (!(error instanceof WireError)) throw error
      stats.malformed += 1
      log.debug({ stage: 'replicas', reason: error.message }, 'session affinity event not readable')
    }
  }
}
