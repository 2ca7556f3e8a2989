/**
 * Endpoints with values in place of bytes, in the manner of Dynamo's Python runtime: a served endpoint is an async generator,
 * a call is an async iterable. Used where convenience counts more than cost.
 */
import { randomUUID } from 'node:crypto'
import { FailureError, type Failure } from '../model/failure.ts'
import type { CallHandle, CancelKind, Codec, EndpointId, IncomingRequest, InstanceRecord, RequestPlaneClient, RequestPlaneServer, ResponseListener, ResponseWriter, ServedEndpoint } from '../ports.ts'
import { decodeBody, encodeBody, type WireValue } from './wire/body.ts'
import { failureOfException } from './wire/errors.ts'
import { decodeItem, encodeData, encodeItem, readAnnotated, type AnnotatedItem } from './wire/items.ts'

/** What a handler knows of its request besides the value. */
export interface RequestContext {
  readonly id: string
  readonly metadata: Readonly<Record<string, string>>
  readonly headers: Readonly<Record<string, string>>
  /** Aborted when the caller stopped, killed or left; the reason is the `CancelKind`. */
  readonly signal: AbortSignal
  isStopped(): boolean
  isKilled(): boolean
}

/** Answers one request with any number of values. What it throws becomes an error item: a `FailureError` its failure, others as in Python. */
export type StreamHandler = (request: WireValue, context: RequestContext) => AsyncIterable<WireValue>

/** How items are written and read. */
export interface ItemForm {
  /** False: items are bare values, as on `worker_kv_query_*` endpoints; there errors have no form and break the stream. Default true. */
  readonly annotated?: boolean
}

/** Hears what becomes of one request; `ended` comes last, once. */
export interface StreamObserver {
  sent(bytes: number): void
  ended(end: { readonly errorType?: string; readonly cancelled?: boolean }): void
}

/** Serves an endpoint with a generator. The caller publishes the discovery record. */
export function serveStream(server: RequestPlaneServer, endpoint: EndpointId, instanceId: bigint, handler: StreamHandler, form: ItemForm = {}): ServedEndpoint {
  return server.serve(endpoint, instanceId, (request, response) => answerStream(request, response, handler, form))
}

/** One request of a served endpoint, from its body to the end of its stream. Never rejects. */
export async function answerStream(request: IncomingRequest, response: ResponseWriter, handler: StreamHandler, form: ItemForm = {}, observer: StreamObserver | null = null): Promise<void> {
  const { codec } = request
  const annotated = form.annotated ?? true
  let value: WireValue
  try {
    value = decodeBody(request.body, codec)
  } catch (error) {
    response.fail({ class: 'InvalidRequest', reason: 'request.invalid', message: `request body: ${error instanceof Error ? error.message : String(error)}` })
    observer?.ended({ errorType: 'deserialization' })
    return
  }
  const cancel = new Cancellation(request, response)
  try {
    response.begin()
    for await (const item of handler(value, cancel.context)) {
      if (cancel.kind !== null) break
      const body = encoded(item, codec, annotated)
      observer?.sent(body.length)
      if (!response.writeItem(body)) await cancel.drained()
    }
    if (cancel.kind === null) response.end()
    observer?.ended(cancel.kind === null ? {} : { cancelled: true })
  } catch (error) {
    if (annotated) response.fail(failureOfException(error))
    else response.abort()
    observer?.ended(cancel.kind === null ? { errorType: 'generate' } : { cancelled: true })
  }
}

function encoded(item: WireValue, codec: Codec, annotated: boolean): Uint8Array {
  try {
    return annotated ? encodeData(item, codec) : encodeItem(item, codec)
  } catch (error) {
    throw new FailureError({ class: 'Internal', reason: 'runtime.unclassified', message: `a value that cannot be written as ${codec}: ${error instanceof Error ? error.message : String(error)}` }, { cause: error })
  }
}

/** The caller's wish to end, and its readiness to read, as one handler sees them. */
class Cancellation {
  kind: CancelKind | null = null
  readonly context: RequestContext
  #wake: (() => void) | null = null

  constructor(request: IncomingRequest, response: ResponseWriter) {
    const controller = new AbortController()
    this.context = {
      id: request.id,
      metadata: request.metadata,
      headers: request.headers,
      signal: controller.signal,
      isStopped: () => this.kind !== null,
      isKilled: () => this.kind === 'kill' || this.kind === 'disconnect',
    }
    response.onDrain = () => this.#wake?.()
    response.onCancel = (kind) => {
      this.kind = kind
      controller.abort(kind)
      this.#wake?.()
    }
  }

  /** Resolves when writing may go on or is of no use any more. */
  async drained(): Promise<void> {
    if (this.kind !== null) return
    await new Promise<void>((resolve) => { this.#wake = resolve })
    this.#wake = null
  }
}

/** What a call may say besides its value. */
export interface CallOptions extends ItemForm {
  /** Default: a new UUID. */
  readonly id?: string
  readonly metadata?: Readonly<Record<string, string>>
  readonly headers?: Readonly<Record<string, string>>
  /** Ends the call at once; the iteration throws a Cancelled failure. */
  readonly signal?: AbortSignal
  /** Asks for a graceful end; what the worker still sends is delivered. */
  readonly stopSignal?: AbortSignal
}

/** Frames that wait for a slow reader: reading the worker pauses at the first number and goes on at the second. */
const pauseAt = 64
const resumeAt = 16

/**
 * Calls an endpoint and gives the values of its items, in the instance's codec. An item without data is null.
 *
 * Errors: `FailureError` for a failed call, an error item, an item that cannot be read. Leaving the iteration kills the call.
 * The request is sent when the iteration begins.
 */
export async function* callStream(client: RequestPlaneClient, instance: InstanceRecord, value: WireValue, options: CallOptions = {}): AsyncGenerator<WireValue, void, void> {
  yield* openCall(client, instance, value, options).values()
}

/** Sends a request now; its answers are read from the call. Errors: of encoding; an aborted `signal`. */
export function openCall(client: RequestPlaneClient, instance: InstanceRecord, value: WireValue, options: CallOptions = {}): OpenCall {
  options.signal?.throwIfAborted()
  const { codec } = instance
  const call = new OpenCall(codec, options)
  call.handle = client.call(instance, {
    id: call.id,
    codec,
    body: [encodeBody(value, codec)],
    ...(options.metadata === undefined ? {} : { metadata: options.metadata }),
    ...(options.headers === undefined ? {} : { headers: options.headers }),
  }, call)
  if (options.stopSignal?.aborted === true) call.stop()
  return call
}

/**
 * A call under way: the response frames between the client and one reader.
 *
 * Bounds: reading the worker pauses at `pauseAt` frames; one read of the socket may go beyond it.
 */
export class OpenCall implements ResponseListener {
  readonly id: string
  /** Resolves when the worker's handler has begun. Rejects with the `FailureError` of a call that did not come so far. */
  readonly begun: Promise<void>
  handle: CallHandle | null = null
  readonly #codec: Codec
  readonly #options: CallOptions
  readonly #bodies: Uint8Array[] = []
  readonly #kill = (): void => this.kill()
  readonly #stop = (): void => this.stop()
  #begin: () => void = () => {}
  #failToBegin: (error: FailureError) => void = () => {}
  #paused = false
  #ended = false
  #failure: Failure | null = null
  #wake: (() => void) | null = null

  constructor(codec: Codec, options: CallOptions) {
    this.id = options.id ?? randomUUID()
    this.#codec = codec
    this.#options = options
    this.begun = new Promise((resolve, reject) => {
      this.#begin = resolve
      this.#failToBegin = reject
    })
    // Who reads the values hears of the failure there.
    this.begun.catch(() => {})
    options.signal?.addEventListener('abort', this.#kill)
    options.stopSignal?.addEventListener('abort', this.#stop)
  }

  /** Asks the worker to end; what it still sends is delivered. */
  stop(): void {
    this.handle?.stop()
  }

  /** Ends the worker's work at once. */
  kill(): void {
    this.handle?.kill()
  }

  /** The values of the items; one without data is null. Leaving the iteration kills the call. To be read once. */
  async *values(): AsyncGenerator<WireValue, void, void> {
    if (this.#options.annotated ?? true) {
      for await (const item of this.items()) yield item.data ?? null
      return
    }
    for await (const body of this.#read()) yield decoded(() => decodeItem(body, this.#codec).data ?? null)
  }

  /** The items with their event, comments and id; for annotated endpoints only. As `values` otherwise. */
  async *items(): AsyncGenerator<AnnotatedItem, void, void> {
    for await (const body of this.#read()) yield decoded(() => itemOf(body, this.#codec))
  }

  onPrologue(): void {
    this.#begin()
  }

  onFrame(_frame: Uint8Array, body: Uint8Array): void {
    this.#bodies.push(body)
    if (!this.#paused && this.#bodies.length >= pauseAt) {
      this.#paused = true
      this.handle?.pause()
    }
    this.#wake?.()
  }

  onEnd(): void {
    this.#begin()
    this.#end()
  }

  onFail(failure: Failure): void {
    this.#failure = failure
    this.#failToBegin(new FailureError(failure))
    this.#end()
  }

  #end(): void {
    this.#ended = true
    this.#options.signal?.removeEventListener('abort', this.#kill)
    this.#options.stopSignal?.removeEventListener('abort', this.#stop)
    this.#wake?.()
  }

  async *#read(): AsyncGenerator<Uint8Array, void, void> {
    try {
      for (;;) {
        const body = await this.#next()
        if (body === null) return
        yield body
      }
    } finally {
      this.kill()
    }
  }

  /** The next body, or null at the end. Errors: `FailureError` of the call, after the frames that came before it. */
  async #next(): Promise<Uint8Array | null> {
    while (this.#bodies.length === 0 && !this.#ended) {
      await new Promise<void>((resolve) => { this.#wake = resolve })
      this.#wake = null
    }
    const body = this.#bodies.shift()
    if (this.#paused && this.#bodies.length <= resumeAt) {
      this.#paused = false
      this.handle?.resume()
    }
    if (body !== undefined) return body
    if (this.#failure !== null) throw new FailureError(this.#failure)
    return null
  }
}

/** Errors: the failure that an error item carries; BackendProtocol for an item without data. */
function itemOf(body: Uint8Array, codec: Codec): AnnotatedItem {
  const { data } = decodeItem(body, codec)
  if (data === undefined) throw new FailureError({ class: 'BackendProtocol', reason: 'backend.protocol', message: 'a response item without data that is not the last' })
  const item = readAnnotated(data)
  if (item.failure !== null) throw new FailureError(item.failure)
  return item
}

function decoded<Value>(decode: () => Value): Value {
  try {
    return decode()
  } catch (error) {
    if (error instanceof FailureError) throw error
    throw new FailureError({ class: 'BackendProtocol', reason: 'backend.protocol', message: error instanceof Error ? error.message : String(error) }, { cause: error })
  }
}
