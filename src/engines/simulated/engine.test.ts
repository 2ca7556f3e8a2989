/** The engine on a virtual clock: bounds and events by random traffic, then single behaviours. */
import { test } from 'node:test'
import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { RawEvent, RawStored } from '../../kv-events/raw-event.ts'
import { hashesToBigints } from '../../model/hash-list.ts'
import type { Clock, TimerHandle } from '../../ports.ts'
import { FailureError } from '../../model/failure.ts'
import { SimulatedEngine } from './engine.ts'
import type { EngineOutput } from './output-queue.ts'
import type { EngineRequest } from './sequence.ts'
import { engineSettings, type EngineSettings } from './settings.ts'

/** Time that moves only when asked to, timer by timer. */
class VirtualClock implements Clock {
  now = 0
  readonly #timers = new Set<{ at: number; callback: () => void }>()
  nowMs(): number {
    return this.now
  }
  epochMs(): number {
    return this.now
  }
  setTimer(delayMs: number, callback: () => void): TimerHandle {
    const timer = { at: this.now + Math.max(0, delayMs), callback }
    this.#timers.add(timer)
    return { cancel: () => this.#timers.delete(timer) }
  }
  /** Fires the next timer and lets readers run. False: none. */
  async step(): Promise<boolean> {
    const next = [...this.#timers].sort((a, b) => a.at - b.at)[0]
    if (next === undefined) return false
    this.#timers.delete(next)
    this.now = next.at
    next.callback()
    await new Promise((resolve) => setImmediate(resolve))
    return true
  }
}

const request = (id: string, tokens: readonly number[], more: Partial<EngineRequest> = {}): EngineRequest => ({
  id, tokens: Uint32Array.from(tokens), dpRank: null, maxTokens: 4, minTokens: 0, ignoreEos: false, eosTokenIds: [], stopTokenIds: new Set(),
  loraName: null, cacheSalt: null, prefilled: false, ...more,
})

/** Follows events as a router would: what is cached, with every parent known before its child. */
class Mirror {
  readonly blocks = new Map<bigint, bigint | null>()
  apply(events: readonly RawEvent[]): void {
    for (const event of events) {
      if (event.kind === 'stored') this.#stored(event)
      else if (event.kind === 'removed') for (const hash of hashesToBigints(event.blockHashes)) this.#removed(hash)
      else assert.fail(`an event of kind ${event.kind}`)
    }
  }
  #stored(event: RawStored): void {
    const hashes = hashesToBigints(event.blockHashes)
    assert.equal(event.tokens.length, hashes.length * event.blockSize)
    let parent = event.parentHash
    for (const hash of hashes) {
      if (parent !== null) assert.ok(this.blocks.has(parent), 'the parent is stored first')
      assert.ok(!this.blocks.has(hash), 'a block is stored once')
      this.blocks.set(hash, parent)
      parent = hash
    }
  }
  #removed(hash: bigint): void {
    assert.ok(this.blocks.delete(hash), 'only a stored block is removed')
    for (const parent of this.blocks.values()) assert.notEqual(parent, hash, 'a child goes before its parent')
  }
}

interface Rig {
  engine: SimulatedEngine
  clock: VirtualClock
  mirrors: Map<number, Mirror>
  run(request: EngineRequest): Run
  settle(): Promise<void>
}
interface Run {
  outputs: EngineOutput[]
  controller: AbortController
  done: boolean
  error: unknown
}

function rig(given: Partial<EngineSettings>): Rig {
  const clock = new VirtualClock()
  const settings = engineSettings(given)
  const mirrors = new Map(Array.from({ length: settings.dpSize }, (_, index) => [settings.dpStart + index, new Mirror()]))
  const engine = new SimulatedEngine(settings, { clock, events: (rank, events) => mirrors.get(rank)?.apply(events) })
  const run = (value: EngineRequest): Run => {
    const state: Run = { outputs: [], controller: new AbortController(), done: false, error: null }
    void (async () => {
      try {
        for await (const output of engine.generate(value, state.controller.signal)) state.outputs.push(output)
      } catch (error) {
        state.error = error
      }
      state.done = true
    })()
    return state
  }
  const settle = async (): Promise<void> => {
    for (let turns = 0; await clock.step(); turns += 1) assert.ok(turns < 50_000, 'the engine comes to rest')
  }
  return { engine, clock, mirrors, run, settle }
}

const tokensOf = (run: Run): number[] => run.outputs.flatMap((output) => [...output.tokens])
const range = (start: number, length: number): number[] => Array.from({ length }, (_, index) => start + index)

test('under random traffic blocks stay within capacity and events mirror the cache exactly', async () => {
  const action = fc.record({
    family: fc.integer({ min: 0, max: 2 }),
    length: fc.integer({ min: 1, max: 40 }),
    maxTokens: fc.integer({ min: 1, max: 12 }),
    steps: fc.integer({ min: 0, max: 6 }),
    cancel: fc.boolean(),
    prefilled: fc.boolean(),
  })
  await fc.assert(fc.asyncProperty(fc.array(action, { minLength: 1, maxLength: 12 }), fc.integer({ min: 11, max: 24 }), async (actions, blocks) => {
    const { engine, clock, mirrors, run, settle } = rig({ blockSize: 4, blocks, dpStart: 3, dpSize: 2, maxSequences: 4, maxBatchedTokens: 16, speedup: 1000 })
    const check = (): void => {
      for (const load of engine.loads) {
        assert.ok(load.usedBlocks <= load.totalBlocks && load.cachedBlocks <= load.totalBlocks && load.usedBlocks >= 0)
        assert.ok(load.runningRequests <= 4)
        assert.deepEqual(engine.cachedHashes(load.dpRank).sort(), [...(mirrors.get(load.dpRank)?.blocks.keys() ?? [])].sort())
      }
    }
    const runs: Run[] = []
    for (const [index, item] of actions.entries()) {
      runs.push(run(request(`r${index}`, range(item.family * 100, item.length), { maxTokens: item.maxTokens, prefilled: item.prefilled })))
      for (let step = 0; step < item.steps; step += 1) if (await clock.step()) check()
      if (item.cancel) runs[Math.floor(index / 2)]?.controller.abort()
      check()
    }
    await settle()
    check()
    assert.ok(engine.loads.every((load) => load.usedBlocks === 0 && load.runningRequests === 0 && load.waitingRequests === 0))
    for (const [index, state] of runs.entries()) {
      assert.ok(state.done && state.error === null)
      const last = state.outputs.at(-1)
      if (last?.finishReason == null) assert.ok(state.controller.signal.aborted)
      else assert.equal(last.outputTokens, Math.min(actions[index]?.maxTokens ?? 0, Math.max(1, blocks * 4 - (actions[index]?.length ?? 0))))
    }
    engine.dropUnused()
    for (const mirror of mirrors.values()) assert.equal(mirror.blocks.size, 0)
  }), { numRuns: 60 })
})

test('a repeated prompt is taken from the cache, is faster and gives the same tokens', async () => {
  const { clock, run, settle } = rig({ blockSize: 16 })
  const cold = run(request('a', range(1, 1000)))
  await settle()
  const coldMs = clock.now
  const warm = run(request('b', range(1, 1000)))
  await settle()
  assert.deepEqual(tokensOf(warm), tokensOf(cold))
  assert.equal(cold.outputs.at(-1)?.cachedTokens, 0)
  assert.equal(warm.outputs.at(-1)?.cachedTokens, 992)
  assert.ok(clock.now - coldMs < coldMs / 2, `${clock.now - coldMs} ms after ${coldMs} ms`)
})

test('LoRA, cache salt and hash seed separate blocks; content alone does not', async () => {
  const first = rig({ blockSize: 4 })
  const runs = [{}, { loraName: 'x' }, { cacheSalt: 'x' }, {}].map((more, index) => first.run(request(`r${index}`, range(0, 8), more)))
  await first.settle()
  for (const state of runs.slice(0, 3)) assert.equal(state.outputs.at(-1)?.cachedTokens, 0)
  const other = rig({ blockSize: 4, hashSeed: 9 })
  other.run(request('r', range(0, 8)))
  await other.settle()
  const hashes = new Set(first.engine.cachedHashes(0))
  assert.equal(hashes.size, 6, 'two prompt blocks in each of three spaces')
  assert.ok(other.engine.cachedHashes(0).every((hash) => !hashes.has(hash)))
})

test('stop conditions: max_tokens, stop ids, natural end, min_tokens and ignore_eos', async () => {
  const { run, settle } = rig({ blockSize: 4, naturalOutputTokens: 3, outputTokensDefault: 6 })
  const plain = run(request('a', [1, 2], { maxTokens: 2 }))
  const natural = run(request('b', [1, 2], { maxTokens: null, eosTokenIds: [77] }))
  const least = run(request('c', [1, 2], { maxTokens: null, eosTokenIds: [77], minTokens: 5 }))
  const ignoring = run(request('d', [1, 2], { maxTokens: null, eosTokenIds: [77], ignoreEos: true }))
  await settle()
  assert.equal(plain.outputs.at(-1)?.finishReason, 'length')
  assert.equal(tokensOf(plain).length, 2)
  assert.equal(natural.outputs.at(-1)?.finishReason, 'stop')
  assert.deepEqual([tokensOf(natural).length, tokensOf(natural)[2]], [3, 77])
  assert.equal(tokensOf(least).length, 5)
  assert.deepEqual([tokensOf(ignoring).length, ignoring.outputs.at(-1)?.finishReason], [6, 'length'])
  const stopped = run(request('e', [1, 2], { maxTokens: 6, ignoreEos: true, stopTokenIds: new Set([tokensOf(ignoring)[1] ?? -1]) }))
  await settle()
  assert.deepEqual([tokensOf(stopped).length, stopped.outputs.at(-1)?.finishReason], [2, 'stop'])
})

test('cancelling frees the blocks at once and ends the stream', async () => {
  const { engine, clock, run, settle } = rig({ blockSize: 4 })
  const state = run(request('a', range(0, 64), { maxTokens: 1000 }))
  while (state.outputs.length < 3) await clock.step()
  assert.ok((engine.loads[0]?.usedBlocks ?? 0) > 16)
  state.controller.abort()
  assert.equal(engine.loads[0]?.usedBlocks, 0)
  await settle()
  assert.ok(state.done && state.outputs.every((output) => output.finishReason === null))
})

test('when blocks run out the youngest computes again and every request ends', async () => {
  const { engine, run, settle } = rig({ blockSize: 4, blocks: 12, speedup: 100 })
  const runs = range(0, 4).map((index) => run(request(`r${index}`, range(index * 100, 8), { maxTokens: 30 })))
  await settle()
  assert.ok((engine.loads[0]?.preemptions ?? 0) > 0)
  for (const state of runs) assert.equal(tokensOf(state).length, 30)
})

test('a prefilled prompt costs no prefill time', async () => {
  const { clock, run, settle } = rig({})
  run(request('a', range(0, 4000), { maxTokens: 1, prefilled: true }))
  await settle()
  assert.ok(clock.now < 10, `${clock.now} ms`)
})

test('requests that cannot run are refused with the field', async () => {
  const { run, settle } = rig({ blockSize: 4, blocks: 8, dpSize: 2 })
  const states = [run(request('a', [])), run(request('b', range(0, 33))), run(request('c', [1], { dpRank: 2 }))]
  await settle()
  const messages = states.map((state) => (state.error instanceof FailureError ? `${state.error.failure.class}: ${state.error.failure.message}` : 'none'))
  assert.match(messages[0] ?? '', /^InvalidRequest: token_ids is empty/)
  assert.match(messages[1] ?? '', /^InvalidRequest: token_ids has 33 tokens; this worker takes at most 32/)
  assert.match(messages[2] ?? '', /^InvalidRequest: routing\.dp_rank is 2; this worker has ranks 0 to 1/)
  assert.throws(() => engineSettings({ blocks: 0 }), /blocks is 0; it must be a whole number from 1/)
})
