/** `warmpath select-service`: says over HTTP which worker a request is for. */
import { randomUUID } from 'node:crypto'
import { conditionalDisaggOf } from '../config/disagg-rules.ts'
import type { ParsedConfig } from '../config/parse-command.ts'
import { routerSettingsOf } from '../config/router-settings.ts'
import { ZmqLibrary } from '../dynamo/event-plane/zmq-library.ts'
import type { RouterSettings } from '../router/contract.ts'
import { EngineListeners } from '../services/engine-listeners.ts'
import { keyText, type PartitionKey } from '../services/partition-key.ts'
import { readPeerDump } from '../services/peer-dump.ts'
import { ReplicaMesh } from '../services/replica-mesh.ts'
import { SelectionService, type SelectionServiceOptions } from '../services/selection/selection-service.ts'
import { selectionRoutes } from '../services/selection/selection-routes.ts'
import { ServiceMetrics } from '../services/service-metrics.ts'
import { systemClock, systemRandom } from '../system-ports.ts'
import { httpPeers, replicaPeers, serveUntilSignalled } from './service-parts.ts'
import { runService, type Environment, type ServiceRun } from './service-run.ts'
import { packageVersion } from './version.ts'

type Config = ParsedConfig<'select-service'>

const prefix = 'warmpath_select_service'
/** How often bookings whose worker has gone are forgotten. */
const sweepMs = 300_000

/** Runs until a signal or a failure. Gives the exit code: 0 drained, 1 runtime. Errors: `UsageError`. */
export const runSelectService = (argv: readonly string[], env: Environment): Promise<number> => runService('select-service', argv, env, serve)

async function serve({ config, log, signal, signalled }: ServiceRun<'select-service'>): Promise<number> {
  const { values } = config
  if (values.approximateCachePolicy === 'lru') log.warn({ stage: 'config' }, 'the selection service knows assumed blocks by their time alone: lru is taken as ttl')
  const peers = replicaPeers(values)
  const indexPeers = httpPeers(values.indexerPeers, '--indexer-peers')
  const clock = systemClock()
  const random = systemRandom()
  const library = new ZmqLibrary(values.zmqIoThreads)
  const [low, high] = random.u64()
  const mesh = values.replicaSyncPort === null ? null : await ReplicaMesh.start(library, values.replicaSyncPort, (BigInt(high) << 32n) | BigInt((low | 1) >>> 0), log)
  const listeners = values.useKvEvents ? new EngineListeners(library, log) : null
  const service = new SelectionService({ ...serviceOptions(config), clock, random, events: listeners, replication: mesh, newId: () => randomUUID() })
  if (indexPeers.length > 0) service.membership.recover(await readPeerDump(indexPeers, log, signal) ?? [])
  mesh?.listen({
    onBooking: (key, blockSize, event) => service.applyReplicaEvent(key, blockSize, event),
    ...(values.sessionAffinityTtlSeconds === null ? {} : { onBinding: (key, update) => service.applyReplicaBinding(key, update) }),
  })
  for (const peer of peers) mesh?.add(peer)
  const metrics = metricsOf(service, listeners, mesh)
  let sweptMs = clock.nowMs()
  try {
    return await serveUntilSignalled({
      name: 'select-service', host: values.host, port: values.port, drainSeconds: values.drainSeconds, log, signalled, metrics,
      routes: selectionRoutes(service, mesh),
      tick: () => {
        service.tick()
        if (clock.nowMs() - sweptMs < sweepMs) return
        sweptMs = clock.nowMs()
        service.sweep()
      },
      onDrain: () => service.close(),
    })
  } finally {
    listeners?.close()
    mesh?.close()
  }
}

function serviceOptions(config: Config): Pick<SelectionServiceOptions, 'affinityTtlMs' | 'settingsFor' | 'pending' | 'busy'> {
  const { values } = config
  const rules = conditionalDisaggOf({ ...values, sessionAffinityMode: 'hard' })
  const known = new Map<string, RouterSettings>()
  return {
    affinityTtlMs: values.sessionAffinityTtlSeconds === null ? null : 1000 * values.sessionAffinityTtlSeconds,
    settingsFor: (key, blockSize, isEagle) => {
      const id = `${keyText(key)} ${blockSize} ${isEagle}`
      const settings = known.get(id) ?? settingsOf(config, key, blockSize, isEagle)
      if (known.size < 1024) known.set(id, settings)
      return settings
    },
    pending: { ttlMs: 1000 * values.cacheTtlSeconds, entriesMax: values.cacheEntriesMax, bytesMax: values.cacheBytesMax },
    busy: { decode: rules?.decodeBusyThreshold ?? null, prefill: rules?.prefillBusyThreshold ?? null },
  }
}

function settingsOf(config: Config, { model, group }: PartitionKey, blockSize: number, isEagle: boolean): RouterSettings {
  const values = {
    ...config.values, approximateCachePolicy: 'ttl', trackActiveBlocks: true, trackOutputBlocks: false, sharedCacheMultiplier: null,
    activeDecodeBlocksThreshold: null, activePrefillTokensThreshold: null, activePrefillTokensThresholdFraction: null,
  }
  // Policy classes go by model, keyed hashes by routing group.
  const settings = routerSettingsOf({ ...config, values }, { blockSize, isEagle, role: 'aggregated', routingGroup: model })
  return settings.tracking.mode === 'public-xxh3-v1' ? settings : { ...settings, tracking: { ...settings.tracking, routingGroup: group } }
}

function metricsOf(service: SelectionService, listeners: EngineListeners | null, mesh: ReplicaMesh | null): ServiceMetrics {
  const metrics = new ServiceMetrics(prefix, packageVersion())
  metrics.show([
    ['gauge', `${prefix}_workers`, 'Registered workers'],
    ['gauge', `${prefix}_schedulable_workers`, 'Workers that can be chosen'],
    ['gauge', `${prefix}_partitions`, 'Models and routing groups'],
    ['gauge', `${prefix}_reservations`, 'Booked selections'],
    ['gauge', `${prefix}_pending_selections`, 'Selections that may yet be booked'],
    ['gauge', `${prefix}_pending_selection_bytes`, 'Bytes of their hashes'],
    ['counter', `${prefix}_pending_selection_evictions_total`, 'Selections that were forgotten because a bound was reached'],
    ['gauge', `${prefix}_waiting_requests`, 'Requests that wait for a worker with room'],
    ['gauge', `${prefix}_sessions`, 'Sessions with a binding'],
    ['gauge', `${prefix}_engine_sockets`, 'Event sockets of engines that are followed'],
  ], () => {
    const now = service.reading
    return [
      now.workers, now.schedulableWorkers, now.partitions, now.reservations, now.pendingSelections, now.pendingBytes, now.pendingEvictions, now.parked, now.sessions,
      listeners?.count ?? 0,
    ]
  })
  if (listeners !== null) metrics.showFeeds(prefix, listeners.stats)
  if (mesh !== null) metrics.showReplicas(prefix, mesh.stats)
  return metrics
}
