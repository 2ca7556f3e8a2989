import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Failure } from '../model/failure.ts'
import type { Random } from '../ports.ts'
import { afterPrefillFailure, parsePrefillErrorPolicy } from './fall-back.ts'
import { HandOver, bootstrapRoom, type PrefillOutput } from './hand-over.ts'
import { canContinue, isMigratable } from './migration.ts'
import { canReachDecode, topologyTaint, transferConstraint } from './topology.ts'

const randomOf = (low: number, high: number): Random => ({ float: () => 0.5, u64: () => [low, high] })
const output = (params: PrefillOutput<string>['params'], more: Partial<PrefillOutput<string>> = {}): PrefillOutput<string> =>
  ({ params, encodedParams: params === undefined || params === null ? null : JSON.stringify(params, (_key, item: unknown) => (typeof item === 'bigint' ? String(item) : item)), finishReason: undefined, promptTokensDetails: null, ...more })
const plain = (): HandOver<string> => new HandOver({ bootstrap: null, dpRank: 0, dpSize: 1, random: randomOf(1, 2) })

test('pull engines: the params of the first output that has some, when the stream has ended', () => {
  const handOver = plain()
  assert.equal(handOver.begin().kind, 'wait')
  assert.equal(handOver.output(output({ kv_transfer_params: { a: 1 } }, { promptTokensDetails: { cached_tokens: 16 } })).kind, 'wait')
  assert.equal(handOver.output(output(null)).kind, 'wait')
  assert.equal(handOver.handedOver, false)
  assert.deepEqual(handOver.end(), {
    kind: 'decode', prefillGoesOn: false, payload: { kind: 'params', params: '{"kv_transfer_params":{"a":1}}', promptTokensDetails: { cached_tokens: 16 } },
  })
  assert.equal(handOver.handedOver, true)
  const anyJson = plain()
  anyJson.output(output('dummy'))
  assert.equal(anyJson.end().kind, 'decode')
})

test('what cannot be handed over is a failure that says why', () => {
  assert.match(failureOf(plain().end()), /without an output/)
  const without = plain()
  without.output(output(undefined))
  assert.match(failureOf(without.end()), /disaggregated_params/)
  const context = plain()
  context.output(output({ request_type: 'context_only', ctx_request_id: null }, { finishReason: 'length' }))
  assert.match(failureOf(context.end()), /ctx_request_id/)
  assert.match(failureOf(plain().output(output(undefined, { finishReason: { error: 'boom' } }))), /boom/)
})

const failureOf = (step: { readonly kind: string; readonly failure?: Failure }): string => {
  assert.equal(step.kind, 'failed')
  return step.failure?.message ?? ''
}

test('a prefill that is already the answer is terminal', () => {
  for (const finishReason of ['eos', 'stop', 'content_filter', 'cancelled']) {
    assert.equal(plain().output(output({ ctx_request_id: 1 }, { finishReason })).kind, 'terminal')
  }
  assert.equal(plain().output(output({ ctx_request_id: 1 }, { finishReason: 'length' })).kind, 'wait')
})

test('an advertised bootstrap server: both legs at once, one room', () => {
  const handOver = new HandOver<string>({ bootstrap: { host: 'h', port: 8998 }, dpRank: 3, dpSize: 4, random: randomOf(5, 6) })
  const step = handOver.begin()
  assert.ok(step.kind === 'decode' && step.prefillGoesOn && step.payload.kind === 'bootstrap')
  assert.equal(step.payload.info, handOver.bootstrapInfo)
  assert.equal(BigInt(step.payload.info['bootstrap_room'] as bigint) % 4n, 3n)
  assert.equal((step.payload.info['handoff_id'] as Uint8Array).length, 16)
  assert.equal(handOver.output(output({ bootstrap_room: 1 })).kind, 'wait')
  assert.equal(handOver.end().kind, 'wait')
  assert.equal(handOver.output(output(undefined, { finishReason: { error: 'late' } })).kind, 'failed')
})

test("without one, the prefill's first output names the room", () => {
  const handOver = plain()
  const step = handOver.output(output({ bootstrap_host: 'h', bootstrap_port: 1, bootstrap_room: 2n ** 62n }))
  assert.ok(step.kind === 'decode' && step.prefillGoesOn && step.payload.kind === 'bootstrap')
  assert.equal(step.payload.info['bootstrap_room'], 2n ** 62n)
})

test('rooms are below 2^63 and tell the rank', () => {
  fc.assert(fc.property(fc.integer({ min: 0, max: 0xffffffff }), fc.integer({ min: 0, max: 0xffffffff }), fc.integer({ min: 1, max: 64 }), fc.nat(63), (low, high, size, rank) => {
    const room = bootstrapRoom(randomOf(low, high), rank % size, size)
    assert.ok(room >= 0n && room < 2n ** 63n)
    if (size > 1) assert.equal(room % BigInt(size), BigInt(rank % size))
  }))
})

test('after a prefill failure', () => {
  const policy = parsePrefillErrorPolicy('retry,decode-only')
  assert.ok(policy !== null)
  const lost: Failure = { class: 'Unavailable', reason: 'transport.disconnected', message: '' }
  const facts = { policy, failure: lost, handedOver: false, retriesLeft: 1, decodeOnlyPossible: true, pinned: false }
  assert.equal(afterPrefillFailure(facts), 'retry')
  assert.equal(afterPrefillFailure({ ...facts, retriesLeft: 0 }), 'decode-only')
  assert.equal(afterPrefillFailure({ ...facts, pinned: true }), 'decode-only')
  assert.equal(afterPrefillFailure({ ...facts, retriesLeft: 0, decodeOnlyPossible: false }), 'fail')
  assert.equal(afterPrefillFailure({ ...facts, handedOver: true }), 'retry')
  assert.equal(afterPrefillFailure({ ...facts, handedOver: true, retriesLeft: 0 }), 'fail')
  assert.equal(afterPrefillFailure({ ...facts, failure: { class: 'InvalidRequest', reason: 'request.invalid', message: '' } }), 'fail')
  assert.equal(afterPrefillFailure({ ...facts, failure: { class: 'Internal', reason: 'backend.unknown', message: '' } }), 'retry')
  assert.deepEqual(parsePrefillErrorPolicy('fail'), { retry: false, decodeOnly: false })
  for (const wrong of ['', 'fail,retry', 'retry,retry', 'x']) assert.equal(parsePrefillErrorPolicy(wrong), null)
})

test('topology: required, preferred, and rules that cannot be applied', () => {
  const domains = new Map([['zone', 'za']])
  assert.deepEqual(transferConstraint({ rule: { domain: 'zone', enforcement: 'required', preferredWeight: null }, domains }), { kind: 'required', taint: 'dynamo.topology/zone=za' })
  assert.deepEqual(transferConstraint({ rule: { domain: 'zone', enforcement: 'preferred', preferredWeight: 0.5 }, domains }), { kind: 'preferred', taint: 'dynamo.topology/zone=za', weight: 0.5 })
  assert.equal(transferConstraint({ rule: { domain: 'rack', enforcement: 'required', preferredWeight: null }, domains }).kind, 'unusable')
  assert.equal(transferConstraint({ rule: { domain: 'zone', enforcement: null, preferredWeight: null }, domains }).kind, 'unusable')
  const required = { rule: { domain: 'zone', enforcement: 'required' as const, preferredWeight: null }, domains }
  assert.equal(canReachDecode(required, [new Set(['x'])]), false)
  assert.equal(canReachDecode(required, [new Set(['x']), new Set([topologyTaint('zone', 'za')])]), true)
  assert.equal(canReachDecode({ rule: null, domains }, []), true)
})

test('migration is for lost workers, and for requests that can be continued', () => {
  assert.equal(isMigratable({ class: 'Unavailable', reason: 'backend.disconnected', message: '' }), true)
  assert.equal(isMigratable({ class: 'Internal', reason: 'backend.unknown', message: '' }), false)
  assert.equal(isMigratable({ class: 'Unavailable', reason: 'backend.disconnected', message: '', causedBy: { class: 'Cancelled', reason: 'request.cancelled', message: '' } }), false)
  assert.equal(canContinue(undefined), true)
  assert.equal(canContinue({ n: 2 }), false)
  assert.equal(canContinue({ n: 1, guided_decoding: { json: {} } }), false)
})
