/**
 * Calls a request handler of this process as if over the request plane: for the HTTP surfaces. In MessagePack, as workers speak it,
 * outputs are decoded once; in JSON, what JSON cannot hold is turned into what it can.
 */
import { FailureError, type Failure } from '../model/failure.ts'
import type { CancelKind, Clock, Codec, IncomingRequest, JsonObject, ResponseWriter, StopSignal } from '../ports.ts'
import { encodeBody, type WireObject, type WireValue } from '../dynamo/wire/body.ts'
import { decodeTwoPart } from '../dynamo/wire/frames.ts'
import { isObject } from '../dynamo/wire/json.ts'
import { readOutputItem } from '../dynamo/wire/output-item.ts'

/** Items that may wait for a slow reader before the source is paused. */
const waitingMax = 64

/** A response whose reader is in this process: outputs need not be encoded for it. */
export interface ValueWriter extends ResponseWriter {
  /** One output. False: pause the source. */
  writeValue(value: WireObject): boolean
}

/** Null: the reader wants bytes. */
export const valueWriterOf = (response: ResponseWriter): ValueWriter | null =>
  'writeValue' in response ? (response as ValueWriter) : null

export interface InProcessCall {
  readonly id: string
  readonly headers: Readonly<Record<string, string>>
  readonly metadata?: Readonly<Record<string, string>>
  readonly signal: StopSignal
}

/**
 * Yields the values of the answer in order; ending the iteration early, or the signal, cancels the request.
 * Errors: throws `FailureError`, also in the middle.
 */
export async function* callInProcess(
  handle: (request: IncomingRequest, response: ResponseWriter) => void, request: WireValue, call: InProcessCall, clock: Clock, codec: Codec,
): AsyncGenerator<WireValue, void, undefined> {
  for await (const values of callInBatches(handle, request, call, clock, codec)) for (const value of values) yield value
}

/** The same, with the values that came together in one list: one turn of the microtask queue for all of them. Lists are never empty. */
export async function* callInBatches(
  handle: (request: IncomingRequest, response: ResponseWriter) => void, request: WireValue, call: InProcessCall, clock: Clock, codec: Codec,
): AsyncGenerator<readonly WireValue[], void, undefined> {
  const writer = new ItemQueue()
  const cancel = (): void => writer.cancel()
  call.signal.addEventListener('abort', cancel, { once: true })
  try {
    if (call.signal.aborted) throw new FailureError(left)
    handle(new Incoming(request, call, codec, clock.nowMs()), writer)
    for (;;) {
      const items = writer.take()
      if (items.length === 0) {
        if (!writer.isOver) await writer.more()
        else if (writer.failure !== null) throw new FailureError(writer.failure)
        else return
        continue
      }
      const values: WireValue[] = []
      const failure = readItems(items, codec, values)
      if (values.length > 0) yield values
      if (failure !== null) throw new FailureError(failure)
      writer.taken()
    }
  } finally {
    call.signal.removeEventListener('abort', cancel)
    writer.cancel()
  }
}

/** A request whose body is encoded for those alone who ask for it. */
class Incoming implements IncomingRequest {
  readonly id: string
  readonly headers: Readonly<Record<string, string>>
  readonly metadata: Readonly<Record<string, string>>
  readonly codec: Codec
  readonly receivedAtMs: number
  readonly value?: JsonObject
  readonly #request: WireValue
  #body: Uint8Array | null = null

  constructor(request: WireValue, { id, headers, metadata }: InProcessCall, codec: Codec, receivedAtMs: number) {
    this.id = id
    this.headers = headers
    this.metadata = metadata ?? {}
    this.codec = codec
    this.receivedAtMs = receivedAtMs
    this.#request = request
    // JSON changes values on its way through text.
    if (codec === 'msgpack' && isObject(request)) this.value = request as JsonObject
  }

  get body(): Uint8Array {
    return (this.#body ??= encodeBody(this.#request, this.codec))
  }
}

/** Adds the values of the items up to the first failure, which it gives. */
function readItems(items: readonly Item[], codec: Codec, values: WireValue[]): Failure | null {
  for (const item of items) {
    if (!(item instanceof Uint8Array)) {
      values.push(item)
      continue
    }
    const { data, failure } = readOutputItem(item, codec)
    if (failure !== null) return failure
    if (data !== undefined) values.push(data)
  }
  return null
}

/** Encoded, or read already. */
type Item = Uint8Array | WireObject

const nothing: readonly Item[] = []

const left: Failure = { class: 'Cancelled', reason: 'request.cancelled', message: 'the request was ended' }

/** A response stream that is read in lists of items. */
class ItemQueue implements ValueWriter {
  onCancel: ((kind: CancelKind) => void) | null = null
  onDrain: (() => void) | null = null
  failure: Failure | null = null
  #waiting: Item[] = []
  #isFull = false
  #wake: (() => void) | null = null
  #over = false

  get isOver(): boolean {
    return this.#over
  }

  begin(): void {}

  writeFrame(frame: Uint8Array, body: Uint8Array = decodeTwoPart(frame).body): boolean {
    return this.writeItem(body)
  }

  writeItem(body: Uint8Array): boolean {
    return this.#add(body)
  }

  writeValue(value: WireObject): boolean {
    return this.#add(value)
  }

  #add(item: Item): boolean {
    if (this.#over) return true
    this.#waiting.push(item)
    this.#wake?.()
    this.#isFull ||= this.#waiting.length >= waitingMax
    return !this.#isFull
  }

  fail(failure: Failure): void {
    if (this.#over) return
    this.failure = failure
    this.end()
  }

  end(): void {
    this.#over = true
    this.#wake?.()
  }

  abort(): void {
    this.fail(left)
  }

  /** What waits; empty when nothing does. */
  take(): readonly Item[] {
    if (this.#waiting.length === 0) return nothing
    const items = this.#waiting
    this.#waiting = []
    return items
  }

  /** What was taken has been read. */
  taken(): void {
    if (!this.#isFull || this.#waiting.length >= waitingMax) return
    this.#isFull = false
    this.onDrain?.()
  }

  async more(): Promise<void> {
    await new Promise<void>((resolve) => { this.#wake = resolve })
    this.#wake = null
  }

  cancel(): void {
    if (this.#over) return
    this.onCancel?.('disconnect')
    this.abort()
  }
}
