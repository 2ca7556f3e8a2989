import { discoveryContract } from '../../../test/discovery-contract.ts'
import { rememberingLog } from '../../../test/discovery-kit.ts'
import { MemoryDiscovery, MemoryStore } from './memory-discovery.ts'

discoveryContract({
  name: 'memory',
  skip: false,
  holdsAnyText: false,
  createStore: async () => {
    const store = new MemoryStore(rememberingLog())
    return { open: async () => new MemoryDiscovery(store), close: async () => {} }
  },
})
