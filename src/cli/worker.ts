/** `warmpath worker`: a simulated engine as a Dynamo worker of its own. */
import { resolve } from 'node:path'
import type { ParsedConfig } from '../config/parse-command.ts'
import { UsageError } from '../config/usage-error.ts'
import { parseEndpointId } from '../dynamo/wire/endpoint-path.ts'
import { engineMetrics } from '../engines/simulated/engine-metrics.ts'
import type { SimulatedRole } from '../engines/simulated/model-card.ts'
import { startSimulatedWorker, type SimulatedWorkerOptions } from '../engines/simulated/worker.ts'
import type { EndpointId } from '../ports.ts'
import { readModelFiles } from '../worker/model-files.ts'
import { buildParts } from '../worker/runtime-parts.ts'
import { runService, type Environment, type ServiceRun } from './service-run.ts'
import { engineSettingsOf } from './simulated-engine-options.ts'

type Config = ParsedConfig<'worker'>

/** Runs until a signal or a failure. Gives the exit code: 0 drained, 1 identity lost. Errors: `UsageError`. */
export const runWorker = (argv: readonly string[], env: Environment): Promise<number> => runService('worker', argv, env, serve)

async function serve({ config, env, log, signal, signalled }: ServiceRun<'worker'>): Promise<number> {
  const { values } = config
  const options = await workerOptions(config)
  const { parts: { client: startClient, ...parts }, close } = await buildParts(values, env, { log, signal })
  try {
    const client = options.prefillRouter === null || startClient === null ? {} : { client: await startClient() }
    const worker = await startSimulatedWorker(options, { ...parts, ...client })
    const limits = { graceMs: values.shutdownGraceSeconds * 1000, timeoutMs: values.shutdownTimeoutSeconds * 1000 }
    const { namespace, component, endpoint } = options.endpoint
    worker.runtime.addMetrics(() => engineMetrics(worker.engine.loads))
    if (values.systemPort >= 0) {
      await worker.runtime.openSystemServer({ host: values.systemHost, port: values.systemPort, healthPath: values.systemHealthPath, livePath: values.systemLivePath })
    }
    log.info({ stage: 'start', worker_id: worker.instanceId.toString(), model: options.modelName }, `simulated worker serves ${namespace}.${component}.${endpoint}`)
    const lost = await Promise.race([signalled.then(() => null), worker.runtime.lost])
    if (lost !== null) log.error({ stage: 'discovery', reason: lost.message }, 'the identity in discovery is lost; ending')
    else log.info({ stage: 'drain', open: worker.inflight }, 'draining: record removed, open streams may finish')
    await worker.drain(lost === null ? limits : { graceMs: 0, timeoutMs: 0 })
    return lost === null ? 0 : 1
  } finally {
    await close()
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
    healthCheck: values.healthCheckEnabled ? { idleMs: values.canaryWaitSeconds * 1000, timeoutMs: values.healthCheckTimeoutSeconds * 1000 } : null,
  }
}
