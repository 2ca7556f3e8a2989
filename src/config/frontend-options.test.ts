/** The frontend's command line: Dynamo's names and variables work, what is not built is refused. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseCommand } from './parse-command.ts'
import { routerSettingsOf } from './router-settings.ts'
import { UsageError } from './usage-error.ts'

const parse = async (argv: readonly string[], env: Readonly<Record<string, string>> = {}) => {
  const parsed = await parseCommand('frontend', argv, env, () => new Uint8Array())
  assert.equal(parsed.kind, 'config')
  if (parsed.kind !== 'config') throw new Error('no configuration')
  return parsed
}

test("the command of Dynamo's README works as written", async () => {
  const config = await parse(['--router-mode', 'kv', '--http-port', '8000', '--kv-overlap-score-weight', '0'])
  assert.deepEqual([config.values.routerMode, config.values.httpPort, config.values.overlapScoreCredit, config.values.prefillLoadScale], ['kv', 8000, 0, 0])
  const settings = routerSettingsOf(config, { blockSize: 16, isEagle: false, role: 'decode', routingGroup: 'm' })
  assert.deepEqual([settings.overlapScoreCredit, settings.role], [0, 'decode'])
})

test('defaults: kv, port 8000 on all interfaces, migration 3, retry then decode-only, 529', async () => {
  const { values } = await parse([])
  assert.deepEqual(
    [values.routerMode, values.httpHost, values.httpPort, values.migrationLimit, values.onPrefillError, values.overloadStatus, values.requirePrefill],
    ['kv', '0.0.0.0', 8000, 3, 'retry,decode-only', 529, false],
  )
})

test("Dynamo's variables are read, older flags too", async () => {
  const { values } = await parse(['--no-kv-events', '--no-track-active-blocks', '--discovery-backend', 'file'], {
    DYN_HTTP_PORT: '1', DYN_ROUTER_MODE: 'least-loaded', DYN_NAMESPACE_PREFIX: 'team', DYN_KV_CACHE_BLOCK_SIZE: '32', DYN_MIGRATION_LIMIT: '0',
    DYN_HTTP_OVERLOAD_STATUS_CODE: '503', DYN_ACTIVE_DECODE_BLOCKS_THRESHOLD: 'None', DYN_METRICS_PREFIX: 'x', DYN_DISCOVERY_BACKEND: 'etcd',
  })
  assert.deepEqual(
    [values.httpPort, values.routerMode, values.namespacePrefix, values.blockSize, values.migrationLimit, values.overloadStatus, values.activeDecodeBlocksThreshold, values.metricsPrefix],
    [1, 'least-loaded', 'team', 32, 0, 503, null, 'x'],
  )
  assert.deepEqual([values.useKvEvents, values.trackActiveBlocks, values.discoveryBackend], [false, false, 'file'])
})

test('what is not built is refused, what governs nothing here is said', async () => {
  for (const argv of [
    ['--kserve-grpc-server'],
    ['--dyn-chat-processor', 'vllm'], ['--interactive'],
  ]) await assert.rejects(parse(argv), (error) => error instanceof UsageError && /not available in this version/.test(error.message), argv.join(' '))
  await assert.rejects(parse(['--router-mode', 'fastest']), UsageError)
  await assert.rejects(parse(['--namespace', 'a.b']), UsageError)
  await assert.rejects(parse([], { DYN_HTTP_SVC_CHAT_PATH: 'chat' }), /begins with \//)
  assert.match((await parse(['--enforce-disagg'])).warnings.join(), /has no effect.*--require-prefill/)
})
