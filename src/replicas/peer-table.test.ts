/** Goal: after any loss, delay or death, peers' bookings become those that stand. Method: scripted cases, and random histories against a plain set. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { ActiveSequenceEvent } from '../dynamo/wire/active-sequences.ts'
import { hashListOf } from '../model/hash-list.ts'
import type { WorkerRank } from '../model/worker.ts'
import type { BookingNote } from '../router/bookings.ts'
import { OwnBookings } from './own-bookings.ts'
import { PeerTable, type PeerHost, type PeerLimits } from './peer-table.ts'
import { newReplicaStats } from './replica-stats.ts'

const blockSize = 16
const peerRouter = 7n
const publisher = 70n
const rankOf = (workerId: bigint): WorkerRank => ({ workerId, dpRank: 0 })
const note = (requestId: string, workerId = 1n, prefillTokens = 32): BookingNote => ({
  requestId, rank: rankOf(workerId), sequence: hashListOf([1n, 2n]), promptTokens: 40, prefillTokens, trackPrefillTokens: true, expectedOutputTokens: null, loraName: null,
})

/** A host that knows workers 1 to 3 and keeps prefill tokens by key. */
class Host implements PeerHost {
  readonly booked = new Map<string, number>()
  readonly ranks = new Map<string, bigint>()
  readonly asked: bigint[] = []
  readonly known = new Set([1n, 2n, 3n])
  touched = 0
  book({ key, rank, prefillTokens }: Parameters<PeerHost['book']>[0]): ReturnType<PeerHost['book']> {
    if (!this.known.has(rank.workerId)) return 'unknown-rank'
    this.booked.set(key, prefillTokens)
    this.ranks.set(key, rank.workerId)
    return 'booked'
  }
  prefillCompleted(key: string): boolean {
    return this.booked.has(key) && this.booked.set(key, 0) !== undefined
  }
  free(key: string): boolean {
    return this.booked.delete(key)
  }
  touch(): boolean {
    this.touched += 1
    return true
  }
  ask(publisherId: bigint): void {
    this.asked.push(publisherId)
  }
}

/** A table, and a peer's own side of it. */
function pair(limits: Partial<PeerLimits> = {}) {
  const stats = newReplicaStats()
  const host = new Host()
  const table = new PeerTable(1n, host, stats, limits)
  const own = new OwnBookings(peerRouter, () => blockSize, newReplicaStats())
  let sequence = 0n
  const message = (events: ActiveSequenceEvent[]) => ({ sequence: sequence++, events })
  const deliver = ({ sequence: number, events }: ReturnType<typeof message>, nowMs = 0): void => table.apply(publisher, number, events, blockSize, nowMs)
  const beat = (nowMs = 0): boolean => table.beat({ kind: 'beat', routerId: peerRouter, publisherId: publisher, sequence, bookings: own.size }, nowMs)
  const answer = (nowMs = 0): void => {
    const parts = own.parts(2, 1 << 20)
    for (const [part, events] of parts.entries()) {
      table.state({ kind: 'state', routerId: peerRouter, publisherId: publisher, sequence, round: 1, part, parts: parts.length, events }, blockSize, nowMs)
    }
  }
  const keys = (): string[] => [...host.booked.keys()].map((key) => key.slice(key.indexOf('/') + 1)).sort()
  return { stats, host, table, own, message, deliver, beat, answer, keys }
}

test('bookings of a peer come, lose their prompt work and go; own echoes, known ids and other workers change nothing', () => {
  const { host, table, own, message, deliver, keys, stats } = pair()
  deliver(message([own.booked(note('a')), own.booked(note('b', 2n))]))
  assert.deepEqual([...host.booked], [['46/a', 32], ['46/b', 32]])
  deliver(message([{ ...own.booked(note('a', 3n)), routerId: 1n }, own.booked(note('a', 3n))]))
  assert.deepEqual([stats.ignored.own, stats.ignored.known], [1, 1])
  // The worker itself says that the prompt is done.
  table.apply(99n, 5n, [{ requestId: 'a', workerId: 1n, dpRank: 0, routerId: 1000n, loraName: null, data: { kind: 'mark_prefill_completed' } }], blockSize, 0)
  assert.equal(host.booked.get('46/a'), 0)
  const freed = (workerId: bigint): ActiveSequenceEvent => ({ requestId: 'a', workerId, dpRank: 0, routerId: peerRouter, loraName: null, data: { kind: 'free' } })
  deliver(message([freed(2n)]))
  assert.deepEqual(keys(), ['a', 'b'])
  deliver(message([freed(1n)]))
  assert.deepEqual(keys(), ['b'])
  assert.deepEqual([table.bookingCount, table.peerCount, stats.ignored.other_worker], [1, 1, 1])
})

test('prompt work is read from the fields of Dynamo 1.1 too', () => {
  const { host, deliver, message, own } = pair()
  const event = own.booked(note('a', 1n, 24))
  assert.ok(event.data.kind === 'add_request')
  assert.deepEqual(event.data.promptLoad, { promptTokens: 40, overlapBlocks: 1 })
  deliver(message([{ ...event, data: { ...event.data, prefillLoadHint: null } }]))
  assert.equal(host.booked.get('46/a'), 24)
})

test('a booking of a worker that is not known yet waits for it', () => {
  const { host, table, own, message, deliver, keys } = pair()
  deliver(message([own.booked(note('a', 9n)), own.booked(note('b', 9n))]))
  deliver(message([own.ended('b') as ActiveSequenceEvent]))
  assert.deepEqual([table.waitingCount, keys()], [1, []])
  host.known.add(9n)
  table.workerAdded(9n)
  assert.deepEqual([table.waitingCount, keys()], [0, ['a']])
  table.workerGone(9n)
  assert.equal(table.bookingCount, 0)
})

test('who comes late asks once, learns what stands, and takes newer events first', () => {
  const { host, table, own, message, deliver, beat, answer, keys, stats } = pair()
  message([own.booked(note('old')), own.booked(note('done', 2n)), own.booked(note('third', 3n))])
  message([own.prefillCompleted('done') as ActiveSequenceEvent])
  assert.equal(beat(), true)
  assert.deepEqual(host.asked, [publisher])
  // After the question: one ends, one begins, and both are heard before the answer that was made earlier.
  const parts = own.parts(256, 1 << 20)
  const late = message([own.ended('old') as ActiveSequenceEvent])
  deliver(late)
  deliver(message([own.booked(note('new'))]))
  table.state({ kind: 'state', routerId: peerRouter, publisherId: publisher, sequence: late.sequence, round: 1, part: 0, parts: 1, events: parts[0] ?? [] }, blockSize, 0)
  assert.deepEqual(keys(), ['done', 'new', 'third'])
  assert.equal(host.booked.get('46/done'), 0)
  assert.equal(stats.statesApplied, 1)
  answer()
  assert.equal(stats.statesApplied, 1, 'answers that nobody asked for are passed over')
})

test('a lost message is seen by the next one, or by the second sign of life; the answer mends it', () => {
  const { host, own, message, deliver, beat, answer, keys, stats } = pair()
  beat()
  deliver(message([own.booked(note('a')), own.booked(note('b'))]))
  message([own.ended('a') as ActiveSequenceEvent])
  deliver(message([own.booked(note('c'))]), 3000)
  assert.deepEqual([stats.gaps, host.asked.length], [1, 1])
  answer(3000)
  assert.deepEqual(keys(), ['b', 'c'])
  message([own.ended('b') as ActiveSequenceEvent])
  beat(6000)
  assert.equal(host.asked.length, 1, 'it may be on its way')
  beat(7000)
  assert.deepEqual([stats.gaps, host.asked.length], [2, 2])
  answer(7000)
  assert.deepEqual(keys(), ['c'])
  beat(8000)
  beat(9000)
  assert.equal(host.asked.length, 2)
})

test('a dead peer takes its bookings along: gone from discovery, or silent', () => {
  const { table, own, message, deliver, beat, keys, host, stats } = pair({ silenceMs: 1000, touchMs: 300 })
  deliver(message([own.booked(note('a'))]))
  assert.deepEqual(table.tick(1e9), [], 'routers that give no signs of life are not missed')
  beat(0)
  beat(500)
  assert.equal(host.touched, 2, 'long requests of a live replica do not expire')
  assert.deepEqual(table.tick(1400), [])
  assert.deepEqual(table.tick(1501), [peerRouter])
  assert.deepEqual(keys(), [])
  // It was only slow: its next sign of life begins anew.
  assert.equal(beat(2000), true)
  assert.deepEqual(host.asked, [publisher])
  deliver(message([own.booked(note('b'))]), 2000)
  assert.equal(table.gone(publisher), true)
  assert.equal(table.gone(publisher), false)
  assert.deepEqual([table.bookingCount, stats.peersGone, stats.droppedBookings], [0, 2, 2])
})

test('a router of an earlier release counts; who is heard at both scopes counts once', () => {
  const { table, own, message, deliver, beat, keys } = pair()
  const first = message([own.booked(note('a'))])
  assert.equal(table.applyEarlier(500n, 9n, first.events, blockSize, 0), true)
  assert.deepEqual([keys(), table.peerCount], [['a'], 1])
  deliver(first)
  assert.deepEqual([keys(), table.peerCount, table.bookingCount], [['a'], 1, 1], 'now it is heard as one of 1.6')
  const freed = message([own.ended('a') as ActiveSequenceEvent])
  assert.equal(table.applyEarlier(500n, 10n, freed.events, blockSize, 0), false)
  assert.deepEqual(keys(), ['a'])
  deliver(freed)
  assert.deepEqual(keys(), [])
  beat()
  const other = { ...own.booked(note('x')), routerId: 9n }
  assert.equal(table.applyEarlier(501n, 4n, [other], blockSize, 0), true)
  table.applyEarlier(501n, 8n, [{ ...other, data: { kind: 'free' } }], blockSize, 0)
  assert.deepEqual(keys(), [])
  assert.equal(table.gone(501n), true)
})

test('bounds refuse and are counted', () => {
  const { table, own, message, deliver, stats } = pair({ bookingsMax: 1, peersMax: 1 })
  deliver(message([own.booked(note('a')), own.booked(note('b'))]))
  table.apply(71n, 0n, [{ ...own.booked(note('c')), routerId: 8n }], blockSize, 0)
  assert.deepEqual([table.bookingCount, stats.refused.bookings, stats.refused.peers], [1, 1, 1])
  const kept = newReplicaStats()
  const small = new OwnBookings(peerRouter, () => blockSize, kept, 3)
  for (const id of ['a', 'b']) small.booked(note(id))
  assert.equal(kept.refused.kept_blocks, 1)
  assert.deepEqual(small.parts(1, 1).map((part) => part.map(({ data }) => data.kind === 'add_request' && data.tokenSequence !== null)), [[true], [false]])
  small.ended('a')
  assert.notEqual(small.booked(note('c')), null)
  assert.equal(kept.refused.kept_blocks, 1)
})

test('random histories with losses and a question in between end with what stands', () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('add' as const), id: fc.integer({ min: 0, max: 9 }), worker: fc.constantFrom(1n, 2n, 9n) }),
    fc.record({ kind: fc.constant('free' as const), id: fc.integer({ min: 0, max: 9 }) }),
    fc.record({ kind: fc.constant('mark' as const), id: fc.integer({ min: 0, max: 9 }) }),
    fc.record({ kind: fc.constant('beat' as const) }),
    fc.record({ kind: fc.constant('answer' as const) }),
  )
  fc.assert(fc.property(fc.array(fc.tuple(step, fc.boolean()), { maxLength: 60 }), (steps) => {
    const { table, host, own, message, deliver, beat, answer, keys } = pair()
    host.known.add(9n)
    let nowMs = 0
    for (const [each, isLost] of steps) {
      nowMs += 3000
      if (each.kind === 'beat') beat(nowMs)
      else if (each.kind === 'answer') { if (!isLost) answer(nowMs) } else {
        const id = `r${each.id}`
        if (each.kind === 'add' && own.workerOf(id) !== undefined) continue
        const event = each.kind === 'add' ? own.booked(note(id, each.worker)) : each.kind === 'free' ? own.ended(id) : own.prefillCompleted(id)
        if (event === null) continue
        const sent = message([event])
        if (!isLost) deliver(sent, nowMs)
      }
    }
    for (const _ of [1, 2, 3]) {
      nowMs += 3000
      beat(nowMs)
      answer(nowMs)
    }
    const standing = own.parts(256, 1 << 20).flat()
    assert.deepEqual(keys(), standing.map(({ requestId }) => requestId).sort())
    for (const { requestId, data, workerId } of standing) {
      assert.equal(host.ranks.get(`46/${requestId}`), workerId)
      assert.equal(host.booked.get(`46/${requestId}`), data.kind === 'add_request' ? (data.prefillLoadHint?.initialEffectivePrefillTokens ?? 0) : -1)
    }
    assert.equal(table.bookingCount, standing.length)
  }), { numRuns: 300 })
})
