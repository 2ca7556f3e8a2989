/** `warmpath slot-tracker`: keeps account over HTTP of what running requests occupy. */
import { ZmqLibrary } from '../dynamo/event-plane/zmq-library.ts'
import { ReplicaMesh } from '../services/replica-mesh.ts'
import { ServiceMetrics } from '../services/service-metrics.ts'
import { slotRoutes, SlotTracker } from '../services/slots/slot-tracker.ts'
import { systemClock, systemRandom } from '../system-ports.ts'
import { replicaPeers, serveUntilSignalled } from './service-parts.ts'
import { runService, type Environment, type ServiceRun } from './service-run.ts'
import { packageVersion } from './version.ts'

const prefix = 'warmpath_slot_tracker'

/** Runs until a signal or a failure. Gives the exit code: 0 drained, 1 runtime. Errors: `UsageError`. */
export const runSlotTracker = (argv: readonly string[], env: Environment): Promise<number> => runService('slot-tracker', argv, env, serve)

async function serve({ config: { values }, log, signalled }: ServiceRun<'slot-tracker'>): Promise<number> {
  const peers = replicaPeers(values)
  const clock = systemClock()
  const [low, high] = systemRandom().u64()
  const mesh = values.replicaSyncPort === null ? null : await ReplicaMesh.start(new ZmqLibrary(1), values.replicaSyncPort, (BigInt(high) << 32n) | BigInt((low | 1) >>> 0), log)
  const tracker = new SlotTracker({ nowMs: () => clock.nowMs(), expirySeconds: values.activeRequestExpirySeconds, replication: mesh })
  mesh?.listen({ onBooking: (key, blockSize, event) => tracker.applyReplicaEvent(key, blockSize, event) })
  for (const peer of peers) mesh?.add(peer)
  const metrics = new ServiceMetrics(prefix, packageVersion())
  metrics.show([
    ['gauge', `${prefix}_partitions`, 'Models and routing groups'],
    ['gauge', `${prefix}_workers`, 'Registered workers'],
    ['gauge', `${prefix}_requests`, 'Requests that are tracked'],
    ['counter', `${prefix}_refusals_total`, 'Requests, or their prompts, that were not tracked because a bound was reached'],
  ], () => {
    const { partitions, workers, requests, refusals } = tracker.reading
    return [partitions, workers, requests, refusals]
  })
  if (mesh !== null) metrics.showReplicas(prefix, mesh.stats)
  try {
    return await serveUntilSignalled({
      name: 'slot-tracker', host: values.host, port: values.port, drainSeconds: values.drainSeconds, log, signalled, metrics, routes: slotRoutes(tracker, mesh),
      tick: () => tracker.tick(),
    })
  } finally {
    mesh?.close()
  }
}
