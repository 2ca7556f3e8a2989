/** Goal: requests that wait in the router are answered in order, refused with the right class, and never lost. Method: scripted workers on loopback. */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { decodeBody, type WireValue } from '../src/dynamo/wire/body.ts'
import { encodeData } from '../src/dynamo/wire/items.ts'
import type { RequestHandler } from '../src/ports.ts'
import { failureOf, plainCard, prefillEndpoint, SmallDeployment } from './standalone-kit.ts'
import { until } from './until.ts'

let small: SmallDeployment
beforeEach(() => { small = new SmallDeployment() })
afterEach(() => small.close())

const endpoint = 'dynamo.router.generate'
const ask = (length: number, more: Record<string, WireValue> = {}): WireValue => ({ token_ids: Array.from({ length }, (_, index) => 1000 * length + index), stop_conditions: { max_tokens: 1 }, ...more })
const lengthsOf = (seen: readonly { readonly body: Uint8Array; readonly codec: 'msgpack' | 'json' }[]): number[] =>
  seen.map(({ body, codec }) => (decodeBody(body, codec) as { token_ids: readonly number[] }).token_ids.length)

/** A worker that answers one request whenever it is told to, the oldest first. */
function gated(): { readonly handler: RequestHandler; next(): void } {
  const open: (() => void)[] = []
  return {
    handler: (request, response) => {
      open.push(() => {
        response.writeItem(encodeData({ token_ids: [1], finish_reason: 'length' }, request.codec))
        response.end()
      })
    },
    next: () => open.shift()?.(),
  }
}

const threshold = ['--router-queue-threshold', '0', '--no-router-kv-events'] as const

test('requests wait for room and go by their priority; the wait counts against no limit of the worker', async () => {
  const gate = gated()
  const worker = await small.worker(gate.handler)
  const { service } = await small.router([...threshold, '--first-output-timeout', '1'])
  const parked = (): number => service.workers.router?.parkedCount ?? 0
  const calls = [small.call(endpoint, ask(40))]
  await until('the first is at the worker', () => worker.seen.length === 1)
  for (const [length, routing] of [[41, {}], [42, { priority_jump: 60 }], [43, { strict_priority: 1 }]] as const) {
    calls.push(small.call(endpoint, ask(length, { routing })))
    await until(`${length} waits`, () => parked() === calls.length - 1)
  }
  for (let done = 1; done <= 4; done += 1) {
    // Each stays for most of the limit: together they are far beyond it.
    const beforeMs = small.clock.nowMs()
    await until('most of the limit', () => small.clock.nowMs() - beforeMs > 450)
    gate.next()
    if (done < 4) await until('the next is at the worker', () => worker.seen.length === done + 1)
  }
  const answers = await Promise.all(calls)
  assert.deepEqual(lengthsOf(worker.seen), [40, 43, 42, 41])
  const timings = answers.map((values) => (values.at(-1) as { routing_data: { timing: Record<string, number> } }).routing_data.timing)
  assert.deepEqual(timings.map((timing) => timing['router_queue_depth']), [0, 0, 1, 2])
  assert.ok(timings[1]!['prefill_wait_time_ms']! > 1200 && timings[1]!['prefill_time_ms']! < 1000, JSON.stringify(timings[1]))
  assert.equal(service.workers.router?.bookingCount, 0)
})

test('a caller that leaves the queue is gone from it, and nothing is sent for it', async () => {
  const gate = gated()
  const worker = await small.worker(gate.handler)
  const { service } = await small.router(threshold)
  const first = small.call(endpoint, ask(40))
  await until('the first is at the worker', () => worker.seen.length === 1)
  const leave = new AbortController()
  const left = failureOf(small.call(endpoint, ask(41), { signal: leave.signal }))
  await until('it waits', () => service.workers.router?.parkedCount === 1)
  leave.abort()
  assert.equal((await left).class, 'Cancelled')
  await until('the queue is empty', () => service.workers.router?.parkedCount === 0)
  gate.next()
  await first
  await until('nothing is open', () => service.generate.activeCount === 0)
  assert.equal(worker.seen.length, 1)
})

test('too long a wait is a deadline that is exceeded; no worker left is unavailable at once', async () => {
  const gate = gated()
  const worker = await small.worker(gate.handler)
  const { service } = await small.router([...threshold, '--router-queue-timeout', '0.5'])
  const first = failureOf(small.call(endpoint, ask(40)))
  await until('the first is at the worker', () => worker.seen.length === 1)
  const late = await failureOf(small.call(endpoint, ask(41)))
  assert.deepEqual([late.class, late.reason], ['DeadlineExceeded', 'router.queue_deadline_exceeded'])
  const stranded = failureOf(small.call(endpoint, ask(42)))
  await until('it waits', () => service.workers.router?.parkedCount === 1)
  await worker.leave()
  assert.equal((await stranded).class, 'Unavailable')
  assert.equal((await first).class, 'Unavailable')
})

test('what waits when the router drains is told that it is unavailable, what runs may finish', async () => {
  const gate = gated()
  const worker = await small.worker(gate.handler)
  const { service } = await small.router(threshold)
  const first = small.call(endpoint, ask(40))
  await until('the first is at the worker', () => worker.seen.length === 1)
  const waiting = failureOf(small.call(endpoint, ask(41)))
  await until('it waits', () => service.workers.router?.parkedCount === 1)
  const drained = service.drain()
  assert.deepEqual([(await waiting).class, worker.seen.length], ['Unavailable', 1])
  gate.next()
  assert.equal((await first).length, 1)
  await drained
})

test('with two stages the prompt waits for a prefill worker, and a caller may leave meanwhile', async () => {
  const gate = gated()
  const prefill = await small.worker(gate.handler, { endpoint: prefillEndpoint, card: plainCard({ worker_type: 'prefill', needs: [['decode']], model_type: '' }) })
  const decode = await small.worker((request, response) => {
    response.writeItem(encodeData({ token_ids: [2], finish_reason: 'length' }, request.codec))
    response.end()
  }, { card: plainCard({ worker_type: 'decode', needs: [['prefill']] }) })
  const { service } = await small.router([...threshold, '--prefill-endpoint', 'dynamo.prefill.generate'])
  await until('both are known', () => service.prefill?.router?.workerCount === 1 && service.workers.router?.workerCount === 1)
  const first = small.call(endpoint, ask(40))
  await until('the first is at the prefill worker', () => prefill.seen.length === 1)
  const leave = new AbortController()
  const left = failureOf(small.call(endpoint, ask(41), { signal: leave.signal }))
  await until('it waits', () => service.prefill?.router?.parkedCount === 1)
  leave.abort()
  await left
  await until('the queue is empty', () => service.prefill?.router?.parkedCount === 0)
  const timedOut = small.call(endpoint, ask(42))
  await until('another waits', () => service.prefill?.router?.parkedCount === 1)
  gate.next()
  await first
  await until('the other is at the prefill worker', () => prefill.seen.length === 2)
  gate.next()
  await timedOut
  assert.deepEqual(lengthsOf(prefill.seen), [40, 42])
  assert.ok(decode.seen.length <= 2)
  await until('nothing is booked', () => service.prefill?.router?.bookingCount === 0 && service.workers.router?.bookingCount === 0)
})
