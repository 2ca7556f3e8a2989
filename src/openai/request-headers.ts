/** What the headers of a request say: identity, metadata, session, and hints that override the body's. Malformed hints are passed over, as in Dynamo. */
import type { IncomingHttpHeaders } from 'node:http'
import type { Json, JsonObject } from '../ports.ts'
import { ApiError } from './api-error.ts'

export const metadataPrefixDefault = 'x-dynamo-meta-'
export const metadataEntriesMax = 64
export const metadataBytesMax = 64 * 1024
const sessionBytesMax = 256
const u64Max = (1n << 64n) - 1n
const unsetRank = 4_294_967_295

export interface Session {
  readonly sessionId: string
  readonly parentSessionId: string | undefined
  readonly isFinal: boolean
  /** Headers of agent programs as they came. */
  readonly agentHeaders: Readonly<Record<string, readonly string[]>>
}

export interface HeaderHints {
  /** A UUID that the client chose, else undefined. */
  readonly requestId: string | undefined
  /** Members of `routing`, stronger than the body's. */
  readonly routing: JsonObject
  /** `x-tenant-id`. */
  readonly cacheSalt: string | undefined
  readonly metadata: Readonly<Record<string, string>>
  readonly session: Session | undefined
  /** traceparent, tracestate, x-request-id: those that came. */
  readonly relayed: Readonly<Record<string, string>>
}

const uuidForm = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

/** Errors: 400 for a session id of more than 256 bytes. */
export function readHeaders(headers: IncomingHttpHeaders, metadataPrefix: string = metadataPrefixDefault): HeaderHints {
  const requestId = textOf(headers, 'x-dynamo-request-id')
  const tenants = textOf(headers, 'x-tenant-id')?.split(',').map((tenant) => tenant.trim()).filter((tenant) => tenant !== '')
  const relayed: Record<string, string> = {}
  for (const name of ['traceparent', 'tracestate', 'x-request-id']) {
    const value = textOf(headers, name)
    if (value !== undefined) relayed[name] = value
  }
  return {
    requestId: requestId !== undefined && uuidForm.test(requestId) ? requestId.toLowerCase() : undefined,
    routing: readRouting(headers),
    cacheSalt: tenants?.at(-1),
    metadata: readMetadata(headers, metadataPrefix.toLowerCase()),
    session: readSession(headers),
    relayed,
  }
}

function readRouting(headers: IncomingHttpHeaders): JsonObject {
  const routing: Record<string, Json> = {}
  const worker = unsigned(headers, u64Max, 'x-dynamo-worker-instance-id', 'x-worker-instance-id')
  if (worker !== undefined) {
    routing['backend_instance_id'] = worker
    routing['decode_worker_id'] = worker
  }
  const prefill = unsigned(headers, u64Max, 'x-dynamo-prefill-instance-id', 'x-prefill-instance-id')
  if (prefill !== undefined) routing['prefill_worker_id'] = prefill
  const rank = unsigned(headers, BigInt(unsetRank), 'x-dynamo-dp-rank', 'x-dp-rank', 'x-data-parallel-rank')
  if (rank !== undefined) routing['dp_rank'] = rank
  const prefillRank = unsigned(headers, BigInt(unsetRank), 'x-dynamo-prefill-dp-rank', 'x-prefill-dp-rank')
  if (prefillRank !== undefined && prefillRank !== unsetRank) routing['prefill_dp_rank'] = prefillRank
  const priority = textOf(headers, 'x-dynamo-request-priority')
  if (priority !== undefined && /^-?\d{1,10}$/.test(priority) && Number(priority) === (Number(priority) | 0)) {
    routing['priority'] = Number(priority)
    routing['priority_jump'] = Number(priority)
  }
  const strict = unsigned(headers, BigInt(unsetRank), 'x-dynamo-request-strict-priority')
  if (strict !== undefined) routing['strict_priority'] = strict
  return routing
}

/** The first of the names that holds an unsigned integer up to `max`; a bigint only where a number is not exact. */
function unsigned(headers: IncomingHttpHeaders, max: bigint, ...names: readonly string[]): number | bigint | undefined {
  for (const name of names) {
    const text = textOf(headers, name)
    if (text === undefined || !/^\d{1,20}$/.test(text)) continue
    const value = BigInt(text)
    if (value <= max) return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value
  }
  return undefined
}

function readMetadata(headers: IncomingHttpHeaders, prefix: string): Readonly<Record<string, string>> {
  const metadata: Record<string, string> = {}
  let entries = 0
  let bytes = 0
  for (const name of Object.keys(headers)) {
    if (!name.startsWith(prefix) || name.length === prefix.length) continue
    const key = name.slice(prefix.length)
    const value = textOf(headers, name)
    // Credentials do not travel to workers.
    if (value === undefined || key === 'authorization' || key === 'bearer' || /^bearer\s/i.test(value)) continue
    bytes += key.length + Buffer.byteLength(value)
    if (entries >= metadataEntriesMax || bytes > metadataBytesMax) break
    metadata[key] = value
    entries += 1
  }
  return metadata
}

const agentHeaderNames = [
  'x-claude-code-session-id', 'x-claude-code-agent-id', 'x-claude-code-parent-agent-id', 'thread-id', 'x-codex-parent-thread-id',
  'x-session-id', 'x-parent-session-id',
]

function readSession(headers: IncomingHttpHeaders): Session | undefined {
  const found = sessionPair(headers)
  if (found === undefined) return undefined
  for (const id of found) {
    if (id === undefined || Buffer.byteLength(id) <= sessionBytesMax) continue
    throw new ApiError({ class: 'InvalidRequest', reason: 'request.invalid', message: `the session id has ${Buffer.byteLength(id)} bytes; send at most ${sessionBytesMax}` })
  }
  const agentHeaders: Record<string, readonly string[]> = {}
  for (const name of agentHeaderNames) {
    const value = textOf(headers, name)
    if (value !== undefined) agentHeaders[name] = [value]
  }
  const final = textOf(headers, 'x-dynamo-session-final')?.toLowerCase()
  return { sessionId: found[0], parentSessionId: found[1], isFinal: final === 'true' || final === '1', agentHeaders }
}

/** Session and parent, from the first family of headers that names a session. */
function sessionPair(headers: IncomingHttpHeaders): readonly [string, string | undefined] | undefined {
  const text = (name: string): string | undefined => textOf(headers, name)
  const own = text('x-dynamo-session-id')
  if (own !== undefined) return [own, text('x-dynamo-parent-session-id')]
  const claude = text('x-claude-code-session-id')
  const agent = text('x-claude-code-agent-id')
  // An agent inside a session has a conversation of its own.
  if (agent !== undefined) return [agent, text('x-claude-code-parent-agent-id') ?? claude]
  if (claude !== undefined) return [claude, undefined]
  const thread = text('thread-id')
  if (thread !== undefined) return [thread, text('x-codex-parent-thread-id')]
  const plain = text('x-session-id')
  return plain === undefined ? undefined : [plain, text('x-parent-session-id')]
}

function textOf(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[name]
  const text = (Array.isArray(value) ? value.join(',') : value)?.trim()
  return text === '' ? undefined : text
}
