/** Server-sent events towards one client: one `data:` line per value, at the client's pace. */
import type { ServerResponse } from 'node:http'
import type { Json } from '../ports.ts'
import { encodeBody } from './lossless-body.ts'

/** One response as an event stream. The head goes out with the first event, so that an earlier failure can still be a status. */
export class EventStream {
  readonly #response: ServerResponse
  readonly #signal: AbortSignal

  /** `signal` aborts when the client has left: a wait for a slow reader ends then. */
  constructor(response: ServerResponse, signal: AbortSignal) {
    this.#response = response
    this.#signal = signal
  }

  get started(): boolean {
    return this.#response.headersSent
  }

  /** Resolves when the client may get more; also when it has left. */
  async send(value: Json): Promise<void> {
    if (this.#signal.aborted) return
    if (!this.started) {
      this.#response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-store', 'x-accel-buffering': 'no' })
    }
    if (this.#response.write(`data: ${encodeBody(value)}\n\n`)) return
    await new Promise<void>((resolve) => {
      const done = (): void => {
        this.#response.off('drain', done)
        this.#signal.removeEventListener('abort', done)
        resolve()
      }
      this.#response.once('drain', done)
      this.#signal.addEventListener('abort', done)
      if (this.#signal.aborted) done()
    })
  }

  /** Ends the stream well; an empty one as 200 without events. */
  end(): void {
    if (!this.started) this.#response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-store' })
    this.#response.end()
  }
}
