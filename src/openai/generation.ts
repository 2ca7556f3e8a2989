/**
 * Runs a plan: starts the worker requests, and tells of their outputs as they come what each adds to which answer.
 *
 * Ends a worker's request as soon as all of its answers have ended. Several prompts run side by side.
 */
import { FailureError } from '../model/failure.ts'
import type { Json, JsonObject, StopSignal } from '../ports.ts'
import type { ModelCall, RoutingNote } from './catalog.ts'
import { ChoiceStream, WorkerFinishedWithError, type ChoiceDelta, type WorkerOutput } from './choice-stream.ts'
import { Cut } from './cut.ts'
import { isJsonObject } from './fields.ts'
import type { GenerationPlan, Prompt } from './generation-plan.ts'

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
  /** Goes on counting: read it when the step is told, or for the last word at the end. */
  readonly usage: Usage
}

export interface GenerationOptions {
  readonly call: Omit<ModelCall, 'signal'>
  readonly signal: StopSignal
  readonly onRouted: (note: RoutingNote) => void
  /** Takes each step as it comes. What it gives back is waited for before the next of the same prompt. */
  onStep(step: GenerationStep): Promise<void> | undefined
}

const withoutOutput = (): FailureError =>
  new FailureError({
    class: 'BackendProtocol', reason: 'backend.protocol', message: 'the worker ended the request without an output',
    publicDetail: { type: 'message', message: 'the worker ended the request without an output; try again, and see the worker\'s log if it persists' },
  })

const nothingNew: ChoiceDelta = { text: '', reasoning: '', toolCalls: [], tokenIds: [], logprobs: [], finish: null, stopReason: null, detailedFinish: null }

/** Counts of all prompts together. */
class UsageCount implements Usage {
  readonly #cached = new Map<number, number>()
  cachedTokens: number | null = null
  readonly promptTokens: number
  completionTokens = 0
  reasoningTokens: number | null

  constructor(plan: GenerationPlan) {
    this.promptTokens = plan.prompts.reduce((sum, prompt) => sum + prompt.tokenIds.length, 0)
    this.reasoningTokens = plan.countsReasoning === true ? 0 : null
  }

  reasoned(tokens: number): void {
    if (this.reasoningTokens !== null) this.reasoningTokens += tokens
  }

  see(promptIndex: number, output: WorkerOutput): void {
    const usage = output['completion_usage']
    if (usage instanceof Uint8Array || !isJsonObject(usage)) return
    const details = usage['prompt_tokens_details']
    if (!isJsonObject(details) || typeof details['cached_tokens'] !== 'number') return
    this.#cached.set(promptIndex, details['cached_tokens'])
    this.cachedTokens = 0
    for (const tokens of this.#cached.values()) this.cachedTokens += tokens
  }
}

/** Tells the steps of all answers in the order in which they come; resolves after the last. Errors: `FailureError` of the model, also in the middle. */
export async function runGeneration(plan: GenerationPlan, options: GenerationOptions): Promise<void> {
  const usage = new UsageCount(plan)
  if (plan.requests.length === 1) return await new PromptRun(plan, 0, usage, options).run()
  const stopAll = new Cut()
  const stop = (): void => stopAll.abort(options.signal.reason)
  options.signal.addEventListener('abort', stop)
  if (options.signal.aborted) stop()
  const inner = { ...options, signal: stopAll }
  const runs = plan.requests.map((_, index) => new PromptRun(plan, index, usage, inner).run())
  try {
    await Promise.all(runs)
  } finally {
    options.signal.removeEventListener('abort', stop)
    stopAll.abort('over')
    await Promise.allSettled(runs)
  }
}

/** One prompt: its worker request and its answers. */
class PromptRun {
  readonly #plan: GenerationPlan
  readonly #promptIndex: number
  readonly #usage: UsageCount
  readonly #options: GenerationOptions
  readonly #choices = new Map<number, ChoiceStream>()
  #finished = 0
  #answeredQuery = false
  /** What goes wrong now is the taker's fault. */
  #telling = false
  #workerId: Json | undefined

  constructor(plan: GenerationPlan, promptIndex: number, usage: UsageCount, options: GenerationOptions) {
    this.#plan = plan
    this.#promptIndex = promptIndex
    this.#usage = usage
    this.#options = options
  }

  async run(): Promise<void> {
    const { signal } = this.#options
    try {
      await this.#outputs()
    } catch (error) {
      // The answer is complete: what goes wrong behind it is nobody's loss.
      if (!this.#allFinished || this.#telling) throw error
    }
    if (signal.aborted || this.#answeredQuery) return
    if (this.#choices.size === 0) throw withoutOutput()
    for (const [index, choice] of this.#choices) {
      const delta = choice.close()
      const taken = delta === null ? undefined : this.#tell(index, delta, false, {})
      if (taken !== undefined) await taken
    }
  }

  async #outputs(): Promise<void> {
    const plan = this.#plan
    const { call, signal, onRouted } = this.#options
    const request = plan.requests[this.#promptIndex] as JsonObject
    const id = plan.requests.length > 1 ? `${call.id}-${this.#promptIndex}` : call.id
    for await (const outputs of plan.model.generate(request, { ...call, id, signal }, onRouted)) {
      for (const output of outputs) {
        if (signal.aborted) return
        const taken = this.#take(output)
        if (taken !== undefined) await taken
        // A worker that said itself that it has finished ends by itself; one that did not is told so.
        if (plan.queryOnly || (this.#allFinished && (output['finish_reason'] ?? null) === null)) return
      }
    }
  }

  #take(output: WorkerOutput): Promise<void> | undefined {
    const plan = this.#plan
    if (plan.queryOnly) {
      this.#answeredQuery = true
      return this.#tell(0, nothingNew, true, output)
    }
    const index = typeof output['index'] === 'number' ? output['index'] : 0
    if (!Number.isInteger(index) || index < 0 || index >= plan.n) return undefined
    const known = this.#choices.get(index)
    const choice = known ?? new ChoiceStream(plan, plan.prompts[this.#promptIndex] as Prompt)
    if (known === undefined) this.#choices.set(index, choice)
    const before = choice.tokens
    const reasonedBefore = choice.reasoningTokens
    const delta = pushed(choice, output)
    if (delta === null) return undefined
    if (choice.finished) this.#finished += 1
    this.#usage.completionTokens += choice.tokens - before
    this.#usage.reasoned(choice.reasoningTokens - reasonedBefore)
    this.#usage.see(this.#promptIndex, output)
    return this.#tell(index, delta, known === undefined, output)
  }

  get #allFinished(): boolean {
    return this.#finished === this.#plan.n
  }

  #tell(index: number, delta: ChoiceDelta, first: boolean, output: WorkerOutput): Promise<void> | undefined {
    const routing = objectOf(output['routing_data'])
    this.#workerId = routing?.['worker_id'] ?? this.#workerId
    const engineData = output['engine_data']
    this.#telling = true
    const taken = this.#options.onStep({
      index: this.#promptIndex * this.#plan.n + index, promptIndex: this.#promptIndex, delta, first, workerId: this.#workerId, timing: routing?.['timing'],
      engineData: engineData instanceof Uint8Array ? undefined : engineData, usage: this.#usage,
    })
    this.#telling = false
    return taken
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
