/** An answer as server-sent events, at the client's pace. */
import type { ServerResponse } from 'node:http'
import { stringifyJson } from '../dynamo/wire/json.ts'
import type { Clock, Json } from '../ports.ts'

/** A client that takes nothing for so long has gone. */
export const stallDefaultMs = 120_000

export interface EventWriterOptions {
  readonly response: ServerResponse
  readonly signal: AbortSignal
  readonly clock: Clock
  readonly stallMs: number
}

/** Head and first event go out together, so that an earlier failure can still be a status. */
export class EventWriter {
  readonly #options: EventWriterOptions

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

  /** One `data:` event. Resolves when the client may get more, or has left. */
  data(value: Json): Promise<void> {
    return this.#write(`data: ${stringifyJson(value)}\n\n`)
  }

  /** A named event whose value stands in a comment, as Dynamo sends its annotations. */
  annotation(event: string, value: string): Promise<void> {
    return this.#write(`event: ${event}\n: ${JSON.stringify(value)}\n\n`)
  }

  /** The end mark and the end. */
  done(): void {
    this.#options.response.end('data: [DONE]\n\n')
  }

  async #write(text: string): Promise<void> {
    const { response, signal, clock, stallMs } = this.#options
    if (signal.aborted || response.write(text)) return
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
  }
}
