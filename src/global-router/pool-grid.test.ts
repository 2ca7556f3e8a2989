/** Goal: pools are chosen as recorded and as a slow reference does. Method: examples of the original, random grids. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { poolOf, retryOrder, stepOf, type PoolStrategy } from './pool-grid.ts'

test('the middle of an axis stands for a missing value; values outside belong to the ends', () => {
  const strategy: PoolStrategy = {
    axes: [{ min: 0, max: 200, resolution: 2 }, { min: 10, max: 1000, resolution: 2 }], mapping: Int32Array.of(0, 1, 2, 3),
    overrides: [{ minPriority: 10, maxPriority: 100, targetPool: 7 }, { minPriority: 50, maxPriority: 60, targetPool: 8 }],
  }
  assert.equal(poolOf(strategy, [8, 100], null), 0)
  assert.equal(poolOf(strategy, [8, null], null), 1, 'the middle is the first value of the upper half')
  assert.equal(poolOf(strategy, [324, 100], null), 2)
  assert.equal(poolOf(strategy, [-5, 5000], null), 1)
  assert.equal(poolOf(strategy, [324, 100], 50), 7, 'the first rule that holds')
  assert.equal(poolOf(strategy, [324, 100], 9), 2)
  assert.equal(poolOf(strategy, [324, 100], 100), 7)
})

test('a step is found as by counting', () => {
  fc.assert(fc.property(fc.integer({ min: -100, max: 100 }), fc.integer({ min: 1, max: 500 }), fc.integer({ min: 1, max: 20 }), fc.integer({ min: -300, max: 1000 }), (min, span, resolution, value) => {
    const axis = { min, max: min + span, resolution }
    let counted = 0
    while (counted + 1 < resolution && value - min >= (counted + 1) * (span / resolution) - 1e-9) counted += 1
    const step = stepOf(axis, value)
    // At a border, rounding may put a value on either side.
    const isBorder = Math.abs((value - min) / (span / resolution) - Math.round((value - min) / (span / resolution))) < 1e-9
    assert.ok(step === counted || (isBorder && Math.abs(step - counted) <= 1), `${step} ${counted}`)
  }))
})

test('retries walk from the selected pool to the faster ones, from slow to fast', () => {
  assert.deepEqual(retryOrder(2, [0, 1, 2]), [2, 1, 0])
  assert.deepEqual(retryOrder(0, [0, 1, 2]), [0])
  assert.deepEqual(retryOrder(1, [5, 9, 5, 1]), [1, 0, 2, 3])
  fc.assert(fc.property(fc.array(fc.integer({ min: -3, max: 3 }), { minLength: 1, maxLength: 8 }), fc.nat(7), (priorities, index) => {
    const selected = index % priorities.length
    const [first, ...rest] = retryOrder(selected, priorities)
    assert.equal(first, selected)
    assert.deepEqual([...rest].sort(), priorities.map((_priority, pool) => pool).filter((pool) => (priorities[pool] as number) < (priorities[selected] as number)).sort())
    for (const [at, pool] of rest.entries()) if (at > 0) assert.ok((priorities[rest[at - 1] as number] as number) >= (priorities[pool] as number))
  }))
})
