/**
 * Questions to and answers of `worker_kv_query_source_*`, in both codecs and both directions.
 *
 * Answers can hold hundreds of thousands of blocks, so they are read in steps that the caller may spread over time.
 * Source: worker KV query of Dynamo 1.6.1.
 */
import { MsgpackCursor, MsgpackError } from '../../msgpack/cursor.ts'
import { MsgpackWriter } from '../../msgpack/writer.ts'
import type { RouterEvent } from '../../model/kv-event.ts'
import type { Codec } from '../../ports.ts'
import { decodeBody, encodeBody } from '../wire/body.ts'
import type { WireValue } from '../wire/body.ts'
import { isObject, stringifyJson } from '../wire/json.ts'
import { decodeKvEvent, encodeKvEvent, encodeKvEvents, readKvEvent } from '../wire/kv-events.ts'
import { WireError, malformed } from '../wire/wire-error.ts'

export interface RecoveryRequest {
  readonly workerId: bigint
  readonly dpRank: number
  /** Null: a full dump. */
  readonly startEventId: bigint | null
  readonly endEventId?: bigint | null
}

/** Events of an answer, decoded one after the other. */
export interface AnswerEvents {
  readonly count: number
  /** The next event; null after the last. Errors: `WireError` or `MsgpackError`. */
  next(): RouterEvent | null
}

/** An answer as read. */
export type RecoveryAnswer =
  | { readonly kind: 'dump' | 'replay'; readonly events: AnswerEvents; readonly lastEventId: bigint }
  | { readonly kind: 'too_new'; readonly newestAvailable: bigint }
  | { readonly kind: 'failed' | 'invalid_range'; readonly message: string }

/** An answer to write. */
export type RecoveryReply =
  | { readonly TreeDump: { readonly events: readonly RouterEvent[]; readonly lastEventId: bigint } }
  | { readonly Events: { readonly events: readonly RouterEvent[]; readonly lastEventId: bigint } }
  | { readonly TreeDumpFailed: { readonly lastEventId: bigint; readonly message: string } }
  | { readonly TooNew: { readonly requestedStart: bigint; readonly requestedEnd: bigint; readonly newestAvailable: bigint } }
  | { readonly InvalidRange: { readonly startId: bigint; readonly endId: bigint } }
  | { readonly Error: string }

/** Events skipped between two steps of reading. */
const skipStep = 32

export function encodeRecoveryRequest(request: RecoveryRequest, codec: Codec): Uint8Array {
  return encodeBody({
    worker_id: request.workerId, dp_rank: request.dpRank, start_event_id: request.startEventId,
    end_event_id: request.endEventId ?? null, supports_tree_dump_failed: true, kind: 'recovery',
  }, codec)
}

/** Reads a question. Errors: `WireError` that names the field. */
export function decodeRecoveryRequest(body: Uint8Array, codec: Codec): RecoveryRequest {
  const value = decodeBody(body, codec)
  if (!isObject(value)) throw malformed('recovery request: expected an object')
  if (value['kind'] !== undefined && value['kind'] !== 'recovery') throw malformed('recovery request: kind is not "recovery"')
  return {
    workerId: u64Of(value['worker_id'], 'worker_id'),
    dpRank: Number(u64Of(value['dp_rank'], 'dp_rank')),
    startEventId: nullableU64(value['start_event_id'], 'start_event_id'),
    endEventId: nullableU64(value['end_event_id'], 'end_event_id'),
  }
}

/** The body of the one response item, with `complete_final: false`. */
export function encodeRecoveryItem(reply: RecoveryReply, codec: Codec): Uint8Array {
  if (codec === 'json') return encodeBody({ data: replyValue(reply), complete_final: false }, 'json')
  const writer = new MsgpackWriter(1024).mapHeader(2).string('data')
  if ('TreeDump' in reply) {
    writer.mapHeader(1).string('TreeDump').mapHeader(3).string('events').raw(encodeKvEvents(reply.TreeDump.events))
      .string('last_event_id').integer(reply.TreeDump.lastEventId).string('reset_scope').string('all')
  } else if ('Events' in reply) {
    writer.mapHeader(1).string('Events').mapHeader(2).string('events').raw(encodeKvEvents(reply.Events.events))
      .string('last_event_id').integer(reply.Events.lastEventId)
  } else writer.value(replyValue(reply))
  return writer.string('complete_final').boolean(false).finish()
}

/**
 * Reads the answer in a response item. Each `next()` of the generator does a bounded step; the last returns the answer.
 * Unknown fields are ignored. Errors: `WireError` or `MsgpackError`.
 */
export function* readRecoveryAnswer(body: Uint8Array, codec: Codec): Generator<undefined, RecoveryAnswer> {
  if (codec === 'json') return answerOfItem(decodeBody(body, 'json'))
  const cursor = new MsgpackCursor(body)
  let answer: RecoveryAnswer | null = null
  for (let left = cursor.readMapHeader(); left > 0; left -= 1) {
    const key = cursor.readString()
    if (key === 'data' && cursor.peek() === 'map') answer = yield* readData(cursor)
    else if (key === 'error' && cursor.peek() !== 'nil') answer = { kind: 'failed', message: shortText(cursor.readValue() as WireValue) }
    else cursor.skip()
  }
  return answer ?? { kind: 'failed', message: 'an item without data' }
}

function* readData(cursor: MsgpackCursor): Generator<undefined, RecoveryAnswer> {
  const start = cursor.offset
  if (cursor.readMapHeader() !== 1) throw malformed('recovery answer: expected one variant')
  const variant = cursor.readString()
  if (variant === 'TreeDump' || variant === 'Events') return yield* readEvents(cursor, variant)
  cursor.offset = start
  return answerOfValue(cursor.readValue() as WireValue)
}

function* readEvents(cursor: MsgpackCursor, variant: 'TreeDump' | 'Events'): Generator<undefined, RecoveryAnswer> {
  let events: AnswerEvents | null = null
  let lastEventId: bigint | null = null
  let scope: unknown
  for (let left = cursor.readMapHeader(); left > 0; left -= 1) {
    switch (cursor.readString()) {
      case 'events': {
        const count = cursor.readArrayHeader()
        const start = cursor.offset
        for (let index = 0; index < count; index += 1) {
          cursor.skip()
          if (index % skipStep === skipStep - 1) yield undefined
        }
        events = new MsgpackEvents(new MsgpackCursor(cursor.bytes, start, cursor.offset), count)
        break
      }
      case 'last_event_id': lastEventId = cursor.tryNil() ? null : cursor.readBigU64(); break
      case 'reset_scope': scope = cursor.readValue(); break
      default: cursor.skip()
    }
  }
  return eventsAnswer(variant, events, lastEventId, scope)
}

class MsgpackEvents implements AnswerEvents {
  readonly count: number
  readonly #cursor: MsgpackCursor

  constructor(cursor: MsgpackCursor, count: number) {
    this.#cursor = cursor
    this.count = count
  }

  next(): RouterEvent | null {
    return this.#cursor.atEnd ? null : readKvEvent(this.#cursor)
  }
}

/** Events out of JSON. */
class ValueEvents implements AnswerEvents {
  readonly count: number
  readonly #values: readonly WireValue[]
  #position = 0

  constructor(values: readonly WireValue[]) {
    this.#values = values
    this.count = values.length
  }

  next(): RouterEvent | null {
    const value = this.#values[this.#position]
    if (value === undefined) return null
    this.#position += 1
    try {
      return decodeKvEvent(encodeBody(value, 'msgpack'))
    } catch (error) {
      // JSON has integers that no hash has.
      throw error instanceof RangeError ? malformed(`recovery answer: ${error.message}`, error) : error
    }
  }
}

function answerOfItem(item: WireValue): RecoveryAnswer {
  if (!isObject(item)) throw malformed('recovery answer: expected an object')
  if (isObject(item['data'])) return answerOfValue(item['data'] as WireValue)
  return { kind: 'failed', message: item['error'] == null ? 'an item without data' : shortText(item['error'] as WireValue) }
}

function answerOfValue(value: WireValue): RecoveryAnswer {
  const [variant, content] = isObject(value) ? (Object.entries(value)[0] ?? []) : []
  if (variant === 'Error') return { kind: 'failed', message: shortText(content as WireValue) }
  if (!isObject(content)) throw malformed('recovery answer: unknown form')
  switch (variant) {
    case 'TreeDump': case 'Events': {
      const events = Array.isArray(content['events']) ? new ValueEvents(content['events'] as readonly WireValue[]) : null
      return eventsAnswer(variant, events, nullableU64(content['last_event_id'], 'last_event_id'), content['reset_scope'])
    }
    case 'TooNew': return { kind: 'too_new', newestAvailable: u64Of(content['newest_available'], 'newest_available') }
    case 'InvalidRange': return { kind: 'invalid_range', message: `range ${String(content['start_id'])}..${String(content['end_id'])} refused` }
    case 'TreeDumpFailed': return { kind: 'failed', message: `dump failed: ${shortText(content['message'] as WireValue)}` }
    default: throw malformed(`recovery answer: unknown form ${String(variant).slice(0, 40)}`)
  }
}

function eventsAnswer(variant: 'TreeDump' | 'Events', events: AnswerEvents | null, lastEventId: bigint | null, scope: unknown): RecoveryAnswer {
  if (events === null) throw malformed('recovery answer: events is not an array')
  if (lastEventId === null) throw malformed('recovery answer: last_event_id is missing')
  if (variant === 'Events') return { kind: 'replay', events, lastEventId }
  if (scope !== undefined && scope !== null && scope !== 'all') return { kind: 'failed', message: `reset scope ${String(scope).slice(0, 40)} is not supported` }
  return { kind: 'dump', events, lastEventId }
}

function replyValue(reply: RecoveryReply): WireValue {
  if ('Error' in reply) return { Error: reply.Error }
  if ('TooNew' in reply) {
    const { requestedStart, requestedEnd, newestAvailable } = reply.TooNew
    return { TooNew: { requested_start: requestedStart, requested_end: requestedEnd, newest_available: newestAvailable } }
  }
  if ('InvalidRange' in reply) return { InvalidRange: { start_id: reply.InvalidRange.startId, end_id: reply.InvalidRange.endId } }
  if ('TreeDumpFailed' in reply) return { TreeDumpFailed: { last_event_id: reply.TreeDumpFailed.lastEventId, message: reply.TreeDumpFailed.message } }
  if ('Events' in reply) {
    return { Events: { events: reply.Events.events.map(eventValue), last_event_id: reply.Events.lastEventId } }
  }
  const { events, lastEventId } = reply.TreeDump
  return { TreeDump: { events: events.map(eventValue), last_event_id: lastEventId, reset_scope: 'all' } }
}

const eventValue = (event: RouterEvent): WireValue => decodeBody(encodeKvEvent(event), 'msgpack')

function u64Of(value: unknown, field: string): bigint {
  const id = nullableU64(value, field)
  if (id === null) throw malformed(`recovery: ${field} is missing`)
  return id
}

function nullableU64(value: unknown, field: string): bigint | null {
  if (value === undefined || value === null) return null
  const id = typeof value === 'bigint' || (typeof value === 'number' && Number.isSafeInteger(value)) ? BigInt(value) : -1n
  if (id < 0n || id >= 1n << 64n) throw malformed(`recovery: ${field} is ${String(value).slice(0, 40)}, expected an unsigned 64-bit integer`)
  return id
}

const shortText = (value: WireValue | undefined): string => (typeof value === 'string' ? value : stringifyJson(value)).slice(0, 300)

/** Whether reading an answer failed because of its bytes. */
export const isUnreadable = (error: unknown): error is Error => error instanceof WireError || error instanceof MsgpackError
