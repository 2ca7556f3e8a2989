/** Goal: no byte stream harms a frame parser, and what is written is read back. Method: random frames in random cuts, garbage, promised lengths. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { decodeRequestFrame, decodeTwoPart, encodeRequestHead, encodeTwoPart, encodeTwoPartPrefix, RequestFrameAssembler, twoPartPrefixBytes, TwoPartAssembler } from './frames.ts'
import { WireError } from './wire-error.ts'

const bytes = (maxLength: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ maxLength })

/** Cuts a stream at these fractions of its length. */
function cutAt(stream: Uint8Array, fractions: readonly number[]): Uint8Array[] {
  const cuts = [0, ...fractions.map((fraction) => Math.floor(fraction * stream.length)).sort((a, b) => a - b), stream.length]
  return cuts.slice(1).map((end, index) => stream.subarray(cuts[index], end))
}

const fractions = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 12 })

test('requests of any content are read back in any cut', () => {
  const request = fc.record({ path: fc.string({ unit: 'grapheme', maxLength: 30 }), headers: fc.dictionary(fc.string({ maxLength: 8 }), fc.string({ unit: 'grapheme', maxLength: 8 }), { maxKeys: 4, noNullPrototype: true }), payload: bytes(200) }, { noNullPrototype: true })
  fc.assert(fc.property(fc.array(request, { maxLength: 5 }), fractions, (requests, cuts) => {
    const stream = Buffer.concat(requests.flatMap(({ path, headers, payload }) => [encodeRequestHead(path, headers, payload.length), payload]))
    const assembler = new RequestFrameAssembler()
    const read: unknown[] = []
    for (const chunk of cutAt(stream, cuts)) {
      assembler.push(chunk, (bytes) => {
        const frame = decodeRequestFrame(bytes)
        read.push({ ...frame, payload: Uint8Array.from(frame.payload) })
      })
    }
    assert.equal(assembler.pendingBytes, 0)
    assert.deepEqual(read, requests)
  }), { numRuns: 300 })
})

test('two-part messages of any content are read back in any cut', () => {
  fc.assert(fc.property(fc.array(fc.tuple(bytes(60), bytes(300)), { maxLength: 6 }), fractions, (messages, cuts) => {
    const stream = Buffer.concat(messages.map(([header, body]) => encodeTwoPart(header, body)))
    const assembler = new TwoPartAssembler(1000)
    const read: (readonly Uint8Array[])[] = []
    for (const chunk of cutAt(stream, cuts)) {
      assembler.push(chunk, (message) => {
        const { header, body } = decodeTwoPart(message)
        assert.equal(message.length, twoPartPrefixBytes + header.length + body.length)
        read.push([Uint8Array.from(header), Uint8Array.from(body)])
      })
    }
    assert.deepEqual(read, messages)
  }), { numRuns: 300 })
})

test('garbage ends in a WireError or waits for more', () => {
  fc.assert(fc.property(fc.array(bytes(80), { maxLength: 10 }), (chunks) => {
    for (const assembler of [new RequestFrameAssembler(1 << 16), new TwoPartAssembler(1 << 16)]) {
      try {
        for (const chunk of chunks) assembler.push(chunk, assembler instanceof RequestFrameAssembler ? decodeRequestFrame : decodeTwoPart)
      } catch (error) {
        assert.ok(error instanceof WireError, String(error))
      }
    }
    for (const chunk of chunks) {
      for (const decode of [decodeRequestFrame, decodeTwoPart]) {
        try {
          decode(chunk)
        } catch (error) {
          assert.ok(error instanceof WireError, String(error))
        }
      }
    }
  }), { numRuns: 1000 })
})

test('a promised length takes no memory before its bytes come, and too large a one is refused at once', () => {
  const before = process.memoryUsage().arrayBuffers
  const assemblers = Array.from({ length: 50 }, () => new TwoPartAssembler(1 << 28))
  for (const assembler of assemblers) assembler.push(encodeTwoPartPrefix(0, (1 << 28) - 24), () => assert.fail('no frame has come'))
  assert.ok(process.memoryUsage().arrayBuffers - before < 10_000_000)
  assert.equal(assemblers[0]?.pendingBytes, twoPartPrefixBytes)
  assert.throws(() => new TwoPartAssembler(1000).push(encodeTwoPartPrefix(0, 977), () => undefined), { name: 'WireError', kind: 'oversized' })
  assert.throws(() => new TwoPartAssembler(1000).push(encodeTwoPartPrefix(2 ** 53, 1), () => undefined), { kind: 'oversized' })
  assert.throws(() => new TwoPartAssembler(1000).push(new Uint8Array(24).fill(0xff), () => undefined), { kind: 'oversized' })
  assert.throws(() => new RequestFrameAssembler(1000).push(encodeRequestHead('p', {}, 1000), () => undefined), { kind: 'oversized' })
  assert.throws(() => new RequestFrameAssembler(1000).push(Uint8Array.of(0, 1, 65, 0xff, 0xff), () => undefined), { kind: 'oversized' })
})

test('a large message that comes in small pieces costs time in proportion', () => {
  const message = encodeTwoPart('', new Uint8Array(4_000_000))
  const assembler = new TwoPartAssembler(1 << 23)
  let frames = 0
  for (let at = 0; at < message.length; at += 100) assembler.push(message.subarray(at, at + 100), () => { frames += 1 })
  assert.equal(frames, 1)
  assert.equal(assembler.pendingBytes, 0)
})

test('what does not fit a request head is refused', () => {
  assert.throws(() => encodeRequestHead('p'.repeat(65_536), {}, 0), /endpoint path of 65536 bytes/)
  assert.throws(() => encodeRequestHead('p', { k: 'é'.repeat(33_000) }, 0), /headers of 66008 bytes/)
})
