/** From options to a discovery, without loading what the backend does not need. */
import type { Discovery } from '../../ports.ts'
import type { DiscoveryOptions } from './discovery-options.ts'
import { EtcdDiscovery } from './etcd-discovery.ts'
import { FileDiscovery } from './file-discovery.ts'
import { KubeDiscovery } from './kube-discovery.ts'
import { MemoryDiscovery, MemoryStore } from './memory-discovery.ts'

/** A discovery that is not started yet. The clients of etcd and Kubernetes are loaded by `start`. */
export function createDiscovery(options: DiscoveryOptions): Discovery {
  switch (options.backend) {
    case 'mem': return new MemoryDiscovery(options.store ?? new MemoryStore(options.log))
    case 'file': return new FileDiscovery(options)
    case 'etcd': return new EtcdDiscovery(options)
    case 'kubernetes': return new KubeDiscovery(options)
  }
}
