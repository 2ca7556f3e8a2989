import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AffinityTable, type AffinityHold, type AffinityTarget, type AffinityUpdate } from './affinity-table.ts'
import { sessionKeyOf, utf8Length } from './session-key.ts'

const at = (workerId: bigint, dpRank: number | null = 0): AffinityTarget => ({ workerId, dpRank })
const tableOf = (more: { maxSessions?: number; publish?: (update: AffinityUpdate) => void; writerId?: bigint } = {}): AffinityTable =>
  new AffinityTable({ ttlMs: 1000, writerId: 1n, ...more })
const hold = (table: AffinityTable, key: string, nowMs: number, requested: AffinityTarget | null = null): AffinityHold => {
  const step = table.acquire(key, requested, nowMs)
  assert.ok(step.kind === 'hold', step.kind)
  return step.hold
}

test('the first request chooses, the others wait for it and go where it went', () => {
  const table = tableOf()
  const first = hold(table, 's', 0)
  assert.equal(first.target, null)
  const second = table.acquire('s', null, 1)
  assert.ok(second.kind === 'wait')
  let resumed = 0
  second.wait(() => { resumed += 1 })
  const stop = second.wait(() => assert.fail('ended before'))
  stop()
  first.bind(at(7n, 1), 2)
  assert.equal(resumed, 1)
  assert.deepEqual(hold(table, 's', 3).target, at(7n, 1))
})

test('a first request that ends without a choice leaves the choice to the next', () => {
  const table = tableOf()
  for (const end of ['release', 'invalidate'] as const) {
    const first = hold(table, 's', 0)
    const second = table.acquire('s', null, 0)
    let woken = false
    if (second.kind === 'wait') second.wait(() => { woken = true })
    if (end === 'release') first.release(1)
    else first.invalidate()
    assert.equal(woken, true)
    assert.equal(table.size, 0)
  }
})

test('idle time counts from the end of the last request', () => {
  const table = tableOf()
  const first = hold(table, 's', 0)
  first.bind(at(7n), 0)
  const second = hold(table, 's', 10)
  first.release(500)
  table.tick(100_000)
  assert.equal(table.size, 1, 'a request runs')
  second.release(100_000)
  assert.deepEqual(table.peek('s', null, 100_999), { target: at(7n) })
  assert.deepEqual(table.peek('s', null, 101_000), { target: null })
  assert.equal(hold(table, 's', 101_000).target, null)
})

test('a worker that the request names must be the bound one', () => {
  const table = tableOf()
  hold(table, 's', 0).bind(at(7n, 1), 0)
  const ask = (requested: AffinityTarget): string => table.acquire('s', requested, 1).kind
  assert.equal(ask(at(7n, 1)), 'hold')
  assert.equal(ask(at(7n, null)), 'hold')
  assert.equal(ask(at(8n, null)), 'conflict')
  assert.equal(ask(at(7n, 2)), 'conflict')
  assert.ok('conflict' in table.peek('s', at(8n), 1))
})

test('a session can be bound anew, unbound, and loses a worker that has gone', () => {
  const table = tableOf()
  const first = hold(table, 's', 0)
  first.bind(at(7n), 0)
  const second = hold(table, 's', 0)
  second.bind(at(8n), 1)
  assert.deepEqual(first.target, at(8n))
  assert.equal(table.dropWorker(7n), 0)
  assert.equal(table.dropWorker(8n), 1)
  first.bind(at(9n), 2)
  assert.equal(table.size, 0, 'a hold of a dropped binding binds nothing')
  first.release(3)
  second.release(3)
  assert.equal(table.size, 0)
})

test('a full table takes no further session until one has expired', () => {
  const table = tableOf({ maxSessions: 2 })
  for (const key of ['a', 'b']) {
    const each = hold(table, key, 0)
    each.bind(at(1n), 0)
    each.release(0)
  }
  assert.equal(table.acquire('c', null, 10).kind, 'full')
  assert.equal(table.apply({ sessionKey: 'd', target: at(1n), sequence: 5n, writerId: 2n }, 10), 'refused-full')
  assert.equal(table.acquire('c', null, 1000).kind, 'hold')
})

test('two replicas that tell each other everything agree', () => {
  const updates: AffinityUpdate[] = []
  const left = tableOf({ publish: (update) => updates.push(update) })
  const right = tableOf({ writerId: 2n, publish: (update) => updates.push(update) })
  const first = hold(left, 's', 0)
  first.bind(at(7n), 0)
  const other = hold(right, 's', 0)
  assert.equal(right.apply(updates[0]!, 0), 'ignored-initializing')
  other.bind(at(8n), 0)
  const told = updates.slice()
  for (const update of told) {
    left.apply(update, 1)
    right.apply(update, 1)
  }
  assert.deepEqual(left.peek('s', null, 2), { target: at(8n) })
  assert.deepEqual(right.peek('s', null, 2), { target: at(8n) })
  first.bind(at(9n), 3)
  const last = updates.at(-1)!
  assert.equal(left.apply(last, 3), 'ignored-own')
  assert.equal(right.apply(last, 3), 'replaced')
  assert.equal(right.apply(last, 4), 'refreshed')
  assert.equal(right.apply({ ...updates[0]!, target: at(5n) }, 5), 'ignored-older')
})

test('keys: siblings share one, their parent has its own; bytes, not characters', () => {
  assert.equal(sessionKeyOf('a', 'p'), sessionKeyOf('b', 'p'))
  assert.notEqual(sessionKeyOf('p', null), sessionKeyOf('a', 'p'))
  assert.notEqual(sessionKeyOf('g:p', null), sessionKeyOf('a', 'p'))
  fc.assert(fc.property(fc.string({ unit: 'grapheme' }), (text) => assert.equal(utf8Length(text), Buffer.byteLength(text))))
})

/** A straightforward model: what each session is bound to, how many requests run, when the last ended. */
test('laws: whatever happens, running requests keep their binding and nothing outlives its time', () => {
  const step = fc.record({ kind: fc.constantFrom('open', 'close', 'drop', 'wait'), key: fc.constantFrom('a', 'b', 'c'), worker: fc.bigInt({ min: 1n, max: 3n }), ms: fc.nat(700) })
  fc.assert(fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
    const table = tableOf({ maxSessions: 2 })
    const open: { readonly key: string; readonly hold: AffinityHold; isBound: boolean }[] = []
    let nowMs = 0
    for (const { kind, key, worker, ms } of steps) {
      nowMs += ms
      if (kind === 'open') {
        const got = table.acquire(key, null, nowMs)
        assert.notEqual(got.kind, 'wait', 'every first request binds at once here')
        if (got.kind !== 'hold') continue
        const [running] = open.filter((each) => each.key === key && each.isBound)
        if (running !== undefined) assert.equal(got.hold.target?.workerId, running.hold.target?.workerId)
        if (got.hold.target === null) got.hold.bind(at(worker), nowMs)
        open.push({ key, hold: got.hold, isBound: true })
      } else if (kind === 'close') open.shift()?.hold.release(nowMs)
      else if (kind === 'drop') {
        table.dropWorker(worker)
        for (const each of open) if (each.hold.target?.workerId === worker) each.isBound = false
        for (const name of ['a', 'b', 'c']) {
          const found = table.peek(name, null, nowMs)
          assert.ok(!('target' in found) || found.target?.workerId !== worker)
        }
      } else table.tick(nowMs)
      assert.ok(table.size <= 2)
    }
    for (const each of open) each.hold.release(nowMs)
    table.tick(nowMs + 31_000)
    assert.equal(table.size, 0)
  }))
})
