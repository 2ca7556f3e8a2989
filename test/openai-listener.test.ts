/** Goal: keys, TLS, the document and readiness of the HTTP API. Method: a server on loopback, asked as its clients ask. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { request } from 'node:https'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { ApiKeyFileError, ApiKeys, apiKeyLine, createApiKey, isApiKeyName } from '../src/openai/api-keys.ts'
import { FakeCatalog, FakeModel, saying, startOpenAi } from './openai-kit.ts'

const chat = { model: 'tiny', messages: [{ role: 'user', content: 'x' }] }

test('a file of keys: what fits is read, what does not is refused by its line', () => {
  const keys = new ApiKeys(`# ours\n\n${apiKeyLine('alice', 'secret')}\r\n${apiKeyLine('bob', 'other')}\n`)
  assert.deepEqual([keys.size, keys.nameOf('secret'), keys.nameOf('other'), keys.nameOf('Secret'), keys.nameOf('')], [2, 'alice', 'bob', undefined, undefined])
  assert.equal(keys.nameOf('x'.repeat(10_000)), undefined)
  for (const [text, words] of [['', /no keys/], ['secret\n', /line 1 is not NAME/], [`${apiKeyLine('a', 'x')}\na:sha256:12\n`, /line 2 is not/], [`${apiKeyLine('a', 'x')}\n${apiKeyLine('a', 'y')}`, /line 2: the name "a" stands there twice/]] as const) {
    assert.throws(() => new ApiKeys(text), (error) => error instanceof ApiKeyFileError && words.test(error.message), text)
  }
  const made = createApiKey()
  assert.ok(made.length >= 40 && new ApiKeys(apiKeyLine('n', made)).nameOf(made) === 'n')
  assert.deepEqual([isApiKeyName('a b'), isApiKeyName('a:b'), isApiKeyName('team/a')], [false, false, true])
})

test('whatever keys there are, exactly they are known', () => {
  fc.assert(fc.property(fc.uniqueArray(fc.string({ minLength: 1, maxLength: 40 }), { minLength: 1, maxLength: 8 }), fc.string({ maxLength: 40 }), (known, asked) => {
    const keys = new ApiKeys(known.map((key, index) => apiKeyLine(`k${index}`, key)).join('\n'))
    for (const [index, key] of known.entries()) assert.equal(keys.nameOf(key), `k${index}`)
    assert.equal(keys.nameOf(asked) !== undefined, known.includes(asked))
  }), { numRuns: 100 })
})

test('with keys, requests under /v1 need one in either header; health, metrics and the document do not', async () => {
  let keys = new ApiKeys(apiKeyLine('alice', 'secret'))
  const started = await startOpenAi(new FakeCatalog(new FakeModel(saying('ok'))), {
    apiKeys: () => keys, anthropic: { stripPreamble: true }, metrics: () => Promise.resolve({ contentType: 'text/plain', text: 'm 1\n' }),
  })
  const { post, get } = started
  for (const headers of [{ authorization: 'Bearer secret' }, { authorization: 'bearer secret' }, { 'x-api-key': 'secret' }]) assert.equal((await post('/v1/chat/completions', chat, headers)).status, 200)
  for (const headers of [{}, { authorization: 'Bearer other' }, { authorization: 'Basic secret' }, { 'x-api-key': '' }]) {
    const refused = await post('/v1/chat/completions', chat, headers as Record<string, string>)
    assert.equal(refused.status, 401)
    assert.equal(refused.headers.get('www-authenticate'), 'Bearer')
    const { error } = (await refused.json()) as { error: { type: string; code: string } }
    assert.deepEqual([error.type, error.code], ['authentication_error', 'invalid_api_key'])
  }
  const anthropic = await post('/v1/messages', { model: 'tiny', max_tokens: 3, messages: chat.messages })
  assert.equal(anthropic.status, 401)
  assert.equal(((await anthropic.json()) as { error: { type: string } }).error.type, 'authentication_error')
  for (const path of ['/v1/models', '/v1/models/tiny', '/v1/models/tiny/ready']) assert.equal((await get(path)).status, 401, path)
  for (const path of ['/health', '/live', '/ready', '/metrics', '/docs', '/openapi.json', '/busy_threshold']) assert.equal((await get(path)).status, 200, path)
  assert.equal((await get('/nope')).status, 404)
  keys = new ApiKeys(apiKeyLine('bob', 'new'))
  assert.equal((await get('/v1/models', { headers: { 'x-api-key': 'secret' } })).status, 401)
  assert.equal((await get('/v1/models', { headers: { 'x-api-key': 'new' } })).status, 200)
  await started.server.close(0)
})

test('the document describes every route of the server, under the paths that it has', async () => {
  const full = await startOpenAi(new FakeCatalog(new FakeModel(saying('ok'))), {
    anthropic: { stripPreamble: true }, metrics: () => Promise.resolve({ contentType: 'text/plain', text: '' }), apiKeys: () => new ApiKeys(apiKeyLine('a', 'b')), paths: { chat: '/chat', responses: '/r' }, version: '9.9.9',
  })
  const document = (await (await full.get('/openapi.json')).json()) as { openapi: string; info: { version: string }; paths: Record<string, Record<string, { requestBody?: { content: Record<string, { schema: { $ref: string } }> }; security?: unknown }>>; components: { schemas: Record<string, unknown> } }
  assert.deepEqual([document.openapi, document.info.version], ['3.1.0', '9.9.9'])
  // The refusal of an unknown route names all that there are.
  const { error } = (await (await full.get('/nope')).json()) as { error: { message: string } }
  const routes = error.message.slice(error.message.indexOf('there are: ') + 11).split(', ')
  assert.ok(routes.length >= 15 && routes.includes('/chat') && routes.includes('/r/input_tokens') && routes.includes('/v1/messages/count_tokens'), routes.join())
  assert.deepEqual(Object.keys(document.paths).filter((path) => !path.endsWith('/ready') || path === '/ready').sort(), routes.map((path) => path.replace('/*', '/{model_id}')).sort())
  for (const operations of Object.values(document.paths)) {
    for (const { requestBody } of Object.values(operations)) {
      const name = requestBody?.content['application/json']?.schema.$ref.split('/').pop()
      if (name !== undefined) assert.ok(document.components.schemas[name] !== undefined, name)
    }
  }
  assert.ok(document.paths['/chat']?.['post']?.security !== undefined && document.paths['/health']?.['get']?.security === undefined)
  const page = await full.get('/docs')
  assert.match(page.headers.get('content-security-policy') ?? '', /default-src 'none'/)
  assert.doesNotMatch(await page.text(), /https?:\/\//)
  await full.server.close(0)
  const bare = await startOpenAi(new FakeCatalog(new FakeModel(saying('ok'))), { adminRoutes: false })
  const paths = Object.keys(((await (await bare.get('/openapi.json')).json()) as { paths: object }).paths)
  assert.ok(!paths.includes('/v1/messages') && !paths.includes('/busy_threshold') && !paths.includes('/metrics') && paths.includes('/v1/embeddings'))
  assert.equal((await bare.post('/v1/messages', {})).status, 404)
  await bare.server.close(0)
})

test('the end does not wait for connections on which nothing was asked', async () => {
  const { server } = await startOpenAi(new FakeCatalog())
  const socket = connect(server.port, '127.0.0.1')
  await new Promise((resolve) => socket.once('connect', resolve))
  const gone = new Promise((resolve) => socket.once('close', resolve))
  // The server has the connection once it answers on another one.
  assert.equal((await fetch(`${server.url}/live`)).status, 200)
  const startMs = performance.now()
  await server.close(60_000)
  await gone
  assert.ok(performance.now() - startMs < 5000)
})

test('readiness of a model: what the catalog says, with the status', async () => {
  const catalog = new FakeCatalog(new FakeModel(saying('ok'), { name: 'org/tiny' }), new FakeModel(saying('ok'), { name: 'odd/ready' }))
  let ready = true
  Object.assign(catalog, { readiness: (name: string) => (name === 'org/tiny' ? { model: name, ready, namespaces: {} } : undefined) })
  const started = await startOpenAi(catalog)
  assert.deepEqual(await (await started.get('/v1/models/org/tiny/ready')).json(), { model: 'org/tiny', ready: true, namespaces: {} })
  ready = false
  const waiting = await started.get('/v1/models/org/tiny/ready')
  assert.deepEqual([waiting.status, waiting.headers.get('retry-after')], [503, '5'])
  assert.equal((await started.get('/v1/models/nobody/ready')).status, 404)
  assert.equal(((await (await started.get('/v1/models/odd/ready')).json()) as { id: string }).id, 'odd/ready')
  await started.server.close(0)
})

test('TLS: served under the certificate, changed without a restart, clients asked for theirs', async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'warmpath-tls-'))
  context.after(() => rmSync(folder, { recursive: true, force: true }))
  const made = (name: string): { cert: string; key: string } => {
    const [cert, key] = [join(folder, `${name}.pem`), join(folder, `${name}.key`)]
    const child = spawnSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', `/CN=${name}`, '-addext', 'subjectAltName=IP:127.0.0.1', '-out', cert, '-keyout', key], { encoding: 'utf8' })
    assert.equal(child.status, 0, child.stderr)
    return { cert: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') }
  }
  if (spawnSync('openssl', ['version']).error !== undefined) return context.skip('openssl is not installed')
  const [first, second, client] = [made('first'), made('second'), made('client')]
  const live = (url: string, options: object): Promise<number | undefined> => new Promise((resolve, reject) => {
    request(`${url}/live`, { agent: false, ...options }, (response) => { response.resume(); resolve(response.statusCode) }).on('error', reject).end()
  })
  const plain = await startOpenAi(new FakeCatalog(), { tls: first })
  assert.match(plain.server.url, /^https:/)
  assert.equal(await live(plain.server.url, { ca: first.cert }), 200)
  await assert.rejects(live(plain.server.url, { ca: second.cert }))
  plain.server.changeTls(second)
  assert.equal(await live(plain.server.url, { ca: second.cert }), 200)
  assert.throws(() => plain.server.changeTls({ cert: first.cert, key: second.key }))
  await plain.server.close(0)
  const mutual = await startOpenAi(new FakeCatalog(), { tls: { ...first, clientCa: client.cert } })
  await assert.rejects(live(mutual.server.url, { ca: first.cert }))
  assert.equal(await live(mutual.server.url, { ca: first.cert, cert: client.cert, key: client.key }), 200)
  await mutual.server.close(0)
})
