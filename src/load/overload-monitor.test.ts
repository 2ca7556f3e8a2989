import assert from 'node:assert/strict'
import { test } from 'node:test'
import { OverloadMonitor } from './overload-monitor.ts'

test('the decode latch sets on either signal and clears only when both are below', () => {
  const monitor = new OverloadMonitor({ decodeBlocks: 0.5, prefillTokens: null, prefillTokensFraction: null })
  monitor.setRank(0, { totalKvBlocks: 100, maxNumBatchedTokens: null }, true)
  assert.equal(monitor.isOverloaded(0), false)
  monitor.observe(0, 51, null, null)
  assert.equal(monitor.isOverloaded(0), true)
  monitor.observe(0, null, null, 60)
  monitor.observe(0, 10, null, null)
  assert.equal(monitor.isOverloaded(0), true)
  monitor.observe(0, null, null, 50)
  assert.equal(monitor.isOverloaded(0), true)
  monitor.observe(0, null, null, 49)
  assert.equal(monitor.isOverloaded(0), false)
})

test('prefill is over the absolute threshold or over the floored part of the capacity, without a latch', () => {
  const monitor = new OverloadMonitor({ decodeBlocks: null, prefillTokens: 500, prefillTokensFraction: 0.5 })
  monitor.setRank(0, { totalKvBlocks: null, maxNumBatchedTokens: 101 }, true)
  monitor.setRank(1, { totalKvBlocks: null, maxNumBatchedTokens: null }, true)
  for (const [tokens, first, second] of [[50, false, false], [51, true, false], [501, true, true], [50, false, false]] as const) {
    monitor.observe(0, null, tokens, null)
    monitor.observe(1, null, tokens, null)
    assert.deepEqual([monitor.isOverloaded(0), monitor.isOverloaded(1)], [first, second])
  }
})

test('a slot given to another rank starts without observations', () => {
  const monitor = new OverloadMonitor({ decodeBlocks: 0.1, prefillTokens: 1, prefillTokensFraction: null })
  monitor.setRank(3, { totalKvBlocks: 10, maxNumBatchedTokens: null }, true)
  monitor.observe(3, 9, 9, 9)
  assert.equal(monitor.isOverloaded(3), true)
  monitor.setRank(3, { totalKvBlocks: 10, maxNumBatchedTokens: null }, true)
  assert.equal(monitor.isOverloaded(3), false)
})
