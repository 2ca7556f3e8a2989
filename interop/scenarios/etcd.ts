/** The original's default discovery: a real etcd under router and workers. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { freePort, generateRequest, until, type Deployment, type Managed } from '../deployment.ts'
import { routerEndpoint, workerOf, type OverlapAnswer, type Scenario } from '../scenario.ts'

const prompt = Array.from({ length: 64 }, (_, index) => 300 + index)

async function startEtcd(deployment: Deployment, port: number): Promise<Managed> {
  if (spawnSync('etcd', ['--version']).error !== undefined) throw new Error('etcd is not installed (Debian: etcd-server)')
  const peer = await freePort()
  const etcd = deployment.spawn('etcd', 'etcd', [
    '--data-dir', join(deployment.folder, 'etcd'), '--listen-client-urls', `http://127.0.0.1:${port}`, '--advertise-client-urls', `http://127.0.0.1:${port}`,
    '--listen-peer-urls', `http://127.0.0.1:${peer}`, '--initial-advertise-peer-urls', `http://127.0.0.1:${peer}`, '--initial-cluster', `default=http://127.0.0.1:${peer}`,
  ])
  await until('etcd answers', async () => {
    try {
      return (await fetch(`http://127.0.0.1:${port}/health`)).ok
    } catch {
      return false
    }
  })
  return etcd
}

async function overEtcd(deployment: Deployment): Promise<void> {
  const port = await freePort()
  const env = { DYN_DISCOVERY_BACKEND: 'etcd', ETCD_ENDPOINTS: `http://127.0.0.1:${port}`, ETCD_LEASE_TTL: '5' }
  // The router comes first, while nothing answers: it says so within 3 s, with the way out, and goes on trying.
  const router = deployment.warmpath('router', ['router', '--endpoint', 'dynamo.backend.generate', '--router-block-size', '16'], env)
  await until('the log says that etcd is not reachable', () => router.log().includes(`127.0.0.1:${port}`) && router.log().includes('DYN_DISCOVERY_BACKEND=file'), 3000)
  await startEtcd(deployment, port)
  const mocker = deployment.mocker('mockers', ['--num-workers', 2], env)
  const driver = await deployment.driver(env)
  await until('the router knows both workers', async () => {
    const result = await driver.call(routerEndpoint.overlapScores, { token_ids: prompt })
    return (result.outputs[0] as OverlapAnswer | undefined)?.workers.length === 2
  }, 60_000)
  const first = await driver.call(routerEndpoint.generate, generateRequest(prompt))
  assert.equal(first.error, null)
  await until('the index follows', async () => {
    const scores = (await driver.call(routerEndpoint.overlapScores, { token_ids: prompt })).outputs[0] as OverlapAnswer
    return scores.workers.some((row) => row.device_blocks === 4)
  })
  assert.equal(workerOf((await driver.call(routerEndpoint.generate, generateRequest(prompt))).outputs), workerOf(first.outputs))
  deployment.signal(mocker, 'SIGKILL')
  await until('the dead workers go with their leases', async () => {
    const scores = (await driver.call(routerEndpoint.overlapScores, { token_ids: prompt })).outputs[0] as OverlapAnswer
    return scores.workers.length === 0
  }, 30_000)
  assert.equal(await deployment.stop(router), 0)
  const keys = spawnSync('curl', ['-s', '-X', 'POST', `http://127.0.0.1:${port}/v3/kv/range`, '-d', JSON.stringify({ key: Buffer.from('v1/instances/dynamo/router/').toString('base64'), range_end: Buffer.from('v1/instances/dynamo/router0').toString('base64'), count_only: true })], { encoding: 'utf8' })
  assert.doesNotMatch(keys.stdout, /"count"/, 'the records went with the router')
}

export const etcdScenarios: readonly Scenario[] = [{ name: 'etcd', timeoutSeconds: 180, run: overEtcd }]
