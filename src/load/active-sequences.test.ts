import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { hashListOf } from '../model/hash-list.ts'
import { ActiveSequences } from './active-sequences.ts'

const blockSize = 4

function book(loads: ActiveSequences, requestId: string, slot: number, hashes: readonly number[], prefillTokens = 0, nowMs = 0) {
  return loads.add({
    requestId, slot, sequence: hashListOf(hashes.map(BigInt)), prefillTokens,
    promptTokens: blockSize * hashes.length, expectedOutputTokens: null,
  }, blockSize, nowMs)
}

function tracker(slots = 2, limits = {}): ActiveSequences {
  const loads = new ActiveSequences({ expiryMs: 1000, ...limits })
  loads.ensureSlots(slots)
  return loads
}

test('a block that two requests of a rank share counts once, and on each rank by itself', () => {
  const loads = tracker()
  book(loads, 'a', 0, [1, 2, 3])
  book(loads, 'b', 0, [1, 2, 4])
  book(loads, 'c', 1, [1, 2])
  assert.deepEqual([loads.activeBlocks(0), loads.activeBlocks(1)], [4, 2])
  loads.free('a')
  assert.deepEqual([loads.activeBlocks(0), loads.activeBlocks(1)], [3, 2])
})

test('the same hash below two parents is two blocks', () => {
  const loads = tracker()
  book(loads, 'a', 0, [7, 7, 7])
  book(loads, 'b', 0, [8, 7])
  assert.equal(loads.activeBlocks(0), 5)
  loads.match(hashListOf([7n, 7n, 8n]))
  assert.equal(loads.livePrefix(0), 2)
})

test('one output block of weight 0.1 over four prompt blocks reads 0, as the running double gives it', () => {
  const loads = tracker()
  book(loads, 'a', 0, [1, 2, 3, 4])
  loads.outputBlock('a', 0.1)
  assert.equal(loads.activeBlocks(0), 0)
})

test('prompts and outputs are summed apart, outputs one by one, and both rounded only together', () => {
  const loads = tracker()
  book(loads, 'a', 0, [1, 2, 3])
  book(loads, 'b', 0, [1, 2, 4, 5, 6])
  for (const fraction of [0.7, 0.1, 0.3]) loads.outputBlock('a', fraction)
  loads.outputBlock('b', 0.1)
  const prompts = 6 + (0.7 - 1) + (0.1 - 0.7) + (0.3 - 0.1) + 3 * (0.1 - 1)
  let outputs = 1 + (0.7 - 1)
  outputs = outputs + 1 + (0.1 - 0.7) + (0.1 - 1)
  outputs = outputs + 1 + (0.3 - 0.1) + (0.3 - 0.1) + (0.3 - 1)
  outputs = outputs + 1 + (0.1 - 1)
  assert.equal(loads.rawWeight(0), prompts + outputs)
  loads.free('b')
  assert.equal(loads.rawWeight(0), prompts - 3 * 0.1 + (outputs - 0.1))
})

test('decay spares blocks that another request uses, and a later sharer does not restore the weight', () => {
  const loads = tracker()
  book(loads, 'a', 0, [1, 2, 3, 4])
  book(loads, 'b', 0, [1, 2])
  loads.outputBlock('a', 0.5)
  assert.equal(loads.rawWeight(0), 2 + 2 * 0.5 + 0.5)
  book(loads, 'c', 0, [1, 2, 3, 4])
  assert.equal(loads.rawWeight(0), 3.5)
})

test('output blocks follow the total length, with the weight that is left of the expectation', () => {
  const loads = tracker()
  loads.add({ requestId: 'a', slot: 0, sequence: hashListOf([1n]), prefillTokens: 5, promptTokens: 5, expectedOutputTokens: 10 }, blockSize, 0)
  loads.outputTokens('a', 3, blockSize)
  assert.equal(loads.rawWeight(0), 1)
  loads.outputTokens('a', 5, blockSize)
  assert.equal(loads.rawWeight(0), 1)
  loads.outputTokens('a', 20, blockSize)
  assert.equal(loads.activeBlocks(0), 0)
})

test('an idle booking expires, a touched one stays', () => {
  const loads = tracker()
  book(loads, 'idle', 0, [1], 9, 0)
  book(loads, 'busy', 1, [1], 9, 0)
  loads.expire(900)
  loads.touch('busy')
  const expired: string[] = []
  loads.expire(1001, (requestId) => expired.push(requestId))
  assert.deepEqual(expired, ['idle'])
  assert.deepEqual([loads.prefillTokens[0], loads.prefillTokens[1], loads.expiredBookings], [0, 9, 1])
})

test('bounds refuse and count: a booking too many is not taken, a path too long is left out', () => {
  const loads = tracker(2, { bookingsMax: 2, blocksMax: 3 })
  assert.equal(book(loads, 'a', 0, [1, 2]), 'booked')
  assert.equal(book(loads, 'a', 0, [1, 2]), 'duplicate')
  assert.equal(book(loads, 'b', 1, [1, 2], 8), 'booked')
  assert.equal(book(loads, 'c', 1, [1]), 'full')
  assert.deepEqual([loads.pathlessBookings, loads.refusedBookings, loads.activeBlocks(1), loads.prefillTokens[1]], [1, 1, 0, 8])
})

interface ModelRequest {
  readonly slot: number
  readonly hashes: readonly number[]
  prefill: number
  outputs: number
}

const paths = fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 7 })
const steps = fc.array(fc.oneof(
  fc.record({ op: fc.constant('add' as const), id: fc.integer({ min: 0, max: 9 }), slot: fc.integer({ min: 0, max: 3 }), hashes: paths, prefill: fc.nat(50) }),
  fc.record({ op: fc.constantFrom('free', 'prefill', 'output'), id: fc.integer({ min: 0, max: 9 }) }),
  fc.record({ op: fc.constant('drop' as const), slot: fc.integer({ min: 0, max: 3 }) }),
), { maxLength: 60 })

/** All prefixes of the live paths of a rank, as texts: its blocks. */
function blocksOf(live: ReadonlyMap<string, ModelRequest>, slot: number): Set<string> {
  const blocks = new Set<string>()
  for (const request of live.values()) {
    if (request.slot !== slot) continue
    request.hashes.forEach((_, index) => blocks.add(request.hashes.slice(0, index + 1).join()))
  }
  return blocks
}

test('bookings follow a model of plain sets, never go negative, and leave nothing when all are freed', () => {
  fc.assert(fc.property(steps, paths, (script, probe) => {
    const loads = tracker(4)
    const live = new Map<string, ModelRequest>()
    for (const step of script) {
      const id = 'id' in step ? `r${step.id}` : ''
      if (step.op === 'add' && 'hashes' in step) {
        const outcome = book(loads, id, step.slot, step.hashes, step.prefill)
        assert.equal(outcome, live.has(id) ? 'duplicate' : 'booked')
        if (!live.has(id)) live.set(id, { slot: step.slot, hashes: step.hashes, prefill: step.prefill, outputs: 0 })
      } else if (step.op === 'free') assert.equal(loads.free(id), live.delete(id))
      else if (step.op === 'prefill') {
        assert.equal(loads.prefillCompleted(id), live.has(id))
        if (live.has(id)) live.get(id)!.prefill = 0
      } else if (step.op === 'output') {
        assert.equal(loads.outputBlock(id, null), live.has(id))
        if (live.has(id)) live.get(id)!.outputs += 1
      } else if ('slot' in step) {
        loads.dropSlot(step.slot)
        for (const [key, request] of live) if (request.slot === step.slot) live.delete(key)
      }
      loads.match(hashListOf(probe.map(BigInt)))
      for (let slot = 0; slot < 4; slot++) {
        const mine = [...live.values()].filter((request) => request.slot === slot)
        const blocks = blocksOf(live, slot)
        assert.equal(loads.activeBlocks(slot), blocks.size + mine.reduce((sum, { outputs }) => sum + outputs, 0))
        assert.equal(loads.prefillTokens[slot], mine.reduce((sum, { prefill }) => sum + prefill, 0))
        assert.equal(loads.requests[slot], mine.length)
        assert.equal(loads.livePrefix(slot), probe.filter((_, index) => blocks.has(probe.slice(0, index + 1).join())).length)
      }
    }
    for (const id of live.keys()) loads.free(id)
    for (let slot = 0; slot < 4; slot++) {
      assert.deepEqual([loads.rawWeight(slot), loads.prefillTokens[slot], loads.requests[slot]], [0, 0, 0])
    }
    assert.deepEqual([loads.bookingCount, loads.blockCount], [0, 0])
  }), { numRuns: 300 })
})
