/** Fixture kind `event_plane_capture`: captured payloads decode to the recorded values and encode to the same bytes. Source: router-algorithm 2 and 13. */
import { decodeActiveSequences, encodeActiveSequence, encodeActiveSequenceBatch } from '../dynamo/wire/active-sequences.ts'
import { decodeKvEvents, encodeKvEvents } from '../dynamo/wire/kv-events.ts'
import { decodeKvMetrics, encodeKvMetrics } from '../dynamo/wire/kv-metrics.ts'
import { MsgpackCursor, type MsgpackValue } from '../msgpack/cursor.ts'
import { bytesOfHex, hexOfBytes } from './fixture-fields.ts'
import type { GoldenKind, GoldenOutcome } from './kind.ts'

interface Capture {
  readonly payload_hex: string
  readonly decoded: MsgpackValue
}

const failed = (message: string): GoldenOutcome => ({ kind: 'failed', message })

/** Decodes and encodes a payload of a topic; null for a topic that is not known. */
function recode(topic: string, { decoded, payload_hex }: Capture): Uint8Array | null {
  const payload = bytesOfHex(payload_hex)
  switch (topic) {
    case 'kv-events': return encodeKvEvents(decodeKvEvents(payload))
    case 'kv_metrics': return encodeKvMetrics(decodeKvMetrics(payload))
    case 'active_sequences_events': {
      const events = decodeActiveSequences(payload)
      const [first] = events
      const isBatch = typeof decoded === 'object' && decoded !== null && 'events' in decoded
      return isBatch || first === undefined ? encodeActiveSequenceBatch(events) : encodeActiveSequence(first)
    }
    default: return null
  }
}

/** Equal values; key order counts too, because it is part of the bytes. */
const textOf = (value: MsgpackValue): string => JSON.stringify(value, (_key, item: unknown) => (typeof item === 'bigint' ? `${item}` : item))

function check(topic: string, capture: Capture): GoldenOutcome {
  const values = textOf(new MsgpackCursor(bytesOfHex(capture.payload_hex)).readValue())
  if (values !== textOf(capture.decoded)) return failed(`decoded ${values} instead of ${textOf(capture.decoded)}`)
  const bytes = recode(topic, capture)
  if (bytes === null) return { kind: 'skipped', reason: `topic ${topic}` }
  return hexOfBytes(bytes) === capture.payload_hex ? { kind: 'passed' } : failed(`encoded ${hexOfBytes(bytes)} instead of ${capture.payload_hex}`)
}

export const golden: GoldenKind = {
  name: 'event_plane_capture',
  *run(document) {
    const topics = document['topics'] as Readonly<Record<string, readonly Capture[]>>
    for (const [topic, captures] of Object.entries(topics)) {
      for (const [index, capture] of captures.entries()) {
        let outcome: GoldenOutcome
        try {
          outcome = check(topic, capture)
        } catch (error) {
          outcome = failed(error instanceof Error ? error.message : String(error))
        }
        yield { id: `${topic} ${index}`, outcome }
      }
    }
  },
}
