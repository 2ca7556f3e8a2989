/**
 * The workers of one endpoint, ready to be routed to: instances and cards from discovery, a router over them, and the KV events
 * and loads that feed it.
 */
import type { WorkerId } from '../model/worker.ts'
import type { Clock, Discovery, EndpointId, EventPlane, InstanceRecord, Log, Random, RequestPlaneClient } from '../ports.ts'
import type { Router } from '../router/contract.ts'
import type { ModelCard } from '../dynamo/cards/model-card.ts'
import { InstanceDirectory, type InstanceEvent } from '../dynamo/instances/instance-directory.ts'
import { createKvStateFollower, type KvStateFollower } from '../dynamo/kv-state/kv-state-follower.ts'
import { followLoadEvents, type LoadEventsFollower } from '../dynamo/kv-state/load-events.ts'
import { WorkerPool, type PoolFacts } from './pool.ts'

export interface RoutedPoolOptions {
  /** Null: from the workers' cards. */
  readonly blockSize: number | null
  readonly strictBlockSize: boolean
  readonly useKvEvents: boolean
  /** How long a worker may be without an event source before its cache is assumed. */
  readonly kvEventGraceMs: number
}

export interface RoutedPoolParts {
  readonly endpoint: EndpointId
  /** Started. */
  readonly discovery: Discovery
  readonly client: RequestPlaneClient
  /** Null: neither KV events nor loads are followed. */
  readonly eventPlane: EventPlane | null
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly options: RoutedPoolOptions
  createRouter(facts: PoolFacts): Router
}

/** How long a worker may be without a card before the log says that it is refused. */
const cardGraceMs = 3000

export class RoutedPool {
  readonly endpoint: EndpointId
  readonly pool: WorkerPool
  /** A worker left; attempts there without output are to be failed. */
  onGone: ((workerId: WorkerId) => void) | null = null
  /** A worker came, or its card changed. */
  onWorker: (() => void) | null = null
  readonly #parts: RoutedPoolParts
  readonly #aside = new Set<WorkerId>()
  #directory: InstanceDirectory | null = null
  #follower: KvStateFollower | null = null
  #loads: LoadEventsFollower | null = null

  constructor(parts: RoutedPoolParts) {
    this.#parts = parts
    this.endpoint = parts.endpoint
    const { options, log } = parts
    this.pool = new WorkerPool({
      options: { blockSize: options.blockSize, strictBlockSize: options.strictBlockSize, cardGraceMs },
      log,
      createRouter: (facts) => parts.createRouter(facts),
      onWorker: (worker) => {
        this.#follower?.upsertWorker(worker)
        this.onWorker?.()
      },
      onWorkerGone: (workerId) => this.#follower?.removeWorker(workerId),
    })
  }

  /** Null until the first worker that can be used. */
  get router(): Router | null {
    return this.pool.router
  }

  get directory(): InstanceDirectory | null {
    return this.#directory
  }

  get follower(): KvStateFollower | null {
    return this.#follower
  }

  /** Begins to follow discovery and events. */
  start(): void {
    const { discovery, eventPlane, options, endpoint, client, clock, log, random } = this.#parts
    const directory = new InstanceDirectory({ discovery, endpoint, clock, log })
    this.#directory = directory
    if (eventPlane !== null) {
      if (options.useKvEvents) {
        this.#follower = createKvStateFollower({
          endpoint, discovery, plane: eventPlane, client, clock, random, log, limits: { graceMs: options.kvEventGraceMs },
          sink: {
            applyEvent: (event) => this.router?.applyEvent(event) ?? 'invalid_block',
            resetRank: (rank) => this.router?.resetRank(rank),
            setIndexMode: (rank, mode) => this.router?.setIndexMode(rank, mode),
          },
        })
        this.#follower.start()
      }
      this.#loads = followLoadEvents({
        endpoint, plane: eventPlane, log,
        sink: {
          reportLoad: (rank, load) => this.router?.reportLoad(rank, load),
          prefillCompleted: (requestId) => this.router?.prefillCompleted(requestId) ?? false,
        },
      })
    }
    directory.onEvent((event) => this.#onInstance(event))
    for (const instance of directory.instances()) this.pool.upsert(instance, clock.nowMs())
  }

  /** Resolves when what stood in discovery at the start is known. */
  get firstSync(): Promise<void> {
    return this.#directory?.firstSync ?? Promise.resolve()
  }

  /** Bookings expire, and workers without a card are named; call every second. */
  tick(): void {
    this.router?.tick()
    this.pool.tick(this.#parts.clock.nowMs())
  }

  close(): void {
    this.#loads?.close()
    this.#follower?.close()
    this.#directory?.close()
  }

  lookup(workerId: WorkerId): InstanceRecord | undefined {
    return this.#directory?.get(workerId)?.record
  }

  card(workerId: WorkerId): ModelCard | null {
    return this.#directory?.get(workerId)?.card ?? null
  }

  setAside(workerId: WorkerId, forMs: number): void {
    this.#directory?.setAside(workerId, forMs)
    this.#aside.add(workerId)
  }

  /** Workers that are not to be chosen now. Shared: valid until the next call. */
  setAsideIds(): ReadonlySet<WorkerId> {
    for (const workerId of this.#aside) if (this.#directory?.isSetAside(workerId) !== true) this.#aside.delete(workerId)
    return this.#aside
  }

  #onInstance(event: InstanceEvent): void {
    const { instance } = event
    if (event.kind === 'removed') {
      this.pool.remove(instance.record.instanceId)
      this.onGone?.(instance.record.instanceId)
      this.#parts.client.forget(instance.record)
      return
    }
    if (event.kind === 'changed') this.#parts.client.forget(event.previous.record)
    this.pool.upsert(instance, this.#parts.clock.nowMs())
  }
}
