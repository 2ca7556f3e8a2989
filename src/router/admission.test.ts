import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Decision, Parked, Refusal } from '../model/decision.ts'
import type { RoutingRequest } from '../model/routing-request.ts'
import type { WorkerDescription } from '../model/worker.ts'
import type { Clock } from '../ports.ts'
import { singleClassProfile, type PolicyProfile } from '../queue/policy-profile.ts'
import type { ParkedNote, QueueListener, QueueOutcome, QueueSettings } from './admission.ts'
import { KvRouter } from './kv-router.ts'
import { defaultRouterSettings } from './settings.ts'

const worker = (workerId: bigint, more: Partial<WorkerDescription> = {}): WorkerDescription =>
  ({ workerId, dpStart: 0, dpSize: 1, totalKvBlocks: null, maxNumBatchedTokens: 100, taints: [], topologyDomains: new Map(), ...more })

/** A router over a clock that stands still, and everything that it answered later. */
function setUp(queue: Partial<QueueSettings> & { profile: PolicyProfile } = { profile: singleClassProfile(0.5) }, workers: readonly WorkerDescription[] = [worker(1n)]) {
  const time = { nowMs: 0 }
  const clock: Clock = { nowMs: () => time.nowMs, epochMs: () => 0, setTimer: () => ({ cancel: () => undefined }) }
  const late: string[] = []
  const outcomes: (readonly [string, QueueOutcome, number])[] = []
  const parked = new Set<ParkedNote>()
  const rejections: string[] = []
  const listener: QueueListener = {
    onParked: (note) => void parked.add(note),
    onUnparked: (note, outcome, seconds) => { assert.ok(parked.delete(note)); outcomes.push([note.request.requestId, outcome, seconds]) },
    onQueueRejected: (policyClass, reason) => rejections.push(`${policyClass} ${reason}`),
  }
  const router = new KvRouter(
    { ...defaultRouterSettings, blockSize: 4, queue: { overlapRefreshAfterSeconds: 10, timeoutSeconds: null, ...queue } },
    { clock, random: { float: () => 0, u64: () => [1, 2] }, listener },
  )
  for (const each of workers) router.upsertWorker(each)
  let next = 1
  const ask = (requestId: string, isl: number, more: Partial<RoutingRequest> = {}): RoutingRequest =>
    ({ requestId, model: 'm', tokens: Uint32Array.from({ length: isl }, () => next++), ...more })
  const shown = (answer: Decision | Refusal): string => (answer.kind === 'chosen' ? `${answer.requestId}@${answer.workerId}` : `${answer.requestId}:${answer.reason}`)
  const submit = (request: RoutingRequest): string | Parked => {
    const answer = router.submit(request, (decided) => void late.push(shown(decided)))
    return answer.kind === 'parked' ? answer : shown(answer)
  }
  return { router, time, late, outcomes, parked, rejections, ask, submit, shown }
}

const isParked = (answer: string | Parked): answer is Parked => typeof answer !== 'string'

test('a request waits while every worker is above the threshold, and goes when one is free again', () => {
  const { router, late, outcomes, time, ask, submit, parked } = setUp({ profile: singleClassProfile(0.5) }, [worker(1n), worker(2n)])
  assert.equal(submit(ask('a', 60, { pin: { workerId: 1n, dpRank: 0 } })), 'a@1')
  assert.equal(submit(ask('b', 50)), 'b@2')
  // 50 is not more than half of 100.
  assert.equal(submit(ask('c', 10)), 'c@2')
  assert.ok(isParked(submit(ask('d', 8))))
  assert.deepEqual([router.parkedCount, router.queueReport().map(({ policyClass, requests, promptTokens }) => [policyClass, requests, promptTokens])], [1, [['default', 1, 8]]])
  time.nowMs = 2000
  router.prefillCompleted('a')
  assert.deepEqual([late, router.parkedCount, parked.size], [['d@1'], 0, 0])
  assert.deepEqual(outcomes, [['d', 'dispatched', 2]])
  assert.equal(router.bookingCount, 4)
})

test('a worker that comes, a worker that leaves, and a raised threshold let requests go', () => {
  const first = setUp()
  first.submit(first.ask('a', 60))
  first.submit(first.ask('b', 60))
  first.router.upsertWorker(worker(2n))
  assert.deepEqual(first.late, ['b@2'])
  first.submit(first.ask('c', 60, { pin: { workerId: 2n, dpRank: 0 } }))
  first.router.upsertWorker(worker(2n, { maxNumBatchedTokens: 1000 }))
  assert.deepEqual(first.late, ['b@2', 'c@2'])
  first.submit(first.ask('d', 600))
  first.submit(first.ask('e', 9, { allowedWorkerIds: new Set([1n]) }))
  first.router.removeWorker(1n)
  assert.deepEqual(first.late.slice(2), ['e:none-eligible'])
})

test('the last worker that leaves answers what waits', () => {
  const { router, late, ask, submit, outcomes } = setUp()
  submit(ask('a', 60))
  for (const id of ['b', 'c']) assert.ok(isParked(submit(ask(id, 60))))
  router.removeWorker(1n)
  assert.deepEqual([late, outcomes.map(([, outcome]) => outcome), router.parkedCount], [['b:no-workers', 'c:no-workers'], ['refused', 'refused'], 0])
  assert.equal(submit(ask('d', 1)), 'd:no-workers')
})

test('a request that is cancelled leaves the queue and is never answered', () => {
  const { router, late, ask, submit, outcomes } = setUp()
  submit(ask('a', 60))
  const ticket = submit(ask('b', 60))
  const behind = submit(ask('c', 60))
  assert.ok(isParked(ticket) && isParked(behind))
  ticket.cancel()
  ticket.cancel()
  router.free('a')
  assert.deepEqual([late, outcomes.map(([id, outcome]) => `${id} ${outcome}`), router.bookingCount], [['c@1'], ['b cancelled', 'c dispatched'], 1])
  behind.cancel()
  assert.equal(outcomes.length, 2)
})

test('a head that waits for its worker holds back its class; cancelled, the next goes', () => {
  const { router, late, ask, submit } = setUp({ profile: singleClassProfile(0.5) }, [worker(1n), worker(2n)])
  submit(ask('a', 60, { pin: { workerId: 1n, dpRank: 0 } }))
  const head = submit(ask('b', 9, { allowedWorkerIds: new Set([1n]) }))
  assert.ok(isParked(head))
  assert.ok(isParked(submit(ask('c', 9))), 'worker 2 is free, but an arrival never overtakes')
  head.cancel()
  assert.deepEqual([late, router.parkedCount], [['c@2'], 0])
})

test('a pinned request that waits for its rank holds back those of this rank alone', () => {
  const { router, late, ask, submit } = setUp({ profile: singleClassProfile(0.5) }, [worker(1n), worker(2n)])
  const pin = { workerId: 1n, dpRank: 0 }
  submit(ask('a', 60, { pin }))
  assert.ok(isParked(submit(ask('b', 9, { pin }))))
  assert.equal(submit(ask('c', 9)), 'c@2')
  assert.equal(submit(ask('d', 9, { pin: { workerId: 2n, dpRank: 0 } })), 'd@2')
  assert.ok(isParked(submit(ask('e', 9, { pin }))))
  router.free('a')
  assert.deepEqual(late, ['b@1', 'e@1'])
})

test('a request that belongs to a busy rank does not wait for it while another has room, and goes there all the same', () => {
  const { ask, submit } = setUp({ profile: singleClassProfile(0.5) }, [worker(1n), worker(2n)])
  submit(ask('a', 60, { pin: { workerId: 1n, dpRank: 0 } }))
  assert.equal(submit(ask('b', 9, { affinity: { workerId: 1n, dpRank: null } })), 'b@1')
  assert.equal(submit(ask('c', 9, { affinity: { workerId: 9n, dpRank: null } })), 'c@2', 'a target that is not there does not count')
})

test('a request that nobody may take waits behind its class, and is refused in its turn', () => {
  const { router, late, ask, submit } = setUp()
  assert.equal(submit(ask('a', 60)), 'a@1')
  assert.equal(submit(ask('b', 9, { requiredTaints: ['gold'] })), 'b:none-eligible', 'nothing waits')
  assert.ok(isParked(submit(ask('c', 9))))
  assert.ok(isParked(submit(ask('d', 9, { requiredTaints: ['gold'] }))))
  router.free('a')
  assert.deepEqual(late, ['c@1', 'd:none-eligible'])
})

test('a class that never queues takes no turns: its requests go at once or are refused', () => {
  const limits = { requests: 0, promptTokens: null, cachedTokens: null }
  const base = singleClassProfile(0.5)
  const { router, late, ask, submit } = setUp({ profile: { ...base, classes: [{ ...base.classes[0]!, limits }] } })
  assert.equal(submit(ask('a', 60)), 'a@1')
  assert.equal(submit(ask('b', 9)), 'b:queue-limit')
  router.free('a')
  assert.deepEqual([late, submit(ask('c', 9))], [[], 'c@1'])
})

test('a wait has an end: the time limit of the router, the deadline of the request', () => {
  const { router, time, late, ask, submit, outcomes } = setUp({ profile: singleClassProfile(0.5), timeoutSeconds: 3 })
  submit(ask('a', 60))
  submit(ask('b', 60))
  submit(ask('c', 60, { queueDeadlineMs: 1500 }))
  time.nowMs = 1500
  router.tick()
  assert.deepEqual(late, [])
  time.nowMs = 2000
  router.tick()
  time.nowMs = 3001
  router.tick()
  assert.deepEqual([late, outcomes.map(([, outcome]) => outcome)], [['c:queue-timeout', 'b:queue-timeout'], ['timeout', 'timeout']])
})

test('after the close nothing waits any more, what finds room still goes', () => {
  const { router, late, ask, submit } = setUp()
  submit(ask('a', 60))
  submit(ask('b', 60))
  router.closeQueue()
  assert.deepEqual(late, ['b:queue-closed'])
  assert.equal(submit(ask('c', 60)), 'c:queue-closed')
  router.free('a')
  assert.equal(submit(ask('d', 60)), 'd@1')
})

test('a question that books nothing waits its turn, too', () => {
  const { router, late, ask, submit, shown } = setUp()
  submit(ask('a', 60))
  const answer = router.submit(ask('b', 60), (decided) => void late.push(`${shown(decided)} ${decided.kind === 'chosen' && decided.booked}`), false)
  assert.equal(answer.kind, 'parked')
  submit(ask('c', 60))
  router.free('a')
  assert.deepEqual([late, router.bookingCount], [['b@1 false', 'c@1'], 1])
})

test('the queue has a bound, and says when it bites', () => {
  const { ask, submit, rejections } = setUp({ profile: singleClassProfile(0), parkedMax: 1 })
  submit(ask('a', 60))
  assert.ok(isParked(submit(ask('b', 60))))
  assert.equal(submit(ask('c', 60)), 'c:queue-full')
  assert.deepEqual(rejections, ['default capacity'])
})

test('an answer may ask, free and cancel from within', () => {
  const { router, late, ask, submit, shown } = setUp({ profile: singleClassProfile(0) })
  submit(ask('a', 60))
  const nested: string[] = []
  const last = submit(ask('z', 9, { priorityJumpSeconds: -1 }))
  router.submit(ask('b', 60, { strictPriority: 1 }), (answer) => {
    late.push(shown(answer))
    router.free('b')
    nested.push(isParked(submit(ask('n', 5, { strictPriority: 9 }))) ? 'n parked' : 'n at once')
    if (isParked(last)) last.cancel()
  })
  router.free('a')
  assert.deepEqual([late, nested, router.parkedCount, router.bookingCount], [['b@1', 'n@1'], ['n parked'], 0, 1])
})

test('ids that are booked meanwhile are refused when their turn comes', () => {
  const { router, late, ask, submit } = setUp()
  submit(ask('a', 60))
  submit(ask('twin', 10))
  submit(ask('twin', 10))
  router.free('a')
  assert.deepEqual(late, ['twin@1', 'twin:duplicate-request'])
})

test('overlap is that of the arrival, until the wait was long', () => {
  const cachedOf = (waitedSeconds: number, change?: (router: KvRouter) => void): number => {
    const { router, time, ask } = setUp({ profile: singleClassProfile(0) })
    const tokens = Uint32Array.from({ length: 8 }, (_, index) => 100 + index)
    router.submit(ask('a', 60), () => undefined)
    let cached = -1
    router.submit(ask('b', 0, { tokens, pin: { workerId: 1n, dpRank: 0 } }), (answer) => { cached = answer.kind === 'chosen' ? answer.cachedTokens : -2 })
    router.setIndexMode({ workerId: 1n, dpRank: 0 }, 'approximate')
    router.route(ask('c', 0, { tokens }))
    change?.(router)
    time.nowMs = 1000 * waitedSeconds
    router.free('c')
    router.free('a')
    return cached
  }
  assert.equal(cachedOf(9), 0)
  assert.equal(cachedOf(10), 8)
  assert.equal(cachedOf(1, (router) => { router.upsertWorker(worker(2n)); router.removeWorker(2n) }), 0)
})

test('whatever happens, each request is answered once or is still waiting, and nothing that may go waits', () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant('ask' as const), isl: fc.integer({ min: 1, max: 120 }), strict: fc.nat(2), pin: fc.constantFrom(null, 1n, 2n) }),
    fc.record({ do: fc.constant('free' as const), which: fc.nat() }),
    fc.record({ do: fc.constant('cancel' as const), which: fc.nat() }),
    fc.record({ do: fc.constantFrom('add' as const, 'drop' as const, 'tick' as const), which: fc.constantFrom(1n, 2n) }),
  )
  fc.assert(fc.property(fc.array(step, { maxLength: 50 }), (steps) => {
    const { router, time, ask, parked } = setUp({ profile: singleClassProfile(0.5), timeoutSeconds: 5 })
    const answers = new Map<string, number>()
    const tickets = new Map<string, Parked>()
    let booked: string[] = []
    const settle = (id: string, answer: Decision | Refusal): void => {
      answers.set(id, (answers.get(id) ?? 0) + 1)
      tickets.delete(id)
      if (answer.kind === 'chosen') booked.push(id)
    }
    for (const [index, each] of steps.entries()) {
      time.nowMs += 700
      if (each.do === 'ask') {
        const id = `r${index}`
        const answer = router.submit(ask(id, each.isl, { strictPriority: each.strict, ...(each.pin === null ? {} : { pin: { workerId: each.pin, dpRank: 0 } }) }), (decided) => settle(id, decided))
        if (answer.kind === 'parked') tickets.set(id, answer)
        else settle(id, answer)
      } else if (each.do === 'free' && booked.length > 0) {
        const id = booked[each.which % booked.length]!
        booked = booked.filter((other) => other !== id)
        router.free(id)
      } else if (each.do === 'cancel' && tickets.size > 0) {
        const [id, ticket] = [...tickets][each.which % tickets.size]!
        tickets.delete(id)
        ticket.cancel()
      } else if (each.do === 'add') router.upsertWorker(worker(each.which))
      else if (each.do === 'drop') router.removeWorker(each.which)
      else if (each.do === 'tick') router.tick()
      assert.deepEqual([router.parkedCount, parked.size], [tickets.size, tickets.size])
      assert.ok([...answers.values()].every((count) => count === 1))
      if (router.workerCount === 0) assert.equal(tickets.size, 0)
    }
  }), { numRuns: 150 })
})
