/** The indexes of pools that come and go, for others: one pair of endpoints per component of workers, whatever models are behind it. */
import type { Clock, Codec, Discovery, EndpointId, Log, RequestHandler, RequestPlaneServer } from '../ports.ts'
import type { Router } from '../router/contract.ts'
import { ServedIndex } from './served-index.ts'

/** A pool as its index is asked for. */
export interface IndexSource {
  readonly endpoints: readonly EndpointId[]
  readonly modelName: string | null
  readonly router: Router | null
}

export interface ServedIndexesParts {
  readonly discovery: Discovery
  readonly server: RequestPlaneServer
  readonly clock: Clock
  readonly log: Log
  readonly codec: Codec
  readonly isApproximate: boolean
  measured(endpoint: string, handler: RequestHandler): RequestHandler
  /** The pools of now. */
  sources(): readonly IndexSource[]
}

/** State: what is served, by component. The steps of one component follow each other. */
export class ServedIndexes {
  readonly #parts: ServedIndexesParts
  readonly #served = new Map<string, ServedIndex>()
  #steps: Promise<void> = Promise.resolve()
  #isDue = false
  #isOver = false

  constructor(parts: ServedIndexesParts) {
    this.#parts = parts
  }

  /** Pools have come or gone; looked at when the caller is done. */
  changed(): void {
    if (this.#isDue || this.#isOver) return
    this.#isDue = true
    queueMicrotask(() => {
      this.#isDue = false
      if (!this.#isOver) this.#update()
    })
  }

  /** Removes the records; open questions are still answered until `close`. Errors: none. */
  async unregister(): Promise<void> {
    this.#isOver = true
    for (const [key, index] of this.#served) this.#step(key, () => index.unregister())
    await this.#steps
  }

  close(): void {
    for (const index of this.#served.values()) index.close()
    this.#served.clear()
  }

  #update(): void {
    const wanted = new Map(this.#parts.sources().flatMap(({ endpoints }) => endpoints.map((endpoint) => [keyOf(endpoint), endpoint] as const)))
    for (const [key, index] of this.#served) {
      if (wanted.has(key)) continue
      this.#served.delete(key)
      this.#step(key, async () => {
        await index.unregister()
        index.close()
      })
    }
    for (const [key, workers] of wanted) {
      if (this.#served.has(key)) continue
      const index = new ServedIndex({ ...this.#parts, workers, routerOf: (modelName) => this.#routerOf(key, modelName) })
      this.#served.set(key, index)
      this.#step(key, () => index.start())
    }
  }

  #step(component: string, work: () => Promise<void>): void {
    this.#steps = this.#steps.then(work).catch((error: unknown) => {
      this.#parts.log.warn({ stage: 'served-index', component, reason: (error as Error).message }, 'the served index could not be changed in discovery')
    })
  }

  #routerOf(key: string, modelName: string): Router | null {
    for (const { endpoints, modelName: name, router } of this.#parts.sources()) {
      if (name === modelName && router !== null && endpoints.some((endpoint) => keyOf(endpoint) === key)) return router
    }
    return null
  }
}

const keyOf = ({ namespace, component }: EndpointId): string => `${namespace}.${component}`
