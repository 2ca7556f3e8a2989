/**
 * The routers of a component that follow its durable events: each has a record `router-discovery` under the workers' component,
 * whose instance id is the name of its consumer.
 */
import type { Discovery, EndpointId, InstanceRecord, Watch } from '../../ports.ts'
import { endpointPrefix, instanceKey, parseInstanceKey } from '../discovery/store-key.ts'
import { encodeInstanceRecord } from '../wire/instance-record.ts'

const routerDiscovery = 'router-discovery'

/** The endpoint that routers of this component's workers register. */
export const peerEndpoint = ({ namespace, component }: EndpointId): EndpointId => ({ namespace, component, endpoint: routerDiscovery })

export class RouterPeers {
  readonly #discovery: Discovery
  readonly #endpoint: EndpointId

  constructor(discovery: Discovery, workers: EndpointId) {
    this.#discovery = discovery
    this.#endpoint = peerEndpoint(workers)
  }

  get ownName(): string {
    return this.#discovery.instanceId.toString()
  }

  /** `transport`: any address of this process; nobody calls it. */
  async register(transport: InstanceRecord['transport']): Promise<void> {
    const { instanceId } = this.#discovery
    await this.#discovery.put('v1/instances', instanceKey(this.#endpoint, instanceId), encodeInstanceRecord({ ...this.#endpoint, instanceId, transport, codec: 'json', deviceType: null }))
  }

  async unregister(): Promise<void> {
    await this.#discovery.remove('v1/instances', instanceKey(this.#endpoint, this.#discovery.instanceId))
  }

  /** Consumer names of all routers that are registered now. */
  async names(): Promise<ReadonlySet<string>> {
    const names = new Set<string>()
    for (const key of (await this.#discovery.list('v1/instances', endpointPrefix(this.#endpoint))).keys()) {
      const parsed = parseInstanceKey(key)
      if (parsed !== null) names.add(parsed.instanceId.toString())
    }
    return names
  }

  /** Whether a router of 1.1 takes part: one that answers `best_worker_id` and not `get_overlap_scores`. */
  async hasOldest(): Promise<boolean> {
    const names = await this.names()
    const answers = { best_worker_id: new Set<string>(), get_overlap_scores: new Set<string>() }
    for (const key of (await this.#discovery.list('v1/instances', this.#endpoint.namespace)).keys()) {
      const parsed = parseInstanceKey(key)
      if (parsed?.endpoint === 'best_worker_id' || parsed?.endpoint === 'get_overlap_scores') answers[parsed.endpoint].add(parsed.instanceId.toString())
    }
    return [...names].some((name) => answers.best_worker_id.has(name) && !answers.get_overlap_scores.has(name))
  }

  /** Tells the consumer name of each other router that goes. */
  onGone(listener: (name: string) => void): Watch {
    return this.#discovery.watch('v1/instances', endpointPrefix(this.#endpoint), (event) => {
      const parsed = event.kind === 'delete' ? parseInstanceKey(event.key) : null
      if (parsed !== null && parsed.instanceId !== this.#discovery.instanceId) listener(parsed.instanceId.toString())
    })
  }
}
