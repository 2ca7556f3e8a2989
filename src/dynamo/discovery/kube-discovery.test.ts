/** Goal: discovery over an API server keeps the contract of all backends, and Kubernetes' own rules. Method: a double; the same against a real server where one is named. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { Recorder, discoveryContract, started } from '../../../test/discovery-contract.ts'
import { rememberingLog, systemClock } from '../../../test/discovery-kit.ts'
import { KubeDouble, type KubeServer } from '../../../test/kube-double.ts'
import { RealKube, kubeApiServer } from '../../../test/kube-server.ts'
import type { Bucket } from '../../ports.ts'
import { discoveryOptionsFromEnv } from './discovery-options.ts'
import { KubeDiscovery } from './kube-discovery.ts'
import { instanceIdOfName } from './pod-hash.ts'
import { until } from '../../../test/until.ts'

const bucket: Bucket = 'v1/instances'
const labels = { 'nvidia.com/dynamo-discovery-backend': 'kubernetes', 'nvidia.com/dynamo-discovery-enabled': 'true' }
let pods = 0

/** A namespace of its own on a server, with pods that are ready. */
class Cluster {
  readonly server: KubeServer
  readonly namespace: string
  readonly log = rememberingLog()
  readonly #opened: KubeDiscovery[] = []

  constructor(server: KubeServer, namespace: string) {
    this.server = server
    this.namespace = namespace
  }

  get slices(): string {
    return `/apis/discovery.k8s.io/v1/namespaces/${this.namespace}/endpointslices`
  }

  get resources(): string {
    return `/apis/nvidia.com/v1alpha1/namespaces/${this.namespace}/dynamoworkermetadatas`
  }

  async ready(name: string, uid: string, ready = true): Promise<void> {
    await this.server.put(this.slices, {
      apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice', addressType: 'IPv4', metadata: { name: `slice-${name}`, namespace: this.namespace, labels },
      endpoints: [{ addresses: ['10.1.2.3'], conditions: { ready }, targetRef: { kind: 'Pod', name, namespace: this.namespace, uid } }],
    })
  }

  /** A process in a pod; not started. */
  handle(name: string, uid: string, env: Readonly<Record<string, string>> = {}): KubeDiscovery {
    const options = discoveryOptionsFromEnv({ DYN_DISCOVERY_BACKEND: 'kubernetes', POD_NAME: name, POD_UID: uid, POD_NAMESPACE: this.namespace, ...this.server.env, ...env })
    assert.equal(options.backend, 'kubernetes')
    const discovery = new KubeDiscovery({ ...(options as Extract<typeof options, { backend: 'kubernetes' }>), clock: systemClock, log: this.log })
    this.#opened.push(discovery)
    return discovery
  }

  async open(): Promise<KubeDiscovery> {
    pods += 1
    const name = `pod-${pods}`
    await this.ready(name, `uid-${pods}`)
    return this.handle(name, `uid-${pods}`)
  }

  async close(): Promise<void> {
    for (const discovery of this.#opened) await discovery.close(2_000)
  }
}

let clusters = 0
function suite(name: string, skip: string | false, start: () => Promise<KubeServer>): void {
  let server: KubeServer | null = null
  before(async () => { if (skip === false) server = await start() })
  after(() => server?.close())
  const cluster = (): Cluster => {
    clusters += 1
    return new Cluster(server as KubeServer, name === 'double' ? `ns-${clusters}` : 'default')
  }

  discoveryContract({ name: `kubernetes, ${name}`, skip, holdsAnyText: false, integerMax: 2n ** 63n - 1n, followsFromStart: true, createStore: async () => cluster() })

  const on = (what: string, body: (cluster: Cluster) => Promise<void>): void => {
    test(`kubernetes, ${name}: ${what}`, { skip }, async () => {
      const own = cluster()
      try {
        await body(own)
      } finally {
        await own.close()
      }
    })
  }

  on('an instance counts while its pod is ready and is the one that wrote it', async (own) => {
    const reader = await started(await own.open())
    const worker = await started(own.handle('worker-0', 'first'))
    assert.equal(worker.instanceId, instanceIdOfName('worker-0'))
    const seen = new Recorder()
    reader.watch(bucket, 'ns', seen.listener)
    await until('synced', () => seen.lines.includes('synced'))
    await worker.put(bucket, 'ns/c/e/1', { n: worker.instanceId })
    await own.ready('worker-0', 'first')
    await until('ready', () => seen.last('ns/c/e/1')?.['n'] === Number(worker.instanceId) || seen.last('ns/c/e/1')?.['n'] === worker.instanceId)
    await own.ready('worker-0', 'first', false)
    await until('not ready', () => seen.lines.at(-1) === 'delete ns/c/e/1')
    await own.ready('worker-0', 'second')
    await own.ready('other', 'x')
    await worker.put(bucket, 'ns/c/e/1', { n: 2 })
    assert.equal((await reader.list(bucket, 'ns')).size, 0, 'a later pod of that name has not written it')
    await own.ready('worker-0', 'first')
    await until('again', () => seen.last('ns/c/e/1')?.['n'] === 2)
  })

  on('event channels carry what older readers look for, and wide ids are refused', async (own) => {
    const owner = await started(await own.open())
    const scope = { kind: 'endpoint', endpoint: { namespace: 'a', component: 'b', name: 'c' } }
    await owner.put('v1/event_channels', 'k/1', { type: 'EventChannel', scope, topic: 't', instance_id: 5 })
    assert.deepEqual((await owner.list('v1/event_channels', '')).get('k/1'), { type: 'EventChannel', scope, topic: 't', instance_id: 5, namespace: 'a', component: 'b' })
    await assert.rejects(owner.put('v1/event_sources', 'k/2', { publisher_id: 2n ** 53n }), /above 2\^53-1/)
  })

  on('in container mode each container has a resource, and a stale one goes at the start', async (own) => {
    const env = { DYN_KUBE_DISCOVERY_MODE: 'container', CONTAINER_NAME: 'engine-0' }
    const stale = await started(own.handle('multi-0', 'old', env))
    await stale.put(bucket, 'ns/c/e/old', { n: 1 })
    assert.deepEqual((await own.server.names(own.resources)).filter((name) => name.startsWith('multi-0')), ['multi-0-engine-0'])
    const fresh = await started(own.handle('multi-0', 'new', env))
    assert.deepEqual((await own.server.names(own.resources)).filter((name) => name.startsWith('multi-0')), [])
    await fresh.put(bucket, 'ns/c/e/new', { n: 1 })
    assert.deepEqual((await own.server.names(own.resources)).filter((name) => name.startsWith('multi-0')), ['multi-0-engine-0'])
  })

  if (name !== 'double') return

  on('readiness of containers counts in container mode', async (own) => {
    const reader = await started(own.handle('reader', 'r', { DYN_KUBE_DISCOVERY_MODE: 'container', CONTAINER_NAME: 'main' }))
    const worker = await started(own.handle('multi-1', 'u', { DYN_KUBE_DISCOVERY_MODE: 'container', CONTAINER_NAME: 'engine-0' }))
    await worker.put(bucket, 'ns/c/e/1', { n: 1 })
    const pod = (ready: boolean) => ({ apiVersion: 'v1', kind: 'Pod', metadata: { name: 'multi-1', uid: 'u', labels }, status: { containerStatuses: [{ name: 'engine-0', ready }, { name: 'side', ready: true }] } })
    const collection = `/api/v1/namespaces/${own.namespace}/pods`
    await own.server.put(collection, pod(false))
    assert.equal((await reader.list(bucket, '')).size, 0)
    await own.server.put(collection, pod(true))
    assert.equal((await reader.list(bucket, '')).size, 1)
  })

  on('a broken watch, and a history that is gone, are listed anew', async (own) => {
    const [reader, owner] = [await started(await own.open()), await started(await own.open())]
    const seen = new Recorder()
    reader.watch(bucket, '', seen.listener)
    await owner.put(bucket, 'ns/c/e/1', { n: 1 })
    await until('seen', () => seen.last('ns/c/e/1')?.['n'] === 1)
    own.server.endWatches?.()
    own.server.compact?.()
    await owner.put(bucket, 'ns/c/e/1', { n: 2 })
    await until('seen after the break', () => seen.last('ns/c/e/1')?.['n'] === 2)
    assert.ok(own.log.lines.some(({ message }) => message.includes('listing again')))
  })

  on('what is missing or refused is named', async (own) => {
    const from = (env: Record<string, string>): void => void discoveryOptionsFromEnv({ DYN_DISCOVERY_BACKEND: 'kubernetes', ...env })
    assert.throws(() => from({}), /POD_NAME=""/)
    assert.throws(() => from({ POD_NAME: 'a' }), /POD_UID=""/)
    assert.throws(() => from({ POD_NAME: 'a', POD_UID: 'b', DYN_KUBE_DISCOVERY_MODE: 'node' }), /use pod or container/)
    assert.throws(() => from({ POD_NAME: 'a', POD_UID: 'b', DYN_KUBE_DISCOVERY_MODE: 'container' }), /CONTAINER_NAME=""/)
    await assert.rejects(started(own.handle('a', 'b', { KUBECONFIG: '/nowhere/config' })), /KUBECONFIG="\/nowhere\/config": the file cannot be read/)
  })
}

suite('double', false, () => KubeDouble.start())
suite('real', kubeApiServer === '' ? 'WARMPATH_KUBE_APISERVER names no API server' : false, () => RealKube.start())
