/** Durable KV events and state on disk of the router's pools, from its options. */
import { access, constants } from 'node:fs/promises'
import { DurableEvents } from '../dynamo/durable/durable-events.ts'
import { NoJetStreamError } from '../dynamo/durable/jetstream-store.ts'
import { createDurableHint } from '../dynamo/durable/durable-hint.ts'
import type { NatsLink } from '../dynamo/nats/nats-link.ts'
import type { ParsedConfig } from '../config/parse-command.ts'
import { UsageError } from '../config/usage-error.ts'
import { makeFolder } from '../make-folder.ts'
import { StateKeeper } from '../state/state-keeper.ts'
import type { StandaloneRouterParts } from '../standalone/router-service.ts'
import type { Clock, Discovery, EndpointId, Log, Random } from '../ports.ts'

interface DurableParts {
  readonly link: NatsLink
  readonly discovery: Discovery
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

/** Null: they are not asked for. */
export function durableEventsOf({ values }: ParsedConfig<'router'>, parts: DurableParts): NonNullable<StandaloneRouterParts['durableEvents']> | null {
  if (!values.durableKvEvents) return null
  const options = { snapshotThreshold: values.snapshotThreshold, resetStates: values.resetStates, maxAgeSeconds: values.streamMaxAgeSeconds }
  return (endpoint, transport, sink) => new DurableEvents({ ...parts, endpoint, transport, sink, options })
}

/** Says once when workers publish durably and this process does not read that; null: there is no NATS to look at. */
export const durableHintOf = ({ link, clock, log }: { readonly link?: NatsLink; readonly clock: Clock; readonly log: Log }, mend: string): ((endpoint: EndpointId) => void) | null =>
  link === undefined ? null : createDurableHint({ link, clock, log, mend })

/** What a failed start means for whoever started us. */
export function durableStartError(error: unknown, link: NatsLink): unknown {
  if (!(error instanceof NoJetStreamError)) return error
  return new UsageError(`--router-durable-kv-events: the NATS server at ${link.servers} has no JetStream (${error.message}); start nats-server with -js, or leave the option out and give --state-dir, which keeps a snapshot on disk`)
}

/** Makes the folder of `--state-dir`. Errors: `UsageError`: it cannot be made, or not be written. */
export async function openStateFolder({ values: { stateDir } }: ParsedConfig<'router'>): Promise<void> {
  if (stateDir === null) return
  try {
    await makeFolder(stateDir)
    await access(stateDir, constants.W_OK | constants.X_OK)
  } catch (error) {
    throw new UsageError(`--state-dir ${stateDir}: no folder that can be written (${(error as NodeJS.ErrnoException).code ?? String(error)}); give another, or leave it out`)
  }
}

/** State on disk, with `--state-dir`; null: none is kept. */
export function stateOf({ values }: ParsedConfig<'router'>, { clock, log }: Pick<DurableParts, 'clock' | 'log'>): StandaloneRouterParts['stateOf'] {
  const { stateDir: folder } = values
  if (folder === null) return null
  return (sources) => new StateKeeper({ ...sources, folder, clock, log, threshold: values.snapshotThreshold, reset: values.resetStates })
}
