/** Two routers under one name share each other's clients: found out before the router registers. */
import { connect } from 'node:net'
import type { Discovery, InstanceRecord, JsonObject, Log } from '../ports.ts'
import { decodeInstanceRecord } from '../dynamo/wire/instance-record.ts'
import { parseTcpAddress } from '../dynamo/wire/endpoint-path.ts'

/** The field that our routers add to their endpoint records; other readers ignore it. */
const markField = 'warmpath'

/** What a router of ours says of its target in its records. */
export const targetMark = (target: string): JsonObject => ({ [markField]: { target } })

/** Thrown when the name is taken by another router of ours with another target. */
export class OccupiedNameError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'OccupiedNameError'
  }
}

const probeTimeoutMs = 500

export interface OccupiedNameQuestion {
  readonly discovery: Discovery
  readonly log: Log
  readonly namespace: string
  readonly component: string
  readonly target: string
  readonly force: boolean
}

/**
 * Replicas with the same target may share a name. Errors: `OccupiedNameError` for a live router of ours with another target, unless
 * forced. A router that is not ours is only warned of: its target cannot be known.
 */
export async function refuseOccupiedName({ discovery, log, namespace, component, target, force }: OccupiedNameQuestion): Promise<void> {
  for (const value of (await discovery.list('v1/instances', `${namespace}/${component}/generate`)).values()) {
    const record = readable(value)
    if (record === null || record.instanceId === discovery.instanceId || !(await isAlive(record))) continue
    const name = `${namespace}.${component}.generate`
    const mark = value[markField]
    const other = typeof mark === 'object' && mark !== null && !Array.isArray(mark) ? (mark as JsonObject)['target'] : undefined
    if (typeof other !== 'string') {
      log.warn({ stage: 'start', worker_id: record.instanceId.toString(), reason: 'name-shared' },
        `another router serves ${name} already; clients alternate between the two. If its workers are not ${target}, give this one --component NAME`)
    } else if (other !== target) {
      const message = `${name} is served by a live router for ${other}; this one is for ${target}, and clients would alternate between the two`
      if (!force) throw new OccupiedNameError(`${message}. Give it a name of its own with --component NAME, or start it all the same with --force`)
      log.warn({ stage: 'start', reason: 'name-shared' }, `${message} (--force)`)
    }
  }
}

function readable(value: JsonObject): InstanceRecord | null {
  try {
    return decodeInstanceRecord(value)
  } catch {
    return null
  }
}

/** A record can outlive its process by seconds: only one that answers counts. */
function isAlive(record: InstanceRecord): Promise<boolean> {
  if (!('tcp' in record.transport)) return Promise.resolve(true)
  let address: ReturnType<typeof parseTcpAddress>
  try {
    address = parseTcpAddress(record.transport.tcp)
  } catch {
    return Promise.resolve(false)
  }
  return new Promise((resolve) => {
    const socket = connect({ host: address.host, port: address.port, timeout: probeTimeoutMs })
    const answer = (alive: boolean): void => {
      socket.destroy()
      resolve(alive)
    }
    socket.once('connect', () => answer(true))
    socket.once('error', () => answer(false))
    socket.once('timeout', () => answer(false))
  })
}
