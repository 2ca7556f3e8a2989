/** Outputs of a prefill worker: what they hand over, taken verbatim, and the rest. */
import { KeyTable, MsgpackCursor, type MsgpackValue } from '../../msgpack/cursor.ts'
import { MsgpackWriter } from '../../msgpack/writer.ts'
import type { Codec } from '../../ports.ts'
import { decodeBody, encodeBody, type WireValue } from './body.ts'
import { EncodedValue } from './generate-request.ts'

export interface ReadPrefillOutput {
  readonly params: MsgpackValue | undefined
  /** The bytes of `disaggregated_params` as the worker wrote them; null when absent or null. */
  readonly encodedParams: EncodedValue | null
  readonly finishReason: MsgpackValue | undefined
  readonly promptTokensDetails: MsgpackValue
  readonly cachedTokens: number | null
  /** The same item without `disaggregated_params`, for an answer that ends with the prefill. */
  readonly withoutParams: Uint8Array
}

type ValueMap = { readonly [key: string]: MsgpackValue }
const isMap = (value: MsgpackValue | undefined): value is ValueMap =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array)
const mapOf = (value: MsgpackValue | undefined): ValueMap => (isMap(value) ? value : {})
const dataKey = new KeyTable(['data'])
const paramsKey = new KeyTable(['disaggregated_params'])

/** Reads one item. A body that cannot be read hands nothing over. */
export function readPrefillOutput(body: Uint8Array, codec: Codec): ReadPrefillOutput {
  let output: ValueMap = {}
  try {
    output = mapOf(mapOf(mapOf(decodeBody(body, codec) as MsgpackValue)['data'])['data'])
  } catch {
    // Nothing handed over: the hand-over says so.
  }
  const params = output['disaggregated_params']
  const usage = mapOf(output['completion_usage'])
  const details = usage['prompt_tokens_details'] ?? null
  const cached = mapOf(details)['cached_tokens']
  const hasParams = params !== undefined && params !== null
  return {
    params, finishReason: output['finish_reason'] ?? undefined, promptTokensDetails: details,
    cachedTokens: typeof cached === 'number' ? cached : null,
    encodedParams: hasParams ? encodedParams(body, codec, params) : null,
    withoutParams: hasParams ? withoutParams(body, codec) : body,
  }
}

function encodedParams(body: Uint8Array, codec: Codec, params: MsgpackValue): EncodedValue {
  if (codec === 'json') return new EncodedValue('json', encodeBody(params as WireValue, 'json'))
  const [, start, end] = paramsSlice(body) ?? [0, 0, 0]
  return new EncodedValue('msgpack', body.subarray(start, end))
}

/** Start of the key, start and end of the value of `disaggregated_params`. */
function paramsSlice(body: Uint8Array): readonly [number, number, number] | null {
  const cursor = new MsgpackCursor(body)
  for (let level = 0; level < 2; level += 1) {
    let found = false
    for (let pairs = cursor.readMapHeader(); pairs > 0 && !found; pairs -= 1) {
      found = cursor.readKey(dataKey, 0) === 0
      if (!found) cursor.skip()
    }
    if (!found) return null
  }
  for (let pairs = cursor.readMapHeader(); pairs > 0; pairs -= 1) {
    const keyStart = cursor.offset
    const isParams = cursor.readKey(paramsKey, 0) === 0
    const start = cursor.offset
    cursor.skip()
    if (isParams) return [keyStart, start, cursor.offset]
  }
  return null
}

function withoutParams(body: Uint8Array, codec: Codec): Uint8Array {
  const slice = codec === 'msgpack' ? paramsSlice(body) : null
  if (slice !== null) return new MsgpackWriter(body.length).raw(body.subarray(0, slice[1])).nil().raw(body.subarray(slice[2])).finish()
  const wrapper = mapOf(decodeBody(body, codec) as MsgpackValue)
  const item = mapOf(wrapper['data'])
  return encodeBody({ ...wrapper, data: { ...item, data: { ...mapOf(item['data']), disaggregated_params: null } } } as WireValue, codec)
}
