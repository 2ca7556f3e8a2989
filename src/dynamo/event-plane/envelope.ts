/**
 * The event plane's envelope, and the four ZMQ frames that carry it.
 *
 * Shape: frames `[topic UTF-8, publisher id u64 BE, sequence u64 BE, 0x01 | length u32 BE | envelope]`; the envelope is a
 * MessagePack map of `publisher_id, sequence, published_at (unix ms), topic, payload (bin)`. Source: Dynamo 1.6.1 event plane.
 */
import { KeyTable, MsgpackCursor, MsgpackError } from '../../msgpack/cursor.ts'
import { MsgpackWriter } from '../../msgpack/writer.ts'
import type { EventEnvelope } from '../../ports.ts'

/** Why a message was dropped; the keys of the plane's drop counters. */
export const eventDropReasons = [
  'frame_count', 'frame_length', 'version', 'topic', 'envelope', 'publisher_mismatch', 'sequence_mismatch', 'listener',
] as const
export type EventDropReason = (typeof eventDropReasons)[number]

const formatVersion = 1
const frameHeaderBytes = 5
const keys = new KeyTable(['publisher_id', 'sequence', 'published_at', 'topic', 'payload'])
const encoder = new TextEncoder()

/** The envelope as MessagePack, as NATS carries it bare. */
export function encodeEnvelope(envelope: EventEnvelope): Uint8Array {
  return new MsgpackWriter(envelope.payload.length + 128)
    .mapHeader(5)
    .string('publisher_id').integer(envelope.publisherId)
    .string('sequence').integer(envelope.sequence)
    .string('published_at').integer(envelope.publishedAtMs)
    .string('topic').string(envelope.topic)
    .string('payload').binary(envelope.payload)
    .finish()
}

/** Reads an envelope; `payload` is a view of the input. Unknown keys are ignored. Errors: `MsgpackError`. */
export function decodeEnvelope(bytes: Uint8Array): EventEnvelope {
  const cursor = new MsgpackCursor(bytes)
  let publisherId: bigint | null = null
  let sequence: bigint | null = null
  let publishedAtMs: number | null = null
  let topic: string | null = null
  let payload: Uint8Array | null = null
  let hint = 0
  for (let left = cursor.readMapHeader(); left > 0; left -= 1) {
    const key = cursor.readKey(keys, hint)
    hint = key + 1
    switch (key) {
      case 0: publisherId = cursor.readBigU64(); break
      case 1: sequence = cursor.readBigU64(); break
      case 2: publishedAtMs = Number(cursor.readBigU64()); break
      case 3: topic = cursor.readString(); break
      case 4: payload = cursor.readBinary(); break
      default: cursor.skip()
    }
  }
  cursor.expectEnd()
  if (publisherId === null || sequence === null || publishedAtMs === null || topic === null || payload === null) {
    throw new MsgpackError('an envelope without all of publisher_id, sequence, published_at, topic, payload', 0)
  }
  return { publisherId, sequence, publishedAtMs, topic, payload }
}

/** The four frames of one ZMQ message. `subject`: the first one, where it is not the bare topic. */
export function encodeEventFrames(envelope: EventEnvelope, subject: string = envelope.topic): Uint8Array[] {
  const body = encodeEnvelope(envelope)
  const frame = new Uint8Array(frameHeaderBytes + body.length)
  frame[0] = formatVersion
  new DataView(frame.buffer).setUint32(1, body.length)
  frame.set(body, frameHeaderBytes)
  return [encoder.encode(subject), u64Frame(envelope.publisherId), u64Frame(envelope.sequence), frame]
}

/**
 * Reads one ZMQ message of a subscription to `topic`. Frames, envelope and, when given, the channel record's publisher id
 * must agree; `subject` is the first frame, where it is not the bare topic. Never throws: what cannot be used is named by its reason.
 */
export function decodeEventFrames(
  frames: readonly Uint8Array[], topic: string, channelPublisherId: bigint | null, subject: string = topic,
): EventEnvelope | EventDropReason {
  const [topicFrame, publisherFrame, sequenceFrame, body] = frames
  if (frames.length !== 4 || !topicFrame || !publisherFrame || !sequenceFrame || !body) return 'frame_count'
  if (publisherFrame.length !== 8 || sequenceFrame.length !== 8 || body.length < frameHeaderBytes) return 'frame_length'
  // A SUB socket matches prefixes, so other topics arrive too.
  if (!equalsAscii(topicFrame, subject)) return 'topic'
  if (body[0] !== formatVersion) return 'version'
  if (viewOf(body).getUint32(1) !== body.length - frameHeaderBytes) return 'frame_length'
  let envelope: EventEnvelope
  try {
    envelope = decodeEnvelope(body.subarray(frameHeaderBytes))
  } catch (error) {
    if (error instanceof MsgpackError) return 'envelope'
    throw error
  }
  if (envelope.topic !== topic) return 'topic'
  const publisherId = viewOf(publisherFrame).getBigUint64(0)
  if (envelope.publisherId !== publisherId) return 'publisher_mismatch'
  if (channelPublisherId !== null && channelPublisherId !== publisherId) return 'publisher_mismatch'
  if (viewOf(sequenceFrame).getBigUint64(0) !== envelope.sequence) return 'sequence_mismatch'
  return envelope
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

function u64Frame(value: bigint): Uint8Array {
  const frame = new Uint8Array(8)
  viewOf(frame).setBigUint64(0, value)
  return frame
}

function equalsAscii(bytes: Uint8Array, text: string): boolean {
  if (bytes.length !== text.length) return false
  for (let index = 0; index < bytes.length; index += 1) if (bytes[index] !== text.charCodeAt(index)) return false
  return true
}
