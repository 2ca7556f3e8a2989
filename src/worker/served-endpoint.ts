/**
 * One endpoint as it is served: its handler, its open requests, its record.
 *
 * State: served (new requests are taken), closed (refused as unavailable), idle when the last stream has ended.
 */
import { instanceKey } from '../dynamo/discovery/store-key.ts'
import { answerStream, type RequestContext, type StreamObserver } from '../dynamo/endpoint.ts'
import type { WireValue } from '../dynamo/wire/body.ts'
import { failureOfException } from '../dynamo/wire/errors.ts'
import { encodeInstanceRecord } from '../dynamo/wire/instance-record.ts'
import type { Clock, Codec, Discovery, EndpointId, IncomingRequest, RequestPlaneServer, ResponseWriter, ServedEndpoint } from '../ports.ts'
import type { EndpointMeter } from '../observability/request-plane-metrics.ts'
import { Context } from './context.ts'
import type { LlmEngineOutput, PreprocessedRequest } from './engine-messages.ts'
import { EngineShutdown } from './errors.ts'

/** Answers one request with any number of values, as an async generator. What it throws becomes an error item. `Request`: what the handler expects, unchecked. */
export type RequestHandler<Request = PreprocessedRequest> = (request: Request, context: Context) => AsyncIterable<WireValue | LlmEngineOutput>

export interface ServingParts {
  readonly discovery: Discovery
  readonly server: RequestPlaneServer
  readonly clock: Clock
  readonly codec: Codec
  /** Tells what is counted; null: nothing is. */
  readonly meter: EndpointMeter | null
}

interface OpenRequest {
  readonly context: Context
  readonly response: ResponseWriter
}

export class ServedWorkerEndpoint {
  readonly #id: EndpointId
  readonly #parts: ServingParts
  readonly #handler: RequestHandler<never>
  readonly #served: ServedEndpoint
  readonly #open = new Set<OpenRequest>()
  #onIdle: (() => void) | null = null
  /** `Clock.nowMs` of the last request's end. */
  idleSinceMs: number

  constructor(id: EndpointId, handler: RequestHandler<never>, parts: ServingParts) {
    this.#id = id
    this.#parts = parts
    this.#handler = handler
    this.idleSinceMs = parts.clock.nowMs()
    this.#served = parts.server.serve(id, parts.discovery.instanceId, (request, response) => this.#take(request, response))
  }

  /** Requests whose stream has not ended. */
  get inflight(): number {
    return this.#open.size
  }

  /** Callers find the endpoint from now on. */
  async publish(): Promise<void> {
    const { discovery, codec } = this.#parts
    const record = { ...this.#id, instanceId: discovery.instanceId, transport: this.#served.transport, codec, deviceType: 'cpu' }
    await discovery.put('v1/instances', instanceKey(this.#id, discovery.instanceId), encodeInstanceRecord(record))
  }

  /** Callers find it no more; who knows it may still ask. */
  async unpublish(): Promise<void> {
    const { discovery } = this.#parts
    await discovery.remove('v1/instances', instanceKey(this.#id, discovery.instanceId))
  }

  /** New requests are refused as unavailable; open ones go on. */
  close(): void {
    this.#served.close()
  }

  /** Resolves when no request is open. */
  async idle(): Promise<void> {
    if (this.#open.size === 0) return
    await new Promise<void>((resolve) => { this.#onIdle = resolve })
  }

  /** Ends what is open: callers see that the engine shut down, which they may try elsewhere. Gives how many there were. */
  abort(): number {
    const { size } = this.#open
    for (const { context, response } of this.#open) {
      response.fail(failureOfException(new EngineShutdown('the worker is going down')))
      context.kill()
    }
    // A handler that never returns is not waited for.
    this.#open.clear()
    this.#onIdle?.()
    return size
  }

  /** What the handler answers to a value, without the request plane: for probes. */
  inProcess(value: WireValue, context: Context): AsyncIterable<unknown> {
    return this.#handler(value as never, context)
  }

  async #take(request: IncomingRequest, response: ResponseWriter): Promise<void> {
    const { meter, clock } = this.#parts
    const context = new Context({ id: request.id, metadata: request.metadata, headers: request.headers })
    const entry = { context, response }
    this.#open.add(entry)
    meter?.started(request.body.length)
    try {
      await answerStream(request, response, (value, caller) => this.#answer(value, caller, context), {}, meter === null ? null : observerOf(meter, request, clock))
    } finally {
      this.#open.delete(entry)
      this.idleSinceMs = clock.nowMs()
      if (this.#open.size === 0) this.#onIdle?.()
    }
  }

  async *#answer(value: WireValue, caller: RequestContext, context: Context): AsyncGenerator<WireValue, void, void> {
    const end = (): void => (caller.isKilled() ? context.kill() : context.stopGenerating())
    caller.signal.addEventListener('abort', end, { once: true })
    if (caller.signal.aborted) end()
    try {
      for await (const item of this.#handler(value as never, context)) {
        if (context.isKilled()) return
        if (context.awaitsFirstToken && hasTokens(item)) context.notifyFirstToken()
        yield item as WireValue
      }
    } finally {
      caller.signal.removeEventListener('abort', end)
    }
  }
}

function hasTokens(item: WireValue | LlmEngineOutput): boolean {
  if (item === null || typeof item !== 'object') return false
  const { token_ids: tokens } = item as { readonly token_ids?: { readonly length?: number } }
  return (tokens?.length ?? 0) > 0
}

function observerOf(meter: EndpointMeter, request: IncomingRequest, clock: Clock): StreamObserver {
  return {
    sent: (bytes) => meter.responseBytes(bytes),
    ended: (end) => meter.ended((clock.nowMs() - request.receivedAtMs) / 1000, end),
  }
}
