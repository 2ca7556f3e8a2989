import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { WorkerDescription } from '../model/worker.ts'
import { ranksPerWorkerMax, WorkerDirectory } from './worker-directory.ts'

const worker = (workerId: bigint, dpStart: number, dpSize: number): WorkerDescription => ({
  workerId, dpStart, dpSize, totalKvBlocks: null, maxNumBatchedTokens: null, taints: [], topologyDomains: new Map(),
})

test('a dropped slot is given out again only after reuse', () => {
  const directory = new WorkerDirectory()
  directory.upsert(worker(1n, 0, 1))
  const [slot] = directory.remove(1n)
  assert.deepEqual(directory.upsert(worker(2n, 0, 1)).added, [1])
  directory.reuse(slot!)
  assert.deepEqual(directory.upsert(worker(3n, 0, 1)).added, [slot])
})

test('changed ranks: those that stay keep their slots', () => {
  const directory = new WorkerDirectory()
  directory.upsert(worker(1n, 0, 3))
  const before = directory.slotOf(1n, 2)
  const { added, dropped } = directory.upsert(worker(1n, 2, 2))
  assert.deepEqual([directory.slotOf(1n, 2), dropped.length, added.length, directory.slotOf(1n, 0)], [before, 2, 1, -1])
  assert.deepEqual(directory.rankOf(added[0]!), { workerId: 1n, dpRank: 3 })
})

test('slots are listed by worker id beyond 2^53, then rank', () => {
  const directory = new WorkerDirectory()
  for (const id of [2n ** 64n - 1n, 2n ** 53n + 1n, 2n ** 53n]) directory.upsert(worker(id, 0, 2))
  assert.deepEqual([...directory.slots].map((slot) => { const { workerId, dpRank } = directory.rankOf(slot); return `${workerId}.${dpRank}` }), [
    '9007199254740992.0', '9007199254740992.1', '9007199254740993.0', '9007199254740993.1', '18446744073709551615.0', '18446744073709551615.1',
  ])
})

test('a description with absurd ranks is cut to the bound', () => {
  const directory = new WorkerDirectory()
  assert.equal(directory.upsert(worker(1n, 0, 2 ** 32 - 1)).worker.slots.length, ranksPerWorkerMax)
  assert.equal(directory.upsert(worker(2n, 0, 0)).worker.slots.length, 1)
})
