/** The selection service over HTTP. Source: router-algorithm 16.1. */
import { okAnswer, type Answer } from '../answer.ts'
import { BodyError } from '../body-fields.ts'
import { eventJson } from '../event-json.ts'
import { peerRoutes, type PeerBook } from '../peer-routes.ts'
import { jsonBody, type Route, type RoutedCall } from '../routes.ts'
import type { CallContext, SelectionService } from './selection-service.ts'

/** `peers`: null where replicas are not told. */
export function selectionRoutes(service: SelectionService, peers: PeerBook | null): Route[] {
  const post = (pattern: string, handle: Route['handle']): Route => ({ method: 'POST', pattern, handle })
  const get = (pattern: string, handle: Route['handle']): Route => ({ method: 'GET', pattern, handle })
  return [
    post('/select', (call) => service.select(jsonBody(call), contextOf(call))),
    post('/select_and_reserve', (call) => service.selectAndReserve(jsonBody(call), contextOf(call))),
    post('/reservations', (call) => service.reserve(jsonBody(call), contextOf(call))),
    post('/reservations/:selection_id/prefill_complete', ({ params }) => service.prefillComplete(params['selection_id']!)),
    post('/reservations/:selection_id/output_block', (call) => service.outputBlock(call.params['selection_id']!, jsonBody(call))),
    { method: 'DELETE', pattern: '/reservations/:selection_id', handle: ({ params }) => service.free(params['selection_id']!) },
    post('/workers', (call) => service.registerWorker(jsonBody(call))),
    get('/workers', ({ query }) => service.workers(query)),
    { method: 'PATCH', pattern: '/workers/:worker_id', handle: (call) => withWorkerId(call, (id) => service.patchWorker(id, jsonBody(call))) },
    { method: 'DELETE', pattern: '/workers/:worker_id', handle: (call) => withWorkerId(call, (id) => service.deleteWorker(id)) },
    get('/health', () => okAnswer()),
    get('/ready', () => service.ready()),
    get('/loads', ({ query }) => service.loads(query)),
    post('/potential_loads', (call) => service.potentialLoads(jsonBody(call))),
    post('/overlap_scores', (call) => service.overlapScores(jsonBody(call))),
    get('/dump', () => service.dump(eventJson)),
    ...peerRoutes(peers),
  ]
}

const contextOf = ({ headers, signal }: RoutedCall): CallContext => {
  const policyClass = headers['x-dynamo-meta-policy-class']?.trim() ?? ''
  return { policyClass: policyClass === '' ? null : policyClass, signal }
}

function withWorkerId({ params }: RoutedCall, answer: (workerId: bigint) => Answer): Answer {
  const text = params['worker_id']!
  if (!/^\d{1,20}$/.test(text) || BigInt(text) >= 1n << 64n) throw new BodyError(400, `the path: ${text.slice(0, 40)} is not a worker id; expected an unsigned 64-bit integer`)
  return answer(BigInt(text))
}

