/** The table as text, and its drawing on a scripted terminal. */
import { test } from 'node:test'
import assert from 'node:assert/strict'
import type { Clock } from '../ports.ts'
import { tableLines, WorkerTable, type WorkerRow } from './worker-table.ts'

const row = (workerId: bigint, more: Partial<WorkerRow> = {}): WorkerRow => ({
  workerId, dpRank: 0, runningRequests: 2, waitingRequests: 1, usedBlocks: 25, cachedBlocks: 50, totalBlocks: 100, promptTokens: 400, cachedTokens: 100, ...more,
})

test('lines show load, cached blocks and hit rate', () => {
  const lines = tableLines([row(18446744073709551615n), row(7n, { promptTokens: 0, cachedTokens: 0 })], 200, 20)
  assert.deepEqual(lines[1]?.trim().split(/\s{2,}/), ['18446744073709551615', '0', '2', '1', '25 %', '50/100', '400', '25 %'])
  assert.match(lines[2] ?? '', /-$/)
  assert.equal(lines[3], '2 ranks, 4 running, 2 waiting, hit rate 25 %')
})

test('lines fit a small terminal', () => {
  const lines = tableLines(Array.from({ length: 50 }, (_, index) => row(BigInt(index))), 40, 10)
  assert.equal(lines.length, 10)
  assert.ok(lines.every((text) => text.length < 40))
  assert.match(lines[8] ?? '', /43 more/)
})

test('each drawing replaces the one before, and the cursor comes back', () => {
  const written: string[] = []
  const timers: (() => void)[] = []
  const clock: Clock = { nowMs: () => 0, epochMs: () => 0, setTimer: (_delay, callback) => { timers.push(callback); return { cancel: () => { timers.length = 0 } } } }
  const table = new WorkerTable({ columns: 100, rows: 30, write: (text) => written.push(text) }, clock, () => [row(1n)])
  table.start()
  timers.shift()?.()
  table.stop()
  assert.equal(written[0], '\x1b[?25l')
  assert.ok(written[2]?.startsWith('\x1b[3A\r\x1b[J'), 'three lines up')
  assert.equal(written.at(-1), '\x1b[?25h')
  assert.equal(timers.length, 0)
})
