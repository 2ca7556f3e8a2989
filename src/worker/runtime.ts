/**
 * A process's place in a Dynamo deployment: identity, planes, endpoints, and an orderly end.
 *
 * State: running, draining (records gone, requests refused after the grace time), closed. Bounds: as its parts have.
 */
import { formatEndpointId } from '../dynamo/wire/endpoint-path.ts'
import { MetricSet } from '../observability/metric-set.ts'
import { createEndpointMetrics, type EndpointMeter } from '../observability/request-plane-metrics.ts'
import { startSystemServer, type EngineRoute, type SystemServer } from '../observability/system-server.ts'
import type { Clock, Codec, Discovery, EndpointId, EventPlane, Log } from '../ports.ts'
import { Endpoint, endpointOfPath } from './endpoint.ts'
import type { ClientParts } from './client.ts'
import { ArgumentError } from './errors.ts'
import type { HealthCheckSettings } from './health-probe.ts'
import { joinMetrics } from './metrics-text.ts'
import { buildParts, runtimeEnvironment, runtimeValues, type RuntimeOptions, type RuntimeParts } from './runtime-parts.ts'
import type { ServingParts } from './served-endpoint.ts'

export interface RuntimeSettings {
  /** Codec that callers are told to use. Default msgpack. */
  readonly codec?: Codec
  /** Between the end of the records and the refusal of new requests. Units: ms. */
  readonly graceMs: number
  /** For open streams to finish after that. Units: ms. */
  readonly timeoutMs: number
  readonly inhibitedMs: number
  /** Null: endpoints are not probed. */
  readonly healthCheck: HealthCheckSettings | null
}

export interface ShutdownLimits {
  readonly graceMs?: number
  readonly timeoutMs?: number
}

const drainCallbackMs = 30_000
const textType = 'text/plain; version=0.0.4; charset=utf-8'

export class DistributedRuntime {
  readonly #parts: RuntimeParts
  readonly #settings: RuntimeSettings
  readonly #endpoints = new Map<string, Endpoint>()
  readonly #adopted = new Set<Endpoint>()
  readonly #metrics: (() => Promise<string> | string)[] = []
  readonly #routes = new Map<string, EngineRoute>()
  readonly #onDrain: (() => Promise<void> | void)[] = []
  readonly #closeParts: () => Promise<void>
  readonly #closed: Promise<void>
  #resolveClosed: () => void = () => {}
  #system: SystemServer | null = null
  #shutdown: Promise<void> | null = null
  #health: boolean | null = null

  /** Over parts that run already; `close` is called last. `createRuntime` makes them. */
  constructor(parts: RuntimeParts, settings: RuntimeSettings, close: () => Promise<void> = () => Promise.resolve()) {
    this.#parts = parts
    this.#settings = settings
    this.#closeParts = close
    this.#closed = new Promise((resolve) => { this.#resolveClosed = resolve })
  }

  /** This process's id in the deployment. */
  get instanceId(): bigint {
    return this.#parts.discovery.instanceId
  }

  get discovery(): Discovery {
    return this.#parts.discovery
  }

  get eventPlane(): EventPlane {
    return this.#parts.eventPlane
  }

  get clock(): Clock {
    return this.#parts.clock
  }

  get log(): Log {
    return this.#parts.log
  }

  /** Resolves when a shutdown has ended. */
  get closed(): Promise<void> {
    return this.#closed
  }

  /** Resolves when the identity is lost for good; a worker then has to end. */
  get lost(): Promise<Error> {
    return this.#parts.discovery.lost
  }

  get healthCheck(): HealthCheckSettings | null {
    return this.#settings.healthCheck
  }

  /** Requests whose stream has not ended, in all endpoints. */
  get inflight(): number {
    return [...this.#adopted].reduce((sum, endpoint) => sum + endpoint.inflight, 0)
  }

  /** Port of /health, /live and /metrics; null when it is off. */
  get systemPort(): number | null {
    return this.#system?.port ?? null
  }

  /** The endpoint of a path; the same path gives the same endpoint. Errors: `ArgumentError` for a path that is not `namespace.component.endpoint`. */
  endpoint(path: string | EndpointId): Endpoint {
    const id = typeof path === 'string' ? endpointOfPath(path) : path
    const key = formatEndpointId(id)
    const known = this.#endpoints.get(key)
    if (known !== undefined) return known
    const endpoint = new Endpoint(id, this)
    this.#endpoints.set(key, endpoint)
    return endpoint
  }

  /** Says by hand whether /health is ready. It is not while nothing is served or a shutdown runs. */
  setHealthStatus(ready: boolean): void {
    this.#health = ready
  }

  /** `POST` or `GET /engine/{name}` on the system port. The answer is sent as JSON. Errors: an unusable name. */
  registerEngineRoute(name: string, route: EngineRoute): void {
    if (!/^[\w-]+(\/[\w-]+)*$/.test(name)) throw new ArgumentError('registerEngineRoute', 'name', name, 'give words of letters, digits, - and _, with / between them')
    this.#routes.set(name, route)
  }

  /** Adds Prometheus text to /metrics, taken at each scrape. */
  addMetrics(text: () => Promise<string> | string): void {
    this.#metrics.push(text)
  }

  /** Called in a shutdown when no new requests can come, before open ones are waited for; at most 30 s. */
  onDrain(callback: () => Promise<void> | void): void {
    this.#onDrain.push(callback)
  }

  /** SIGTERM and SIGINT shut down; a second one of the same kind ends the process as usual. */
  drainOnSignals(): this {
    for (const name of ['SIGTERM', 'SIGINT'] as const) {
      const listener = (): void => {
        this.log.info({ stage: 'drain', open: this.inflight, reason: name }, 'draining: records removed, open streams may finish')
        void this.shutdown()
      }
      process.once(name, listener)
      void this.#closed.then(() => process.removeListener(name, listener))
    }
    return this
  }

  /**
   * Takes all records back, refuses new requests after the grace time, lets open streams finish, closes. Once; later calls wait for the first.
   * Never rejects: what cannot be done is logged.
   */
  shutdown(limits: ShutdownLimits = {}): Promise<void> {
    this.#shutdown ??= this.#end(limits)
    return this.#shutdown
  }

  // ---- For endpoints -----------------------------------------------------------------------------------------------------------

  get servingParts(): Omit<ServingParts, 'meter'> {
    const { discovery, server, clock } = this.#parts
    return { discovery, server, clock, codec: this.#settings.codec ?? 'msgpack' }
  }

  /** Errors: this runtime was made without a client. */
  async clientParts(): Promise<ClientParts> {
    const { client, discovery, clock, random, log } = this.#parts
    if (client === null) throw new Error('this runtime makes no calls: it has no request plane client')
    return { client: await client(), discovery, clock, random, log, inhibitedMs: this.#settings.inhibitedMs }
  }

  meterOf(endpoint: EndpointId, labels: Readonly<Record<string, string>>): EndpointMeter {
    const set = new MetricSet()
    const meter = createEndpointMetrics(set, { namespace: endpoint.namespace, component: endpoint.component, instanceHex: this.instanceId.toString(16), labels })(endpoint.endpoint)
    this.addMetrics(() => set.text())
    return meter
  }

  /** The endpoint takes part in the shutdown. */
  adopt(endpoint: Endpoint): void {
    this.#adopted.add(endpoint)
  }

  /** Opens /health, /live and /metrics. Errors: the port is busy. */
  async openSystemServer(place: { readonly host: string; readonly port: number; readonly healthPath: string; readonly livePath: string }): Promise<void> {
    this.#system = await startSystemServer({
      ...place,
      isReady: () => this.#isReady(),
      endpoints: () => new Map([...this.#adopted].filter(({ isServed }) => isServed).map((endpoint) => [endpoint.id.endpoint, this.#shutdown === null && endpoint.isHealthy])),
      metrics: { contentType: textType, text: async () => joinMetrics(await Promise.all(this.#metrics.map((text) => text()))) },
      engineRoutes: this.#routes,
    })
    this.log.info({ stage: 'start' }, `health and metrics: http://${place.host}:${this.#system.port}${place.healthPath}`)
  }

  #isReady(): boolean {
    if (this.#shutdown !== null || this.#health === false) return false
    const served = [...this.#adopted].filter(({ isServed }) => isServed)
    return this.#health === true || (served.length > 0 && served.every(({ isHealthy }) => isHealthy))
  }

  async #end({ graceMs = this.#settings.graceMs, timeoutMs = this.#settings.timeoutMs }: ShutdownLimits): Promise<void> {
    const { clock, log } = this.#parts
    const wait = (ms: number): Promise<void> => new Promise((resolve) => clock.setTimer(ms, resolve))
    const logged = (what: string) => (error: unknown): void => log.warn({ stage: 'drain', reason: error instanceof Error ? error.message : String(error) }, what)
    const endpoints = [...this.#adopted]
    await Promise.all(endpoints.map((endpoint) => endpoint.withdraw())).catch(logged('records could not be removed; they end with the lease'))
    if (graceMs > 0 && endpoints.some(({ isServed }) => isServed)) await wait(graceMs)
    const finished = Promise.all(endpoints.map((endpoint) => endpoint.finish()))
    if (this.#onDrain.length > 0) await Promise.race([Promise.all(this.#onDrain.map(async (callback) => callback())), wait(drainCallbackMs)]).catch(logged('a drain callback failed'))
    if (this.inflight > 0) await Promise.race([finished, wait(timeoutMs)])
    const open = endpoints.reduce((sum, endpoint) => sum + endpoint.abort(), 0)
    if (open > 0) log.warn({ stage: 'drain', open, reason: 'timeout' }, 'drain time is over; open requests are ended')
    for (const endpoint of endpoints) await endpoint.close().catch(logged('a publisher could not be closed'))
    await this.#system?.close()
    await this.#closeParts().catch(logged('not everything could be closed'))
    this.#resolveClosed()
  }
}

/** Takes an identity in the deployment that options and environment name, and binds the listeners. Errors: `UsageError`; discovery, ports. */
export async function createRuntime(options: RuntimeOptions = {}): Promise<DistributedRuntime> {
  const env = runtimeEnvironment(options)
  const { values, warnings } = await runtimeValues(env)
  const { parts, close } = await buildParts(values, env, options)
  for (const warning of warnings) parts.log.warn({ stage: 'config' }, warning)
  const runtime = new DistributedRuntime(parts, {
    codec: values.requestPlaneCodec === 'json' ? 'json' : 'msgpack',
    graceMs: values.shutdownGraceSeconds * 1000,
    timeoutMs: values.shutdownTimeoutSeconds * 1000,
    inhibitedMs: values.inhibitedSeconds * 1000,
    healthCheck: values.healthCheckEnabled ? { idleMs: values.canaryWaitSeconds * 1000, timeoutMs: values.healthCheckTimeoutSeconds * 1000 } : null,
  }, close)
  try {
    if (values.systemPort >= 0) {
      await runtime.openSystemServer({ host: values.systemHost, port: values.systemPort, healthPath: values.systemHealthPath, livePath: values.systemLivePath })
    }
  } catch (error) {
    await close()
    throw error
  }
  return runtime
}
