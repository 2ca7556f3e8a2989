/** Where ours differs from the recording on purpose, capture by capture; the reasons stand in docs/compatibility.md, too. Numbers are those of the calls. */
import { isDeepStrictEqual } from 'node:util'
import type { Improvement } from './compare.ts'
import type { PlayOptions } from './player.ts'
import type { Outcome } from './capture.ts'
import { decodeOnly, fourTokensDecodeOnly, recordedOutcome, secondPrefill, streamedDecodeOnly, twoTokensBothStages, twoTokensDecodeOnly, unnamed, withRouting } from './wanted.ts'

export const playOptions: Readonly<Record<string, PlayOptions>> = {
  http_card_mismatch: { usable: { w1: 1 } },
  disagg_prefill_killed_then_request: { goneBefore: 7 },
}

/** Captures of decoded text. */
export const textCaptures = new Set(['http_streaming', 'http_stop_strings', 'http_tool_parser'])

const calls = (first: number, last: number): number[] => Array.from({ length: last - first + 1 }, (_, index) => first + index)

/** An error there, an answer here, which must be one of these in every field. */
const served = (call: number, why: string, ...instead: readonly Outcome[]): Improvement => ({ at: `${call}`, why, instead })

/** Exactly this, at this place. */
const exactly = (at: string, wanted: unknown, why: string): Improvement => ({ at, why, check: (ours) => isDeepStrictEqual(ours, wanted) })

const notReady = [exactly('1.answer.status', 503, '/health is truthful'), exactly('1.answer.body.status', 'not ready', '/health is truthful')]

const listed = (call: number, why: string): Improvement =>
  exactly(`${call}.answer.body.data`, [{ id: 'tiny', object: 'model', created: '<time>', owned_by: 'warmpath', context_window: 32768 }], why)

/** In place of an empty body. */
const told = (call: number, type: string, code: number): Improvement => exactly(`${call}.answer.body`, { message: '<message>', type, code }, 'every error says what to do')

/** The first tokens of a scripted worker, some of them, then an error. */
const cutByError = (ours: unknown): boolean => {
  const events = ours as readonly { readonly data: unknown }[]
  const contents = events.slice(0, -2).map(({ data }) => (data as { readonly choices: readonly { readonly delta: { readonly content: string } }[] }).choices[0]?.delta.content).join('')
  return '!"#$%&\'('.startsWith(contents) && isDeepStrictEqual(events.slice(-2), [{ data: { error: { message: '<message>', type: 'internal_server_error', code: 500 } } }, { data: '[DONE]' }])
}

/** The legs that the call had there, then a decode worker. */
const afterFailure = (capture: string, reference: Outcome): Outcome => decodeOnly(recordedOutcome(capture, 0).legs ?? [], reference)

const openExtension = 'unknown members of nvext are passed over, with a warning'

/** An answer of two tokens with a third. */
const threeTokens = (outcome: Outcome): Outcome => JSON.parse(JSON.stringify(outcome)
  .replace('"content":"!\\""', '"content":"!\\"#"').replace('"completion_tokens":2', '"completion_tokens":3').replace('<prompt> + 2', '<prompt> + 3').replace('"max_tokens":2', '"max_tokens":3')) as Outcome

const dies = recordedOutcome('disagg_prefill_dies_before_output_no_migration', 0)

const fallBack = 'decode workers compute the prompt when prefill fails'

const cutByTokens = (...places: readonly string[]): Improvement[] =>
  places.map((at) => ({ at, why: 'cut by a number of tokens, and the tokenizer is another one; test/openai-recorded.test.ts compares these token by token', byChance: true }))

const decodeByLoad: Improvement[] = calls(0, 3).map((call) => ({
  at: `${call}.answer.body.usage.prompt_tokens_details.cached_tokens`, why: 'the decode stage goes by load alone: which worker says how much it had cached is chance', byChance: true, check: (ours) => ours === undefined || ours === 0 || ours === '<whole blocks>',
}))

export const improvements: Readonly<Record<string, readonly Improvement[]>> = {
  disagg_trtllm_null_ctx: [served(0, fallBack, afterFailure('disagg_trtllm_null_ctx', fourTokensDecodeOnly))],
  disagg_sglang_prefill_fails_after_handoff: [{
    at: '0.answer.events', why: 'how many tokens come before the failure is a race', byChance: true,
    check: cutByError,
  }],
  disagg_prefill_raises: [served(0, fallBack, afterFailure('disagg_prefill_raises', fourTokensDecodeOnly)), served(1, fallBack, afterFailure('disagg_prefill_raises', streamedDecodeOnly))],
  disagg_prefill_no_params: [served(0, fallBack, afterFailure('disagg_prefill_no_params', fourTokensDecodeOnly))],
  disagg_prefill_empty: [served(0, fallBack, afterFailure('disagg_prefill_empty', fourTokensDecodeOnly))],
  disagg_prefill_killed_then_request: [
    ...calls(1, 6).map((call) => served(call, fallBack, twoTokensDecodeOnly)),
    listed(7, 'a model that was ready once stays'),
  ],
  disagg_prefill_graceful_exit: [served(1, fallBack, twoTokensDecodeOnly), listed(2, 'a model that was ready once stays')],
  disagg_decode_only_with_needs: notReady,
  disagg_prefill_only: [...notReady, told(2, 'Not Found', 404)],
  disagg_enforce_flag: [{ at: '0.answer.body.data.0.owned_by', why: 'the server names itself', check: (ours) => ours === 'warmpath' }],
  disagg_query_instance_id: ['0.answer.events.0.data', '1.answer.body'].map((at) => exactly(`${at}.nvext.worker_id.prefill_worker_id`, '<prefill other>', 'both stages are named')),
  disagg_agent_hints: [served(0, openExtension, recordedOutcome('disagg_agent_hints', 1)), ...[6, 8, 9].map((call) => served(call, openExtension, threeTokens(twoTokensBothStages))), ...Object.entries({ status: 503, 'body.type': 'Service Unavailable', 'body.code': 503 }).map(([field, value]) => exactly(`7.answer.${field}`, value, 'no worker with the taint: nobody is there now'))],
  disagg_topology_required: [served(6, 'a prefill worker whose domain no decode worker shares is passed over', withRouting(twoTokensDecodeOnly, { prefill_worker_id: '<prefill other>' }, { zone: 'own' }))],
  disagg_prefill_dies_before_output_no_migration: calls(0, 3).map((call) => ({ ...served(call, 'another prefill worker is asked', dies, secondPrefill(dies)), byChance: true })),
  http_endpoints: [
    ...['0.answer.body.data.0', '1.answer.body'].map((at) => ({ at: `${at}.owned_by`, why: 'the server names itself', check: (ours: unknown) => ours === 'warmpath' })),
    ...[8, 9, 10].map((call) => told(call, 'Method Not Allowed', 405)), told(27, 'Not Found', 404),
    { at: '6.answer.status', why: 'a page to read the API', check: (ours) => ours === 200 }, { at: '6.answer.text', why: 'the page' },
  ],
  http_chat_validation: [served(59, openExtension, unnamed(recordedOutcome('http_chat_validation', 81))), ...['answer.body.usage', 'legs.0.request.token_ids'].map((field) => ({ at: `80.${field}`, why: "the recording's tokenizer makes more tokens of this prompt than the context holds, ours fewer", byChance: true }))],
  http_worker_failures: [
    ...[0, 4].map((call) => ({ at: `${call}.answer.body.details`, why: 'the status says it', check: (ours: unknown) => ours === undefined })),
    ...[1, 3, 5].map((call): Improvement => ({ at: `${call}.answer`, why: 'the status of a stream is that of its first output', check: (ours) => (ours as { readonly status: number }).status === (call === 3 ? 400 : 500) })),
    ...[6, 7].map((call): Improvement => ({ at: `${call}.answer`, why: 'an empty answer is a fault of the worker', check: (ours) => (ours as { readonly status: number }).status === 502 })),
  ],
  http_streaming: cutByTokens('4.answer.body.choices.0.message.content', ...[5, 6, 7].map((call) => `${call}.answer.events.choices.0.1.content`)),
  http_stop_strings: cutByTokens('7.answer.body.choices.0.message.content'),
  mocker_disagg: decodeByLoad,
  disagg_two_decode_components_ambiguous: [
    listed(1, 'components whose cards agree are one pool'), served(2, 'components whose cards agree are one pool', twoTokensBothStages),
  ],
}
