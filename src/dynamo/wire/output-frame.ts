/**
 * Response items of `generate`, looked at and edited in place: `{"data":{"data":OUTPUT,…},"complete_final":false}`.
 *
 * Most frames are only looked at: how many tokens, is there a finish reason, is it an error. The first output and the last are
 * edited by splicing `routing_data` in. Source: Dynamo 1.6.1 annotated stream items and `LLMEngineOutput`.
 */
import type { Decision } from '../../model/decision.ts'
import type { Failure } from '../../model/failure.ts'
import { KeyTable, MsgpackCursor, type MsgpackValue } from '../../msgpack/cursor.ts'
import { MsgpackWriter } from '../../msgpack/writer.ts'
import type { Codec } from '../../ports.ts'
import { failureFromWire } from './errors.ts'
import { encodeItem } from './items.ts'
import { parseJsonBytes, stringifyJsonBytes } from './json.ts'

/** What a frame holds, as far as routing cares. */
export interface OutputPeek {
  /** There is an output value (not only an event, comment or error). */
  hasData: boolean
  tokenCount: number
  /** The output has a finish reason. */
  finished: boolean
  failure: Failure | null
}

/** Times of one request for `routing_data.timing`, in milliseconds. */
export interface OutputTiming {
  /** Unix time. */
  readonly requestReceivedMs: number
  readonly prefillWaitTimeMs: number
  readonly prefillTimeMs: number
  readonly ttftMs: number
  readonly totalTimeMs: number
  readonly kvHitRate: number
  /** Requests that waited in the router when this one was sent; left out: 0. */
  readonly routerQueueDepth?: number
  /** From the end of a prefill elsewhere to the first output; null without one, and where both stages run at once. */
  readonly kvTransferMs: number | null
}

/** Who did the work: the worker that answers, and the one that computed the prompt when it is another. */
export interface WorkedBy {
  readonly workerId: Decision['workerId']
  /** Null: the engine chooses it. */
  readonly dpRank: number | null
  readonly prefill?: Pick<WorkedBy, 'workerId' | 'dpRank'> | null
}

export interface OutputAdditions {
  readonly worker: WorkedBy | null
  readonly timing: OutputTiming | null
  /** Who computed the prompt, in place of what a router below says. */
  readonly prefill?: Pick<Decision, 'workerId' | 'dpRank'> | null
}

type Value = MsgpackValue
type ValueMap = { readonly [key: string]: Value }
const isMap = (value: Value | undefined): value is ValueMap =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array)

const dataKey = new KeyTable(['data'])
const itemKeys = new KeyTable(['data', 'event', 'error'])
const outputKeys = new KeyTable(['token_ids', 'finish_reason', 'routing_data'])

/**
 * Looks at one response item. A body that cannot be read counts as an output without tokens: it is relayed as it came.
 *
 * Bounds: the result is made for each call, one small object.
 */
export function peekOutput(body: Uint8Array, codec: Codec): OutputPeek {
  const peek: OutputPeek = { hasData: false, tokenCount: 0, finished: false, failure: null }
  try {
    if (codec === 'msgpack') peekMsgpack(body, peek)
    else peekValue(parseJsonBytes(body) as Value, peek)
  } catch {
    peek.hasData = true
  }
  return peek
}

/** The same of an output that was read. */
export function peekRead(output: ValueMap): OutputPeek {
  const peek: OutputPeek = { hasData: true, tokenCount: 0, finished: false, failure: null }
  peekFields(output, peek)
  return peek
}

function peekMsgpack(body: Uint8Array, peek: OutputPeek): void {
  const cursor = new MsgpackCursor(body)
  if (!enterData(cursor) || cursor.peek() !== 'map') return
  const pairs = cursor.readMapHeader()
  let hint = 0
  for (let pair = 0; pair < pairs; pair += 1) {
    const key = cursor.readKey(itemKeys, hint)
    hint = key + 1
    if (key === 0) peekOutputMap(cursor, peek)
    else if (key === 2 && cursor.peek() === 'map') peek.failure = failureFromWire(cursor.readValue())
    else cursor.skip()
  }
}

/** Moves to the value of the wrapper's `data`; false when there is none. */
const enterData = (cursor: MsgpackCursor): boolean => enterKey(cursor, dataKey)

function peekOutputMap(cursor: MsgpackCursor, peek: OutputPeek): void {
  if (cursor.peek() === 'nil') {
    cursor.skip()
    return
  }
  peek.hasData = true
  if (cursor.peek() !== 'map') {
    cursor.skip()
    return
  }
  const pairs = cursor.readMapHeader()
  let hint = 0
  for (let pair = 0; pair < pairs; pair += 1) {
    const key = cursor.readKey(outputKeys, hint)
    if (key === 0 && cursor.peek() === 'array') {
      const start = cursor.offset
      peek.tokenCount = cursor.readArrayHeader()
      cursor.offset = start
    } else if (key === 1) {
      peek.finished = cursor.peek() !== 'nil'
    }
    if (key >= 0) hint = key + 1
    cursor.skip()
  }
}

function peekValue(wrapper: Value, peek: OutputPeek): void {
  const item = isMap(wrapper) ? wrapper['data'] : undefined
  if (!isMap(item)) return
  if (isMap(item['error'])) peek.failure = failureFromWire(item['error'])
  const output = item['data']
  if (output === undefined || output === null) return
  peek.hasData = true
  if (isMap(output)) peekFields(output, peek)
}

function peekFields(output: ValueMap, peek: OutputPeek): void {
  const tokens = output['token_ids']
  if (Array.isArray(tokens)) peek.tokenCount = tokens.length
  peek.finished = output['finish_reason'] !== undefined && output['finish_reason'] !== null
}

function routingData(before: Value | undefined, additions: OutputAdditions): ValueMap {
  const old = isMap(before) ? before : {}
  const merged: Record<string, Value> = { ...old }
  // A router below has already named the worker that does the work.
  if (additions.worker !== null && !isMap(old['worker_id'])) merged['worker_id'] = workerValue(additions.worker)
  const shown = merged['worker_id']
  if (additions.prefill != null && isMap(shown)) {
    merged['worker_id'] = { ...shown, prefill_worker_id: additions.prefill.workerId, prefill_dp_rank: additions.prefill.dpRank }
  }
  if (additions.timing !== null) merged['timing'] = { ...(isMap(old['timing']) ? old['timing'] : {}), ...timingValue(additions.timing) }
  return merged
}

function workerValue({ workerId, dpRank, prefill }: WorkedBy): ValueMap {
  const { workerId: prefillId, dpRank: prefillRank } = prefill ?? { workerId, dpRank }
  return {
    prefill_worker_id: prefillId, ...(prefillRank === null ? {} : { prefill_dp_rank: prefillRank }),
    decode_worker_id: workerId, ...(dpRank === null ? {} : { decode_dp_rank: dpRank }),
  }
}

const timingValue = (timing: OutputTiming): ValueMap => ({
  request_received_ms: timing.requestReceivedMs, prefill_wait_time_ms: timing.prefillWaitTimeMs, prefill_time_ms: timing.prefillTimeMs,
  ttft_ms: timing.ttftMs, total_time_ms: timing.totalTimeMs, kv_hit_rate: timing.kvHitRate, router_queue_depth: timing.routerQueueDepth ?? 0,
  ...(timing.kvTransferMs === null ? {} : { kv_transfer_estimated_latency_ms: timing.kvTransferMs }),
})

/** The worker that a router below names in an output as the one that works; null when it names none. */
export function namedWorker(body: Uint8Array, codec: Codec): Pick<Decision, 'workerId' | 'dpRank'> | null {
  let value: Value
  try {
    value = codec === 'msgpack' ? new MsgpackCursor(body).readValue() : (parseJsonBytes(body) as Value)
  } catch {
    return null
  }
  for (const name of ['data', 'data', 'routing_data', 'worker_id']) {
    if (!isMap(value)) return null
    value = value[name] ?? null
  }
  if (!isMap(value)) return null
  const id = value['decode_worker_id'] ?? value['prefill_worker_id']
  const rank = value['decode_dp_rank'] ?? value['prefill_dp_rank'] ?? 0
  return (typeof id === 'number' || typeof id === 'bigint') && typeof rank === 'number' ? { workerId: BigInt(id), dpRank: rank } : null
}

/** The token ids of one output. */
export function outputTokenIds(body: Uint8Array, codec: Codec): readonly number[] {
  if (codec === 'msgpack') return msgpackTokenIds(new MsgpackCursor(body))
  const wrapper = parseJsonBytes(body) as Value
  const item = isMap(wrapper) ? wrapper['data'] : undefined
  const output = isMap(item) ? item['data'] : undefined
  return isMap(output) ? readTokenIds(output) : []
}

/** The same of an output that was read. */
export function readTokenIds({ token_ids: ids }: ValueMap): readonly number[] {
  return Array.isArray(ids) ? ids.filter((id): id is number => typeof id === 'number') : []
}

const tokenIdsKey = new KeyTable(['token_ids'])

function msgpackTokenIds(cursor: MsgpackCursor): readonly number[] {
  for (const key of [dataKey, dataKey, tokenIdsKey]) if (cursor.peek() !== 'map' || !enterKey(cursor, key)) return []
  if (cursor.peek() !== 'array') return []
  const ids: number[] = []
  for (let left = cursor.readArrayHeader(); left > 0; left -= 1) {
    const id = cursor.peek() === 'integer' ? cursor.readInteger() : cursor.readValue()
    if (typeof id === 'number') ids.push(id)
  }
  return ids
}

/** Moves to the value of the first key of that name; false when there is none. */
function enterKey(cursor: MsgpackCursor, key: KeyTable): boolean {
  for (let pairs = cursor.readMapHeader(); pairs > 0; pairs -= 1) {
    if (cursor.readKey(key, 0) === 0) return true
    cursor.skip()
  }
  return false
}

/** Prompt tokens from the worker's cache, as the usage of a finished output tells; null when it does not. */
export function reportedCachedTokens(body: Uint8Array, codec: Codec): number | null {
  try {
    const wrapper = codec === 'msgpack' ? new MsgpackCursor(body).readValue() : (parseJsonBytes(body) as Value)
    const output = valueAt(wrapper, ['data', 'data'])
    return isMap(output) ? cachedTokensOf(output) : null
  } catch {
    return null
  }
}

/** The same of an output that was read. */
export function cachedTokensOf(output: ValueMap): number | null {
  const value = valueAt(output, ['completion_usage', 'prompt_tokens_details', 'cached_tokens'])
  return typeof value === 'number' ? value : null
}

function valueAt(value: Value, path: readonly string[]): Value {
  for (const name of path) {
    if (!isMap(value)) return null
    value = value[name] ?? null
  }
  return value
}

/** The item with `routing_data` added. A body without an output map comes back unchanged. */
export function editOutput(body: Uint8Array, codec: Codec, additions: OutputAdditions): Uint8Array {
  try {
    return codec === 'msgpack' ? editMsgpack(body, additions) : editJson(body, additions)
  } catch {
    return body
  }
}

/** An output that was read with `routing_data` added. */
export const editRead = (output: ValueMap, additions: OutputAdditions): ValueMap => ({ ...output, routing_data: routingData(output['routing_data'], additions) })

function editMsgpack(body: Uint8Array, additions: OutputAdditions): Uint8Array {
  const cursor = new MsgpackCursor(body)
  if (!enterData(cursor) || cursor.peek() !== 'map') return body
  const itemPairs = cursor.readMapHeader()
  let found = false
  for (let pair = 0; pair < itemPairs && !found; pair += 1) {
    found = cursor.readKey(dataKey, 0) === 0
    if (!found) cursor.skip()
  }
  if (!found || cursor.peek() !== 'map') return body
  const headStart = cursor.offset
  const pairs = cursor.readMapHeader()
  const firstEntry = cursor.offset
  let oldStart = -1
  let oldEnd = -1
  let old: Value | undefined
  for (let pair = 0; pair < pairs; pair += 1) {
    const entryStart = cursor.offset
    if (cursor.readKey(outputKeys, -1) === 2) {
      oldStart = entryStart
      old = cursor.readValue()
      oldEnd = cursor.offset
    } else {
      cursor.skip()
    }
  }
  const end = cursor.offset
  const writer = new MsgpackWriter(body.length + 320)
  writer.raw(body.subarray(0, headStart)).mapHeader(oldStart < 0 ? pairs + 1 : pairs)
  if (oldStart < 0) writer.raw(body.subarray(firstEntry, end))
  else writer.raw(body.subarray(firstEntry, oldStart)).raw(body.subarray(oldEnd, end))
  writer.string('routing_data').value(routingData(old, additions)).raw(body.subarray(end))
  return writer.finish()
}

function editJson(body: Uint8Array, additions: OutputAdditions): Uint8Array {
  const wrapper = parseJsonBytes(body) as Value
  if (!isMap(wrapper) || !isMap(wrapper['data']) || !isMap(wrapper['data']['data'])) return body
  const output = wrapper['data']['data']
  return stringifyJsonBytes({ ...wrapper, data: { ...wrapper['data'], data: editRead(output, additions) } })
}

/** The single answer to a `query_instance_id:` request. */
export function encodeQueryAnswer(codec: Codec, worker: WorkedBy, tokens: Uint32Array): Uint8Array {
  const output: ValueMap = {
    token_ids: [], tokens: null, text: null, output_type: 'text', cum_log_probs: null, log_probs: null, top_logprobs: null, finish_reason: null,
    index: null, routing_data: { worker_id: workerValue(worker), token_ids: [...tokens] },
  }
  return encodeItem({ data: output }, codec)
}

/** The same item in the other codec, for a caller and a worker that speak different ones. */
export function transcodeFrame(body: Uint8Array, from: Codec, to: Codec): Uint8Array {
  if (from === to) return body
  if (from === 'json') return new MsgpackWriter(body.length + 64).value(parseJsonBytes(body) as Value).finish()
  return stringifyJsonBytes(new MsgpackCursor(body).readValue())
}
