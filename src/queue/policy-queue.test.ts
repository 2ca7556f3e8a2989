import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ClassQueue, compareItems, orderScore, type QueueItem } from './class-queue.ts'
import { busyLimit, Classifier, parksRequests, singleClassProfile, type PolicyClass, type PolicyProfile } from './policy-profile.ts'
import { PolicyQueue } from './policy-queue.ts'
import { ReferenceQueue } from './reference-queue.ts'

interface Item extends QueueItem {
  readonly label: string
}

let sequence = 0
const itemOf = (given: Partial<Item>): Item => {
  sequence += 1
  return { label: `i${sequence}`, strictPriority: 0, deadlineMs: Infinity, score: 0, promptTokens: given.cost ?? 1, cachedTokens: 0, cost: 1, lane: null, ...given, sequence, position: -1 }
}
const classOf = (name: string, quantum: number, more: Partial<PolicyClass> = {}): PolicyClass =>
  ({ name, family: null, bucket: null, policy: 'fcfs', quantum, busyTokens: 1, busyFraction: null, limits: { requests: null, promptTokens: null, cachedTokens: null }, ...more })

test('order: strict priority, deadline, score, arrival', () => {
  const queue = new ClassQueue<Item>()
  for (const [label, given] of Object.entries({
    late: {}, later: {}, scored: { score: 5 }, due: { deadlineMs: 9 }, dueFirst: { deadlineMs: 3, score: -1 }, strict: { strictPriority: 1, score: -9 },
  })) queue.push(itemOf({ label, ...given }))
  const order: string[] = []
  for (let head = queue.head; head !== undefined; head = queue.head) { order.push(head.label); queue.remove(head) }
  assert.deepEqual(order, ['strict', 'dueFirst', 'due', 'scored', 'late', 'later'])
  assert.equal(queue.size, 0)
})

test('scores: seconds of head start, or weight per uncached token', () => {
  assert.deepEqual([orderScore('fcfs', 5, 2, 10), orderScore('fcfs', -5, 2, 10), orderScore('lcfs', 5, 2, 10), orderScore('wspt', 4, 2, 10)], [3, -2, 7, 0.5])
})

test('classes: explicit by name, families by uncached tokens, all else the default family', () => {
  const profile: PolicyProfile = {
    defaultFamily: 'std', buckets: [{ minTokens: 0, bucket: 's' }, { minTokens: 64, bucket: 'l' }],
    classes: [classOf('b', 1, { family: 'std', bucket: 'l' }), classOf('a', 1, { family: 'std', bucket: 's' }), classOf('vip', 1), classOf('x', 1, { family: 'alt', bucket: 's' }), classOf('y', 1, { family: 'alt', bucket: 'l' })],
  }
  const classifier = new Classifier(profile)
  const nameOf = (name: string | undefined, tokens: number) => profile.classes[classifier.classOf(name, tokens)]?.name
  assert.deepEqual([nameOf(undefined, 63), nameOf(undefined, 64), nameOf('vip', 99), nameOf('alt', 0), nameOf('alt', 99), nameOf('nobody', 99), nameOf('a', 99)], ['a', 'b', 'vip', 'x', 'y', 'b', 'b'])
  assert.throws(() => new Classifier({ ...profile, classes: profile.classes.slice(1) }), RangeError)
  assert.throws(() => new Classifier({ ...profile, defaultFamily: 'none' }), RangeError)
})

test('thresholds: the lower one counts, none means never busy', () => {
  assert.equal(busyLimit(classOf('a', 1, { busyTokens: 60, busyFraction: 0.5 }), 100), 50)
  assert.equal(busyLimit(classOf('a', 1, { busyTokens: null, busyFraction: 0 }), 100), 0)
  assert.equal(busyLimit(classOf('a', 1, { busyTokens: null }), 100), Infinity)
  assert.deepEqual([parksRequests(singleClassProfile(null)), parksRequests(singleClassProfile(0))], [false, true])
})

test('limits grow with the workers, and the first one reached is told', () => {
  const queue = new PolicyQueue<Item>([classOf('a', 1, { limits: { requests: 2, promptTokens: 10, cachedTokens: null } })])
  queue.push(itemOf({ promptTokens: 12 }), 0)
  assert.deepEqual(queue.limitReached(0, 1), { kind: 'raw_isl_tokens', current: 12, limit: 10 })
  assert.equal(queue.limitReached(0, 2), null)
  queue.push(itemOf({}), 0)
  assert.deepEqual(queue.limitReached(0, 1), { kind: 'requests', current: 2, limit: 2 })
  assert.deepEqual(new PolicyQueue<Item>([classOf('a', 1, { limits: { requests: 0, promptTokens: null, cachedTokens: null } })]).limitReached(0, 9), { kind: 'requests', current: 0, limit: 0 })
})

test('a class whose first request may not go holds back nobody else', () => {
  const queue = new PolicyQueue<Item>([classOf('a', 10), classOf('b', 10)])
  const [stuck, behind, other] = [itemOf({}), itemOf({}), itemOf({})]
  queue.push(stuck, 0)
  queue.push(behind, 0)
  queue.push(other, 1)
  const mayGo = (item: Item): boolean => item !== stuck
  assert.deepEqual([queue.pop(mayGo), queue.pop(mayGo), queue.size], [other, null, 2])
})

test('a pinned request that may not go holds back its own lane alone, and is asked again when there may be room', () => {
  const queue = new PolicyQueue<Item>([classOf('a', 10)])
  const items = { stuck: itemOf({ lane: '1:0', strictPriority: 1 }), behind: itemOf({ lane: '1:0' }), other: itemOf({ lane: '2:0' }), shared: itemOf({}) }
  for (const item of Object.values(items)) queue.push(item, 0)
  let asked = 0
  const mayGo = (item: Item): boolean => { asked += 1; return item.lane !== '1:0' }
  assert.deepEqual([queue.pop(mayGo), queue.pop(mayGo), queue.pop(mayGo), queue.size], [items.other, items.shared, null, 2])
  asked = 0
  assert.equal(queue.pop(mayGo), null)
  assert.equal(asked, 0, 'a blocked lane is not asked again')
  queue.recheck()
  assert.deepEqual([queue.pop(() => true), queue.pop(() => true), queue.queueOf(0).promptTokens], [items.stuck, items.behind, 0])
})

test('a class that is left by its last request begins anew', () => {
  const classes = [classOf('a', 7), classOf('b', 100)]
  const queue = new PolicyQueue<Item>(classes)
  const [big, next, small] = [itemOf({ cost: 20 }), itemOf({ cost: 12 }), itemOf({ cost: 1 })]
  queue.push(big, 0)
  queue.push(small, 1)
  assert.equal(queue.pop(() => true), small, 'class a has put 7 aside')
  queue.remove(big, 0)
  queue.push(next, 0)
  const other = itemOf({ cost: 100 })
  queue.push(other, 1)
  // With the 7 it had, class a could pay 12 in its turn.
  assert.equal(queue.pop(() => true), other)
})

test('shares follow the quanta: over a long backlog no class is off by more than its largest request', () => {
  const classes = [classOf('a', 300), classOf('b', 100)]
  const queue = new PolicyQueue<Item>(classes)
  const costs = fc.sample(fc.integer({ min: 1, max: 100 }), { numRuns: 800, seed: 7 })
  for (const [index, cost] of costs.entries()) queue.push(itemOf({ cost, label: index % 2 === 0 ? 'a' : 'b' }), index % 2)
  const served = { a: 0, b: 0 }
  for (let step = 0; step < 400; step++) {
    const item = queue.pop(() => true)!
    served[item.label as 'a' | 'b'] += item.cost
  }
  assert.ok(Math.abs(served.a - 3 * served.b) <= 3 * 100 + 300, JSON.stringify(served))
})

const anyItem = fc.record({
  strictPriority: fc.integer({ min: 0, max: 2 }), deadlineMs: fc.constantFrom(Infinity, 5, 9), score: fc.integer({ min: -3, max: 3 }), cost: fc.integer({ min: 1, max: 300 }),
  lane: fc.constantFrom(null, null, 'a', 'b'),
})
const anyStep = fc.oneof(
  { weight: 3, arbitrary: fc.record({ do: fc.constant('push' as const), item: anyItem, at: fc.nat(3) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('pop' as const), blocked: fc.integer({ min: 0, max: 7 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('remove' as const), which: fc.nat() }) },
)

test('the same requests go in the same order as with the plain oracle', () => {
  fc.assert(fc.property(fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 4 }), fc.array(anyStep, { maxLength: 60 }), (quanta, steps) => {
    const classes = quanta.map((quantum, index) => classOf(`c${index}`, quantum))
    const queue = new PolicyQueue<Item>(classes)
    const oracle = new ReferenceQueue<Item>(classes)
    const waiting: [Item, number][] = []
    for (const step of steps) {
      if (step.do === 'push') {
        const item = itemOf(step.item)
        const at = step.at % classes.length
        queue.push(item, at)
        oracle.push(item, at)
        waiting.push([item, at])
      } else if (step.do === 'pop') {
        const mayGo = (item: Item): boolean => item.cost % 8 !== step.blocked
        const expected = oracle.pop(mayGo)
        queue.recheck()
        assert.equal(queue.pop(mayGo), expected)
        if (expected !== null) waiting.splice(waiting.findIndex(([item]) => item === expected), 1)
      } else if (waiting.length > 0) {
        const [[item, at]] = waiting.splice(step.which % waiting.length, 1) as [[Item, number]]
        queue.remove(item, at)
        oracle.remove(item, at)
        assert.equal(item.position, -1)
      }
      assert.equal(queue.size, waiting.length)
    }
    const rest = waiting.map(([item]) => item).sort(compareItems)
    const perClass = classes.flatMap((_, index) => [...queue.queueOf(index).items]).sort(compareItems)
    assert.deepEqual(perClass, rest)
  }), { numRuns: 400 })
})
