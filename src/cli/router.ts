/** `warmpath router`: the standalone router of a Dynamo deployment. */
import { readFileSync } from 'node:fs'
import { effectiveEnvironment } from '../config/effective-environment.ts'
import { parseCommand, type ParsedConfig } from '../config/parse-command.ts'
import { routerSettingsOf, routerTargetOf } from '../config/router-settings.ts'
import { UsageError } from '../config/usage-error.ts'
import { createDiscovery } from '../dynamo/discovery/create-discovery.ts'
import { DiscoveryOptionError, discoveryOptionsFromEnv } from '../dynamo/discovery/discovery-options.ts'
import { chooseBindHost } from '../dynamo/request-plane/bind-host.ts'
import { createTcpRequestClient } from '../dynamo/request-plane/tcp-client.ts'
import { createTcpRequestServer } from '../dynamo/request-plane/tcp-server.ts'
import { createLog, type ProcessLog } from '../observability/log.ts'
import type { RouterMetrics } from '../observability/router-metrics.ts'
import { KvRouter } from '../router/kv-router.ts'
import { OccupiedNameError } from '../standalone/occupied-name.ts'
import { metered } from '../standalone/metered.ts'
import { StandaloneRouter, type StandaloneRouterOptions } from '../standalone/router-service.ts'
import { systemClock, systemRandom } from '../system-ports.ts'
import { packageVersion } from './version.ts'

type Environment = Readonly<Record<string, string | undefined>>

/** Runs until a signal or a failure. Gives the exit code: 0 drained, 1 runtime. Errors: `UsageError`. */
export async function runRouter(argv: readonly string[], env: Environment): Promise<number> {
  const parsed = await parseCommand('router', argv, env, (path) => readFileSync(path))
  if (parsed.kind !== 'config') return 0
  const log = createLog({ level: parsed.values.log, jsonl: parsed.values.logJson })
  for (const warning of parsed.warnings) log.warn({ stage: 'config' }, warning)
  log.info({ stage: 'start', version: packageVersion() }, 'Starting Standalone Router Service')
  const stop = new AbortController()
  const signalled = new Promise<void>((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => { stop.abort(new Error(`${name} received`)); resolve() })
  })
  // Timers of the parts do not keep the process; while they wait, for etcd say, nothing else would.
  const keepAlive = setInterval(() => {}, 2 ** 30)
  try {
    return await serve(parsed, env, log, stop.signal, signalled)
  } catch (error) {
    if (error instanceof UsageError) throw error
    if (stop.signal.aborted) return 0
    throw error
  } finally {
    clearInterval(keepAlive)
    log.flush()
  }
}

async function serve(config: ParsedConfig<'router'>, env: Environment, log: ProcessLog, signal: AbortSignal, signalled: Promise<void>): Promise<number> {
  const { values } = config
  const clock = systemClock()
  const random = systemRandom()
  const discovery = createDiscovery({ ...discoveryOptions(effectiveEnvironment(config, env)), clock, log })
  const server = createTcpRequestServer({ clock, log, host: values.tcpRpcHost ?? undefined, port: values.tcpRpcPort, frameBytesMax: values.tcpMaxMessageSize })
  const client = createTcpRequestClient({
    clock, log, host: values.tcpResponseStreamHost ?? undefined, port: values.tcpResponseStreamPort, backlog: values.tcpListenBacklog,
    connectTimeoutMs: values.tcpConnectTimeoutSeconds * 1000, ackTimeoutMs: values.tcpRequestTimeoutSeconds * 1000,
    idleTimeoutMs: values.tcpHostIdleTtlSeconds * 1000, requestBytesMax: values.tcpMaxMessageSize, connectionsMax: values.tcpPoolSize,
  })
  const [{ createZmqEventPlane }, { createRouterMetrics }] = await Promise.all([
    import('../dynamo/event-plane/zmq-event-plane.ts'), import('../observability/router-metrics.ts'),
  ])
  const eventPlane = createZmqEventPlane({ discovery, clock, log, random, host: chooseBindHost(values.eventPlaneHost ?? undefined).advertise, ioThreads: values.zmqIoThreads })
  await discovery.start(signal)
  const options = serviceOptions(config)
  const metrics = createRouterMetrics({
    version: packageVersion(), namespace: options.namespace, component: options.component, workers: options.workers, routerId: discovery.instanceId, role: 'aggregated',
  })
  const service = new StandaloneRouter({
    options, discovery, server, client, eventPlane, clock, random, log, observer: metrics.requests,
    measured: (name, handler) => metered(metrics.endpoint(name), clock, handler),
    createRouter: (facts) => {
      log.info({ stage: 'start', model: facts.modelName, block_size: facts.blockSize, role: facts.role }, 'KV Routing initialized')
      metrics.setRole(facts.role)
      return new KvRouter(routerSettingsOf(config, { ...facts, routingGroup: facts.modelName }), { clock, random, listener: metrics.listener })
    },
  })
  showGauges(metrics, service, log)
  const closing: (() => Promise<void>)[] = []
  try {
    closing.push(...await openHttp(config, service, metrics, log))
    await service.start(signal)
    const lost = await Promise.race([signalled.then(() => null), discovery.lost])
    if (lost !== null) {
      log.error({ stage: 'discovery', reason: lost.message }, 'the identity in discovery is lost; ending')
      await service.drain()
      return 1
    }
    await service.drain()
    log.info({ stage: 'end' }, 'drained')
    return 0
  } catch (error) {
    await service.drain()
    if (error instanceof OccupiedNameError) throw new Error(error.message, { cause: error })
    throw error
  } finally {
    await Promise.all(closing.map((close) => close()))
  }
}

function discoveryOptions(env: Environment): ReturnType<typeof discoveryOptionsFromEnv> {
  try {
    return discoveryOptionsFromEnv(env)
  } catch (error) {
    if (error instanceof DiscoveryOptionError) throw new UsageError(error.message)
    throw error
  }
}

function serviceOptions({ values }: ParsedConfig<'router'>): StandaloneRouterOptions {
  const { namespace, component, workers } = routerTargetOf(values)
  return {
    namespace, component, workers, blockSize: values.blockSize, strictBlockSize: values.strictBlockSize, useKvEvents: values.useKvEvents,
    kvEventGraceMs: values.kvEventGraceSeconds * 1000, minInitialWorkers: values.minInitialWorkers, registerModel: values.registerModel,
    force: values.force, shutdownTimeoutMs: values.shutdownTimeoutSeconds * 1000, shutdownGraceMs: values.shutdownGraceSeconds * 1000,
    codec: values.requestPlaneCodec === 'json' ? 'json' : 'msgpack', retryLimit: values.retryLimit,
    firstOutputTimeoutMs: values.firstOutputTimeoutSeconds * 1000, outputTimeoutMs: values.outputTimeoutSeconds * 1000,
    inhibitedMs: values.inhibitedSeconds * 1000, activeRequestsMax: values.activeRequestsMax,
  }
}

function showGauges(metrics: RouterMetrics, service: StandaloneRouter, log: ProcessLog): void {
  const { gauges } = metrics
  metrics.onScrape(() => {
    const router = service.pool.router
    const follower = service.follower?.stats()
    gauges.workers.set(router?.workerCount ?? 0)
    gauges.activeRequests.set(service.generate.activeCount)
    gauges.indexEntries.set(router?.indexEntryCount ?? 0)
    gauges.indexBytes.set(router?.indexBytes ?? 0)
    gauges.bookingsEntries.set(router?.bookingCount ?? 0)
    gauges.setAsideInstances.set(service.directory?.counts().setAside ?? 0)
    gauges.blockSizeMismatchWorkers.set(service.pool.mismatchedCount)
    gauges.eventQueueEntries.set(follower?.queuedBatches ?? 0)
    gauges.eventQueueDrops.set(follower?.dropped.queue_full ?? 0)
    gauges.eventGaps.set(follower?.cursor.gaps ?? 0)
    gauges.logDroppedLines.set(log.droppedLines)
    gauges.ready.set(service.state === 'ready' ? 1 : 0)
    metrics.kvEvents.setSources(follower?.sources ?? 0)
    if (follower === undefined) return
    metrics.kvEvents.setBatches(follower.batches)
    for (const [reason, total] of Object.entries(follower.dropped)) metrics.kvEvents.setDrops(reason, total)
    for (const state of ['started', 'succeeded', 'failed'] as const) metrics.kvEvents.setRecoveries(state, follower.recoveries[state])
  })
}

/** The system server and the HTTP mirror, where they are asked for. Gives what closes them. */
async function openHttp({ values }: ParsedConfig<'router'>, service: StandaloneRouter, metrics: RouterMetrics, log: ProcessLog): Promise<(() => Promise<void>)[]> {
  const closing: (() => Promise<void>)[] = []
  if (values.systemPort >= 0) {
    const { startSystemServer } = await import('../observability/system-server.ts')
    const system = await startSystemServer({
      host: values.systemHost, port: values.systemPort, healthPath: values.systemHealthPath, livePath: values.systemLivePath, metrics,
      isReady: () => service.state === 'ready',
      endpoints: () => new Map(['generate', 'best_worker_id', 'get_overlap_scores'].map((name) => [name, service.state === 'ready'])),
    })
    log.info({ stage: 'start' }, `health and metrics: http://${values.systemHost}:${system.port}/metrics`)
    closing.push(() => system.close())
  }
  if (values.httpPort !== null) {
    const { createHttpMirror } = await import('../http/http-mirror.ts')
    const mirror = await createHttpMirror({
      host: values.httpHost, port: values.httpPort, log,
      service: service.httpService(async () => ({ contentType: metrics.contentType, text: await metrics.text() })),
    })
    log.info({ stage: 'start' }, `the endpoints over HTTP: ${mirror.url}`)
    closing.push(() => mirror.close(1000))
  }
  return closing
}
