/**
 * The request envelope (one two-part message: control JSON and body), and the header-only messages of a response stream:
 * handshake, prologue, sentinel, stop, kill. Source: Dynamo 1.6.1 network pipeline.
 */
import type { Failure } from '../../model/failure.ts'
import type { Codec } from '../../ports.ts'
import { failureFromWire, failureToWire } from './errors.ts'
import { decodeStringMap, decodeTwoPart, encodeTwoPart, headerBytes, twoPartPrefixBytes } from './frames.ts'
import { isObject, parseJson, parseJsonBytes, stringifyJson } from './json.ts'
import { malformed, WireError } from './wire-error.ts'

/** Bytes of control JSON at most. */
export const controlBytesMax = 131_072

/** Where a server is to open the response stream. */
export interface CallHome {
  /** `tcp_server`, or another response plane that cannot be answered. */
  readonly transport: string
  readonly address: string
  readonly subject: string
  readonly context: string
}

/** The control header of a request. `codec` is null for a name that is not known. */
export interface ControlHeader {
  readonly id: string
  readonly requestType: string
  readonly codec: Codec | null
  readonly callHome: CallHome
  readonly metadata: Readonly<Record<string, string>>
}

/** A request payload. `fault`: the control header could be read, but the request cannot be served; the body is empty then. */
export interface RequestEnvelope {
  readonly control: ControlHeader
  readonly body: Uint8Array
  readonly fault: Failure | null
}

/**
 * Reads a request payload; the body is a view.
 *
 * Errors: `WireError` when the control header is not readable, so that nobody can be told.
 */
export function decodeEnvelope(payload: Uint8Array): RequestEnvelope {
  const size = headerBytes(payload)
  if (size > controlBytesMax) throw new WireError('oversized', `control header of ${size} bytes, at most ${controlBytesMax} are taken`)
  const control = decodeControl(payload.subarray(twoPartPrefixBytes, twoPartPrefixBytes + size))
  const fault = faultOf(control)
  if (fault !== null) return { control, body: payload.subarray(payload.length), fault }
  try {
    return { control, body: decodeTwoPart(payload).body, fault: null }
  } catch (error) {
    const message = `request payload: ${error instanceof Error ? error.message : String(error)}`
    return { control, body: payload.subarray(payload.length), fault: { class: 'InvalidRequest', reason: 'request.invalid', message } }
  }
}

function faultOf(control: ControlHeader): Failure | null {
  if (control.requestType === 'many_in') return { class: 'NotImplemented', reason: 'runtime.not_implemented', message: 'bidirectional streaming (request_type many_in) is not served here' }
  if (control.requestType !== 'single_in') return { class: 'InvalidRequest', reason: 'request.invalid', message: `request_type ${JSON.stringify(control.requestType.slice(0, 64))} is not known` }
  if (control.codec === null) return { class: 'InvalidRequest', reason: 'request.invalid', message: 'payload_codec is neither msgpack nor json' }
  if (control.callHome.context !== control.id) return { class: 'InvalidRequest', reason: 'request.invalid', message: 'connection_info.context differs from the request id' }
  return null
}

function decodeControl(bytes: Uint8Array): ControlHeader {
  const value = parseJsonBytes(bytes)
  if (!isObject(value)) throw malformed('control header: expected an object')
  const { id, request_type: requestType, payload_codec: codec, connection_info: connection, metadata } = value
  if (typeof id !== 'string') throw malformed('control header: id is not a string')
  return {
    id,
    requestType: typeof requestType === 'string' ? requestType : '',
    codec: codec === undefined || codec === null ? 'json' : codec === 'msgpack' || codec === 'json' ? codec : null,
    callHome: decodeCallHome(connection),
    metadata: metadata === undefined || metadata === null ? {} : decodeStringMap(metadata, 'metadata'),
  }
}

function decodeCallHome(connection: unknown): CallHome {
  if (!isObject(connection) || typeof connection.transport !== 'string' || typeof connection.info !== 'string') throw malformed('control header: connection_info is missing or malformed')
  const { transport } = connection
  if (transport !== 'tcp_server') return { transport, address: '', subject: '', context: '' }
  const info = parseJson(connection.info)
  if (!isObject(info) || typeof info.address !== 'string' || typeof info.subject !== 'string' || typeof info.context !== 'string') throw malformed('control header: connection_info.info lacks address, subject or context')
  return { transport, address: info.address, subject: info.subject, context: info.context }
}

/** What a caller says of a request, apart from its body. */
export interface ControlFields {
  readonly id: string
  readonly codec: Codec
  readonly address: string
  readonly subject: string
  readonly metadata?: Readonly<Record<string, string>> | undefined
}

/** The control JSON of a plain request (one request in, many items out), in Dynamo's field order. */
export function encodeControl(fields: ControlFields): string {
  const info = JSON.stringify({ address: fields.address, subject: fields.subject, context: fields.id, stream_type: 'response' })
  let hasMetadata = false
  for (const _key in fields.metadata) hasMetadata = true
  return JSON.stringify({
    id: fields.id,
    request_type: 'single_in',
    response_type: 'many_out',
    payload_codec: fields.codec,
    connection_info: { transport: 'tcp_server', info },
    ...(hasMetadata ? { metadata: fields.metadata } : {}),
  })
}

// ---- Header-only messages of a response stream -----------------------------------------------------------------------------

/** The first message of a response stream, from the server. */
export function encodeHandshake(subject: string): Uint8Array {
  return encodeTwoPart(JSON.stringify({ subject, stream_type: 'response' }), '')
}

/** The subject of a handshake. Errors: `WireError`. */
export function decodeHandshake(header: Uint8Array): string {
  const value = parseJsonBytes(header)
  if (!isObject(value) || typeof value.subject !== 'string') throw malformed('handshake without a subject')
  if (value.stream_type !== 'response') throw malformed('handshake of another stream type than response')
  return value.subject
}

/** Prologue of a good stream. Shared: must not be changed. */
export const goodPrologue: Uint8Array = encodeTwoPart('{"error":null}', '')

/** The server's last message. Shared: must not be changed. */
export const sentinel: Uint8Array = encodeTwoPart('"sentinel"', '')

/** The caller asks for a graceful end. Shared: must not be changed. */
export const stopMessage: Uint8Array = encodeTwoPart('"stop"', '')

/** The caller ends the work at once. Shared: must not be changed. */
export const killMessage: Uint8Array = encodeTwoPart('"kill"', '')

/** Prologue of a stream that failed before its first item. */
export function encodeFailedPrologue(failure: Failure): Uint8Array {
  return encodeTwoPart(stringifyJson({ error: failure.message, typed_error: failureToWire(failure) }), '')
}

/** The failure of a prologue, or null for a good one. Errors: `WireError` when it is no prologue. */
export function decodePrologue(header: Uint8Array): Failure | null {
  const value = parseJsonBytes(header)
  if (!isObject(value)) throw malformed('prologue: expected an object')
  if (value.typed_error !== undefined && value.typed_error !== null) return failureFromWire(value.typed_error)
  if (value.error === undefined || value.error === null) return null
  const text = typeof value.error === 'string' ? value.error : 'unknown error'
  return { class: 'Unavailable', reason: 'transport.cannot_connect', message: `Worker generate() failed before response stream: ${text}` }
}

/** The word of a control message (`sentinel`, `stop`, `kill`), or null for anything else. */
export function decodeControlWord(header: Uint8Array): 'sentinel' | 'stop' | 'kill' | null {
  if (header.length === 10) return isWord(header, '"sentinel"') ? 'sentinel' : null
  if (header.length !== 6) return null
  return isWord(header, '"stop"') ? 'stop' : isWord(header, '"kill"') ? 'kill' : null
}

function isWord(header: Uint8Array, word: string): boolean {
  for (let index = 0; index < word.length; index += 1) if (header[index] !== word.charCodeAt(index)) return false
  return true
}
