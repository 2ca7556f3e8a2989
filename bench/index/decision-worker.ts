/**
 * Whole decisions of our router, in a process of its own: `decision-worker.js WORKERS TOKENS` prints one line of JSON.
 *
 * The same as `bench/rust/src/decide.rs`: one prompt, of which each worker holds a share, is routed, booked and freed.
 */
import { localBlockHashes, sequenceHashes } from '../../src/hashing/block-hashes.ts'
import { KvRouter } from '../../src/router/kv-router.ts'
import { defaultRouterSettings } from '../../src/router/settings.ts'
import { systemPorts } from '../../src/system-ports.ts'
import { quantile } from '../measure.ts'

export interface DecisionTimes {
  /** CPU of the whole process per decision. */
  readonly cpuUs: number
  readonly p50Us: number
  readonly p99Us: number
}

const blockSize = 16

function routerOf(workers: number, tokens: Uint32Array): KvRouter {
  const router = new KvRouter({ ...defaultRouterSettings, blockSize }, systemPorts())
  const contents = localBlockHashes(tokens, { blockSize })
  const names = sequenceHashes(contents)
  for (let worker = 1; worker <= workers; worker += 1) {
    router.upsertWorker({
      workerId: BigInt(worker), dpStart: 0, dpSize: 1, totalKvBlocks: null, maxNumBatchedTokens: 8192, taints: [], topologyDomains: new Map(),
    })
    const held = 2 * Math.max(1, Math.floor((contents.length / 2) * (worker / workers)))
    router.applyEvent({
      workerId: BigInt(worker), dpRank: 0, storageTier: 'device', residencyDomain: 'worker', eventId: 1n,
      data: { kind: 'stored', parentHash: null, startPosition: null, blockHashes: names.slice(0, held), tokensHashes: contents.slice(0, held), mmInfos: null },
    })
  }
  return router
}

function measure(workers: number, prompt: number): DecisionTimes {
  const tokens = Uint32Array.from({ length: prompt }, (_, at) => (Math.imul(at, 2_654_435_761) >>> 0) % 150_000)
  const router = routerOf(workers, tokens)
  const calls = Math.max(800, Math.min(10_000, Math.floor(2_000_000 / (prompt + 100 * workers))))
  const warmCalls = Math.max(5000, calls / 4)
  const times = new Float64Array(calls)
  let begin = process.cpuUsage()
  for (let call = -warmCalls; call < calls; call += 1) {
    if (call === 0) begin = process.cpuUsage()
    const requestId = `request-${call}`
    const before = performance.now()
    const outcome = router.route({ requestId, model: 'default', tokens })
    if (outcome.kind !== 'chosen' || !outcome.booked) throw new Error(`request ${call} was not booked`)
    router.free(requestId)
    if (call >= 0) times[call] = 1000 * (performance.now() - before)
  }
  const { user, system } = process.cpuUsage(begin)
  return { cpuUs: (user + system) / calls, p50Us: quantile([...times], 0.5), p99Us: quantile([...times], 0.99) }
}

process.stdout.write(`${JSON.stringify(measure(Number(process.argv[2]), Number(process.argv[3])))}\n`)
