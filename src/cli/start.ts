/** `warmpath start`: simulated prefill and decode workers, router and OpenAI-compatible API in one process. Needs no other service. */
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseCommand, type ParsedConfig } from '../config/parse-command.ts'
import { UsageError } from '../config/usage-error.ts'
import { MemoryDiscovery, MemoryStore } from '../dynamo/discovery/memory-discovery.ts'
import { createZmqEventPlane } from '../dynamo/event-plane/zmq-event-plane.ts'
import { createTcpRequestClient } from '../dynamo/request-plane/tcp-client.ts'
import { createTcpRequestServer } from '../dynamo/request-plane/tcp-server.ts'
import { outputVocabularySize, writeDemoModel } from '../engines/simulated/demo-model.ts'
import type { SimulatedRole } from '../engines/simulated/model-card.ts'
import { readModelFiles, type ModelFiles } from '../worker/model-files.ts'
import { startSimulatedWorker, type SimulatedWorker } from '../engines/simulated/worker.ts'
import { mirrorService } from '../frontend/mirror-service.ts'
import { createHttpRoutes } from '../http/http-mirror.ts'
import { createLog, type ProcessLog } from '../observability/log.ts'
import { createOpenAiServer, type OpenAiServer } from '../openai/openai-server.ts'
import type { Clock, EventPlane, Random, RequestPlaneServer } from '../ports.ts'
import { systemClock, systemRandom } from '../system-ports.ts'
import { assembleFrontend, type AssembledFrontend } from './assemble-frontend.ts'
import { httpListenError } from './listen-error.ts'
import { engineSettingsOf } from './simulated-engine-options.ts'
import { WorkerTable, type WorkerRow } from './worker-table.ts'

type Environment = Readonly<Record<string, string | undefined>>
type Config = ParsedConfig<'start'>

const host = '127.0.0.1'
/** Both together stay below a second. Units: ms. */
const httpCloseMs = 300
const drainMs = 300
const readyDeadlineMs = 20_000

interface Place {
  readonly store: MemoryStore
  readonly clock: Clock
  readonly random: Random
  readonly log: ProcessLog
}

/** Runs until Ctrl-C or SIGTERM. Gives the exit code. Errors: `UsageError`; the HTTP port asked for is busy. */
export async function runStart(argv: readonly string[], env: Environment): Promise<number> {
  const config = await parseCommand('start', argv, env, (path) => readFileSync(path))
  if (config.kind !== 'config') return 0
  const prefillWorkers = config.sources['prefillWorkers']
  if (config.values.aggregated && prefillWorkers?.kind !== 'default') {
    throw new UsageError(`${prefillWorkers?.kind === 'file' ? 'prefill-workers' : prefillWorkers?.name}: --aggregated workers have no prefill stage; leave one of the two out`)
  }
  const showTable = config.values.table && process.stdout.isTTY
  const isQuiet = showTable && config.sources['log']?.kind === 'default'
  const log = createLog({ level: isQuiet ? 'warn' : config.values.log, jsonl: config.values.logJson })
  for (const warning of config.warnings) log.warn({ stage: 'config' }, warning)
  const signalled = new Promise<void>((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => resolve())
  })
  const place: Place = { store: new MemoryStore(log), clock: systemClock(), random: systemRandom(), log }
  const closing: (() => Promise<void>)[] = []
  try {
    const workers = await startWorkers(config, place, closing)
    const frontend = await startFrontend(config, place, closing)
    const server = await openApi(config, frontend, place)
    closing.push(() => server.close(httpCloseMs))
    await Promise.race([untilReady(frontend, place.clock), signalled])
    process.stdout.write(announcement(config, server.url))
    const table = showTable ? new WorkerTable(process.stdout, place.clock, () => tableRows(workers)) : null
    table?.start()
    await signalled
    table?.stop()
    process.stdout.write('stopping\n')
    return 0
  } finally {
    for (const close of closing.reverse()) await close()
    log.flush()
  }
}

const namespace = 'dynamo'

/** Workers of one process each have an identity of their own; they share listener and event plane. */
async function startWorkers(config: Config, place: Place, closing: (() => Promise<void>)[]): Promise<SimulatedWorker[]> {
  const { values } = config
  const { store, clock, random, log } = place
  const shared = new MemoryDiscovery(store)
  await shared.start(AbortSignal.timeout(5000))
  const server = createTcpRequestServer({ clock, log, host })
  const eventPlane = createZmqEventPlane({ discovery: shared, clock, random, log, host, ioThreads: 1 })
  closing.push(() => server.close(), () => eventPlane.close())
  await server.start(AbortSignal.timeout(5000))
  const files = await demoFiles(config, closing)
  const many = (role: SimulatedRole, count: number): Promise<SimulatedWorker>[] =>
    Array.from({ length: count }, () => startWorker(config, role, { place, server, eventPlane, files, closing }))
  return Promise.all(values.aggregated ? many('aggregated', values.workers) : [...many('prefill', values.prefillWorkers), ...many('decode', values.workers)])
}

/** The workers' model in a folder of its own, as the cards of real workers name one. */
async function demoFiles(config: Config, closing: (() => Promise<void>)[]): Promise<ModelFiles> {
  const folder = await mkdtemp(join(tmpdir(), 'warmpath-model-'))
  closing.push(() => rm(folder, { recursive: true, force: true }))
  await writeDemoModel(folder, engineSettingsOf(config.values).contextLength)
  return readModelFiles(folder)
}

interface Shared {
  readonly place: Place
  readonly server: RequestPlaneServer
  readonly eventPlane: EventPlane
  readonly files: ModelFiles
  readonly closing: (() => Promise<void>)[]
}

const componentByRole: Readonly<Record<SimulatedRole, string>> = { aggregated: 'backend', prefill: 'prefill', decode: 'decode' }

async function startWorker({ values }: Config, role: SimulatedRole, { place, server, eventPlane, files, closing }: Shared): Promise<SimulatedWorker> {
  const { store, clock, log } = place
  const discovery = new MemoryDiscovery(store)
  await discovery.start(AbortSignal.timeout(5000))
  const endpoint = { namespace, component: componentByRole[role], endpoint: 'generate' }
  const settings = engineSettingsOf(values, { vocabularySize: outputVocabularySize })
  const worker = await startSimulatedWorker({ endpoint, modelName: values.modelName, role, settings, kvEvents: values.kvEvents, files }, { discovery, server, eventPlane, clock, log })
  closing.push(() => worker.drain({ graceMs: 0, timeoutMs: drainMs }))
  return worker
}

/** The same frontend as `warmpath frontend`, with its default options. */
async function startFrontend({ values }: Config, { store, clock, random, log }: Place, closing: (() => Promise<void>)[]): Promise<AssembledFrontend> {
  const config = await parseCommand('frontend', [
    '--http-host', values.httpHost, '--http-port', String(values.httpPort), values.kvEvents ? '--router-kv-events' : '--no-router-kv-events',
  ], { DYN_RUNTIME_GRACEFUL_SHUTDOWN_TIMEOUT_SECS: String(drainMs / 1000) }, (path) => readFileSync(path))
  if (config.kind !== 'config') throw new Error('the frontend has no defaults')
  const discovery = new MemoryDiscovery(store)
  await discovery.start(AbortSignal.timeout(5000))
  const frontend = assembleFrontend(config, {
    discovery, clock, random, log,
    client: createTcpRequestClient({ clock, log, host }),
    eventPlane: createZmqEventPlane({ discovery, clock, random, log, host, ioThreads: 1 }),
  })
  closing.push(() => frontend.service.drain())
  await frontend.service.start(AbortSignal.timeout(10_000))
  return frontend
}

/** A port that nobody asked for by name may be replaced by a free one. */
async function openApi({ values, sources }: Config, frontend: AssembledFrontend, { clock, log }: Place): Promise<OpenAiServer> {
  const otherRoutes = createHttpRoutes({ service: mirrorService(frontend.service.models, clock), log })
  const open = (port: number): Promise<OpenAiServer> => createOpenAiServer({ ...frontend.httpOptions(), port, otherRoutes })
  try {
    return await open(values.httpPort)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if ((code !== 'EADDRINUSE' && code !== 'EACCES') || sources['httpPort']?.kind !== 'default') throw httpListenError(error, values)
    process.stdout.write(`port ${values.httpPort} ${code === 'EACCES' ? 'may not be used' : 'is in use'}; taking a free one\n`)
    return open(0)
  }
}

/** Errors: the model is not ready in time. */
async function untilReady({ service }: AssembledFrontend, clock: Clock): Promise<void> {
  const deadline = clock.nowMs() + readyDeadlineMs
  while (!service.isReady) {
    if (clock.nowMs() > deadline) throw new Error(`the simulated workers did not become ready within ${readyDeadlineMs / 1000} s; DYN_LOG=debug tells more`)
    await new Promise<void>((resolve) => setTimeout(resolve, 5))
  }
}

function announcement({ values }: Config, url: string): string {
  const pool = `${values.blocks} cache blocks of ${values.blockSize} tokens${values.dpSize > 1 ? ` on each of ${values.dpSize} ranks` : ''}`
  const workers = values.aggregated
    ? `${values.workers} simulated workers (${pool})`
    : `${values.prefillWorkers} simulated prefill and ${values.workers} decode workers (${pool} each)`
  const prompt = Array.from({ length: 2 * values.blockSize + 1 }, (_, index) => index + 1).join(',')
  const chat = `{"model":${JSON.stringify(values.modelName)},"messages":[{"role":"user","content":"Tell me of the river, the bridge and the town behind it."}],"max_tokens":24}`
  return `ready: ${url}

${workers}, router and OpenAI-compatible API, in this process.
Ask twice: the second time the prompt is cached (usage.prompt_tokens_details), and the request goes where it is.

  curl ${url}/v1/chat/completions -H 'content-type: application/json' -d '${chat}'

With token ids, as routers in front of workers send them:

  curl -N ${url}/generate -d '{"token_ids":[${prompt}],"stop_conditions":{"max_tokens":8}}'

Other routes: ${url}/    Stop: Ctrl-C

`
}

const tableRows = (workers: readonly SimulatedWorker[]): WorkerRow[] =>
  workers.flatMap((worker) => worker.engine.loads.map((load) => ({ workerId: worker.instanceId, ...load })))
