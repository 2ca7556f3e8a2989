/**
 * Bookings that routers tell each other, and first-token marks of workers (topic `active_sequences_events`).
 *
 * On the ZMQ plane a message is `{events: [E, …]}`, on the NATS plane one `E`; both are read. Source: router-algorithm 13.
 */
import { hashCount, type HashList } from '../../model/hash-list.ts'
import { KeyTable, MsgpackError, type MsgpackCursor } from '../../msgpack/cursor.ts'
import { MsgpackWriter } from '../../msgpack/writer.ts'
import { decodePayload } from './payload.ts'

export interface ActiveSequenceEvent {
  readonly requestId: string
  readonly workerId: bigint
  readonly dpRank: number
  readonly data: ActiveSequenceData
  /** Who says it: a router's instance id, or the worker's own. */
  readonly routerId: bigint
  readonly loraName: string | null
}

export type ActiveSequenceData =
  | {
    readonly kind: 'add_request'
    /** Tracking hashes of the prompt; null when active blocks are not tracked. */
    readonly tokenSequence: HashList | null
    readonly trackPrefillTokens: boolean
    readonly expectedOutputTokens: number | null
    readonly prefillLoadHint: PrefillLoadHint | null
    /** What Dynamo 1.1 wants instead of the hint, and says itself; later releases pass over it. */
    readonly promptLoad?: PromptLoad
  }
  | { readonly kind: 'mark_prefill_completed' }
  | { readonly kind: 'free' }

/** A prompt in tokens, and how many of its blocks are cached. */
export interface PromptLoad {
  readonly promptTokens: number
  readonly overlapBlocks: number
}

export interface PrefillLoadHint {
  readonly initialEffectivePrefillTokens: number
  readonly expectedPrefillDuration: { readonly seconds: number; readonly nanoseconds: number } | null
}

/** Most events of one message that is written here. */
export const activeSequenceBatchMax = 256

// ---- Decoding --------------------------------------------------------------------------------------------------------------

/** The events of a message in either form; unknown keys are passed over. Errors: WireError that names the offset. */
export const decodeActiveSequences = (payload: Uint8Array): ActiveSequenceEvent[] =>
  decodePayload('active sequence events', payload, (cursor) => {
    const start = cursor.offset
    for (let left = cursor.readMapHeader(); left > 0; left -= 1) {
      if (cursor.readString() === 'events') {
        const events: ActiveSequenceEvent[] = []
        for (let items = cursor.readArrayHeader(); items > 0; items -= 1) events.push(readActiveSequence(cursor))
        for (; left > 1; left -= 1) { cursor.skip(); cursor.skip() }
        return events
      }
      cursor.skip()
    }
    cursor.offset = start
    return [readActiveSequence(cursor)]
  })

const eventKeys = new KeyTable(['request_id', 'worker', 'data', 'router_id', 'lora_name'])
const workerKeys = new KeyTable(['worker_id', 'dp_rank'])

/** Reads one event. Errors: MsgpackError. */
export function readActiveSequence(cursor: MsgpackCursor): ActiveSequenceEvent {
  const start = cursor.offset
  let requestId: string | null = null
  let workerId: bigint | null = null
  let dpRank = 0
  let data: ActiveSequenceData | null = null
  let routerId: bigint | null = null
  let loraName: string | null = null
  for (let left = cursor.readMapHeader(), hint = 0; left > 0; left -= 1) {
    const key = cursor.readKey(eventKeys, hint)
    hint = key + 1
    switch (key) {
      case 0: requestId = cursor.readString(); break
      case 1:
        for (let fields = cursor.readMapHeader(); fields > 0; fields -= 1) {
          const field = cursor.readKey(workerKeys, 0)
          if (field === 0) workerId = cursor.readBigU64()
          else if (field === 1) dpRank = cursor.readU32()
          else cursor.skip()
        }
        break
      case 2: data = readData(cursor); break
      case 3: routerId = cursor.readBigU64(); break
      case 4: loraName = cursor.tryNil() ? null : cursor.readString(); break
      default: cursor.skip()
    }
  }
  const missing = requestId === null ? 'request_id' : workerId === null ? 'worker' : data === null ? 'data' : routerId === null ? 'router_id' : null
  if (requestId === null || workerId === null || data === null || routerId === null) throw new MsgpackError(`an event without ${missing}`, start)
  return { requestId, workerId, dpRank, data, routerId, loraName }
}

function readData(cursor: MsgpackCursor): ActiveSequenceData {
  const start = cursor.offset
  if (cursor.peek() === 'string') {
    const name = cursor.readString()
    if (name === 'MarkPrefillCompleted') return { kind: 'mark_prefill_completed' }
    if (name === 'Free') return { kind: 'free' }
    throw new MsgpackError(`unknown event data ${JSON.stringify(name.slice(0, 40))}`, start)
  }
  if (cursor.readMapHeader() !== 1 || cursor.readString() !== 'AddRequest') throw new MsgpackError('event data of an unknown kind', start)
  return readAddRequest(cursor)
}

const addKeys = new KeyTable(['token_sequence', 'track_prefill_tokens', 'expected_output_tokens', 'prefill_load_hint', 'isl', 'overlap'])

function readAddRequest(cursor: MsgpackCursor): ActiveSequenceData {
  let tokenSequence: HashList | null = null
  let trackPrefillTokens = true
  let expectedOutputTokens: number | null = null
  let prefillLoadHint: PrefillLoadHint | null = null
  let promptTokens: number | null = null
  let overlapBlocks = 0
  for (let left = cursor.readMapHeader(), hint = 0; left > 0; left -= 1) {
    const key = cursor.readKey(addKeys, hint)
    hint = key + 1
    if (key === 0) tokenSequence = cursor.tryNil() ? null : readHashes(cursor)
    else if (key === 1) trackPrefillTokens = cursor.readBoolean()
    else if (key === 2) expectedOutputTokens = cursor.tryNil() ? null : cursor.readU32()
    else if (key === 3) prefillLoadHint = cursor.tryNil() ? null : readHint(cursor)
    else if (key === 4) promptTokens = Number(cursor.readBigU64())
    else if (key === 5) overlapBlocks = cursor.readU32()
    else cursor.skip()
  }
  const promptLoad = promptTokens === null ? {} : { promptLoad: { promptTokens, overlapBlocks } }
  return { kind: 'add_request', tokenSequence, trackPrefillTokens, expectedOutputTokens, prefillLoadHint, ...promptLoad }
}

function readHashes(cursor: MsgpackCursor): HashList {
  const count = cursor.readArrayHeader()
  const hashes = new Uint32Array(2 * count)
  for (let index = 0; index < count; index += 1) cursor.readU64(hashes, index)
  return hashes
}

function readHint(cursor: MsgpackCursor): PrefillLoadHint {
  const start = cursor.offset
  let tokens: number | null = null
  let duration: PrefillLoadHint['expectedPrefillDuration'] = null
  for (let left = cursor.readMapHeader(); left > 0; left -= 1) {
    const key = cursor.readString()
    if (key === 'initial_effective_prefill_tokens') tokens = Number(cursor.readBigU64())
    else if (key === 'expected_prefill_duration') duration = cursor.tryNil() ? null : readDuration(cursor)
    else cursor.skip()
  }
  if (tokens === null) throw new MsgpackError('a hint without initial_effective_prefill_tokens', start)
  return { initialEffectivePrefillTokens: tokens, expectedPrefillDuration: duration }
}

function readDuration(cursor: MsgpackCursor): { readonly seconds: number; readonly nanoseconds: number } {
  let seconds = 0
  let nanoseconds = 0
  for (let left = cursor.readMapHeader(); left > 0; left -= 1) {
    const key = cursor.readString()
    if (key === 'secs') seconds = Number(cursor.readBigU64())
    else if (key === 'nanos') nanoseconds = cursor.readU32()
    else cursor.skip()
  }
  return { seconds, nanoseconds }
}

// ---- Encoding --------------------------------------------------------------------------------------------------------------

/** A message of the ZMQ plane. At most `activeSequenceBatchMax` events. */
export function encodeActiveSequenceBatch(events: readonly ActiveSequenceEvent[]): Uint8Array {
  if (events.length > activeSequenceBatchMax) throw new RangeError(`${events.length} events in a message of at most ${activeSequenceBatchMax}`)
  const writer = new MsgpackWriter(512)
  writer.mapHeader(1).string('events').arrayHeader(events.length)
  for (const event of events) writeActiveSequence(writer, event)
  return writer.finish()
}

/** A message of the NATS plane. */
export function encodeActiveSequence(event: ActiveSequenceEvent): Uint8Array {
  const writer = new MsgpackWriter(512)
  writeActiveSequence(writer, event)
  return writer.finish()
}

/** Writes one event. */
export function writeActiveSequence(writer: MsgpackWriter, event: ActiveSequenceEvent): void {
  writer.mapHeader(5).string('request_id').string(event.requestId)
  writer.string('worker').mapHeader(2).string('worker_id').integer(event.workerId).string('dp_rank').integer(event.dpRank)
  writer.string('data')
  writeData(writer, event.data)
  writer.string('router_id').integer(event.routerId).string('lora_name')
  if (event.loraName === null) writer.nil()
  else writer.string(event.loraName)
}

function writeData(writer: MsgpackWriter, data: ActiveSequenceData): void {
  if (data.kind !== 'add_request') {
    writer.string(data.kind === 'free' ? 'Free' : 'MarkPrefillCompleted')
    return
  }
  const { promptLoad } = data
  writer.mapHeader(1).string('AddRequest').mapHeader(promptLoad === undefined ? 4 : 6)
  if (promptLoad !== undefined) writer.string('isl').integer(promptLoad.promptTokens).string('overlap').integer(promptLoad.overlapBlocks)
  writer.string('token_sequence')
  if (data.tokenSequence === null) writer.nil()
  else {
    const count = hashCount(data.tokenSequence)
    writer.arrayHeader(count)
    for (let index = 0; index < count; index += 1) writer.hash(data.tokenSequence, index)
  }
  writer.string('track_prefill_tokens').boolean(data.trackPrefillTokens).string('expected_output_tokens')
  if (data.expectedOutputTokens === null) writer.nil()
  else writer.integer(data.expectedOutputTokens)
  writer.string('prefill_load_hint')
  if (data.prefillLoadHint === null) {
    writer.nil()
    return
  }
  const { initialEffectivePrefillTokens, expectedPrefillDuration } = data.prefillLoadHint
  writer.mapHeader(2).string('initial_effective_prefill_tokens').integer(initialEffectivePrefillTokens).string('expected_prefill_duration')
  if (expectedPrefillDuration === null) writer.nil()
  else writer.mapHeader(2).string('secs').integer(expectedPrefillDuration.seconds).string('nanos').integer(expectedPrefillDuration.nanoseconds)
}
