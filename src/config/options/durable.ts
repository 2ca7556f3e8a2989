/** Options of state that outlives the router: JetStream, as in Dynamo 1.1 to 1.3, and a folder on disk. */
import { booleanOption, integerOption, maybePath } from '../option.ts'

const section = 'State that outlives the router'
const removed = { origin: 'dynamo-removed' as const, removedIn: '1.6' }
const durable = {
  ...removed, name: 'router-durable-kv-events', olderNames: [{ name: 'durable-kv-events', inDynamo16: false }], env: ['DYN_ROUTER_DURABLE_KV_EVENTS'], isDeprecatedInDynamo: true,
}
const reset = { ...removed, name: 'router-reset-states', env: ['DYN_ROUTER_RESET_STATES'] }
const threshold = { ...removed, name: 'router-snapshot-threshold', env: ['DYN_ROUTER_SNAPSHOT_THRESHOLD'], minimum: 1 }

export const durableOptions = {
  durableKvEvents: booleanOption(false, {
    ...durable, section, help: 'Read the cache events of workers with --durable-kv-events (Dynamo 1.1 to 1.3) from JetStream, and keep the snapshot there that their routers read too.',
  }),
  snapshotThreshold: integerOption(1000000, {
    ...threshold, unit: 'messages', section, help: 'Messages in the stream, or changes since the last one on disk, after which a snapshot is made.',
  }),
  resetStates: booleanOption(false, { ...reset, section, help: 'Forget at the start what was kept: the stream, its snapshot, and the file in --state-dir.' }),
  stateDir: maybePath({
    origin: 'warmpath', since: 'Warmpath 0.1', name: 'state-dir', env: ['WARMPATH_STATE_DIR'], section, defaultText: 'nothing is kept',
    help: 'Folder for a snapshot of what is known of workers that cannot be asked again, so that a restarted router is warm.',
  }),
  streamMaxAgeSeconds: integerOption(3600, {
    name: 'nats-stream-max-age', isFlag: false, env: ['DYN_NATS_STREAM_MAX_AGE'], minimum: 1, unit: 'seconds', section, ...removed,
    help: 'Age at which a stream that is made here drops its messages.',
  }),
}

/** The frontend reads no durable events; `warmpath router` does. */
export const frontendDurableOptions = {
  durableKvEvents: booleanOption(false, {
    ...durable, section, unavailable: { why: 'a frontend reads events from the event plane, not from JetStream', mend: 'leave it out, or put `warmpath router` with that option between' },
    help: 'Read cache events from a durable JetStream stream.',
  }),
  resetStates: booleanOption(false, { ...reset, section, noEffect: 'a frontend keeps no state; `warmpath router` does', help: 'Clear durable state at start.' }),
  snapshotThreshold: integerOption(1000000, { ...threshold, section, noEffect: 'a frontend keeps no state; `warmpath router` does', help: 'Messages between two snapshots of durable state.' }),
}
