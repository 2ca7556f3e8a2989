/** A response item of `generate` as a value, without the detours of the general decoder: what a streamed token costs. */
import { KeyTable, MsgpackCursor } from '../../msgpack/cursor.ts'
import type { Failure } from '../../model/failure.ts'
import type { Codec } from '../../ports.ts'
import type { WireObject, WireValue } from './body.ts'
import { decodeItem, readAnnotated } from './items.ts'

/** `data` is undefined when the item has none; `failure` is null unless it is an error. */
export interface OutputItem {
  readonly data: WireValue | undefined
  readonly failure: Failure | null
}

const dataKey = new KeyTable(['data'])
const outputNames = ['token_ids', 'finish_reason', 'index', 'tokens', 'text', 'cum_log_probs', 'log_probs', 'top_logprobs', 'stop_reason', 'engine_data', 'completion_usage', 'routing_data']
const outputKeys = new KeyTable(outputNames)

/** The same as `readAnnotated` of `decodeItem`. Errors: `WireError`. */
export function readOutputItem(body: Uint8Array, codec: Codec): OutputItem {
  const data = codec === 'msgpack' ? plainOutput(body) : null
  return data === null ? readAnnotated(decodeItem(body, codec).data ?? {}) : { data, failure: null }
}

/** The output of `{"data":{"data":{…}},"complete_final":false}` in this order; null for every other form, good or bad. */
export function plainOutput(body: Uint8Array): WireObject | null {
  try {
    const cursor = new MsgpackCursor(body)
    if (cursor.readMapHeader() !== 2 || cursor.readKey(dataKey, 0) !== 0 || cursor.peek() !== 'map') return null
    if (cursor.readMapHeader() !== 1 || cursor.readKey(dataKey, 0) !== 0 || cursor.peek() !== 'map') return null
    const output = readOutput(cursor)
    return output !== null && cursor.readString() === 'complete_final' && !cursor.readBoolean() && cursor.atEnd ? output : null
  } catch {
    return null
  }
}

function readOutput(cursor: MsgpackCursor): WireObject | null {
  const output: Record<string, WireValue> = {}
  let hint = 0
  for (let left = cursor.readMapHeader(); left > 0; left -= 1) {
    const key = cursor.readKey(outputKeys, hint)
    // An unknown name is left to the general decoder.
    if (key < 0) return null
    hint = key + 1
    output[outputNames[key] as string] = key === 0 && cursor.peek() === 'array' ? readIds(cursor) : cursor.tryNil() ? null : cursor.readValue()
  }
  return output
}

function readIds(cursor: MsgpackCursor): WireValue[] {
  const ids: WireValue[] = []
  for (let left = cursor.readArrayHeader(); left > 0; left -= 1) ids.push(cursor.readInteger())
  return ids
}
