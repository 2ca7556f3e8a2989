/** Goal: over the HTTP API, stages that are skipped, sessions that stay, requests too long to migrate. Method: simulated workers, the HTTP API is asked. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { FrontendDeployment, type RunningFrontend } from './frontend-kit.ts'
import { until } from './until.ts'

const open: FrontendDeployment[] = []
const deployment = (): FrontendDeployment => {
  const made = new FrontendDeployment()
  open.push(made)
  return made
}
after(async () => {
  for (const each of open) await each.close()
})

const prompt = 'the river and the bridge and the town behind it and the light of the morning on the water of the river '.repeat(3)
const chat = (frontend: RunningFrontend, more: object = {}, headers: Readonly<Record<string, string>> = {}): Promise<Response> =>
  fetch(`${frontend.url}/v1/chat/completions`, {
    method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify({ model: 'tiny', messages: [{ role: 'user', content: prompt }], max_tokens: 4, ...more }),
  })
const prefillOf = (response: Response): string | null => response.headers.get('x-warmpath-prefill')
const seenBy = (workers: readonly { readonly worker: { readonly engine: { readonly loads: readonly { readonly promptTokens: number }[] } } }[]): number =>
  workers.filter(({ worker }) => worker.engine.loads.some(({ promptTokens }) => promptTokens > 0)).length

test('a prompt cached on the decode worker skips prefill: header, and the event at the start of the stream', async () => {
  const place = deployment()
  await place.worker({ role: 'prefill' })
  await place.worker({ role: 'decode' })
  const frontend = await place.frontend(['--router-conditional-disagg', '--no-router-kv-events'])
  await frontend.ready()
  const first = await chat(frontend, { stream: true })
  assert.equal(prefillOf(first), 'remote')
  assert.doesNotMatch(await first.text(), /x-bypass/)
  const second = await chat(frontend, { stream: true, nvext: { annotations: ['x-bypass-remote-prefill'] } })
  assert.equal(prefillOf(second), 'bypass')
  const text = await second.text()
  assert.ok(text.startsWith('event: x-bypass-remote-prefill\n: true\n\ndata: '), text.slice(0, 80))
  assert.ok(text.endsWith('data: [DONE]\n\n'))
  const whole = await chat(frontend)
  assert.equal(prefillOf(whole), 'bypass')
  assert.equal(((await whole.json()) as { usage: { completion_tokens: number } }).usage.completion_tokens, 4)
  const metrics = await (await fetch(`${frontend.url}/metrics`)).text()
  assert.match(metrics, /warmpath_conditional_disagg_total\{outcome="bypass",reason="cached"\} 2/)
})

test('the headers of a session keep its requests on one worker of each stage', async () => {
  const place = deployment()
  const prefills = await Promise.all([0, 1, 2].map(() => place.worker({ role: 'prefill' })))
  const decoders = await Promise.all([0, 1, 2].map(() => place.worker({ role: 'decode' })))
  const frontend = await place.frontend(['--router-session-affinity-ttl-secs', '60', '--router-mode', 'round-robin'])
  await frontend.ready()
  for (const headers of [{ 'x-dynamo-session-id': 's' }, { 'x-session-id': 's' }]) for (let round = 0; round < 4; round += 1) assert.equal((await chat(frontend, {}, headers)).status, 200)
  assert.deepEqual([seenBy(prefills), seenBy(decoders)], [1, 1])
  for (let round = 0; round < 6; round += 1) await chat(frontend)
  assert.deepEqual([seenBy(prefills), seenBy(decoders)], [3, 3])
  const tooLong = await chat(frontend, {}, { 'x-dynamo-session-id': 's'.repeat(257) })
  assert.equal(tooLong.status, 400)
  const rank = await chat(frontend, { nvext: { dp_rank: 0 } }, { 'x-dynamo-session-id': 's' })
  assert.equal(rank.status, 400)
  assert.match(await rank.text(), /dp_rank/)
})

test('modes that do not look at caches leave the rank to the engine, unless the caller names one', async () => {
  for (const mode of ['round-robin', 'kv']) {
    const place = deployment()
    await place.worker({ role: 'prefill', settings: { dpSize: 2 } })
    const decode = await place.worker({ role: 'decode', settings: { dpSize: 2 } })
    const frontend = await place.frontend(['--router-mode', mode])
    await frontend.ready()
    const named = async (nvext: object): Promise<object> => {
      const body = JSON.stringify({ model: 'tiny', messages: [{ role: 'user', content: prompt }], max_tokens: 2, nvext: { extra_fields: ['worker_id'], ...nvext } })
      // Ids have more digits than a number keeps.
      const response = await fetch(`${frontend.url}/v1/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: body.replace(/"decode_worker_id":"(\d+)"/, '"decode_worker_id":$1') })
      return ((await response.json()) as { readonly nvext?: { readonly worker_id: object } }).nvext?.worker_id ?? { status: response.status }
    }
    const workers = ['prefill_worker_id', 'decode_worker_id']
    const ranks = ['prefill_dp_rank', 'decode_dp_rank']
    const decoder = decode.worker.instanceId.toString()
    assert.deepEqual(Object.keys(await named({})).sort(), (mode === 'kv' ? [...workers, ...ranks] : workers).sort())
    assert.equal((await named({ decode_worker_id: decoder, dp_rank: 1 }) as { decode_dp_rank?: number }).decode_dp_rank, 1)
    // Without its rank a worker of several is none in particular where ranks are chosen.
    assert.deepEqual(Object.keys(await named({ decode_worker_id: decoder })).sort(), mode === 'kv' ? ['status'] : workers.sort())
  }
})

test('a request longer than the bound does not go on elsewhere', async () => {
  for (const [bound, goesOn] of [['100000', true], ['20', false]] as const) {
    const place = deployment()
    const workers = [await place.worker({ role: 'aggregated', settings: { stepBaseMs: 20 } }), await place.worker({ role: 'aggregated', settings: { stepBaseMs: 20 } })]
    const frontend = await place.frontend(['--migration-max-seq-len', bound])
    await frontend.ready()
    await until(() => [...frontend.assembled.service.models.pools].every(({ workerCount }) => workerCount === 2))
    const response = await chat(frontend, { stream: true, max_tokens: 20 })
    const reader = response.body?.getReader()
    await reader?.read()
    const busy = workers.find(({ worker }) => worker.engine.loads.some(({ promptTokens }) => promptTokens > 0))
    await busy?.die()
    let text = ''
    for (;;) {
      const read = await reader?.read()
      if (read === undefined || read.done) break
      text += new TextDecoder().decode(read.value)
    }
    assert.equal(/"finish_reason":"length"/.test(text), goesOn, bound)
    assert.equal(/"error"/.test(text), !goesOn, bound)
  }
})
