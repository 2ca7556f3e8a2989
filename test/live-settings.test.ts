/** Goal: policies and settings change under load without a failed request, all or nothing. Method: a router over scripted workers on loopback, its files, SIGHUP and its admin API. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { startAdminServer } from '../src/admin/admin-server.ts'
import { openAdmin } from '../src/cli/live-settings-service.ts'
import type { LiveSettings } from '../src/cli/live-settings.ts'
import type { WireValue } from '../src/dynamo/wire/body.ts'
import { encodeData } from '../src/dynamo/wire/items.ts'
import { explanationAnswer } from '../src/standalone/query-endpoints.ts'
import { SmallDeployment, plainCard, type ScriptedWorker } from './standalone-kit.ts'
import { until } from './until.ts'

let small: SmallDeployment
let folder: string
const closing: (() => void | Promise<void>)[] = []
beforeEach(() => {
  small = new SmallDeployment()
  folder = mkdtempSync(join(tmpdir(), 'warmpath-live-'))
})
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
  await small.close()
  rmSync(folder, { recursive: true, force: true })
})

function file(name: string, text: string): string {
  writeFileSync(join(folder, name), text)
  return join(folder, name)
}

const answer = (): Promise<ScriptedWorker> => small.worker((incoming, response) => {
  response.writeItem(encodeData({ token_ids: [1], finish_reason: 'stop' }, incoming.codec))
  response.end()
})
const ask = (): Promise<WireValue[]> => small.call('dynamo.router.generate', { token_ids: [1, 2, 3], stop_conditions: { max_tokens: 1 } })
/** `other`: the score of all other workers; infinite ones are never drawn by a temperature. */
const prefers = (worker: ScriptedWorker, name: string, other = 1): string => `import { definePolicy } from 'warmpath'\nexport default definePolicy({ name: '${name}', score: ({ workerId }) => (workerId === ${worker.id}n ? 0 : ${other}) })\n`

/** Requests one after the other in several streams until it is told to stop. */
function load(streams: number): { readonly failures: unknown[]; readonly sent: () => number; stop(): Promise<void> } {
  const failures: unknown[] = []
  let [sent, going] = [0, true]
  const running = Array.from({ length: streams }, async () => {
    while (going) {
      sent += 1
      await ask().catch((error: unknown) => failures.push(error))
    }
  })
  return { failures, sent: () => sent, stop: async () => { going = false; await Promise.all(running) } }
}

test('a policy is exchanged under load: no request fails, a broken file leaves the old one in force and says why', async () => {
  const [first, second] = [await answer(), await answer()]
  const path = file('policy.js', prefers(first, 'first'))
  // A machine that is busy with other tests is no fault of the policy.
  const { live, metrics } = await small.liveRouter(['--policy', path, '--policy-budget-us', '10000000'])
  await ask()
  const running = load(8)
  await until('requests at the first worker', () => first.seen.length > 50)
  assert.equal(second.seen.length, 0)
  file('policy.js', prefers(second, 'second'))
  await until('requests at the second worker', () => second.seen.length > 50)
  file('policy.js', 'export default {\n  name: "broken",\n  score( { return 1 }\n}\n')
  await until('the broken file is refused', () => live.policies.live.status().refused !== null)
  const before = [first.seen.length, second.seen.length] as const
  await until('requests go on', () => second.seen.length > before[1] + 50)
  assert.equal(first.seen.length, before[0], 'the old policy stays in force')
  assert.match(live.policies.live.status().refused ?? '', /policy\.js:3: SyntaxError/)
  assert.ok(small.lines.some((line) => /policy\.js:3: SyntaxError: .*; the policy second stays in force/.test(line)))
  file('policy.js', 'export default { name: "throws", score() { throw new Error("no") } }\n')
  await until('a policy that throws is in force', () => live.policies.live.slot.counts.exception > 50)
  await running.stop()
  assert.deepEqual(running.failures, [])
  const text = await metrics.text()
  assert.match(text, /warmpath_policy_loads_total\{place="live",outcome="loaded"\} 3/)
  assert.match(text, /warmpath_policy_loads_total\{place="live",outcome="refused"\} 1/)
  assert.match(text, /warmpath_policy_failures_total\{place="live",reason="exception"\} \d\d/)
})

test('the explanation shows which policy decided, and its scores', async () => {
  const workers = [await answer(), await answer()] as const
  const { service } = await small.liveRouter(['--policy', file('policy.js', prefers(workers[1], 'own'))])
  const explained = explanationAnswer(service.workers.router!.select({ requestId: 'r', model: 'm', tokens: Uint32Array.of(1) }))
  assert.deepEqual([explained['worker_id'], explained['choice'], explained['policy']], [workers[1].id, 'policy', { name: 'own', decided: true, why: null, score: 0 }])
  const scores = new Map((explained['candidates'] as { worker_id: bigint; policy_score: number }[]).map((each) => [each.worker_id, each.policy_score]))
  assert.deepEqual([scores.get(workers[0].id), scores.get(workers[1].id)], [1, 0])
  await ask()
  assert.ok(small.lines.some((line) => /Selected worker .*policy=own policy_score=0/.test(line)))
})

test('a shadow policy under load changes nothing and is told of', async () => {
  const workers = [await answer(), await answer()] as const
  const { metrics, live } = await small.liveRouter(['--policy', file('live.js', prefers(workers[0], 'live')), '--policy-shadow', file('shadow.ts', `const best: bigint = ${workers[1].id}n\nexport default { name: 'shadow', score: (candidate: { workerId: bigint }): number => (candidate.workerId === best ? 0 : 3) }\n`)])
  for (let call = 0; call < 5; call += 1) await ask()
  assert.equal(workers[1].seen.length, 0)
  assert.match(await metrics.text(), /warmpath_policy_shadow_decisions_total\{outcome="disagree"\} 5/)
  assert.match(await metrics.text(), /warmpath_policy_shadow_regret_sum 15/)
  live.close()
  assert.ok(small.lines.some((line) => line.includes('the shadow policy shadow would have chosen otherwise in 5 of 5 decisions')))
})

test('SIGHUP reads config, policy classes and policy anew, all or nothing', async () => {
  const [first, second] = [await answer(), await answer()]
  const policy = file('policy.js', prefers(first, 'own', Infinity))
  const config = file('config.yaml', `router-temperature: 0\npolicy: ${policy}\n`)
  const classes = (name: string): string => `default_policy_family: all\nuncached_isl_buckets:\n  - { min_tokens: 0, bucket: any }\npolicy_classes:\n  - { name: ${name}, policy_family: all, cache_bucket: any, quantum: 1, prefill_busy_threshold: 100 }\n`
  const { live, service } = await small.liveRouter(['--config', config, '--router-policy-config', file('classes.yaml', classes('old'))])
  await ask()
  const { router } = service.workers
  assert.deepEqual(router?.queueReport().map(({ policyClass }) => policyClass), ['old'])
  file('config.yaml', `router-temperature: 0.5\npolicy: ${policy}\nhttp-port: 1\n`)
  file('classes.yaml', classes('new'))
  process.kill(process.pid, 'SIGHUP')
  await until('the second generation', () => live.generation === 2)
  assert.equal(router?.settings.temperature, 0.5)
  assert.deepEqual(router?.queueReport().map(({ policyClass }) => policyClass), ['new'])
  assert.ok(small.lines.some((line) => line.includes('router-temperature changed from 0 to 0.5')))
  assert.ok(small.lines.some((line) => /cannot change while running and count from the next start on: http-port/.test(line)))

  file('config.yaml', `router-temperature: 0.9\npolicy: ${policy}\n`)
  file('classes.yaml', 'policy_classes: 3\n')
  process.kill(process.pid, 'SIGHUP')
  await until('the refusal', () => live.counts.reload.refused === 1)
  assert.deepEqual([live.generation, router?.settings.temperature], [2, 0.5], 'nothing has changed')
  assert.ok(small.lines.some((line) => /the settings could not be read anew: .*classes\.yaml/.test(line)))

  file('classes.yaml', classes('new'))
  file('policy.js', 'export default 1\n')
  assert.deepEqual((await live.reload()).kind, 'refused')
  assert.equal(router?.settings.temperature, 0.5, 'a policy that cannot be used holds all the rest')
  await ask()
  assert.equal(second.seen.length, 0)
})

interface Reply {
  readonly status: number
  readonly body: { readonly [key: string]: unknown; readonly error?: { readonly message: string; readonly problems?: readonly { field: string; message: string }[] } }
}

async function admin(live: LiveSettings<'router'>): Promise<(method: string, path: string, body?: unknown, headers?: Record<string, string>) => Promise<Reply>> {
  const close = await openAdmin(live, small.log)
  if (close === null) throw new Error('no admin API')
  closing.push(close)
  const url = /admin API: (http:\S+)\/settings/.exec(small.lines.join(''))?.[1] ?? ''
  return (method, path, body, headers = {}) => new Promise((resolve, reject) => {
    const call = request(`${url}${path}`, { method, headers: { ...headers }, agent: false }, (response) => {
      let text = ''
      response.on('data', (chunk: Buffer) => { text += chunk.toString() })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: text === '' ? {} : JSON.parse(text) as Reply['body'] }))
    })
    call.on('error', reject)
    call.end(body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body))
  })
}

test('the admin API shows settings with their sources, and changes them all or not at all', async () => {
  await answer()
  const token = { authorization: 'Bearer secret-1' }
  const { live, service, metrics } = await small.liveRouter(['--admin-port', '0', '--admin-token-file', file('token', 'secret-1\n'), '--router-temperature', '0.25'], { DYN_ROUTER_PREFILL_LOAD_SCALE: '2' })
  await ask()
  const router = service.workers.router!
  const call = await admin(live)
  const { settings } = (await call('GET', '/settings')).body as { settings: Record<string, { value: unknown; source: string; from: string | null; live: boolean }> }
  assert.deepEqual(settings['router-temperature'], { value: 0.25, source: 'flag', from: '--router-temperature', live: true })
  assert.deepEqual(settings['router-prefill-load-scale'], { value: 2, source: 'env', from: 'DYN_ROUTER_PREFILL_LOAD_SCALE', live: true })
  assert.deepEqual(settings['router-block-size'], { value: null, source: 'default', from: null, live: false })

  const changed = await call('PATCH', '/settings', { 'router-temperature': 0.5, active_prefill_tokens_threshold: 0, 'router-queue-threshold': 0.5 }, token)
  assert.deepEqual(changed, { status: 200, body: { generation: 2, changed: [
    { name: 'router-temperature', from: 0.25, to: 0.5 }, { name: 'router-queue-threshold', from: null, to: 0.5 }, { name: 'active-prefill-tokens-threshold', from: null, to: 0 },
  ] } })
  assert.deepEqual([router.settings.temperature, router.settings.prefillLoadScale], [0.5, 2])
  assert.match(await metrics.text(), /warmpath_settings_generation 2/)
  router.route({ requestId: 'heavy', model: 'm', tokens: new Uint32Array(5000) })
  const refused = router.route({ requestId: 'r', model: 'm', tokens: Uint32Array.of(1) })
  assert.equal(refused.kind === 'refused' && refused.reason, 'all-overloaded')
  router.free('heavy')

  const problems = await call('PATCH', '/settings', { 'router-temperature': -1, 'router-temprature': 1, 'router-block-size': 64, 'router-prefill-load-scale': 3 }, token)
  assert.equal(problems.status, 400)
  assert.deepEqual(problems.body.error?.problems, [
    { field: 'router-temperature', message: 'router-temperature: -1 is not valid; expected a finite number, 0 or more' },
    { field: 'router-temprature', message: 'unknown setting "router-temprature" (did you mean router-temperature?); GET /settings lists them' },
    { field: 'router-block-size', message: 'router-block-size cannot change while running; restart with --router-block-size' },
  ])
  assert.deepEqual([router.settings.temperature, router.settings.prefillLoadScale, live.generation], [0.5, 2, 2], 'the good one among them neither')

  const unknown = await call('PATCH', '/settings', { 'router-decode-policy': 'nobody', 'router-temperature': 0.7 }, token)
  assert.equal(unknown.status, 400)
  assert.match(unknown.body.error?.problems?.[0]?.message ?? '', /PATCH \/settings: router-decode-policy: no selection policy is named "nobody"/)
  assert.equal(unknown.body.error?.problems?.[0]?.field, 'router-decode-policy')
  const absent = await call('PATCH', '/settings', { policy: join(folder, 'absent.js'), 'router-temperature': 0.7 }, token)
  assert.match(absent.body.error?.problems?.[0]?.message ?? '', /^--policy \S+absent\.js: cannot be read/)
  assert.equal(absent.body.error?.problems?.[0]?.field, 'policy')
  assert.equal(router.settings.temperature, 0.5)

  await live.reload()
  assert.equal(router.settings.temperature, 0.5, 'a change outlives SIGHUP')
  assert.equal((await call('PATCH', '/settings', { 'router-temperature': null, 'active-prefill-tokens-threshold': 'None' }, token)).status, 200)
  assert.deepEqual([router.settings.temperature, live.config.values.activePrefillTokensThreshold], [0.25, null])
  assert.deepEqual(live.counts.admin, { applied: 2, refused: 3 })
})

test('a policy comes and goes over the admin API', async () => {
  const [first, second] = [await answer(), await answer()]
  const { live } = await small.liveRouter(['--admin-port', '0', '--admin-token-file', file('token', 'secret-1')])
  const call = await admin(live)
  const token = { authorization: 'Bearer secret-1' }
  assert.equal((await call('PATCH', '/settings', { policy: file('policy.js', prefers(second, 'own')) }, token)).status, 200)
  for (let count = 0; count < 4; count += 1) await ask()
  assert.deepEqual([first.seen.length, second.seen.length], [0, 4])
  file('policy.js', prefers(first, 'own'))
  assert.equal((await call('POST', '/reload', undefined, token)).status, 200)
  await ask()
  assert.deepEqual([first.seen.length, second.seen.length], [1, 4])
  const { policies } = (await call('GET', '/settings')).body as { policies: { live: { name: string; generation: number } } }
  assert.deepEqual([policies.live.name, policies.live.generation], ['own', 2])
  assert.equal((await call('PATCH', '/settings', { policy: null }, token)).status, 200)
  assert.equal(live.policies.live.slot.policy, null)
})

test('writes need the token, and nobody is let in by a name of his own', async () => {
  await answer()
  const { live } = await small.liveRouter(['--admin-port', '0', '--admin-token-file', file('token', 'secret-1')])
  const call = await admin(live)
  const body = { 'router-temperature': 1 }
  assert.equal((await call('PATCH', '/settings', body)).status, 401)
  assert.equal((await call('PATCH', '/settings', body, { authorization: 'Bearer secret-2' })).status, 401)
  assert.equal((await call('POST', '/reload')).status, 401)
  assert.equal((await call('GET', '/settings', undefined, { host: 'attacker.example' })).status, 403)
  assert.equal((await call('PATCH', '/settings', '{', { authorization: 'Bearer secret-1' })).status, 400)
  assert.match((await call('PATCH', '/settings', {}, { authorization: 'Bearer secret-1' })).body.error?.problems?.[0]?.message ?? '', /send names and values/)
  assert.equal((await call('PATCH', '/settings', 'x'.repeat(70_000), { authorization: 'Bearer secret-1' })).status, 413)
  assert.equal((await call('DELETE', '/settings')).status, 405)
  assert.equal((await call('GET', '/else')).status, 404)
  file('token', 'secret-2')
  assert.equal((await call('PATCH', '/settings', body, { authorization: 'Bearer secret-2' })).status, 200, 'the token may change')
  assert.equal(live.generation, 2)
  const target = { report: () => ({}), patch: () => Promise.reject(new Error('no')), reload: () => Promise.reject(new Error('no')) }
  await assert.rejects(startAdminServer({ port: 0, tokenFile: file('empty', '\n'), target, log: small.log }), /expected a token/)
})

test('a policy that cannot be used ends the start', async () => {
  await assert.rejects(small.liveRouter(['--policy', file('policy.js', 'export default 1\n')]), /^UsageError: --policy .*policy\.js: the default export is a number/)
})

test('waiting requests move with the classes', async () => {
  await small.worker(() => {}, { card: plainCard() })
  const { live, service } = await small.liveRouter(['--admin-port', '0', '--admin-token-file', file('token', 't'), '--router-queue-threshold', '0'])
  const call = await admin(live)
  await until('a worker', () => service.workers.router !== null)
  const router = service.workers.router!
  router.route({ requestId: 'busy', model: 'm', tokens: new Uint32Array(100) })
  let decided = ''
  assert.equal(router.submit({ requestId: 'waits', model: 'm', tokens: new Uint32Array(10) }, (outcome) => { decided = outcome.kind }).kind, 'parked')
  await call('PATCH', '/settings', { 'router-queue-policy': 'wspt' }, { authorization: 'Bearer t' })
  assert.deepEqual([router.parkedCount, decided], [1, ''])
  await call('PATCH', '/settings', { 'router-queue-threshold': 'None' }, { authorization: 'Bearer t' })
  assert.deepEqual([router.parkedCount, decided], [0, 'chosen'])
})
