/** Goal: typed endpoints keep pace with slow readers, end on every signal and say what they cannot write or read. */
import { setTimeout as delay } from 'node:timers/promises'
import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { FailureError, type Failure } from '../model/failure.ts'
import type { InstanceRecord } from '../ports.ts'
import { silentLog, systemClock } from '../../test/request-plane-kit.ts'
import { callStream, serveStream, type ItemForm, type StreamHandler } from './endpoint.ts'
import { createTcpRequestClient, type TcpRequestClient } from './request-plane/tcp-client.ts'
import { createTcpRequestServer, type TcpRequestServer } from './request-plane/tcp-server.ts'
import type { WireValue } from './wire/body.ts'
import { until } from '../../test/until.ts'

const endpoint = { namespace: 'test', component: 'backend', endpoint: 'generate' }
const cleanup: (() => Promise<void>)[] = []

afterEach(async () => {
  for (const end of cleanup.splice(0)) await end()
})

async function pair(handler: StreamHandler, form: ItemForm = {}): Promise<{ client: TcpRequestClient; server: TcpRequestServer; instance: InstanceRecord }> {
  const parts = { clock: systemClock, log: silentLog, host: '127.0.0.1' }
  const server = createTcpRequestServer(parts)
  const client = createTcpRequestClient(parts)
  const signal = AbortSignal.timeout(5000)
  await server.start(signal)
  await client.start(signal)
  cleanup.push(() => client.close(), () => server.close())
  const { transport } = serveStream(server, endpoint, 1n, handler, form)
  return { client, server, instance: { ...endpoint, instanceId: 1n, transport, codec: 'msgpack', deviceType: null } }
}

async function failureOf(values: AsyncIterable<WireValue>): Promise<Failure | null> {
  try {
    for await (const _value of values);
    return null
  } catch (error) {
    if (error instanceof FailureError) return error.failure
    throw error
  }
}

test('a slow reader holds the generator back and misses nothing', async () => {
  let made = 0
  const { client, instance } = await pair(async function* () {
    for (; made < 400; made += 1) yield { index: made, fill: 'x'.repeat(50_000) }
  })
  const values = callStream(client, instance, null)
  await values.next()
  let seen = -1
  await until(async () => {
    await delay(50)
    const still = made === seen
    seen = made
    return still
  })
  assert.ok(made < 400, `${made} values were made for a reader that took one`)
  let expected = 1
  for await (const value of values) {
    assert.equal((value as { index: number }).index, expected)
    expected += 1
  }
  assert.equal(expected, 400)
})

test('stop lets the worker end, abort ends at once', async () => {
  const { client, server, instance } = await pair(async function* (_request, context) {
    for (;;) {
      yield 1
      await new Promise((resolve) => setImmediate(resolve))
      if (context.isStopped()) return
    }
  })
  for (const option of ['signal', 'stopSignal'] as const) {
    const controller = new AbortController()
    const values = callStream(client, instance, null, { [option]: controller.signal })
    await values.next()
    controller.abort()
    const failure = await failureOf(values)
    assert.equal(failure?.reason, 'request.cancelled', option)
  }
  await until(() => server.stats().openStreams === 0)
  await assert.rejects(callStream(client, instance, null, { signal: AbortSignal.abort(new Error('before')) }).next(), /before/)
})

test('values that cannot be written, bodies that cannot be read', async () => {
  const { client, server, instance } = await pair(async function* (request) { yield request === 1 ? (1n << 80n) : 'fine' })
  assert.deepEqual((await failureOf(callStream(client, instance, 1)))?.reason, 'runtime.unclassified')
  assert.equal(await failureOf(callStream(client, instance, 2)), null)
  let failure: Failure | null = null
  client.call(instance, { id: 'x', codec: 'msgpack', body: [Uint8Array.of(0xc1)] }, { onFrame() {}, onEnd() {}, onFail: (told) => { failure = told } })
  await until(() => failure !== null)
  assert.match((failure as Failure | null)?.message ?? '', /^request body: not a MessagePack document/)
  await until(() => server.stats().openStreams === 0)
})

test('without annotations an exception breaks the stream', async () => {
  const { client, instance } = await pair(async function* () {
    yield 1
    throw new Error('no form for this')
  }, { annotated: false })
  assert.equal((await failureOf(callStream(client, instance, null, { annotated: false })))?.reason, 'transport.disconnected')
})

test('an item of another form is a protocol failure and kills the call', async () => {
  const { client, server, instance } = await pair(async function* () {
    yield 5
    await new Promise(() => undefined)
  }, { annotated: false })
  assert.equal((await failureOf(callStream(client, instance, null)))?.reason, 'backend.protocol')
  await until(() => server.stats().openStreams === 0)
})
