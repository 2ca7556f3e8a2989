/** Workers that publish durable KV events while this process reads none: said once per component, with the option that is missing. */
import type { Clock, EndpointId, Log } from '../../ports.ts'
import type { NatsLink } from '../nats/nats-link.ts'
import { JetStreamStore, NoJetStreamError } from './jetstream-store.ts'
import { durableNames } from './names.ts'

export interface DurableHintParts {
  readonly link: NatsLink
  readonly clock: Clock
  readonly log: Log
  /** What to do, in words that name the option. */
  readonly mend: string
}

/** Workers that have had nothing to do have published nothing. */
const lookAgainMs = 30_000

/**
 * Call with the endpoint of a worker that has no source of events and says that it keeps no index of its own. Those of 1.1 and 1.3 say
 * so, and so do others that publish nothing; so the stream is looked at first, once there is a connection to NATS: none is made for this.
 */
export function createDurableHint({ link, clock, log, mend }: DurableHintParts): (endpoint: EndpointId) => void {
  const looked = new Set<string>()
  const look = async (endpoint: EndpointId): Promise<void> => {
    const names = durableNames(endpoint)
    const { session } = link
    if (looked.has(names.stream)) return
    looked.add(names.stream)
    if (session === null) return lookAgain(endpoint)
    try {
      const { messages } = await (await JetStreamStore.open(session, names)).streamState()
      if (messages === 0) return lookAgain(endpoint)
      log.warn({ stage: 'durable', stream: names.stream, messages }, `workers of ${endpoint.namespace}.${endpoint.component} publish durable KV events, which are not read here: their caches are only assumed. ${mend}`)
    } catch (error) {
      log.debug({ stage: 'durable', stream: names.stream, reason: (error as Error).message }, 'no durable KV events were found')
      if (!(error instanceof NoJetStreamError)) lookAgain(endpoint)
    }
  }
  const lookAgain = (endpoint: EndpointId): void => {
    clock.setTimer(lookAgainMs, () => {
      looked.delete(durableNames(endpoint).stream)
      void look(endpoint)
    })
  }
  return (endpoint) => {
    if (link.connected) return void look(endpoint)
    const watch = link.onState((state) => {
      if (state !== 'up') return
      watch.close()
      void look(endpoint)
    })
  }
}
