/** Messages between replicas of the services: `[topic, map]`. Source: captured from Dynamo 1.6.1's slot tracker and selection service. */
import type { AffinityUpdate } from '../affinity/affinity-table.ts'
import { readActiveSequence, writeActiveSequence, type ActiveSequenceEvent } from '../dynamo/wire/active-sequences.ts'
import { KeyTable, MsgpackCursor, MsgpackError } from '../msgpack/cursor.ts'
import { MsgpackWriter } from '../msgpack/writer.ts'
import type { PartitionKey } from './partition-key.ts'

export const bookingTopic = 'dynamo.slot-tracker.v1'
export const affinityTopic = 'dynamo.session-affinity.v1'

export type ReplicaMessage =
  | { readonly kind: 'booking'; readonly key: PartitionKey; readonly blockSize: number; readonly event: ActiveSequenceEvent; readonly writerId: bigint }
  | { readonly kind: 'binding'; readonly key: PartitionKey; readonly update: AffinityUpdate; readonly writerId: bigint }

export function encodeBooking({ model, group }: PartitionKey, blockSize: number, event: ActiveSequenceEvent): Uint8Array {
  const writer = new MsgpackWriter(512)
  writer.mapHeader(4).string('model_name').string(model).string('routing_group').string(group).string('block_size').integer(blockSize).string('event')
  writeActiveSequence(writer, event)
  return writer.finish()
}

export function encodeBinding({ model, group }: PartitionKey, { sessionKey, target, sequence, writerId }: AffinityUpdate): Uint8Array {
  const writer = new MsgpackWriter(256)
  writer.mapHeader(7).string('model_name').string(model).string('routing_group').string(group).string('session_id').string(sessionKey)
  writer.string('worker_id').integer(target.workerId).string('dp_rank')
  if (target.dpRank === null) writer.nil()
  else writer.integer(target.dpRank)
  writer.string('sequence').integer(sequence).string('writer_id').integer(writerId)
  return writer.finish()
}

/** Null: not such a message. */
export function decodeReplicaMessage(frames: readonly Uint8Array[]): ReplicaMessage | null {
  const [topic, payload] = frames
  if (frames.length !== 2 || topic === undefined || payload === undefined) return null
  const name = new TextDecoder().decode(topic)
  try {
    return name === bookingTopic ? readBooking(new MsgpackCursor(payload)) : name === affinityTopic ? readBinding(new MsgpackCursor(payload)) : null
  } catch (error) {
    if (error instanceof MsgpackError) return null
    throw error
  }
}

const bookingKeys = new KeyTable(['model_name', 'routing_group', 'block_size', 'event'])

function readBooking(cursor: MsgpackCursor): ReplicaMessage | null {
  let model: string | null = null
  let group: string | null = null
  let blockSize: number | null = null
  let event: ActiveSequenceEvent | null = null
  for (let left = cursor.readMapHeader(), hint = 0; left > 0; left -= 1) {
    const key = cursor.readKey(bookingKeys, hint)
    hint = key + 1
    if (key === 0) model = cursor.readString()
    else if (key === 1) group = cursor.readString()
    else if (key === 2) blockSize = cursor.readU32()
    else if (key === 3) event = readActiveSequence(cursor)
    else cursor.skip()
  }
  if (model === null || group === null || blockSize === null || event === null) return null
  return { kind: 'booking', key: { model, group }, blockSize, event, writerId: event.routerId }
}

const bindingKeys = new KeyTable(['model_name', 'routing_group', 'session_id', 'worker_id', 'dp_rank', 'sequence', 'writer_id'])

function readBinding(cursor: MsgpackCursor): ReplicaMessage | null {
  let model: string | null = null
  let group: string | null = null
  let sessionKey: string | null = null
  let workerId: bigint | null = null
  let dpRank: number | null = null
  let sequence: bigint | null = null
  let writerId: bigint | null = null
  for (let left = cursor.readMapHeader(), hint = 0; left > 0; left -= 1) {
    const key = cursor.readKey(bindingKeys, hint)
    hint = key + 1
    switch (key) {
      case 0: model = cursor.readString(); break
      case 1: group = cursor.readString(); break
      case 2: sessionKey = cursor.readString(); break
      case 3: workerId = cursor.readBigU64(); break
      case 4: dpRank = cursor.tryNil() ? null : cursor.readU32(); break
      case 5: sequence = cursor.readBigU64(); break
      case 6: writerId = cursor.readBigU64(); break
      default: cursor.skip()
    }
  }
  if (model === null || group === null || sessionKey === null || workerId === null || sequence === null || writerId === null) return null
  return { kind: 'binding', key: { model, group }, update: { sessionKey, target: { workerId, dpRank }, sequence, writerId }, writerId }
}
