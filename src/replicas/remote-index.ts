/**
 * The index of another router instead of an own one: `--use-remote-indexer`. Each prompt is asked for over the request plane before its worker
 * is chosen; without an answer in time it is routed by load alone.
 */
import { localBlockHashes } from '../hashing/block-hashes.ts'
import type { HashList } from '../model/hash-list.ts'
import type { WorkerRank } from '../model/worker.ts'
import type { CallHandle, Clock, Codec, Discovery, EndpointId, InstanceRecord, Log, Random, RequestPlaneClient } from '../ports.ts'
import { InstanceDirectory } from '../dynamo/instances/instance-directory.ts'
import {
  decodeIndexerAnswer, decodeIndexerRecorded, encodeIndexerQuestion, encodeIndexerRecord, indexerQueryEndpoint, indexerRecordEndpoint, type IndexedRank,
} from '../dynamo/wire/indexer.ts'
import { WireError } from '../dynamo/wire/wire-error.ts'
import type { OverlapQuery, Router } from '../router/contract.ts'
import type { RemoteOverlap } from '../router/remote-overlap.ts'

export interface RemoteIndexParts {
  /** The workers' endpoint: the index is looked for beside it. */
  readonly workers: EndpointId
  readonly discovery: Discovery
  readonly client: RequestPlaneClient
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** Others are told what is routed here: the index has no events. */
  readonly isApproximate: boolean
  router(): Router | null
  modelName(): string | null
}

export interface RemoteIndexStats {
  queries: number
  queryFailures: number
  writeFailures: number
}

/** Longest wait for an answer. */
const answerMs = 1000
/** An instance that failed is not asked for so long, when there are others. */
const asideMs = 2000
/** Questions and records under way at a time; beyond it prompts go without. */
const openMax = 4096
const warnEveryMs = 10_000

export class RemoteIndex {
  readonly stats: RemoteIndexStats = { queries: 0, queryFailures: 0, writeFailures: 0 }
  /** For the router: what was answered, while a worker is being chosen. */
  readonly overlap: RemoteOverlap & { rows: readonly IndexedRank[] | null }
  readonly #parts: RemoteIndexParts
  readonly #queryInstances: InstanceDirectory
  readonly #recordInstances: InstanceDirectory | null
  #open = 0
  #turn = 0
  #warnedMs = -Infinity

  constructor(parts: RemoteIndexParts) {
    this.#parts = parts
    this.#queryInstances = this.#follow(indexerQueryEndpoint)
    this.#recordInstances = parts.isApproximate ? this.#follow(indexerRecordEndpoint) : null
    this.overlap = { rows: null, ...(parts.isApproximate ? { record: (rank: WorkerRank, local: HashList, sequence: HashList) => this.#record(rank, local, sequence) } : {}) }
  }

  /**
   * Calls `work` once, while the router sees what the index says of the prompt; from within this call when there is nothing to ask. The
   * result ends the wait: `work` is then not called any more.
   */
  lookUp(query: OverlapQuery, work: () => void): () => void {
    const router = this.#parts.router()
    const modelName = this.#parts.modelName()
    const target = this.#pick(this.#queryInstances)
    const local = router === null ? null : localBlockHashes(query.tokens, { ...query, blockSize: router.settings.blockSize, isEagle: router.settings.isEagle })
    if (local === null || modelName === null || local.length === 0) {
      work()
      return () => {}
    }
    const done = (rows: readonly IndexedRank[] | null): void => {
      this.overlap.rows = rows
      try {
        work()
      } finally {
        this.overlap.rows = null
      }
    }
    this.stats.queries += 1
    if (target === null) {
      this.#failed('query', 'no router serves its index')
      done(null)
      return () => {}
    }
    const body = encodeIndexerQuestion({ modelName, local, deviceOnly: false }, target.codec)
    return this.#call(this.#queryInstances, target, body, (answer, codec) => {
      let rows: IndexedRank[] | null = null
      try {
        if (answer instanceof Uint8Array) rows = decodeIndexerAnswer(answer, codec)
        else this.#failed('query', answer)
      } catch (error) {
        if (!(error instanceof WireError)) throw error
        this.#failed('query', error.message)
      }
      done(rows)
    })
  }

  close(): void {
    this.#queryInstances.close()
    this.#recordInstances?.close()
  }

  #follow(endpoint: string): InstanceDirectory {
    const { workers, discovery, clock, log } = this.#parts
    return new InstanceDirectory({ discovery, clock, log, endpoint: { namespace: workers.namespace, component: workers.component, endpoint } })
  }

  /** In turn; who failed last comes last. */
  #pick(directory: InstanceDirectory): InstanceRecord | null {
    const callable = directory.callable()
    const usable = callable.length > 0 ? callable : [...directory.instances()]
    this.#turn = (this.#turn + 1) % 0x4000_0000
    return usable[this.#turn % Math.max(1, usable.length)]?.record ?? null
  }

  #record(rank: WorkerRank, local: HashList, sequence: HashList): void {
    const modelName = this.#parts.modelName()
    const directory = this.#recordInstances
    const target = directory === null ? null : this.#pick(directory)
    if (modelName === null || directory === null || target === null) return this.#failed('write', 'no router takes what is routed')
    this.#call(directory, target, encodeIndexerRecord({ modelName, rank, local, sequence }, target.codec), (answer, codec) => {
      const failure = answer instanceof Uint8Array ? decodeIndexerRecorded(answer, codec) : answer
      if (failure !== null) this.#failed('write', failure)
    })
  }

  /** One call with one answer, or the reason that there is none. */
  #call(directory: InstanceDirectory, target: InstanceRecord, body: Uint8Array, onAnswer: (answer: Uint8Array | string, codec: Codec) => void): () => void {
    const { client, clock, random } = this.#parts
    if (this.#open >= openMax) {
      onAnswer(`${openMax} questions are under way`, target.codec)
      return () => {}
    }
    this.#open += 1
    let isOver = false
    let call: CallHandle | null = null
    const over = (): boolean => {
      if (isOver) return false
      isOver = true
      this.#open -= 1
      timer.cancel()
      return true
    }
    const fail = (reason: string): void => {
      if (!over()) return
      directory.setAside(target.instanceId, asideMs)
      call?.kill()
      onAnswer(reason, target.codec)
    }
    const timer = clock.setTimer(answerMs, () => fail(`no answer within ${answerMs} ms`))
    call = client.call(target, { id: idOf(random), codec: target.codec, body: [body] }, {
      onFrame: (_frame, item) => { if (over()) onAnswer(item, target.codec) },
      onEnd: () => fail('an answer without content'),
      onFail: (failure) => fail(failure.message),
    })
    return () => { if (over()) call?.kill() }
  }

  #failed(kind: 'query' | 'write', reason: string): void {
    if (kind === 'query') this.stats.queryFailures += 1
    else this.stats.writeFailures += 1
    const nowMs = this.#parts.clock.nowMs()
    if (nowMs - this.#warnedMs < warnEveryMs) return
    this.#warnedMs = nowMs
    this.#parts.log.warn({ stage: 'remote-index', reason }, kind === 'query' ? 'remote index not asked: routed by load alone' : 'remote index was not told of a decision')
  }
}

const idOf = (random: Random): string => [...random.u64(), ...random.u64()].map((word) => word.toString(16).padStart(8, '0')).join('')
