/** An answer as server-sent events, at the client's pace. */
import type { ServerResponse } from 'node:http'
import { stringifyJson } from '../dynamo/wire/json.ts'
import type { Clock, Json, StopSignal } from '../ports.ts'

/** A client that takes nothing for so long has gone. */
export const stallDefaultMs = 120_000

export interface EventWriterOptions {
  readonly response: ServerResponse
  readonly signal: StopSignal
  readonly clock: Clock
  readonly stallMs: number
}

/** The end of every stream. */
export const endMark = 'data: [DONE]\n\n'

export const dataEvent = (value: Json): string => `data: ${stringifyJson(value)}\n\n`

/** An event whose name says what its value is. */
export const namedEvent = (event: string, value: Json): string => `event: ${event}\ndata: ${stringifyJson(value)}\n\n`

/** A named event whose value stands in a comment, as Dynamo sends its annotations. */
export const annotationEvent = (event: string, value: Json): string => `event: ${event}\n: ${stringifyJson(value)}\n\n`

/** More than this does not wait for the end of the turn. */
const waitingLengthMax = 65_536

/** Head and first event go out together, so that an earlier failure can still be a status. What is written in one turn of the loop leaves in one piece. */
export class EventWriter {
  readonly #options: EventWriterOptions
  #waiting = ''
  #full: Promise<void> | undefined

  constructor(options: EventWriterOptions) {
    this.#options = options
  }

  get open(): boolean {
    return this.#options.response.headersSent
  }

  begin(headers: Readonly<Record<string, string>>): void {
    this.#options.response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache', 'x-accel-buffering': 'no', ...headers,
    })
  }

  /** Text of whole events. Resolves when the client may get more, or has left; undefined: at once. */
  write(text: string): Promise<void> | undefined {
    if (text !== '') {
      if (this.#waiting === '') process.nextTick(this.#flush)
      this.#waiting += text
      if (this.#waiting.length > waitingLengthMax) this.#flush()
    }
    return this.#full
  }

  /** The last events and the end. */
  end(text: string): void {
    const all = this.#waiting + text
    this.#waiting = ''
    this.#options.response.end(all)
  }

  readonly #flush = (): void => {
    const text = this.#waiting
    if (text === '') return
    this.#waiting = ''
    const { response, signal } = this.#options
    if (!signal.aborted && !response.write(text)) this.#full ??= this.#drained()
  }

  async #drained(): Promise<void> {
    const { response, signal, clock, stallMs } = this.#options
    await new Promise<void>((resolve) => {
      const done = (): void => {
        timer.cancel()
        response.off('drain', done)
        response.off('close', done)
        signal.removeEventListener('abort', done)
        resolve()
      }
      const timer = clock.setTimer(stallMs, () => {
        response.destroy()
        done()
      })
      response.once('drain', done)
      response.once('close', done)
      signal.addEventListener('abort', done)
      if (signal.aborted) done()
    })
    this.#full = undefined
  }
}
