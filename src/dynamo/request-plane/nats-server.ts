/**
 * The request plane over NATS, serving: one subject per endpoint of this instance, answered with an empty acknowledgement at once; the
 * response goes over a TCP connection to the caller, as with requests over TCP (`response-stream.ts`).
 */
import type { Msg } from '@nats-io/transport-node'
import type { Clock, EndpointId, Log, RequestHandler, RequestPlaneServer, ServedEndpoint } from '../../ports.ts'
import { natsSubject } from '../wire/endpoint-path.ts'
import { requestFrameBytesMaxDefault } from '../wire/frames.ts'
import type { LinkSubscription, NatsLink } from '../nats/nats-link.ts'
import { IncomingRequests, Served, type ArrivedRequest, type IncomingRequestCounts, type IncomingRequestsOptions } from './incoming-requests.ts'
import { plainTcp, type TcpTls } from './tcp-tls.ts'

/** How a server is made. */
export interface NatsRequestServerOptions extends IncomingRequestsOptions {
  readonly clock: Clock
  readonly log: Log
  readonly link: NatsLink
  /** Larger requests are refused. */
  readonly frameBytesMax?: number
  /** For the connections to callers. Left out: plain TCP. */
  readonly tls?: TcpTls
}

/** Counters since the start, and what is open now. */
export interface NatsRequestServerStats extends Readonly<IncomingRequestCounts> {
  readonly openStreams: number
}

/** A request plane server that can be observed. */
export interface NatsRequestServer extends RequestPlaneServer {
  stats(): NatsRequestServerStats
}

/** Members of this group share a subject; each instance has subjects of its own. */
const queueGroup = 'q'
/** For messages under way when an endpoint closes. */
const drainTimeoutMs = 2_000

/** Makes a server; `start` connects. The link is shared and stays open. */
export function createNatsRequestServer(options: NatsRequestServerOptions): NatsRequestServer {
  return new Server(options)
}

class Server implements NatsRequestServer {
  readonly #options: NatsRequestServerOptions
  readonly #requests: IncomingRequests
  readonly #open = new Map<string, LinkSubscription>()

  constructor(options: NatsRequestServerOptions) {
    this.#options = options
    this.#requests = new IncomingRequests(options, options.clock, options.log, (options.tls ?? plainTcp).client)
  }

  start(signal: AbortSignal): Promise<void> {
    return this.#options.link.start(signal)
  }

  serve(endpoint: EndpointId, instanceId: bigint, handler: RequestHandler): ServedEndpoint {
    const { link } = this.#options
    const subject = natsSubject(endpoint, instanceId)
    if (this.#open.has(subject)) throw new Error(`endpoint ${subject} is served already`)
    let closing = false
    const subscription = link.subscribe(subject, queueGroup, (message) => this.#arrived(served, message, closing))
    this.#open.set(subject, subscription)
    const served: Served = new Served({ nats_tcp: subject }, handler, () => {
      if (closing) return
      closing = true
      // What the server has sent us already is refused by name, not dropped.
      void this.#within(subscription.drain()).then(() => { if (this.#open.get(subject) === subscription) this.#open.delete(subject) })
    }, this.#within(link.flush()))
    return served
  }

  stats(): NatsRequestServerStats {
    return { openStreams: this.#requests.openStreams, ...this.#requests.counts }
  }

  async close(): Promise<void> {
    await this.#within(Promise.all([...this.#open.values()].map((subscription) => subscription.drain())))
    this.#open.clear()
    this.#requests.leaveAll()
    await this.#requests.close()
  }

  #arrived(served: Served, message: Msg, closing: boolean): void {
    // Before anything of it is decoded: the caller waits for this only so long.
    if (message.reply !== undefined && message.reply !== '') message.respond()
    const request: ArrivedRequest = { headers: this.#headersOf(message), payload: message.data }
    const limit = this.#options.frameBytesMax ?? requestFrameBytesMaxDefault
    if (closing) {
      this.#requests.counts.refusedUnknown += 1
      this.#requests.refuse(request, { class: 'Unavailable', reason: 'backend.worker_unavailable', message: `Server unavailable: unknown endpoint ${message.subject}` })
    } else if (message.data.length > limit) {
      this.#requests.counts.malformedFrames += 1
      this.#requests.refuse(request, {
        class: 'PayloadTooLarge', reason: 'request.payload_too_large', publicDetail: { type: 'size_limit', limit, actual: message.data.length },
        message: `request of ${message.data.length} bytes, at most ${limit} are taken`,
      })
    } else if (!this.#requests.admit(served)) {
      this.#requests.refuse(request, { class: 'CapacityExhausted', reason: 'capacity.worker_overloaded', message: 'Server overloaded: worker at capacity' })
    } else this.#requests.begin(served, request)
  }

  #headersOf(message: Msg): Record<string, string> {
    const headers: Record<string, string> = {}
    try {
      for (const [name, values] of message.headers ?? []) headers[name] = values[0] ?? ''
    } catch (error) {
      this.#options.log.warn({ stage: 'request-frame', reason: error instanceof Error ? error.message : String(error) }, 'NATS headers that cannot be read are left out')
      return {}
    }
    return headers
  }

  async #within(work: Promise<unknown>): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = this.#options.clock.setTimer(drainTimeoutMs, resolve)
      const done = (): void => {
        timer.cancel()
        resolve()
      }
      work.then(done, done)
    })
  }
}
