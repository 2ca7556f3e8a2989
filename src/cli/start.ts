/** `warmpath start`: simulated workers and a router in one process, to try it out. Needs no other service. */
import { readFileSync } from 'node:fs'
import { parseCommand, type ParsedConfig } from '../config/parse-command.ts'
import { MemoryDiscovery, MemoryStore } from '../dynamo/discovery/memory-discovery.ts'
import { createZmqEventPlane } from '../dynamo/event-plane/zmq-event-plane.ts'
import { createTcpRequestClient } from '../dynamo/request-plane/tcp-client.ts'
import { createTcpRequestServer } from '../dynamo/request-plane/tcp-server.ts'
import { startSimulatedWorker, type SimulatedWorker } from '../engines/simulated/worker.ts'
import { createHttpMirror, type HttpMirror } from '../http/http-mirror.ts'
import type { HttpService } from '../http/service.ts'
import { createLog, type ProcessLog } from '../observability/log.ts'
import type { Clock, Log, Random } from '../ports.ts'
import { systemClock, systemRandom } from '../system-ports.ts'
import { assembleRouter } from './assemble-router.ts'
import { engineSettingsOf } from './simulated-engine-options.ts'
import { WorkerTable, type WorkerRow } from './worker-table.ts'

type Environment = Readonly<Record<string, string | undefined>>
type Config = ParsedConfig<'start'>

const host = '127.0.0.1'
/** Both together stay below a second. Units: ms. */
const httpCloseMs = 300
const drainMs = 300

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
    const service = await startRouter(config.values.kvEvents, place, closing)
    const mirror = await openMirror(config, service, log)
    closing.push(() => mirror.close(httpCloseMs))
    process.stdout.write(announcement(config, mirror.url))
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

const workerEndpoint = { namespace: 'dynamo', component: 'backend', endpoint: 'generate' } as const

/** Workers of one process each have an identity of their own; they share listener and event plane. */
async function startWorkers(config: Config, place: Place, closing: (() => Promise<void>)[]): Promise<SimulatedWorker[]> {
  const { values } = config
  const { store, clock, random, log } = place
  const settings = engineSettingsOf(values)
  const shared = new MemoryDiscovery(store)
  await shared.start(AbortSignal.timeout(5000))
  const server = createTcpRequestServer({ clock, log, host })
  const eventPlane = createZmqEventPlane({ discovery: shared, clock, random, log, host, ioThreads: 1 })
  closing.push(() => server.close(), () => eventPlane.close())
  await server.start(AbortSignal.timeout(5000))
  return Promise.all(Array.from({ length: values.workers }, async () => {
    const discovery = new MemoryDiscovery(store)
    await discovery.start(AbortSignal.timeout(5000))
    const worker = await startSimulatedWorker(
      { endpoint: workerEndpoint, modelName: values.modelName, role: 'aggregated', settings, kvEvents: values.kvEvents },
      { discovery, server, eventPlane, clock, log },
    )
    closing.push(() => worker.drain({ graceMs: 0, timeoutMs: drainMs }))
    return worker
  }))
}

/** The same service as `warmpath router`, with its default options. */
async function startRouter(useKvEvents: boolean, { store, clock, random, log }: Place, closing: (() => Promise<void>)[]): Promise<HttpService> {
  const { namespace, component, endpoint } = workerEndpoint
  const config = await parseCommand('router', ['--endpoint', `${namespace}.${component}.${endpoint}`, useKvEvents ? '--router-kv-events' : '--no-router-kv-events'], {}, (path) => readFileSync(path))
  if (config.kind !== 'config') throw new Error('the router has no defaults')
  const discovery = new MemoryDiscovery(store)
  await discovery.start(AbortSignal.timeout(5000))
  const planes = {
    discovery, clock, random, log,
    server: createTcpRequestServer({ clock, log, host }),
    client: createTcpRequestClient({ clock, log, host }),
    eventPlane: createZmqEventPlane({ discovery, clock, random, log, host, ioThreads: 1 }),
  }
  const { service, metrics } = assembleRouter(config, planes, { minInitialWorkers: 1, shutdownTimeoutMs: drainMs, shutdownGraceMs: 0 })
  closing.push(() => service.drain())
  await service.start(AbortSignal.timeout(10_000))
  return service.httpService(async () => ({ contentType: metrics.contentType, text: await metrics.text() }))
}

/** A port that nobody asked for by name may be replaced by a free one. */
async function openMirror({ values, sources }: Config, service: HttpService, log: Log): Promise<HttpMirror> {
  const open = (port: number): Promise<HttpMirror> => createHttpMirror({ host: values.httpHost, port, service, log })
  try {
    return await open(values.httpPort)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code !== 'EADDRINUSE' && code !== 'EACCES') throw error
    const state = code === 'EACCES' ? 'may not be used' : 'is in use'
    if (sources['httpPort']?.kind !== 'default') throw new Error(`HTTP port ${values.httpPort} ${state}; give another with --http-port, or 0 for a free one`, { cause: error })
    process.stdout.write(`port ${values.httpPort} ${state}; taking a free one\n`)
    return open(0)
  }
}

function announcement({ values }: Config, url: string): string {
  const prompt = Array.from({ length: 2 * values.blockSize + 1 }, (_, index) => index + 1).join(',')
  return `ready: ${url}

${values.workers} simulated workers (${values.blocks} cache blocks of ${values.blockSize} tokens${values.dpSize > 1 ? ` on each of ${values.dpSize} ranks` : ''}) and a router, in this process.
Ask twice: the second time the prompt is cached, and the request goes where it is.

  curl -N ${url}/generate -d '{"token_ids":[${prompt}],"stop_conditions":{"max_tokens":8}}'

Other routes: ${url}/    Stop: Ctrl-C

`
}

const tableRows = (workers: readonly SimulatedWorker[]): WorkerRow[] =>
  workers.flatMap((worker) => worker.engine.loads.map((load) => ({ workerId: worker.instanceId, ...load })))
