/**
 * The worker's side of KV events: publishes the changes of one dp rank's cache and answers routers that missed some.
 *
 * Start: channel, then the recovery endpoint, then its record, then the source record, so that a router that finds the source
 * finds everything. Close undoes it in reverse.
 */
import { publishGroups } from '../../kv-events/publisher-pipeline.ts'
import type { RouterEvent } from '../../model/kv-event.ts'
import type { WorkerRank } from '../../model/worker.ts'
import type {
  Codec, Discovery, EndpointId, EventPlane, IncomingRequest, InstanceRecord, Log, RequestPlaneServer, ResponseWriter,
} from '../../ports.ts'
import { instanceKey } from '../discovery/store-key.ts'
import { eventKey } from '../event-plane/event-keys.ts'
import { encodeInstanceRecord } from '../wire/instance-record.ts'
import { encodeKvEvents } from '../wire/kv-events.ts'
import { WireError } from '../wire/wire-error.ts'
import { encodeEventSource, kvEventsTopic, recoveryEndpointName } from './event-source.ts'
import { KvEventLog } from './kv-event-log.ts'
import type { KvChange } from './kv-event-log.ts'
import { decodeRecoveryRequest, encodeRecoveryItem } from './recovery-codec.ts'
import type { RecoveryReply } from './recovery-codec.ts'

/** Full dumps whose bytes are on their way, at most. */
const dumpsMax = 8

export interface KvEventPublisherParts {
  readonly plane: EventPlane
  readonly discovery: Discovery
  readonly log: Log
  /** The worker endpoint. */
  readonly endpoint: EndpointId
  readonly rank: WorkerRank
  /** Where routers ask for missed events; started by the caller. Null: a live-only source. */
  readonly server: RequestPlaneServer | null
  /** Codec that the recovery endpoint announces. Default msgpack. */
  readonly codec?: Codec
  readonly ringMax?: number
}

/** Plain counters. */
export interface KvEventPublisherStats {
  events: number
  batches: number
  dumps: number
  replays: number
  /** Questions answered with anything else, by form. */
  refusals: number
}

export interface KvEventPublisher {
  readonly publisherId: bigint
  readonly stats: KvEventPublisherStats
  /** Id of the newest event; 0 before the first. */
  readonly lastEventId: bigint
  /** Publishes changes in order; returns the events as sent. */
  publish(changes: readonly KvChange[]): readonly RouterEvent[]
  /** Unregisters the source and its recovery endpoint. */
  close(): Promise<void>
}

/** Binds and registers a publisher of one rank. Errors: of event plane and discovery. */
export async function createKvEventPublisher(parts: KvEventPublisherParts): Promise<KvEventPublisher> {
  const { plane, discovery, endpoint, rank, server } = parts
  const log = new KvEventLog(rank, parts.ringMax)
  const stats: KvEventPublisherStats = { events: 0, batches: 0, dumps: 0, replays: 0, refusals: 0 }
  const publisher = await plane.publisher(endpoint, kvEventsTopic)
  const undo: (() => Promise<void> | void)[] = [() => publisher.close()]
  const close = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step()
  }
  try {
    let recoveryTarget: InstanceRecord | null = null
    if (server !== null) {
      const query: EndpointId = { ...endpoint, endpoint: recoveryEndpointName(publisher.publisherId) }
      const served = server.serve(query, rank.workerId, createRecoveryHandler(log, stats, parts.log))
      undo.push(() => served.close())
      await served.ready
      recoveryTarget = { ...query, instanceId: rank.workerId, transport: served.transport, codec: parts.codec ?? 'msgpack', deviceType: null }
      const key = instanceKey(query, rank.workerId)
      await discovery.put('v1/instances', key, encodeInstanceRecord(recoveryTarget))
      undo.push(() => discovery.remove('v1/instances', key))
    }
    const sourceKey = eventKey(endpoint, kvEventsTopic, publisher.publisherId)
    await discovery.put('v1/event_sources', sourceKey, encodeEventSource(endpoint, { publisherId: publisher.publisherId, rank, recoveryTarget }))
    undo.push(() => discovery.remove('v1/event_sources', sourceKey))
  } catch (error) {
    await close()
    throw error
  }
  return {
    publisherId: publisher.publisherId,
    stats,
    get lastEventId() {
      return log.lastEventId
    },
    publish(changes) {
      const events = changes.map((change) => log.append(change))
      stats.events += events.length
      for (const batch of publishGroups(events)) {
        stats.batches += 1
        publisher.publish(encodeKvEvents(batch))
      }
      return events
    },
    close,
  }
}

function createRecoveryHandler(log: KvEventLog, stats: KvEventPublisherStats, logger: Log) {
  let dumpsUnderWay = 0
  return (request: IncomingRequest, response: ResponseWriter): void => {
    let reply: RecoveryReply
    try {
      reply = log.answer(decodeRecoveryRequest(request.body, request.codec))
    } catch (error) {
      if (!(error instanceof WireError)) throw error
      reply = { Error: error.message }
    }
    if ('TreeDump' in reply && dumpsUnderWay >= dumpsMax) {
      reply = { TreeDumpFailed: { lastEventId: log.lastEventId, message: `${dumpsMax} dumps are under way, ask again later` } }
    }
    if ('TreeDump' in reply) stats.dumps += 1
    else if ('Events' in reply) stats.replays += 1
    else {
      stats.refusals += 1
      logger.debug({ request_id: request.id, reason: Object.keys(reply)[0] }, 'recovery question not answered with events')
    }
    if (response.writeItem(encodeRecoveryItem(reply, request.codec)) || !('TreeDump' in reply)) return response.end()
    dumpsUnderWay += 1
    let isOver = false
    const finish = (): void => {
      if (isOver) return
      isOver = true
      dumpsUnderWay -= 1
      response.end()
    }
    response.onDrain = finish
    response.onCancel = finish
  }
}
