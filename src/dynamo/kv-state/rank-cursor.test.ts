import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { hashListOf, hashesToBigints } from '../../model/hash-list.ts'
import type { RouterEvent } from '../../model/kv-event.ts'
import { RankCursor, createCursorStats } from './rank-cursor.ts'

const rank = { workerId: 42n, dpRank: 0 }

function eventOf(eventId: number, data: RouterEvent['data'], more: Partial<RouterEvent> = {}): RouterEvent {
  return { ...rank, storageTier: 'device', residencyDomain: 'worker', eventId: BigInt(eventId), data, ...more }
}

function stored(eventId: number, block: number, more: Partial<RouterEvent> = {}): RouterEvent {
  const hashes = hashListOf([BigInt(block)])
  return eventOf(eventId, { kind: 'stored', parentHash: null, startPosition: null, blockHashes: hashes, tokensHashes: hashes, mmInfos: null }, more)
}

const removed = (eventId: number, block: number): RouterEvent => eventOf(eventId, { kind: 'removed', blockHashes: hashListOf([BigInt(block)]) })
const clearedAll = (eventId: number): RouterEvent => eventOf(eventId, { kind: 'cleared' }, { residencyDomain: 'absent' })

/** The blocks that a list of events leaves. */
class Blocks {
  readonly held = new Set<bigint>()
  apply(event: RouterEvent): void {
    if (event.data.kind === 'cleared') this.held.clear()
    else for (const hash of hashesToBigints(event.data.blockHashes)) {
      if (event.data.kind === 'stored') this.held.add(hash)
      else this.held.delete(hash)
    }
  }
}

function fixture(canRecover = true, bufferMax = 4) {
  const blocks = new Blocks()
  const log: string[] = []
  const stats = createCursorStats()
  const effects = {
    apply: (event: RouterEvent) => { log.push(`${event.data.kind} ${event.eventId}`); blocks.apply(event) },
    reset: () => { log.push('reset'); blocks.held.clear() },
    requestRecovery: (start: bigint | null) => { log.push(`ask ${start}`) },
    cancelRecovery: () => { log.push('cancel') },
  }
  const cursor = new RankCursor({ rank, effects, stats, canRecover, bufferMax })
  const said = (): string[] => log.splice(0)
  const answer = (kind: 'dump' | 'replay', events: readonly RouterEvent[], last: number): void => {
    cursor.beginAnswer(kind)
    for (const event of events) if (!cursor.recovered(event)) return
    cursor.finishAnswer(BigInt(last))
  }
  return { cursor, blocks, stats, said, answer }
}

test('a source with recovery is dumped first; held events follow in order', () => {
  const { cursor, said, answer, blocks } = fixture()
  cursor.start()
  cursor.onEvent(stored(9, 9))
  cursor.onEvent(stored(8, 8))
  assert.deepEqual(said(), ['ask null'])
  answer('dump', [stored(0, 1), stored(1, 2)], 7)
  assert.deepEqual(said(), ['reset', 'stored 0', 'stored 1', 'stored 8', 'stored 9'])
  assert.deepEqual([cursor.state, cursor.lastEventId], ['live', 9n])
  assert.deepEqual([...blocks.held], [1n, 2n, 8n, 9n])
})

test('old events are ignored, a gap is replayed without a clear', () => {
  const { cursor, said, answer, stats } = fixture()
  cursor.start()
  answer('dump', [], 3)
  cursor.onEvent(stored(3, 3))
  cursor.onEvent(stored(4, 4))
  cursor.onEvent(stored(7, 7))
  assert.deepEqual(said(), ['ask null', 'reset', 'stored 4', 'ask 5'])
  answer('replay', [stored(4, 4), stored(5, 5), stored(6, 6), stored(7, 7)], 7)
  assert.deepEqual(said(), ['stored 5', 'stored 6', 'stored 7'])
  assert.deepEqual([stats.ignoredOld, stats.gaps], [1, 1])
})

test('a live-only source applies its first event and resets on a gap', () => {
  const { cursor, said } = fixture(false)
  cursor.start()
  cursor.onEvent(stored(5, 5))
  cursor.onEvent(stored(6, 6))
  cursor.onEvent(stored(9, 9))
  cursor.checkTail()
  assert.deepEqual(said(), ['stored 5', 'stored 6', 'reset', 'stored 9'])
  assert.equal(cursor.lastEventId, 9n)
})

test('a clear of every domain ends a running recovery', () => {
  const { cursor, said, answer } = fixture()
  cursor.start()
  cursor.onEvent(stored(4, 4))
  cursor.onEvent(stored(6, 6))
  cursor.onEvent(clearedAll(5))
  assert.deepEqual(said(), ['ask null', 'cancel', 'cleared 5', 'stored 6'])
  answer('dump', [stored(0, 1)], 4)
  assert.deepEqual(said(), [], 'the cancelled answer changes nothing')
  cursor.onEvent(clearedAll(2))
  assert.deepEqual(said(), ['reset', 'ask null'], 'an id that came before is of a source that counts anew')
})

test('a clear of the worker domain waits its turn', () => {
  const { cursor, said, answer } = fixture()
  cursor.start()
  cursor.onEvent(eventOf(5, { kind: 'cleared' }))
  answer('dump', [stored(0, 1)], 4)
  assert.deepEqual(said(), ['ask null', 'reset', 'stored 0', 'cleared 5'])
})

test('the buffer of held events keeps the newest and counts the others', () => {
  const { cursor, said, answer, stats } = fixture()
  cursor.start()
  for (let id = 1; id <= 6; id += 1) cursor.onEvent(stored(id, id))
  assert.deepEqual([cursor.bufferedCount, stats.bufferEvicted], [4, 2])
  answer('dump', [], 0)
  assert.deepEqual(said(), ['ask null', 'reset', 'ask 1'], 'the evicted ones are asked for')
  answer('replay', [stored(1, 1), stored(2, 2)], 2)
  assert.deepEqual(said(), ['stored 1', 'stored 2', 'stored 3', 'stored 4', 'stored 5', 'stored 6'])
})

test('a gap that the source does not fill is passed over, and mended by a dump later', () => {
  const { cursor, said, answer, stats } = fixture()
  cursor.start()
  answer('dump', [], 1)
  cursor.onEvent(stored(4, 4))
  answer('replay', [], 1)
  assert.deepEqual(said(), ['ask null', 'reset', 'ask 2', 'stored 4'])
  assert.deepEqual([stats.appliedDegraded, cursor.lastEventId], [1, 4n])
  cursor.checkTail()
  assert.deepEqual(said(), ['ask null'])
  answer('dump', [stored(0, 9)], 4)
  cursor.checkTail()
  assert.deepEqual(said(), ['reset', 'stored 0', 'ask 4'])
})

test('when no attempt succeeds, held events are applied degraded', () => {
  const { cursor, said } = fixture()
  cursor.start()
  cursor.recoveryFailed()
  assert.equal(cursor.state, 'initial')
  cursor.onEvent(stored(7, 7))
  cursor.onEvent(stored(8, 8))
  cursor.recoveryFailed()
  assert.deepEqual(said(), ['ask null', 'ask null', 'stored 7', 'stored 8'])
  assert.deepEqual([cursor.state, cursor.lastEventId], ['live', 8n])
})

test('an answer that speaks of another rank resets and fences the rank', () => {
  const { cursor, said, answer, stats } = fixture()
  cursor.start()
  answer('dump', [stored(0, 1), stored(1, 2, { dpRank: 1 }), stored(2, 3)], 5)
  cursor.onEvent(stored(6, 6))
  cursor.checkTail()
  assert.deepEqual(said(), ['ask null', 'reset', 'stored 0', 'reset'])
  assert.deepEqual([cursor.state, stats.fenced], ['fenced', 1])
})

// A worker with a ring, a network that loses, swaps and repeats, restarts, slow and failing recoveries. In the end, one quiet
// check later, the index must hold what the worker holds.
test('whatever the network does, the index ends up as the worker', () => {
  const step = fc.oneof(
    { weight: 8, arbitrary: fc.record({ op: fc.constant('store' as const), block: fc.nat(12), fate: fc.constantFrom('deliver', 'lose', 'repeat', 'delay') }) },
    { weight: 3, arbitrary: fc.record({ op: fc.constant('remove' as const), block: fc.nat(12), fate: fc.constantFrom('deliver', 'lose', 'delay') }) },
    { weight: 1, arbitrary: fc.record({ op: fc.constant('clear' as const), block: fc.constant(0), fate: fc.constantFrom('deliver', 'lose') }) },
    { weight: 3, arbitrary: fc.record({ op: fc.constant('answer' as const), block: fc.constant(0), fate: fc.constantFrom('deliver', 'lose') }) },
    { weight: 1, arbitrary: fc.record({ op: fc.constantFrom('restart' as const, 'check' as const), block: fc.constant(0), fate: fc.constant('deliver') }) },
  )
  fc.assert(fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
    const world = new World()
    for (const { op, block, fate } of steps) {
      if (op === 'answer') world.answer(fate === 'deliver')
      else if (op === 'restart') world.restart()
      else if (op === 'check') world.cursor.checkTail()
      else world.change(op, block, fate)
    }
    for (let round = 0; round < 4; round += 1) {
      world.flush()
      while (world.asked !== undefined) world.answer(true)
      world.cursor.checkTail()
    }
    while (world.asked !== undefined) world.answer(true)
    assert.deepEqual([...world.index.held].sort(), [...world.worker.held].sort())
    assert.equal(world.cursor.lastEventId, BigInt(world.nextId - 1))
  }), { numRuns: 1500 })
})

class World {
  worker = new Blocks()
  readonly index = new Blocks()
  nextId = 1
  ring: RouterEvent[] = []
  delayed: RouterEvent[] = []
  asked: bigint | null | undefined = undefined
  cursor: RankCursor

  constructor() {
    this.cursor = this.attach()
  }

  attach(): RankCursor {
    this.cursor = new RankCursor({
      rank, canRecover: true, bufferMax: 3, stats: createCursorStats(),
      effects: {
        apply: (event) => this.index.apply(event),
        reset: () => this.index.held.clear(),
        requestRecovery: (start) => {
          assert.equal(this.asked, undefined, 'one recovery at a time')
          this.asked = start
        },
        cancelRecovery: () => { this.asked = undefined },
      },
    })
    this.cursor.start()
    return this.cursor
  }

  change(op: 'store' | 'remove' | 'clear', block: number, fate: string): void {
    const id = this.nextId
    this.nextId += 1
    const event = op === 'store' ? stored(id, block) : op === 'remove' ? removed(id, block) : clearedAll(id)
    this.worker.apply(event)
    this.ring = [...this.ring, event].slice(-5)
    if (fate === 'delay') this.delayed.push(event)
    else if (fate !== 'lose') for (let times = fate === 'repeat' ? 2 : 1; times > 0; times -= 1) this.cursor.onEvent(event)
    if (fate === 'deliver' && id % 3 === 0) this.flush()
  }

  flush(): void {
    for (const event of this.delayed.splice(0)) this.cursor.onEvent(event)
  }

  restart(): void {
    this.worker = new Blocks()
    this.nextId = 1
    this.ring = []
    this.delayed = []
    this.asked = undefined
    this.index.held.clear()
    this.attach()
  }

  answer(succeeds: boolean): void {
    if (this.asked === undefined) return
    const start = this.asked
    this.asked = undefined
    if (!succeeds) return this.cursor.recoveryFailed()
    const first = this.ring[0]
    if (start === null || first === undefined || start < first.eventId) {
      this.cursor.beginAnswer('dump')
      let id = 0
      for (const block of this.worker.held) this.cursor.recovered(stored((id += 1), Number(block)))
    } else {
      this.cursor.beginAnswer('replay')
      for (const event of this.ring) if (event.eventId >= start) this.cursor.recovered(event)
    }
    this.cursor.finishAnswer(BigInt(this.nextId - 1))
  }
}

test('a source that counts anew loses its blocks with its first event, and is asked', () => {
  const { cursor, said, answer, blocks, stats } = fixture()
  cursor.start()
  answer('dump', [stored(0, 1), stored(1, 2)], 7)
  cursor.onEvent(stored(6, 2))
  assert.deepEqual(said().slice(-1), ['stored 1'], 'what the dump held already is old')
  cursor.onEvent(stored(8, 8))
  said()
  cursor.onEvent(stored(1, 21))
  assert.deepEqual(said(), ['reset', 'ask null'])
  assert.equal(blocks.held.size, 0)
  answer('dump', [stored(0, 21)], 1)
  cursor.onEvent(stored(2, 22))
  assert.deepEqual([...blocks.held], [21n, 22n])
  assert.deepEqual([stats.restarts, stats.gaps], [1, 0])
  // One that begins anew while it is asked is asked again.
  cursor.onEvent(stored(9, 9))
  said()
  cursor.onEvent(stored(1, 31))
  assert.deepEqual(said(), ['cancel', 'reset', 'ask null'])
})

test('a live-only source that counts anew goes on from its first event', () => {
  const { cursor, said, blocks } = fixture(false)
  for (const event of [stored(1, 1), stored(2, 2), stored(1, 5), stored(2, 6)]) cursor.onEvent(event)
  assert.deepEqual([...blocks.held], [5n, 6n])
  assert.ok(said().includes('reset'))
})

test('repeated events of a source that did not begin anew cause ever fewer questions', () => {
  const { cursor, said, answer, blocks } = fixture()
  cursor.start()
  answer('dump', [stored(0, 1)], 5)
  said()
  let asked = 0
  for (let round = 0; round < 1000; round += 1) {
    cursor.onEvent(stored(6, 6))
    if (said().includes('ask null')) {
      asked += 1
      answer('dump', [stored(0, 1), stored(1, 6)], 6)
    }
  }
  assert.ok(asked >= 1 && asked <= 4, `${asked} questions`)
  assert.deepEqual([...blocks.held], [1n, 6n])
})

test('what was kept of a live-only source counts when no event is missing, and goes when one is', () => {
  for (const [next, held] of [[6, [1n, 6n]], [7, [7n]]] as const) {
    const { cursor, blocks } = fixture(false)
    blocks.apply(stored(0, 1))
    cursor.resume(5n)
    cursor.onEvent(stored(next, next))
    assert.deepEqual([...blocks.held], held)
  }
})
