/** The event socket of an engine, as this process plays it. */
import { encode } from '@msgpack/msgpack'
import type { Publisher } from 'zeromq'

/** Publishes batches in order on a port of its own. */
export class EngineSocket {
  readonly address: string
  readonly #socket: Publisher
  #sequence = 0

  constructor(socket: Publisher, address: string) {
    this.#socket = socket
    this.address = address
  }

  static async start(): Promise<EngineSocket> {
    const zmq = await import('zeromq')
    const socket = new zmq.Publisher({ linger: 0 })
    await socket.bind('tcp://127.0.0.1:*')
    return new EngineSocket(socket, socket.lastEndpoint as string)
  }

  async send(events: readonly unknown[]): Promise<void> {
    const sequence = Buffer.alloc(8)
    sequence.writeBigUInt64BE(BigInt(this.#sequence))
    this.#sequence += 1
    await this.#socket.send(['', sequence, encode([0.5, events, null], { useBigInt64: true })])
  }

  close(): void {
    this.#socket.close()
  }
}
