/** The planes of a deployment in every combination, with real Dynamo on the other side. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdir, rename, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { repoRoot } from '../../test/repo-root.ts'
import { encodeFileKey } from '../../src/dynamo/discovery/file-key.ts'
import { freePort, generateRequest, type Deployment, type Driver, type Managed } from '../deployment.ts'
import { routerEndpoint, workerOf, type OutputMap, type OverlapAnswer, type Scenario } from '../scenario.ts'
import { EtcdProcess } from './etcd.ts'
import { startNats } from './nats-process.ts'
import { until } from '../../test/until.ts'

const prompt = Array.from({ length: 64 }, (_, index) => 100 + index)
const target = ['--endpoint', 'dynamo.backend.generate', '--router-block-size', '16'] as const

/** Starts a ZMQ broker; gives its value of DYN_ZMQ_BROKER_URL, as one of several. */
async function startBroker(deployment: Deployment, label: string): Promise<{ xsub: string; xpub: string }> {
  const [xsub, xpub] = [`tcp://127.0.0.1:${await freePort()}`, `tcp://127.0.0.1:${await freePort()}`]
  const broker = deployment.spawn(label, deployment.dynamo.python, [join(repoRoot, 'interop', 'python', 'zmq_broker.py'), xsub, xpub])
  await until(`${label} is ready`, () => broker.log().includes('ready'))
  return { xsub, xpub }
}

type Env = NodeJS.ProcessEnv

/** What each combination needs, as the environment of all processes. */
const combinations: Readonly<Record<string, (deployment: Deployment) => Promise<Env>>> = {
  'etcd-tcp-zmq': async (deployment) => etcdEnv(deployment),
  'etcd-nats-nats': async (deployment) => ({ ...await etcdEnv(deployment), ...await natsEnv(deployment), DYN_REQUEST_PLANE: 'nats', DYN_EVENT_PLANE: 'nats' }),
  'file-tcp-broker': async (deployment) => brokerEnv(deployment, 1),
  'file-tcp-brokers': async (deployment) => brokerEnv(deployment, 2),
}

export async function etcdEnv(deployment: Deployment): Promise<Env> {
  const port = await freePort()
  await (await EtcdProcess.at(deployment, port)).run()
  return { DYN_DISCOVERY_BACKEND: 'etcd', ETCD_ENDPOINTS: `http://127.0.0.1:${port}`, ETCD_LEASE_TTL: '5' }
}

export async function natsEnv(deployment: Deployment): Promise<Env> {
  const port = await freePort()
  await startNats(deployment, port)
  return { NATS_SERVER: `nats://127.0.0.1:${port}` }
}

async function brokerEnv(deployment: Deployment, count: number): Promise<Env> {
  const brokers = await Promise.all(Array.from({ length: count }, (_, index) => startBroker(deployment, `broker${index}`)))
  return { DYN_ZMQ_BROKER_URL: `xsub=${brokers.map(({ xsub }) => xsub).join(';')} , xpub=${brokers.map(({ xpub }) => xpub).join(';')}` }
}

/** Brokers that are found as records of the namespace, kept fresh in the file store as an owner would, until the scenario's folder goes. */
async function registeredBrokers(deployment: Deployment, count: number): Promise<Env> {
  const bucket = join(deployment.folder, 'kv', 'v1', 'event_channels')
  await mkdir(bucket, { recursive: true })
  for (let index = 0; index < count; index += 1) {
    const { xsub, xpub } = await startBroker(deployment, `broker${index}`)
    const id = 100 + index
    const record = {
      type: 'EventChannel', scope: { kind: 'component', namespace: 'dynamo', component: 'zmq_broker' }, topic: 'broker', instance_id: id,
      transport: { kind: 'ZmqBroker', config: { xsub_endpoints: [xsub], xpub_endpoints: [xpub] } },
    }
    const path = join(bucket, encodeFileKey(`namespace/dynamo/component/zmq_broker/topic/broker/${id.toString(16)}`))
    await writeFile(join(bucket, `.tmp_${id}`), JSON.stringify(record))
    await rename(join(bucket, `.tmp_${id}`), path)
    const timer = setInterval(() => { utimes(path, new Date(), new Date()).catch(() => clearInterval(timer)) }, 1000).unref()
  }
  return { DYN_ZMQ_BROKER_ENABLED: 'true' }
}

/** The real publishers go to the brokers that are registered, and so does our subscription. */
async function findsBrokers(deployment: Deployment): Promise<void> {
  const env = await registeredBrokers(deployment, 2)
  await routes(deployment, env)
  const channels = deployment.records('event_channels', 'namespace/dynamo')
  assert.equal(channels.length, 2, `the brokers alone have channels: ${JSON.stringify(channels.map(({ value }) => value['transport']))}`)
}

const overlap = async (driver: Driver, tokens: readonly number[] = prompt): Promise<OverlapAnswer | undefined> =>
  (await driver.call(routerEndpoint.overlapScores, { token_ids: tokens })).outputs[0] as OverlapAnswer | undefined

const knows = (driver: Driver, count: number): Promise<unknown> =>
  until(`the router knows ${count} workers`, async () => ((await overlap(driver))?.workers.length === count ? true : null), 60_000)

/** The blocks that the index gives a worker, when it gives any the number asked for. */
const indexed = (driver: Driver, blocks: number, tokens: readonly number[] = prompt): Promise<unknown> =>
  until('the index follows', async () => (await overlap(driver, tokens))?.workers.some((row) => row.device_blocks === blocks))

/** Generate, best worker, overlap through events, a router that starts anew, a worker that dies. */
async function routes(deployment: Deployment, env: Env): Promise<void> {
  const mockers = ['m0', 'm1'].map((label) => deployment.mocker(label, ['--num-workers', 1], env))
  let router = deployment.warmpath('router', ['router', ...target], env)
  const driver = await deployment.driver(env)
  await knows(driver, 2)
  const first = await driver.call(routerEndpoint.generate, generateRequest(prompt, { stop_conditions: { max_tokens: 6, ignore_eos: true } }))
  assert.equal(first.error, null)
  assert.equal((first.outputs as OutputMap[]).reduce((sum, output) => sum + output.token_ids.length, 0), 6)
  const warm = workerOf(first.outputs)
  await indexed(driver, 4)
  assert.equal(BigInt((await driver.call(routerEndpoint.bestWorkerId, prompt)).outputs[0] as bigint), warm)
  for (let round = 0; round < 4; round += 1) assert.equal(workerOf((await driver.call(routerEndpoint.generate, generateRequest(prompt))).outputs), warm)
  assert.doesNotMatch(router.log(), /assumed from what is routed|approximate/i, 'events, not assumptions')

  assert.equal(await deployment.stop(router), 0)
  router = deployment.warmpath('router2', ['router', ...target], env)
  await knows(driver, 2)
  await indexed(driver, 4)
  assert.equal(workerOf((await driver.call(routerEndpoint.generate, generateRequest(prompt))).outputs), warm, 'warm after a restart, by what the workers were asked')

  deployment.signal(mockers[0] as Managed, 'SIGKILL')
  for (let round = 0; round < 6; round += 1) {
    const { error } = await driver.call(routerEndpoint.generate, generateRequest([...prompt, round]), { timeoutSeconds: 40 })
    assert.equal(error, null, 'the other worker answers')
  }
  await knows(driver, 1)
  assert.equal(await deployment.stop(router), 0)
}

/** A request goes through both stages, and the next one finds its prompt cached. */
export async function bothStagesServe(driver: Driver, ask: ReturnType<typeof generateRequest>): Promise<void> {
  await until('a request takes both stages', async () => {
    const { outputs, error } = await driver.call(routerEndpoint.generate, ask, { timeoutSeconds: 20 })
    const worker = error === null ? (outputs[0] as OutputMap).routing_data?.worker_id : undefined
    return worker !== undefined && BigInt(worker.prefill_worker_id) !== BigInt(worker.decode_worker_id)
  }, 60_000)
  await until('the prefill index follows', async () => {
    const { outputs } = await driver.call(routerEndpoint.generate, ask)
    return ((outputs.at(-1) as OutputMap).routing_data?.timing?.['kv_hit_rate'] ?? 0) > 0
  })
}

/** Both stages, through our router and through our frontend. */
async function disaggregates(deployment: Deployment, env: Env): Promise<void> {
  deployment.mocker('prefill', ['--disaggregation-mode', 'prefill', '--num-workers', 1], env)
  deployment.mocker('decode', ['--disaggregation-mode', 'decode', '--num-workers', 1], env)
  const router = deployment.warmpath('router', ['router', '--endpoint', 'dynamo.backend.generate', '--prefill-endpoint', 'dynamo.prefill.generate'], env)
  const driver = await deployment.driver(env)
  const ask = generateRequest(prompt, { stop_conditions: { max_tokens: 6, ignore_eos: true } })
  await bothStagesServe(driver, ask)
  assert.equal(await deployment.stop(router), 0)
  const port = await freePort()
  const frontend = deployment.warmpath('frontend', ['frontend', '--http-host', '127.0.0.1', '--http-port', port], env)
  const chat = (): Promise<Response> => fetch(`http://127.0.0.1:${port}/v1/chat/completions`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, signal: AbortSignal.timeout(20_000),
    body: JSON.stringify({ model: 'tiny', messages: [{ role: 'user', content: 'the river and the bridge' }], max_tokens: 5 }),
  })
  await until('the frontend answers through both stages', async () => {
    if (frontend.child.exitCode !== null) throw new Error(frontend.log().slice(-1500))
    try {
      const response = await chat()
      const body = await response.text()
      return response.status === 200 && body.includes('"choices"') && response.headers.get('x-warmpath-prefill')
    } catch {
      return false
    }
  }, 60_000)
}

// ---- Mixed planes, a NATS that comes late or goes, TLS ---------------------------------------------------------------------

const pinned = (id: bigint, tokens: readonly number[]): Record<string, unknown> => generateRequest(tokens, { routing: { backend_instance_id: id } })

/** A worker on TCP and ZMQ and one on NATS serve one endpoint: each is called and heard as its records say. */
async function mixes(deployment: Deployment): Promise<void> {
  const nats = await natsEnv(deployment)
  const overNats = { ...nats, DYN_REQUEST_PLANE: 'nats', DYN_EVENT_PLANE: 'nats' }
  const mockers = [deployment.mocker('tcp', [], {}), deployment.mocker('nats', [], overNats)]
  const ids = await deployment.registered('dynamo/backend/generate', 2, mockers[1], 'mdc')
  // Over TCP and ZMQ itself, and then over NATS itself.
  for (const [label, env] of [['plain', nats], ['bus', overNats]] as const) {
    const router = deployment.warmpath(`router-${label}`, ['router', ...target], env)
    const driver = await deployment.driver(env)
    await knows(driver, 2)
    const tokens = Array.from({ length: 48 }, (_, index) => (label === 'plain' ? 200 : 300) + index)
    for (const id of ids) {
      const { outputs, error } = await driver.call(routerEndpoint.generate, pinned(id, tokens))
      assert.equal(error, null, `${label}: worker ${id}`)
      assert.equal(workerOf(outputs), id)
    }
    await until(`${label}: both are in the index`, async () => (await overlap(driver, tokens))?.workers.filter((row) => row.device_blocks === 3).length === 2)
    assert.equal(await deployment.stop(router), 0)
  }
}

/** The router is there first and says what it waits for; then everything comes up. */
async function natsComesLate(deployment: Deployment): Promise<void> {
  const port = await freePort()
  const env = { NATS_SERVER: `nats://127.0.0.1:${port}`, DYN_REQUEST_PLANE: 'nats', DYN_EVENT_PLANE: 'nats' }
  const router = deployment.warmpath('router', ['router', ...target], env)
  await until('the log says that NATS is not reachable, and the way out', () =>
    router.log().includes(`127.0.0.1:${port}`) && router.log().includes('DYN_REQUEST_PLANE=tcp') && router.log().includes('DYN_EVENT_PLANE=zmq'), 3000)
  await startNats(deployment, port)
  deployment.mocker('mocker', [], env)
  const driver = await deployment.driver(env)
  await knows(driver, 1)
  assert.equal((await driver.call(routerEndpoint.generate, generateRequest(prompt))).error, null)
}

/** NATS dies under load and comes back: open streams end well, requests that came meanwhile wait, callers are served again within 5 s. */
async function natsRestarts(deployment: Deployment): Promise<void> {
  const port = await freePort()
  let nats = await startNats(deployment, port)
  const env = { NATS_SERVER: `nats://127.0.0.1:${port}`, DYN_REQUEST_PLANE: 'nats', DYN_EVENT_PLANE: 'nats' }
  const workers = await Promise.all(['w0', 'w1'].map((label) => deployment.worker(label, ['--num-tokens', '20', '--delay', '0.05'], env)))
  const httpPort = await freePort()
  const router = deployment.warmpath('router', ['router', ...target, '--http-port', String(httpPort)], env)
  const driver = await deployment.driver(env)
  await knows(driver, 2)
  const failures: string[] = []
  const ask = async (index: number): Promise<void> => {
    const response = await fetch(`http://127.0.0.1:${httpPort}/generate`, {
      method: 'POST', signal: AbortSignal.timeout(60_000), body: JSON.stringify(generateRequest([...prompt, index], { stop_conditions: { max_tokens: 20, ignore_eos: true } })),
    })
    const text = await response.text()
    if (response.status !== 200 || !text.includes('finish_reason') || text.includes('"error"')) failures.push(`${response.status} ${text.slice(0, 300)}`)
  }
  const answers: Promise<void>[] = []
  let [isLoading, sent] = [true, 0]
  const load = (async () => {
    while (isLoading && sent < 2000) {
      answers.push(ask(sent))
      sent += 1
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  })()
  const sentAfter = (count: number): Promise<unknown> => until(`${count} more requests`, () => sent >= count)
  await sentAfter(20)
  deployment.signal(nats, 'SIGKILL')
  await nats.exited
  await until('the router says so', () => router.log().includes('is lost; trying again'))
  await sentAfter(sent + 30)
  nats = await startNats(deployment, port, 'nats-again')
  await until('a caller over NATS is served again', async () => (await driver.call(routerEndpoint.generate, generateRequest(prompt), { timeoutSeconds: 5 })).error === null, 5000)
  await sentAfter(sent + 20)
  isLoading = false
  await load
  await Promise.all(answers)
  assert.deepEqual(failures, [], `of ${sent} requests`)
  assert.equal(deployment.records('instances', 'dynamo/router/generate').length, 1)
  // Each request that a worker took was taken once, the retried ones aside.
  assert.ok(workers.every((worker) => worker.events().some((event) => event.ev === 'request')), 'both carried some of the load')
  assert.equal(await deployment.stop(router), 0)
}

/** A private authority, a server and a client certificate of it, made by openssl. */
function certificates(deployment: Deployment): { ca: string; cert: string; key: string; clientCert: string; clientKey: string } {
  const made = spawnSync('bash', [join(repoRoot, 'fixtures', 'tls', 'make.sh'), deployment.folder], { encoding: 'utf8' })
  assert.equal(made.status, 0, `openssl: ${made.stderr}`)
  const path = (name: string): string => join(deployment.folder, name)
  return { ca: path('ca.pem'), cert: path('server.pem'), key: path('server.key'), clientCert: path('client.pem'), clientKey: path('client.key') }
}

/** Requests and responses over TLS, ours with theirs; `mutual`: each side also asks who calls. */
async function speaksTls(deployment: Deployment, mutual: boolean): Promise<void> {
  const { ca, cert, key, clientCert, clientKey } = certificates(deployment)
  const env = {
    DYN_TCP_TLS_CERT_PATH: cert, DYN_TCP_TLS_KEY_PATH: key, DYN_TCP_TLS_CA_CERT_PATH: ca, DYN_TCP_TLS_SERVER_NAME: 'warmpath.test',
    ...(mutual ? { DYN_TCP_TLS_CLIENT_CA_CERT_PATH: ca, DYN_TCP_TLS_CLIENT_CERT_PATH: clientCert, DYN_TCP_TLS_CLIENT_KEY_PATH: clientKey } : {}),
  }
  deployment.mocker('mocker', [], env)
  const router = deployment.warmpath('router', ['router', ...target], env)
  const driver = await deployment.driver(env)
  await knows(driver, 1)
  const { outputs, error } = await driver.call(routerEndpoint.generate, generateRequest(prompt, { stop_conditions: { max_tokens: 6, ignore_eos: true } }))
  assert.equal(error, null)
  assert.equal((outputs as OutputMap[]).reduce((sum, output) => sum + output.token_ids.length, 0), 6)
  await indexed(driver, 4)
  // Who speaks plain TCP, or shows no certificate where one is asked for, gets nothing and is named in the log.
  const { DYN_TCP_TLS_CLIENT_CERT_PATH: _cert, DYN_TCP_TLS_CLIENT_KEY_PATH: _key, ...withoutIdentity } = env as Env
  const stranger = await deployment.driver(mutual ? withoutIdentity : {})
  assert.notEqual((await stranger.call(routerEndpoint.generate, generateRequest(prompt), { timeoutSeconds: 8 })).error, null)
  if (mutual) await until('the log names it', () => /did not complete the TLS handshake/.test(router.log()))
  assert.equal((await driver.call(routerEndpoint.generate, generateRequest(prompt))).error, null)
}

const ofEach = (name: string, run: (deployment: Deployment, env: Env) => Promise<void>): Scenario[] =>
  Object.entries(combinations).map(([combination, prepare]) => ({
    name: `planes-${name}-${combination}`, timeoutSeconds: 180, run: async (deployment) => run(deployment, await prepare(deployment)),
  }))

export const planeScenarios: readonly Scenario[] = [
  ...ofEach('route', routes), ...ofEach('disagg', disaggregates),
  { name: 'planes-route-file-tcp-registered-brokers', timeoutSeconds: 180, run: findsBrokers },
  { name: 'planes-mixed', timeoutSeconds: 150, run: mixes },
  { name: 'planes-nats-late', run: natsComesLate },
  { name: 'planes-nats-restart', timeoutSeconds: 150, run: natsRestarts },
  { name: 'planes-tls', run: (deployment) => speaksTls(deployment, false) },
  { name: 'planes-mtls', run: (deployment) => speaksTls(deployment, true) },
]
