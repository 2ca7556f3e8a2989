/** How one endpoint plans a request and shapes its answer; `generate-handler.ts` runs what stands here. */
import type { JsonObject } from '../ports.ts'
import { annotationEvents, type AnswerTimes } from './answer-extras.ts'
import { ChunkMaker, WholeAnswer, type AnswerIdentity } from './answer-shape.ts'
import { streamErrorBody, type ApiErrorDetail, type ErrorForm } from './api-error.ts'
import { planChat, type RequestContext } from './chat-request.ts'
import { planCompletion } from './completion-request.ts'
import { annotationEvent, dataEvent, endMark } from './event-writer.ts'
import type { Fields } from './fields.ts'
import type { Endpoint } from './frontend-meter.ts'
import type { GenerationStep, Usage } from './generation.ts'
import type { GenerationPlan } from './generation-plan.ts'

/** Steps collected into one body. */
export interface WholeForm {
  add(step: GenerationStep): void
  body(): JsonObject
}

/** Steps as the text of server-sent events; empty where there is nothing to show. */
export interface StreamForm {
  /** Before the first step. */
  begin(): string
  step(step: GenerationStep): string
  /** The answer is complete. `usage`: of the last step. */
  end(usage: Usage | undefined): string
  /** It has failed after its beginning was sent. */
  failed(detail: ApiErrorDetail, form: ErrorForm): string
}

/** A checked request with the makers of its answer. */
export interface PreparedAnswer {
  readonly plan: GenerationPlan
  whole(identity: AnswerIdentity, times: AnswerTimes): WholeForm
  stream(identity: AnswerIdentity, times: AnswerTimes): StreamForm
}

export interface GenerationEndpoint {
  /** Its label in metrics. */
  readonly name: Endpoint
  /** What a model must be able to do. */
  readonly surface: 'chat' | 'completions'
  /** Errors: 400 for everything that its checks refuse. */
  prepare(body: Fields, context: RequestContext): Promise<PreparedAnswer>
}

export const chatEndpoint: GenerationEndpoint = {
  name: 'chat_completions', surface: 'chat', prepare: async (body, context) => prepared(await planChat(body, context)),
}

export const completionsEndpoint: GenerationEndpoint = {
  name: 'completions', surface: 'completions', prepare: async (body, context) => prepared(await planCompletion(body, context)),
}

const prepared = (plan: GenerationPlan): PreparedAnswer => ({
  plan,
  whole: (identity, times) => new WholeAnswer(plan, identity, times),
  stream: (identity, times) => new ChunkStream(plan, identity, times),
})

/** OpenAI's chunks. */
class ChunkStream implements StreamForm {
  readonly #plan: GenerationPlan
  readonly #requestId: string
  readonly #chunks: ChunkMaker

  constructor(plan: GenerationPlan, identity: AnswerIdentity, times: AnswerTimes) {
    this.#plan = plan
    this.#requestId = identity.requestId
    this.#chunks = new ChunkMaker(plan, identity, times)
  }

  begin(): string {
    return annotationEvents(this.#plan, this.#requestId).map(({ event, value }) => annotationEvent(event, value)).join('')
  }

  step(step: GenerationStep): string {
    return this.#chunks.event(step)
  }

  end(usage: Usage | undefined): string {
    const { streamOptions, queryOnly } = this.#plan
    return usage !== undefined && streamOptions.includeUsage && !queryOnly ? dataEvent(this.#chunks.usageChunk(usage)) + endMark : endMark
  }

  failed(detail: ApiErrorDetail, form: ErrorForm): string {
    return dataEvent(streamErrorBody(detail, form)) + endMark
  }
}
