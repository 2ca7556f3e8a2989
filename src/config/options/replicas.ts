/** Options of several routers over the same workers. Names and defaults are Dynamo's. */
import { booleanOption } from '../option.ts'

const section = 'Several routers'

export const replicaOptions = {
  replicaSync: booleanOption(false, {
    name: 'router-replica-sync', env: ['DYN_ROUTER_REPLICA_SYNC'], policyName: 'router_replica_sync', section,
    help: 'Share running requests, and bindings of sessions, with the other routers of the same workers, of Dynamo too.',
  }),
  useRemoteIndexer: booleanOption(false, {
    name: 'use-remote-indexer', env: ['DYN_USE_REMOTE_INDEXER'], policyName: 'use_remote_indexer', section,
    help: 'Ask a router that serves its index for overlap, instead of keeping an index here.',
  }),
  serveIndexer: booleanOption(false, {
    name: 'serve-indexer', env: ['DYN_SERVE_INDEXER'], policyName: 'serve_indexer', section,
    help: 'Answer other routers that ask for overlap, beside the workers: endpoint kv_indexer_query of their component.',
  }),
}
