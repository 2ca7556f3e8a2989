/** `nvext` of an answer: what the request asked to be told besides the text. */
import type { Json, JsonObject } from '../ports.ts'
import { isJsonObject } from './fields.ts'
import type { GenerationStep } from './generation.ts'
import type { GenerationPlan } from './generation-plan.ts'

/** Moments of the request as this server saw them. */
export interface AnswerTimes {
  /** Unix milliseconds. */
  readonly receivedAtMs: number
  /** Milliseconds since then; null before the first token. */
  firstTokenMs: number | null
  elapsedMs(): number
}

/** `nvext` of one step; undefined when there is nothing to tell. `tokenIds`: those not told yet. */
export function stepExtras(plan: GenerationPlan, step: GenerationStep, tokenIds: readonly number[], times: AnswerTimes): JsonObject | undefined {
  const asked = plan.extension.extraFields
  const extras: Record<string, Json> = {}
  const { delta } = step
  if (plan.queryOnly) {
    if (step.workerId !== undefined) extras['worker_id'] = step.workerId
    extras['token_ids'] = plan.prompts[step.promptIndex]?.tokenIds ?? []
    return extras
  }
  if (asked.length === 0) return undefined
  if (asked.includes('worker_id') && step.workerId !== undefined) extras['worker_id'] = step.workerId
  if (asked.includes('completion_token_ids')) extras['completion_token_ids'] = tokenIds
  if (step.engineData !== undefined && asked.includes('engine_data')) extras['engine_data'] = step.engineData
  for (const name of ['routed_experts', 'prompt_logprobs']) {
    const value = isJsonObject(step.engineData) ? step.engineData[name] : undefined
    if (value !== undefined && asked.includes(name)) extras[name] = value
  }
  if (delta.finish !== null) {
    if (asked.includes('timing')) extras['timing'] = timingOf(step, times)
    if (asked.includes('stop_reason') && delta.stopReason !== null) extras['stop_reason'] = delta.stopReason
    if (asked.includes('detailed_finish_reason') && delta.detailedFinish !== null) extras['detailed_finish_reason'] = delta.detailedFinish
    if (asked.includes('prompt_token_ids')) extras['prompt_token_ids'] = plan.prompts[step.promptIndex]?.tokenIds ?? []
  }
  return Object.keys(extras).length === 0 ? undefined : extras
}

/** The router's own numbers, with this server's where it gave none. */
function timingOf(step: GenerationStep, times: AnswerTimes): JsonObject {
  return {
    request_received_ms: Math.round(times.receivedAtMs),
    ...(times.firstTokenMs === null ? {} : { ttft_ms: times.firstTokenMs }),
    total_time_ms: times.elapsedMs(),
    ...(isJsonObject(step.timing) ? step.timing : {}),
  }
}

/** The extras of several steps as one: lists of tokens joined, else the last word. */
export function mergedExtras(before: JsonObject | undefined, more: JsonObject | undefined): JsonObject | undefined {
  if (before === undefined || more === undefined) return before ?? more
  const tokens = [before['completion_token_ids'], more['completion_token_ids']]
  const merged: Record<string, Json> = { ...before, ...more }
  if (tokens.every((list) => Array.isArray(list))) merged['completion_token_ids'] = (tokens as readonly (readonly Json[])[]).flat()
  return merged
}

/** Values of the annotations that were asked for, in the order in which they are sent. */
export function annotationEvents(plan: GenerationPlan, requestId: string): readonly { readonly event: string; readonly value: string }[] {
  const asked = plan.extension.annotations
  const prompt = plan.prompts[0]
  const events: { event: string; value: string }[] = []
  if (asked.includes('request_id')) events.push({ event: 'request_id', value: requestId })
  if (asked.includes('formatted_prompt') && prompt?.text !== undefined) events.push({ event: 'formatted_prompt', value: prompt.text })
  if (asked.includes('token_ids') && prompt !== undefined) events.push({ event: 'token_ids', value: JSON.stringify(prompt.tokenIds) })
  return events
}
