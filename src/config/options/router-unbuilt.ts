/** Options of Dynamo's router whose mechanism this version lacks: their defaults are accepted, other values end the start. */
import { booleanOption, integerOption } from '../option.ts'

const unbuilt = 'Not available in this version'
const gone = 'Names of earlier releases'

export const routerUnbuiltOptions = {
  durableKvEvents: booleanOption(false, {
    name: 'router-durable-kv-events', olderNames: [{ name: 'durable-kv-events', inDynamo16: false }], env: ['DYN_ROUTER_DURABLE_KV_EVENTS'],
    origin: 'dynamo-removed', removedIn: '1.6', isDeprecatedInDynamo: true, section: unbuilt,
    unavailable: { why: 'events are read from the event plane, not from JetStream', mend: 'leave it out; the index is asked again from the workers at start' },
    help: 'Read cache events from a durable JetStream stream.',
  }),
  resetStates: booleanOption(false, {
    name: 'router-reset-states', env: ['DYN_ROUTER_RESET_STATES'], origin: 'dynamo-removed', removedIn: '1.6', section: gone,
    noEffect: 'it clears durable JetStream state or the state directory; this version keeps neither and asks the workers for the index at start',
    help: 'Clear durable state at start.',
  }),
  snapshotThreshold: integerOption(1000000, {
    name: 'router-snapshot-threshold', env: ['DYN_ROUTER_SNAPSHOT_THRESHOLD'], origin: 'dynamo-removed', removedIn: '1.6', minimum: 1, section: gone,
    noEffect: 'it says when durable JetStream state or the state directory is snapshot; this version keeps neither and asks the workers for the index at start',
    help: 'Messages between two snapshots of durable state.',
  }),
}
