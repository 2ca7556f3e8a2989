/** Goal: however much work waits, other work of the process gets its turn after each slice. Time is simulated: a piece takes 0.5 ms. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from '../../ports.ts'
import { BudgetedLoop } from './budgeted-loop.ts'

const pieceMs = 0.5
const budgetMs = 2

const nextTurn = (): Promise<void> => new Promise((resolve) => { setImmediate(resolve) })

test('a flood is worked off in slices; between two of them everything else comes to its turn', async (t) => {
  let nowMs = 0
  let left = 10_000
  const clock: Clock = { nowMs: () => nowMs, epochMs: () => nowMs, setTimer: () => { throw new Error('no timer is needed') } }
  const loop = new BudgetedLoop({
    clock, budgetMs,
    sources: [() => {
      if (left === 0) return false
      left -= 1
      nowMs += pieceMs
      return true
    }],
  })
  t.after(() => loop.close())
  loop.wake()
  let turns = 0
  let longestMs = 0
  for (let before = nowMs; left > 0; before = nowMs) {
    await nextTurn()
    longestMs = Math.max(longestMs, nowMs - before)
    turns += 1
  }
  assert.ok(longestMs <= budgetMs + pieceMs, `a turn waited ${longestMs} ms`)
  assert.ok(turns >= (10_000 * pieceMs) / (budgetMs + pieceMs), `${turns} turns`)
})

test('sources take turns, and a closed loop does nothing more', async () => {
  const done: string[] = []
  let nowMs = 0
  const clock: Clock = { nowMs: () => nowMs, epochMs: () => nowMs, setTimer: () => { throw new Error('no timer is needed') } }
  const source = (name: string) => (): boolean => {
    done.push(name)
    nowMs += pieceMs
    return true
  }
  const loop = new BudgetedLoop({ clock, budgetMs, sources: [source('a'), source('b')] })
  loop.wake()
  await nextTurn()
  assert.deepEqual(done.slice(0, 4), ['a', 'b', 'a', 'b'])
  loop.close()
  const count = done.length
  await nextTurn()
  await nextTurn()
  assert.equal(done.length, count)
})
