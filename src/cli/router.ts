/** `warmpath router`: the standalone router of a Dynamo deployment. */
import { readFileSync } from 'node:fs'
import { effectiveEnvironment } from '../config/effective-environment.ts'
import { parseCommand, type ParsedConfig } from '../config/parse-command.ts'
import { UsageError } from '../config/usage-error.ts'
import { createDiscovery } from '../dynamo/discovery/create-discovery.ts'
import { DiscoveryOptionError, discoveryOptionsFromEnv } from '../dynamo/discovery/discovery-options.ts'
import { createLog, type ProcessLog } from '../observability/log.ts'
import type { RouterMetrics } from '../observability/router-metrics.ts'
import { OccupiedNameError } from '../standalone/occupied-name.ts'
import type { StandaloneRouter } from '../standalone/router-service.ts'
import { systemClock, systemRandom } from '../system-ports.ts'
import { LiveSettings } from './live-settings.ts'
import { openAdmin } from './live-settings-service.ts'
import { durableStartError } from './durable-parts.ts'
import { showPlaneMetrics } from './plane-metrics.ts'
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
    return await serve(new LiveSettings({ config: parsed, argv, env, log }), env, log, stop.signal, signalled)
  } catch (error) {
    if (error instanceof UsageError) throw error
    if (stop.signal.aborted) return 0
    throw error
  } finally {
    clearInterval(keepAlive)
    log.flush()
  }
}

async function serve(live: LiveSettings<'router'>, env: Environment, log: ProcessLog, signal: AbortSignal, signalled: Promise<void>): Promise<number> {
  const { config } = live
  const { values } = config
  const clock = systemClock()
  const random = systemRandom()
  const discovery = createDiscovery({ ...discoveryOptions(effectiveEnvironment(config, env)), clock, log })
  const [{ createPlanes }, { assembleRouter }] = await Promise.all([import('./planes.ts'), import('./assemble-router.ts')])
  const planes = await createPlanes(values, { discovery, clock, random, log })
  await Promise.all([live.start(), discovery.start(signal), planes.start(signal)])
  const { service, metrics, close } = assembleRouter(config, { ...planes, discovery, clock, random, log }, {}, live)
  showPlaneMetrics(metrics.set, planes)
  const closing: (() => Promise<void>)[] = []
  try {
    closing.push(...await openHttp(config, service, metrics, log))
    const closeAdmin = await openAdmin(live, log)
    if (closeAdmin !== null) closing.push(closeAdmin)
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
    throw durableStartError(error, planes.link)
  } finally {
    live.close()
    close()
    await Promise.all(closing.map((each) => each()))
    await planes.close()
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
