/** The standalone routers of one pool: replicas that serve `<namespace>.router.generate`, asked in turn. */
import { InstanceDirectory, type KnownInstance } from '../dynamo/instances/instance-directory.ts'
import type { Clock, Discovery, EndpointId, Log, RequestPlaneClient } from '../ports.ts'

export interface PoolRoutersParts {
  readonly namespace: string
  readonly discovery: Discovery
  readonly client: RequestPlaneClient
  readonly clock: Clock
  readonly log: Log
}

export class PoolRouters {
  readonly namespace: string
  readonly firstSync: Promise<void>
  readonly #directory: InstanceDirectory
  readonly #log: Log
  #next = 0
  #warned = false

  constructor({ namespace, discovery, client, clock, log }: PoolRoutersParts) {
    this.namespace = namespace
    this.#log = log
    this.#directory = new InstanceDirectory({ discovery, endpoint: poolEndpoint(namespace), clock, log })
    this.firstSync = this.#directory.firstSync
    this.#directory.onEvent((event) => {
      if (event.kind === 'added') this.#warned = false
      if (event.kind === 'removed') client.forget(event.instance.record)
    })
  }

  /** Routers known now. */
  get size(): number {
    return this.#directory.size
  }

  /** The next router that is not in `failed`; those that are set aside only when nobody else is left. */
  next(failed: ReadonlySet<bigint>): KnownInstance | null {
    const callable = this.#directory.callable().filter(({ record }) => !failed.has(record.instanceId))
    const known = callable.length > 0 ? callable : [...this.#directory.instances()].filter(({ record }) => !failed.has(record.instanceId))
    if (known.length === 0) return null
    this.#next = (this.#next + 1) % Number.MAX_SAFE_INTEGER
    return known[this.#next % known.length] ?? null
  }

  setAside(instanceId: bigint, forMs: number): void {
    this.#directory.setAside(instanceId, forMs)
  }

  /** Says once that the pool has nobody to ask. */
  warnIfEmpty(): void {
    if (this.size > 0 || this.#warned) return
    this.#warned = true
    this.#log.warn({ stage: 'discovery', reason: 'pool-without-router' }, missingRouter(this.namespace))
  }

  close(): void {
    this.#directory.close()
  }
}

export const poolEndpoint = (namespace: string): EndpointId => ({ namespace, component: 'router', endpoint: 'generate' })

/** What is missing, and how it is mended. */
export const missingRouter = (namespace: string): string =>
  `nobody serves ${namespace}.router.generate; start a router for that pool: warmpath router --endpoint ${namespace}.COMPONENT.generate`
