/**
 * Runs a plan: starts the worker requests, joins their outputs as they come, and tells what each adds to which answer.
 *
 * Ends a worker's request as soon as all of its answers have ended. Several prompts run side by side.
 */
import { FailureError } from '../model/failure.ts'
import type { Json, JsonObject } from '../ports.ts'
import type { ModelCall, RoutingNote } from './catalog.ts'
import { ChoiceStream, WorkerFinishedWithError, type ChoiceDelta, type WorkerOutput } from './choice-stream.ts'
import { isJsonObject } from './fields.ts'
import type { GenerationPlan } from './generation-plan.ts'

export interface Usage {
  readonly promptTokens: number
  readonly completionTokens: number
  /** As the engines reported it; null when none did. */
  readonly cachedTokens: number | null
  /** Of the completion's; null when the model has no reasoning parser. */
  readonly reasoningTokens: number | null
}

/** One step of an answer. */
export interface GenerationStep {
  /** Place among all answers: prompt by prompt, `n` each. */
  readonly index: number
  readonly promptIndex: number
  readonly delta: ChoiceDelta
  /** The first step of this answer. */
  readonly first: boolean
  /** What the router and the engine said beside the tokens. */
  readonly workerId: Json | undefined
  readonly timing: Json | undefined
  readonly engineData: Json | undefined
  readonly usage: Usage
}

export interface GenerationOptions {
  readonly call: Omit<ModelCall, 'signal'>
  readonly signal: AbortSignal
  readonly onRouted: (note: RoutingNote) => void
}

const withoutOutput = (): FailureError =>
  new FailureError({
    class: 'BackendProtocol', reason: 'backend.protocol', message: 'the worker ended the request without an output',
    publicDetail: { type: 'message', message: 'the worker ended the request without an output; try again, and see the worker\'s log if it persists' },
  })

const nothingNew: ChoiceDelta = { text: '', reasoning: '', toolCalls: [], tokenIds: [], logprobs: [], finish: null, stopReason: null, detailedFinish: null }

/** Counts of all prompts together. */
class UsageCount {
  readonly #cached = new Map<number, number>()
  readonly #promptTokens: number
  completionTokens = 0
  #reasoningTokens: number | null

  constructor(plan: GenerationPlan) {
    this.#promptTokens = plan.prompts.reduce((sum, prompt) => sum + prompt.tokenIds.length, 0)
    this.#reasoningTokens = plan.countsReasoning === true ? 0 : null
  }

  reasoned(tokens: number): void {
    if (this.#reasoningTokens !== null) this.#reasoningTokens += tokens
  }

  see(promptIndex: number, output: WorkerOutput): void {
    const usage = output['completion_usage']
    if (usage instanceof Uint8Array || !isJsonObject(usage)) return
    const details = usage['prompt_tokens_details']
    if (isJsonObject(details) && typeof details['cached_tokens'] === 'number') this.#cached.set(promptIndex, details['cached_tokens'])
  }

  now(): Usage {
    let cached: number | null = null
    for (const tokens of this.#cached.values()) cached = (cached ?? 0) + tokens
    return { promptTokens: this.#promptTokens, completionTokens: this.completionTokens, cachedTokens: cached, reasoningTokens: this.#reasoningTokens }
  }
}

/** The steps of all answers in the order in which they come. Errors: `FailureError` of the model, also in the middle. */
export async function* runGeneration(plan: GenerationPlan, options: GenerationOptions): AsyncGenerator<GenerationStep> {
  const usage = new UsageCount(plan)
  if (plan.requests.length === 1) {
    yield* runPrompt(plan, 0, usage, options)
    return
  }
  const stopAll = new AbortController()
  const inner = { ...options, signal: AbortSignal.any([options.signal, stopAll.signal]) }
  const runs = plan.requests.map((_, index) => runPrompt(plan, index, usage, inner)[Symbol.asyncIterator]())
  try {
    yield* joined(runs)
  } finally {
    stopAll.abort()
    await Promise.allSettled(runs.map((run) => run.return(undefined)))
  }
}

/** Values of several iterations in the order in which they come; at most one waiting value per iteration. Errors: the first of any. */
async function* joined<Value>(runs: readonly AsyncGenerator<Value>[]): AsyncGenerator<Value> {
  const arrived: { readonly index: number; readonly settle: () => IteratorResult<Value> }[] = []
  let wake: () => void = () => {}
  const ask = (index: number): void => {
    const arrive = (settle: () => IteratorResult<Value>): void => {
      arrived.push({ index, settle })
      wake()
    }
    runs[index]?.next().then(
      (result) => arrive(() => result),
      (error: unknown) => arrive(() => {
        throw error
      }),
    )
  }
  for (const index of runs.keys()) ask(index)
  for (let open = runs.length; open > 0;) {
    const next = arrived.shift()
    if (next === undefined) {
      await new Promise<void>((resolve) => {
        wake = resolve
      })
      continue
    }
    const result = next.settle()
    if (result.done === true) {
      open -= 1
      continue
    }
    yield result.value
    ask(next.index)
  }
}

async function* runPrompt(plan: GenerationPlan, promptIndex: number, usage: UsageCount, options: GenerationOptions): AsyncGenerator<GenerationStep> {
  const prompt = plan.prompts[promptIndex]
  const request = plan.requests[promptIndex]
  if (prompt === undefined || request === undefined) return
  const several = plan.requests.length > 1
  const call: ModelCall = { ...options.call, id: several ? `${options.call.id}-${promptIndex}` : options.call.id, signal: options.signal }
  const choices = new Map<number, ChoiceStream>()
  let workerId: Json | undefined
  const step = (index: number, delta: ChoiceDelta, first: boolean, output: WorkerOutput): GenerationStep => {
    const routing = objectOf(output['routing_data'])
    workerId = routing?.['worker_id'] ?? workerId
    return {
      index: promptIndex * plan.n + index, promptIndex, delta, first, workerId, timing: routing?.['timing'],
      engineData: output['engine_data'] instanceof Uint8Array ? undefined : output['engine_data'], usage: usage.now(),
    }
  }

  const allFinished = (): boolean => choices.size === plan.n && [...choices.values()].every((each) => each.finished)
  try {
    for await (const output of plan.model.generate(request, call, options.onRouted)) {
      if (plan.queryOnly) {
        yield step(0, nothingNew, true, output)
        return
      }
      const index = typeof output['index'] === 'number' ? output['index'] : 0
      if (index < 0 || index >= plan.n) continue
      const known = choices.get(index)
      const choice = known ?? new ChoiceStream(plan, prompt)
      if (known === undefined) choices.set(index, choice)
      const before = choice.tokens
      const reasonedBefore = choice.reasoningTokens
      const delta = pushed(choice, output)
      if (delta === null) continue
      usage.completionTokens += choice.tokens - before
      usage.reasoned(choice.reasoningTokens - reasonedBefore)
      usage.see(promptIndex, output)
      yield step(index, delta, known === undefined, output)
      // A worker that said itself that it has finished ends by itself; one that did not is told so.
      if ((output['finish_reason'] ?? null) === null && allFinished()) return
    }
  } catch (error) {
    // The answer is complete: what goes wrong behind it is nobody's loss.
    if (!allFinished()) throw error
  }
  if (options.signal.aborted) return
  if (choices.size === 0) throw withoutOutput()
  for (const [index, choice] of choices) {
    const delta = choice.close()
    if (delta !== null) yield step(index, delta, false, {})
  }
}

function pushed(choice: ChoiceStream, output: WorkerOutput): ChoiceDelta | null {
  try {
    return choice.push(output)
  } catch (error) {
    if (!(error instanceof WorkerFinishedWithError)) throw error
    throw new FailureError({ class: 'Internal', reason: 'backend.unknown', message: `the worker ended the request with an error: ${error.message}` }, { cause: error })
  }
}

const objectOf = (value: Json | Uint8Array | undefined): JsonObject | undefined =>
  !(value instanceof Uint8Array) && isJsonObject(value) ? value : undefined
