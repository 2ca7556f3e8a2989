/** An endpoint of this process's deployment: to be served here, or to be called. */
import { parseEndpointId } from '../dynamo/wire/endpoint-path.ts'
import type { WireValue } from '../dynamo/wire/body.ts'
import type { EndpointId } from '../ports.ts'
import { HealthProbe } from './health-probe.ts'
import { Client } from './client.ts'
import type { PreprocessedRequest } from './engine-messages.ts'
import { ArgumentError } from './errors.ts'
import { FirstTokenSource } from './first-token-source.ts'
import { ModelRecords } from './model-records.ts'
import { WorkerType } from './model-kinds.ts'
import type { DistributedRuntime } from './runtime.ts'
import { ServedWorkerEndpoint, type RequestHandler } from './served-endpoint.ts'

export interface ServeOptions {
  /** A shutdown waits for open requests; false: it ends them at once. Default true. */
  readonly gracefulShutdown?: boolean
  /** Further labels of this endpoint's metrics. */
  readonly metricsLabels?: Readonly<Record<string, string>>
  /** A request that the handler must answer with an item, asked in this process when nothing else is asked. Needs `DYN_HEALTH_CHECK_ENABLED`. */
  readonly healthCheckPayload?: WireValue
}

/** Reads `namespace.component.endpoint`, with or without `dyn://`. Errors: `ArgumentError` for any other form. */
export function endpointOfPath(path: string): EndpointId {
  const parts = path.trim().replace(/^dyn:\/\//, '').split('.')
  if (parts.length !== 3 || parts.some((part) => part === '' || part.includes('/'))) {
    throw new ArgumentError('endpoint', 'path', path, 'give three parts without slashes: namespace.component.endpoint, or dyn://namespace.component.endpoint')
  }
  return parseEndpointId(path)
}

export class Endpoint {
  readonly id: EndpointId
  readonly runtime: DistributedRuntime
  /** Cards that this process publishes here. */
  readonly models: ModelRecords
  #served: ServedWorkerEndpoint | null = null
  #options: ServeOptions = {}
  #published: Promise<void> | null = null
  #probe: HealthProbe | null = null
  readonly #closing: (() => Promise<void>)[] = []

  constructor(id: EndpointId, runtime: DistributedRuntime) {
    this.id = id
    this.runtime = runtime
    this.models = new ModelRecords(runtime.discovery, id)
  }

  /** This process's instance id: the worker id of its requests, events and loads. */
  connectionId(): bigint {
    return this.runtime.instanceId
  }

  /** Requests whose stream has not ended. */
  get inflight(): number {
    return this.#served?.inflight ?? 0
  }

  get isServed(): boolean {
    return this.#served !== null
  }

  /** Served, and its last probe did well. */
  get isHealthy(): boolean {
    return this.#served !== null && (this.#probe?.isGood ?? true)
  }

  /**
   * Serves requests until the runtime shuts down; resolves then. Callers find the endpoint a moment after the call, see `registered`.
   * Errors: it is served already; discovery.
   */
  async serveEndpoint<Request = PreprocessedRequest>(handler: RequestHandler<Request>, options: ServeOptions = {}): Promise<void> {
    if (this.#served !== null) throw new ArgumentError('serveEndpoint', 'endpoint', this.id, 'it is served already; a process serves an endpoint once')
    this.#options = options
    const { runtime } = this
    this.#served = new ServedWorkerEndpoint(this.id, handler as RequestHandler<never>, { ...runtime.servingParts, meter: runtime.meterOf(this.id, options.metricsLabels ?? {}) })
    runtime.adopt(this)
    if (options.healthCheckPayload !== undefined && runtime.healthCheck !== null) {
      this.#probe = new HealthProbe(this.#served, options.healthCheckPayload, { ...runtime.healthCheck, clock: runtime.clock, log: runtime.log })
    }
    this.#published = this.#served.publish()
    await this.#published
    this.#probe?.start()
    await runtime.closed
  }

  /** Resolves when callers can find the endpoint. Errors: it is not served; discovery. */
  async registered(): Promise<void> {
    if (this.#published === null) throw new ArgumentError('registered', 'endpoint', this.id, 'serveEndpoint first')
    await this.#published
  }

  /** Callers find this instance no more: a worker that sleeps. Open requests go on. */
  async unregisterEndpointInstance(): Promise<void> {
    await this.#needServed('unregisterEndpointInstance').unpublish()
  }

  /** Callers find it again. */
  async registerEndpointInstance(): Promise<void> {
    await this.#needServed('registerEndpointInstance').publish()
  }

  /** A client of all instances of this endpoint. Errors: discovery. */
  async client(): Promise<Client> {
    const client = new Client(this.id, await this.runtime.clientParts())
    this.onClose(() => { client.close(); return Promise.resolve() })
    await client.ready
    return client
  }

  /** Marks for routers of when a prompt is computed; null for workers that give no output tokens. Errors: event plane, discovery. */
  async firstTokenSource(workerType: WorkerType): Promise<FirstTokenSource | null> {
    if (workerType === WorkerType.Prefill || workerType === WorkerType.Encode) return null
    const source = await FirstTokenSource.create(this.runtime.eventPlane, this.id, this.runtime.instanceId)
    this.onClose(() => source.close())
    return source
  }

  /** Called at the end of a shutdown, last come first served. */
  onClose(close: () => Promise<void>): void {
    this.#closing.push(close)
    this.runtime.adopt(this)
  }

  // ---- What the runtime does at its end, in this order ---------------------------------------------------------------------

  /** Takes back what callers find. */
  async withdraw(): Promise<void> {
    this.#probe?.stop()
    await Promise.all([this.#served?.unpublish(), this.models.clear()])
  }

  /** Refuses new requests. Resolves when none is open any more. */
  async finish(): Promise<void> {
    this.#served?.close()
    if (this.#options.gracefulShutdown === false) this.#served?.abort()
    await this.#served?.idle()
  }

  /** Ends open requests. Gives how many there were. */
  abort(): number {
    return this.#served?.abort() ?? 0
  }

  async close(): Promise<void> {
    for (const close of this.#closing.splice(0).reverse()) await close()
  }

  #needServed(place: string): ServedWorkerEndpoint {
    if (this.#served === null) throw new ArgumentError(place, 'endpoint', this.id, 'it is not served; serveEndpoint first')
    return this.#served
  }
}
