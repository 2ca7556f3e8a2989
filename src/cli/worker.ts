/** `warmpath worker`: a simulated engine as a Dynamo worker of its own. */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { parseCommand, type ParsedConfig } from '../config/parse-command.ts'
import { UsageError } from '../config/usage-error.ts'
import { createDiscovery } from '../dynamo/discovery/create-discovery.ts'
import { DiscoveryOptionError, discoveryOptionsFromEnv } from '../dynamo/discovery/discovery-options.ts'
import { parseEndpointId } from '../dynamo/wire/endpoint-path.ts'
import { engineMetrics, engineMetricsType } from '../engines/simulated/engine-metrics.ts'
import type { SimulatedRole } from '../engines/simulated/model-card.ts'
import { readModelFiles } from '../worker/model-files.ts'
import { startSimulatedWorker, type SimulatedWorker, type SimulatedWorkerOptions } from '../engines/simulated/worker.ts'
import { createLog } from '../observability/log.ts'
import { startSystemServer } from '../observability/system-server.ts'
import type { EndpointId, Log, RequestPlaneClient } from '../ports.ts'
import { systemClock, systemRandom } from '../system-ports.ts'
import { createPlanes } from './planes.ts'
import { engineSettingsOf } from './simulated-engine-options.ts'

type Environment = Readonly<Record<string, string | undefined>>
type Config = ParsedConfig<'worker'>

/** Runs until a signal or a failure. Gives the exit code: 0 drained, 1 identity lost. Errors: `UsageError`. */
export async function runWorker(argv: readonly string[], env: Environment): Promise<number> {
  const parsed = await parseCommand('worker', argv, env, (path) => readFileSync(path))
  if (parsed.kind !== 'config') return 0
  const log = createLog({ level: parsed.values.log, jsonl: parsed.values.logJson })
  for (const warning of parsed.warnings) log.warn({ stage: 'config' }, warning)
  const stop = new AbortController()
  const signalled = new Promise<void>((resolved) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => { stop.abort(new Error(`${name} received`)); resolved() })
  })
  // Timers of the parts do not keep the process; while they wait, for NATS say, nothing else would.
  const keepAlive = setInterval(() => {}, 2 ** 30)
  try {
    return await serve(parsed, env, log, stop.signal, signalled)
  } catch (error) {
    if (stop.signal.aborted && !(error instanceof UsageError)) return 0
    throw error
  } finally {
    clearInterval(keepAlive)
    log.flush()
  }
}

async function serve(config: Config, env: Environment, log: Log, signal: AbortSignal, signalled: Promise<void>): Promise<number> {
  const { values } = config
  const options = await workerOptions(config)
  const clock = systemClock()
  const discovery = createDiscovery({ ...discoveryOptions(env), clock, log })
  const planes = await createPlanes(values, { discovery, clock, random: systemRandom(), log })
  const { server, eventPlane } = planes
  const client = options.prefillRouter === null ? null : planes.client
  const closing: (() => Promise<void>)[] = [() => planes.close(), () => discovery.close(2000), () => server.close(), () => eventPlane.close()]
  if (client !== null) closing.push(() => client.close())
  try {
    await Promise.all([discovery.start(signal), planes.start(signal), server.start(signal), client?.start(signal)])
    const worker = await startSimulatedWorker(options, { discovery, server, eventPlane, clock, log, ...(client === null ? {} : { client: client satisfies RequestPlaneClient }) })
    const limits = { graceMs: values.shutdownGraceSeconds * 1000, timeoutMs: values.shutdownTimeoutSeconds * 1000 }
    let ready = true
    const { namespace, component, endpoint } = options.endpoint
    if (values.systemPort >= 0) closing.push(await openSystemServer(config, worker, endpoint, () => ready, log))
    log.info({ stage: 'start', worker_id: worker.instanceId.toString(), model: options.modelName }, `simulated worker serves ${namespace}.${component}.${endpoint}`)
    const lost = await Promise.race([signalled.then(() => null), discovery.lost])
    ready = false
    if (lost !== null) log.error({ stage: 'discovery', reason: lost.message }, 'the identity in discovery is lost; ending')
    else log.info({ stage: 'drain', open: worker.inflight }, 'draining: record removed, open streams may finish')
    await worker.drain(lost === null ? limits : { graceMs: 0, timeoutMs: 0 })
    return lost === null ? 0 : 1
  } finally {
    for (const close of closing.reverse()) await close()
  }
}

async function workerOptions({ values }: Config): Promise<SimulatedWorkerOptions & { readonly prefillRouter: EndpointId | null }> {
  if (values.prefillRouter !== null && values.role === 'prefill') throw new UsageError('--prefill-router asks for a prompt to be computed elsewhere; it goes with --role decode, not prefill')
  const files = values.modelPath === null ? null : await readModelFiles(resolve(values.modelPath)).catch((error: unknown) => { throw new UsageError(`--model-path: ${error instanceof Error ? error.message : String(error)}`) })
  const parsed = parseEndpointId(values.endpoint)
  const namespace = values.namespace ?? parsed.namespace
  const { namespaceWorkerSuffix: suffix } = values
  return {
    endpoint: { ...parsed, namespace: suffix === null ? namespace : `${namespace}-${suffix}` },
    modelName: values.modelName,
    role: values.role as SimulatedRole,
    settings: engineSettingsOf(values, {
      dpStart: values.dpStart,
      hashSeed: values.hashSeed,
      ...(files?.vocabularySize == null ? {} : { vocabularySize: files.vocabularySize }),
      ...(files?.contextLengthMax == null ? {} : { contextLength: files.contextLengthMax }),
    }),
    kvEvents: values.kvEvents,
    files,
    prefillRouter: values.prefillRouter === null ? null : parseEndpointId(values.prefillRouter),
    codec: values.requestPlaneCodec === 'json' ? 'json' : 'msgpack',
  }
}

async function openSystemServer({ values }: Config, worker: SimulatedWorker, endpoint: string, isReady: () => boolean, log: Log): Promise<() => Promise<void>> {
  const system = await startSystemServer({
    host: values.systemHost, port: values.systemPort, healthPath: values.systemHealthPath, livePath: values.systemLivePath,
    isReady, endpoints: () => new Map([[endpoint, isReady()]]),
    metrics: { contentType: engineMetricsType, text: () => Promise.resolve(engineMetrics(worker.engine.loads)) },
  })
  log.info({ stage: 'start' }, `health and metrics: http://${values.systemHost}:${system.port}${values.systemHealthPath}`)
  return () => system.close()
}

function discoveryOptions(env: Environment): ReturnType<typeof discoveryOptionsFromEnv> {
  try {
    return discoveryOptionsFromEnv(env)
  } catch (error) {
    if (error instanceof DiscoveryOptionError) throw new UsageError(error.message)
    throw error
  }
}
