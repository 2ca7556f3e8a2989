/** Calls a request handler of this process as if over the request plane: for the HTTP mirror. */
import { FailureError, type Failure } from '../model/failure.ts'
import type { CancelKind, Clock, IncomingRequest, Json, JsonObject, RequestHandler, ResponseWriter } from '../ports.ts'
import { decodeTwoPart } from '../dynamo/wire/frames.ts'
import { decodeItem, readAnnotated } from '../dynamo/wire/items.ts'
import { stringifyJsonBytes } from '../dynamo/wire/json.ts'

/** Items that may wait for a slow reader before the source is paused. */
const waitingMax = 64

/** A response stream that is read by iteration. Ending the iteration early cancels the request. */
class CollectingWriter implements ResponseWriter {
  onCancel: ((kind: CancelKind) => void) | null = null
  onDrain: (() => void) | null = null
  readonly #waiting: Uint8Array[] = []
  #wake: (() => void) | null = null
  #over = false
  #failure: Failure | null = null

  begin(): void {}

  writeFrame(frame: Uint8Array): boolean {
    return this.writeItem(decodeTwoPart(frame).body)
  }

  writeItem(body: Uint8Array): boolean {
    if (this.#over) return true
    this.#waiting.push(body)
    this.#wake?.()
    return this.#waiting.length < waitingMax
  }

  fail(failure: Failure): void {
    this.#failure = failure
    this.end()
  }

  end(): void {
    this.#over = true
    this.#wake?.()
  }

  abort(): void {
    if (!this.#over) this.fail({ class: 'Cancelled', reason: 'request.cancelled', message: 'the request was ended by the router' })
  }

  async *values(signal: AbortSignal): AsyncGenerator<Json> {
    const cancel = (): void => {
      if (this.#over) return
      this.onCancel?.('disconnect')
      this.abort()
    }
    signal.addEventListener('abort', cancel, { once: true })
    try {
      if (signal.aborted) cancel()
      for (;;) {
        const body = this.#waiting.shift()
        if (body !== undefined) {
          if (this.#waiting.length === waitingMax / 2) this.onDrain?.()
          const item = readAnnotated(decodeItem(body, 'json').data ?? {})
          if (item.failure !== null) throw new FailureError(item.failure)
          if (item.data !== undefined) yield item.data as Json
        } else if (this.#over) {
          if (this.#failure !== null) throw new FailureError(this.#failure)
          return
        } else {
          await new Promise<void>((resolve) => { this.#wake = resolve })
          this.#wake = null
        }
      }
    } finally {
      signal.removeEventListener('abort', cancel)
      cancel()
    }
  }
}

export interface InProcessCall {
  readonly id: string
  readonly headers: Readonly<Record<string, string>>
  readonly signal: AbortSignal
}

/** The values of the answer, in order. Throws `FailureError`. */
export function callInProcess(handler: RequestHandler, request: JsonObject | readonly Json[], call: InProcessCall, clock: Clock): AsyncIterable<Json> {
  const writer = new CollectingWriter()
  const incoming: IncomingRequest = {
    id: call.id, headers: call.headers, metadata: {}, codec: 'json', body: stringifyJsonBytes(request), receivedAtMs: clock.nowMs(),
  }
  const values = writer.values(call.signal)
  void handler(incoming, writer)
  return values
}
