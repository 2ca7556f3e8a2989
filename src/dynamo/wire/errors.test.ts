/** Goal: error identities survive, and errors that nobody knows degrade as Dynamo's do. Method: every reason both ways, older forms, broken forms. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { FailureError, failureReasons, type Failure, type FailureClass, type FailureReason } from '../../model/failure.ts'
import { diagnosticBytesMax, failureFromWire, failureOfException, failureToWire } from './errors.ts'

const all = (Object.entries(failureReasons) as [FailureClass, readonly FailureReason[]][]).flatMap(([name, reasons]) => reasons.map((reason) => [name, reason] as const))
const details: readonly Failure['publicDetail'][] = [
  undefined, { type: 'message', message: 'shown' }, { type: 'size_limit', limit: 5, actual: 9 }, { type: 'context_length', limit: 5, actual: null },
  { type: 'rate_limit', limit: null, remaining: 3 },
]

test('every class, reason and public detail comes back', () => {
  for (const [name, reason] of all) {
    for (const publicDetail of details) {
      const failure: Failure = { class: name, reason, message: 'm', ...(publicDetail === undefined ? {} : { publicDetail }), causedBy: { class: 'Cancelled', reason: 'request.cancelled', message: 'c' } }
      const wire = failureToWire(failure)
      const { legacyType, ...read } = failureFromWire(wire)
      assert.deepEqual(read, { ...failure, causedBy: { ...failure.causedBy, legacyType: 'Cancelled' } })
      assert.deepEqual(legacyType, wire.error_type)
      assert.deepEqual(failureToWire(failureFromWire(wire)), wire)
    }
  }
})

test('older readers get the legacy type of each class', () => {
  const legacy = Object.fromEntries(all.map(([name, reason]) => [reason, failureToWire({ class: name, reason, message: '' }).error_type]))
  assert.deepEqual(
    [legacy['runtime.internal'], legacy['request.payload_too_large'], legacy['request.deadline_exceeded'], legacy['capacity.worker_overloaded'], legacy['request.rate_limited']],
    ['Unknown', 'InvalidArgument', 'ResponseTimeout', 'ResourceExhausted', 'ResourceExhausted'],
  )
  assert.deepEqual(
    [legacy['transport.disconnected'], legacy['backend.disconnected'], legacy['backend.worker_unavailable'], legacy['backend.unavailable'], legacy['transport.connection_timeout']],
    ['Disconnected', { Backend: 'Disconnected' }, 'WorkerUnavailable', 'Unavailable', 'ConnectionTimeout'],
  )
})

test('older forms with a type or a class only are understood', () => {
  const identity = (value: unknown): readonly string[] => {
    const { class: name, reason, message } = failureFromWire(value)
    return [name, reason, message]
  }
  assert.deepEqual(identity({ error_type: { Backend: 'InvalidArgument' }, message: 'TypeError: t' }), ['InvalidRequest', 'backend.invalid_argument', 'TypeError: t'])
  assert.deepEqual(identity({ error_type: 'Disconnected', message: 'm' }), ['Unavailable', 'transport.disconnected', 'm'])
  assert.deepEqual(identity({ error_type: 'ResourceExhausted', message: 'm' }), ['CapacityExhausted', 'capacity.pool_exhausted', 'm'])
  assert.deepEqual(identity({ error_type: 'SomethingNew', message: 'm' }), ['Internal', 'runtime.unclassified', 'm'])
  assert.deepEqual(identity({ class: 'DeadlineExceeded', diagnostic: 'd', message: 'm' }), ['DeadlineExceeded', 'request.deadline_exceeded', 'd'])
  assert.deepEqual(identity({ class: 'Unavailable', error_type: 'Disconnected' }), ['Unavailable', 'transport.disconnected', ''])
  assert.deepEqual(identity({}), ['Internal', 'runtime.unclassified', ''])
})

test('identities that do not belong together degrade and lose their public detail', () => {
  const broken = { message: 'm', public: { type: 'message', message: 'p' }, caused_by: { class: 'Cancelled', message: 'c' } }
  for (const identity of [{ class: 'NotFound', reason: 'request.conflict' }, { class: 'NotFound', reason: 'no.such' }, { class: 'NoSuch', reason: 'request.conflict' }, { class: 'Cancelled', reason: 5 }]) {
    assert.deepEqual(failureFromWire({ ...broken, ...identity }), { class: 'Internal', reason: 'runtime.invalid_error', message: 'm', causedBy: { class: 'Cancelled', reason: 'request.cancelled', message: 'c' } })
  }
  assert.equal(failureFromWire('text').message, 'text')
})

test('nothing that JSON can say makes reading fail, and what is read can be written', () => {
  const name = fc.constantFrom('class', 'reason', 'error_type', 'message', 'diagnostic', 'public', 'caused_by', 'Backend', 'type', 'limit')
  const value = fc.letrec((tie) => ({ value: fc.oneof({ maxDepth: 4 }, fc.jsonValue(), fc.constantFrom('Unavailable', 'backend.unknown', 'message', 'Unknown'), fc.dictionary(name, tie('value'), { maxKeys: 6 })) })).value
  fc.assert(fc.property(value, (error) => {
    const failure = failureFromWire(error)
    assert.ok((failureReasons[failure.class] as readonly string[]).includes(failure.reason))
    assert.deepEqual(failureFromWire(failureToWire(failure)).reason, failure.reason)
  }), { numRuns: 1000 })
})

test('long messages are cut between characters, endless causes too', () => {
  for (const unit of ['a', 'é', '語', '😀']) {
    const text = failureToWire({ class: 'Internal', reason: 'runtime.internal', message: `x${unit.repeat(5000)}` }).message as string
    assert.ok(Buffer.byteLength(text) <= diagnosticBytesMax && Buffer.byteLength(text) > diagnosticBytesMax - 300, `${Buffer.byteLength(text)} bytes`)
    assert.ok(text.endsWith('...[truncated]') && !text.includes('\ufffd') && Buffer.from(text).toString() === text)
  }
  let failure: Failure = { class: 'Internal', reason: 'runtime.internal', message: 'root' }
  for (let depth = 0; depth < 100; depth += 1) failure = { ...failure, causedBy: failure }
  assert.ok(JSON.stringify(failureToWire(failure)).length < 5000)
})

test('exceptions of handlers become failures by their name', () => {
  const reasonOf = (error: unknown): string => failureOfException(error).reason
  assert.deepEqual(failureOfException(new RangeError('r')), { class: 'InvalidRequest', reason: 'backend.invalid_argument', message: 'RangeError: r' })
  assert.equal(reasonOf(new Error('e')), 'backend.unknown')
  assert.equal(reasonOf(new DOMException('t', 'TimeoutError')), 'backend.connection_timeout')
  assert.equal(reasonOf(Object.assign(new Error('c'), { code: 'ECONNRESET' })), 'backend.disconnected')
  assert.equal(reasonOf('text'), 'backend.unknown')
  const failure = { class: 'NotFound', reason: 'request.not_found', message: 'm' } as const
  assert.equal(failureOfException(new FailureError(failure)), failure)
})
