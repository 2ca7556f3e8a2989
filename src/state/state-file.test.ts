/** Goal: a state comes back as it was, or is refused by name. Method: round trips, and every way a file can be wrong. */
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import fc from 'fast-check'
import { fixturePath } from '../../test/repo-root.ts'
import { hashListOf } from '../model/hash-list.ts'
import type { RouterEvent } from '../model/kv-event.ts'
import { decodeState, encodeState, readState, StateFileError, writeState, type KeptState } from './state-file.ts'

const stored = (workerId: bigint, dpRank: number, block: bigint): RouterEvent => ({
  workerId, dpRank, storageTier: 'device', residencyDomain: 'absent', eventId: 0n,
  data: { kind: 'stored', parentHash: null, startPosition: null, blockHashes: hashListOf([block]), tokensHashes: hashListOf([block + 1n]), mmInfos: null },
})

const big = 2n ** 63n + 5n
const state: KeptState = {
  target: 'dynamo.backend.generate', blockSize: 16, isEagle: false, writtenAtMs: 1_700_000_000_123,
  ranks: [
    { workerId: big, dpRank: 0, lastEventId: null, events: [stored(big, 0, 2n ** 60n), stored(big, 0, 2n ** 61n)], livesMs: [119_900, 0] },
    { workerId: 7n, dpRank: 1, lastEventId: big, events: [stored(7n, 1, 2n ** 62n)], livesMs: null },
    { workerId: 8n, dpRank: 0, lastEventId: null, events: [], livesMs: null },
  ],
}

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'warmpath-state-'))
  t.after(() => rmSync(path, { recursive: true }))
  return path
}

test('a state is written whole and read as it was', async (t) => {
  const path = join(folder(t), 'below', 'a.state')
  assert.equal(await readState(path), null)
  await writeState(path, { ...state, ranks: [] })
  await writeState(path, state)
  assert.deepEqual(await readState(path), state)
  assert.deepEqual(readdirSync(join(path, '..')), ['a.state'], 'nothing else is left')
})

test('torn, foreign, newer and damaged files are refused by name', async (t) => {
  const path = join(folder(t), 'a.state')
  const bytes = Buffer.from(encodeState(state))
  const damaged = Buffer.from(bytes)
  damaged[damaged.length - 3] = (damaged[damaged.length - 3] as number) ^ 1
  const cases: [Uint8Array, RegExp][] = [
    [bytes.subarray(0, bytes.length - 1), /torn/], [bytes.subarray(0, 60), /torn/], [damaged, /checksum/],
    [Buffer.from('SQLite format 3\n'), /not a file of this program/], [Buffer.alloc(0), /not a file of this program/],
    [Buffer.from(bytes.toString('latin1').replace('warmpath-state 2', 'warmpath-state 3'), 'latin1'), /version 3/],
    [Buffer.from(bytes.toString('latin1').replace('"blockSize":16', '"blockSize":"x"'), 'latin1'), /lacks a field/],
  ]
  for (const [content, message] of cases) {
    writeFileSync(path, content)
    await assert.rejects(readState(path), (error) => error instanceof StateFileError && message.test(error.message))
    assert.deepEqual(readFileSync(path), Buffer.from(content), 'reading changes nothing')
  }
})

test('a file of version 1 is read: it knows no lives', () => {
  const before = readFileSync(fixturePath('state', 'version-1.state'))
  const { ranks, ...rest } = decodeState(before)
  assert.deepEqual(rest, { target: 'dynamo.backend.generate', blockSize: 16, isEagle: false, writtenAtMs: 1_700_000_000_123 })
  assert.deepEqual(ranks, state.ranks.map((rank) => ({ ...rank, livesMs: null })))
})

test('whatever the bytes: a state or a StateFileError', () => {
  const whole = encodeState(state)
  fc.assert(fc.property(fc.nat(whole.length - 1), fc.nat(255), fc.boolean(), (at, byte, cuts) => {
    const bytes = cuts ? whole.slice(0, at) : whole.slice()
    if (!cuts) bytes[at] = byte
    try {
      decodeState(bytes)
    } catch (error) {
      assert.ok(error instanceof StateFileError, String(error))
    }
  }), { numRuns: 1000 })
})
