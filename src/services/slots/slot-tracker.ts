/** The slot tracker: workers and requests are told to it, it answers what they occupy. Source: router-algorithm 16.3. */
import type { ActiveSequenceEvent } from '../../dynamo/wire/active-sequences.ts'
import { noHashes } from '../../model/hash-list.ts'
import type { JsonObject } from '../../ports.ts'
import { ranksPerWorkerMax } from '../../router/worker-directory.ts'
import { failure, okAnswer, type Answer } from '../answer.ts'
import { countOf, hashesOf, required, textOf, u32Of, u64Of, withDefault } from '../body-fields.ts'
import { compareKeys, keyName, keyText, passesFilter, type PartitionKey } from '../partition-key.ts'
import { peerRoutes, type PeerBook } from '../peer-routes.ts'
import type { Replication } from '../replication.ts'
import { jsonBody, type Route } from '../routes.ts'
import { SlotPartition, type SlotLoad } from './slot-partition.ts'

/** Most models and routing groups; a further one is refused. */
const partitionsMax = 4096

export interface SlotTrackerOptions {
  nowMs(): number
  readonly expirySeconds: number
  /** Null: no replicas are told. */
  readonly replication: Replication | null
}

/** What is under way, for metrics. */
export interface SlotReading {
  readonly partitions: number
  readonly workers: number
  readonly requests: number
  readonly refusals: number
}

interface Entry {
  readonly key: PartitionKey
  readonly slots: SlotPartition
}

const keyOf = (body: JsonObject): PartitionKey => ({ model: required(body, 'model_name', textOf), group: withDefault(body, 'routing_group', textOf, 'default') })

export class SlotTracker {
  readonly #options: SlotTrackerOptions
  readonly #partitions = new Map<string, Entry>()

  constructor(options: SlotTrackerOptions) {
    this.#options = options
  }

  get reading(): SlotReading {
    const all = [...this.#partitions.values()]
    const sum = (count: (slots: SlotPartition) => number): number => all.reduce((total, { slots }) => total + count(slots), 0)
    return { partitions: all.length, workers: sum(({ workers }) => workers.length), requests: sum(({ requestCount }) => requestCount), refusals: sum(({ refusals }) => refusals) }
  }

  register(body: JsonObject): Answer {
    const workerId = required(body, 'worker_id', u64Of)
    const key = keyOf(body)
    const blockSize = required(body, 'block_size', u32Of)
    const dpStart = required(body, 'dp_start', u32Of)
    const dpSize = required(body, 'dp_size', u32Of)
    if (blockSize === 0) return failure(400, 'block_size must be greater than 0')
    if (dpSize === 0) return failure(400, 'dp_size must be greater than 0')
    if (dpSize > ranksPerWorkerMax) return failure(400, `dp_size ${dpSize} exceeds the maximum ${ranksPerWorkerMax}`)
    if (dpStart + dpSize > 0xffff_ffff) return failure(400, `dp range overflows u32: start=${dpStart} size=${dpSize}`)
    const known = this.#partitions.get(keyText(key))
    if (known !== undefined && known.slots.blockSize !== blockSize) {
      return failure(409, `block_size mismatch for ${keyName(key)}: existing=${known.slots.blockSize}, requested=${blockSize}`)
    }
    if (known === undefined && this.#partitions.size >= partitionsMax) return failure(503, `${partitionsMax} models and routing groups are registered, the limit`)
    const entry = known ?? this.#addPartition(key, blockSize)
    return entry.slots.register({ workerId, dpStart, dpSize }) ? okAnswer(201) : failure(409, `worker ${workerId} already registered for ${keyName(key)}`)
  }

  #addPartition(key: PartitionKey, blockSize: number): Entry {
    const { replication, expirySeconds } = this.#options
    const entry = { key, slots: new SlotPartition(blockSize, 1000 * expirySeconds, replication === null ? null : (rankOf) => replication.listener(key, blockSize, rankOf)) }
    this.#partitions.set(keyText(key), entry)
    return entry
  }

  unregister(body: JsonObject): Answer {
    const workerId = required(body, 'worker_id', u64Of)
    const key = keyOf(body)
    const entry = this.#partitions.get(keyText(key))
    if (entry?.slots.unregister(workerId) !== true) return failure(404, `worker ${workerId} not found for ${keyName(key)}`)
    if (entry.slots.workers.length === 0) this.#partitions.delete(keyText(key))
    return okAnswer()
  }

  workers(query: ReadonlyMap<string, string>): Answer {
    const body = this.#matching(query).flatMap(({ key, slots }) => slots.workers.map(({ workerId, dpStart, dpSize }) => ({
      worker_id: workerId, model_name: key.model, routing_group: key.group, block_size: slots.blockSize, dp_start: dpStart, dp_size: dpSize,
    })))
    return { status: 200, body }
  }

  add(body: JsonObject): Answer {
    const key = keyOf(body)
    const requestId = required(body, 'request_id', textOf)
    const rank = { workerId: required(body, 'worker_id', u64Of), dpRank: required(body, 'dp_rank', u32Of) }
    const sequence = required(body, 'sequence_hashes', hashesOf)
    const promptTokens = withDefault(body, 'new_isl_tokens', countOf, 0)
    const entry = this.#entry(key)
    if ('status' in entry) return entry
    const outcome = entry.slots.add({ requestId, rank, sequence, promptTokens }, this.#options.nowMs())
    const place = ({ workerId, dpRank }: typeof rank): string => `WorkerWithDpRank { worker_id: ${workerId}, dp_rank: ${dpRank} }`
    if (outcome === 'unknown-rank') return failure(404, `Worker ${place(rank)} not found`)
    if (outcome === 'duplicate') return failure(409, `Request ${requestId} already exists (assigned to worker ${place(entry.slots.rankOf(requestId) ?? rank)})`)
    if (outcome === 'full') return failure(503, 'too many requests are tracked, the limit; free those that have ended')
    entry.slots.listener?.onBooked({
      requestId, rank, sequence, promptTokens, prefillTokens: promptTokens, trackPrefillTokens: promptTokens > 0, expectedOutputTokens: null, loraName: null,
    })
    return okAnswer(201)
  }

  prefillComplete(body: JsonObject): Answer {
    const requestId = required(body, 'request_id', textOf)
    const entry = this.#entry(keyOf(body))
    if ('status' in entry) return entry
    if (!entry.slots.prefillCompleted(requestId)) return failure(404, `Request ${requestId} not found`)
    entry.slots.listener?.onPrefillCompleted(requestId)
    return okAnswer()
  }

  /** Unknown requests are as good as ended. */
  free(body: JsonObject): Answer {
    const requestId = required(body, 'request_id', textOf)
    const entry = this.#entry(keyOf(body))
    if ('status' in entry) return entry
    if (entry.slots.free(requestId)) entry.slots.listener?.onEnded(requestId)
    return okAnswer()
  }

  loads(query: ReadonlyMap<string, string>): Answer {
    const body = this.#matching(query).flatMap(({ key, slots }) => slots.loads().map((row) => ({
      model_name: key.model, routing_group: key.group, worker_id: row.workerId, dp_rank: row.dpRank,
      active_prefill_tokens: row.activePrefillTokens, active_decode_blocks: row.activeDecodeBlocks,
    })))
    return { status: 200, body }
  }

  potentialLoads(body: JsonObject): Answer {
    const sequence = required(body, 'sequence_hashes', hashesOf)
    const promptTokens = withDefault(body, 'new_isl_tokens', countOf, 0)
    const entry = this.#entry(keyOf(body))
    if ('status' in entry) return entry
    return {
      status: 200,
      body: entry.slots.project(sequence).map((row: SlotLoad) => ({
        worker_id: row.workerId, dp_rank: row.dpRank, potential_prefill_tokens: row.activePrefillTokens + promptTokens,
        potential_decode_blocks: row.activeDecodeBlocks, active_requests: row.activeRequests,
      })),
    }
  }

  /** What a replica tracks, or has ended. False: of an unknown partition, worker or request, or known already. */
  applyReplicaEvent(key: PartitionKey, blockSize: number, { requestId, workerId, dpRank, data }: ActiveSequenceEvent): boolean {
    const entry = this.#partitions.get(keyText(key))
    if (entry === undefined || entry.slots.blockSize !== blockSize) return false
    const { slots } = entry
    if (data.kind === 'add_request') {
      const promptTokens = data.trackPrefillTokens ? data.prefillLoadHint?.initialEffectivePrefillTokens ?? 0 : 0
      return slots.add({ requestId, rank: { workerId, dpRank }, sequence: data.tokenSequence ?? noHashes, promptTokens }, this.#options.nowMs()) === 'booked'
    }
    const rank = slots.rankOf(requestId)
    if (rank?.workerId !== workerId || rank.dpRank !== dpRank) return false
    return data.kind === 'free' ? slots.free(requestId) : slots.prefillCompleted(requestId)
  }

  /** Drops requests without a sign of life; call every second or so. */
  tick(): void {
    for (const { slots } of this.#partitions.values()) slots.expire(this.#options.nowMs())
  }

  #entry(key: PartitionKey): Entry | Answer {
    return this.#partitions.get(keyText(key)) ?? failure(404, `no slot tracker for ${keyName(key)}`)
  }

  #matching(query: ReadonlyMap<string, string>): Entry[] {
    return [...this.#partitions.values()].filter(({ key }) => passesFilter(key, query)).sort((a, b) => compareKeys(a.key, b.key))
  }
}

/** The slot tracker over HTTP. `peers`: null where replicas are not told. */
export function slotRoutes(tracker: SlotTracker, peers: PeerBook | null): Route[] {
  const post = (pattern: string, answer: (body: JsonObject) => Answer): Route => ({ method: 'POST', pattern, handle: (call) => answer(jsonBody(call)) })
  return [
    post('/register', (body) => tracker.register(body)),
    post('/unregister', (body) => tracker.unregister(body)),
    { method: 'GET', pattern: '/workers', handle: ({ query }) => tracker.workers(query) },
    post('/add', (body) => tracker.add(body)),
    post('/prefill_complete', (body) => tracker.prefillComplete(body)),
    post('/free', (body) => tracker.free(body)),
    { method: 'GET', pattern: '/loads', handle: ({ query }) => tracker.loads(query) },
    post('/potential_loads', (body) => tracker.potentialLoads(body)),
    { method: 'GET', pattern: '/health', handle: () => ({ status: 200, body: null, text: { type: 'text/plain', content: '' } }) },
    ...peerRoutes(peers),
  ]
}
