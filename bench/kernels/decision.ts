/** One request's whole way through the router's heart: hash, look up, weigh, book, first output, free. */
import { localBlockHashes, sequenceHashes } from '../../src/hashing/block-hashes.ts'
import { KvRouter } from '../../src/router/kv-router.ts'
import { defaultRouterSettings } from '../../src/router/settings.ts'
import { systemPorts } from '../../src/system-ports.ts'
import { elapsedNs, median, quantile, wordsFrom } from '../measure.ts'

export interface DecisionRow {
  readonly workers: number
  readonly tokens: number
  /** Bookings that stay open meanwhile. */
  readonly open: number
  readonly p50Us: number
  readonly p99Us: number
}

const blockSize = 16
const warmCalls = 2000
const timedCalls = 5000

function measure(workers: number, tokens: number): DecisionRow {
  const word = wordsFrom(workers + tokens)
  const router = new KvRouter({ ...defaultRouterSettings, blockSize }, systemPorts())
  for (let id = 1; id <= workers; id += 1) {
    router.upsertWorker({
      workerId: BigInt(id), dpStart: 0, dpSize: 1, totalKvBlocks: 100_000, maxNumBatchedTokens: 65_536, taints: [], topologyDomains: new Map(),
    })
  }
  const novel = (length: number): Uint32Array => Uint32Array.from({ length }, () => word() % 150_000)
  const prefixes = Array.from({ length: 64 }, () => novel(tokens / 2))
  prefixes.forEach((prefix, index) => {
    const tokensHashes = localBlockHashes(prefix, { blockSize })
    const blockHashes = sequenceHashes(tokensHashes)
    for (const worker of [index, index * 7 + 3]) {
      router.applyEvent({
        workerId: BigInt(1 + (worker % workers)), dpRank: 0, storageTier: 'device', residencyDomain: 'worker', eventId: BigInt(index),
        data: { kind: 'stored', parentHash: null, startPosition: null, blockHashes, tokensHashes, mmInfos: null },
      })
    }
  })
  const prompts = Array.from({ length: 256 }, (_, index) => {
    const prompt = novel(tokens)
    prompt.set(prefixes[index % prefixes.length] as Uint32Array)
    return prompt
  })
  const open = 2 * workers
  const timesNs: number[] = []
  for (let call = 0; call < open + warmCalls + timedCalls; call += 1) {
    const requestId = `request-${call}`
    const finished = `request-${call - open}`
    const prompt = prompts[call % prompts.length] as Uint32Array
    // The second half of a prompt is new to router and bookings every time.
    prompt[tokens / 2] = 200_000 + call
    const spentNs = elapsedNs(() => {
      const outcome = router.route({ requestId, model: 'tiny', tokens: prompt })
      if (outcome.kind !== 'chosen' || !outcome.booked) throw new Error(`request ${call} was not booked`)
      router.prefillCompleted(requestId)
      router.free(finished)
    })
    if (call >= open + warmCalls) timesNs.push(spentNs)
  }
  if (router.bookingCount !== open) throw new Error(`${router.bookingCount} bookings are open instead of ${open}`)
  return { workers, tokens, open, p50Us: median(timesNs) / 1000, p99Us: quantile(timesNs, 0.99) / 1000 }
}

/** Errors: a request that is not booked, or a booking that stays. */
export function benchDecision(): DecisionRow[] {
  const rows: DecisionRow[] = []
  for (const workers of [8, 64, 256]) for (const tokens of [512, 2048, 8192]) rows.push(measure(workers, tokens))
  return rows
}
