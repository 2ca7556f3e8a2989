/** Loads of a worker's ranks, for routers: sent when they change, and now and then for routers that came later. */
import { createKvMetricsPublisher, type KvMetricsPublisher } from '../dynamo/kv-state/kv-metrics-publisher.ts'
import type { TimerHandle } from '../ports.ts'
import type { Endpoint } from './endpoint.ts'
import { ArgumentError } from './errors.ts'

export interface WorkerLoad {
  /** Default 0. */
  readonly dpRank?: number
  /** Blocks of running requests, as the scheduler counts them. */
  readonly activeDecodeBlocks?: number
  /** All KV blocks in use. */
  readonly kvUsedBlocks?: number
}

/** Units: ms. */
const repeatEveryMs = 2000
const ranksMax = 4096

export class WorkerMetricsPublisher {
  readonly #loads = new Map<number, WorkerLoad>()
  #endpoint: Endpoint | null = null
  #publisher: KvMetricsPublisher | null = null
  #timer: TimerHandle | null = null

  /** Registers the publisher; loads said before are sent now. Ends with the runtime. Errors: it has an endpoint already; event plane, discovery. */
  async createEndpoint(endpoint: Endpoint): Promise<void> {
    if (this.#endpoint !== null) throw new ArgumentError('createEndpoint', 'endpoint', endpoint.id, 'this publisher has one already')
    this.#endpoint = endpoint
    this.#publisher = await createKvMetricsPublisher(endpoint.runtime.eventPlane, endpoint.id)
    endpoint.onClose(() => this.shutdown())
    this.#repeat()
  }

  /** A rank's load. One that is as before is not sent again at once. Errors: `ArgumentError` for what is no count. */
  publish(load: WorkerLoad): void {
    const { dpRank = 0, activeDecodeBlocks, kvUsedBlocks } = load
    for (const [field, value] of Object.entries({ dpRank, activeDecodeBlocks, kvUsedBlocks })) {
      if (value !== undefined && (!Number.isSafeInteger(value) || value < 0)) throw new ArgumentError('publish', field, value, 'give a whole number from 0')
    }
    const last = this.#loads.get(dpRank)
    if (last !== undefined && last.activeDecodeBlocks === activeDecodeBlocks && last.kvUsedBlocks === kvUsedBlocks) return
    if (last === undefined && this.#loads.size >= ranksMax) throw new ArgumentError('publish', 'dpRank', dpRank, `a worker has at most ${ranksMax} ranks`)
    this.#loads.set(dpRank, load)
    this.#send(dpRank, load)
  }

  async shutdown(): Promise<void> {
    this.#timer?.cancel()
    const publisher = this.#publisher
    this.#publisher = null
    await publisher?.close()
  }

  #repeat(): void {
    const endpoint = this.#endpoint
    if (endpoint === null || this.#publisher === null) return
    for (const [dpRank, load] of this.#loads) this.#send(dpRank, load)
    this.#timer = endpoint.runtime.clock.setTimer(repeatEveryMs, () => this.#repeat())
  }

  #send(dpRank: number, { activeDecodeBlocks, kvUsedBlocks }: WorkerLoad): void {
    if (this.#endpoint === null) return
    this.#publisher?.report({ workerId: this.#endpoint.connectionId(), dpRank }, { activeDecodeBlocks: activeDecodeBlocks ?? null, kvUsedBlocks: kvUsedBlocks ?? null })
  }
}
