/** The `nvext` member of a request: routing hints, annotations and what the answer is to carry besides text. */
import type { Json, JsonObject } from '../ports.ts'
import { u32Max, type Fields } from './fields.ts'

const u64Max = (1n << 64n) - 1n
const i32 = { min: -2_147_483_648, max: 2_147_483_647 }
const u32 = { min: 0, max: u32Max }

const members = [
  'greed_sampling', 'use_raw_prompt', 'annotations', 'backend_instance_id', 'token_data', 'max_thinking_tokens', 'cache_salt', 'extra_fields',
  'metadata_upload', 'prefill_worker_id', 'decode_worker_id', 'dp_rank', 'prefill_dp_rank', 'agent_hints', 'request_timestamp_ms',
  'routing_constraints', 'router',
]

/** Members of earlier versions and what took their place. */
const formerMembers: Readonly<Record<string, string>> = {
  session_control: 'send the header x-dynamo-session-id',
  cache_control: 'send `nvext.cache_salt` or the header x-tenant-id',
  guided_json: 'send `guided_json` beside `nvext`',
  guided_regex: 'send `guided_regex` beside `nvext`',
  guided_choice: 'send `guided_choice` beside `nvext`',
  guided_grammar: 'send `guided_grammar` beside `nvext`',
}

export interface Extension {
  readonly annotations: readonly string[]
  /** Prompt in tokens, in place of the text. */
  readonly tokenData: readonly number[] | undefined
  readonly maxThinkingTokens: number | undefined
  readonly cacheSalt: string | undefined
  readonly extraFields: readonly string[]
  /** Members of `routing` that the body asks for. */
  readonly routing: JsonObject
  /** Latency targets of the request. */
  readonly router: JsonObject | undefined
  readonly requestTimestampMs: number | undefined
  readonly metadataUpload: JsonObject | undefined
  /** Members that nobody knows here: one line each for the client. */
  readonly warnings: readonly string[]
}

/** Members that are warned of at most. */
const warningsMax = 8

const nothing: Extension = {
  annotations: [], tokenData: undefined, maxThinkingTokens: undefined, cacheSalt: undefined, extraFields: [], routing: {}, router: undefined,
  requestTimestampMs: undefined, metadataUpload: undefined, warnings: [],
}

/** Unknown members are passed over, with a warning. Errors: 400 for a wrong type or value. */
export function readExtension(body: Fields, vocabularySize: number): Extension {
  const fields = body.group('nvext')
  if (fields === undefined) return nothing
  fields.boolean('greed_sampling')
  fields.boolean('use_raw_prompt')
  return {
    annotations: fields.texts('annotations') ?? [],
    tokenData: fields.tokenIds('token_data', vocabularySize),
    maxThinkingTokens: fields.integer('max_thinking_tokens', u32),
    cacheSalt: fields.text('cache_salt'),
    extraFields: fields.texts('extra_fields') ?? [],
    routing: readRouting(fields),
    router: readTargets(fields),
    requestTimestampMs: fields.number('request_timestamp_ms', { min: 0 }),
    metadataUpload: readUpload(fields),
    warnings: warningsOf(fields),
  }
}

function warningsOf(fields: Fields): readonly string[] {
  const unknown = Object.keys(fields.object).filter((name) => !members.includes(name))
  // A header takes printable ASCII only.
  return unknown.slice(0, warningsMax).map((name) => `nvext.${name.slice(0, 60).replace(/[^ -~]/g, '?')} is not known and passed over${formerMembers[name] === undefined ? '' : `; ${formerMembers[name]}`}`)
}

function readRouting(fields: Fields): JsonObject {
  const routing: Record<string, Json> = {}
  for (const name of ['backend_instance_id', 'prefill_worker_id', 'decode_worker_id']) put(routing, name, fields.wide(name, 0n, u64Max))
  for (const name of ['dp_rank', 'prefill_dp_rank']) put(routing, name, fields.integer(name, u32))
  const hints = fields.group('agent_hints')
  if (hints !== undefined) {
    put(routing, 'expected_output_tokens', hints.integer('osl', u32))
    put(routing, 'strict_priority', hints.integer('strict_priority', u32))
    const priority = hints.integer('priority', i32)
    put(routing, 'priority', priority)
    // The older hint counted seconds of head start; a priority replaces it.
    put(routing, 'priority_jump', priority ?? hints.number('latency_sensitivity'))
    hints.boolean('speculative_prefill')
  }
  put(routing, 'routing_constraints', readConstraints(fields))
  return routing
}

function readConstraints(fields: Fields): JsonObject | undefined {
  const group = fields.group('routing_constraints')
  if (group === undefined) return undefined
  const constraints: Record<string, Json> = {}
  const required = group.texts('required_taints') ?? []
  if (required.length > 0) constraints['required_taints'] = required
  const preferred = group.group('preferred_taints')
  if (preferred !== undefined) {
    const weights: [string, Json][] = Object.keys(preferred.object).map((taint) => [taint, preferred.float32(taint) ?? 0])
    if (weights.length > 0) constraints['preferred_taints'] = Object.fromEntries(weights)
  }
  return Object.keys(constraints).length === 0 ? undefined : constraints
}

function readTargets(fields: Fields): JsonObject | undefined {
  const group = fields.group('router')
  if (group === undefined) return undefined
  const targets: Record<string, Json> = {}
  put(targets, 'ttft_target', group.number('ttft_target', { min: 0 }))
  put(targets, 'itl_target', group.number('itl_target', { min: 0 }))
  return Object.keys(targets).length === 0 ? undefined : targets
}

function readUpload(fields: Fields): JsonObject | undefined {
  const group = fields.group('metadata_upload')
  if (group === undefined) return undefined
  const url = group.text('url')
  if (url === undefined) throw group.wrong('url', 'must be the address to upload to', undefined)
  return { url }
}

function put(target: Record<string, Json>, name: string, value: Json | undefined): void {
  if (value !== undefined) target[name] = value
}
