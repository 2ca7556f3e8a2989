/** What a runtime is made of, from Dynamo's environment variables: the same table as the command line reads. */
import { readFileSync } from 'node:fs'
import { openDiscovery } from '../planes/open-discovery.ts'
import { createPlanes } from '../planes/planes.ts'
import { parseCommand } from '../config/parse-command.ts'
import type { WorkerValues } from '../config/table.ts'
import { createLog } from '../observability/log.ts'
import type { Clock, Discovery, EventPlane, Log, Random, RequestPlaneClient, RequestPlaneServer } from '../ports.ts'
import { systemClock, systemRandom } from '../system-ports.ts'

export type Environment = Readonly<Record<string, string | undefined>>

/** Parts of a runtime; what is given is not closed by it, only what it made. */
export interface RuntimeParts {
  /** Started; its instance id is the process's. */
  readonly discovery: Discovery
  /** Started. */
  readonly server: RequestPlaneServer
  readonly eventPlane: EventPlane
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** Started, or starts when it is first needed; null: no calls can be made. */
  readonly client: (() => Promise<RequestPlaneClient>) | null
}

/** What a program may set in place of the environment. */
export interface RuntimeOptions {
  /** Default: that of the process. Other members of these options come before it. */
  readonly env?: Environment
  /** `DYN_DISCOVERY_BACKEND`. */
  readonly discoveryBackend?: 'etcd' | 'file' | 'mem' | 'kubernetes'
  /** `DYN_FILE_KV`: the folder of file discovery. */
  readonly fileKv?: string
  /** `DYN_REQUEST_PLANE`. */
  readonly requestPlane?: 'tcp' | 'nats'
  /** `DYN_EVENT_PLANE`. */
  readonly eventPlane?: 'zmq' | 'nats'
  /** The address of all listeners, an IP or an interface. Default: found. */
  readonly host?: string
  /** `DYN_SYSTEM_PORT`: -1 off, 0 any. */
  readonly systemPort?: number
  /** Default: standard error, by `DYN_LOG` and `DYN_LOGGING_JSONL`. */
  readonly log?: Log
  /** In place of what the environment asks for; not started, closed with the runtime. */
  readonly discovery?: Discovery
  /** Ends the start. */
  readonly signal?: AbortSignal
}

/** The environment that the options make. */
export function runtimeEnvironment(options: RuntimeOptions): Environment {
  const { discoveryBackend, fileKv, requestPlane, eventPlane, host, systemPort } = options
  const given = {
    DYN_DISCOVERY_BACKEND: discoveryBackend, DYN_FILE_KV: fileKv, DYN_REQUEST_PLANE: requestPlane, DYN_EVENT_PLANE: eventPlane,
    DYN_TCP_RPC_HOST: host, DYN_TCP_RESPONSE_STREAM_HOST: host, DYN_EVENT_PLANE_HOST: host, DYN_SYSTEM_PORT: systemPort?.toString(),
  }
  return { ...(options.env ?? process.env), ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) }
}

/** The settings that an environment makes. Errors: `UsageError` that names variable, value and mend. */
export async function runtimeValues(env: Environment): Promise<{ readonly values: WorkerValues; readonly warnings: readonly string[] }> {
  const parsed = await parseCommand('worker', [], env, (path) => readFileSync(path))
  if (parsed.kind !== 'config') throw new Error('no settings')
  return parsed
}

export interface BuiltParts {
  readonly parts: RuntimeParts
  /** Closes what was made here, in order. */
  close(): Promise<void>
}

/** Makes and starts the parts. Errors: `UsageError`; discovery and listeners that cannot be had. Nothing stays open then. */
export async function buildParts(values: WorkerValues, env: Environment, options: Pick<RuntimeOptions, 'log' | 'discovery' | 'signal'> = {}): Promise<BuiltParts> {
  const own = options.log === undefined ? createLog({ level: values.log, jsonl: values.logJson }) : null
  const log = options.log ?? (own as Log)
  const [clock, random, signal] = [systemClock(), systemRandom(), options.signal ?? new AbortController().signal]
  const discovery = options.discovery ?? openDiscovery(env, { clock, log })
  const { server, client, eventPlane, ...planes } = await createPlanes({ ...values, zmqIoThreads: 1 }, { discovery, clock, random, log })
  const closing: (() => Promise<void> | void)[] = [() => own?.flush(), () => planes.close(), () => discovery.close(2000), () => server.close(), () => eventPlane.close()]
  // Timers of the parts do not keep the process; while it waits, for NATS say, nothing else would.
  const keepAlive = setInterval(() => {}, 2 ** 30)
  closing.push(() => clearInterval(keepAlive))
  const close = async (): Promise<void> => {
    for (const step of closing.splice(0).reverse()) await step()
  }
  try {
    await Promise.all([discovery.start(signal), planes.start(signal), server.start(signal)])
  } catch (error) {
    await close()
    throw error
  }
  let started: Promise<RequestPlaneClient> | null = null
  const startClient = async (): Promise<RequestPlaneClient> => {
    closing.push(() => client.close())
    await client.start(signal)
    return client
  }
  return { parts: { discovery, server, eventPlane, clock, random, log, client: () => (started ??= startClient()) }, close }
}
