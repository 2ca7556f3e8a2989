/** Goal: after a restart assumed blocks end when they would have without it. Method: two routers and keepers on one file and one virtual clock. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { silentLog } from '../../test/request-plane-kit.ts'
import { KvRouter } from '../router/kv-router.ts'
import { defaultRouterSettings } from '../router/settings.ts'
import { StateKeeper } from './state-keeper.ts'

const blockSize = 4
const rank = { workerId: 7n, dpRank: 0 }
const common = [1, 2, 3, 4]
const early = Uint32Array.from([...common, 5, 6, 7, 8])
const late = Uint32Array.from([...common, 9, 9, 9, 9])

test('assumed blocks keep their age over a restart, each its own', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'warmpath-state-'))
  t.after(() => rmSync(folder, { recursive: true }))
  let nowMs = 0
  const clock = { nowMs: () => nowMs, epochMs: () => 1_700_000_000_000 + nowMs, setTimer: () => ({ cancel() {} }) }
  const start = (ttlSeconds = 120) => {
    const router = new KvRouter({ ...defaultRouterSettings, blockSize, ttlSeconds, useKvEvents: false }, { clock, random: { float: () => 0, u64: () => [0, 0] } })
    router.upsertWorker({ ...rank, dpStart: 0, dpSize: 1, totalKvBlocks: 100, maxNumBatchedTokens: null, taints: [], topologyDomains: new Map() })
    const keeper = new StateKeeper({
      folder, clock, log: silentLog, endpoint: { namespace: 'a', component: 'b', endpoint: 'c' }, threshold: 1000, reset: false,
      router: () => router, liveOnly: () => null, appliedEvents: () => 0,
    })
    const held = (): number[] => {
      router.tick()
      return [early, late].map((tokens) => router.overlap({ tokens, includeShared: false }).rows[0]?.deviceBlocks ?? 0)
    }
    const route = (tokens: Uint32Array): void => {
      const decision = router.route({ requestId: `${nowMs}`, model: 'm', tokens })
      assert.equal(decision.kind, 'chosen')
      router.free(`${nowMs}`)
    }
    return { router, keeper, held, route }
  }
  const restart = async (ttlSeconds?: number) => {
    const next = start(ttlSeconds)
    await next.keeper.load()
    next.keeper.restoreApproximate(rank)
    return next
  }
  const first = start()
  first.route(early)
  nowMs = 50_000
  first.route(late)
  assert.deepEqual(first.held(), [2, 2])
  nowMs = 60_000
  await first.keeper.write()
  nowMs = 100_000
  const second = await restart()
  assert.deepEqual(second.held(), [2, 2])
  await second.keeper.write()
  nowMs = 119_900
  assert.deepEqual(second.held(), [2, 2])
  nowMs = 120_000
  assert.deepEqual(second.held(), [1, 2], 'the early end is over, what the prompts share lives as long as the late one')
  nowMs = 110_000
  const third = await restart(30)
  nowMs = 139_900
  assert.deepEqual(third.held(), [1, 2])
  nowMs = 140_000
  assert.deepEqual(third.held(), [0, 0], 'never longer than the life of now')
  nowMs = 169_900
  assert.deepEqual(second.held(), [1, 2])
  nowMs = 170_000
  assert.deepEqual(second.held(), [0, 0])
  assert.deepEqual((await restart()).held(), [0, 0], 'nothing of a file whose blocks are all over')
})
