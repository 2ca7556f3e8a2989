/** Which API server, and as whom: a kubeconfig file where there is one, else the pod's own service account. */
import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, isAbsolute, join } from 'node:path'
import { DiscoveryOptionError } from './discovery-options.ts'

export interface KubeAccess {
  /** `https://host:port`. */
  readonly server: string
  /** PEM; left out: the machine's own authorities. */
  readonly ca?: string
  readonly clientCert?: string
  readonly clientKey?: string
  /** Left out: no token. A file is read again each minute, since tokens there are renewed. */
  readonly token?: { readonly text: string } | { readonly file: string }
  readonly insecure?: boolean
}

type Environment = Readonly<Record<string, string | undefined>>

const accountFolder = '/var/run/secrets/kubernetes.io/serviceaccount'

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim() || undefined
  } catch {
    return undefined
  }
}

/** Errors: `DiscoveryOptionError` that names what is missing. `namespace`: of the kubeconfig's context. */
export async function kubeAccessFromEnv(env: Environment): Promise<{ readonly access: KubeAccess; readonly namespace?: string }> {
  const config = env['KUBECONFIG'] ?? join(homedir(), '.kube', 'config')
  const text = textOf(config)
  if (env['KUBECONFIG'] !== undefined && text === undefined) throw new DiscoveryOptionError('KUBECONFIG', config, 'the file cannot be read')
  if (text !== undefined) return fromKubeConfig(config, text)
  const [host, port] = [env['KUBERNETES_SERVICE_HOST'], env['KUBERNETES_SERVICE_PORT'] ?? '443']
  const ca = textOf(join(accountFolder, 'ca.crt'))
  if (host === undefined || ca === undefined) {
    throw new DiscoveryOptionError('DYN_DISCOVERY_BACKEND', 'kubernetes', 'no API server is known: this is no pod with a service account, and there is no KUBECONFIG; or do without: DYN_DISCOVERY_BACKEND=etcd')
  }
  const address = host.includes(':') ? `[${host}]` : host
  return { access: { server: `https://${address}:${port}`, ca, token: { file: join(accountFolder, 'token') } } }
}

interface Named { readonly name?: unknown; readonly [key: string]: unknown }

/** The current context of a kubeconfig file. Errors: `DiscoveryOptionError`, also for credentials that need a program to be run. */
async function fromKubeConfig(path: string, text: string): Promise<{ readonly access: KubeAccess; readonly namespace?: string }> {
  const { parse } = await import('yaml')
  const wrong = (mend: string): DiscoveryOptionError => new DiscoveryOptionError('KUBECONFIG', path, mend)
  let file: Record<string, unknown>
  try {
    file = (parse(text) ?? {}) as Record<string, unknown>
  } catch (error) {
    throw wrong(`not YAML: ${(error as Error).message.split('\n')[0] ?? ''}`)
  }
  const entry = (list: string, name: unknown, member: string): Record<string, unknown> => {
    const found = (Array.isArray(file[list]) ? (file[list] as Named[]) : []).find((each) => each.name === name)
    const value = found?.[member]
    if (typeof value !== 'object' || value === null) throw wrong(`\`${list}\` has no entry ${JSON.stringify(name)}`)
    return value as Record<string, unknown>
  }
  const context = entry('contexts', file['current-context'], 'context')
  const cluster = entry('clusters', context['cluster'], 'cluster')
  const user = entry('users', context['user'], 'user')
  if (user['exec'] !== undefined || user['auth-provider'] !== undefined) throw wrong('its user runs a program for a token; use a service account, a token or a client certificate')
  const pem = (holder: Record<string, unknown>, name: string): string | undefined => {
    const data = holder[`${name}-data`]
    if (typeof data === 'string') return Buffer.from(data, 'base64').toString()
    const file = holder[name]
    if (typeof file !== 'string') return undefined
    const found = textOf(isAbsolute(file) ? file : join(dirname(path), file))
    if (found === undefined) throw wrong(`\`${name}\`: ${file} cannot be read`)
    return found
  }
  if (typeof cluster['server'] !== 'string') throw wrong('its cluster has no `server`')
  const [ca, clientCert, clientKey] = [pem(cluster, 'certificate-authority'), pem(user, 'client-certificate'), pem(user, 'client-key')]
  const token = typeof user['token'] === 'string' ? { text: user['token'] } : typeof user['tokenFile'] === 'string' ? { file: user['tokenFile'] } : undefined
  return {
    access: {
      server: cluster['server'].replace(/\/$/, ''), ...(ca === undefined ? {} : { ca }), ...(clientCert === undefined ? {} : { clientCert }), ...(clientKey === undefined ? {} : { clientKey }),
      ...(token === undefined ? {} : { token }), ...(cluster['insecure-skip-tls-verify'] === true ? { insecure: true } : {}),
    },
    ...(typeof context['namespace'] === 'string' ? { namespace: context['namespace'] } : {}),
  }
}
