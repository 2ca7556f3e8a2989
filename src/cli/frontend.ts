/** `warmpath frontend`: the models of a deployment over an OpenAI-compatible HTTP API. */
import { readFileSync } from 'node:fs'
import { effectiveEnvironment } from '../config/effective-environment.ts'
import { parseCommand, type ParsedConfig } from '../config/parse-command.ts'
import { UsageError } from '../config/usage-error.ts'
import { createDiscovery } from '../dynamo/discovery/create-discovery.ts'
import { DiscoveryOptionError, discoveryOptionsFromEnv } from '../dynamo/discovery/discovery-options.ts'
import { createLog, type ProcessLog } from '../observability/log.ts'
import type { ApiKeys } from '../openai/api-keys.ts'
import { createOpenAiServer, type OpenAiServer } from '../openai/openai-server.ts'
import type { Log } from '../ports.ts'
import { systemClock, systemRandom } from '../system-ports.ts'
import { assembleFrontend, type AssembledFrontend } from './assemble-frontend.ts'
import { LiveSettings } from './live-settings.ts'
import { openAdmin } from './live-settings-service.ts'
import { showPlaneMetrics } from './plane-metrics.ts'
import { createPlanes } from './planes.ts'
import { ListenerFiles } from './listener-files.ts'
import { packageVersion } from './version.ts'

type Environment = Readonly<Record<string, string | undefined>>
type Config = ParsedConfig<'frontend'>

/** Runs until a signal or a failure. Gives the exit code: 0 drained, 1 runtime. Errors: `UsageError`; the port cannot be bound. */
export async function runFrontend(argv: readonly string[], env: Environment): Promise<number> {
  const parsed = await parseCommand('frontend', argv, env, (path) => readFileSync(path))
  if (parsed.kind !== 'config') return 0
  const log = createLog({ level: parsed.values.log, jsonl: parsed.values.logJson })
  for (const warning of parsed.warnings) log.warn({ stage: 'config' }, warning)
  log.info({ stage: 'start', version: packageVersion() }, 'Starting the frontend')
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

async function serve(live: LiveSettings<'frontend'>, env: Environment, log: ProcessLog, signal: AbortSignal, signalled: Promise<void>): Promise<number> {
  const { config } = live
  const clock = systemClock()
  const random = systemRandom()
  const discovery = createDiscovery({ ...discoveryOptions(config, env), clock, log })
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

/** A flag counts before the variable that discovery reads itself. */
function discoveryOptions(config: Config, env: Environment): ReturnType<typeof discoveryOptionsFromEnv> {
  try {
    return discoveryOptionsFromEnv({ ...effectiveEnvironment(config, env), DYN_DISCOVERY_BACKEND: config.values.discoveryBackend })
  } catch (error) {
    if (error instanceof DiscoveryOptionError) throw new UsageError(error.message)
    throw error
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
    const { code } = error as NodeJS.ErrnoException
    if (code !== 'EADDRINUSE' && code !== 'EACCES') throw error
    throw new Error(`HTTP port ${values.httpPort} ${code === 'EACCES' ? 'may not be used' : 'is in use'}; give another with --http-port, or 0 for a free one`, { cause: error })
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
