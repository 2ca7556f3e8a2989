/** Fixture kind `zmq_kv_events`: raw engine messages and the payloads that a worker publishes for them. Source: router-algorithm 3. */
import { decodeKvEvents, encodeKvEvents } from '../dynamo/wire/kv-events.ts'
import { decodeRawBatch } from '../engines/raw-kv-events.ts'
import { PublisherPipeline, publishGroups } from '../kv-events/publisher-pipeline.ts'
import { RawEventNormaliser } from '../kv-events/raw-event-normaliser.ts'
import type { RouterEvent } from '../model/kv-event.ts'
import { bytesOfHex, hexOfBytes } from './fixture-fields.ts'
import type { GoldenKind } from './kind.ts'

interface ZmqCase {
  readonly id: number
  readonly topic: string
  readonly config: {
    readonly kv_block_size: number
    readonly worker_id: number | bigint
    readonly image_token_id: number | null
    readonly video_token_id: number | null
  }
  readonly input: readonly { readonly payload_hex: string }[]
  readonly expect: readonly { readonly payload_hex: string }[]
}

function publishedPayloads({ config, input }: ZmqCase): string[] {
  const normaliser = new RawEventNormaliser({
    workerId: BigInt(config.worker_id), blockSize: config.kv_block_size, imageTokenId: config.image_token_id, videoTokenId: config.video_token_id,
  })
  const pipeline = new PublisherPipeline()
  return input.flatMap(({ payload_hex }) => {
    const outcome = decodeRawBatch(bytesOfHex(payload_hex))
    if (outcome.kind === 'refused') return []
    const events = pipeline.push(normaliser.normalise(outcome.batch, { eventId: 0n }))
    return publishGroups(events).map((group) => hexOfBytes(encodeKvEvents(group)))
  })
}

const eventsOf = (payloads: readonly string[]): RouterEvent[] => payloads.flatMap((hex) => decodeKvEvents(bytesOfHex(hex)))

/** Where two cases of payloads differ: in an event, or only in grouping and bytes. */
function difference(found: readonly string[], expected: readonly string[]): string | null {
  if (found.join() === expected.join()) return null
  const foundEvents = eventsOf(found)
  const expectedEvents = eventsOf(expected)
  for (let index = 0; index < Math.max(foundEvents.length, expectedEvents.length); index += 1) {
    const [mine, theirs] = [foundEvents[index], expectedEvents[index]].map((event) => (event === undefined ? 'nothing' : hexOfBytes(encodeKvEvents([event]))))
    if (mine !== theirs) return `event ${index}: ${mine} instead of ${theirs}`
  }
  return `equal events, other payloads: ${found.join()} instead of ${expected.join()}`
}

export const golden: GoldenKind = {
  name: 'zmq_kv_events',
  *run(document) {
    for (const item of document['cases'] as readonly ZmqCase[]) {
      const message = difference(publishedPayloads(item), item.expect.map(({ payload_hex }) => payload_hex))
      yield { id: `${item.id} ${item.topic}`, outcome: message === null ? { kind: 'passed' } : { kind: 'failed', message } }
    }
  },
}
