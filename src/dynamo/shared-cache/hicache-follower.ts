/** Follows the events of a Mooncake master over ZeroMQ, at the address that the workers name. */
import type { Log } from '../../ports.ts'
import { readMessages, ZmqLibrary } from '../event-plane/zmq-library.ts'
import type { HicacheIndex } from './hicache-index.ts'

/** Keeps one socket; ZeroMQ connects again by itself, and what was missed shows as a gap. */
export class HicacheFollower {
  readonly #index: HicacheIndex
  readonly #log: Log
  readonly #library = new ZmqLibrary(1)
  #turn = 0
  #socket: { close(): void } | null = null

  constructor(index: HicacheIndex, log: Log) {
    this.#index = index
    this.#log = log
    index.onEndpoint = (endpoint) => { void this.#follow(endpoint) }
  }

  async #follow(endpoint: string | null): Promise<void> {
    const turn = ++this.#turn
    this.#socket?.close()
    this.#socket = null
    if (endpoint === null) return
    try {
      const { zmq, context } = await this.#library.load()
      if (turn !== this.#turn) return
      const socket = new zmq.Subscriber({ context, linger: 0, receiveHighWaterMark: 100_000 })
      this.#socket = socket
      socket.connect(endpoint)
      socket.subscribe('')
      this.#log.info({ stage: 'discovery', address: endpoint }, 'following the events of the shared cache')
      await readMessages(socket, () => turn === this.#turn, (frames) => this.#index.take(frames))
    } catch (error) {
      if (turn !== this.#turn) return
      this.#log.warn({ stage: 'discovery', address: endpoint, reason: (error as Error).message }, 'the events of the shared cache cannot be followed; it counts as empty')
      this.#index.clear()
    }
  }

  close(): void {
    this.#turn += 1
    this.#socket?.close()
    this.#socket = null
  }
}
