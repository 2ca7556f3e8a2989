import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { fixturePath } from '../../../test/repo-root.ts'
import { hashesToBigints, hashListOf } from '../../model/hash-list.ts'
import type { RouterEvent } from '../../model/kv-event.ts'
import type { Codec } from '../../ports.ts'
import { decodeRecoveryRequest, encodeRecoveryItem, encodeRecoveryRequest, isUnreadable, readRecoveryAnswer } from './recovery-codec.ts'
import type { RecoveryAnswer } from './recovery-codec.ts'

interface Recorded {
  readonly tag: string
  readonly hex: string
  readonly ascii: string
}

const recorded = JSON.parse(readFileSync(fixturePath('wire', 'tcp-worker-kv-query.json'), 'utf8')) as readonly Recorded[]
const workerId = 13428561255892356228n

/** Bodies of recorded response items that carry data: after the 24-byte frame header. */
const items = recorded.filter(({ tag, ascii }) => tag === 'resp<-worker' && ascii.includes('data..'))
  .map(({ hex }) => Uint8Array.from(Buffer.from(hex, 'hex')).subarray(24))

/** Bodies of recorded questions: the trailing map. */
const questions = recorded.filter(({ tag }) => tag === 'req->worker').map(({ hex }) => {
  const start = hex.indexOf('86a9776f726b65725f6964')
  return Uint8Array.from(Buffer.from(hex.slice(start), 'hex'))
})

function read(body: Uint8Array, codec: Codec = 'msgpack'): RecoveryAnswer {
  const reader = readRecoveryAnswer(body, codec)
  for (;;) {
    const step = reader.next()
    if (step.done) return step.value
  }
}

function eventsOf(answer: RecoveryAnswer): RouterEvent[] {
  if (answer.kind !== 'dump' && answer.kind !== 'replay') assert.fail(answer.kind)
  const events: RouterEvent[] = []
  for (let event = answer.events.next(); event !== null; event = answer.events.next()) events.push(event)
  assert.equal(events.length, answer.events.count)
  return events
}

const blocksOf = (event: RouterEvent): bigint[] => (event.data.kind === 'cleared' ? [] : hashesToBigints(event.data.blockHashes))

test('recorded answers of a real worker are read', () => {
  const answers = items.map((body) => read(body))
  assert.deepEqual(answers.map((answer) => answer.kind), ['dump', 'replay', 'replay', 'too_new', 'invalid_range', 'failed'])
  const [dump, replay, , tooNew, , failed] = answers as [RecoveryAnswer, RecoveryAnswer, RecoveryAnswer, RecoveryAnswer, RecoveryAnswer, RecoveryAnswer]
  const dumped = eventsOf(dump)
  assert.deepEqual(dumped.map((event) => [event.workerId, event.dpRank, event.eventId, blocksOf(event).length]), [
    [workerId, 0, 0n, 2], [workerId, 0, 1n, 2], [workerId, 0, 2n, 4],
  ])
  assert.equal(dump.kind === 'dump' && dump.lastEventId, 3n)
  assert.deepEqual(eventsOf(replay).map((event) => event.eventId), [2n, 3n])
  assert.equal(tooNew.kind === 'too_new' && tooNew.newestAvailable, 3n)
  assert.match(failed.kind === 'failed' ? failed.message : '', /worker_id mismatch/)
})

test('questions are written as recorded from an accepted peer', () => {
  assert.deepEqual(encodeRecoveryRequest({ workerId, dpRank: 0, startEventId: null }, 'msgpack'), questions[0])
  assert.deepEqual(encodeRecoveryRequest({ workerId, dpRank: 0, startEventId: 999n }, 'msgpack'), questions[3])
  assert.deepEqual(decodeRecoveryRequest(questions[4] as Uint8Array, 'msgpack'), { workerId, dpRank: 0, startEventId: 3n, endEventId: 2n })
  assert.throws(() => decodeRecoveryRequest(questions[6] as Uint8Array, 'msgpack'), /kind/)
  assert.throws(() => decodeRecoveryRequest(Buffer.from('{"dp_rank":0}'), 'json'), /worker_id is missing/)
})

test('answers are written as the real worker writes them', () => {
  for (const body of items.slice(0, 2)) {
    const answer = read(body)
    if (answer.kind !== 'dump' && answer.kind !== 'replay') assert.fail()
    const content = { events: eventsOf(answer), lastEventId: answer.lastEventId }
    const reply = answer.kind === 'dump' ? { TreeDump: content } : { Events: content }
    assert.deepEqual(Buffer.from(encodeRecoveryItem(reply, 'msgpack')).toString('hex'), Buffer.from(body).toString('hex'))
  }
  const tooNew = { TooNew: { requestedStart: 999n, requestedEnd: 3n, newestAvailable: 3n } }
  assert.deepEqual(Buffer.from(encodeRecoveryItem(tooNew, 'msgpack')), Buffer.from(items[3] as Uint8Array))
  const invalid = { InvalidRange: { startId: 3n, endId: 2n } }
  assert.deepEqual(Buffer.from(encodeRecoveryItem(invalid, 'msgpack')), Buffer.from(items[4] as Uint8Array))
})

test('every answer form survives both codecs', () => {
  const event = (id: bigint): RouterEvent => ({
    workerId, dpRank: 1, storageTier: 'host_pinned', residencyDomain: 'worker', eventId: id,
    data: {
      kind: 'stored', parentHash: 2n ** 64n - 1n, startPosition: null, blockHashes: hashListOf([2n ** 63n + id]), tokensHashes: hashListOf([id]), mmInfos: null,
    },
  })
  const events = Array.from({ length: 100 }, (_, index) => event(BigInt(index)))
  for (const codec of ['msgpack', 'json'] as const) {
    const dump = read(encodeRecoveryItem({ TreeDump: { events, lastEventId: 2n ** 60n } }, codec), codec)
    assert.deepEqual(eventsOf(dump), events)
    assert.equal(dump.kind === 'dump' && dump.lastEventId, 2n ** 60n)
    const replay = read(encodeRecoveryItem({ Events: { events: [], lastEventId: 0n } }, codec), codec)
    assert.deepEqual([replay.kind, eventsOf(replay)], ['replay', []])
    const failed = read(encodeRecoveryItem({ TreeDumpFailed: { lastEventId: 1n, message: 'busy' } }, codec), codec)
    assert.match(failed.kind === 'failed' ? failed.message : '', /busy/)
    assert.deepEqual(read(encodeRecoveryItem({ Error: 'no' }, codec), codec), { kind: 'failed', message: 'no' })
  }
})

test('a dump of another scope, an error item and an empty item are failures', () => {
  const text = (value: unknown): Uint8Array => Buffer.from(JSON.stringify(value))
  assert.equal(read(text({ data: { TreeDump: { events: [], last_event_id: 1, reset_scope: 'worker' } }, complete_final: false }), 'json').kind, 'failed')
  assert.equal(read(text({ data: { TreeDump: { events: [], last_event_id: 1 } }, complete_final: false }), 'json').kind, 'dump')
  assert.equal(read(text({ data: null, complete_final: false }), 'json').kind, 'failed')
  assert.equal(read(text({ error: { message: 'x' }, complete_final: false }), 'json').kind, 'failed')
})

test('an integer beyond 64 bits in a JSON answer is refused as unreadable', () => {
  const body = Buffer.from(`{"data":{"Events":{"events":[{"worker_id":${2n ** 70n}}],"last_event_id":1}},"complete_final":false}`)
  assert.throws(() => eventsOf(read(body, 'json')), isUnreadable)
})

test('damaged answers are refused as unreadable and nothing else is thrown', () => {
  fc.assert(fc.property(fc.constantFrom(...items), fc.nat(), fc.integer({ min: 0, max: 255 }), (item, at, value) => {
    const body = item.map((byte, index) => (index === at % item.length ? value : byte))
    for (const damaged of [body, item.subarray(0, at % item.length)]) {
      try {
        const answer = read(damaged)
        if (answer.kind === 'dump' || answer.kind === 'replay') while (answer.events.next() !== null);
      } catch (error) {
        assert.ok(isUnreadable(error), String(error))
      }
    }
  }))
})
