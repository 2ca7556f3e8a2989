/** What one pool shares with the other routers of its workers: bookings, and bindings of sessions, each on the endpoint of its worker. */
import type { AffinityTable, AffinityUpdate } from '../affinity/affinity-table.ts'
import type { WorkerId } from '../model/worker.ts'
import type { Clock, Discovery, EndpointId, EventPlane, Log } from '../ports.ts'
import type { Router } from '../router/contract.ts'
import { AffinityLink } from './affinity-link.ts'
import { ReplicaLink } from './replica-link.ts'
import { newReplicaStats } from './replica-stats.ts'

export interface PoolReplicasParts {
  readonly plane: EventPlane
  /** Started. */
  readonly discovery: Discovery
  readonly clock: Clock
  readonly log: Log
  router(): Router | null
  /** Bindings of sessions; null: none are made. */
  table(): AffinityTable | null
  /** The links of the endpoint that a worker belongs to. */
  memberOf(workerId: WorkerId): MemberReplicas | null
}

/** The links of one worker endpoint. */
export class MemberReplicas {
  readonly bookings: ReplicaLink
  readonly #parts: PoolReplicasParts
  readonly #endpoint: EndpointId
  readonly #pool: PoolReplicas
  #affinity: AffinityLink | null = null

  constructor(parts: PoolReplicasParts, endpoint: EndpointId, pool: PoolReplicas) {
    this.#parts = parts
    this.#endpoint = endpoint
    this.#pool = pool
    this.bookings = new ReplicaLink({ ...parts, endpoint, stats: pool.stats, router: () => parts.router() })
    this.shareSessions()
  }

  /** Opened once there are bindings to share. */
  shareSessions(): void {
    if (this.#parts.table() === null) return
    this.#affinity ??= new AffinityLink({ ...this.#parts, endpoint: this.#endpoint, stats: this.#pool.stats, router: () => this.#parts.router(), table: () => this.#parts.table() })
  }

  bound(update: AffinityUpdate): void {
    this.#affinity?.publish(update)
  }

  workerAdded(workerId: WorkerId): void {
    this.bookings.workerAdded(workerId)
  }

  workerGone(workerId: WorkerId): void {
    this.bookings.workerGone(workerId)
  }

  close(): void {
    this.#pool.closed(this)
    this.bookings.close()
    this.#affinity?.close()
  }
}

export class PoolReplicas {
  readonly stats = newReplicaStats()
  readonly #parts: PoolReplicasParts
  readonly #members = new Set<MemberReplicas>()
  /** Where each own booking was told of. */
  readonly #byRequest = new Map<string, MemberReplicas>()

  constructor(parts: PoolReplicasParts) {
    this.#parts = parts
  }

  /** For the table of bindings. */
  get affinityOptions(): { publish(update: AffinityUpdate): void } {
    return { publish: (update) => this.#parts.memberOf(update.target.workerId)?.bound(update) }
  }

  get peerCount(): number {
    return this.#sum((link) => link.peerCount)
  }

  get bookingCount(): number {
    return this.#sum((link) => link.bookingCount)
  }

  get waitingCount(): number {
    return this.#sum((link) => link.waitingCount)
  }

  /** Begins to tell of a new router's bookings; those of an earlier one are over. */
  attach(router: Router): void {
    this.#byRequest.clear()
    for (const member of this.#members) {
      member.bookings.reset()
      member.shareSessions()
    }
    router.bookings.listener = {
      onBooked: (note) => {
        const member = this.#parts.memberOf(note.rank.workerId)
        if (member === null) return
        this.#byRequest.set(note.requestId, member)
        member.bookings.onBooked(note)
      },
      onPrefillCompleted: (requestId) => this.#byRequest.get(requestId)?.bookings.onPrefillCompleted(requestId),
      onEnded: (requestId) => {
        this.#byRequest.get(requestId)?.bookings.onEnded(requestId)
        this.#byRequest.delete(requestId)
      },
    }
  }

  open(endpoint: EndpointId): MemberReplicas {
    const member = new MemberReplicas(this.#parts, endpoint, this)
    this.#members.add(member)
    return member
  }

  closed(member: MemberReplicas): void {
    this.#members.delete(member)
  }

  #sum(count: (link: ReplicaLink) => number): number {
    let sum = 0
    for (const { bookings } of this.#members) sum += count(bookings)
    return sum
  }
}
