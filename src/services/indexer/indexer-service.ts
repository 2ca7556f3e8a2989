/** The indexer: engines are registered, their events followed, and who holds which prefix is answered. Source: router-algorithm 16.2. */
import { localBlockHashes } from '../../hashing/block-hashes.ts'
import type { ApplyStatus, RouterEvent } from '../../model/kv-event.ts'
import type { WorkerRank } from '../../model/worker.ts'
import type { JsonObject } from '../../ports.ts'
import { failure, okAnswer, type Answer } from '../answer.ts'
import { BodyError, hashesOf, maybe, required, textOf, tokensOf, u32Of, u64Of, withDefault } from '../body-fields.ts'
import { eventJson } from '../event-json.ts'
import { keyName, keyText, passesFilter, type PartitionKey } from '../partition-key.ts'
import type { DumpedPartition } from '../peer-dump.ts'
import { jsonBody, type Route } from '../routes.ts'
import { endpointProblem } from '../zmq-endpoint.ts'
import { IndexPartition } from './index-partition.ts'

/** A rank's event socket, as the service sees it. */
export interface Listener {
  readonly status: 'pending' | 'active' | 'failed'
  readonly lastError: string | null
  close(): void
}

export interface ListenerRequest {
  readonly rank: WorkerRank
  readonly endpoint: string
  readonly replayEndpoint: string | null
  readonly blockSize: number
  onEvent(event: RouterEvent): void
}

export interface IndexerOptions {
  /** Follows an engine's events from now on. */
  listen(request: ListenerRequest): Listener
  onApplied?(kind: RouterEvent['data']['kind'], status: ApplyStatus): void
  /** Begins the access log's file anew; left out: there is none. */
  reopenLog?(): void
}

interface Instance {
  readonly key: PartitionKey
  readonly listeners: Map<number, Listener & { readonly endpoint: string }>
}

/** Bounds: beyond them a registration is refused. */
const limits = { partitions: 1024, instances: 65_536, peers: 1024 } as const

export class IndexerService {
  readonly #options: IndexerOptions
  readonly #partitions = new Map<string, { readonly key: PartitionKey; readonly index: IndexPartition }>()
  readonly #instances = new Map<bigint, Instance>()
  readonly #peers = new Set<string>()

  constructor(options: IndexerOptions) {
    this.#options = options
  }

  get partitionCount(): number {
    return this.#partitions.size
  }

  get instanceCount(): number {
    return this.#instances.size
  }

  get entryCount(): number {
    return [...this.#partitions.values()].reduce((sum, { index }) => sum + index.entryCount, 0)
  }

  get bytes(): number {
    return [...this.#partitions.values()].reduce((sum, { index }) => sum + index.bytes, 0)
  }

  listenerCount(status: Listener['status']): number {
    let count = 0
    for (const { listeners } of this.#instances.values()) for (const listener of listeners.values()) if (listener.status === status) count += 1
    return count
  }

  // ---- Instances -----------------------------------------------------------------------------------------------------------

  register(body: JsonObject): Answer {
    const workerId = required(body, 'instance_id', u64Of)
    const endpoint = required(body, 'endpoint', textOf)
    const key = keyOf(body)
    const blockSize = required(body, 'block_size', u32Of)
    const dpRank = maybe(body, 'dp_rank', u32Of) ?? 0
    const replayEndpoint = maybe(body, 'replay_endpoint', textOf)
    const problem = endpointProblem(endpoint) ?? (replayEndpoint === null ? null : endpointProblem(replayEndpoint))
    return problem === null ? this.follow({ workerId, dpRank }, key, blockSize, endpoint, replayEndpoint) : failure(400, problem)
  }

  /** Follows an engine; the addresses were checked. */
  follow(rank: WorkerRank, key: PartitionKey, blockSize: number, endpoint: string, replayEndpoint: string | null): Answer {
    const { workerId, dpRank } = rank
    const known = this.#instances.get(workerId)
    if (known !== undefined && keyText(known.key) !== keyText(key)) return failure(409, `instance ${workerId} is already registered for ${keyName(known.key)}`)
    if (known?.listeners.has(dpRank) === true) return failure(409, `instance ${workerId} dp_rank ${dpRank} already registered`)
    if (blockSize === 0) return failure(400, 'block_size must be greater than 0')
    if (known === undefined && this.#instances.size >= limits.instances) return failure(503, `${limits.instances} instances are registered, the limit`)
    const index = this.#index(key, blockSize)
    if (!(index instanceof IndexPartition)) return index
    const instance = known ?? { key, listeners: new Map() }
    this.#instances.set(workerId, instance)
    const listener = this.#options.listen({ rank, endpoint, replayEndpoint, blockSize, onEvent: (event) => this.#apply(index, event) })
    instance.listeners.set(dpRank, Object.assign(listener, { endpoint }))
    return okAnswer(201)
  }

  #index(key: PartitionKey, blockSize: number): IndexPartition | Answer {
    const partition = this.#partitions.get(keyText(key))
    if (partition === undefined) {
      if (this.#partitions.size >= limits.partitions) return failure(503, `${limits.partitions} models and routing groups are registered, the limit`)
      const index = new IndexPartition(blockSize)
      this.#partitions.set(keyText(key), { key, index })
      return index
    }
    const { index } = partition
    return index.blockSize === blockSize ? index : failure(409, `block_size mismatch for ${keyName(key)}: existing=${index.blockSize}, requested=${blockSize}`)
  }

  #apply(index: IndexPartition, event: RouterEvent): void {
    const status = index.apply(event)
    this.#options.onApplied?.(event.data.kind, status)
  }

  unregister(body: JsonObject): Answer {
    const workerId = required(body, 'instance_id', u64Of)
    const model = required(body, 'model_name', textOf)
    const group = maybe(body, 'routing_group', textOf)
    // A rank counts only where the group is named, as in the original.
    const dpRank = group === null ? null : maybe(body, 'dp_rank', u32Of)
    const instance = this.#instances.get(workerId)
    if (instance === undefined) return failure(404, `instance ${workerId} not found`)
    if (instance.key.model !== model || (group !== null && instance.key.group !== group)) return failure(404, `instance ${workerId} is registered for ${keyName(instance.key)}`)
    if (dpRank !== null && !instance.listeners.has(dpRank)) return failure(404, `instance ${workerId} dp_rank ${dpRank} not found`)
    for (const rank of dpRank === null ? [...instance.listeners.keys()] : [dpRank]) {
      instance.listeners.get(rank)?.close()
      instance.listeners.delete(rank)
    }
    const index = this.#partitions.get(keyText(instance.key))?.index
    if (instance.listeners.size > 0) index?.dropRank({ workerId, dpRank: dpRank! })
    else {
      index?.dropWorker(workerId)
      this.#instances.delete(workerId)
      this.#dropEmpty(instance.key)
    }
    return okAnswer()
  }

  #dropEmpty(key: PartitionKey): void {
    for (const other of this.#instances.values()) if (keyText(other.key) === keyText(key)) return
    this.#partitions.delete(keyText(key))
  }

  workers(query: ReadonlyMap<string, string>): Answer {
    const body = [...this.#instances].filter(([, { key }]) => passesFilter(key, query)).map(([workerId, { key, listeners }]) => {
      const shown = [...listeners].map(([rank, { endpoint, status, lastError }]) => [rank, { endpoint, status, ...(lastError === null ? {} : { last_error: lastError }) }] as const)
      const statuses = shown.map(([, { status }]) => status)
      return {
        instance_id: workerId, source: 'zmq', status: statuses.find((each) => each === 'failed') ?? statuses.find((each) => each === 'pending') ?? 'active',
        model_name: key.model, routing_group: key.group, block_size: this.#partitions.get(keyText(key))?.index.blockSize ?? 0,
        endpoints: Object.fromEntries(shown.map(([rank, { endpoint }]) => [rank, endpoint])), listeners: Object.fromEntries(shown),
      }
    })
    return { status: 200, body }
  }

  // ---- Questions -----------------------------------------------------------------------------------------------------------

  query(body: JsonObject): Answer {
    const tokens = required(body, 'token_ids', tokensOf)
    const key = keyOf(body)
    const loraName = maybe(body, 'lora_name', textOf)
    const cacheNamespace = maybe(body, 'cache_salt', textOf)
    return this.#ask(key, (index) => index.query(localBlockHashes(tokens, { blockSize: index.blockSize, loraName, cacheNamespace })))
  }

  queryByHash(body: JsonObject): Answer {
    const hashes = required(body, 'block_hashes', hashesOf)
    if (maybe(body, 'cache_salt', textOf) !== null) {
      throw new BodyError(400, 'cache_salt is not accepted by /query_by_hash; block_hashes must already include the intended cache salt')
    }
    return this.#ask(keyOf(body), (index) => index.query(hashes))
  }

  #ask(key: PartitionKey, answer: (index: IndexPartition) => unknown): Answer {
    const index = this.#partitions.get(keyText(key))?.index
    return index === undefined ? failure(404, `no indexer for ${keyName(key)}`) : { status: 200, body: answer(index) }
  }

  dump(): Answer {
    const entries = [...this.#partitions.values()].map(({ key, index }) => [`${key.model}:${key.group}`, { block_size: index.blockSize, events: Array.from(index.dump(), eventJson) }] as const)
    return { status: 200, body: Object.fromEntries(entries) }
  }

  /** Takes a peer's index over. */
  recover(partitions: readonly DumpedPartition[]): void {
    for (const { key, blockSize, events } of partitions) {
      const index = this.#index(key, blockSize)
      if (index instanceof IndexPartition) for (const event of events) this.#apply(index, event)
    }
  }

  // ---- Peers ---------------------------------------------------------------------------------------------------------------

  addPeer(body: JsonObject): Answer {
    const url = required(body, 'url', textOf)
    if (this.#peers.size >= limits.peers && !this.#peers.has(url)) return failure(503, `${limits.peers} peers are registered, the limit`)
    this.#peers.add(url)
    return okAnswer(201)
  }

  removePeer(body: JsonObject): Answer {
    return this.#peers.delete(required(body, 'url', textOf)) ? okAnswer() : failure(404, 'peer not found')
  }

  get peers(): readonly string[] {
    return [...this.#peers]
  }

  reopenLog(): Answer {
    try {
      this.#options.reopenLog?.()
      return okAnswer()
    } catch (error) {
      return failure(500, error instanceof Error ? error.message : String(error))
    }
  }

  close(): void {
    for (const { listeners } of this.#instances.values()) for (const listener of listeners.values()) listener.close()
  }
}

const keyOf = (body: JsonObject): PartitionKey => ({ model: required(body, 'model_name', textOf), group: withDefault(body, 'routing_group', textOf, 'default') })

/** The indexer over HTTP. */
export function indexerRoutes(service: IndexerService): Route[] {
  const post = (pattern: string, answer: (body: JsonObject) => Answer): Route => ({ method: 'POST', pattern, handle: (call) => answer(jsonBody(call)) })
  const get = (pattern: string, answer: (query: ReadonlyMap<string, string>) => Answer): Route => ({ method: 'GET', pattern, handle: ({ query }) => answer(query) })
  return [
    post('/register', (body) => service.register(body)),
    post('/unregister', (body) => service.unregister(body)),
    get('/workers', (query) => service.workers(query)),
    post('/query', (body) => service.query(body)),
    post('/query_by_hash', (body) => service.queryByHash(body)),
    get('/dump', () => service.dump()),
    post('/register_peer', (body) => service.addPeer(body)),
    post('/deregister_peer', (body) => service.removePeer(body)),
    get('/peers', () => ({ status: 200, body: service.peers })),
    get('/health', () => ({ status: 200, body: null, text: { type: 'text/plain', content: '' } })),
    { method: 'POST', pattern: '/reopen_logs', handle: () => service.reopenLog() },
  ]
}
