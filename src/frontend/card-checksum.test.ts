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

test('the checksum that Dynamo 1.6.1 put into a request for such a card', () => {
  const file = (kind: string, path: string, hash: string) => ({ [kind]: { path: `/srv/models/tiny/${path}`, checksum: `blake3:${hash}`, size: 1 } })
  const card = cardOf({
    id: 1, model: 'tiny', role: 'decode', needs: [['prefill'], ['decode']],
    extra: {
      source_path: '/srv/models/tiny', architectural_max_context_length: 32768, context_length: 32768,
      model_info: file('hf_config_json', 'config.json', '0d0f3ac20a77a910fd58b270459a945bc5c04737bcc9f663e89e417e4b15b76a'),
      tokenizer: file('hf_tokenizer_json', 'tokenizer.json', '83d7710093b0daca6a41d844b00b0dc75097d9fb787eccca39719e3222871191'),
      prompt_formatter: file('hf_tokenizer_config_json', 'tokenizer_config.json', '3d4ac60c7918f1dc4f031e0ff51b411dd16879b3f7a773cdd565e927779c6c58'),
      gen_config: file('hf_generation_config_json', 'generation_config.json', '65b27739c58274d318266ada8df2d123543dde026a32ec835ed355e46a3237b9'),
    },
  })
  assert.equal(cardChecksum(card), '64dc473640c371aed1e5f5b87fe7408b95f3c07a205a43e5088d5e482d2308dc')
})
