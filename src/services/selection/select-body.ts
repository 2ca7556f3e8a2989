/** Bodies of the calls that ask for a worker. Source: router-algorithm 16.1. */
import type { RouterConfigOverride } from '../../model/routing-request.ts'
import type { JsonObject } from '../../ports.ts'
import { overrideError } from '../../scheduling/override.ts'
import {
  BodyError, booleanOf, choiceOf, countOf, f32Of, listOf, maybe, numberOf, objectOf, passingTextOf, required, textListOf, textOf, u32Of, u64Of, withDefault,
} from '../body-fields.ts'
import type { PartitionKey } from '../partition-key.ts'
import { readPrompt, type PromptFields } from './prompt.ts'

export interface Target {
  readonly workerId: bigint
  readonly dpRank: number | null
}

export interface SelectBody {
  readonly key: PartitionKey
  readonly selectionId: string | null
  readonly prompt: PromptFields
  readonly override: RouterConfigOverride | null
  readonly expectedOutputTokens: number | null
  readonly priorityJump: number
  readonly strictPriority: number
  readonly sessionId: string | null
  readonly affinityTarget: Target | null
  readonly pinned: { readonly workerId: bigint; readonly dpRank: number } | null
  readonly allowedWorkerIds: ReadonlySet<bigint> | null
  readonly requiredTaints: readonly string[]
  readonly preferredTaints: ReadonlyMap<string, number>
  readonly advisory: boolean
}

export const readKey = (body: JsonObject): PartitionKey =>
  ({ model: withDefault(body, 'model_name', textOf, 'default'), group: withDefault(body, 'routing_group', textOf, 'default') })

/** Errors: `BodyError`. */
export function readSelectBody(body: JsonObject): SelectBody {
  const constraints = withDefault(body, 'routing_constraints', objectOf, {})
  return {
    key: readKey(body),
    selectionId: maybe(body, 'selection_id', textOf),
    prompt: readPrompt(body),
    override: readOverride(body),
    expectedOutputTokens: maybe(body, 'expected_output_tokens', u32Of),
    priorityJump: maybe(body, 'priority_jump', numberOf) ?? 0,
    strictPriority: maybe(body, 'strict_priority', u32Of) ?? 0,
    sessionId: readSession(body),
    affinityTarget: maybe(body, 'affinity_target', (value, field) => {
      const target = objectOf(value, field)
      return { workerId: required(target, 'worker_id', u64Of, field), dpRank: maybe(target, 'dp_rank', u32Of, field) }
    }),
    pinned: maybe(body, 'pinned_worker', (value, field) => {
      const target = objectOf(value, field)
      return { workerId: required(target, 'worker_id', u64Of, field), dpRank: required(target, 'dp_rank', u32Of, field) }
    }),
    allowedWorkerIds: maybe(body, 'allowed_worker_ids', (value, field) => new Set(listOf(value, field).map((item, index) => u64Of(item, `${field}[${index}]`)))),
    requiredTaints: withDefault(constraints, 'required_taints', textListOf, [], 'routing_constraints'),
    preferredTaints: withDefault(constraints, 'preferred_taints', weightsOf, new Map(), 'routing_constraints'),
    advisory: withDefault(body, 'advisory', booleanOf, false),
  }
}

/** Weights are 32-bit floats on the wire of the original. */
const weightsOf = (value: unknown, field: string): ReadonlyMap<string, number> =>
  new Map(Object.entries(objectOf(value, field)).map(([taint, weight]) => [taint, f32Of(weight, `${field}.${taint.slice(0, 60)}`)]))

const triggerOf = choiceOf(['user_message', 'tool_result', 'other'] as const)

function readSession(body: JsonObject): string | null {
  const plain = maybe(body, 'session_id', textOf)
  const context = maybe(body, 'session_context', (value, field) => {
    const session = objectOf(value, field)
    maybe(session, 'parent_session_id', textOf, field)
    maybe(session, 'session_final', booleanOf, field)
    maybe(session, 'input_trigger', triggerOf, field)
    maybe(session, 'agent_headers', (headers, name) => Object.entries(objectOf(headers, name)).forEach(([key, list]) => {
      const place = `${name}.${key.slice(0, 60)}`
      listOf(list, place).forEach((item) => passingTextOf(item, place))
    }), field)
    return required(session, 'session_id', textOf, field)
  })
  return context ?? plain
}

/** Errors: `BodyError` for values out of range. */
export function readOverride(body: JsonObject): RouterConfigOverride | null {
  const name = 'router_config_override'
  const fields = maybe(body, name, objectOf)
  if (fields === null) return null
  const override: RouterConfigOverride = {
    ...entry('overlapScoreCredit', maybe(fields, 'overlap_score_credit', numberOf, name)),
    ...entry('prefillLoadScale', maybe(fields, 'prefill_load_scale', numberOf, name)),
    ...entry('overlapScoreWeight', maybe(fields, 'overlap_score_weight', numberOf, name)),
    ...entry('routerTemperature', maybe(fields, 'router_temperature', numberOf, name)),
    ...entry('assumeKvReuse', maybe(fields, 'assume_kv_reuse', booleanOf, name)),
    ...entry('trackPrefillTokens', maybe(fields, 'track_prefill_tokens', booleanOf, name)),
    ...entry('sharedCacheMultiplier', maybe(fields, 'shared_cache_multiplier', numberOf, name)),
  }
  const problem = overrideError(override)
  if (problem !== null) throw new BodyError(422, problem)
  return override
}

const entry = <Name extends string, Value>(name: Name, value: Value | null): { readonly [Key in Name]?: Value } =>
  (value === null ? {} : { [name]: value }) as { readonly [Key in Name]?: Value }

export interface ReservationBody {
  readonly key: PartitionKey
  readonly selectionId: string
  /** Null: the selection that was made under the id is booked. */
  readonly workerId: bigint | null
  readonly dpRank: number | null
  readonly fields: PromptFields
  readonly override: RouterConfigOverride | null
  readonly effective: number | null
  readonly tracks: boolean | null
  readonly expectedOutputTokens: number | null
}

/** Errors: `BodyError`, also for fields that a booking by id does not use. */
export const readReservation = (body: JsonObject): ReservationBody => ({
  key: readKey(body), selectionId: required(body, 'selection_id', textOf), workerId: maybe(body, 'worker_id', u64Of), dpRank: maybe(body, 'dp_rank', u32Of),
  fields: readPrompt(body), override: readOverride(body), effective: maybe(body, 'effective_prefill_tokens', countOf),
  tracks: maybe(body, 'track_prefill_tokens', booleanOf), expectedOutputTokens: maybe(body, 'expected_output_tokens', u32Of),
})
