/** First-token marks: tells routers that a request's prompt is computed, before its answer has reached them. */
import { activeSequencesTopic } from '../dynamo/kv-state/load-events.ts'
import { activeSequenceBatchMax, encodeActiveSequence, encodeActiveSequenceBatch, type ActiveSequenceEvent } from '../dynamo/wire/active-sequences.ts'
import type { EndpointId, EventPlane, EventPublisher } from '../ports.ts'
import type { Context } from './context.ts'

/** Marks that wait for the end of a turn are sent as one message. */
export class FirstTokenSource {
  readonly #publisher: EventPublisher
  readonly #workerId: bigint
  readonly #isBatched: boolean
  #waiting: ActiveSequenceEvent[] = []

  constructor(publisher: EventPublisher, workerId: bigint, isBatched: boolean) {
    this.#publisher = publisher
    this.#workerId = workerId
    this.#isBatched = isBatched
  }

  /** Binds and registers the publisher of an endpoint. Errors: of event plane and discovery. */
  static async create(plane: EventPlane, endpoint: EndpointId, workerId: bigint): Promise<FirstTokenSource> {
    return new FirstTokenSource(await plane.publisher(endpoint, activeSequencesTopic), workerId, plane.kind === 'zmq')
  }

  /** The mark of this request goes out with its first tokens, or when the handler says `notifyFirstToken`. */
  bind(context: Context, dpRank = 0): void {
    context.bindFirstToken(() => this.#mark(context.id, dpRank))
  }

  async close(): Promise<void> {
    this.#flush()
    await this.#publisher.close()
  }

  #mark(requestId: string, dpRank: number): void {
    const event: ActiveSequenceEvent = { requestId, workerId: this.#workerId, dpRank, data: { kind: 'mark_prefill_completed' }, routerId: this.#workerId, loraName: null }
    if (!this.#isBatched) {
      this.#publisher.publish(encodeActiveSequence(event))
      return
    }
    this.#waiting.push(event)
    if (this.#waiting.length === 1) queueMicrotask(() => this.#flush())
    else if (this.#waiting.length >= activeSequenceBatchMax) this.#flush()
  }

  #flush(): void {
    if (this.#waiting.length === 0) return
    const events = this.#waiting
    this.#waiting = []
    this.#publisher.publish(encodeActiveSequenceBatch(events))
  }
}
