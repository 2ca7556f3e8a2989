import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Random } from '../ports.ts'
import { CandidateTable } from './candidate-table.ts'
import { ModeChoice } from './mode-choice.ts'

const randomOf = (...values: number[]): Random => ({ float: () => values.shift() ?? 0, u64: () => [0, 0] })
const noCpu = (): boolean => false

/** Candidates with these slots and running requests. */
function tableOf(...rows: readonly (readonly [slot: number, requests: number])[]): CandidateTable {
  const table = new CandidateTable()
  table.count = rows.length
  rows.forEach(([slot, requests], row) => { table.slot[row] = slot; table.activeRequests[row] = requests })
  return table
}

test('round robin takes every candidate in turn, also when some come and go', () => {
  const choice = new ModeChoice('round-robin')
  const take = (...slots: number[]): number => slots[choice.choose(tableOf(...slots.map((slot) => [slot, 9] as const)), randomOf(), noCpu, true)]!
  assert.deepEqual([take(1, 2, 3), take(1, 2, 3), take(1, 2, 3), take(1, 2, 3)], [1, 2, 3, 1])
  assert.deepEqual([take(1, 3), take(1, 2, 3), take(2, 3)], [3, 1, 2])
  const looked = new ModeChoice('round-robin')
  const table = tableOf([1, 0], [2, 0])
  assert.equal(looked.choose(table, randomOf(), noCpu, false), looked.choose(table, randomOf(), noCpu, false), 'looking takes no turn')
})

test('least loaded takes the fewest requests, equals in turn', () => {
  const choice = new ModeChoice('least-loaded')
  assert.equal(choice.choose(tableOf([1, 3], [2, 1], [3, 2]), randomOf(), noCpu, true), 1)
  assert.equal(choice.choose(tableOf([1, 1], [2, 1], [3, 1]), randomOf(), noCpu, true), 2)
})

test('power of two takes the freer of two that are drawn', () => {
  const table = tableOf([1, 5], [2, 0], [3, 1])
  const choice = new ModeChoice('power-of-two')
  assert.equal(choice.choose(table, randomOf(0, 0.9), noCpu, true), 2)
  assert.equal(choice.choose(table, randomOf(0, 0), noCpu, true), 1)
  assert.equal(choice.choose(tableOf([7, 4]), randomOf(0.99), noCpu, true), 0)
})

test('accelerators first, CPUs when they are eight times as free', () => {
  const isCpu = (slot: number): boolean => slot === 2
  const choice = new ModeChoice('device-aware-weighted')
  assert.equal(choice.choose(tableOf([1, 0], [2, 0]), randomOf(), isCpu, true), 0)
  assert.equal(choice.choose(tableOf([1, 8], [2, 1]), randomOf(), isCpu, true), 0)
  assert.equal(choice.choose(tableOf([1, 9], [2, 1]), randomOf(), isCpu, true), 1)
  assert.equal(choice.choose(tableOf([2, 1]), randomOf(), isCpu, true), 0)
})

test('every mode gives a row of the table', () => {
  const rows = fc.uniqueArray(fc.tuple(fc.nat(50), fc.nat(5)), { minLength: 1, maxLength: 10, selector: ([slot]) => slot })
  const mode = fc.constantFrom('round-robin', 'random', 'power-of-two', 'least-loaded', 'device-aware-weighted' as const)
  fc.assert(fc.property(rows, mode, fc.array(fc.double({ min: 0, max: 0.999999, noNaN: true })), (table, which, draws) => {
    const row = new ModeChoice(which).choose(tableOf(...table), randomOf(...draws), (slot) => slot % 2 === 0, true)
    assert.ok(Number.isInteger(row) && row >= 0 && row < table.length)
  }))
})
