/** Routes by which replicas are added and taken away while a service runs. */
import { failure, okAnswer } from './answer.ts'
import { required, textOf } from './body-fields.ts'
import { jsonBody, type Route, type RoutedCall, type Reply } from './routes.ts'
import { endpointProblem } from './zmq-endpoint.ts'

/** The replicas that are listened to. */
export interface PeerBook {
  /** False: it is one already. Errors: an address that cannot be connected. */
  add(endpoint: string): boolean
  /** False: it is none. */
  remove(endpoint: string): boolean
  /** Sorted. */
  readonly endpoints: readonly string[]
}

/** Most replicas. */
export const peersMax = 1024

/** `peers`: null where replicas are not told. */
export function peerRoutes(peers: PeerBook | null): Route[] {
  const change = (call: RoutedCall, make: (book: PeerBook, endpoint: string) => Reply): Reply => {
    const endpoint = required(jsonBody(call), 'endpoint', textOf)
    if (peers === null) return failure(409, 'replica sync is disabled')
    const problem = endpointProblem(endpoint)
    return problem === null ? make(peers, endpoint) : failure(400, problem)
  }
  return [
    {
      method: 'POST', pattern: '/replica_sync/register_peer',
      handle: (call) => change(call, (book, endpoint) => {
        if (book.endpoints.length >= peersMax && !book.endpoints.includes(endpoint)) return failure(503, `${peersMax} peers are registered, the limit`)
        try {
          return okAnswer(book.add(endpoint) ? 201 : 200)
        } catch (error) {
          return failure(400, `failed to register replica peer \`${endpoint}\`: ${error instanceof Error ? error.message : String(error)}`)
        }
      }),
    },
    {
      method: 'POST', pattern: '/replica_sync/deregister_peer',
      handle: (call) => change(call, (book, endpoint) => (book.remove(endpoint) ? okAnswer() : failure(404, 'peer not found'))),
    },
    { method: 'GET', pattern: '/replica_sync/peers', handle: () => ({ status: 200, body: peers?.endpoints ?? [] }) },
  ]
}
