// Routes two prompts over two workers of your own; the second one finds its prefix cached.
import { KvRouter, defaultRouterSettings, systemPorts } from 'warmpath'

const router = new KvRouter({ ...defaultRouterSettings, blockSize: 16, useKvEvents: false }, systemPorts())
for (const workerId of [1n, 2n]) {
  router.upsertWorker({
    workerId, dpStart: 0, dpSize: 1, totalKvBlocks: 4096, maxNumBatchedTokens: 8192, taints: [], topologyDomains: new Map(),
  })
}
const system = Uint32Array.from({ length: 256 }, (_, position) => position)
for (const { requestId, question } of [{ requestId: 'first', question: [7, 8, 9] }, { requestId: 'second', question: [4, 5, 6, 7] }]) {
  const decision = router.route({ requestId, model: 'tiny', tokens: Uint32Array.of(...system, ...question) })
  if (decision.kind === 'refused') throw new Error(decision.message)
  const { candidates, choice } = decision.explain()
  const costs = candidates.map(({ workerId, cost, deviceBlocks }) => `worker ${workerId}: cost ${cost}, ${deviceBlocks} blocks cached`)
  console.log(`${requestId} -> worker ${decision.workerId} (${choice}; ${costs.join('; ')})`)
  router.prefillCompleted(requestId) // when the first token arrives
  router.free(requestId) // when the response ends
}
