/**
 * Discovery in Kubernetes, as Dynamo keeps it: each process writes one custom resource with all its records; a resource counts
 * while the pod (or container) of its name is ready and is the one that wrote it.
 */
import type { Bucket, Clock, Discovery, DiscoveryEvent, JsonObject, Log, TimerHandle, Watch } from '../../ports.ts'
import { kubeAccessFromEnv } from './kube-access.ts'
import type { KubeClient } from './kube-client.ts'
import type { KubeBackendOptions } from './discovery-options.ts'
import { KubeError } from './kube-error.ts'
import { countedResources, dataMembers, readyContainers, readyPods, recordsOf, withLegacyScope } from './kube-members.ts'
import { KubeReflector } from './kube-reflector.ts'
import { instanceIdOfName } from './pod-hash.ts'
import { RecordView } from './record-view.ts'
import { parseInstanceKey } from './store-key.ts'
import { stringifyJson } from '../wire/json.ts'

const group = 'nvidia.com'
const version = 'v1alpha1'
const kind = 'DynamoWorkerMetadata'
const plural = 'dynamoworkermetadatas'
const fieldManager = 'dynamo-worker'
const readinessLabels = 'nvidia.com/dynamo-discovery-backend=kubernetes,nvidia.com/dynamo-discovery-enabled=true'
/** Changes of one moment are told together. */
const settleMs = 20
const sayWaitingAfterMs = 2_000
const firstRetryMs = 1_000
const lastRetryMs = 30_000
const startupTimeoutMs = 120_000
/** Ids of publishers are exact in JSON of any reader up to here. */
const publisherIdMax = 2n ** 53n - 1n
const buckets = Object.keys(dataMembers) as Bucket[]

export type KubeDiscoveryOptions = KubeBackendOptions & { readonly clock: Clock; readonly log: Log }

export class KubeDiscovery implements Discovery {
  readonly kind = 'kubernetes'
  /** Never: the name of the pod is the identity. */
  readonly lost = new Promise<Error>(() => {})
  readonly #options: KubeDiscoveryOptions
  #client: KubeClient | null = null
  #server = ''
  #namespace = ''
  readonly #views: Readonly<Record<Bucket, RecordView>>
  readonly #own = new Map<Bucket, Map<string, JsonObject>>(buckets.map((bucket) => [bucket, new Map()]))
  readonly #watches = new Set<Watch>()
  #resources: KubeReflector | null = null
  #readiness: KubeReflector | null = null
  #settling: TimerHandle | null = null
  /** Writes of the own resource, one after the other. */
  #writing: Promise<void> = Promise.resolve()
  #started = false
  #written = false
  #closed = false

  constructor(options: KubeDiscoveryOptions) {
    this.#options = options
    this.#views = Object.fromEntries(buckets.map((bucket) => [bucket, new RecordView(bucket, options.log)])) as Record<Bucket, RecordView>
  }

  get instanceId(): bigint {
    if (!this.#started) throw new Error('discovery has no instance id before start() has resolved')
    return instanceIdOfName(this.#options.resourceName)
  }

  async start(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.#started) return
    const { access, namespace: ofContext } = await kubeAccessFromEnv(this.#options.env)
    const { KubeClient: Client } = await import('./kube-client.ts')
    this.#server = access.server
    this.#namespace = this.#options.namespace ?? ofContext ?? 'default'
    this.#client = new Client(access, this.#options.clock)
    await this.#reach(signal)
    // What an earlier process of this name left behind would count as ours.
    if (this.#options.mode === 'container') await this.#deleteResource()
    const { clock, log, mode } = this.#options
    const [client, namespace] = [this.#clientNow(), this.#namespace]
    const follow = (path: string, labelSelector?: string): KubeReflector =>
      new KubeReflector({ client, clock, log, path, onChange: () => this.#changed(), ...(labelSelector === undefined ? {} : { labelSelector }) })
    this.#resources = follow(this.#collection())
    this.#readiness = mode === 'pod'
      ? follow(`/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices`, readinessLabels)
      : follow(`/api/v1/namespaces/${namespace}/pods`, readinessLabels)
    this.#started = true
    log.info({ stage: 'discovery', resource: this.#options.resourceName, instance_id: this.instanceId.toString(), mode }, `Kubernetes discovery in namespace ${namespace}`)
  }

  async put(bucket: Bucket, key: string, value: JsonObject): Promise<void> {
    const full = `${bucket}/${key}`
    if (this.#closed) throw new Error(`cannot put ${full}: discovery is closed`)
    const records = this.#own.get(bucket) as Map<string, JsonObject>
    if (!records.has(key) && await this.#isOthers(bucket, key)) throw new Error(`cannot put ${full}: the record belongs to another process`)
    if (bucket.startsWith('v1/event_')) refuseWideId(full, value)
    const before = records.get(key)
    records.set(key, bucket === 'v1/event_channels' ? withLegacyScope(value) : value)
    try {
      await this.#write()
    } catch (error) {
      if (before === undefined) records.delete(key)
      else records.set(key, before)
      throw new Error(`cannot put ${full}: ${(error as Error).message}`, { cause: error })
    }
  }

  async remove(bucket: Bucket, key: string): Promise<void> {
    if (this.#own.get(bucket)?.delete(key) === true) await this.#write()
  }

  async list(bucket: Bucket, prefix: string): Promise<ReadonlyMap<string, JsonObject>> {
    const [resources, readiness] = await Promise.all([this.#listed(this.#collection()), this.#listedReadiness()])
    const view = new RecordView(bucket, this.#options.log)
    view.replaceAll(texts(recordsOf(countedResources(resources, readiness), bucket)))
    return view.snapshot(prefix)
  }

  watch(bucket: Bucket, prefix: string, listener: (event: DiscoveryEvent) => void): Watch {
    const watch = this.#views[bucket].follow(prefix, listener, () => this.#watches.delete(watch))
    this.#watches.add(watch)
    return watch
  }

  async close(deadlineMs: number): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    for (const watch of this.#watches) watch.close()
    this.#settling?.cancel()
    this.#resources?.close()
    this.#readiness?.close()
    if (this.#written) {
      let timer: TimerHandle | undefined
      const late = new Promise<never>((_resolve, reject) => {
        timer = this.#options.clock.setTimer(deadlineMs, () => reject(new Error(`no answer within ${deadlineMs} ms`)))
      })
      await Promise.race([this.#writing.catch(() => {}).then(() => this.#deleteResource()), late]).catch((error: unknown) => {
        this.#options.log.warn({ stage: 'discovery', reason: (error as Error).message }, 'the own resource is not deleted; it ends with the pod')
      })
      timer?.cancel()
    }
    await this.#client?.close()
  }

  #clientNow(): KubeClient {
    if (this.#client === null) throw new Error('discovery is not started')
    return this.#client
  }

  // ---- Following -----------------------------------------------------------------------------------------------------------

  #changed(): void {
    if (this.#settling !== null || this.#closed) return
    this.#settling = this.#options.clock.setTimer(settleMs, () => {
      this.#settling = null
      this.#settle()
    })
  }

  #settle(): void {
    const [resources, readiness] = [this.#resources, this.#readiness]
    if (resources === null || readiness === null || !resources.synced || !readiness.synced || this.#closed) return
    const counted = countedResources(resources.objects, this.#ready(readiness.objects))
    for (const bucket of buckets) this.#views[bucket].replaceAll(texts(recordsOf(counted, bucket)))
  }

  #ready(objects: ReadonlyMap<string, JsonObject>): Map<string, string> {
    return this.#options.mode === 'pod' ? readyPods(objects.values()) : readyContainers(objects.values())
  }

  async #listedReadiness(): Promise<Map<string, string>> {
    const { mode } = this.#options
    const namespace = this.#namespace
    const path = mode === 'pod' ? `/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices` : `/api/v1/namespaces/${namespace}/pods`
    return this.#ready(await this.#listed(`${path}?labelSelector=${encodeURIComponent(readinessLabels)}`))
  }

  async #listed(path: string): Promise<Map<string, JsonObject>> {
    const list = await this.#clientNow().call('GET', path)
    const items = (list['items'] ?? []) as readonly JsonObject[]
    return new Map(items.map((item) => [String((item['metadata'] as JsonObject)['name']), item]))
  }

  // ---- The own resource ----------------------------------------------------------------------------------------------------

  #collection(): string {
    return `/apis/${group}/${version}/namespaces/${this.#namespace}/${plural}`
  }

  #resourcePath(): string {
    return `${this.#collection()}/${encodeURIComponent(this.#options.resourceName)}`
  }

  /** Keys under the own instance id are nobody else's; the server is asked about others only, ids of publishers are random. */
  async #isOthers(bucket: Bucket, key: string): Promise<boolean> {
    if (bucket.startsWith('v1/event_') || parseInstanceKey(key)?.instanceId === this.instanceId) return this.#views[bucket].snapshot(key).has(key)
    return (await this.list(bucket, key)).has(key)
  }

  /** Writes all own records; writes that wait for one another become one. */
  #write(): Promise<void> {
    const next = this.#writing.catch(() => {}).then(async () => {
      await this.#clientNow().call('PATCH', `${this.#resourcePath()}?fieldManager=${fieldManager}&force=true`, this.#resource())
      this.#written = true
    })
    this.#writing = next
    return next
  }

  #resource(): JsonObject {
    const { resourceName, podName, podUid } = this.#options
    const namespace = this.#namespace
    return {
      apiVersion: `${group}/${version}`, kind,
      metadata: {
        name: resourceName, namespace,
        ownerReferences: [{ apiVersion: 'v1', kind: 'Pod', name: podName, uid: podUid, ...(resourceName === podName ? { controller: true } : {}), blockOwnerDeletion: false }],
      },
      spec: { data: Object.fromEntries(buckets.map((bucket) => [dataMembers[bucket], Object.fromEntries(this.#own.get(bucket) as Map<string, JsonObject>)])) },
    }
  }

  async #deleteResource(): Promise<void> {
    await this.#clientNow().call('DELETE', this.#resourcePath()).catch((error: unknown) => {
      if (!(error instanceof KubeError && error.status === 404)) throw error
    })
  }

  // ---- Start ---------------------------------------------------------------------------------------------------------------

  /** Asks for the resources until the API server answers. Errors: it refuses us, or stays away for too long. */
  async #reach(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options
    const server = this.#server
    const endMs = clock.nowMs() + startupTimeoutMs
    const waiting = clock.setTimer(sayWaitingAfterMs, () => this.#sayWaiting('no answer'))
    try {
      for (let delayMs = firstRetryMs; ; delayMs = Math.min(delayMs * 2, lastRetryMs)) {
        try {
          await aborting(this.#clientNow().call('GET', `${this.#collection()}?limit=1`), signal)
          return
        } catch (error) {
          signal.throwIfAborted()
          if (error instanceof KubeError && error.status < 500) throw new Error(`the API server at ${server} refuses: ${error.message}; ${refusalMend(error.status, this.#namespace)}`, { cause: error })
          if (clock.nowMs() >= endMs) throw new Error(`the API server at ${server} was not reachable for ${startupTimeoutMs / 1000} s (${(error as Error).message})`, { cause: error })
          this.#sayWaiting((error as Error).message)
          await aborting(new Promise<void>((resolve) => clock.setTimer(delayMs, resolve)), signal)
        }
      }
    } catch (error) {
      await this.#client?.close()
      throw error
    } finally {
      waiting.cancel()
    }
  }

  #sayWaiting(reason: string): void {
    this.#options.log.warn({ stage: 'discovery', endpoint: this.#server, reason }, `the API server is not reachable at ${this.#server}; trying for ${startupTimeoutMs / 1000} s. To do without Kubernetes: DYN_DISCOVERY_BACKEND=file or etcd`)
  }
}

const refusalMend = (status: number, namespace: string): string =>
  status === 404 ? `the custom resource definition ${plural}.${group} is not installed`
    : `the service account needs get, list, watch, create, patch and delete on ${plural}.${group}, and get, list and watch on endpointslices (or pods), in namespace ${namespace}`

const texts = (records: ReadonlyMap<string, JsonObject>): Map<string, string> => new Map([...records].map(([key, value]) => [key, stringifyJson(value)]))

function refuseWideId(full: string, value: JsonObject): void {
  const id = value['publisher_id'] ?? value['instance_id']
  if ((typeof id === 'bigint' || typeof id === 'number') && BigInt(id) > publisherIdMax) throw new Error(`cannot put ${full}: publisher ids above 2^53-1 cannot be kept in Kubernetes`)
}

function aborting<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = (): void => reject(signal.reason as Error)
    signal.addEventListener('abort', stop, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop))
  })
}
