/** Request-plane metrics of a served endpoint: a handler wrapped so that its requests and bytes are counted. */
import type { Failure } from '../model/failure.ts'
import type { CancelKind, Clock, RequestHandler, ResponseWriter } from '../ports.ts'

/** What is told of each request; `ended` exactly once for each `started`. */
export interface RequestMeter {
  started(requestBytes: number): void
  responseBytes(count: number): void
  ended(seconds: number, end: { readonly errorType?: string; readonly cancelled?: boolean }): void
}

class MeteredWriter implements ResponseWriter {
  readonly #inner: ResponseWriter
  readonly #meter: RequestMeter
  readonly #clock: Clock
  readonly #startedMs: number
  #isOver = false
  onDrain: (() => void) | null = null
  #onCancel: ((kind: CancelKind) => void) | null = null

  constructor(inner: ResponseWriter, meter: RequestMeter, clock: Clock, startedMs: number) {
    this.#inner = inner
    this.#meter = meter
    this.#clock = clock
    this.#startedMs = startedMs
    inner.onDrain = () => this.onDrain?.()
  }

  get onCancel(): ((kind: CancelKind) => void) | null {
    return this.#onCancel
  }

  set onCancel(listener: ((kind: CancelKind) => void) | null) {
    this.#onCancel = listener
    // The inner writer also tells of a cancel that came before.
    this.#inner.onCancel = listener
  }

  begin(): void {
    this.#inner.begin()
  }

  writeFrame(frame: Uint8Array, body?: Uint8Array): boolean {
    this.#meter.responseBytes(frame.length)
    return this.#inner.writeFrame(frame, body)
  }

  writeItem(body: Uint8Array): boolean {
    this.#meter.responseBytes(body.length)
    return this.#inner.writeItem(body)
  }

  fail(failure: Failure): void {
    this.#inner.fail(failure)
    this.#end({ errorType: failure.class })
  }

  end(finalFrame?: Uint8Array): void {
    if (finalFrame === undefined) this.#inner.end()
    else this.#inner.end(finalFrame)
    this.#end({})
  }

  abort(): void {
    this.#inner.abort()
    this.#end({ cancelled: true })
  }

  #end(end: { readonly errorType?: string; readonly cancelled?: boolean }): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#meter.ended((this.#clock.nowMs() - this.#startedMs) / 1000, end)
  }
}

export const metered = (meter: RequestMeter, clock: Clock, handler: RequestHandler): RequestHandler => (request, response) => {
  meter.started(request.body.length)
  return handler(request, new MeteredWriter(response, meter, clock, request.receivedAtMs))
}
