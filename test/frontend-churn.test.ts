/** Goal: workers killed, stopped and added while streams run cost no request. Method: a change of workers after every few answers, at least one alive per pool. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FrontendDeployment, type DeployedWorker } from './frontend-kit.ts'
import { until } from './until.ts'

const streams = 20
const requestsPerStream = 8
const changeEvery = 8
const settings = { stepBaseMs: 2 }

test('churn: every stream has all its tokens and an end, and nothing stays booked', async () => {
  const place = new FrontendDeployment()
  try {
    const pools: Record<'prefill' | 'decode', DeployedWorker[]> = { prefill: [], decode: [] }
    for (const role of ['prefill', 'prefill', 'decode', 'decode', 'decode'] as const) pools[role].push(await place.worker({ role, settings }))
    const frontend = await place.frontend(['--retry-limit', '6', '--migration-limit', '6'])
    await frontend.ready()
    const ends: Promise<void>[] = []
    let done = 0
    let step = 0
    /** In turn: one more, one stopped, one more, one killed; prefill and decode alternating. */
    const change = async (): Promise<void> => {
      const at = step++
      const role = at % 2 === 0 ? 'prefill' : 'decode'
      const pool = pools[role]
      const kind = (['add', 'stop', 'add', 'kill'] as const)[(at >> 1) % 4]
      if (kind === 'add' || pool.length < 2) pool.push(await place.worker({ role, settings }))
      else {
        const gone = pool.shift()
        if (gone === undefined) return
        if (kind === 'kill') await gone.die()
        ends.push(gone.leave())
      }
    }
    const stream = async (index: number): Promise<void> => {
      for (let n = 0; n < requestsPerStream; n += 1) {
        const tokens = 5 + ((index * 7 + n * 13) % 40)
        const messages = [{ role: 'user', content: `the river ${index % 5} and the town ${'behind it '.repeat(n)}` }]
        const response = await frontend.post('/v1/chat/completions', { model: 'tiny', stream: true, stream_options: { include_usage: true }, max_tokens: tokens, messages })
        const text = await response.text()
        assert.equal(response.status, 200, text)
        assert.doesNotMatch(text, /"error"/)
        assert.match(text, /\[DONE\]/)
        assert.equal(Number(/"completion_tokens":(\d+)/.exec(text)?.[1]), tokens)
        done += 1
        if (done % changeEvery === 0) await change()
      }
    }
    await Promise.all(Array.from({ length: streams }, (_, index) => stream(index)))
    assert.ok(step >= 16)
    await Promise.all(ends)
    const { models } = frontend.assembled.service
    await until(() => models.activeCount === 0 && [...models.pools].every(({ routed }) => (routed.router?.bookingCount ?? 0) === 0))
  } finally {
    await place.close()
  }
})
