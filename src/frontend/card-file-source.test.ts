/** A card's files: read from disk or fetched, checked, and refused with words that help. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { blake3 } from '@noble/hashes/blake3.js'
import { bytesToHex } from '@noble/hashes/utils.js'
import type { ModelFileSource } from '../text/model-files.ts'
import { cardOf } from '../../test/model-cards.ts'
import { cardFileSource } from './card-file-source.ts'

const folder = await mkdtemp(join(tmpdir(), 'warmpath-files-'))
const text = '{"a":1}'
const checksum = `blake3:${bytesToHex(blake3(new TextEncoder().encode(text)))}`
const server = createServer((request, response) => {
  if (request.url === '/missing') response.writeHead(404).end()
  else if (request.url !== '/silent') response.end(text)
})
server.listen(0, '127.0.0.1')
await once(server, 'listening')
const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
after(async () => {
  server.closeAllConnections()
  server.close()
  await rm(folder, { recursive: true, force: true })
})

const sourceOf = (path: string, more: { kind?: string; checksum?: string; section?: string } = {}): ModelFileSource => cardFileSource(
  cardOf({ id: 1, extra: { [more.section ?? 'tokenizer']: { [more.kind ?? 'hf_tokenizer_json']: { path, checksum: more.checksum ?? checksum, size: text.length } } } }),
  { signal: new AbortController().signal, fetchDeadlineMs: 3_000 },
)
const read = async (source: ModelFileSource, name = 'tokenizer.json'): Promise<string | null> => {
  const bytes = await source.readFile(name)
  return bytes === null ? null : new TextDecoder().decode(bytes)
}

test('a path and a URL give the same file; what is not named lies beside the tokenizer', async () => {
  const path = join(folder, 'tokenizer.json')
  await writeFile(path, text)
  await writeFile(join(folder, 'special_tokens_map.json'), '{}')
  assert.equal(await read(sourceOf(path)), text)
  assert.equal(await read(sourceOf(`${origin}/tokenizer.json`)), text)
  assert.equal(await read(sourceOf(path), 'special_tokens_map.json'), '{}')
  assert.equal(await read(sourceOf(path), 'chat_template.jinja'), null)
  assert.equal(await read(sourceOf(`${origin}/tokenizer.json`), 'special_tokens_map.json'), null)
})

test('a template may come inside a JSON file', async () => {
  const path = join(folder, 'chat_template.json')
  await writeFile(path, '{"chat_template":"{{ x }}"}')
  assert.equal(await read(sourceOf(path, { section: 'chat_template_file', kind: 'hf_chat_template_json', checksum: '' }), 'chat_template.jinja'), '{{ x }}')
})

test('what cannot be used is refused with path and mend', async () => {
  const other = join(folder, 'other.json')
  await writeFile(other, '{}')
  await assert.rejects(read(sourceOf(other)), /other\.json is not the file that the worker has/)
  await assert.rejects(read(sourceOf(join(folder, 'none.json'))), /cannot be read here \(ENOENT\); mount the model .* or set DYN_SYSTEM_PORT/)
  await assert.rejects(read(sourceOf(`${origin}/missing`)), /could not be fetched: answered with status 404/)
  await assert.rejects(read(sourceOf(`${origin}/silent`)), /no answer within 3 s/)
  await assert.rejects(read(sourceOf(other, { kind: 'tik_token_model', checksum: '' })), /of the kind tik_token_model, which is not available/)
})
