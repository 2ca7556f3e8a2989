/**
 * A `generate` request read in place: routing hints and tokens are taken from its bytes, everything else stays as it came.
 *
 * The bytes for the worker are the caller's bytes with `routing.dp_rank` set and the fields that old workers insist on added;
 * fields that nobody here knows survive. Source: Dynamo 1.6.1 `PreprocessedRequest`.
 */
import { FailureError } from '../../model/failure.ts'
import type { BlockMmInfo } from '../../model/kv-event.ts'
import type { RouterConfigOverride, RoutingRequest } from '../../model/routing-request.ts'
import { KeyTable, MsgpackCursor, MsgpackError, type MsgpackValue } from '../../msgpack/cursor.ts'
import { MsgpackWriter } from '../../msgpack/writer.ts'
import type { Codec, IncomingRequest } from '../../ports.ts'
import { parseJsonBytes, stringifyJsonBytes } from './json.ts'
import { arrayOrAbsent, booleanOrAbsent, invalid, isMap, kindOf, mapOrAbsent, numberOrAbsent, stringOrAbsent, u32OrAbsent, u64OrAbsent, type ValueMap } from './request-fields.ts'

type Value = MsgpackValue

/** What routing takes from a request's own fields. */
export type RoutingHints = Omit<RoutingRequest, 'requestId' | 'model' | 'tokens' | 'excludedWorkerIds'>

/** A value that stays as some peer encoded it: floats and integer widths survive. */
export class EncodedValue {
  readonly codec: Codec
  readonly bytes: Uint8Array
  constructor(codec: Codec, bytes: Uint8Array) {
    this.codec = codec
    this.bytes = bytes
  }
}

/** What is changed on the way to a worker. Everything else stays as the caller sent it. */
export interface RequestEdits {
  /** Merged into `routing`. */
  readonly routing: ValueMap
  /** Taken out of `routing`. */
  readonly routingWithout?: readonly string[]
  /** Merged into `stop_conditions`. */
  readonly stopConditions?: ValueMap
  /** Merged into `router_config_override`. */
  readonly override?: ValueMap
  readonly prefillResult?: { readonly params: EncodedValue | Value; readonly promptTokensDetails: Value }
  readonly bootstrapInfo?: ValueMap
  /** In place of the caller's. */
  readonly annotations?: readonly string[]
  /** Output tokens of an attempt before, behind the prompt. */
  readonly appendedTokens?: readonly number[]
}

export interface GenerateRequest {
  /** The tokens that routing hashes: `mm_routing_info.routing_token_ids` where given, else `token_ids`. */
  readonly tokens: Uint32Array
  readonly model: string
  readonly routing: RoutingHints
  /** Annotation `query_instance_id:`: only say who would be chosen. */
  readonly queryOnly: boolean
  /** A small top-level field, decoded; not for the tokens. */
  field(name: 'stop_conditions' | 'sampling_options' | 'routing' | 'annotations' | 'router_config_override' | 'router' | 'agent_context'): MsgpackValue | undefined
  /** The body for the chosen worker, in its codec. */
  forWorker(edits: RequestEdits, codec: Codec): readonly Uint8Array[]
}


/**
 * Reads a request.
 *
 * Errors: `FailureError` of class InvalidRequest that names the field and what it should be.
 */
export function decodeGenerateRequest(body: Uint8Array, codec: Codec): GenerateRequest {
  try {
    return codec === 'msgpack' ? readMsgpack(body) : readValues(parseJsonBytes(body) as Value)
  } catch (error) {
    if (error instanceof FailureError) throw error
    throw invalid(`the request body is not valid ${codec}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

/** The same of a request that has come, which may have been read already. Errors: the same. */
export function readGenerateRequest(request: Pick<IncomingRequest, 'value' | 'body' | 'codec'>): GenerateRequest {
  return request.value === undefined ? decodeGenerateRequest(request.body, request.codec) : readValues(request.value as Value)
}

/** Packed little-endian int32, the form of `DYN_TOKEN_IDS_AS_BYTES`. */
function packedTokens(bytes: Uint8Array, field: string): Uint32Array {
  if (bytes.length % 4 !== 0) throw invalid(`\`${field}\` has ${bytes.length} packed bytes, expected a multiple of 4`)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const tokens = new Uint32Array(bytes.length / 4)
  for (let index = 0; index < tokens.length; index += 1) {
    const token = view.getInt32(4 * index, true)
    if (token < 0) throw invalid(`\`${field}[${index}]\` is ${token}, expected a token id in 0..2^32-1`)
    tokens[index] = token
  }
  return tokens
}

/** Token ids from a decoded value: an array of integers or packed bytes. */
export function tokensOf(value: Value | Uint32Array | undefined, field: string): Uint32Array {
  if (value instanceof Uint32Array) return value
  if (value === undefined) throw invalid(`missing field \`${field}\``)
  if (value instanceof Uint8Array) return packedTokens(value, field)
  if (!Array.isArray(value)) {
    // The value may be a prompt: it is not shown.
    const kind = typeof value === 'string' ? 'string' : kindOf(value)
    throw invalid(`\`${field}\`: invalid type: ${kind}, expected a sequence of token ids or packed little-endian int32 bytes`)
  }
  const items = value as readonly Value[]
  const tokens = new Uint32Array(items.length)
  for (let index = 0; index < items.length; index += 1) {
    const token = items[index]
    if (typeof token !== 'number' || !Number.isInteger(token) || token < 0 || token > 0xffffffff) {
      throw invalid(`\`${field}[${index}]\` is ${kindOf(token)}, expected a token id in 0..2^32-1`)
    }
    tokens[index] = token
  }
  return tokens
}

/** Multimodal infos of the blocks. */
export function blockMmInfosOf(value: Value | undefined, field: string): readonly (BlockMmInfo | null)[] | undefined {
  return arrayOrAbsent(value, field)?.map((item, block) => {
    const info = mapOrAbsent(item, `${field}[${block}]`)
    if (info === undefined) return null
    const objects = arrayOrAbsent(info['mm_objects'], `${field}[${block}].mm_objects`) ?? []
    return { mmObjects: objects.map((object, index) => {
      const at = `${field}[${block}].mm_objects[${index}]`
      const mmHash = u64OrAbsent(mapOrAbsent(object, at)?.['mm_hash'], `${at}.mm_hash`)
      if (mmHash === undefined) throw invalid(`missing field \`${at}.mm_hash\``)
      return { mmHash, offsets: [] }
    }) }
  })
}

const overrideFields = {
  overlap_score_credit: 'overlapScoreCredit', prefill_load_scale: 'prefillLoadScale', overlap_score_weight: 'overlapScoreWeight',
  router_temperature: 'routerTemperature', shared_cache_multiplier: 'sharedCacheMultiplier',
} as const

/** Per-request settings; ranges are checked where they are used. */
export function overrideOf(value: Value | undefined): RouterConfigOverride | undefined {
  const map = mapOrAbsent(value, 'router_config_override')
  if (map === undefined) return undefined
  const override: { -readonly [Key in keyof RouterConfigOverride]: RouterConfigOverride[Key] } = {}
  for (const [wire, name] of Object.entries(overrideFields)) {
    const number = numberOrAbsent(map[wire], `router_config_override.${wire}`)
    if (number !== undefined) override[name as (typeof overrideFields)[keyof typeof overrideFields]] = number
  }
  const reuse = booleanOrAbsent(map['assume_kv_reuse'], 'router_config_override.assume_kv_reuse')
  if (reuse !== undefined) override.assumeKvReuse = reuse
  const track = booleanOrAbsent(map['track_prefill_tokens'], 'router_config_override.track_prefill_tokens')
  if (track !== undefined) override.trackPrefillTokens = track
  return override
}

function hintsOf(routing: ValueMap | undefined, legacyRank: number | undefined, override: Value | undefined): RoutingHints {
  const hints: { -readonly [Key in keyof RoutingHints]: RoutingHints[Key] } = {}
  const parsedOverride = overrideOf(override)
  if (parsedOverride !== undefined) hints.override = parsedOverride
  if (routing === undefined) {
    if (legacyRank !== undefined) hints.dpRank = legacyRank
    return hints
  }
  const workerId = u64OrAbsent(routing['decode_worker_id'], 'routing.decode_worker_id') ??
    u64OrAbsent(routing['backend_instance_id'], 'routing.backend_instance_id')
  const dpRank = u32OrAbsent(routing['dp_rank'], 'routing.dp_rank')
  if (workerId !== undefined) hints.pin = { workerId, dpRank: dpRank ?? null }
  else if (dpRank !== undefined) hints.dpRank = dpRank
  const allowed = arrayOrAbsent(routing['allowed_worker_ids'], 'routing.allowed_worker_ids')
  if (allowed !== undefined) {
    hints.allowedWorkerIds = new Set(allowed.map((id, index) => {
      const parsed = u64OrAbsent(id, `routing.allowed_worker_ids[${index}]`)
      if (parsed === undefined) throw invalid(`\`routing.allowed_worker_ids[${index}]\` is null, expected a worker id`)
      return parsed
    }))
  }
  taintHints(hints, mapOrAbsent(routing['routing_constraints'], 'routing.routing_constraints'))
  const loraName = stringOrAbsent(routing['lora_name'], 'routing.lora_name')
  if (loraName !== undefined) hints.loraName = loraName
  // The wire name; the internal name of the original is accepted too.
  const namespace = stringOrAbsent(routing['cache_salt'] ?? routing['cache_namespace'], 'routing.cache_salt')
  if (namespace !== undefined) hints.cacheNamespace = namespace
  const expected = u32OrAbsent(routing['expected_output_tokens'], 'routing.expected_output_tokens')
  if (expected !== undefined) hints.expectedOutputTokens = expected
  const jump = numberOrAbsent(routing['priority_jump'], 'routing.priority_jump')
  if (jump !== undefined) hints.priorityJumpSeconds = jump
  const strict = u32OrAbsent(routing['strict_priority'], 'routing.strict_priority')
  if (strict !== undefined) hints.strictPriority = strict
  return hints
}

function taintHints(hints: { requiredTaints?: readonly string[]; preferredTaints?: ReadonlyMap<string, number> }, constraints: ValueMap | undefined): void {
  if (constraints === undefined) return
  const required = arrayOrAbsent(constraints['required_taints'], 'routing.routing_constraints.required_taints')
  if (required !== undefined) {
    hints.requiredTaints = required.map((taint, index) => stringOrAbsent(taint, `routing.routing_constraints.required_taints[${index}]`) ?? '')
  }
  const preferred = mapOrAbsent(constraints['preferred_taints'], 'routing.routing_constraints.preferred_taints')
  if (preferred !== undefined) {
    hints.preferredTaints = new Map(Object.entries(preferred).map(([taint, weight]) =>
      [taint, Math.fround(numberOrAbsent(weight, `routing.routing_constraints.preferred_taints.${taint}`) ?? 0)]))
  }
}

const isQueryOnly = (annotations: readonly Value[] | undefined): boolean =>
  annotations?.some((annotation) => typeof annotation === 'string' && annotation.startsWith('query_instance_id:')) ?? false

/** Tokens and blocks as routing sees them. */
function routedTokens(tokens: Uint32Array, mmRoutingInfo: Value | undefined, hints: RoutingHints): { tokens: Uint32Array; routing: RoutingHints } {
  const info = mapOrAbsent(mmRoutingInfo, 'mm_routing_info')
  if (info === undefined) return { tokens, routing: hints }
  const infos = blockMmInfosOf(info['block_mm_infos'], 'mm_routing_info.block_mm_infos')
  return {
    tokens: tokensOf(info['routing_token_ids'], 'mm_routing_info.routing_token_ids'),
    routing: infos === undefined ? hints : { ...hints, blockMmInfos: infos },
  }
}

/** Fields that receivers of 1.1 insist on, with the value of an absent one. */
const requiredDefaults: readonly (readonly [string, Value])[] = [
  ['model', 'unknown'], ['stop_conditions', {}], ['sampling_options', {}], ['output_options', {}], ['eos_token_ids', []], ['annotations', []],
]

const defaultValues: ValueMap = Object.fromEntries(requiredDefaults)

// ---- JSON and other decoded values -----------------------------------------------------------------------------------------

function readValues(value: Value): GenerateRequest {
  if (!isMap(value)) throw invalid(`the request is ${kindOf(value)}, expected a map with \`token_ids\``)
  const tokens = tokensOf(value['token_ids'], 'token_ids')
  if (value['model'] === null) throw invalid('`model` is null, expected a string')
  const model = stringOrAbsent(value['model'], 'model') ?? 'unknown'
  const routing = mapOrAbsent(value['routing'], 'routing')
  const legacyRank = u32OrAbsent(value['dp_rank'], 'dp_rank')
  const hints = hintsOf(routing, routing === undefined ? legacyRank : undefined, value['router_config_override'])
  return {
    ...routedTokens(tokens, value['mm_routing_info'], hints),
    model,
    queryOnly: isQueryOnly(arrayOrAbsent(value['annotations'], 'annotations')),
    field: (name) => value[name],
    forWorker: (edits, codec) => {
      const { dp_rank: _legacy, ...rest } = value
      return [codec === 'json' ? stringifyJsonBytes(withoutBytes(editedValues(rest, edits))) : encodedValues(rest, edits)]
    },
  }
}

const mapOf = (value: Value | undefined): ValueMap => (isMap(value) ? value : {})
const without = (map: ValueMap, names: readonly string[]): ValueMap =>
  names.length === 0 ? map : Object.fromEntries(Object.entries(map).filter(([name]) => !names.includes(name)))

/** The edits on decoded values. */
function editedValues(rest: ValueMap, edits: RequestEdits): ValueMap {
  const { annotations, appendedTokens, bootstrapInfo, override, prefillResult, routing, stopConditions } = edits
  return {
    ...defaultValues, ...rest,
    ...(appendedTokens === undefined || appendedTokens.length === 0 ? {} : { token_ids: [...tokensOf(rest['token_ids'], 'token_ids'), ...appendedTokens] }),
    ...(stopConditions === undefined ? {} : { stop_conditions: { ...mapOf(rest['stop_conditions']), ...stopConditions } }),
    ...(override === undefined ? {} : { router_config_override: { ...mapOf(rest['router_config_override']), ...override } }),
    ...(prefillResult === undefined ? {} : { prefill_result: { disaggregated_params: plainValue(prefillResult.params), prompt_tokens_details: prefillResult.promptTokensDetails } }),
    ...(bootstrapInfo === undefined ? {} : { bootstrap_info: bootstrapInfo }),
    ...(annotations === undefined ? {} : { annotations }),
    routing: { ...without(mapOf(rest['routing']), edits.routingWithout ?? []), ...routing },
  }
}

/** The same in MessagePack; what was kept encoded goes as it came. */
function encodedValues(rest: ValueMap, { prefillResult, ...edits }: RequestEdits): Uint8Array {
  const body = editedValues(rest, edits)
  const keys = Object.keys(body).filter((key) => prefillResult === undefined || key !== 'prefill_result')
  const writer = new MsgpackWriter(2048).mapHeader(keys.length + (prefillResult === undefined ? 0 : 1))
  for (const key of keys) writer.string(key).value(body[key] as Value)
  if (prefillResult !== undefined) writePrefillResult(writer, prefillResult)
  return writer.finish()
}

/** Decodes what was kept encoded. */
export function plainValue(value: EncodedValue | Value): Value {
  if (!(value instanceof EncodedValue)) return value
  return value.codec === 'msgpack' ? new MsgpackCursor(value.bytes).readValue() : (parseJsonBytes(value.bytes) as Value)
}

/** The text form of a UUID's 16 bytes. */
export function uuidText(bytes: Uint8Array): string {
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}

/** JSON has no bytes: packed tokens become an array, others an array of numbers. */
function withoutBytes(value: Value): never {
  const convert = (item: Value, key: string): unknown => {
    if (item instanceof Uint8Array) return key === 'token_ids' ? [...packedTokens(item, key)] : key === 'handoff_id' ? uuidText(item) : [...item]
    if (Array.isArray(item)) return (item as readonly Value[]).map((each) => convert(each, ''))
    if (isMap(item)) return Object.fromEntries(Object.entries(item).map(([name, each]) => [name, convert(each, name)]))
    return item
  }
  return convert(value, '') as never
}

// ---- MessagePack, spliced --------------------------------------------------------------------------------------------------

const topKeys = new KeyTable([
  'model', 'token_ids', 'stop_conditions', 'sampling_options', 'output_options', 'eos_token_ids', 'annotations', 'routing',
  'router_config_override', 'dp_rank', 'mm_routing_info', 'prefill_result', 'bootstrap_info', 'router', 'agent_context',
])
const [keyModel, keyTokens, keyStop, keySampling, keyAnnotations, keyRouting, keyOverride, keyRank, keyMm, keyPrefill, keyBootstrap, keyRouter, keyAgent] = [0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14]
const fieldKeys = { stop_conditions: keyStop, sampling_options: keySampling, routing: keyRouting, annotations: keyAnnotations, router_config_override: keyOverride, router: keyRouter, agent_context: keyAgent } as const
const requiredKeys = [0, 2, 3, 4, 5, 6]

/** Where the values of the known keys lie; -1 = absent. */
interface Scan {
  readonly starts: Int32Array
  readonly ends: Int32Array
  readonly keyStarts: Int32Array
  readonly mapStart: number
  readonly pairs: number
}

function scan(body: Uint8Array): Scan {
  const cursor = new MsgpackCursor(body)
  if (cursor.atEnd || cursor.peek() !== 'map') throw invalid(`the request is ${cursor.atEnd ? 'empty' : `a msgpack ${cursor.peek()}`}, expected a map with \`token_ids\``)
  const size = topKeys.encoded.length
  const starts = new Int32Array(size).fill(-1)
  const ends = new Int32Array(size).fill(-1)
  const keyStarts = new Int32Array(size).fill(-1)
  const pairs = cursor.readMapHeader()
  const mapStart = cursor.offset
  let hint = 0
  for (let pair = 0; pair < pairs; pair += 1) {
    const keyStart = cursor.offset
    const key = cursor.readKey(topKeys, hint)
    const start = cursor.offset
    cursor.skip()
    if (key < 0) continue
    hint = key + 1
    keyStarts[key] = keyStart
    starts[key] = start
    ends[key] = cursor.offset
  }
  cursor.expectEnd()
  return { starts, ends, keyStarts, mapStart, pairs }
}

function readTokens(body: Uint8Array, start: number): Uint32Array {
  if (start < 0) throw invalid('missing field `token_ids`')
  const cursor = new MsgpackCursor(body, start)
  const all = cursor.tryU32s()
  if (all !== null) return all
  if (cursor.peek() !== 'array') return tokensOf(cursor.readValue(), 'token_ids')
  const count = cursor.readArrayHeader()
  const tokens = new Uint32Array(count)
  for (let index = 0; index < count; index += 1) {
    try {
      tokens[index] = cursor.readU32()
    } catch (error) {
      if (!(error instanceof MsgpackError)) throw error
      throw invalid(`\`token_ids[${index}]\` is not a token id in 0..2^32-1`)
    }
  }
  return tokens
}

function readMsgpack(body: Uint8Array): GenerateRequest {
  const found = scan(body)
  const valueOf = (key: number): Value | undefined => {
    const start = found.starts[key] as number
    return start < 0 ? undefined : new MsgpackCursor(body, start).readValue()
  }
  const tokens = readTokens(body, found.starts[keyTokens] as number)
  const modelValue = valueOf(keyModel)
  if (modelValue === null) throw invalid('`model` is null, expected a string')
  const routing = mapOrAbsent(valueOf(keyRouting), 'routing')
  const legacyRank = u32OrAbsent(valueOf(keyRank), 'dp_rank')
  const hints = hintsOf(routing, routing === undefined ? legacyRank : undefined, valueOf(keyOverride))
  return {
    ...routedTokens(tokens, valueOf(keyMm), hints),
    model: stringOrAbsent(modelValue, 'model') ?? 'unknown',
    queryOnly: isQueryOnly(arrayOrAbsent(valueOf(keyAnnotations), 'annotations')),
    field: (name) => valueOf(fieldKeys[name]),
    forWorker: (edits, codec) => codec === 'msgpack'
      ? spliced(body, found, edits)
      : readValues(new MsgpackCursor(body).readValue()).forWorker(edits, codec),
  }
}

/** The caller's bytes without what is edited, then what is missing, then the edited fields. */
function spliced(body: Uint8Array, found: Scan, edits: RequestEdits): readonly Uint8Array[] {
  const appended = edits.appendedTokens ?? []
  const edited = [
    keyRouting, ...(edits.stopConditions === undefined ? [] : [keyStop]), ...(edits.override === undefined ? [] : [keyOverride]),
    ...(edits.annotations === undefined ? [] : [keyAnnotations]),
    ...(edits.prefillResult === undefined ? [] : [keyPrefill]), ...(edits.bootstrapInfo === undefined ? [] : [keyBootstrap]),
    ...(appended.length === 0 ? [] : [keyTokens]),
  ] as number[]
  const cuts = [...edited, keyRank as number]
    .filter((key) => (found.keyStarts[key] as number) >= 0)
    .map((key) => [found.keyStarts[key] as number, found.ends[key] as number] as const)
    .sort((left, right) => left[0] - right[0])
  const missing = requiredKeys.filter((key) => (found.starts[key] as number) < 0 && !edited.includes(key))
  const head = new MsgpackWriter(8).mapHeader(found.pairs - cuts.length + missing.length + edited.length).finish()
  const parts: Uint8Array[] = [head]
  let from = found.mapStart
  for (const [start, end] of cuts) {
    if (start > from) parts.push(body.subarray(from, start))
    from = end
  }
  if (from < body.length) parts.push(body.subarray(from))
  const tail = new MsgpackWriter(128 + 5 * appended.length)
  for (const key of missing) {
    const [name, value] = requiredDefaults[requiredKeys.indexOf(key)] as readonly [string, Value]
    tail.string(name).value(value)
  }
  if (appended.length > 0) writeTokens(tail, readTokens(body, found.starts[keyTokens as number] as number), appended)
  if (edits.stopConditions !== undefined) writeMerged(tail.string('stop_conditions'), body, found.starts[keyStop as number] as number, edits.stopConditions)
  if (edits.override !== undefined) writeMerged(tail.string('router_config_override'), body, found.starts[keyOverride as number] as number, edits.override)
  if (edits.prefillResult !== undefined) writePrefillResult(tail, edits.prefillResult)
  if (edits.bootstrapInfo !== undefined) tail.string('bootstrap_info').value(edits.bootstrapInfo)
  if (edits.annotations !== undefined) tail.string('annotations').value(edits.annotations)
  writeMerged(tail.string('routing'), body, found.starts[keyRouting as number] as number, edits.routing, edits.routingWithout)
  parts.push(tail.finish())
  return parts
}

function writeTokens(tail: MsgpackWriter, tokens: Uint32Array, appended: readonly number[]): void {
  tail.string('token_ids').arrayHeader(tokens.length + appended.length)
  for (const token of tokens) tail.integer(token)
  for (const token of appended) tail.integer(token)
}

function writePrefillResult(tail: MsgpackWriter, { params, promptTokensDetails }: NonNullable<RequestEdits['prefillResult']>): void {
  tail.string('prefill_result').mapHeader(2).string('disaggregated_params')
  writeValue(tail, params)
  tail.string('prompt_tokens_details').value(promptTokensDetails)
}

function writeValue(tail: MsgpackWriter, value: EncodedValue | Value): void {
  if (value instanceof EncodedValue && value.codec === 'msgpack') tail.raw(value.bytes)
  else tail.value(plainValue(value))
}

/** A map of the caller, entries as they came, with the given ones in place of or besides its own. */
function writeMerged(tail: MsgpackWriter, body: Uint8Array, start: number, changes: ValueMap, dropped: readonly string[] = []): void {
  const kept: Uint8Array[] = []
  if (start >= 0) {
    const cursor = new MsgpackCursor(body, start)
    const pairs = cursor.peek() === 'map' ? cursor.readMapHeader() : 0
    for (let pair = 0; pair < pairs; pair += 1) {
      const keyStart = cursor.offset
      const name = cursor.readString()
      cursor.skip()
      if (!Object.hasOwn(changes, name) && !dropped.includes(name)) kept.push(body.subarray(keyStart, cursor.offset))
    }
  }
  const entries = Object.entries(changes)
  tail.mapHeader(kept.length + entries.length)
  for (const entry of kept) tail.raw(entry)
  for (const [name, value] of entries) tail.string(name).value(value)
}
