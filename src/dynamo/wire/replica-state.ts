/**
 * What replicas of this router tell each other besides their bookings (topic `warmpath_replica_state`): signs of life, questions for the
 * bookings that stand, and the answers. Dynamo's routers do not listen to the topic.
 *
 * A replica is named by the publisher id of its bookings' topic; `sequence` counts the messages published there.
 */
import type { MsgpackCursor } from '../../msgpack/cursor.ts'
import { MsgpackWriter } from '../../msgpack/writer.ts'
import { readActiveSequence, writeActiveSequence, type ActiveSequenceEvent } from './active-sequences.ts'
import { decodePayload } from './payload.ts'
import { malformed } from './wire-error.ts'

export const replicaStateTopic = 'warmpath_replica_state'

interface FromReplica {
  readonly routerId: bigint
  readonly publisherId: bigint
}

/** A sign of life. `sequence`: of the message that is published next; `bookings`: how many stand. */
export interface ReplicaBeat extends FromReplica {
  readonly kind: 'beat'
  readonly sequence: bigint
  readonly bookings: number
}

/** Asks the replica `publisherId` for what stands. `routerId` is who asks. */
export interface ReplicaQuestion extends FromReplica {
  readonly kind: 'ask'
}

/** One part of an answer: what stood before message `sequence`. */
export interface ReplicaState extends FromReplica {
  readonly kind: 'state'
  readonly sequence: bigint
  /** Tells answers of one replica apart. */
  readonly round: number
  readonly part: number
  readonly parts: number
  readonly events: readonly ActiveSequenceEvent[]
}

export type ReplicaMessage = ReplicaBeat | ReplicaQuestion | ReplicaState

/** Unknown keys are passed over. Errors: WireError, also for kinds of later versions. */
export const decodeReplicaMessage = (payload: Uint8Array): ReplicaMessage => decodePayload('replica state', payload, readMessage)

function readMessage(cursor: MsgpackCursor): ReplicaMessage {
  const found: { kind: string; routerId: bigint | null; publisherId: bigint | null; sequence: bigint; numbers: Record<string, number>; events: ActiveSequenceEvent[] } =
    { kind: '', routerId: null, publisherId: null, sequence: 0n, numbers: {}, events: [] }
  for (let left = cursor.readMapHeader(); left > 0; left -= 1) {
    const key = cursor.readString()
    switch (key) {
      case 'kind': found.kind = cursor.readString(); break
      case 'router_id': found.routerId = cursor.readBigU64(); break
      case 'publisher_id': found.publisherId = cursor.readBigU64(); break
      case 'sequence': found.sequence = cursor.readBigU64(); break
      case 'bookings': case 'round': case 'part': case 'parts': found.numbers[key] = cursor.readU32(); break
      case 'events': for (let items = cursor.readArrayHeader(); items > 0; items -= 1) found.events.push(readActiveSequence(cursor)); break
      default: cursor.skip()
    }
  }
  const { kind, routerId, publisherId, sequence, numbers, events } = found
  if (routerId === null || publisherId === null) throw malformed('replica state: a message without router_id or publisher_id')
  const from = { routerId, publisherId }
  switch (kind) {
    case 'beat': return { kind, ...from, sequence, bookings: numbers['bookings'] ?? 0 }
    case 'ask': return { kind, ...from }
    case 'state': return { kind, ...from, sequence, round: numbers['round'] ?? 0, part: numbers['part'] ?? 0, parts: numbers['parts'] ?? 1, events }
    default: throw malformed(`replica state: unknown kind ${JSON.stringify(kind.slice(0, 40))}`)
  }
}

export function encodeReplicaMessage(message: ReplicaMessage): Uint8Array {
  const writer = new MsgpackWriter(256)
  const own = message.kind === 'beat' ? 2 : message.kind === 'state' ? 5 : 0
  writer.mapHeader(3 + own).string('kind').string(message.kind).string('router_id').integer(message.routerId).string('publisher_id').integer(message.publisherId)
  if (message.kind === 'ask') return writer.finish()
  writer.string('sequence').integer(message.sequence)
  if (message.kind === 'beat') return writer.string('bookings').integer(message.bookings).finish()
  writer.string('round').integer(message.round).string('part').integer(message.part).string('parts').integer(message.parts).string('events').arrayHeader(message.events.length)
  for (const event of message.events) writeActiveSequence(writer, event)
  return writer.finish()
}
