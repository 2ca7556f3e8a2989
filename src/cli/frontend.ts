/** `warmpath frontend`: the models of a deployment over an OpenAI-compatible HTTP API. */
import { effectiveEnvironment } from '../config/effective-environment.ts'
import type { ParsedConfig } from '../config/parse-command.ts'
import type { ApiKeys } from '../openai/api-keys.ts'
import { createOpenAiServer, type OpenAiServer } from '../openai/openai-server.ts'
import type { Log } from '../ports.ts'
import { systemClock, systemRandom } from '../system-ports.ts'
import { assembleFrontend, type AssembledFrontend } from './assemble-frontend.ts'
import { httpListenError } from './listen-error.ts'
import { LiveSettings } from './live-settings.ts'
import { openAdmin } from './live-settings-service.ts'
import { openDiscovery } from '../planes/open-discovery.ts'
import { showPlaneMetrics } from './plane-metrics.ts'
import { runService, type Environment, type ServiceRun } from './service-run.ts'
import { createPlanes } from '../planes/planes.ts'
import { ListenerFiles } from './listener-files.ts'
import { packageVersion } from './version.ts'

type Config = ParsedConfig<'frontend'>

/** Runs until a signal or a failure. Gives the exit code: 0 drained, 1 runtime. Errors: `UsageError`; the port cannot be bound. */
export const runFrontend = (argv: readonly string[], env: Environment): Promise<number> => runService('frontend', argv, env, serve)

async function serve(run: ServiceRun<'frontend'>): Promise<number> {
  const { env, log, signal, signalled } = run
  log.info({ stage: 'start', version: packageVersion() }, 'Starting the frontend')
  const live = new LiveSettings(run)
  const { config } = live
  const clock = systemClock()
  const random = systemRandom()
  // A flag counts before the variable that discovery reads itself.
  const discovery = openDiscovery({ ...effectiveEnvironment(config, env), DYN_DISCOVERY_BACKEND: config.values.discoveryBackend }, { clock, log })
  const files = new ListenerFiles(config.values, log)
  const planes = await createPlanes(config.values, { discovery, clock, random, log })
  await Promise.all([live.start(), discovery.start(signal), planes.start(signal)])
  const frontend = assembleFrontend(config, { ...planes, discovery, clock, random, log }, live)
  showPlaneMetrics(frontend.metrics.set, planes)
  const closing: (() => void | Promise<void>)[] = [() => planes.close(), () => frontend.close(), () => live.close(), () => frontend.service.drain()]
  try {
    await frontend.service.start(signal)
    const server = await listen(config, frontend, files, log)
    const graceMs = config.values.shutdownTimeoutSeconds * 1000
    const unwatch = files.watch((tls) => server.changeTls(tls))
    closing.push(() => { unwatch(); return server.close(graceMs) })
    const closeAdmin = await openAdmin(live, log)
    if (closeAdmin !== null) closing.push(closeAdmin)
    const closeSystem = await openSystemServer(config, frontend, log)
    if (closeSystem !== null) closing.unshift(closeSystem)
    const lost = await Promise.race([signalled.then(() => null), discovery.lost])
    if (lost !== null) log.error({ stage: 'discovery', reason: lost.message }, 'the identity in discovery is lost; ending')
    else log.info({ stage: 'drain', open: server.inflight }, `draining: open requests may finish within ${config.values.shutdownTimeoutSeconds} s`)
    return lost === null ? 0 : 1
  } finally {
    for (const close of closing.reverse()) await close()
    log.info({ stage: 'end' }, 'drained')
  }
}

/** Errors: one that names the port and the flag. */
async function listen({ values }: Config, frontend: AssembledFrontend, files: ListenerFiles, log: Log): Promise<OpenAiServer> {
  try {
    const server = await createOpenAiServer({
      ...frontend.httpOptions(),
      // Once there are keys there are always some: a file that becomes unreadable opens nothing.
      ...(files.keys === null ? {} : { apiKeys: () => files.keys as ApiKeys }), ...(files.tls === null ? {} : { tls: files.tls }),
    })
    if (files.keys === null && (values.httpHost === '0.0.0.0' || values.httpHost === '::')) {
      log.warn({ stage: 'start' }, `the HTTP API listens on every interface of this machine (${values.httpHost}) and asks for no key; give --api-keys-file, or --http-host 127.0.0.1`)
    }
    log.info({ stage: 'start' }, `HTTP API: ${server.url}`)
    return server
  } catch (error) {
    throw httpListenError(error, values)
  }
}

async function openSystemServer({ values }: Config, frontend: AssembledFrontend, log: Log): Promise<(() => Promise<void>) | null> {
  if (values.systemPort < 0) return null
  const { startSystemServer } = await import('../observability/system-server.ts')
  const system = await startSystemServer({
    host: values.systemHost, port: values.systemPort, healthPath: values.systemHealthPath, livePath: values.systemLivePath, metrics: frontend.metrics,
    isReady: () => frontend.service.isReady, endpoints: () => new Map(frontend.service.models.list().map(({ name }) => [name, true])),
  })
  log.info({ stage: 'start' }, `health and metrics: http://${values.systemHost}:${system.port}/metrics`)
  return () => system.close()
}
