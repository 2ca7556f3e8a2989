/** Which NATS servers, who we are to them, and how they are known: settings, and what they become for the client library. */
import { readFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import { checkServerIdentity, type PeerCertificate } from 'node:tls'
import type { Authenticator, ConnectionOptions } from '@nats-io/transport-node'

/** How we tell who we are. `credentials`: the path of a credentials file. `nkey`: a seed, as text. */
export type NatsAuth =
  | { readonly kind: 'user'; readonly user: string; readonly password: string }
  | { readonly kind: 'token'; readonly token: string }
  | { readonly kind: 'nkey'; readonly seed: string }
  | { readonly kind: 'credentials'; readonly path: string }

/** Paths of PEM files. */
export interface NatsTls {
  readonly caPath: string | null
  readonly certPath: string | null
  readonly keyPath: string | null
  /** True: any certificate of the server is taken. */
  readonly insecure: boolean
}

export interface NatsSettings {
  /** `nats://host:port`, `tls://host:port` or `host:port`; at least one. */
  readonly servers: readonly string[]
  readonly auth: NatsAuth
  /** Null: plain, unless a server is `tls://` or offers it. */
  readonly tls: NatsTls | null
  /** How long `start` waits for a server. Units: ms. */
  readonly startupTimeoutMs: number
}

/** A setting of NATS that cannot be used. The message names the variable, the value and what is valid. */
export class NatsSettingError extends Error {
  constructor(field: string, value: string, mend: string) {
    super(`${field}=${JSON.stringify(value.slice(0, 200))}: ${mend}`)
    this.name = 'NatsSettingError'
  }
}

/** What the variables of Dynamo say, where they are set. */
export interface NatsVariables {
  readonly server: string | null
  readonly username: string | null
  readonly password: string | null
  readonly token: string | null
  readonly nkey: string | null
  readonly credentialsPath: string | null
  readonly tlsCaPath: string | null
  readonly tlsCertPath: string | null
  readonly tlsKeyPath: string | null
  readonly tlsInsecure: boolean
  readonly startupTimeoutSeconds: number
}

/** Where a server is looked for when nothing else is said. */
export const natsServerDefault = 'nats://localhost:4222'

const schemes = ['nats:', 'tls:']

/**
 * The settings of variables. Credentials in an address count where no variable has some; without any it is user `user`, password `user`, as in Dynamo.
 *
 * Errors: `NatsSettingError`.
 */
export function natsSettingsOf(variables: NatsVariables): NatsSettings {
  const text = variables.server?.trim() ?? ''
  const addresses = (text === '' ? natsServerDefault : text).split(',').map((part) => part.trim()).filter((part) => part !== '')
  let inAddress: NatsAuth | null = null
  let wantsTls = false
  const servers = addresses.map((address) => {
    const url = urlOf(address)
    wantsTls ||= url.protocol === 'tls:'
    const user = decodeURIComponent(url.username)
    if (user !== '') inAddress ??= url.password === '' ? { kind: 'token', token: user } : { kind: 'user', user, password: decodeURIComponent(url.password) }
    return `${url.protocol}//${url.hostname}:${url.port === '' ? '4222' : url.port}`
  })
  if (servers.length === 0) throw new NatsSettingError('NATS_SERVER', text, 'no address; give nats://HOST:PORT')
  const { tlsCaPath: caPath, tlsCertPath: certPath, tlsKeyPath: keyPath, tlsInsecure: insecure } = variables
  if ((certPath === null) !== (keyPath === null)) throw new NatsSettingError(certPath === null ? 'NATS_TLS_CLIENT_CERT_PATH' : 'NATS_TLS_CLIENT_KEY_PATH', '', 'certificate and key go together')
  const hasTls = wantsTls || caPath !== null || certPath !== null || insecure
  return {
    servers,
    auth: authOf(variables) ?? inAddress ?? { kind: 'user', user: 'user', password: 'user' },
    tls: hasTls ? { caPath, certPath, keyPath, insecure } : null,
    startupTimeoutMs: variables.startupTimeoutSeconds * 1000,
  }
}

function urlOf(address: string): URL {
  try {
    const url = new URL(address.includes('://') ? address : `nats://${address}`)
    if (schemes.includes(url.protocol) && url.hostname !== '') return url
  } catch {
    // Named below.
  }
  throw new NatsSettingError('NATS_SERVER', address, 'not an address; give nats://HOST:PORT or tls://HOST:PORT, several with commas between')
}

function authOf({ username, password, token, nkey, credentialsPath }: NatsVariables): NatsAuth | null {
  if (username !== null && password !== null) return { kind: 'user', user: username, password }
  if (token !== null) return { kind: 'token', token }
  if (nkey !== null) return { kind: 'nkey', seed: nkey }
  return credentialsPath === null ? null : { kind: 'credentials', path: credentialsPath }
}

/**
 * What is read anew for each connection to one of `servers`: those of the settings, and those that a cluster told of.
 *
 * Errors: `NatsSettingError` for a file that cannot be read.
 */
export async function identityOf(
  settings: NatsSettings, library: typeof import('@nats-io/transport-node'), servers: readonly string[] = settings.servers,
): Promise<Pick<ConnectionOptions, 'authenticator' | 'tls'>> {
  const { tls } = settings
  if (tls === null) return { authenticator: await authenticatorOf(settings.auth, library) }
  const ca = tls.caPath === null ? null : await readText('NATS_TLS_CA_CERT_PATH', tls.caPath)
  const cert = tls.certPath === null ? null : await readText('NATS_TLS_CLIENT_CERT_PATH', tls.certPath)
  const key = tls.keyPath === null ? null : await readText('NATS_TLS_CLIENT_KEY_PATH', tls.keyPath)
  return {
    authenticator: await authenticatorOf(settings.auth, library),
    // What the library does not know of goes to `tls.connect` as it is.
    tls: { ...(ca === null ? {} : { ca }), ...(cert === null ? {} : { cert }), ...(key === null ? {} : { key }), ...(tls.insecure ? { rejectUnauthorized: false } : { checkServerIdentity: identityCheck(servers) }) } as ConnectionOptions['tls'] & object,
  }
}

/**
 * Checks whom a certificate is of. The library names an IP address nowhere in the handshake, so that Node would look for `localhost`
 * in the certificate of a server that is known by its address: there it has to be of an address that we may connect to.
 */
function identityCheck(servers: readonly string[]): (host: string, certificate: PeerCertificate) => Error | undefined {
  const urls = servers.map((server) => (server.includes('://') ? server : `nats://${server}`)).filter((text) => URL.canParse(text))
  const hosts = urls.map((text) => new URL(text).hostname.replace(/^\[|\]$/g, ''))
  const unnamed = hosts.filter((host) => isIP(host) !== 0 || host === 'localhost')
  return (host, certificate) => {
    if (host !== 'localhost' || unnamed.length === 0) return checkServerIdentity(host, certificate)
    const errors = unnamed.map((name) => checkServerIdentity(name, certificate))
    return errors.includes(undefined) ? undefined : errors[0]
  }
}

async function authenticatorOf(auth: NatsAuth, library: typeof import('@nats-io/transport-node')): Promise<Authenticator> {
  switch (auth.kind) {
    case 'user': return library.usernamePasswordAuthenticator(auth.user, auth.password)
    case 'token': return library.tokenAuthenticator(auth.token)
    case 'nkey': return checked('NATS_AUTH_NKEY', library.nkeyAuthenticator(new TextEncoder().encode(auth.seed)))
    case 'credentials': return checked('NATS_AUTH_CREDENTIALS_FILE', library.credsAuthenticator(new TextEncoder().encode(await readText('NATS_AUTH_CREDENTIALS_FILE', auth.path))))
  }
}

/** An authenticator that has shown that it can sign, so that a bad seed is an error of the start. */
function checked(field: string, authenticator: Authenticator): Authenticator {
  try {
    authenticator('nonce')
    return authenticator
  } catch (error) {
    // Never the value: it is a secret.
    throw new NatsSettingError(field, '...', `cannot be used: ${error instanceof Error ? error.message : String(error)}`)
  }
}

async function readText(field: string, path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    throw new NatsSettingError(field, path, `cannot be read (${(error as NodeJS.ErrnoException).code ?? 'error'})`)
  }
}
