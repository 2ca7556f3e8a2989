/** The package `zeromq`, loaded with the first socket, and its context, which all sockets of a plane share. */
import type { Context, Subscriber } from 'zeromq'

type Zmq = typeof import('zeromq')

export const socketLimits = {
  /** Messages per socket that libzmq keeps at most, on either side. */
  highWaterMark: 100_000,
  /** ZeroMQ's own limit of 1023 sockets would end at a few hundred workers. */
  socketsMax: 16_384,
  /** Messages read in a row before other work gets a turn. */
  burstMax: 256,
} as const

export class ZmqLibrary {
  readonly #ioThreads: number
  #loading: Promise<{ readonly zmq: Zmq; readonly context: Context }> | null = null

  constructor(ioThreads: number) {
    this.#ioThreads = ioThreads
  }

  /** Errors: no binary for this platform. */
  load(): Promise<{ readonly zmq: Zmq; readonly context: Context }> {
    this.#loading ??= import('zeromq').then((zmq) => ({
      zmq, context: new zmq.Context({ blocky: false, ioThreads: this.#ioThreads, maxSockets: socketLimits.socketsMax }),
    }))
    return this.#loading
  }
}

/** Reads a socket while it is wanted. Errors: those of the socket. */
export async function readMessages(socket: Subscriber, isWanted: () => boolean, onFrames: (frames: readonly Uint8Array[]) => void): Promise<void> {
  let burst = 0
  for await (const frames of socket) {
    if (!isWanted()) return
    onFrames(frames)
    burst += 1
    if (burst % socketLimits.burstMax === 0) await new Promise((resolve) => setImmediate(resolve))
  }
}
