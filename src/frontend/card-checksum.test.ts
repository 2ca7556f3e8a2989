import assert from 'node:assert/strict'
import { test } from 'node:test'
import { cardChecksum } from './card-checksum.ts'
import { cardOf } from '../../test/model-cards.ts'

test('what Dynamo hashes changes the checksum, what it leaves out does not', () => {
  const base = cardChecksum(cardOf({ id: 1 }))
  assert.match(base ?? '', /^[0-9a-f]{64}$/)
  assert.equal(cardChecksum(cardOf({ id: 2, taints: ['t'], component: 'other', extra: { migration_limit: 3 } })), base)
  const others = [
    cardOf({ id: 1, blockSize: 32 }), cardOf({ id: 1, role: 'decode', needs: [] }), cardOf({ id: 1, needs: [['decode']] }), cardOf({ id: 1, model: 'n' }),
    cardOf({ id: 1, runtime: { context_length: 5 } }), cardOf({ id: 1, extra: { aliases: ['x'] } }), cardOf({ id: 1, extra: { source_path: 'p' } }),
    cardOf({ id: 1, extra: { tokenizer: { hf_tokenizer_json: { path: 'a', checksum: 'blake3:00', size: 1 } } } }),
    cardOf({ id: 1, extra: { extra_files: [{ path: 'a/b.txt', checksum: 'blake3:00', size: 1 }] } }),
  ].map((card) => cardChecksum(card))
  assert.equal(new Set([base, ...others]).size, others.length + 1)
})

test('a card with a router configuration of its own has no checksum here', () => {
  assert.equal(cardChecksum(cardOf({ id: 1, extra: { router_config: {} } })), null)
})
