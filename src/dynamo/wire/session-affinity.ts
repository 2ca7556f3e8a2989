/** Bindings of sessions as routers tell each other (topic `session_affinity_events`), one per message. Source: router-algorithm 11. */
import { MsgpackError } from '../../msgpack/cursor.ts'
import { MsgpackWriter } from '../../msgpack/writer.ts'
import { decodePayload } from './payload.ts'

export const sessionAffinityTopic = 'session_affinity_events'

export interface SessionAffinityEvent {
  readonly sessionId: string
  readonly workerId: bigint
  /** Null: any rank. */
  readonly dpRank: number | null
  readonly sequence: bigint
  readonly writerId: bigint
}

/** Unknown keys are passed over. Errors: WireError. */
export const decodeSessionAffinity = (payload: Uint8Array): SessionAffinityEvent => decodePayload('session affinity event', payload, (cursor) => {
  let sessionId: string | null = null
  let workerId: bigint | null = null
  let dpRank: number | null = null
  let sequence: bigint | null = null
  let writerId: bigint | null = null
  for (let left = cursor.readMapHeader(); left > 0; left -= 1) {
    switch (cursor.readString()) {
      case 'session_id': sessionId = cursor.readString(); break
      case 'worker_id': workerId = cursor.readBigU64(); break
      case 'dp_rank': dpRank = cursor.tryNil() ? null : cursor.readU32(); break
      case 'sequence': sequence = cursor.readBigU64(); break
      case 'writer_id': writerId = cursor.readBigU64(); break
      default: cursor.skip()
    }
  }
  if (sessionId === null || workerId === null || sequence === null || writerId === null) throw new MsgpackError('an event without all of session_id, worker_id, sequence, writer_id', 0)
  return { sessionId, workerId, dpRank, sequence, writerId }
})

export function encodeSessionAffinity({ sessionId, workerId, dpRank, sequence, writerId }: SessionAffinityEvent): Uint8Array {
  const writer = new MsgpackWriter(128).mapHeader(5).string('session_id').string(sessionId).string('worker_id').integer(workerId).string('dp_rank')
  if (dpRank === null) writer.nil()
  else writer.integer(dpRank)
  return writer.string('sequence').integer(sequence).string('writer_id').integer(writerId).finish()
}
