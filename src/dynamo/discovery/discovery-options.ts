/** Which discovery backend, with what settings; and the same from Dynamo's environment variables. */
import { readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Clock, Log } from '../../ports.ts'
import type { MemoryStore } from './memory-discovery.ts'

export interface FileBackendOptions {
  readonly backend: 'file'
  readonly root: string
  readonly ttlMs?: number
  readonly pollEveryMs?: number
}

export interface MemoryBackendOptions {
  readonly backend: 'mem'
  /** Shared by handles that are to see each other; a new store when left out. */
  readonly store?: MemoryStore
}

export interface EtcdBackendOptions {
  readonly backend: 'etcd'
  /** `http://host:port` or `https://host:port`, tried in turn. At least one. */
  readonly endpoints: readonly string[]
  readonly leaseTtlSeconds: number
  /** How long `start` tries before it rejects. */
  readonly startupTimeoutSeconds: number
  /** HTTP/2 keep-alive; 0 = off. */
  readonly keepaliveIntervalSeconds: number
  readonly keepaliveTimeoutSeconds: number
  readonly auth?: { readonly username: string; readonly password: string }
  /** Each PEM text, or the path of a PEM file. */
  readonly tls?: { readonly ca: string; readonly clientCert?: string; readonly clientKey?: string }
}

export interface KubeBackendOptions {
  readonly backend: 'kubernetes'
  /** Null: that of the kubeconfig's context, else `default`. */
  readonly namespace: string | null
  /** Name of this process's custom resource. */
  readonly resourceName: string
  readonly podName: string
  readonly podUid: string
  /** `container`: one resource per container, and readiness of containers instead of endpoints. */
  readonly mode: 'pod' | 'container'
  /** Where the API server is looked for: `KUBECONFIG`, `KUBERNETES_SERVICE_HOST`. */
  readonly env: Environment
}

export type DiscoveryBackendOptions = FileBackendOptions | MemoryBackendOptions | EtcdBackendOptions | KubeBackendOptions
export type DiscoveryOptions = DiscoveryBackendOptions & { readonly clock: Clock; readonly log: Log }

/** A setting that names no usable discovery. The message names the variable, the value and what is valid. */
export class DiscoveryOptionError extends Error {
  readonly field: string
  readonly value: string
  constructor(field: string, value: string, mend: string) {
    super(`${field}=${JSON.stringify(value)}: ${mend}`)
    this.name = 'DiscoveryOptionError'
    this.field = field
    this.value = value
  }
}

type Environment = Readonly<Record<string, string | undefined>>

/** A number as Dynamo reads it: what cannot be used is the default, silently. */
function wholeNumber(env: Environment, name: string, fallback: number, least: number): number {
  const text = env[name]
  if (text === undefined || !/^\d{1,9}$/.test(text.trim())) return fallback
  return Math.max(least, Number(text.trim()))
}

const present = (text: string | undefined): text is string => text !== undefined && text !== ''

function etcdOptionsFromEnv(env: Environment): EtcdBackendOptions {
  const endpoints = (env['ETCD_ENDPOINTS'] ?? '').split(',').map((part) => part.trim()).filter((part) => part !== '')
  const [username, password] = [env['ETCD_AUTH_USERNAME'], env['ETCD_AUTH_PASSWORD']]
  const [ca, clientCert, clientKey] = [env['ETCD_AUTH_CA'], env['ETCD_AUTH_CLIENT_CERT'], env['ETCD_AUTH_CLIENT_KEY']]
  const options: EtcdBackendOptions = {
    backend: 'etcd',
    endpoints: endpoints.length > 0 ? endpoints : ['http://localhost:2379'],
    leaseTtlSeconds: wholeNumber(env, 'ETCD_LEASE_TTL', 30, 1),
    startupTimeoutSeconds: wholeNumber(env, 'ETCD_STARTUP_CONNECT_TIMEOUT_SECONDS', 120, 1),
    keepaliveIntervalSeconds: wholeNumber(env, 'ETCD_KEEPALIVE_INTERVAL_SECONDS', 15, 0),
    keepaliveTimeoutSeconds: wholeNumber(env, 'ETCD_KEEPALIVE_TIMEOUT_SECONDS', 10, 1),
  }
  const auth = present(username) && present(password) ? { username, password } : null
  if (present(ca) && present(clientCert) && present(clientKey)) return { ...options, ...(auth === null ? {} : { auth }), tls: { ca, clientCert, clientKey } }
  return auth === null ? options : { ...options, auth, ...(present(ca) ? { tls: { ca } } : {}) }
}

const podFolder = '/etc/podinfo'

/** What the downward API has put into a file, else the variable. */
function podInfo(env: Environment, file: string, variable: string): string {
  try {
    return readFileSync(join(podFolder, file), 'utf8').trim()
  } catch {
    return env[variable] ?? ''
  }
}

function kubeOptionsFromEnv(env: Environment): KubeBackendOptions {
  const wayOut = 'or do without Kubernetes: DYN_DISCOVERY_BACKEND=etcd'
  const podName = podInfo(env, 'pod_name', 'POD_NAME')
  if (podName === '') throw new DiscoveryOptionError('POD_NAME', podName, `Kubernetes discovery needs the name of the pod (downward API: metadata.name); ${wayOut}`)
  const podUid = podInfo(env, 'pod_uid', 'POD_UID')
  if (podUid === '') throw new DiscoveryOptionError('POD_UID', podUid, `Kubernetes discovery needs the uid of the pod (downward API: metadata.uid); ${wayOut}`)
  const mode = env['DYN_KUBE_DISCOVERY_MODE'] || 'pod'
  if (mode !== 'pod' && mode !== 'container') throw new DiscoveryOptionError('DYN_KUBE_DISCOVERY_MODE', mode, 'use pod or container')
  const container = env['CONTAINER_NAME'] ?? ''
  if (mode === 'container' && container === '') throw new DiscoveryOptionError('CONTAINER_NAME', container, 'needed with DYN_KUBE_DISCOVERY_MODE=container')
  const namespace = podInfo(env, 'pod_namespace', 'POD_NAMESPACE')
  return {
    backend: 'kubernetes', mode, podName, podUid, namespace: namespace === '' ? null : namespace, env,
    resourceName: mode === 'pod' || container === 'main' ? podName : `${podName}-${container}`,
  }
}

/**
 * The backend that Dynamo's environment variables ask for: `DYN_DISCOVERY_BACKEND` (default etcd), `DYN_FILE_KV`, `ETCD_*`.
 * Errors: DiscoveryOptionError for a backend that does not exist or is not built.
 */
export function discoveryOptionsFromEnv(env: Environment): DiscoveryBackendOptions {
  const backend = env['DYN_DISCOVERY_BACKEND'] ?? 'etcd'
  switch (backend) {
    case 'etcd': return etcdOptionsFromEnv(env)
    case 'file': return { backend, root: present(env['DYN_FILE_KV']) ? env['DYN_FILE_KV'] : join(tmpdir(), 'dynamo_store_kv') }
    case 'mem': return { backend }
    case 'kubernetes': return kubeOptionsFromEnv(env)
    default:
      throw new DiscoveryOptionError('DYN_DISCOVERY_BACKEND', backend, 'not a discovery backend; use etcd, kubernetes, file or mem')
  }
}
