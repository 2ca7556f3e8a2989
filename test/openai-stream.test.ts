/** Goal: however a worker cuts its tokens, the answer is the same. Method: random texts, cuts and stop strings against a plain reading of the whole text. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Extension } from '../src/openai/extension.ts'
import { runGeneration } from '../src/openai/generation.ts'
import type { GenerationPlan } from '../src/openai/generation-plan.ts'
import type { JsonObject } from '../src/ports.ts'
import { eosId, FakeModel, tokensOf, type Script } from './openai-kit.ts'

const extension: Extension = {
  annotations: [], tokenData: undefined, maxThinkingTokens: undefined, cacheSalt: undefined, extraFields: [], routing: {}, router: undefined,
  requestTimestampMs: undefined, metadataUpload: undefined, warnings: [],
}

const quiet = { call: { id: 'r', headers: {}, metadata: {} }, signal: new AbortController().signal, onRouted: () => {} }

function planOf(model: FakeModel, prompts: number, stops: readonly string[], includeStop: boolean): GenerationPlan {
  return {
    kind: 'completion', model, stream: true, streamOptions: { includeUsage: false, continuousUsage: false }, n: 1,
    stop: { strings: stops, tokenIds: [], hiddenTokenIds: [eosId], minTokens: 0, maxTokens: undefined, conditions: {} },
    logprobs: undefined, tokensAsIds: false, skipSpecialTokens: true, includeStopString: includeStop, echo: false, extension, queryOnly: false,
    prompts: Array.from({ length: prompts }, () => ({ tokenIds: [5], text: 'x' })),
    requests: Array.from({ length: prompts }, (_, index): JsonObject => ({ prompt: index })),
  }
}

/** The text up to the stop string whose end comes first. */
function expected(text: string, stops: readonly string[], includeStop: boolean): { text: string; stopped: boolean } {
  let best: { readonly start: number; readonly end: number } | null = null
  for (const stop of stops) {
    const start = text.indexOf(stop)
    if (start === -1) continue
    const end = start + stop.length
    if (best === null || end < best.end || (end === best.end && start < best.start)) best = { start, end }
  }
  return best === null ? { text, stopped: false } : { text: text.slice(0, includeStop ? best.end : best.start), stopped: true }
}

const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'ö', '😀', ' '), maxLength: 30 })
const cuts = fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 40 })

test('text, cuts and stop strings at random: one reading', async () => {
  await fc.assert(fc.asyncProperty(letters, cuts, fc.array(fc.string({ unit: fc.constantFrom('a', 'b', 'ö', '😀'), minLength: 1, maxLength: 3 }), { maxLength: 3 }), fc.boolean(), fc.constantFrom('eos', 'finish', 'end'),
    async (text, sizes, stops, includeStop, ending) => {
      const tokens = tokensOf(text)
      const script: Script = async function* () {
        let at = 0
        for (let step = 0; at < tokens.length; step += 1) {
          const size = sizes[step % sizes.length] ?? 1
          const part = tokens.slice(at, at + (step >= sizes.length ? Math.max(1, size) : size))
          at += part.length
          yield { token_ids: part }
        }
        if (ending === 'eos') yield { token_ids: [eosId, ...tokensOf('unseen')] }
        else if (ending === 'finish') yield { token_ids: [], finish_reason: 'length' }
        else yield { token_ids: [] }
      }
      const model = new FakeModel(script)
      const plan = planOf(model, 1, stops, includeStop)
      let answer = ''
      const finishes: string[] = []
      await runGeneration(plan, { ...quiet, onStep: (step) => {
        assert.equal(finishes.length, 0, 'nothing after the finish')
        answer += step.delta.text
        if (step.delta.finish !== null) finishes.push(step.delta.finish)
        return undefined
      } })
      const wanted = expected(text, stops, includeStop)
      assert.equal(answer, wanted.text)
      assert.deepEqual(finishes, [!wanted.stopped && ending === 'finish' ? 'length' : 'stop'])
      assert.equal(model.ended, 1)
    }), { numRuns: 300 })
})

test('several prompts whose outputs come in any order: every answer whole, every request ended, also after a failure', async () => {
  await fc.assert(fc.asyncProperty(fc.array(fc.tuple(letters, fc.integer({ min: 0, max: 3 })), { minLength: 2, maxLength: 5 }), fc.boolean(), async (texts, fails) => {
    const script: Script = async function* (request) {
      const [text, pauses] = texts[request['prompt'] as number] ?? ['', 0]
      for (const token of tokensOf(text)) {
        for (let turn = 0; turn < pauses; turn += 1) await Promise.resolve()
        yield { token_ids: [token] }
      }
      if (fails && request['prompt'] === 0) throw new Error('lost')
      yield { token_ids: [], finish_reason: 'stop' }
    }
    const model = new FakeModel(script)
    const answers = texts.map(() => '')
    const run = (): Promise<void> => runGeneration(planOf(model, texts.length, [], false), { ...quiet, onStep: (step) => {
      answers[step.index] += step.delta.text
      return step.index % 2 === 0 ? undefined : Promise.resolve()
    } })
    if (fails) await assert.rejects(run, /lost/)
    else {
      await run()
      assert.deepEqual(answers, texts.map(([text]) => text))
    }
    assert.equal(model.ended, texts.length)
  }), { numRuns: 100 })
})
