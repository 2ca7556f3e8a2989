/** The KV event socket of an engine (vLLM, SGLang, TensorRT-LLM): connects, decodes, hands on. Lossy, like the socket. */
import type { Subscriber } from 'zeromq'
import { decodeRawBatch, decodeRawMessage } from '../engines/raw-kv-events.ts'
import type { RawEventBatch } from '../kv-events/raw-event.ts'
import type { Log } from '../ports.ts'

/** Messages that libzmq keeps for us at most. */
const highWaterMark = 100_000

/** Plain counters. */
export interface EngineEventsStats {
  messages: number
  /** Messages that could not be decoded. */
  malformed: number
  /** Messages that the socket's sequence shows as missing. */
  missed: number
}

export interface EngineEventsParts {
  readonly address: string
  readonly topic: string
  readonly log: Log
  sink(batch: RawEventBatch): void
}

export interface EngineEventsFollower {
  readonly stats: EngineEventsStats
  close(): Promise<void>
}

/** Follows a socket until closed; an engine that is not there yet, or comes again, is connected when it is. Errors: an address that ZeroMQ refuses. */
export async function followEngineEvents(parts: EngineEventsParts): Promise<EngineEventsFollower> {
  const { Subscriber: Socket } = await import('zeromq')
  const socket = new Socket({ receiveHighWaterMark: highWaterMark, linger: 0 })
  const stats: EngineEventsStats = { messages: 0, malformed: 0, missed: 0 }
  try {
    socket.connect(parts.address)
  } catch (error) {
    socket.close()
    throw new Error(`zmqEndpoint ${parts.address} cannot be connected: ${error instanceof Error ? error.message : String(error)}`, { cause: error })
  }
  socket.subscribe(parts.topic)
  const ended = read(socket, parts, stats).catch((error: unknown) => {
    if (!socket.closed) parts.log.error({ stage: 'engine-events', reason: error instanceof Error ? error.message : String(error) }, 'the engine\'s event socket cannot be read any more')
  })
  return {
    stats,
    async close() {
      socket.close()
      await ended
    },
  }
}

async function read(socket: Subscriber, { log, sink, address }: EngineEventsParts, stats: EngineEventsStats): Promise<void> {
  let expected: bigint | null = null
  for await (const frames of socket) {
    stats.messages += 1
    const message = decodeRawMessage(frames)
    const outcome = message.kind === 'refused' ? message : decodeRawBatch(message.payload)
    if (message.kind === 'message') {
      if (expected !== null && message.sequence > expected) {
        stats.missed += Number(message.sequence - expected)
        log.warn({ stage: 'engine-events', reason: `${message.sequence - expected} messages before ${message.sequence} are missing`, address }, 'events of the engine were lost; some cached blocks are unknown, or known for too long')
      }
      expected = message.sequence + 1n
    }
    if (outcome.kind !== 'batch') {
      stats.malformed += 1
      if (stats.malformed === 1) log.warn({ stage: 'engine-events', reason: outcome.kind === 'refused' ? outcome.reason : 'no batch', address }, 'a message of the engine cannot be decoded')
      continue
    }
    sink(outcome.batch)
  }
}
