/** `warmpath global-router`: one model in front of pools that each have a router of their own. */
import { readFileSync, statSync } from 'node:fs'
import { resolve } from 'node:path'
import { effectiveEnvironment } from '../config/effective-environment.ts'
import type { ParsedConfig } from '../config/parse-command.ts'
import { UsageError } from '../config/usage-error.ts'
import { parseJsonBytes } from '../dynamo/wire/json.ts'
import { readModelFiles } from '../worker/model-files.ts'
import { GlobalRouter, type GlobalRouterOptions } from '../global-router/global-router.ts'
import { PoolConfigError, parsePoolConfig, type GlobalRouterConfig } from '../global-router/pool-config.ts'
import { GlobalRouterMetrics } from '../observability/global-router-metrics.ts'
import { startSystemServer } from '../observability/system-server.ts'
import type { Json, JsonObject } from '../ports.ts'
import { metered } from '../standalone/metered.ts'
import { systemClock, systemRandom } from '../system-ports.ts'
import { openDiscovery } from '../planes/open-discovery.ts'
import { showPlaneMetrics } from './plane-metrics.ts'
import { createPlanes } from '../planes/planes.ts'
import { runService, type Environment, type ServiceRun } from './service-run.ts'
import { packageVersion } from './version.ts'

type Config = ParsedConfig<'global-router'>

/** Runs until a signal or a failure. Gives the exit code: 0 drained, 1 runtime. Errors: `UsageError`. */
export const runGlobalRouter = (argv: readonly string[], env: Environment): Promise<number> => runService('global-router', argv, env, serve)

async function serve({ config, env, log, signal, signalled }: ServiceRun<'global-router'>): Promise<number> {
  const { values } = config
  const options = serviceOptions(config)
  for (const warning of options.config.warnings) log.warn({ stage: 'config' }, `--config ${values.poolConfig ?? ''}: ${warning}`)
  const card = await folderCard(config)
  const clock = systemClock()
  const discovery = openDiscovery(effectiveEnvironment(config, env), { clock, log })
  const planes = await createPlanes(values, { discovery, clock, random: systemRandom(), log })
  const { server, client } = planes
  await Promise.all([discovery.start(signal), planes.start(signal)])
  const metrics = new GlobalRouterMetrics({ version: packageVersion(), namespace: options.namespace, component: options.component, routerId: discovery.instanceId })
  const service = new GlobalRouter({
    options, discovery, server, client, clock, log, observer: metrics, card, measured: (name, handler) => metered(metrics.endpoint(name), clock, handler),
  })
  metrics.show(() => ({ pools: service.poolSizes(), activeRequests: service.activeCount, prefillNotes: service.notes.size, prefillNoteEvictions: service.notes.evictions }))
  showPlaneMetrics(metrics.set, planes)
  const closing: (() => Promise<void>)[] = []
  try {
    if (values.systemPort >= 0) {
      const isReady = (): boolean => service.state === 'ready'
      const system = await startSystemServer({
        host: values.systemHost, port: values.systemPort, healthPath: values.systemHealthPath, livePath: values.systemLivePath, metrics, isReady,
        endpoints: () => new Map(service.endpoints.map((name) => [name, isReady()])),
      })
      closing.push(() => system.close())
      log.info({ stage: 'start' }, `health and metrics: http://${values.systemHost}:${system.port}/metrics`)
    }
    await service.start(signal)
    const lost = await Promise.race([signalled.then(() => null), discovery.lost])
    if (lost !== null) log.error({ stage: 'discovery', reason: lost.message }, 'the identity in discovery is lost; ending')
    await service.drain()
    log.info({ stage: 'end' }, 'drained')
    return lost === null ? 0 : 1
  } catch (error) {
    await service.drain()
    throw error
  } finally {
    await Promise.all(closing.map((close) => close()))
    await planes.eventPlane.close()
    await planes.close()
  }
}

function serviceOptions({ values }: Config): GlobalRouterOptions {
  if (values.modelName === null) throw new UsageError('--model-name is needed: the name of the model, as its workers have it (DYN_GLOBAL_ROUTER_MODEL_NAME)')
  return {
    namespace: values.namespace, component: values.componentName, modelName: values.modelName, config: readPoolConfig(values.poolConfig),
    defaultTtftTargetMs: values.defaultTtftTargetMs, defaultItlTargetMs: values.defaultItlTargetMs, retryLimit: values.retryLimit,
    firstOutputTimeoutMs: values.firstOutputTimeoutSeconds * 1000, outputTimeoutMs: values.outputTimeoutSeconds * 1000, inhibitedMs: values.inhibitedSeconds * 1000,
    activeRequestsMax: values.activeRequestsMax, shutdownTimeoutMs: values.shutdownTimeoutSeconds * 1000, shutdownGraceMs: values.shutdownGraceSeconds * 1000,
    codec: values.requestPlaneCodec === 'json' ? 'json' : 'msgpack',
  }
}

function readPoolConfig(path: string | null): GlobalRouterConfig {
  if (path === null) throw new UsageError('--config is needed: the JSON file with pools and grids (DYN_GLOBAL_ROUTER_CONFIG)')
  let bytes: Uint8Array
  try {
    bytes = readFileSync(path)
  } catch (error) {
    throw new UsageError(`--config ${path} cannot be read (${(error as NodeJS.ErrnoException).code ?? String(error)}); check the path and its permissions`)
  }
  let value: Json
  try {
    value = parseJsonBytes(bytes) as Json
  } catch (error) {
    throw new UsageError(`--config ${path} is not valid JSON: ${error instanceof Error ? error.message : String(error)}; expected one object with pools and grids`)
  }
  try {
    return parsePoolConfig(value)
  } catch (error) {
    if (error instanceof PoolConfigError) throw new UsageError(`--config ${path}: ${error.message}`)
    throw error
  }
}

/** The card of a model folder: `--model-path`, or a model name that is one. */
async function folderCard({ values }: Config): Promise<JsonObject | null> {
  const name = values.modelName as string
  const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false
  const folder = values.modelPath ?? (isFolder(name) ? name : null)
  if (folder === null) return null
  const files = await readModelFiles(resolve(folder)).catch((error: unknown) => { throw new UsageError(`--model-path: ${error instanceof Error ? error.message : String(error)}`) })
  return {
    source_path: files.folder, ...files.sections, architectural_max_context_length: files.contextLengthMax, context_length: files.contextLengthMax ?? 0,
    kv_cache_block_size: 16, migration_limit: 0, media_decoder: null, media_fetcher: null,
  }
}
