/** Options of several routers over the same workers. Names and defaults are Dynamo's. */
import { booleanOption } from '../option.ts'

const section = 'Several routers'

export const replicaOptions = {
  replicaSync: booleanOption(false, {
    name: 'router-replica-sync', env: ['DYN_ROUTER_REPLICA_SYNC'], policyName: 'router_replica_sync', section,
    help: 'Share running requests, and bindings of sessions, with the other routers of the same workers, of Dynamo too.',
  }),
}
