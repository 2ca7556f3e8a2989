/** What the services over HTTP share: where they listen, how they end, what they say of themselves. */
import { UsageError } from '../config/usage-error.ts'
import type { ProcessLog } from '../observability/log.ts'
import { ServiceMetrics } from '../services/service-metrics.ts'
import { startServiceServer } from '../services/http-server.ts'
import { Routes, type Route } from '../services/routes.ts'
import type { ServiceCall } from '../services/answer.ts'
import { endpointProblem } from '../services/zmq-endpoint.ts'

export interface ServiceFrame {
  readonly name: string
  readonly host: string
  readonly port: number
  readonly drainSeconds: number
  readonly log: ProcessLog
  readonly signalled: Promise<void>
  readonly metrics: ServiceMetrics
  readonly routes: readonly Route[]
  onAnswer?(pattern: string | null, method: string, status: number, seconds: number, call: ServiceCall): void
  /** Called every second. */
  tick?(): void
  /** The service takes no more requests. */
  onDrain?(): void
}

/** Serves until a signal, then drains. Gives the exit code. */
export async function serveUntilSignalled(frame: ServiceFrame): Promise<number> {
  const { name, host, log, metrics } = frame
  const metricsRoute: Route = {
    method: 'GET', pattern: '/metrics', handle: async () => ({ status: 200, body: null, text: { type: metrics.contentType, content: await metrics.text() } }),
  }
  const routes = new Routes([...frame.routes, metricsRoute])
  const server = await startServiceServer({
    host, port: frame.port, log, routes,
    onAnswer: (pattern, method, status, seconds, call) => {
      metrics.onAnswer(pattern, method, status, seconds)
      frame.onAnswer?.(pattern, method, status, seconds, call)
    },
  })
  if (host === '0.0.0.0' || host === '::') {
    log.warn({ stage: 'start' }, `${name} listens on all addresses and asks nobody for a key; bind a trusted one with --host`)
  }
  log.info({ stage: 'start', port: server.port }, `${name} serves on http://${host}:${server.port}`)
  const timer = setInterval(() => frame.tick?.(), 1000)
  try {
    await frame.signalled
    log.info({ stage: 'end', open: server.activeCount }, 'draining')
    frame.onDrain?.()
    await server.close(1000 * frame.drainSeconds)
  } finally {
    clearInterval(timer)
  }
  log.info({ stage: 'end' }, 'drained')
  return 0
}

/** Parts of a list separated by commas, without empty ones. */
export const listed = (text: string | null): string[] => (text ?? '').split(',').map((part) => part.trim()).filter((part) => part !== '')

/** Addresses over HTTP. Errors: `UsageError` that names the entry. */
export function httpPeers(text: string | null, option: string): string[] {
  const peers = listed(text)
  for (const peer of peers) {
    if (!/^https?:\/\/[^/?#]+/i.test(peer) || !URL.canParse(peer)) throw new UsageError(`${option}: ${JSON.stringify(peer)} is not valid; expected http://HOST:PORT`)
  }
  return peers
}

/** Addresses of replicas. Errors: `UsageError`. */
export function replicaPeers({ replicaSyncPort, replicaSyncPeers }: { readonly replicaSyncPort: number | null; readonly replicaSyncPeers: string | null }): string[] {
  const peers = listed(replicaSyncPeers)
  if (peers.length > 0 && replicaSyncPort === null) throw new UsageError('--replica-sync-peers needs --replica-sync-port; give the port on which this process tells its own')
  for (const peer of peers) {
    const problem = endpointProblem(peer)
    if (problem !== null) throw new UsageError(`--replica-sync-peers: ${problem}; expected tcp://HOST:PORT`)
  }
  return peers
}
