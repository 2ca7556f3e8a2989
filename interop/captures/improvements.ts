/** Where ours differs from the recording on purpose, capture by capture; the reasons stand in docs/compatibility.md, too. Numbers are those of the calls. */
import type { Improvement } from './compare.ts'
import type { PlayOptions } from './player.ts'

export const playOptions: Readonly<Record<string, PlayOptions>> = {
  http_card_mismatch: { usable: { w1: 1 } },
}

/** Captures of decoded text. */
export const textCaptures = new Set(['http_streaming', 'http_stop_strings', 'http_tool_parser'])

const calls = (first: number, last: number): number[] => Array.from({ length: last - first + 1 }, (_, index) => first + index)

type Answered = { readonly answer?: { readonly status?: number; readonly body?: { readonly error?: unknown }; readonly events?: readonly unknown[] }; readonly legs?: readonly { readonly worker: string; readonly ended: string }[] } | undefined

/** An error there, an answer here: whole, and from the pool that answers. */
const answered = (call: number, why: string, more: Partial<Improvement> = {}): Improvement => ({
  at: `${call}`, why, ...more, check: (ours) => {
    const { answer, legs } = (ours as Answered) ?? {}
    const isWhole = legs?.some(({ worker, ended }) => worker === '<decode 1>' && ended === 'done') === true
    return answer?.status === 200 && answer.body?.error === undefined && !JSON.stringify(answer.events ?? []).includes('"error"') && isWhole
  },
})

const status = (call: number, value: number, why: string): Improvement[] => [
  { at: `${call}.answer.status`, why, check: (ours) => ours === value },
  { at: `${call}.answer.body`, why },
]

const fallBack = 'decode workers compute the prompt when prefill fails'

const cutByTokens = (...numbers: readonly number[]): Improvement[] =>
  numbers.map((call) => ({ at: `${call}.answer`, why: 'cut by a number of tokens, and the tokenizer is another one; test/openai-recorded.test.ts compares these token by token', byChance: true }))

const decodeByLoad: Improvement[] = calls(0, 3).map((call) => ({
  at: `${call}.answer.body.usage.prompt_tokens_details.cached_tokens`, why: 'the decode stage goes by load alone: which worker says how much it had cached is chance', byChance: true,
}))

export const improvements: Readonly<Record<string, readonly Improvement[]>> = {
  disagg_trtllm_null_ctx: [answered(0, fallBack)],
  disagg_sglang_prefill_fails_after_handoff: [{
    at: '0.answer.events', why: 'how many tokens come before the failure is a race', byChance: true,
    check: (ours) => JSON.stringify((ours as readonly unknown[]).slice(-2)) === JSON.stringify([{ data: { error: { message: '<message>', type: 'internal_server_error', code: 500 } } }, { data: '[DONE]' }]),
  }],
  disagg_prefill_raises: [answered(0, fallBack), answered(1, fallBack)],
  disagg_prefill_no_params: [answered(0, fallBack)],
  disagg_prefill_empty: [answered(0, fallBack)],
  disagg_prefill_killed_then_request: [
    ...calls(1, 6).map((call) => answered(call, fallBack)),
    { at: '7.answer.body.data', why: 'a model that was ready once stays' }, { at: '8.answer', why: 'health counts what is served' },
  ],
  disagg_prefill_graceful_exit: [answered(1, fallBack), { at: '2.answer.body.data', why: 'a model that was ready once stays' }],
  disagg_decode_only_with_needs: status(1, 503, '/health is truthful'),
  disagg_prefill_only: [...status(1, 503, '/health is truthful'), { at: '2.answer.body', why: 'every error says what to do' }],
  disagg_enforce_flag: [{ at: '0.answer.body.data.0.owned_by', why: 'the server names itself', check: (ours) => ours === 'warmpath' }],
  disagg_query_instance_id: [0, 1].map((call): Improvement => ({ at: `${call}.answer`, why: 'both stages are named' })),
  disagg_pinned_workers: [answered(3, 'a worker named without its stage is sought in both pools')],
  disagg_agent_hints: [...[0, 6, 8, 9].map((call) => answered(call, 'unknown members of nvext are passed over, with a warning')), ...status(7, 503, 'no worker with the taint: nobody is there now')],
  disagg_topology_required: [answered(6, 'a prefill worker whose domain no decode worker shares is passed over')],
  disagg_prefill_dies_before_output_no_migration: calls(0, 3).map((call) => answered(call, 'another prefill worker is asked', { byChance: true })),
  http_endpoints: [
    ...['0.answer.body.data.0', '1.answer.body'].map((at) => ({ at: `${at}.owned_by`, why: 'the server names itself', check: (ours: unknown) => ours === 'warmpath' })),
    ...[8, 9, 10, 27].map((call) => ({ at: `${call}.answer.body`, why: 'every error says what to do' })),
    ...[5, 6, 21, 22, 23].map((call) => ({ at: `${call}.answer`, why: 'routes of the rest of the API, which has tests of its own', byChance: true })),
  ],
  http_chat_validation: [{ at: '59', why: 'unknown members of nvext are passed over, with a warning', check: (ours) => (ours as { readonly answer: { readonly status: number } }).answer.status === 200 }, { at: '80', why: "the recording's tokenizer makes more tokens of this prompt than the context holds, ours fewer", byChance: true }],
  http_worker_failures: [
    ...[0, 4].map((call) => ({ at: `${call}.answer.body.details`, why: 'the status says it', check: (ours: unknown) => ours === undefined })),
    ...[1, 3, 5].map((call): Improvement => ({ at: `${call}.answer`, why: 'the status of a stream is that of its first output', check: (ours) => (ours as { readonly status: number }).status === (call === 3 ? 400 : 500) })),
    ...[6, 7].map((call): Improvement => ({ at: `${call}.answer`, why: 'an empty answer is a fault of the worker', check: (ours) => (ours as { readonly status: number }).status === 502 })),
  ],
  http_streaming: cutByTokens(4, 5, 6, 7),
  http_stop_strings: cutByTokens(7),
  mocker_disagg: decodeByLoad,
  disagg_two_decode_components_ambiguous: [
    { at: '1.answer.body.data', why: 'components whose cards agree are one pool' }, answered(2, 'components whose cards agree are one pool'),
  ],
}
