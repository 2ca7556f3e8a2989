/** Goal: whatever both sides do, and when, every call is told exactly one end and nothing stays open. Method: random acts on many calls at once. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { silentLog, systemClock } from '../../../test/request-plane-kit.ts'
import type { Failure } from '../../model/failure.ts'
import type { ResponseWriter } from '../../ports.ts'
import { encodeData } from '../wire/items.ts'
import { createTcpRequestClient } from './tcp-client.ts'
import { createTcpRequestServer } from './tcp-server.ts'
import { until } from '../../../test/until.ts'

const failure: Failure = { class: 'Unavailable', reason: 'backend.unavailable', message: 'given up' }
const endpoint = { namespace: 'n', component: 'c', endpoint: 'e' }
const item = encodeData({ token_ids: [1] }, 'msgpack')

/** A small generator of repeatable numbers in [0, limit). */
function dice(seed: number): (limit: number) => number {
  let state = seed
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * limit)
  }
}

test('1000 calls with random ends on both sides', async () => {
  const seed = 2026
  const roll = dice(seed)
  const server = createTcpRequestServer({ clock: systemClock, log: silentLog, host: '127.0.0.1' })
  const client = createTcpRequestClient({ clock: systemClock, log: silentLog, host: '127.0.0.1' })
  await server.start(AbortSignal.timeout(5000))
  await client.start(AbortSignal.timeout(5000))
  let cancels = 0
  const served = server.serve(endpoint, 1n, (_request, response) => work(response, roll(300), roll(6)))

  function work(response: ResponseWriter, items: number, end: number): void {
    let left = items
    let over = false
    response.onCancel = () => {
      assert.equal(over, false)
      over = true
      cancels += 1
    }
    const step = (): void => {
      if (over) return
      if (left > 0) {
        left -= 1
        response.writeItem(item)
        setImmediate(step)
        return
      }
      over = true
      if (end === 0) response.abort()
      else if (end === 1) response.fail(failure)
      else response.end()
    }
    step()
  }

  const ends: number[] = []
  const told = { end: 0, fail: 0 }
  const total = 1000
  const instance = { ...endpoint, instanceId: 1n, transport: served.transport, codec: 'msgpack', deviceType: null } as const
  for (let index = 0; index < total; index += 1) {
    ends[index] = 0
    const over = (kind: 'end' | 'fail'): void => {
      ends[index] = (ends[index] as number) + 1
      told[kind] += 1
    }
    const call = client.call(instance, { id: String(index), codec: 'msgpack', body: [item] }, {
      onFrame() { assert.equal(ends[index], 0) },
      onEnd() { over('end') },
      onFail() { over('fail') },
    })
    const act = roll(10)
    const acts = [(): void => call.kill(), (): void => call.stop(), (): void => call.fail(failure), (): void => { call.pause(); setTimeout(() => call.resume(), 5) }]
    const chosen = acts[act]
    if (chosen !== undefined) {
      if (roll(3) === 0) chosen()
      else setTimeout(chosen, roll(15))
    }
    if (index % 50 === 49) await until(() => client.stats().openCalls < 60)
  }
  await until(() => client.stats().openCalls === 0 && client.stats().responseStreams === 0 && server.stats().openStreams === 0)
  assert.deepEqual(ends.filter((count) => count !== 1), [], `seed ${seed}`)
  assert.equal(told.end + told.fail, total)
  assert.ok(told.end > 100 && told.fail > 100 && cancels > 20, JSON.stringify({ ...told, cancels }))
  assert.equal(served.inflight, 0)
  assert.equal(client.stats().poolFull + client.stats().unknownSubjects + server.stats().dialFailures, 0)
  await client.close()
  await server.close()
  await until(() => client.stats().connections === 0 && server.stats().connections === 0)
})
