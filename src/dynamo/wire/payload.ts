/** Decoding of one whole MessagePack payload of the event plane. */
import { MsgpackCursor, MsgpackError } from '../../msgpack/cursor.ts'
import { malformed } from './wire-error.ts'

/** What `read` makes of a payload. Errors: WireError that names the subject and the offset, also for bytes left over. */
export function decodePayload<T>(subject: string, payload: Uint8Array, read: (cursor: MsgpackCursor) => T): T {
  const cursor = new MsgpackCursor(payload)
  try {
    const value = read(cursor)
    cursor.expectEnd()
    return value
  } catch (error) {
    if (error instanceof MsgpackError) throw malformed(`${subject}: ${error.message}`, error)
    throw error
  }
}
