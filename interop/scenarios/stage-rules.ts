/** Rules of the two stages that no recorded run has: prefill skipped by load, soft sessions, a card that lays down its stage's mode. Ours beside the real frontend on the same workers. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { until } from '../../test/until.ts'
import type { Deployment } from '../deployment.ts'
import type { Scenario } from '../scenario.ts'
import { bothFrontends, long, post, type Frontend, type Worker } from './conditional.ts'

interface Seen {
  readonly status: number
  /** Labels of the workers that had the request, and what of it tells of the stages. */
  readonly legs: readonly { readonly worker: string; readonly routing: readonly string[]; readonly annotations: unknown; readonly isHandedOver: boolean }[]
}

/** Where a request went: it is known by its id. */
class Trail {
  readonly #workers: ReadonlyMap<string, Worker>

  constructor(workers: ReadonlyMap<string, Worker>) {
    this.#workers = workers
  }

  legs(id: string): Seen['legs'] {
    return [...this.#workers].flatMap(([label, worker]) => worker.events().filter(({ ev, ctx_id: own }) => ev === 'request' && own === id).map((event) => {
      const request = event['request'] as Readonly<Record<string, unknown>>
      return { worker: label, routing: Object.keys((request['routing'] ?? {}) as object).sort(), annotations: request['annotations'], isHandedOver: (request['prefill_result'] ?? null) !== null }
    }))
  }

  async ask(frontend: Frontend, content: string, more: Readonly<Record<string, unknown>> = {}, headers: Readonly<Record<string, string>> = {}, id: string = randomUUID()): Promise<Seen> {
    const { status } = await post(frontend, content, more, { ...headers, 'x-dynamo-request-id': id })
    return { status, legs: this.legs(id) }
  }
}

async function workersOf(deployment: Deployment, counts: Readonly<Record<'prefill' | 'decode', number>>, flags: Readonly<Partial<Record<'prefill' | 'decode', readonly (string | number)[]>>> = {}): Promise<Map<string, Worker>> {
  const all = (['prefill', 'decode'] as const).flatMap((role) => Array.from({ length: counts[role] }, (_, index) => ({ role, label: `${role}${index}` })))
  const started = await Promise.all(all.map(async ({ role, label }) =>
    [label, await deployment.worker(label, ['--role', role, '--endpoint', `dynamo.${role === 'prefill' ? role : 'backend'}.generate`, ...(flags[role] ?? []).map(String)])] as const))
  return new Map(started)
}

/** A prefill worker with more than a tenth of a batch to compute is busy: the next request skips it, the one after it has rested does not. */
const skippedByLoad = (policy: string) => async (deployment: Deployment): Promise<void> => {
  const workers = await workersOf(deployment, { prefill: 1, decode: 1 }, { prefill: ['--fail', 'slow:5', '--max-batched-tokens', 100] })
  const rules = JSON.stringify({ policy, eff_isl_threshold: 1, eff_isl_ratio_threshold: 0.7, prefill_busy_threshold: 0.1 })
  const frontends = await bothFrontends(deployment, ['--router-conditional-disagg', '--router-conditional-disagg-config', rules])
  const trail = new Trail(workers)
  const [real, ours] = await Promise.all(frontends.map(async (frontend) => {
    await until(`both stages of the ${frontend.name} frontend`, async () => (await trail.ask(frontend, 'hello')).legs.length === 2, 60_000)
    // Once more where the machine was too slow for the second request to meet the first.
    const { first, second } = await until('a request while the prefill worker is busy', async () => {
      const id = randomUUID()
      const before = trail.ask(frontend, long(`${frontend.name} ${id}`), {}, {}, id)
      await until('the prefill worker has the first', () => trail.legs(id).length === 1)
      const meanwhile = await trail.ask(frontend, 'meanwhile', { stream: true })
      const isStillBusy = trail.legs(id).length === 1
      const outcome = { first: await before, second: meanwhile }
      return isStillBusy ? outcome : null
    }, 60_000)
    return { first, second, third: await trail.ask(frontend, 'afterwards') }
  }))
  assert.deepEqual(ours, real)
  assert.deepEqual([ours?.first, ours?.second, ours?.third].map((each) => each?.legs.map(({ worker }) => worker)), [['prefill0', 'decode0'], ['decode0'], ['prefill0', 'decode0']])
  assert.deepEqual(ours?.second.legs[0]?.annotations, ['x-bypass-remote-prefill'])
}

/** A soft session stays where it is, moves when that worker goes, and stays there. */
async function softSessions(deployment: Deployment): Promise<void> {
  const workers = await workersOf(deployment, { prefill: 1, decode: 3 })
  const frontends = await bothFrontends(deployment, ['--router-session-affinity-ttl-secs', 60, '--router-session-affinity-mode', 'soft'])
  const trail = new Trail(workers)
  const session = { 'x-dynamo-session-id': 's' }
  const decoderOf = async (frontend: Frontend, more: Readonly<Record<string, unknown>> = {}): Promise<string> => {
    const { status, legs } = await trail.ask(frontend, long(`turn ${Math.random()}`), more, session)
    return status === 200 ? (legs.find(({ worker }) => worker.startsWith('decode'))?.worker ?? 'none') : `status ${status}`
  }
  const rounds = (frontend: Frontend): Promise<Set<string>> => Array.from({ length: 6 }).reduce<Promise<Set<string>>>(async (before) => (await before).add(await decoderOf(frontend)), Promise.resolve(new Set()))
  const bound: string[] = []
  for (const frontend of frontends) {
    const used = await rounds(frontend)
    assert.equal(used.size, 1, `${frontend.name}: the session stays`)
    bound.push(...used)
  }
  for (const label of new Set(bound)) await deployment.stop((workers.get(label) as Worker).process)
  for (const frontend of frontends) {
    await until(`the ${frontend.name} frontend has another worker`, async () => (await decoderOf(frontend)).startsWith('decode'))
    const moved = await rounds(frontend)
    assert.equal(moved.size, 1, `${frontend.name}: the session has moved once: ${[...moved].join()}`)
    assert.ok(!bound.includes([...moved][0] as string), `${frontend.name}: to a worker that is there: ${[...moved].join()}`)
  }
}

/** The card of the prefill workers says round robin, the frontend's own mode is kv: equal prompts alternate there, and no rank is named. */
async function cardOfPrefill(deployment: Deployment): Promise<void> {
  const workers = await workersOf(deployment, { prefill: 2, decode: 2 }, { prefill: ['--router-mode', 'RoundRobin', '--publish-kv'], decode: ['--publish-kv'] })
  const frontends = await bothFrontends(deployment, [])
  const trail = new Trail(workers)
  const outcomes: unknown[] = []
  for (const frontend of frontends) {
    await until(`both stages of the ${frontend.name} frontend, all workers`, async () => {
      const legs = (await Promise.all(Array.from({ length: 4 }, () => trail.ask(frontend, `spread ${Math.random()}`)))).flatMap((each) => each.legs)
      return new Set(legs.filter(({ worker }) => worker.startsWith('prefill')).map(({ worker }) => worker)).size === 2
    })
    const asked: Seen[] = []
    for (let round = 0; round < 6; round += 1) asked.push(await trail.ask(frontend, long(`card ${frontend.name}`)))
    const stage = (role: string): Seen['legs'] => asked.flatMap(({ legs }) => legs.filter(({ worker }) => worker.startsWith(role)))
    const shares = ['prefill0', 'prefill1'].map((label) => stage('prefill').filter(({ worker }) => worker === label).length)
    outcomes.push({ statuses: asked.map(({ status }) => status), shares, prefill: stage('prefill').map(({ routing }) => routing), decode: stage('decode').map(({ routing }) => routing) })
  }
  assert.deepEqual(outcomes[1], outcomes[0])
  assert.deepEqual((outcomes[1] as { readonly shares: unknown }).shares, [3, 3])
}

export const stageRuleScenarios: readonly Scenario[] = [
  { name: 'stages-prefill-load', run: skippedByLoad('prefill_load') },
  { name: 'stages-isl-or-load', run: skippedByLoad('isl_or_load') },
  { name: 'stages-soft-sessions', run: softSessions },
  { name: 'stages-prefill-card', run: cardOfPrefill },
]
