/** `warmpath indexer`: says over HTTP which workers hold which prefix. */
import { UsageError } from '../config/usage-error.ts'
import { ZmqLibrary } from '../dynamo/event-plane/zmq-library.ts'
import { AccessLog } from '../services/access-log.ts'
import { createFeedStats } from '../services/engine-feed.ts'
import { EngineListener } from '../services/engine-listeners.ts'
import { IndexerService, indexerRoutes } from '../services/indexer/indexer-service.ts'
import { readPeerDump } from '../services/peer-dump.ts'
import { ServiceMetrics } from '../services/service-metrics.ts'
import { endpointProblem } from '../services/zmq-endpoint.ts'
import { httpPeers, listed, serveUntilSignalled } from './service-parts.ts'
import { runService, type Environment, type ServiceRun } from './service-run.ts'
import { packageVersion } from './version.ts'

const prefix = 'dynamo_kvindexer'
const own = 'warmpath_indexer'

/** Runs until a signal or a failure. Gives the exit code: 0 drained, 1 runtime. Errors: `UsageError`. */
export const runIndexer = (argv: readonly string[], env: Environment): Promise<number> => runService('indexer', argv, env, serve)

async function serve({ config: { values }, log, signal, signalled }: ServiceRun<'indexer'>): Promise<number> {
  const workers = parseWorkers(values.workers)
  const { blockSize } = values
  const peers = httpPeers(values.peers, '--peers')
  if (workers.length > 0 && blockSize === null) throw new UsageError('--workers needs --block-size: the tokens per KV cache block of these workers')
  const access = values.accessLog === null ? null : openAccessLog(values.accessLog, values.traceIdHeader, values.accessLogLocalTime)
  const library = new ZmqLibrary(values.zmqIoThreads)
  const stats = createFeedStats()
  const metrics = new ServiceMetrics(prefix, packageVersion())
  const applied = metrics.set.counter('dynamo_kvrouter_kv_cache_events_applied', 'Cache events by kind and outcome', {}, ['event_type', 'status'])
  const service = new IndexerService({
    listen: (request) => {
      const listener = new EngineListener(request, library, log, stats)
      listener.start()
      return listener
    },
    onApplied: (kind, status) => applied.with(kind, status).inc(),
    ...(access === null ? {} : { reopenLog: () => access.reopen() }),
  })
  const listeners = metrics.set.gauge(`${prefix}_listeners`, 'Event sockets of engines by status', {}, ['status'])
  metrics.set.onScrape(() => {
    for (const status of ['pending', 'active', 'failed'] as const) listeners.with(status).set(service.listenerCount(status))
  })
  metrics.show([
    ['gauge', `${prefix}_models`, 'Models and routing groups'],
    ['gauge', `${prefix}_workers`, 'Registered instances'],
    ['gauge', `${own}_blocks`, 'Blocks of all ranks and tiers'],
    ['gauge', `${own}_bytes`, 'Bytes reserved for them'],
    ['counter', `${own}_access_log_failures_total`, 'Lines of the access log that could not be written'],
  ], () => [service.partitionCount, service.instanceCount, service.entryCount, service.bytes, access?.failures ?? 0])
  metrics.showFeeds(own, stats)
  if (peers.length > 0) service.recover(await readPeerDump(peers, log, signal) ?? [])
  for (const url of peers) service.addPeer({ url })
  for (const { workerId, dpRank, endpoint } of workers) {
    const answer = service.follow({ workerId, dpRank }, { model: values.modelName, group: values.routingGroup }, blockSize!, endpoint, null)
    if (answer.status !== 201) throw new UsageError(`--workers: ${(answer.body as { readonly error: string }).error}`)
  }
  try {
    return await serveUntilSignalled({
      name: 'indexer', host: values.host, port: values.port, drainSeconds: values.drainSeconds, log, signalled, metrics, routes: indexerRoutes(service),
      onAnswer: (pattern, _method, status, seconds, call) => access?.write(pattern, status, seconds, call),
    })
  } finally {
    service.close()
    access?.close()
  }
}

function openAccessLog(path: string, header: string, isLocalTime: boolean): AccessLog {
  if (!/^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/.test(header)) throw new UsageError(`--trace-id-header: ${JSON.stringify(header)} is not a header name; expected letters, digits and -, such as x-trace-id`)
  try {
    return new AccessLog(path, header, isLocalTime)
  } catch (error) {
    throw new UsageError(`--access-log ${path} cannot be opened (${(error as NodeJS.ErrnoException).code ?? String(error)}); check the path and its permissions`)
  }
}

/** Errors: `UsageError` that names the entry. */
function parseWorkers(text: string | null): { readonly workerId: bigint; readonly dpRank: number; readonly endpoint: string }[] {
  return listed(text).map((entry) => {
    const [, id, rank, endpoint] = /^(\d{1,20})(?::(\d{1,10}))?=(.+)$/.exec(entry) ?? []
    if (id === undefined || endpoint === undefined || BigInt(id) >= 1n << 64n) throw new UsageError(`--workers: ${entry} is not valid; expected ID=ADDRESS or ID:RANK=ADDRESS, such as 1=tcp://host:5557`)
    const problem = endpointProblem(endpoint)
    if (problem !== null) throw new UsageError(`--workers: ${problem}`)
    return { workerId: BigInt(id), dpRank: Number(rank ?? 0), endpoint }
  })
}
