/** TLS of request and response connections: settings, what is read from files once, and how a connection is dialled. */
import { readFile } from 'node:fs/promises'
import { connect as connectPlain, type Socket } from 'node:net'
import { connect as connectTls, createSecureContext, type SecureContext, type TlsOptions } from 'node:tls'

/** Paths of PEM files, as the variables `DYN_TCP_TLS_*` name them. All null and not insecure: plain TCP. */
export interface TcpTlsPaths {
  /** Certificate and key that our listeners show. */
  readonly cert: string | null
  readonly key: string | null
  /** Callers must show a certificate of this authority. */
  readonly clientCa: string | null
  /** Authority of the servers that we call. */
  readonly ca: string | null
  /** Certificate and key that we show to servers. */
  readonly clientCert: string | null
  readonly clientKey: string | null
  /** Servers may show any certificate. */
  readonly insecure: boolean
  /** The name that servers' certificates must have; null: their address. */
  readonly serverName: string | null
  readonly handshakeTimeoutMs: number
}

/** What listeners need. */
export interface ServerTls {
  readonly options: TlsOptions
}

/** What dialling needs. */
export interface ClientTls {
  readonly context: SecureContext
  readonly insecure: boolean
  readonly serverName: string | null
  readonly handshakeTimeoutMs: number
}

/** Both sides of this process; null where a side speaks plain TCP. */
export interface TcpTls {
  readonly server: ServerTls | null
  readonly client: ClientTls | null
}

/** A setting of TLS that cannot be used. The message names the variable and what is valid. */
export class TlsSettingError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'TlsSettingError'
  }
}

/** Plain TCP on both sides. */
export const plainTcp: TcpTls = { server: null, client: null }

/** Reads and checks certificates. Errors: `TlsSettingError`. */
export async function loadTcpTls(paths: TcpTlsPaths): Promise<TcpTls> {
  return { server: await serverOf(paths), client: await clientOf(paths) }
}

async function serverOf({ cert, key, clientCa, handshakeTimeoutMs }: TcpTlsPaths): Promise<ServerTls | null> {
  if (cert === null && key === null) {
    if (clientCa !== null) throw new TlsSettingError('DYN_TCP_TLS_CLIENT_CA_CERT_PATH is set, but callers can only show a certificate over TLS: set DYN_TCP_TLS_CERT_PATH and DYN_TCP_TLS_KEY_PATH too')
    return null
  }
  if (cert === null || key === null) throw new TlsSettingError('DYN_TCP_TLS_CERT_PATH and DYN_TCP_TLS_KEY_PATH go together; only one is set')
  const material = {
    cert: await read('DYN_TCP_TLS_CERT_PATH', cert), key: await read('DYN_TCP_TLS_KEY_PATH', key),
    ...(clientCa === null ? {} : { ca: await read('DYN_TCP_TLS_CLIENT_CA_CERT_PATH', clientCa) }),
  }
  contextOf('DYN_TCP_TLS_CERT_PATH with DYN_TCP_TLS_KEY_PATH', material)
  return { options: { ...material, ...(clientCa === null ? {} : { requestCert: true, rejectUnauthorized: true }), handshakeTimeout: handshakeTimeoutMs } }
}

async function clientOf({ ca, clientCert, clientKey, insecure, serverName, handshakeTimeoutMs }: TcpTlsPaths): Promise<ClientTls | null> {
  if (ca === null && clientCert === null && clientKey === null && serverName === null && !insecure) return null
  if ((clientCert === null) !== (clientKey === null)) throw new TlsSettingError('DYN_TCP_TLS_CLIENT_CERT_PATH and DYN_TCP_TLS_CLIENT_KEY_PATH go together; only one is set')
  if (ca === null && !insecure) throw new TlsSettingError('TLS towards servers is asked for, but DYN_TCP_TLS_CA_CERT_PATH is not set; set it, or DYN_TCP_TLS_INSECURE=true to take any certificate')
  const context = contextOf('DYN_TCP_TLS_CA_CERT_PATH, or DYN_TCP_TLS_CLIENT_CERT_PATH with DYN_TCP_TLS_CLIENT_KEY_PATH', {
    ...(ca === null ? {} : { ca: await read('DYN_TCP_TLS_CA_CERT_PATH', ca) }),
    ...(clientCert === null || clientKey === null ? {} : { cert: await read('DYN_TCP_TLS_CLIENT_CERT_PATH', clientCert), key: await read('DYN_TCP_TLS_CLIENT_KEY_PATH', clientKey) }),
  })
  return { context, insecure, serverName, handshakeTimeoutMs }
}

function contextOf(fields: string, material: Parameters<typeof createSecureContext>[0]): SecureContext {
  try {
    return createSecureContext(material)
  } catch (error) {
    throw new TlsSettingError(`${fields}: cannot be used (${error instanceof Error ? error.message : String(error)})`)
  }
}

async function read(field: string, path: string): Promise<Buffer> {
  try {
    return await readFile(path)
  } catch (error) {
    throw new TlsSettingError(`${field}=${JSON.stringify(path.slice(0, 200))}: cannot be read (${(error as NodeJS.ErrnoException).code ?? 'error'})`)
  }
}

export interface Dialled {
  readonly host: string
  readonly port: number
  readonly allowHalfOpen?: boolean
  /** Takes what comes, at once: the bytes are others afterwards. */
  readonly onData: (chunk: Uint8Array) => void
}

/** What dialled connections read is acknowledgements and control words: one buffer serves them all, in place of one for each read. */
const readBuffer = Buffer.allocUnsafeSlow(16_384)

/** A connection that is being made; what is written waits for it. `onOpen`: once, when the peer is reached and, with TLS, has proved itself. */
export function dial(target: Dialled, tls: ClientTls | null, onOpen: () => void): Socket {
  const { host, port, allowHalfOpen = false, onData } = target
  if (tls === null) {
    const callback = (bytes: number): boolean => {
      onData(readBuffer.subarray(0, bytes))
      return true
    }
    const plain = connectPlain({ host, port, noDelay: true, allowHalfOpen, onread: { buffer: readBuffer, callback } })
    plain.once('connect', onOpen)
    return plain
  }
  // Without a name the certificate is checked against the address.
  const options = {
    host, port, allowHalfOpen, secureContext: tls.context, rejectUnauthorized: !tls.insecure, ...(tls.serverName === null ? {} : { servername: tls.serverName }),
  }
  const secure = connectTls(options)
  secure.setNoDelay(true)
  secure.on('data', onData)
  let timer: NodeJS.Timeout | undefined
  secure.once('connect', () => {
    timer = setTimeout(() => secure.destroy(new Error(`TLS handshake not finished within ${tls.handshakeTimeoutMs} ms; does the peer speak TLS (DYN_TCP_TLS_CERT_PATH)?`)), tls.handshakeTimeoutMs)
  })
  secure.once('secureConnect', () => {
    clearTimeout(timer)
    onOpen()
  })
  secure.once('close', () => clearTimeout(timer))
  return secure
}
