/**
 * Endpoints with values in place of bytes, in the manner of Dynamo's Python runtime: a served endpoint is an async generator,
 * a call is an async iterable. Used where convenience counts more than cost.
 */
import { randomUUID } from 'node:crypto'
import { FailureError, type Failure } from '../model/failure.ts'
import type { CallHandle, CancelKind, Codec, EndpointId, IncomingRequest, InstanceRecord, RequestPlaneClient, RequestPlaneServer, ResponseListener, ResponseWriter, ServedEndpoint } from '../ports.ts'
import { decodeBody, encodeBody, type WireValue } from './wire/body.ts'
import { failureOfException } from './wire/errors.ts'
import { decodeItem, encodeData, encodeItem, readAnnotated } from './wire/items.ts'

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

/** Serves an endpoint with a generator. The caller publishes the discovery record. */
export function serveStream(server: RequestPlaneServer, endpoint: EndpointId, instanceId: bigint, handler: StreamHandler, form: ItemForm = {}): ServedEndpoint {
  const annotated = form.annotated ?? true
  return server.serve(endpoint, instanceId, (request, response) => answer(request, response, handler, annotated))
}

async function answer(request: IncomingRequest, response: ResponseWriter, handler: StreamHandler, annotated: boolean): Promise<void> {
  const { codec } = request
  let value: WireValue
  try {
    value = decodeBody(request.body, codec)
  } catch (error) {
    response.fail({ class: 'InvalidRequest', reason: 'request.invalid', message: `request body: ${error instanceof Error ? error.message : String(error)}` })
    return
  }
  const cancel = new Cancellation(request, response)
  try {
    response.begin()
    for await (const item of handler(value, cancel.context)) {
      if (cancel.kind !== null) return
      if (!response.writeItem(encoded(item, codec, annotated))) await cancel.drained()
    }
    response.end()
  } catch (error) {
    if (annotated) response.fail(failureOfException(error))
    else response.abort()
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
  options.signal?.throwIfAborted()
  const inbox = new Inbox()
  const { codec } = instance
  const handle = client.call(instance, {
    id: options.id ?? randomUUID(),
    codec,
    body: [encodeBody(value, codec)],
    ...(options.metadata === undefined ? {} : { metadata: options.metadata }),
    ...(options.headers === undefined ? {} : { headers: options.headers }),
  }, inbox)
  inbox.handle = handle
  const kill = (): void => handle.kill()
  const stop = (): void => handle.stop()
  options.signal?.addEventListener('abort', kill)
  options.stopSignal?.addEventListener('abort', stop)
  if (options.stopSignal?.aborted === true) stop()
  try {
    for (;;) {
      const body = await inbox.next()
      if (body === null) return
      yield valueOf(body, codec, options.annotated ?? true)
    }
  } finally {
    options.signal?.removeEventListener('abort', kill)
    options.stopSignal?.removeEventListener('abort', stop)
    handle.kill()
  }
}

function valueOf(body: Uint8Array, codec: Codec, annotated: boolean): WireValue {
  try {
    const { data } = decodeItem(body, codec)
    if (!annotated) return data ?? null
    if (data === undefined) throw new FailureError({ class: 'BackendProtocol', reason: 'backend.protocol', message: 'a response item without data that is not the last' })
    const item = readAnnotated(data)
    if (item.failure !== null) throw new FailureError(item.failure)
    return item.data ?? null
  } catch (error) {
    if (error instanceof FailureError) throw error
    throw new FailureError({ class: 'BackendProtocol', reason: 'backend.protocol', message: error instanceof Error ? error.message : String(error) }, { cause: error })
  }
}

/** Frames between the client and one reader. Bounds: reading pauses at `pauseAt`; one read of the socket may go beyond it. */
class Inbox implements ResponseListener {
  handle: CallHandle | null = null
  readonly #bodies: Uint8Array[] = []
  #paused = false
  #ended = false
  #failure: Failure | null = null
  #wake: (() => void) | null = null

  onFrame(_frame: Uint8Array, body: Uint8Array): void {
    this.#bodies.push(body)
    if (!this.#paused && this.#bodies.length >= pauseAt) {
      this.#paused = true
      this.handle?.pause()
    }
    this.#wake?.()
  }

  onEnd(): void {
    this.#ended = true
    this.#wake?.()
  }

  onFail(failure: Failure): void {
    this.#failure = failure
    this.#ended = true
    this.#wake?.()
  }

  /** The next body, or null at the end. Errors: `FailureError` of the call, after the frames that came before it. */
  async next(): Promise<Uint8Array | null> {
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
