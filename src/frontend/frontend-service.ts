/** The frontend without its HTTP side: directory and models over the planes, started and drained in order. */
import type { Clock, Discovery, EventPlane, Log, Random, RequestPlaneClient, RequestPlaneServer } from '../ports.ts'
import type { ServedIndexes } from '../replicas/served-indexes.ts'
import { FrontendModels, type FrontendModelsParts } from './frontend-models.ts'
import { ModelDirectory } from './model-directory.ts'

export interface FrontendServiceOptions {
  readonly namespace: string | null
  readonly namespacePrefix: string | null
  readonly requirePrefill: boolean
  readonly shutdownTimeoutMs: number
}

export interface FrontendServiceParts extends Omit<FrontendModelsParts, 'directory'> {
  /** Started. */
  readonly discovery: Discovery
  readonly client: RequestPlaneClient
  readonly eventPlane: EventPlane | null
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly service: FrontendServiceOptions
  /** The indexes of the pools, for others; null or left out: not served. */
  readonly served?: { readonly server: RequestPlaneServer; readonly indexes: ServedIndexes } | null
}

export class FrontendService {
  readonly #parts: FrontendServiceParts
  #directory: ModelDirectory | null = null
  #models: FrontendModels | null = null
  #isDraining = false

  constructor(parts: FrontendServiceParts) {
    this.#parts = parts
  }

  /** Errors: before `start` has resolved. */
  get models(): FrontendModels {
    if (this.#models === null) throw new Error('the frontend has no models before it has started')
    return this.#models
  }

  get isReady(): boolean {
    return !this.#isDraining && this.#models !== null && this.#models.list().length > 0
  }

  /** Resolves when what stands in discovery is known; models become ready by and by. */
  async start(signal: AbortSignal): Promise<void> {
    const { discovery, client, log, service, served } = this.#parts
    await client.start(signal)
    await served?.server.start(signal)
    this.#directory = new ModelDirectory({ discovery, log, ...service })
    await this.#directory.firstSync
    signal.throwIfAborted()
    this.#models = new FrontendModels({ ...this.#parts, directory: this.#directory })
  }

  /** Lets answers finish within the shutdown time, ends the rest, closes everything but discovery's owner's parts. */
  async drain(): Promise<void> {
    if (this.#isDraining) return
    this.#isDraining = true
    const { clock, log, service, client, eventPlane, discovery, served } = this.#parts
    await served?.indexes.unregister()
    const models = this.#models
    const open = models?.activeCount ?? 0
    models?.closeQueues()
    if (models !== null && open > 0) {
      log.info({ stage: 'drain', open }, `draining: ${open} open requests may finish within ${service.shutdownTimeoutMs / 1000} s`)
      await new Promise<void>((resolve) => {
        const timer = clock.setTimer(service.shutdownTimeoutMs, () => {
          log.error({ stage: 'drain', open: models.activeCount, reason: 'timeout' }, 'drain time is over; open requests are ended')
          models.abortAll()
          resolve()
        })
        models.onIdle = () => { timer.cancel(); resolve() }
      })
    }
    this.#directory?.close()
    await models?.close()
    served?.indexes.close()
    await served?.server.close()
    await eventPlane?.close()
    await client.close()
    await discovery.close(2000)
  }
}
