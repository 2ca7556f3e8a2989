/** The original's default discovery: a real etcd under router and workers. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { repoRoot } from '../../test/repo-root.ts'
import { freePort, generateRequest, parseLossless, type Deployment, type Managed } from '../deployment.ts'
import { httpPortOf } from './equality.ts'
import { startNats } from './nats-process.ts'
import { routerEndpoint, workerOf, type OverlapAnswer, type Scenario } from '../scenario.ts'
import { until } from '../../test/until.ts'

const prompt = Array.from({ length: 64 }, (_, index) => 300 + index)

/** An etcd on one port and folder, which can be killed and started again. */
export class EtcdProcess {
  readonly #deployment: Deployment
  readonly #port: number
  readonly #peer: number
  #runs = 0
  #process: Managed | null = null

  private constructor(deployment: Deployment, port: number, peer: number) {
    this.#deployment = deployment
    this.#port = port
    this.#peer = peer
  }

  static async at(deployment: Deployment, port: number): Promise<EtcdProcess> {
    if (spawnSync('etcd', ['--version']).error !== undefined) throw new Error('etcd is not installed (Debian: etcd-server)')
    return new EtcdProcess(deployment, port, await freePort())
  }

  async run(): Promise<void> {
    const [url, peerUrl] = [`http://127.0.0.1:${this.#port}`, `http://127.0.0.1:${this.#peer}`]
    this.#runs += 1
    this.#process = this.#deployment.spawn(`etcd-${this.#runs}`, 'etcd', [
      '--data-dir', join(this.#deployment.folder, 'etcd'), '--listen-client-urls', url, '--advertise-client-urls', url,
      '--listen-peer-urls', peerUrl, '--initial-advertise-peer-urls', peerUrl, '--initial-cluster', `default=${peerUrl}`,
    ])
    await until('etcd answers', async () => {
      try {
        return (await fetch(`${url}/health`)).ok
      } catch {
        return false
      }
    })
  }

  async kill(): Promise<void> {
    if (this.#process === null) return
    this.#deployment.signal(this.#process, 'SIGKILL')
    await this.#process.exited
  }

  /** Keys that begin with `prefix`, which ends in a slash. */
  async keyCount(prefix: string): Promise<number> {
    const coded = (text: string): string => Buffer.from(text).toString('base64')
    const reply = await fetch(`http://127.0.0.1:${this.#port}/v3/kv/range`, {
      method: 'POST', body: JSON.stringify({ key: coded(prefix), range_end: coded(`${prefix.slice(0, -1)}0`), count_only: true }),
    })
    return Number(((await reply.json()) as { count?: string }).count ?? 0)
  }
}

/** A running etcd; its records end with the scenario. */
export async function startEtcd(deployment: Deployment, port: number): Promise<EtcdProcess> {
  const etcd = await EtcdProcess.at(deployment, port)
  await etcd.run()
  return etcd
}

async function overEtcd(deployment: Deployment): Promise<void> {
  const port = await freePort()
  const env = { DYN_DISCOVERY_BACKEND: 'etcd', ETCD_ENDPOINTS: `http://127.0.0.1:${port}`, ETCD_LEASE_TTL: '5' }
  // The router comes first, while nothing answers: it says so within 3 s, with the way out, and goes on trying.
  const router = deployment.warmpath('router', ['router', '--endpoint', 'dynamo.backend.generate', '--router-block-size', '16'], env)
  await until('the log says that etcd is not reachable', () => router.log().includes(`127.0.0.1:${port}`) && router.log().includes('DYN_DISCOVERY_BACKEND=file'), 3000)
  const etcd = await startEtcd(deployment, port)
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
  assert.equal(await etcd.keyCount('v1/instances/dynamo/router/'), 0, 'the records went with the router')
}

/** etcd is killed for longer than a lease and started again, twice, while requests run: none is lost, nobody is registered twice. */
async function restartedUnderLoad(deployment: Deployment): Promise<void> {
  const port = await freePort()
  const env = { DYN_DISCOVERY_BACKEND: 'etcd', ETCD_ENDPOINTS: `http://127.0.0.1:${port}`, ETCD_LEASE_TTL: '3' }
  const etcd = await startEtcd(deployment, port)
  const worker = (label: string): Managed => deployment.warmpath(label, ['worker', '--endpoint', 'dynamo.backend.generate', '--model-name', 'tiny', '--block-size', 16], env)
  const workers = [worker('worker-1'), worker('worker-2')]
  const router = deployment.warmpath('router', ['router', '--endpoint', 'dynamo.backend.generate', '--http-port', '0'], env)
  // Over the mirror: the original's client finds nobody while etcd is away.
  const url = `http://127.0.0.1:${await httpPortOf(router)}`
  const post = async (path: string, body: unknown): Promise<string> =>
    (await fetch(`${url}${path}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body), signal: AbortSignal.timeout(20_000) })).text()
  const workerCount = async (): Promise<number> => (JSON.parse(await post('/get_overlap_scores', { token_ids: prompt })) as OverlapAnswer).workers?.length ?? 0
  await until('the router knows both workers', async () => (await workerCount()) === 2, 60_000)
  await until('all have registered', () => router.log().includes('Registered endpoint') && workers.every((each) => each.log().includes('simulated worker serves')))
  let running = true
  const errors: string[] = []
  let answered = 0
  const load = Promise.all(Array.from({ length: 4 }, async () => {
    while (running) {
      const text = await post('/generate', generateRequest(prompt)).catch(String)
      if (/"finish_reason":"(?:length|stop|eos)"/.test(text) && !text.includes('event: error')) answered += 1
      else errors.push(text.slice(0, 300))
    }
  }))
  for (let round = 0; round < 2; round += 1) {
    const losses = (each: Managed): number => each.log().split('the lease in etcd is lost').length
    const lossesBefore = new Map([router, ...workers].map((each) => [each, losses(each)]))
    await etcd.kill()
    const before = answered
    await until('requests go on without etcd, past every lease', () => {
      assert.deepEqual(errors, [])
      return answered > before + 20 && [...lossesBefore].every(([each, count]) => losses(each) > count)
    })
    await etcd.run()
    const back = Date.now()
    await until('everybody has registered again', () => [...lossesBefore.keys()].every((each) => each.log().split('registered again in etcd').length === losses(each)))
    const extra = worker(`worker-new-${round}`)
    await until('a new worker is found', async () => (await workerCount()) === 3 + round, 20_000)
    process.stdout.write(`     found ${((Date.now() - back) / 1000).toFixed(1)} s after etcd came back\n`)
    await until('it has registered', () => extra.log().includes('simulated worker serves'))
    workers.push(extra)
  }
  running = false
  await load
  assert.deepEqual(errors, [])
  assert.equal(await etcd.keyCount('v1/instances/dynamo/backend/generate/'), 4, 'nobody is registered twice')
  assert.equal(await etcd.keyCount('v1/instances/dynamo/router/'), 3)
}

interface ChatAnswer {
  readonly choices?: readonly { readonly finish_reason?: string }[]
  readonly nvext?: { readonly worker_id?: { readonly prefill_worker_id?: number | bigint; readonly decode_worker_id?: number | bigint } }
}

/** Chats without pause at our frontend, through both stages, until it is told to stop. */
class ChatLoad {
  answered = 0
  readonly errors: string[] = []
  /** Workers by stage that have answered. */
  readonly seen = { prefill: new Set<string>(), decode: new Set<string>() }
  readonly #url: string
  #running = true
  #sent = 0

  constructor(port: number) {
    this.#url = `http://127.0.0.1:${port}/v1/chat/completions`
  }

  /** One chat of its own words; what it failed by, or null. */
  async ask(): Promise<string | null> {
    this.#sent += 1
    try {
      const response = await fetch(this.#url, {
        method: 'POST', headers: { 'content-type': 'application/json' }, signal: AbortSignal.timeout(20_000),
        body: JSON.stringify({ model: 'tiny', messages: [{ role: 'user', content: `the river and the bridge ${this.#sent}` }], max_tokens: 5, nvext: { extra_fields: ['worker_id'] } }),
      })
      const [text, prefill] = [await response.text(), response.headers.get('x-warmpath-prefill')]
      if (response.status !== 200 || prefill !== 'remote') return `${response.status} ${prefill} ${text.slice(0, 300)}`
      const { choices, nvext } = parseLossless(text) as ChatAnswer
      if (choices?.[0]?.finish_reason !== 'length') return text.slice(0, 300)
      this.seen.prefill.add(String(nvext?.worker_id?.prefill_worker_id))
      this.seen.decode.add(String(nvext?.worker_id?.decode_worker_id))
      this.answered += 1
      return null
    } catch (error) {
      return String(error)
    }
  }

  /** Four at a time. */
  async run(): Promise<void> {
    await Promise.all(Array.from({ length: 4 }, async () => {
      while (this.#running) {
        const error = await this.ask()
        if (error !== null) this.errors.push(error)
      }
    }))
  }

  stop(): void {
    this.#running = false
  }

  /** Waits for so many more answers, without any error. */
  async more(what: string, count: number, timeoutMs = 30_000): Promise<void> {
    const before = this.answered
    await until(what, () => {
      assert.deepEqual(this.errors.slice(0, 3), [], what)
      return this.answered >= before + count
    }, timeoutMs)
  }
}

/** Frontend, prefill and decode; with `withNats` requests and events go over NATS, which is killed and started again together with etcd. */
async function restartedBetweenStages(deployment: Deployment, withNats: boolean): Promise<void> {
  const [port, natsPort, httpPort] = [await freePort(), await freePort(), await freePort()]
  const env = {
    DYN_DISCOVERY_BACKEND: 'etcd', ETCD_ENDPOINTS: `http://127.0.0.1:${port}`, ETCD_LEASE_TTL: '3',
    ...(withNats ? { NATS_SERVER: `nats://127.0.0.1:${natsPort}`, DYN_REQUEST_PLANE: 'nats', DYN_EVENT_PLANE: 'nats' } : {}),
  }
  const etcd = await startEtcd(deployment, port)
  let nats = withNats ? await startNats(deployment, natsPort) : null
  const worker = (label: string, role: 'prefill' | 'decode'): Managed => deployment.warmpath(label, [
    'worker', '--endpoint', `dynamo.${role === 'prefill' ? 'prefill' : 'backend'}.generate`, '--role', role, '--model-name', 'tiny', '--model-path', deployment.dynamo.modelPath, '--block-size', 16,
  ], env)
  const processes = [worker('prefill-1', 'prefill'), worker('decode-1', 'decode'), deployment.warmpath('frontend', [
    // In turns: by cost the new workers might get nothing, since the others are warm.
    'frontend', '--http-host', '127.0.0.1', '--http-port', httpPort, '--router-mode', 'round-robin',
  ], env)]
  const load = new ChatLoad(httpPort)
  await until('the frontend answers through both stages', async () => (await load.ask()) === null, 60_000)
  const running = load.run()
  await load.more('the load runs', 10)
  const losses = (each: Managed): number => each.log().split('the lease in etcd is lost').length - 1
  if (nats !== null) deployment.signal(nats, 'SIGKILL')
  await etcd.kill()
  await until('every lease is lost', () => processes.every((each) => losses(each) > 0))
  // Over NATS requests wait for it; over TCP they go on.
  if (!withNats) await load.more('requests go on without etcd', 20)
  if (nats !== null) nats = await startNats(deployment, natsPort, 'nats-again')
  await etcd.run()
  const back = Date.now()
  await load.more('requests go on after the return', 10, 5000)
  process.stdout.write(`     ten more answers ${((Date.now() - back) / 1000).toFixed(1)} s after the return\n`)
  await until('everybody has registered again', () => processes.every((each) => each.log().split('registered again in etcd').length - 1 === losses(each)), 5000)
  worker('prefill-2', 'prefill')
  worker('decode-2', 'decode')
  await until('the new workers take their share', () => load.seen.prefill.size === 2 && load.seen.decode.size === 2)
  load.stop()
  await running
  assert.deepEqual(load.errors, [], `of ${load.answered + load.errors.length} requests`)
  for (const name of ['backend', 'prefill']) assert.equal(await etcd.keyCount(`v1/instances/dynamo/${name}/generate/`), 2, `${name}: nobody is registered twice`)
}

/** An etcd that asks for certificates: a real worker and client have them as text, our router as paths. */
async function overTls(deployment: Deployment): Promise<void> {
  const file = (name: string): string => join(repoRoot, 'fixtures', 'tls', name)
  const [port, peer, health] = [await freePort(), await freePort(), await freePort()]
  const [url, peerUrl, healthUrl] = [`https://127.0.0.1:${port}`, `http://127.0.0.1:${peer}`, `http://127.0.0.1:${health}`]
  deployment.spawn('etcd', 'etcd', [
    '--data-dir', join(deployment.folder, 'etcd'), '--listen-client-urls', url, '--advertise-client-urls', url, '--listen-metrics-urls', healthUrl,
    '--listen-peer-urls', peerUrl, '--initial-advertise-peer-urls', peerUrl, '--initial-cluster', `default=${peerUrl}`,
    '--cert-file', file('server.pem'), '--key-file', file('server.key'), '--client-cert-auth', '--trusted-ca-file', file('ca.pem'),
  ])
  await until('etcd answers', () => fetch(`${healthUrl}/health`).then((reply) => reply.ok, () => false))
  const env = (of: (path: string) => string): NodeJS.ProcessEnv => ({
    DYN_DISCOVERY_BACKEND: 'etcd', ETCD_ENDPOINTS: url,
    ETCD_AUTH_CA: of(file('ca.pem')), ETCD_AUTH_CLIENT_CERT: of(file('client.pem')), ETCD_AUTH_CLIENT_KEY: of(file('client.key')),
  })
  const asText = env((path) => readFileSync(path, 'utf8'))
  deployment.mocker('mocker', [], asText)
  const router = deployment.warmpath('router', ['router', '--endpoint', 'dynamo.backend.generate', '--router-block-size', '16'], env((path) => path))
  const driver = await deployment.driver(asText)
  await until('the router knows the worker', async () => {
    const result = await driver.call(routerEndpoint.overlapScores, { token_ids: prompt })
    return (result.outputs[0] as OverlapAnswer | undefined)?.workers.length === 1
  }, 60_000)
  assert.equal((await driver.call(routerEndpoint.generate, generateRequest(prompt))).error, null)
  assert.equal(await deployment.stop(router), 0)
}

export const etcdScenarios: readonly Scenario[] = [
  { name: 'etcd', timeoutSeconds: 180, run: overEtcd },
  { name: 'etcd-tls', run: overTls },
  { name: 'etcd-restart-under-load', timeoutSeconds: 180, run: restartedUnderLoad },
  { name: 'etcd-restart-between-stages', timeoutSeconds: 150, run: (deployment) => restartedBetweenStages(deployment, false) },
  { name: 'etcd-and-nats-restart', timeoutSeconds: 150, run: (deployment) => restartedBetweenStages(deployment, true) },
]
