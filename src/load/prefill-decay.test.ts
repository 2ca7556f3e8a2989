/** The prefill load model: what is predicted, what decays, what is learnt. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PrefillDecay } from './prefill-decay.ts'
import { durationTableError, MeasuredDurations, TableDurations } from './prefill-durations.ts'

/** One millisecond per token. */
const perToken = (): PrefillDecay => new PrefillDecay(new TableDurations([{ tokens: 1000, ms: 1000 }]))

test('only the oldest prompt of a rank decays, to nothing at most', () => {
  const decay = perToken()
  decay.begin('a', 0, 100, 0)
  decay.begin('b', 0, 50, 10)
  decay.begin('c', 1, 30, 10)
  assert.deepEqual([0, 25.5, 100, 900].map((nowMs) => decay.remaining(0, 150, nowMs)), [150, 125, 50, 50])
  assert.equal(decay.remaining(1, 30, 20), 20)
  assert.equal(decay.remaining(2, 0, 20), 0)
})

test('the next prompt begins when the oldest ends; one that ends out of turn moves the oldest one\'s time', () => {
  const decay = perToken()
  decay.begin('a', 0, 100, 0)
  decay.begin('b', 0, 40, 0)
  decay.begin('c', 0, 60, 0)
  decay.end('b', true, 70)
  assert.equal(decay.remaining(0, 160, 70), 160 - 30, 'of 70 ms, 40 were for b')
  decay.end('a', true, 110)
  assert.deepEqual([decay.remaining(0, 60, 110), decay.remaining(0, 60, 130)], [60, 40])
  decay.end('c', false, 130)
  assert.deepEqual([decay.activeCount, decay.remaining(0, 0, 140)], [0, 0])
})

test('a prompt that ends out of turn never moves the oldest one into the future', () => {
  const decay = perToken()
  decay.begin('a', 0, 100, 0)
  decay.begin('b', 0, 500, 0)
  decay.end('b', true, 20)
  assert.deepEqual([decay.remaining(0, 100, 20), decay.remaining(0, 100, 30)], [100, 90])
})

test('without a prediction the load stays as booked; beside unpredicted ones the oldest is rounded up', () => {
  const measured = new MeasuredDurations()
  const decay = new PrefillDecay(measured)
  decay.begin('a', 0, 100, 0)
  assert.equal(decay.remaining(0, 100, 1e6), 100)
  decay.end('a', true, 200)
  decay.begin('b', 0, 3, 200)
  assert.equal(decay.remaining(0, 3, 203), 3 - Math.floor(3 * 3 / 6))
  decay.begin('c', 1, 7, 200)
  assert.equal(decay.remaining(1, 7, 207), 4, 'the rate of all ranks serves a new one')
  const mixed = new PrefillDecay({ expectedMs: (_slot, tokens) => (tokens === 3 ? 6 : null), observed() {}, dropSlot() {} })
  mixed.begin('b', 0, 3, 0)
  mixed.begin('d', 0, 10, 0)
  assert.equal(mixed.remaining(0, 13, 3), 10 + 2)
})

test('measurements: per rank, recent ones weigh more, given-up prompts teach nothing, a dropped rank is forgotten', () => {
  const measured = new MeasuredDurations()
  assert.equal(measured.expectedMs(0, 10), null)
  for (let round = 0; round < 60; round++) measured.observed(0, 100, 100)
  for (let round = 0; round < 60; round++) measured.observed(1, 100, 400)
  assert.ok(Math.abs(measured.expectedMs(0, 50)! - 50) < 1)
  assert.ok(Math.abs(measured.expectedMs(1, 50)! - 200) < 1)
  for (let round = 0; round < 40; round++) measured.observed(0, 100, 300)
  assert.ok(Math.abs(measured.expectedMs(0, 50)! - 150) < 2)
  const before = measured.expectedMs(1, 50)
  const decay = new PrefillDecay(measured)
  decay.begin('x', 1, 100, 0)
  decay.end('x', false, 1)
  assert.equal(measured.expectedMs(1, 50), before)
  decay.begin('y', 1, 100, 0)
  decay.dropSlot(1)
  assert.equal(decay.activeCount, 0)
  assert.notEqual(measured.expectedMs(1, 50), before)
})

test('a table of durations: straight lines between its points, checked', () => {
  const table = new TableDurations([{ tokens: 100, ms: 10 }, { tokens: 300, ms: 50 }])
  assert.deepEqual([50, 100, 200, 300, 500].map((tokens) => table.expectedMs(0, tokens)), [5, 10, 30, 50, 90])
  assert.equal(new TableDurations([{ tokens: 10, ms: 20 }]).expectedMs(0, 30), 60)
  assert.match(durationTableError([]) ?? '', /empty/)
  assert.match(durationTableError([{ tokens: 0, ms: 1 }]) ?? '', /entry 0: \[0, 1\]/)
  assert.match(durationTableError([{ tokens: 5, ms: 9 }, { tokens: 6, ms: 8 }]) ?? '', /entry 1: \[6, 8\] does not rise above \[5, 9\]/)
  assert.throws(() => new TableDurations([{ tokens: 5, ms: NaN }]), RangeError)
})
