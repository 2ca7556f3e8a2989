/** Values through a request handler of this process: order, ends, failures, cancellation and back-pressure. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeBody, type WireValue } from '../dynamo/wire/body.ts'
import { encodeData, encodeFailureItem } from '../dynamo/wire/items.ts'
import { FailureError } from '../model/failure.ts'
import type { IncomingRequest, ResponseWriter } from '../ports.ts'
import { systemClock } from '../system-ports.ts'
import { callInProcess, valueWriterOf } from './in-process-call.ts'

const lost = { class: 'Unavailable', reason: 'backend.disconnected', message: 'gone' } as const
const run = (handle: (request: IncomingRequest, response: ResponseWriter) => void, signal = new AbortController().signal): AsyncGenerator<WireValue> =>
  callInProcess(handle, { token_ids: [1, 2], big: 2n ** 60n }, { id: 'a', headers: {}, metadata: { k: 'v' }, signal }, systemClock(), 'msgpack')
const item = (value: WireValue): Uint8Array => encodeData(value, 'msgpack')

test('outputs come in order, binary stays binary, and the request is MessagePack', async () => {
  const seen: WireValue[] = []
  for await (const value of run((request, response) => {
    assert.deepEqual(decodeBody(request.body, request.codec), { token_ids: [1, 2], big: 2n ** 60n })
    assert.deepEqual(request.metadata, { k: 'v' })
    response.writeItem(item({ token_ids: [7] }))
    response.writeItem(item({ raw: Uint8Array.of(1) }))
    response.end()
  })) seen.push(value)
  assert.deepEqual(seen, [{ token_ids: [7] }, { raw: Uint8Array.of(1) }])
})

test('failures keep their class: of the handler, inside the stream, and of a broken stream', async () => {
  const collect = async (handle: (request: IncomingRequest, response: ResponseWriter) => void): Promise<unknown> => {
    try {
      for await (const value of run(handle)) void value
    } catch (error) {
      return (error as FailureError).failure
    }
    return null
  }
  assert.deepEqual(await collect((_request, response) => response.fail(lost)), lost)
  const inside = await collect((_request, response) => { response.writeItem(item({})); response.writeItem(encodeFailureItem(lost, 'msgpack')) }) as { readonly class: string }
  assert.equal(inside.class, 'Unavailable')
  const broken = await collect((_request, response) => response.abort()) as { readonly class: string }
  assert.equal(broken.class, 'Cancelled')
})

test('leaving the iteration or aborting cancels the request once', async () => {
  for (const leave of [true, false]) {
    const cancels: string[] = []
    const controller = new AbortController()
    const handle = (_request: IncomingRequest, response: ResponseWriter): void => {
      response.onCancel = (kind) => cancels.push(kind)
      response.writeItem(item({ token_ids: [1] }))
    }
    try {
      for await (const value of run(handle, controller.signal)) {
        void value
        if (leave) break
        controller.abort()
      }
    } catch (error) {
      assert.equal((error as FailureError).failure.class, 'Cancelled')
    }
    assert.deepEqual(cancels, ['disconnect'])
  }
})

test('a slow reader pauses the source and lets it go on', async () => {
  let drained = 0
  let more = true
  let written = 0
  const handle = (_request: IncomingRequest, response: ResponseWriter): void => {
    response.onDrain = () => { drained += 1; response.end() }
    while (more && written < 1000) { more = response.writeItem(item({ n: written })); written += 1 }
  }
  let read = 0
  for await (const value of run(handle)) { assert.deepEqual(value, { n: read }); read += 1 }
  assert.deepEqual([written, read, drained], [64, 64, 1])
})

test('a handler may answer in values, between encoded items, and read the request without its bytes', async () => {
  const seen: WireValue[] = []
  for await (const value of run((request, response) => {
    assert.deepEqual(request.value, { token_ids: [1, 2], big: 2n ** 60n })
    response.writeItem(item({ token_ids: [7] }))
    valueWriterOf(response)?.writeValue({ token_ids: [8], finish_reason: null })
    response.writeItem(item({ token_ids: [9] }))
    response.end()
  })) seen.push(value)
  assert.deepEqual(seen, [{ token_ids: [7] }, { token_ids: [8], finish_reason: null }, { token_ids: [9] }])
})
