/**
 * What one thread does in the measurement of threads: `relay`, `decide`, `ask` or `own`, told by `workerData`.
 *
 * Ready when it says so; then it works for the time it is told and answers with what it did and the CPU time of its thread.
 */
import { readFileSync } from 'node:fs'
import { parentPort, workerData, type MessagePort } from 'node:worker_threads'
import { encodeTwoPart, decodeTwoPart, TwoPartAssembler } from '../../src/dynamo/wire/frames.ts'
import { editOutput, peekOutput } from '../../src/dynamo/wire/output-frame.ts'
import { localBlockHashes, sequenceHashes } from '../../src/hashing/block-hashes.ts'
import { MsgpackWriter } from '../../src/msgpack/writer.ts'
import { KvRouter } from '../../src/router/kv-router.ts'
import { defaultRouterSettings } from '../../src/router/settings.ts'
import { systemPorts } from '../../src/system-ports.ts'
import { wordsFrom } from '../measure.ts'

export type ThreadTask =
  | { readonly kind: 'relay' }
  | { readonly kind: 'decide' }
  | { readonly kind: 'ask'; readonly port: MessagePort }
  | { readonly kind: 'own'; readonly ports: readonly MessagePort[] }

export interface ThreadReport {
  readonly done: number
  readonly cpuNs: number
  readonly wallNs: number
}

const streamTokens = 128
const promptTokens = 512
const workers = 64
const blockSize = 16
/** Requests that one thread has out at a time. */
const openRequests = 32

/** CPU time of the calling thread, up to the last tick of the scheduler. */
const threadCpuNs = (): number => Number(readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ')[0])

// ---- Relay -----------------------------------------------------------------------------------------------------------------

/** One stream as a socket gives it: 128 items of one token, four to a chunk. */
function streamChunks(): Uint8Array[] {
  const frames = Array.from({ length: streamTokens }, (_, index) => encodeTwoPart('', new MsgpackWriter().value({
    data: { data: { token_ids: [1000 + index], text: null, cum_log_probs: null, finish_reason: index + 1 === streamTokens ? 'stop' : null }, event: null, comment: null },
    complete_final: false,
  }).finish()))
  return Array.from({ length: streamTokens / 4 }, (_, chunk) => Buffer.concat(frames.slice(4 * chunk, 4 * chunk + 4)))
}

/** Cuts, looks at and passes on every frame; the first and the last are edited. */
function relayStream(chunks: readonly Uint8Array[], out: Uint8Array): number {
  const assembler = new TwoPartAssembler(1 << 20)
  let at = 0
  let outputs = 0
  const put = (frame: Uint8Array): void => {
    out.set(frame, at)
    at += frame.length
  }
  for (const chunk of chunks) {
    assembler.push(chunk, (frame) => {
      const { body } = decodeTwoPart(frame)
      const output = peekOutput(body, 'msgpack')
      outputs += output.tokenCount
      if (outputs > 1 && !output.finished) put(frame)
      else put(encodeTwoPart('', editOutput(body, 'msgpack', { worker: { workerId: 1n, dpRank: 0 }, timing: null })))
    })
  }
  if (outputs !== streamTokens) throw new Error(`${outputs} tokens were relayed`)
  return at
}

// ---- Decisions -------------------------------------------------------------------------------------------------------------

function routerOf(): KvRouter {
  const router = new KvRouter({ ...defaultRouterSettings, blockSize }, systemPorts())
  for (let id = 1; id <= workers; id += 1) {
    router.upsertWorker({ workerId: BigInt(id), dpStart: 0, dpSize: 1, totalKvBlocks: 100_000, maxNumBatchedTokens: 65_536, taints: [], topologyDomains: new Map() })
  }
  promptsOf(1).forEach((prompt, index) => {
    const tokensHashes = localBlockHashes(prompt.subarray(0, promptTokens / 2), { blockSize })
    router.applyEvent({
      workerId: BigInt(1 + (index % workers)), dpRank: 0, storageTier: 'device', residencyDomain: 'worker', eventId: BigInt(index),
      data: { kind: 'stored', parentHash: null, startPosition: null, blockHashes: sequenceHashes(tokensHashes), tokensHashes, mmInfos: null },
    })
  })
  return router
}

/** Prompts of which the first half is held by a worker. */
function promptsOf(seed: number): Uint32Array[] {
  const word = wordsFrom(1)
  const known = Array.from({ length: 1024 }, () => Uint32Array.from({ length: promptTokens }, () => word() % 150_000))
  const other = wordsFrom(seed)
  for (const prompt of known) for (let token = promptTokens / 2; token < promptTokens; token += 1) prompt[token] = other() % 150_000
  return known
}

function decide(router: KvRouter, requestId: string, tokens: Uint32Array): bigint {
  const outcome = router.route({ requestId, model: 'model', tokens })
  if (outcome.kind !== 'chosen' || !outcome.booked) throw new Error(`${requestId} was not booked`)
  return outcome.workerId
}

// ---- Tasks -----------------------------------------------------------------------------------------------------------------

/** Runs `work` again and again for `ms`, so that other threads work at the same time. */
function repeat(work: () => void): (ms: number) => Promise<number> {
  return async (ms) => {
    let done = 0
    for (const end = performance.now() + ms; performance.now() < end;) {
      for (let call = 0; call < 20; call += 1) work()
      done += 20
    }
    return done
  }
}

function asker(port: MessagePort): (ms: number) => Promise<number> {
  const prompts = promptsOf(7)
  let next = 0
  let ask = (): void => {}
  port.on('message', () => ask())
  const send = (): void => {
    const prompt = prompts[next % prompts.length]!
    port.postMessage({ id: next, tokens: prompt })
    // Its first output and its end, told in one message.
    port.postMessage({ id: next, tokens: null })
    next += 1
  }
  return (ms) => new Promise((resolve) => {
    const end = performance.now() + ms
    let done = 0
    let open = openRequests
    ask = () => {
      done += 1
      if (performance.now() < end) return send()
      open -= 1
      if (open === 0) resolve(done)
    }
    for (let request = 0; request < openRequests; request += 1) send()
  })
}

function owner(ports: readonly MessagePort[]): (ms: number) => Promise<number> {
  const router = routerOf()
  let done = 0
  ports.forEach((port, index) => {
    port.on('message', ({ id, tokens }: { readonly id: number; readonly tokens: Uint32Array | null }) => {
      const requestId = `${index}-${id}`
      if (tokens === null) {
        router.prefillCompleted(requestId)
        router.free(requestId)
        return
      }
      port.postMessage(decide(router, requestId, tokens))
      done += 1
    })
  })
  return (ms) => new Promise((resolve) => {
    const before = done
    setTimeout(() => resolve(done - before), ms + 50)
  })
}

function taskOf(task: ThreadTask): (ms: number) => Promise<number> {
  if (task.kind === 'ask') return asker(task.port)
  if (task.kind === 'own') return owner(task.ports)
  if (task.kind === 'relay') {
    const chunks = streamChunks()
    const out = new Uint8Array(1 << 16)
    return repeat(() => { relayStream(chunks, out) })
  }
  const router = routerOf()
  const prompts = promptsOf(7)
  let call = 0
  return repeat(() => {
    call += 1
    decide(router, String(call), prompts[call % prompts.length]!)
    router.prefillCompleted(String(call))
    router.free(String(call))
  })
}

const run = taskOf(workerData as ThreadTask)
parentPort?.on('message', (ms: number) => {
  const [cpu, wall] = [threadCpuNs(), performance.now()]
  void run(ms).then((done) => {
    const report: ThreadReport = { done, cpuNs: threadCpuNs() - cpu, wallNs: 1e6 * (performance.now() - wall) }
    parentPort?.postMessage(report)
  })
})
parentPort?.postMessage('ready')
