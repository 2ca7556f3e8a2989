/**
 * The workers of one pool, ready to be routed to: instances and cards from discovery, a router over them, and the KV events
 * and loads that feed it. A pool has one endpoint, or several whose workers serve the same.
 */
import { AffinityTable, type AffinityRules } from '../affinity/affinity-table.ts'
import type { RouterEvent } from '../model/kv-event.ts'
import type { Decision } from '../model/decision.ts'
import type { Failure } from '../model/failure.ts'
import type { WorkerDescription, WorkerId, WorkerRank } from '../model/worker.ts'
import type { StateKeeper, StateKeeperParts } from '../state/state-keeper.ts'
import type { DurableEvents, DurableSink } from '../dynamo/durable/durable-events.ts'
import { NoJetStreamError } from '../dynamo/durable/jetstream-store.ts'
import type { Clock, Discovery, EndpointId, EventPlane, InstanceRecord, Log, Random, RequestPlaneClient } from '../ports.ts'
import type { Router } from '../router/contract.ts'
import type { ModelCard } from '../dynamo/cards/model-card.ts'
import { endpointPrefix } from '../dynamo/discovery/store-key.ts'
import { InstanceDirectory, type InstanceEvent, type KnownInstance } from '../dynamo/instances/instance-directory.ts'
import { createKvStateFollower, type DoubtSign, type KvStateFollower } from '../dynamo/kv-state/kv-state-follower.ts'
import { followLoadEvents, type LoadEventsFollower } from '../dynamo/kv-state/load-events.ts'
import { PoolReplicas, type MemberReplicas } from '../replicas/pool-replicas.ts'
import { RemoteIndex } from '../replicas/remote-index.ts'
import { WorkerPool, type PoolFacts } from './pool.ts'

export interface RoutedPoolOptions {
  /** Null: from the workers' cards. */
  readonly blockSize: number | null
  readonly strictBlockSize: boolean
  readonly useKvEvents: boolean
  /** How long a worker may be without an event source before its cache is assumed. */
  readonly kvEventGraceMs: number
  /** Load and bindings of sessions are shared with the other routers of these workers. */
  readonly replicaSync?: boolean
  /** Another router's index is asked instead of keeping an own one. */
  readonly useRemoteIndexer?: boolean
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
  /** How sessions are bound to workers of this pool; null or left out: not. Asked when the router is made. */
  affinityOf?(facts: PoolFacts): AffinityRules | null
  /** Follows durable KV events of an endpoint's component; null or left out: not. */
  durableEvents?: ((endpoint: EndpointId, sink: DurableSink) => DurableEvents) | null
  /** A worker of this endpoint publishes where nobody looks, as it seems: in JetStream. */
  onUnread?: ((endpoint: EndpointId) => void) | null
  /** Keeps on disk what cannot be asked again; null or left out: nothing is kept. */
  stateOf?: ((sources: Pick<StateKeeperParts, 'endpoint' | 'router' | 'liveOnly' | 'appliedEvents'>) => StateKeeper) | null
  /** Instances that may be used; left out: all. Call `recheck` when its answers have changed. */
  accepts?(instance: KnownInstance): boolean
}

export interface PoolAffinity extends AffinityRules {
  readonly table: AffinityTable
}

/** What is followed of one endpoint. */
interface Member {
  readonly endpoint: EndpointId
  readonly directory: InstanceDirectory
  readonly follower: KvStateFollower | null
  readonly loads: LoadEventsFollower | null
  readonly replicas: MemberReplicas | null
  readonly durable: DurableEvents | null
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
  #affinity: PoolAffinity | null = null
  /** Null: every router counts alone. */
  readonly replicas: PoolReplicas | null
  /** Null: the pool has an index of its own. */
  readonly remote: RemoteIndex | null
  readonly #aside = new Set<WorkerId>()
  readonly #members = new Map<string, Member>()
  /** State on disk of the first endpoint's workers; null: none is kept. */
  readonly state: StateKeeper | null
  #isStarted = false

  constructor(parts: RoutedPoolParts) {
    this.#parts = parts
    this.endpoint = parts.endpoint
    const { options, log, eventPlane } = parts
    this.replicas = options.replicaSync === true && eventPlane !== null ? new PoolReplicas({
      ...parts, plane: eventPlane, router: () => this.router, table: () => this.#affinity?.table ?? null, memberOf: (workerId) => this.#memberOf(workerId)?.replicas ?? null,
    }) : null
    this.remote = options.useRemoteIndexer === true ? new RemoteIndex({
      ...parts, workers: parts.endpoint, isApproximate: !options.useKvEvents, router: () => this.router, modelName: () => this.pool.facts?.modelName ?? null,
    }) : null
    this.state = parts.stateOf?.({
      endpoint: parts.endpoint, router: () => this.router, liveOnly: (rank) => this.follower?.liveOnlyEventId(rank) ?? null,
      appliedEvents: () => Object.values(this.follower?.stats().applied ?? {}).reduce((sum, byStatus) => sum + byStatus.ok, 0),
    }) ?? null
    this.pool = new WorkerPool({
      options: { blockSize: options.blockSize, strictBlockSize: options.strictBlockSize, cardGraceMs },
      log,
      createRouter: (facts) => {
        this.#bindSessions(parts.affinityOf?.(facts) ?? null)
        const router = parts.createRouter(this.remote === null ? facts : { ...facts, remoteOverlap: this.remote.overlap })
        this.replicas?.attach(router)
        return router
      },
      onWorker: (worker) => {
        const member = this.#memberOf(worker.workerId)
        member?.follower?.upsertWorker(worker)
        member?.durable?.workerKnown(worker.workerId)
        this.#giveBack(worker, member?.follower ?? null)
        member?.replicas?.workerAdded(worker.workerId)
        this.onWorker?.()
      },
      onWorkerGone: (workerId) => {
        this.#affinity?.table.dropWorker(workerId)
        for (const { follower, replicas } of this.#members.values()) {
          follower?.removeWorker(workerId)
          replicas?.workerGone(workerId)
        }
      },
    })
  }

  /** What the state on disk says of a new worker. */
  #giveBack(worker: WorkerDescription, follower: KvStateFollower | null): void {
    const { state } = this
    if (state === null) return
    if (follower === null) return state.workerKnown(worker)
    for (let dpRank = worker.dpStart; dpRank < worker.dpStart + worker.dpSize; dpRank += 1) {
      const rank = { workerId: worker.workerId, dpRank }
      if (state.wasApproximate(rank)) follower.wasApproximate(rank)
    }
  }

  #setIndexMode(endpoint: EndpointId, rank: WorkerRank, mode: 'events' | 'approximate'): void {
    const { durableEvents, onUnread } = this.#parts
    if (mode === 'approximate' && (durableEvents ?? null) === null && this.card(rank.workerId)?.enableLocalIndexer === false) onUnread?.(endpoint)
    this.router?.setIndexMode(rank, mode)
    if (mode === 'approximate') this.state?.restoreApproximate(rank)
  }

  /** Null until the first worker that can be used. */
  get router(): Router | null {
    return this.pool.router
  }

  /** Bindings of sessions to this pool's workers; null: none are made. */
  get affinity(): PoolAffinity | null {
    return this.#affinity
  }

  #bindSessions(rules: AffinityRules | null): void {
    if (rules?.ttlMs === this.#affinity?.ttlMs && rules?.mode === this.#affinity?.mode) return
    const { discovery } = this.#parts
    this.#affinity = rules === null ? null : { ...rules, table: new AffinityTable({ ttlMs: rules.ttlMs, writerId: discovery.instanceId, ...this.replicas?.affinityOptions }) }
  }

  /** Of the first endpoint. */
  get directory(): InstanceDirectory | null {
    return this.#members.get(endpointPrefix(this.endpoint))?.directory ?? null
  }

  /** Of the first endpoint. */
  get follower(): KvStateFollower | null {
    return this.#members.get(endpointPrefix(this.endpoint))?.follower ?? null
  }

  /** Begins to follow discovery and events. */
  start(): void {
    this.#isStarted = true
    this.addEndpoint(this.endpoint)
  }

  /** Workers of this endpoint belong to the pool too. Instance ids that another endpoint has already are left to it. */
  addEndpoint(endpoint: EndpointId): void {
    const key = endpointPrefix(endpoint)
    if (!this.#isStarted || this.#members.has(key)) return
    const { clock, discovery, log } = this.#parts
    const directory = new InstanceDirectory({ discovery, endpoint, clock, log })
    const member: Member = { endpoint, directory, ...this.#followEvents(endpoint) }
    this.#members.set(key, member)
    directory.onEvent((event) => this.#onInstance(member, event))
    for (const instance of directory.instances()) this.#upsert(member, instance)
  }

  /** Not the first one: the pool ends with it. */
  removeEndpoint(endpoint: EndpointId): void {
    const key = endpointPrefix(endpoint)
    const member = this.#members.get(key)
    if (member === undefined || key === endpointPrefix(this.endpoint)) return
    for (const instance of member.directory.instances()) this.#remove(member, instance)
    this.#members.delete(key)
    closeMember(member)
  }

  /** Asks `accepts` again for every instance. */
  recheck(): void {
    for (const member of this.#members.values()) {
      for (const instance of member.directory.instances()) {
        const { instanceId } = instance.record
        const isUsed = this.router?.worker(instanceId) !== undefined && this.#memberOf(instanceId) === member
        if (isUsed !== this.#accepts(instance)) {
          if (isUsed) this.#remove(member, instance)
          else this.#upsert(member, instance)
        }
      }
    }
  }

  #followEvents(endpoint: EndpointId): Pick<Member, 'follower' | 'loads' | 'replicas' | 'durable'> {
    const { discovery, eventPlane, options, client, clock, log, random } = this.#parts
    if (eventPlane === null) return { follower: null, loads: null, replicas: null, durable: null }
    const follower = options.useKvEvents && this.remote === null ? createKvStateFollower({
      endpoint, discovery, plane: eventPlane, client, clock, random, log, limits: { graceMs: options.kvEventGraceMs },
      takeKept: (rank) => this.state?.takeLiveOnly(rank) ?? null,
      sink: {
        applyEvent: (event) => this.router?.applyEvent(event) ?? 'invalid_block',
        resetRank: (rank) => this.router?.resetRank(rank),
        setIndexMode: (rank, mode) => this.#setIndexMode(endpoint, rank, mode),
      },
    }) : null
    follower?.start()
    const replicas = this.replicas?.open(endpoint) ?? null
    const loads = followLoadEvents({
      endpoint, plane: eventPlane, log,
      sink: {
        reportLoad: (rank, load) => this.router?.reportLoad(rank, load),
        prefillCompleted: (requestId) => this.router?.prefillCompleted(requestId) ?? false,
        ...(replicas === null ? {} : { sequences: (envelope, events) => replicas.bookings.apply(envelope, events) }),
      },
    })
    const durable = follower === null ? null : this.#parts.durableEvents?.(endpoint, this.#durableSink(endpoint, follower)) ?? null
    return { follower, loads, replicas, durable }
  }

  #durableSink(endpoint: EndpointId, follower: KvStateFollower): DurableSink {
    const key = endpointPrefix(endpoint)
    return {
      apply: (event) => follower.applyDurable(event),
      hasWorkers: () => (this.router?.workerCount ?? 0) > 0,
      hasOldestWorker: () => [...(this.#members.get(key)?.directory.instances() ?? [])].some(({ card }) => card !== null && !card.declaresRole),
      dump: () => this.#dumpDurable(follower),
      hearsOthersOnly: () => {
        const { sources, approximateRanks } = follower.stats()
        return sources > 0 && approximateRanks === 0 && follower.durableRanks().length === 0
      },
      reset: () => { for (const rank of follower.durableRanks()) this.router?.resetRank(rank) },
    }
  }

  *#dumpDurable(follower: KvStateFollower): Iterable<readonly RouterEvent[]> {
    for (const rank of follower.durableRanks()) {
      const blocks = this.router?.rankBlocks.dump(rank) ?? []
      yield blocks.filter(({ tier }) => tier === 'device').map(({ tier, data }) => ({ ...rank, storageTier: tier, residencyDomain: 'absent' as const, eventId: 0n, data }))
    }
  }

  /** Resolves when what stood in discovery at the start is known. */
  get firstSync(): Promise<void> {
    return this.directory?.firstSync ?? Promise.resolve()
  }

  /** Begins with durable events, and resolves when their state of before is known. Errors: those of `DurableEvents.start`. */
  async startDurable(signal: AbortSignal): Promise<void> {
    await Promise.all([...this.#members.values()].map(({ durable }) => (durable === null ? null : this.#startOne(durable, signal))))
  }

  /** Without JetStream, what is kept on disk stands in. */
  async #startOne(durable: DurableEvents, signal: AbortSignal): Promise<void> {
    try {
      await durable.start(signal)
    } catch (error) {
      if (this.state === null || !(error instanceof NoJetStreamError)) throw error
      this.#parts.log.warn({ stage: 'durable', reason: error.message }, '--router-durable-kv-events: the NATS server has no JetStream; the snapshot in --state-dir is kept instead, and workers that publish only there are indexed approximately')
      await durable.close()
    }
  }

  /** Of the first endpoint. */
  get durable(): DurableEvents | null {
    return this.#members.get(endpointPrefix(this.endpoint))?.durable ?? null
  }

  /** Before discovery and NATS are closed. Errors: none. */
  async endDurable(): Promise<void> {
    await this.state?.write()
    await Promise.all([...this.#members.values()].map(({ durable }) => durable?.close()))
  }

  /** Bookings expire, and workers without a card are named; call every second. */
  tick(): void {
    this.setAsideIds()
    this.router?.tick()
    this.state?.tick()
    this.#affinity?.table.tick(this.#parts.clock.nowMs())
    this.pool.tick(this.#parts.clock.nowMs())
  }

  close(): void {
    this.remote?.close()
    for (const member of this.#members.values()) closeMember(member)
    this.#members.clear()
  }

  lookup(workerId: WorkerId): InstanceRecord | undefined {
    return this.#memberOf(workerId)?.directory.get(workerId)?.record
  }

  card(workerId: WorkerId): ModelCard | null {
    return this.#memberOf(workerId)?.directory.get(workerId)?.card ?? null
  }

  /** After a failed call. Whoever may be gone has to show what it still holds. A connection of ours that is lost speaks against nobody. */
  setAside(workerId: WorkerId, forMs: number, failure: Failure): void {
    if (failure.linkLost === true) return
    const member = this.#memberOf(workerId)
    member?.directory.setAside(workerId, forMs)
    this.#aside.add(workerId)
    if (failure.class !== 'CapacityExhausted') this.#doubt(workerId, member?.follower ?? null, doubtSignOf(failure))
  }

  /** What an answer says of a worker's cache, of which the index expected something. */
  reused({ workerId, dpRank, deviceBlocks }: Decision, reportedTokens: number): void {
    const blockSize = this.router?.settings.blockSize
    if (blockSize === undefined || deviceBlocks === 0) return
    this.#memberOf(workerId)?.follower?.reused({ workerId, dpRank }, { expectedTokens: deviceBlocks * blockSize, reportedTokens, blockSize })
  }

  #doubt(workerId: WorkerId, follower: KvStateFollower | null, sign: DoubtSign): void {
    if (follower !== null) return follower.doubt(workerId, sign)
    const worker = this.router?.worker(workerId)
    if (worker === undefined || sign === 'failed') return
    for (let dpRank = worker.dpStart; dpRank < worker.dpStart + worker.dpSize; dpRank += 1) this.router?.resetRank({ workerId, dpRank })
  }

  /** Workers that are not to be chosen now. One set for the pool's life, current after each call. */
  setAsideIds(): ReadonlySet<WorkerId> {
    for (const workerId of this.#aside) if (this.#memberOf(workerId)?.directory.isSetAside(workerId) !== true) this.#aside.delete(workerId)
    return this.#aside
  }

  #memberOf(workerId: WorkerId): Member | undefined {
    for (const member of this.#members.values()) {
      const instance = member.directory.get(workerId)
      if (instance !== undefined && this.#accepts(instance)) return member
    }
    return undefined
  }

  #accepts(instance: KnownInstance): boolean {
    return this.#parts.accepts?.(instance) ?? true
  }

  #onInstance(member: Member, event: InstanceEvent): void {
    const { instance } = event
    if (event.kind === 'removed') {
      this.#remove(member, instance)
      this.#parts.client.forget(instance.record)
      return
    }
    if (event.kind === 'changed') this.#parts.client.forget(event.previous.record)
    this.#upsert(member, instance)
  }

  #upsert(member: Member, instance: KnownInstance): void {
    const { instanceId } = instance.record
    if (!this.#accepts(instance)) this.#remove(member, instance)
    else if (this.#memberOf(instanceId) === member) this.pool.upsert(instance, this.#parts.clock.nowMs())
  }

  #remove(member: Member, instance: KnownInstance): void {
    const { instanceId } = instance.record
    const owner = this.#memberOf(instanceId)
    if (owner !== undefined && owner !== member) return
    this.pool.remove(instanceId)
    this.onGone?.(instanceId)
  }
}

function doubtSignOf({ reason }: Failure): DoubtSign {
  if (reason === 'transport.cannot_connect') return 'unreachable'
  return reason === 'transport.disconnected' ? 'disconnected' : 'failed'
}

function closeMember({ loads, follower, directory, replicas }: Member): void {
  loads?.close()
  replicas?.close()
  follower?.close()
  directory.close()
}
