/** KV events in JetStream: ours beside real routers of 1.1 and 1.3, which take over from each other. */
import assert from 'node:assert/strict'
import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { connect } from '@nats-io/transport-node'
import { jetstreamManager } from '@nats-io/jetstream'
import { freePort, generateRequest, type Deployment, type Driver, type Managed } from '../deployment.ts'
import type { OlderVersion } from '../dynamo-venv.ts'
import { startNats } from './nats-process.ts'
import { randomTokens, routerEndpoint, seeded, workerOf, type OverlapAnswer, type Scenario } from '../scenario.ts'
import { etcdEnv, natsEnv } from './planes.ts'
import { until } from '../../test/until.ts'

type Env = NodeJS.ProcessEnv

const target = ['--endpoint', 'dynamo.backend.generate', '--router-block-size', '16'] as const
const stream = 'namespace-dynamo-component-backend-kv-events'
const bucketStream = 'OBJ_namespace-dynamo-component-backend-radix-bucket'
const durable = (threshold: number): string[] => ['--router-durable-kv-events', '--router-snapshot-threshold', `${threshold}`]

const planes = async (deployment: Deployment): Promise<Env> => ({ ...await etcdEnv(deployment), ...await natsEnv(deployment), DYN_EVENT_PLANE: 'nats' })

/** What JetStream holds, asked directly. */
class Server {
  readonly #connection: Awaited<ReturnType<typeof connect>>
  readonly #manager: Awaited<ReturnType<typeof jetstreamManager>>

  private constructor(connection: Awaited<ReturnType<typeof connect>>, manager: Awaited<ReturnType<typeof jetstreamManager>>) {
    this.#connection = connection
    this.#manager = manager
  }

  static async at(env: Env): Promise<Server> {
    const connection = await connect({ servers: env['NATS_SERVER'] as string })
    return new Server(connection, await jetstreamManager(connection))
  }

  async messages(name: string = stream): Promise<number> {
    return this.#manager.streams.info(name).then(({ state }) => state.messages, () => 0)
  }

  async firstSequence(): Promise<number> {
    return (await this.#manager.streams.info(stream)).state.first_seq
  }

  async consumers(): Promise<string[]> {
    const names: string[] = []
    try {
      // One that goes while it is listed is listed as null.
      for await (const info of this.#manager.consumers.list(stream) as AsyncIterable<{ readonly name: string } | null>) if (info !== null) names.push(info.name)
    } catch (error) {
      if (!/not found/.test((error as Error).message)) throw error
    }
    return names.sort()
  }

  async addConsumer(name: string): Promise<void> {
    await this.#manager.consumers.add(stream, { durable_name: name })
  }

  close(): Promise<void> {
    return this.#connection.close()
  }
}

async function withServer(env: Env, run: (server: Server) => Promise<void>): Promise<void> {
  const server = await Server.at(env)
  try {
    await run(server)
  } finally {
    await server.close()
  }
}

const rows = async (driver: Driver, tokens: readonly number[], endpoint: string): Promise<Map<bigint, number>> => {
  const answer = (await driver.call(endpoint, { token_ids: tokens })).outputs[0] as OverlapAnswer | undefined
  return new Map(answer?.workers.map((row) => [BigInt(row.worker_id), row.device_blocks]))
}

/** Prompts of 2 to 6 blocks, half of them with a common start. */
function prompts(seed: number, count: number): number[][] {
  const random = seeded(seed)
  const root = randomTokens(random, 32)
  return Array.from({ length: count }, (_, index) => [...(index % 2 === 0 ? root : []), 499 - index, ...randomTokens(random, 15 + 16 * (1 + Math.floor(random() * 4)))])
}

interface Sent {
  readonly tokens: readonly number[]
  readonly worker: bigint
}

/** Sends each prompt to a worker, in turns. */
async function fill(driver: Driver, workers: readonly bigint[], tokenLists: readonly (readonly number[])[]): Promise<Sent[]> {
  const sent: Sent[] = []
  for (const [index, tokens] of tokenLists.entries()) {
    const worker = workers[index % workers.length] as bigint
    const { error } = await driver.call('dynamo.backend.generate', generateRequest(tokens, { stop_conditions: { max_tokens: 1 } }), { instance: worker })
    assert.equal(error, null)
    sent.push({ tokens, worker })
  }
  return sent
}

/** Our index says of every prompt that its worker holds it whole. */
const holdsAll = async (driver: Driver, sent: readonly Sent[], endpoint: string = routerEndpoint.overlapScores): Promise<boolean> => {
  for (const { tokens, worker } of sent) if ((await rows(driver, tokens, endpoint)).get(worker) !== Math.floor(tokens.length / 16)) return false
  return true
}

/** Workers in durable mode; gives their ids. */
async function startWorkers(deployment: Deployment, version: OlderVersion, env: Env, driver: Driver): Promise<bigint[]> {
  deployment.olderMocker(version, 'mockers', ['--num-workers', 2, '--durable-kv-events'], env)
  return until('both workers are there', async () => {
    const ids = await driver.instances('dynamo.backend.generate')
    return ids.length === 2 && ids
  }, 60_000)
}

const realRouter = (deployment: Deployment, version: OlderVersion, label: string, threshold: number, env: Env, more: readonly string[] = []): Managed =>
  deployment.olderModule(version, label, 'dynamo.router', ['--endpoint', 'dynamo.backend.generate', '--router-block-size', '16', ...durable(threshold), ...more], { ...env, DYN_LOG: 'debug' })

/** What a router of 1.1 holds of a prompt, per worker: it tells in its log alone, while it chooses. */
async function cachedAt(router: Managed, driver: Driver, tokens: readonly number[]): Promise<Map<bigint, number>> {
  const from = router.log().length
  await driver.call(routerEndpoint.bestWorkerId, tokens)
  const formula = /Formula for worker_id=(\d+) .*with (\d+) cached blocks/g
  const found = (): Map<bigint, number> => new Map(Array.from(router.log().slice(from).matchAll(formula), ([, id, blocks]) => [BigInt(id as string), Number(blocks)]))
  return until('the router of 1.1 tells what it holds', () => (found().size === 2 ? found() : null), 5000)
}

/** A real router holds what the workers hold. */
async function theirsHoldsAll(version: OlderVersion, router: Managed, driver: Driver, sent: readonly Sent[]): Promise<boolean> {
  if (version === '1.3.1') return holdsAll(driver, sent)
  if ((await driver.instances(routerEndpoint.bestWorkerId)).length === 0) return false
  for (const { tokens, worker } of sent) if ((await cachedAt(router, driver, tokens)).get(worker) !== Math.floor(tokens.length / 16)) return false
  return true
}

/** A real router snapshots and dies; ours starts from what it left. Then ours snapshots, and a real one starts from ours. */
async function takesOver(deployment: Deployment, version: OlderVersion): Promise<void> {
  const env = await planes(deployment)
  const driver = await deployment.driver(env)
  const workers = await startWorkers(deployment, version, env, driver)
  await withServer(env, async (server) => {
    const theirs = realRouter(deployment, version, 'theirs', 5, env)
    await until('the real router consumes', async () => (await server.consumers()).length === 1, 60_000)
    const sent = await fill(driver, workers, prompts(7, 16))
    await until('it has made a snapshot and purged the stream', async () => (await server.messages(bucketStream)) > 0 && (await server.messages()) <= 5, 30_000)
    await until('the real router holds what the workers hold', () => theirsHoldsAll(version, theirs, driver, sent), 20_000)
    deployment.signal(theirs, 'SIGKILL')
    await theirs.exited

    const ours = deployment.warmpath('ours', ['router', ...target, ...durable(5)], env)
    await until('ours holds what the workers hold', () => holdsAll(driver, sent), 60_000)
    const before = await server.firstSequence()
    const read = new RegExp(`snapshot of the durable KV events was read.*layout="?${version.slice(0, 3)}`)
    await until('it says that it has read the snapshot', () => read.test(ours.log()))
    assert.doesNotMatch(ours.log(), /indexed approximately/)
    // The dead router's consumer goes with its record, and holds nothing back any longer.
    await until('only our consumer is left', async () => (await server.consumers()).length === 1, 30_000)
    sent.push(...await fill(driver, workers, prompts(8, 16)))
    await until('ours has made a snapshot and purged the stream', async () => (await server.firstSequence()) > before && (await server.messages()) <= 5, 30_000)
    await until('ours holds it all', () => holdsAll(driver, sent))
    assert.equal(await deployment.stop(ours), 0)
    assert.deepEqual(await server.consumers(), [], 'our consumer went with us')

    const again = realRouter(deployment, version, 'theirs-again', 1_000_000, env)
    await until('the real router, from our snapshot, holds what the workers hold', () => theirsHoldsAll(version, again, driver, sent), 60_000)
  })
}

/** Two of ours on one stream: one dies, its consumer is removed, the other goes on; a third starts from the snapshot; reset empties all. */
async function share(deployment: Deployment): Promise<void> {
  const env = await planes(deployment)
  const driver = await deployment.driver(env)
  const workers = await startWorkers(deployment, '1.3.1', env, driver)
  await withServer(env, async (server) => {
    const start = (label: string, more: readonly string[] = durable(5)): Managed => deployment.warmpath(label, ['router', ...target, '--component', label, ...more], env)
    const overlapAt = (label: string): string => `dynamo.${label}.get_overlap_scores`
    const one = start('one')
    const two = start('two')
    await until('both consume', async () => (await server.consumers()).length === 2, 60_000)
    await server.addConsumer('12345')
    const sent = await fill(driver, workers, prompts(17, 20))
    for (const label of ['one', 'two']) await until(`${label} holds all`, () => holdsAll(driver, sent, overlapAt(label)), 30_000)
    deployment.signal(one, 'SIGKILL')
    await until('its consumer is removed', async () => (await server.consumers()).filter((name) => name !== '12345').length === 1, 30_000)
    start('three')
    await until('three holds all', () => holdsAll(driver, sent, overlapAt('three')), 30_000)
    await until('a consumer without a router is removed at the start', async () => !(await server.consumers()).includes('12345'), 10_000)
    sent.push(...await fill(driver, workers, prompts(18, 12)))
    for (const label of ['two', 'three']) await until(`${label} follows`, () => holdsAll(driver, sent, overlapAt(label)), 30_000)
    await until('the stream is cut', async () => (await server.messages()) <= 5, 30_000)

    const four = start('four', [...durable(1_000_000), '--router-reset-states'])
    await until('four serves', () => four.log().includes('Registered endpoint'), 30_000)
    assert.deepEqual([await server.messages(), await server.messages(bucketStream)], [0, 0])
    for (const { tokens } of sent) assert.deepEqual([...(await rows(driver, tokens, overlapAt('four'))).values()], [0, 0])
    assert.ok(await holdsAll(driver, sent, overlapAt('two')), 'those that run keep what they know')
    const fresh = await fill(driver, workers, prompts(19, 4))
    for (const label of ['two', 'four']) await until(`${label} follows on`, () => holdsAll(driver, fresh, overlapAt(label)), 30_000)
    assert.equal(await deployment.stop(two), 0)
    const { outputs } = await driver.call('dynamo.four.generate', generateRequest(fresh[0]?.tokens ?? []))
    assert.equal(workerOf(outputs), fresh[0]?.worker)
  })
}

/**
 * NATS is killed and started again while workers publish: with its store it goes on where it was; without, stream and consumer are made
 * anew, and our router knows then what one that starts afresh knows.
 */
async function natsRestarts(deployment: Deployment): Promise<void> {
  const port = await freePort()
  let nats = await startNats(deployment, port)
  const env = { ...await etcdEnv(deployment), NATS_SERVER: `nats://127.0.0.1:${port}`, DYN_EVENT_PLANE: 'nats' }
  const driver = await deployment.driver(env)
  const workers = await startWorkers(deployment, '1.3.1', env, driver)
  const start = (label: string): Managed => deployment.warmpath(label, ['router', ...target, '--component', label, ...durable(8)], env)
  const overlapAt = (label: string): string => `dynamo.${label}.get_overlap_scores`
  const router = start('long')
  await until('the router consumes', () => router.log().includes('following durable KV events'), 60_000)
  const connections = (): number => router.log().split('connected to NATS again').length - 1
  const restart = async (label: string, keepsStore: boolean): Promise<void> => {
    deployment.signal(nats, 'SIGKILL')
    await nats.exited
    if (!keepsStore) rmSync(join(deployment.folder, 'nats'), { recursive: true })
    nats = await startNats(deployment, port, label)
  }
  /** Both say the same of every prompt. */
  const equals = async (label: string, sent: readonly Sent[]): Promise<boolean> => {
    for (const { tokens } of sent) {
      const [known, fresh] = [await rows(driver, tokens, overlapAt('long')), await rows(driver, tokens, overlapAt(label))]
      if (fresh.size !== 2 || ![...known].every(([id, blocks]) => fresh.get(id) === blocks)) return false
    }
    return true
  }

  const sent = await fill(driver, workers, prompts(27, 12))
  await until('the router holds what the workers hold', () => holdsAll(driver, sent, overlapAt('long')), 20_000)
  await restart('nats-kept', true)
  // What workers publish while NATS is away waits in their client.
  sent.push(...await fill(driver, workers, prompts(28, 12)))
  await until('the router follows on', () => holdsAll(driver, sent, overlapAt('long')), 30_000)
  assert.doesNotMatch(router.log(), /consumer of the durable KV events was gone/)
  start('fresh-kept')
  await until('a fresh router knows the same', () => equals('fresh-kept', sent), 30_000)

  await restart('nats-wiped', false)
  await until('the router is connected again', () => connections() >= 2, 20_000)
  await until('stream and consumer are made anew', () => router.log().includes('consumer of the durable KV events was gone'), 20_000)
  for (const { tokens } of sent) assert.deepEqual([...(await rows(driver, tokens, overlapAt('long'))).values()], [0, 0], 'what the stream held is gone with it')
  const later = await fill(driver, workers, prompts(29, 12))
  await until('the router follows the new stream', () => holdsAll(driver, later, overlapAt('long')), 30_000)
  start('fresh-wiped')
  await until('a fresh router knows the same', () => equals('fresh-wiped', [...sent, ...later]), 30_000)
  await withServer(env, async (server) => {
    await until('each of the three has one consumer', async () => (await server.consumers()).length === 3, 20_000)
    assert.equal(await deployment.stop(router), 0)
    await until('and takes it along', async () => (await server.consumers()).length === 2, 5000)
  })
}

/** What publishers and router disagree on is said once, with the option. */
async function saysMismatch(deployment: Deployment): Promise<void> {
  const env = await planes(deployment)
  const driver = await deployment.driver(env)
  const workers = await startWorkers(deployment, '1.3.1', env, driver)
  const count = (router: Managed, line: string): number => router.log().split(line).length - 1
  await fill(driver, workers, prompts(37, 4))
  const late = deployment.warmpath('late', ['router', ...target, '--component', 'late', '--kv-event-grace', '1'], env)
  await until('the missing option is named', () => count(late, 'Start this router with --router-durable-kv-events') === 1, 60_000)
  await until('both workers are assumed', () => count(late, 'worker is indexed approximately') === 2)
  assert.equal(count(late, 'publish durable KV events'), 1)

  deployment.mocker('plain', ['--endpoint', 'dyn://dynamo.plain.generate'], env)
  const keen = deployment.warmpath('keen', ['router', '--endpoint', 'dynamo.plain.generate', '--router-block-size', '16', '--component', 'keen', ...durable(5)], env)
  await until('the option that has no use is named', () => count(keen, '--router-durable-kv-events: the workers publish their KV events on the event plane') === 1, 60_000)
}

/** A NATS server without JetStream: the start ends with the way out, or, with a folder, goes on and keeps a snapshot there. */
async function withoutJetStream(deployment: Deployment): Promise<void> {
  const port = await freePort()
  const nats = deployment.spawn('nats', 'nats-server', ['-a', '127.0.0.1', '-p', port])
  await until('nats-server is ready', () => nats.log().includes('Server is ready'))
  const env = { NATS_SERVER: `nats://127.0.0.1:${port}` }
  const refused = deployment.warmpath('refused', ['router', ...target, ...durable(5)], env)
  assert.notEqual(await refused.exited, 0)
  assert.match(refused.log(), /has no JetStream.*--state-dir/)
  const folder = join(deployment.folder, 'state')
  const router = await deployment.router([...target, ...durable(5), '--state-dir', folder], { env })
  // Records are there before the log is.
  await until('it says what it does instead', () => router.log().includes('the snapshot in --state-dir is kept instead'))
  const worker = await deployment.worker('w0')
  const driver = await deployment.driver()
  await until('requests are answered', async () => (await driver.call(routerEndpoint.generate, generateRequest([1, 2, 3]))).error === null, 20_000)
  assert.ok(worker.events().some((event) => event.ev === 'request'))
  assert.equal(await deployment.stop(router), 0)
  assert.ok(existsSync(join(folder, 'dynamo.backend.generate.state')))
}

export const durableScenarios: readonly Scenario[] = [
  { name: 'durable-takeover-1.1', older: ['1.1.1'], timeoutSeconds: 200, run: (deployment) => takesOver(deployment, '1.1.1') },
  { name: 'durable-takeover-1.3', older: ['1.3.1'], timeoutSeconds: 200, run: (deployment) => takesOver(deployment, '1.3.1') },
  { name: 'durable-share', older: ['1.3.1'], timeoutSeconds: 200, run: share },
  { name: 'durable-nats-restart', older: ['1.3.1'], timeoutSeconds: 200, run: natsRestarts },
  { name: 'durable-mismatch', older: ['1.3.1'], timeoutSeconds: 150, run: saysMismatch },
  { name: 'durable-without-jetstream', run: withoutJetStream },
]
