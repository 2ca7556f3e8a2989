/** Goal: recorded exchanges with real Dynamo 1.6.1 processes are understood and written byte for byte. Method: decode, re-encode, compare; whole and cut at every offset. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { fixturePath } from '../../../test/repo-root.ts'
import type { Codec } from '../../ports.ts'
import { decodeBody, encodeBody, type WireObject } from './body.ts'
import { instancePath, parseTcpAddress } from './endpoint-path.ts'
import { decodeControlWord, decodeEnvelope, decodeHandshake, decodePrologue, encodeControl, encodeHandshake, goodPrologue, killMessage, sentinel, stopMessage } from './envelope.ts'
import { failureFromWire, failureToWire } from './errors.ts'
import { AckAssembler, decodeAck, decodeRequestFrame, decodeTwoPart, encodeAck, encodeRequestHead, encodeTwoPart, RequestFrameAssembler, TwoPartAssembler } from './frames.ts'
import { decodeInstanceRecord, encodeInstanceRecord } from './instance-record.ts'
import { decodeItem, finalFrame, isFinalFrame, readAnnotated } from './items.ts'
import { isObject, parseJson, stringifyJson } from './json.ts'

interface Recorded {
  readonly tag: string
  readonly hex: string
}

const exchanges = readdirSync(fixturePath('wire')).filter((name) => name.startsWith('tcp-'))
const recordedIn = (name: string): readonly Recorded[] => JSON.parse(readFileSync(fixturePath('wire', name), 'utf8')) as Recorded[]
const bytesOf = (entry: Recorded): Uint8Array => Buffer.from(entry.hex, 'hex')
const isRequest = (entry: Recorded): boolean => entry.tag === 'req->worker' || entry.tag === 'req<-client'
const isStream = (entry: Recorded): boolean => /^(resp|ctl)/.test(entry.tag)
const golden = JSON.parse(readFileSync(fixturePath('wire', 'golden-vectors.json'), 'utf8')) as {
  two_part: Record<'sentinel' | 'stop' | 'kill' | 'prologue_ok' | 'header_and_body' | 'final_msgpack' | 'final_json', string>
  tcp_request: { path: string; headers: Record<string, string>; payload_hex: string; frame: string }
  tcp_ack: { empty: string; overloaded: string }
  instance_path: [{ ns: string; comp: string; ep: string; iid: string }, string][]
}

type Assembler = { push(chunk: Uint8Array, sink: (frame: Uint8Array) => void): void }

/** The frames of a stream that comes in these chunks. */
function framesOf(assembler: Assembler, chunks: Iterable<Uint8Array>): string[] {
  const frames: string[] = []
  for (const chunk of chunks) assembler.push(chunk, (frame) => frames.push(Buffer.from(frame).toString('hex')))
  return frames
}

function* eachByte(stream: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < stream.length; at += 1) yield stream.subarray(at, at + 1)
}

function assertCutsAgree(create: () => Assembler, parts: readonly Uint8Array[]): void {
  const stream = Buffer.concat(parts)
  const expected = parts.map((part) => Buffer.from(part).toString('hex'))
  for (let cut = 0; cut <= stream.length; cut += 1) assert.deepEqual(framesOf(create(), [stream.subarray(0, cut), stream.subarray(cut)]), expected, `cut at ${cut}`)
  assert.deepEqual(framesOf(create(), eachByte(stream)), expected, 'byte by byte')
}

for (const name of exchanges) {
  test(`${name}: frames are found however the stream is cut`, () => {
    const entries = recordedIn(name)
    assertCutsAgree(() => new RequestFrameAssembler(), entries.filter(isRequest).map(bytesOf))
    assertCutsAgree(() => new TwoPartAssembler(1 << 20), entries.filter(isStream).map(bytesOf))
    assertCutsAgree(() => new AckAssembler(), entries.filter(({ tag }) => tag === 'ack').map((entry) => encodeAck(bytesOf(entry).toString())))
  })

  test(`${name}: requests are written as they were read`, () => {
    for (const entry of recordedIn(name).filter(isRequest)) {
      const recorded = bytesOf(entry)
      const frame = decodeRequestFrame(recorded)
      assert.equal(frame.headers['x-endpoint-path'], frame.path)
      const { control, body, fault } = decodeEnvelope(frame.payload)
      assert.equal(fault, null)
      assert.equal(control.id, frame.headers['request-id'])
      const { id, callHome, metadata } = control
      const codec = control.codec as Codec
      const payload = encodeTwoPart(encodeControl({ id, codec, address: callHome.address, subject: callHome.subject, metadata }), encodeBody(decodeBody(body, codec), codec))
      assert.deepEqual(Buffer.concat([encodeRequestHead(frame.path, frame.headers, payload.length), payload]).toString('hex'), entry.hex)
    }
  })

  test(`${name}: response messages are written as they were read`, () => {
    let codec: Codec = 'json'
    for (const entry of recordedIn(name)) {
      if (isRequest(entry)) codec = decodeEnvelope(decodeRequestFrame(bytesOf(entry)).payload).control.codec as Codec
      if (!isStream(entry)) continue
      const written = rewritten(bytesOf(entry), codec)
      if (entry.hex.includes(wholeFloat)) assert.deepEqual(decodeBody(decodeTwoPart(written).body, codec), decodeBody(decodeTwoPart(bytesOf(entry)).body, codec))
      else assert.equal(Buffer.from(written).toString('hex'), entry.hex, entry.tag)
    }
  })
}

/** 0.0 as a 64-bit float: a value does not know that it was one, and is written as an integer. */
const wholeFloat = 'cb0000000000000000'

/** A message decoded to its meaning and encoded again. */
function rewritten(message: Uint8Array, codec: Codec): Uint8Array {
  const { header, body } = decodeTwoPart(message)
  if (body.length > 0) return encodeTwoPart(header, rewrittenItem(body, codec))
  const word = decodeControlWord(header)
  if (word !== null) return { sentinel, stop: stopMessage, kill: killMessage }[word]
  const text = Buffer.from(header).toString()
  if (text.startsWith('{"subject"')) return encodeHandshake(decodeHandshake(header))
  const failure = decodePrologue(header)
  if (failure === null) return goodPrologue
  assert.deepEqual([failure.class, failure.reason], ['Unavailable', 'transport.cannot_connect'])
  return encodeTwoPart(stringifyJson({ error: failure.message.replace('Worker generate() failed before response stream: ', '') }), '')
}

function rewrittenItem(body: Uint8Array, codec: Codec): Uint8Array {
  const { data, final } = decodeItem(body, codec)
  assert.equal(isFinalFrame(body, codec), final)
  const wrapper = decodeBody(body, codec) as WireObject
  const item = isObject(data) ? readAnnotated(data) : null
  if (item?.event === 'error') assert.notEqual(item.failure, null)
  const error = isObject(data) ? data.error : undefined
  if (error === undefined) return encodeBody(wrapper, codec)
  return encodeBody({ ...wrapper, data: { ...(data as WireObject), error: failureToWire(failureFromWire(error)) } }, codec)
}

test('the golden vectors are read and written', () => {
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')
  const vectors = golden.two_part
  assert.deepEqual(
    [sentinel, stopMessage, killMessage, goodPrologue, encodeTwoPart('ab', 'xyz'), finalFrame('msgpack'), finalFrame('json')].map(hex),
    [vectors.sentinel, vectors.stop, vectors.kill, vectors.prologue_ok, vectors.header_and_body, vectors.final_msgpack, vectors.final_json],
  )
  const { path, headers, payload_hex: payload, frame } = golden.tcp_request
  assert.equal(hex(encodeRequestHead(path, headers, payload.length / 2)) + payload, frame)
  assert.deepEqual(decodeRequestFrame(Buffer.from(frame, 'hex')), { path, headers, payload: Buffer.from(payload, 'hex') })
  assert.equal(hex(encodeAck('')), golden.tcp_ack.empty)
  assert.equal(hex(encodeAck('Server overloaded: worker at capacity')), golden.tcp_ack.overloaded)
  assert.equal(decodeAck(Buffer.from(golden.tcp_ack.overloaded, 'hex')), 'Server overloaded: worker at capacity')
  for (const [{ ns, comp, ep, iid }, expected] of golden.instance_path) {
    assert.equal(instancePath({ namespace: ns, component: comp, endpoint: ep }, BigInt(`0x${iid}`)), expected)
  }
})

test('every error that a Python handler can raise keeps its identity', () => {
  const cases = parseJson(readFileSync(fixturePath('wire', 'python-exception-mapping.json'), 'utf8')) as Record<string, readonly [{ error: WireObject }]>
  assert.equal(Object.keys(cases).length, 19)
  for (const [name, [item]] of Object.entries(cases)) {
    const failure = failureFromWire(item.error)
    assert.deepEqual([failure.class, failure.reason, failure.message], [item.error.class, item.error.reason, item.error.message], name)
    assert.equal(stringifyJson(failureToWire(failure)), stringifyJson(item.error), name)
  }
})

test('endpoint records of a real store are read and written', () => {
  const files = (JSON.parse(readFileSync(fixturePath('wire', 'file-store-snapshot.json'), 'utf8')) as { file: string; content: string }[]).filter(({ file }) => file.startsWith('v1/instances/'))
  assert.notEqual(files.length, 0)
  for (const { content } of files) {
    const record = decodeInstanceRecord(parseJson(content))
    assert.equal(stringifyJson(encodeInstanceRecord(record)), content)
    assert.ok('tcp' in record.transport)
    assert.equal(parseTcpAddress(record.transport.tcp).path, instancePath(record, record.instanceId))
  }
})
