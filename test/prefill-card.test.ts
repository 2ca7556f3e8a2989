/** Goal: a prefill worker's card lays down how its stage is routed. Method: scripted workers on loopback, cards with a `router_config`. */
import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import type { WireValue } from '../src/dynamo/wire/body.ts'
import { encodeData } from '../src/dynamo/wire/items.ts'
import type { Json, JsonObject, RequestHandler } from '../src/ports.ts'
import { SmallDeployment, plainCard, prefillEndpoint, type ScriptedWorker } from './standalone-kit.ts'

let small: SmallDeployment
beforeEach(() => { small = new SmallDeployment() })
afterEach(() => small.close())

const ask: WireValue = { token_ids: Array.from({ length: 160 }, (_, index) => index), stop_conditions: { max_tokens: 1 } }
const answers: RequestHandler = (request, response) => {
  response.writeItem(encodeData({ token_ids: [7], finish_reason: 'length', disaggregated_params: { kv: 1 } }, request.codec))
  response.end()
}
const flags = ['--prefill-endpoint', 'dynamo.prefill.generate', '--no-router-kv-events'] as const

async function deployed(routerConfig: Json): Promise<{ readonly prefills: ScriptedWorker[]; readonly decoders: ScriptedWorker[] }> {
  const card: JsonObject = plainCard({ worker_type: 'prefill', needs: [['decode']], model_type: '', router_config: routerConfig })
  return {
    prefills: await Promise.all([0, 1].map(() => small.worker(answers, { endpoint: prefillEndpoint, card }))),
    decoders: await Promise.all([0, 1].map(() => small.worker(answers, { card: plainCard({ worker_type: 'decode', needs: [['prefill']] }) }))),
  }
}
const counts = (workers: readonly ScriptedWorker[]): number[] => workers.map(({ seen }) => seen.length).sort((left, right) => left - right)
const asked = async (times: number, request: WireValue = ask): Promise<void> => { for (let round = 0; round < times; round += 1) await small.call('dynamo.router.generate', request) }

test('without one, the prefill stage follows its caches, and tracks no blocks', async () => {
  const { prefills } = await deployed(null)
  const { service } = await small.router(flags)
  await asked(6)
  assert.deepEqual(counts(prefills), [0, 6])
  assert.equal(service.prefill?.router?.settings.trackActiveBlocks, false)
})

test('mode, costs and sessions of the card hold for the prefill stage alone', async () => {
  const { prefills, decoders } = await deployed({ router_mode: 'round_robin', kv_router_config: { router_temperature: 0.5, router_track_active_blocks: true }, session_affinity_ttl_secs: 60 })
  const { service } = await small.router(flags)
  await asked(6)
  assert.deepEqual(counts(prefills), [3, 3])
  const settings = service.prefill?.router?.settings
  assert.deepEqual([settings?.selectionMode, settings?.temperature, settings?.trackActiveBlocks, settings?.role], ['round-robin', 0.5, false, 'prefill'])
  assert.deepEqual([service.workers.router?.settings.selectionMode, service.workers.router?.settings.temperature], [undefined, 0])
  await asked(4, { ...(ask as { readonly [key: string]: WireValue }), agent_context: { session_id: 's' } })
  assert.deepEqual(counts(prefills), [3, 7])
  assert.deepEqual([service.prefill?.affinity?.table.size, service.workers.affinity], [1, null])
  assert.equal(counts(decoders).reduce((sum, each) => sum + each), 10)
})

test('one that cannot be used is said, and the own settings count', async () => {
  const { prefills } = await deployed({ router_mode: 'round_robin', colour: 'red' })
  await small.router(flags)
  await asked(6)
  assert.deepEqual(counts(prefills), [0, 6])
  assert.match(small.lines.join(''), /unknown member colour/)
})
