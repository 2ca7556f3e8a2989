/** Calls to the instances of one endpoint: whom to ask, and the answers as async iterables. */
import { openCall, type OpenCall } from '../dynamo/endpoint.ts'
import { InstanceDirectory, type KnownInstance } from '../dynamo/instances/instance-directory.ts'
import type { WireValue } from '../dynamo/wire/body.ts'
import { formatEndpointId } from '../dynamo/wire/endpoint-path.ts'
import type { AnnotatedItem } from '../dynamo/wire/items.ts'
import { FailureError, isRetryableElsewhere } from '../model/failure.ts'
import type { Clock, Discovery, EndpointId, InstanceRecord, Json, Log, Random, RequestPlaneClient, TimerHandle, Watch } from '../ports.ts'
import { Context } from './context.ts'
import { asDynamoError, errorOfFailure } from './errors.ts'

export interface ClientParts {
  readonly discovery: Discovery
  readonly client: RequestPlaneClient
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** How long an instance that failed is not chosen. Units: ms. */
  readonly inhibitedMs: number
}

export interface CallOptions {
  /** The call has its id, metadata and trace, and ends with it. Default: a new one. */
  readonly context?: Context
  /** Aborting ends the call at once. */
  readonly signal?: AbortSignal
}

export interface WaitOptions {
  readonly signal?: AbortSignal
  /** Default: as long as it takes. */
  readonly timeoutMs?: number
}

/** One item with everything around its value. `data` is undefined when it has none. */
export type { AnnotatedItem }

/** The answer of one call; to be iterated once. Leaving the iteration kills the call. Errors are `DynamoError`s. */
export class ResponseStream implements AsyncIterable<WireValue> {
  readonly context: Context
  readonly instanceId: bigint
  readonly #call: OpenCall
  #stopped = false
  #killed = false

  constructor(call: OpenCall, context: Context, instanceId: bigint) {
    this.#call = call
    this.context = context
    this.instanceId = instanceId
  }

  /** Asks the worker for a graceful end. The iteration gives what it still sends, and ends. */
  stop(): void {
    this.#stopped = true
    this.#call.stop()
  }

  /** Ends the worker's work at once; the iteration throws `Cancelled`. */
  kill(): void {
    this.#killed = true
    this.#call.kill()
  }

  [Symbol.asyncIterator](): AsyncGenerator<WireValue, void, void> {
    return this.#guarded(this.#call.values())
  }

  /** The items with event, comments and id. */
  annotated(): AsyncGenerator<AnnotatedItem, void, void> {
    return this.#guarded(this.#call.items())
  }

  async *#guarded<Value>(values: AsyncGenerator<Value, void, void>): AsyncGenerator<Value, void, void> {
    try {
      yield* values
    } catch (error) {
      if (!this.#isStopped(error)) throw asDynamoError(error)
    }
  }

  /** Workers close the stream of a stopped request without a last item. */
  #isStopped(error: unknown): boolean {
    const asked = this.#stopped || this.context.isStopped()
    return asked && !this.#killed && !this.context.isKilled() && error instanceof FailureError && error.failure.class === 'Cancelled'
  }
}

/** For the beginning of an answer to arrive from an instance that has left. Units: ms. */
const leaveGraceMs = 1000

/** Follows an endpoint's instances from its making to `close`. */
export class Client {
  readonly endpoint: EndpointId
  readonly #parts: ClientParts
  readonly #directory: InstanceDirectory
  readonly #watch: Watch
  #turn = 0

  constructor(endpoint: EndpointId, parts: ClientParts) {
    this.endpoint = endpoint
    this.#parts = parts
    this.#directory = new InstanceDirectory({ discovery: parts.discovery, endpoint, clock: parts.clock, log: parts.log })
    this.#watch = this.#directory.onEvent((event) => {
      if (event.kind === 'removed') parts.client.forget(event.instance.record)
    })
  }

  /** Resolves when the instances that stand already are known. */
  get ready(): Promise<void> {
    return this.#directory.firstSync
  }

  /** In the order in which they came. */
  instanceIds(): bigint[] {
    return this.instances().map(({ instanceId }) => instanceId)
  }

  instances(): InstanceRecord[] {
    return [...this.#directory.instances()].map(({ record }) => record)
  }

  /** Resolves with the ids as soon as there is one. Errors: aborted, or the time is over. */
  async waitForInstances(options: WaitOptions = {}): Promise<bigint[]> {
    await this.#until(() => this.#directory.size > 0, options, 'an instance')
    return this.instanceIds()
  }

  /** Ids, in order, of instances whose card's runtime data has this value; waits for `count` of them. Errors as `waitForInstances`. */
  async waitForInstancesByRuntimeData(key: string, value: string, count: number, options: WaitOptions = {}): Promise<bigint[]> {
    const matching = (): bigint[] => [...this.#directory.instances()].filter((instance) => runtimeData(instance, key) === value).map(({ record }) => record.instanceId)
    await this.#until(() => matching().length >= count, options, `${count} instances with ${key}=${value}`)
    return matching().sort((a, b) => (a < b ? -1 : 1))
  }

  /** As above for the one instance that has the value. Errors: several have it. */
  async waitForInstanceByRuntimeData(key: string, value: string, options: WaitOptions = {}): Promise<bigint> {
    const [id, ...others] = await this.waitForInstancesByRuntimeData(key, value, 1, options)
    if (id === undefined || others.length > 0) throw new Error(`${formatEndpointId(this.endpoint)}: ${others.length + 1} instances have ${key}=${value}, expected one`)
    return id
  }

  /** Asks any instance. Resolves when its handler has begun. Errors: `DynamoError`: nobody there, or the call failed before that. */
  random(request: WireValue, options: CallOptions = {}): Promise<ResponseStream> {
    return this.#ask(request, options, (instances) => Math.floor(this.#parts.random.float() * instances))
  }

  /** Asks one instance after the other. Errors as `random`. */
  roundRobin(request: WireValue, options: CallOptions = {}): Promise<ResponseStream> {
    return this.#ask(request, options, (instances) => {
      this.#turn = (this.#turn + 1) % Number.MAX_SAFE_INTEGER
      return this.#turn % instances
    })
  }

  /** As `roundRobin`. */
  generate(request: WireValue, options: CallOptions = {}): Promise<ResponseStream> {
    return this.roundRobin(request, options)
  }

  /** Asks this instance. Errors as `random`. */
  async direct(request: WireValue, instanceId: bigint, options: CallOptions = {}): Promise<ResponseStream> {
    await this.#directory.firstSync
    const instance = this.#directory.get(instanceId)
    if (instance === undefined) throw unavailable(`instance_id=${instanceId} not found for endpoint ${this.#name()}`)
    return this.#call(instance.record, request, options)
  }

  /** Forgets the instances; open calls go on. */
  close(): void {
    this.#watch.close()
    this.#directory.close()
  }

  async #ask(request: WireValue, options: CallOptions, choose: (instances: number) => number): Promise<ResponseStream> {
    await this.#directory.firstSync
    const callable = this.#directory.callable()
    const chosen = callable.length === 0 ? undefined : callable[choose(callable.length)]
    if (chosen === undefined) throw unavailable(`No workers available for endpoint ${this.#name()}`)
    return this.#call(chosen.record, request, options)
  }

  async #call(record: InstanceRecord, request: WireValue, { context = new Context(), signal }: CallOptions): Promise<ResponseStream> {
    if (context.isStopped()) throw errorOfFailure({ class: 'Cancelled', reason: 'request.cancelled', message: `request ${context.id} is stopped already` })
    const kill = signal === undefined ? context.killSignal : AbortSignal.any([signal, context.killSignal])
    const headers = context.traceHeaders()
    try {
      const call = openCall(this.#parts.client, record, request, {
        id: context.id, metadata: context.metadata, signal: kill, stopSignal: context.signal, ...(headers === null ? {} : { headers }),
      })
      await this.#begun(call, record)
      return new ResponseStream(call, context, record.instanceId)
    } catch (error) {
      this.#judge(record, error)
      throw asDynamoError(error)
    }
  }

  /** An instance that leaves answers what it has taken at once, or never. Errors: of the call. */
  async #begun(call: OpenCall, { instanceId }: InstanceRecord): Promise<void> {
    let timer: TimerHandle | null = null
    const left = (): void => call.handle?.fail({ class: 'Unavailable', reason: 'transport.disconnected', message: `instance ${instanceId} left before it answered` })
    const watch = this.#directory.onEvent((event) => {
      if (event.kind === 'removed' && event.instance.record.instanceId === instanceId) timer = this.#parts.clock.setTimer(leaveGraceMs, left)
    })
    try {
      await call.begun
    } finally {
      watch.close()
      ;(timer as TimerHandle | null)?.cancel()
    }
  }

  /** An instance that could not be reached, or refused, is passed over for a while. */
  #judge(record: InstanceRecord, error: unknown): void {
    const { inhibitedMs } = this.#parts
    if (inhibitedMs > 0 && error instanceof FailureError && isRetryableElsewhere(error.failure) && error.failure.linkLost !== true) this.#directory.setAside(record.instanceId, inhibitedMs)
  }

  #name(): string {
    return formatEndpointId(this.endpoint).replaceAll('.', '/')
  }

  async #until(condition: () => boolean, { signal, timeoutMs }: WaitOptions, what: string): Promise<void> {
    await this.#directory.firstSync
    if (condition()) return
    signal?.throwIfAborted()
    await new Promise<void>((resolve, reject) => {
      const settle = (finish: () => void) => (): void => {
        watch.close()
        timer?.cancel()
        signal?.removeEventListener('abort', aborted)
        finish()
      }
      const met = settle(resolve)
      const aborted = settle(() => reject(signal?.reason as Error))
      const watch = this.#directory.onEvent(() => { if (condition()) met() })
      const late = settle(() => reject(errorOfFailure({ class: 'DeadlineExceeded', reason: 'request.deadline_exceeded', message: `${this.#name()}: not within ${timeoutMs} ms: ${what}` })))
      const timer = timeoutMs === undefined ? null : this.#parts.clock.setTimer(timeoutMs, late)
      signal?.addEventListener('abort', aborted, { once: true })
    })
  }
}

const unavailable = (message: string): FailureError => errorOfFailure({ class: 'Unavailable', reason: 'transport.cannot_connect', message })

function runtimeData(instance: KnownInstance, key: string): Json | undefined {
  const config = instance.card?.raw['runtime_config']
  const data = (config as { readonly runtime_data?: Readonly<Record<string, Json>> } | undefined)?.runtime_data
  return data?.[key]
}
