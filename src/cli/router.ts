/** `warmpath router`: the standalone router of a Dynamo deployment. */
import { effectiveEnvironment } from '../config/effective-environment.ts'
import type { ParsedConfig } from '../config/parse-command.ts'
import type { ProcessLog } from '../observability/log.ts'
import type { RouterMetrics } from '../observability/router-metrics.ts'
import { OccupiedNameError } from '../standalone/occupied-name.ts'
import type { StandaloneRouter } from '../standalone/router-service.ts'
import { systemClock, systemRandom } from '../system-ports.ts'
import { httpListenError } from './listen-error.ts'
import { LiveSettings } from './live-settings.ts'
import { openAdmin } from './live-settings-service.ts'
import { durableStartError, openStateFolder } from './durable-parts.ts'
import { openDiscovery } from '../planes/open-discovery.ts'
import { showPlaneMetrics } from './plane-metrics.ts'
import { runService, type Environment, type ServiceRun } from './service-run.ts'
import { packageVersion } from './version.ts'

/** Runs until a signal or a failure. Gives the exit code: 0 drained, 1 runtime. Errors: `UsageError`. */
export const runRouter = (argv: readonly string[], env: Environment): Promise<number> => runService('router', argv, env, serve)

async function serve(run: ServiceRun<'router'>): Promise<number> {
  const { env, log, signal, signalled } = run
  log.info({ stage: 'start', version: packageVersion() }, 'Starting Standalone Router Service')
  const live = new LiveSettings(run)
  const { config } = live
  const { values } = config
  await openStateFolder(config)
  const clock = systemClock()
  const random = systemRandom()
  const discovery = openDiscovery(effectiveEnvironment(config, env), { clock, log })
  const [{ createPlanes }, { assembleRouter }] = await Promise.all([import('../planes/planes.ts'), import('./assemble-router.ts')])
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
  const { httpPort } = values
  if (httpPort !== null) {
    const { createHttpMirror } = await import('../http/http-mirror.ts')
    const mirror = await createHttpMirror({
      host: values.httpHost, port: httpPort, log,
      service: service.httpService(async () => ({ contentType: metrics.contentType, text: await metrics.text() })),
    }).catch((error: unknown) => { throw httpListenError(error, { httpHost: values.httpHost, httpPort }) })
    log.info({ stage: 'start' }, `the endpoints over HTTP: ${mirror.url}`)
    closing.push(() => mirror.close(1000))
  }
  return closing
}
