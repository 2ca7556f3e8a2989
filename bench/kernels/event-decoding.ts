/** From the four frames of a message on the event plane to typed router events. */
import { decodeEventFrames, encodeEventFrames } from '../../src/dynamo/event-plane/envelope.ts'
import { decodeKvEvents, encodeKvEvents } from '../../src/dynamo/wire/kv-events.ts'
import type { RouterEvent } from '../../src/model/kv-event.ts'
import { nsPerCall, wordsFrom } from '../measure.ts'

export interface EventDecodingRow {
  readonly events: number
  readonly blocksPerEvent: number
  readonly bytes: number
  readonly us: number
  readonly mblocksPerSecond: number
}

function measure(count: number, blocks: number): EventDecodingRow {
  const word = wordsFrom(blocks)
  const hashes = (): Uint32Array => Uint32Array.from({ length: 2 * blocks }, word)
  const events = Array.from({ length: count }, (_, index): RouterEvent => ({
    workerId: 0x1234_5678_9abc_def0n, dpRank: 0, storageTier: 'device', residencyDomain: 'worker', eventId: BigInt(index),
    data: { kind: 'stored', parentHash: 0xfedc_ba98_7654_3210n, startPosition: null, blockHashes: hashes(), tokensHashes: hashes(), mmInfos: null },
  }))
  const payload = encodeKvEvents(events)
  const frames = encodeEventFrames({ publisherId: 7n, sequence: 1n, publishedAtMs: 1_700_000_000_000, topic: 'kv-events', payload })
  const decode = (): readonly RouterEvent[] => {
    const envelope = decodeEventFrames(frames, 'kv-events', 7n)
    if (typeof envelope === 'string') throw new Error(`the message was dropped: ${envelope}`)
    return decodeKvEvents(envelope.payload)
  }
  const last = decode().at(-1)
  if (last?.data.kind !== 'stored' || last.data.tokensHashes.length !== 2 * blocks) throw new Error('events decode otherwise than they were encoded')
  const ns = nsPerCall(decode)
  return { events: count, blocksPerEvent: blocks, bytes: payload.length, us: ns / 1000, mblocksPerSecond: (1000 * count * blocks) / ns }
}

/** Errors: events that do not come back. */
export const benchEventDecoding = (): EventDecodingRow[] => [measure(1, 1), measure(1, 64), measure(32, 1), measure(16, 64)]
