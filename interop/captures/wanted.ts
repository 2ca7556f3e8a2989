/** What a call must have had where ours serves what the original refuses: put together from other recorded calls, so that every field is compared. */
import { readCaptures, type CallStep, type Leg, type Outcome } from './capture.ts'

const captures = readCaptures()

/** The recorded outcome of a call of a capture. */
export function recordedOutcome(capture: string, call: number): Outcome {
  const { recorded } = (captures.get(capture) ?? []).filter((step): step is CallStep => step.op === 'call')[call] ?? {}
  if (recorded === undefined) throw new Error(`call ${call} of ${capture} was not recorded`)
  return recorded
}

/** The legs of the call, then a decode worker that computes the prompt itself, as before the first prefill worker has come. */
export function decodeOnly(before: readonly Leg[], reference: Outcome): Outcome {
  return { answer: reference.answer, legs: [...before, ...(reference.legs ?? [])] }
}

export const twoTokensDecodeOnly = recordedOutcome('disagg_decode_only_then_prefill_joins', 0)
export const fourTokensDecodeOnly = recordedOutcome('disagg_enforce_flag', 1)
/** Its answer is that of a prefill elsewhere, whose tokens are the same, without the usage that was asked for there. */
export const streamedDecodeOnly: Outcome = { answer: withoutUsage(recordedOutcome('disagg_vllm_kv', 1).answer), legs: fourTokensDecodeOnly.legs ?? [] }

function withoutUsage(answer: unknown): unknown {
  const { events, ...rest } = answer as { readonly events: readonly { readonly data: { readonly choices?: readonly unknown[] } }[] }
  return { ...rest, events: events.filter(({ data: { choices } }) => choices?.length !== 0) }
}

export const twoTokensBothStages = recordedOutcome('disagg_prefill_killed_then_request', 0)

/** Of a request that named itself: without the name in the answer. */
export function unnamed({ answer, legs }: Outcome): Outcome {
  const { headers: _headers, ...rest } = answer as { readonly headers?: unknown }
  return { answer: rest, ...(legs === undefined ? {} : { legs }) }
}

/** With `members` of `routing` besides, in place of what is there. */
export const withRouting = (outcome: Outcome, members: Readonly<Record<string, unknown>>, of: Partial<Leg> = {}): Outcome => ({
  ...outcome, legs: (outcome.legs ?? []).map((leg) => {
    const request = leg.request as { readonly routing: Readonly<Record<string, unknown>> }
    return { ...leg, ...of, request: { ...request, routing: { ...request.routing, ...members } } }
  }),
})

/** Another prefill worker after the first one died. */
export function secondPrefill(outcome: Outcome): Outcome {
  const [prefill, decode] = outcome.legs as readonly [Leg, Leg]
  const renamed = (leg: Leg): Leg => JSON.parse(JSON.stringify(leg).replaceAll('<prefill 1>', '<prefill 2>')) as Leg
  return { answer: outcome.answer, legs: [{ ...prefill, ended: 'fail' }, renamed(decode), renamed(prefill)] }
}
