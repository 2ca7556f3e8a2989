/** Request and event plane of a process from its options: the one place where a command's planes are made. */
import { loadTcpTls, TlsSettingError, type TcpTls } from '../dynamo/request-plane/tcp-tls.ts'
import { createEventPlane, type MixedEventPlane } from '../dynamo/event-plane/create-event-plane.ts'
import { parseBrokerUrl, type BrokerSource } from '../dynamo/event-plane/zmq-broker.ts'
import { NatsLink } from '../dynamo/nats/nats-link.ts'
import { NatsSettingError, natsSettingsOf, type NatsSettings } from '../dynamo/nats/nats-settings.ts'
import { chooseBindHost } from '../dynamo/request-plane/bind-host.ts'
import { NatsRequests } from '../dynamo/request-plane/nats-requests.ts'
import type { IncomingRequestCounts } from '../dynamo/request-plane/incoming-requests.ts'
import { createNatsRequestServer } from '../dynamo/request-plane/nats-server.ts'
import { createTcpRequestClient, type TcpRequestClient } from '../dynamo/request-plane/tcp-client.ts'
import { createTcpRequestServer } from '../dynamo/request-plane/tcp-server.ts'
import type { ValuesOf } from '../config/option.ts'
import type { runtimeOptions } from '../config/options/runtime.ts'
import { UsageError } from '../config/usage-error.ts'
import type { Clock, Discovery, Log, Random, RequestPlaneServer } from '../ports.ts'

export type PlaneValues = ValuesOf<typeof runtimeOptions>

export interface PlaneParts {
  readonly discovery: Discovery
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

export interface Planes {
  readonly server: RequestPlaneServer & { stats(): Readonly<IncomingRequestCounts> & { readonly openStreams: number; readonly handshakeFailures?: number } }
  readonly client: TcpRequestClient
  readonly eventPlane: MixedEventPlane
  readonly link: NatsLink
  /** Connects to NATS where a plane of this process travels over it. Errors: no server within the startup time, or one that refuses us. */
  start(signal: AbortSignal): Promise<void>
  /** After everything that uses the planes. */
  close(): Promise<void>
}

/** Not started yet. Errors: `UsageError` for settings that cannot be used, files that cannot be read. */
export async function createPlanes(values: PlaneValues, parts: PlaneParts): Promise<Planes> {
  const { clock, log } = parts
  checkHosts(values)
  const [tls, settings, broker] = await refusals(async () => [await tlsOf(values), natsOf(values), brokerOf(values)] as const)
  const overNats = { requests: values.requestPlane === 'nats', events: values.eventPlane === 'nats' }
  const link = new NatsLink({ settings, clock, log, wayOut: wayOut(overNats) })
  const inbound = { clock, log, frameBytesMax: values.tcpMaxMessageSize, tls }
  const nats = new NatsRequests(link, clock, { ackTimeoutMs: values.natsRequestTimeoutSeconds * 1000 })
  return {
    link,
    server: overNats.requests
      ? createNatsRequestServer({ ...inbound, link })
      : createTcpRequestServer({ ...inbound, host: values.tcpRpcHost ?? undefined, port: values.tcpRpcPort }),
    client: createTcpRequestClient({
      clock, log, tls, nats, host: values.tcpResponseStreamHost ?? undefined, port: values.tcpResponseStreamPort, backlog: values.tcpListenBacklog,
      connectTimeoutMs: values.tcpConnectTimeoutSeconds * 1000, ackTimeoutMs: values.tcpRequestTimeoutSeconds * 1000,
      idleTimeoutMs: values.tcpHostIdleTtlSeconds * 1000, requestBytesMax: values.tcpMaxMessageSize, connectionsMax: values.tcpPoolSize,
    }),
    eventPlane: createEventPlane({
      ...parts, kind: overNats.events ? 'nats' : 'zmq', link, broker, host: chooseBindHost(values.eventPlaneHost ?? undefined).advertise, ioThreads: values.zmqIoThreads,
    }),
    start: async (signal) => {
      if (overNats.requests || overNats.events) await refusals(() => link.start(signal))
    },
    close: () => link.close(),
  }
}

/** Errors: `UsageError` that names the variable. */
function checkHosts({ tcpRpcHost, tcpResponseStreamHost, eventPlaneHost }: PlaneValues): void {
  for (const [variable, host] of [['DYN_TCP_RPC_HOST', tcpRpcHost], ['DYN_TCP_RESPONSE_STREAM_HOST', tcpResponseStreamHost], ['DYN_EVENT_PLANE_HOST', eventPlaneHost]] as const) {
    try {
      chooseBindHost(host ?? undefined)
    } catch (error) {
      throw new UsageError(`${variable}: ${(error as Error).message}`)
    }
  }
}

const tlsOf = (values: PlaneValues): Promise<TcpTls> => loadTcpTls({
  cert: values.tcpTlsCert, key: values.tcpTlsKey, clientCa: values.tcpTlsClientCa, ca: values.tcpTlsCa, clientCert: values.tcpTlsClientCert, clientKey: values.tcpTlsClientKey,
  insecure: values.tcpTlsInsecure, serverName: values.tcpTlsServerName, handshakeTimeoutMs: values.tcpTlsHandshakeSeconds * 1000,
})

const natsOf = (values: PlaneValues): NatsSettings => natsSettingsOf({
  server: values.natsServer, username: values.natsUsername, password: values.natsPassword, token: values.natsToken, nkey: values.natsNkey, credentialsPath: values.natsCredentials,
  tlsCaPath: values.natsTlsCa, tlsCertPath: values.natsTlsCert, tlsKeyPath: values.natsTlsKey, tlsInsecure: values.natsTlsInsecure, startupTimeoutSeconds: values.natsStartupTimeoutSeconds,
})

/** A URL counts before discovery, as in Dynamo. */
function brokerOf({ eventPlane, zmqBrokerUrl, zmqBrokerEnabled }: PlaneValues): BrokerSource | null {
  if (eventPlane !== 'zmq') return null
  if (zmqBrokerUrl !== null && zmqBrokerUrl.trim() !== '') {
    try {
      return { kind: 'fixed', endpoints: parseBrokerUrl(zmqBrokerUrl) }
    } catch (error) {
      throw new UsageError((error as Error).message)
    }
  }
  return zmqBrokerEnabled ? { kind: 'discovered' } : null
}

function wayOut({ requests, events }: { readonly requests: boolean; readonly events: boolean }): string {
  const without = [...(requests ? ['DYN_REQUEST_PLANE=tcp'] : []), ...(events ? ['DYN_EVENT_PLANE=zmq'] : [])].join(' and ')
  return `Start nats-server there, or set NATS_SERVER${without === '' ? '' : `; or do without NATS: ${without} in every process of the deployment`}`
}

/** Settings that cannot be used are mistakes of whoever started us. */
async function refusals<Value>(work: () => Promise<Value>): Promise<Value> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof TlsSettingError || error instanceof NatsSettingError) throw new UsageError(error.message)
    throw error
  }
}
