/** Values of a command: precedence, sources, older names, presets, files, checks. Files are given in memory. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { effectiveEnvironment } from './effective-environment.ts'
import { parseCommand } from './parse-command.ts'
import type { Environment, ParsedConfig } from './parse-command.ts'
import { routerOptions, type CommandName } from './table.ts'
import { routerSettingsOf, routerTargetOf } from './router-settings.ts'
import { UsageError } from './usage-error.ts'

interface Given {
  readonly env?: Environment
  readonly files?: Readonly<Record<string, string | Uint8Array>>
}

const target = ['--endpoint', 'dynamo.backend.generate']

async function parse(argv: readonly string[], { env = {}, files = {} }: Given = {}): Promise<ParsedConfig<'router'>> {
  const parsed = await parseCommand('router', argv, env, (path) => {
    const content = files[path]
    if (content === undefined) throw Object.assign(new Error('no such file'), { code: 'ENOENT' })
    return typeof content === 'string' ? new TextEncoder().encode(content) : content
  })
  assert.equal(parsed.kind, 'config')
  return parsed as ParsedConfig<'router'>
}

const refuses = (argv: readonly string[], message: RegExp, given: Given = {}) =>
  assert.rejects(parse([...target, ...argv], given), (error) => {
    assert.ok(error instanceof UsageError)
    assert.match(error.message, message)
    assert.doesNotMatch(error.message, /\n/)
    return true
  })

test('the command of the README of Dynamo’s standalone router works as it stands', async () => {
  const argv = '--endpoint dynamo.prefill.generate --router-block-size 64 --router-reset-states --no-router-track-active-blocks'.split(' ')
  const { values, warnings } = await parse(argv)
  assert.equal(values.endpoint, 'dynamo.prefill.generate')
  assert.equal(values.blockSize, 64)
  assert.equal(values.trackActiveBlocks, false)
  assert.equal(warnings.length, 1)
  assert.match(warnings[0] ?? '', /^--router-reset-states has no effect: .*JetStream/)
})

test('flag over environment over file over default, each with its source', async () => {
  const files = { 'w.yaml': 'router-temperature: 0.3\nrouter_ttl_secs: 7\nretry-limit: 5\nsystem-port: 0\n' }
  const env = { DYN_ROUTER_TEMPERATURE: '0.2', DYN_ROUTER_TTL_SECS: '9', DYN_ROUTER_BLOCK_SIZE: '32' }
  const { values, sources } = await parse([...target, '--router-temperature', '0.1', '--config', 'w.yaml'], { env, files })
  assert.deepEqual([values.temperature, values.ttlSeconds, values.retryLimit, values.blockSize, values.systemPort], [0.1, 9, 5, 32, 0])
  assert.deepEqual(sources['temperature'], { kind: 'flag', name: '--router-temperature' })
  assert.deepEqual(sources['ttlSeconds'], { kind: 'env', name: 'DYN_ROUTER_TTL_SECS' })
  assert.deepEqual(sources['retryLimit'], { kind: 'file', name: 'w.yaml' })
  assert.deepEqual(sources['hostCacheHitWeight'], { kind: 'default', name: null })
})

test('the result is frozen all the way down', async () => {
  const parsed = await parse(target)
  for (const part of [parsed, parsed.values, parsed.sources, parsed.warnings, parsed.sources['endpoint']]) assert.ok(Object.isFrozen(part))
})

test('of repeated flags the last one counts', async () => {
  const { values } = await parse([...target, '--router-block-size', '16', '--router-block-size', '32', '--router-kv-events', '--no-router-kv-events'])
  assert.equal(values.blockSize, 32)
  assert.equal(values.useKvEvents, false)
})

test('each older name works and gives one warning that names the current one', async () => {
  const cases: [string[], keyof ParsedConfig<'router'>['values'], unknown, RegExp][] = [
    [['--block-size', '8'], 'blockSize', 8, /^--block-size is an older name; use --router-block-size$/],
    [['--no-kv-events'], 'useKvEvents', false, /^--no-kv-events is an older name; use --no-router-kv-events$/],
    [['--no-track-active-blocks'], 'trackActiveBlocks', false, /use --no-router-track-active-blocks$/],
    [['--track-output-blocks'], 'trackOutputBlocks', true, /use --router-track-output-blocks$/],
    [['--no-assume-kv-reuse'], 'assumeKvReuse', false, /use --no-router-assume-kv-reuse$/],
    [['--no-durable-kv-events'], 'durableKvEvents', false, /use --no-router-durable-kv-events$/],
    [['--kv-overlap-score-weight', '2'], 'prefillLoadScale', 2, /use --router-prefill-load-scale$/],
    [['--router-kv-overlap-score-weight', '2'], 'prefillLoadScale', 2, /use --router-prefill-load-scale$/],
    [['--router-snapshot-threshold', '5'], 'snapshotThreshold', 5, /^--router-snapshot-threshold has no effect/],
    [['--router-event-threads', '8'], 'eventThreads', 8, /^--router-event-threads has no effect: Warmpath applies cache events on one thread$/],
  ]
  for (const [argv, key, value, warning] of cases) {
    const { values, warnings } = await parse([...target, ...argv])
    assert.equal(values[key], value, argv.join(' '))
    assert.equal(warnings.length, 1, argv.join(' '))
    assert.match(warnings[0] ?? '', warning)
  }
})

test('the overlap weight of earlier releases becomes the prefill scale, and zero also removes the credit', async () => {
  const scaled = await parse([...target, '--router-kv-overlap-score-weight', '1.5', '--router-prefill-load-scale', '4'])
  assert.equal(scaled.values.prefillLoadScale, 1.5)
  assert.equal(scaled.values.overlapScoreCredit, 1)
  assert.match(scaled.warnings.join('\n'), /--router-kv-overlap-score-weight overrides --router-prefill-load-scale/)
  const zero = await parse([...target, '--router-kv-overlap-score-credit', '0.7'], { env: { DYN_ROUTER_KV_OVERLAP_SCORE_WEIGHT: '0', DYN_OVERLAP_SCORE_WEIGHT: '3' } })
  assert.equal(zero.values.prefillLoadScale, 0)
  assert.equal(zero.values.overlapScoreCredit, 0)
  assert.deepEqual(zero.sources['overlapScoreCredit'], { kind: 'derived', name: 'DYN_ROUTER_KV_OVERLAP_SCORE_WEIGHT' })
  const second = await parse(target, { env: { DYN_OVERLAP_SCORE_WEIGHT: '3' } })
  assert.equal(second.values.prefillLoadScale, 3)
})

test('the load-aware preset sets what it stands for and says what it overrode', async () => {
  const { values, warnings, sources } = await parse([...target, '--load-aware', '--router-kv-overlap-score-credit', '2', '--serve-indexer'])
  assert.deepEqual(
    [values.overlapScoreCredit, values.useKvEvents, values.trackActiveBlocks, values.assumeKvReuse, values.trackPrefillTokens, values.serveIndexer],
    [0, false, true, false, true, false],
  )
  assert.equal(sources['useKvEvents']?.kind, 'preset')
  assert.deepEqual(warnings, ['--load-aware overrides --router-kv-overlap-score-credit, --serve-indexer'])
})

test('the router mapping of a policy file overrides flags, environment and preset with one warning', async () => {
  const files = { 'p.yaml': 'router:\n  use_kv_events: true\n  router_ttl_secs: 5\n  host_cache_hit_weight: 1\n  router_event_threads: 4\n' }
  const { values, warnings, sources } = await parse([...target, '--router-policy-config', 'p.yaml', '--router-ttl-secs', '60', '--load-aware'], { files })
  assert.deepEqual([values.useKvEvents, values.ttlSeconds, values.hostCacheHitWeight], [true, 5, 1])
  assert.deepEqual(sources['ttlSeconds'], { kind: 'policy-config', name: 'p.yaml' })
  const overriding = warnings.filter((line) => line.includes('overrides'))
  assert.deepEqual(overriding, ['p.yaml: its router: mapping overrides --load-aware (false -> true), --router-ttl-secs (60 -> 5)'])
})

test('all twenty settings of a policy file are known', () => {
  const names = Object.values(routerOptions).map((option) => option.policyName).filter((name) => name !== null)
  assert.equal(new Set(names).size, 20)
})

test('what is wrong with a policy file is named', async () => {
  const policy = (text: string): Given => ({ files: { 'p.yaml': text } })
  const argv = ['--router-policy-config', 'p.yaml']
  await refuses(argv, /^p\.yaml:1: request_classifier: classifiers are plugins/, policy('request_classifier: {type: x}'))
  await refuses(argv, /^p\.yaml: says nothing/, policy('{}'))
  await refuses(argv, /unknown section "routr" \(did you mean router\?\)/, policy('routr: {}'))
  await refuses(argv, /unknown setting router\.use_kv_event \(did you mean use_kv_events\?\)/, policy('router:\n  use_kv_event: true'))
  await refuses(argv, /p\.yaml: router\.use_kv_events: "yes" is not valid; expected true or false/, policy('router:\n  use_kv_events: "yes"'))
  await refuses(argv, /p\.yaml: router\.host_cache_hit_weight: 2 is not valid/, policy('router:\n  host_cache_hit_weight: 2'))
  await refuses(argv, /router must be a mapping/, policy('router: 3'))
  await refuses(argv, /cannot be read \(ENOENT\)/)
  await refuses(argv, /not valid YAML/, policy('router: [1'))
})

test('a config file names unknown and doubled options', async () => {
  const config = (text: string): Given => ({ files: { 'w.yaml': text } })
  const argv = ['--config', 'w.yaml']
  await refuses(argv, /^w\.yaml: unknown option "retry-limitt" \(did you mean retry-limit\?\)/, config('retry-limitt: 3'))
  await refuses(argv, /block-size and router-block-size are the same option/, config('block-size: 3\nrouter-block-size: 4'))
  await refuses(argv, /^w\.yaml: retry-limit: "3" is not valid; expected a whole number/, config('retry-limit: "3"'))
  await refuses(argv, /must be a mapping/, config('- 1'))
  await refuses(argv, /^w\.yaml: ais-backend: not available/, config('ais-backend: vllm'))
})

test('what is not built is refused, its default is accepted', async () => {
  const refused = [
    ['--ais-backend', 'vllm'], ['--aic-tp-size', '2'],
  ]
  for (const argv of refused) await refuses(argv, new RegExp(`^${argv[0]}.*: not available in this version \\(`))
  const accepted = [
    '--no-serve-indexer', '--no-use-remote-indexer', '--no-router-replica-sync', '--no-router-durable-kv-events', '--router-queue-threshold=None',
    '--router-queue-threshold=', '--router-queue-policy=fcfs', '--router-approximate-cache-policy=ttl', '--shared-cache-type=none',
    '--shared-cache-multiplier=0', '--no-enable-session-prefix-index', '--router-prefill-load-model=none', '--router-prefill-policy=default',
    '--no-router-conditional-disagg', '--router-max-tree-size=1048576', '--router-prune-target-ratio=0.8', '--no-router-reset-states',
  ]
  assert.deepEqual((await parse([...target, ...accepted])).warnings, [])
})

const instances = `worker_selection:
  prefill: mine
  instances:
    - {name: mine, type: dynamo-default-cost-fn, parameters: {host_cache_hit_weight: 1, router_temperature: 0.5}}
    - {name: even, type: dynamo-two-tier-cost-fn, parameters: {balance_abs_threshold: 3}}
`

test('named selection policies: option over variable over policy file, per role', async () => {
  const given = { files: { 'p.yaml': instances } }
  const argv = [...target, '--router-policy-config', 'p.yaml']
  const fromFile = (await parse(argv, given)).selectionPolicies
  assert.deepEqual(fromFile?.prefill, { type: 'dynamo-default-cost-fn', name: 'mine', parameters: { hostCacheHitWeight: 1, temperature: 0.5 } })
  assert.deepEqual([fromFile?.decode.name, fromFile?.aggregated.name], ['default', 'default'])
  const fromVariable = (await parse(argv, { ...given, env: { DYN_ROUTER_WORKER_SELECTION_POLICY: 'even' } })).selectionPolicies
  assert.deepEqual(fromVariable?.prefill, {
    type: 'dynamo-two-tier-cost-fn', name: 'even', parameters: { cacheThreshold: 0.5, balanceAbsThreshold: 3, balanceRelThreshold: 1.1 },
  })
  const fromFlag = (await parse([...argv, '--router-prefill-policy', 'default'], { ...given, env: { DYN_ROUTER_WORKER_SELECTION_POLICY: 'even' } })).selectionPolicies
  assert.deepEqual([fromFlag?.prefill.name, fromFlag?.decode.name], ['default', 'even'])
})

test('a selection policy that does not exist or cannot be is refused by name', async () => {
  const policy = (text: string): Given => ({ files: { 'p.yaml': `worker_selection: ${text}` } })
  const argv = ['--router-policy-config', 'p.yaml']
  await refuses(['--router-decode-policy', 'x'], /^--router-decode-policy: no selection policy is named "x"; .*default/)
  await refuses([], /^DYN_ROUTER_WORKER_SELECTION_POLICY: no selection policy is named "x"/, { env: { DYN_ROUTER_WORKER_SELECTION_POLICY: 'x' } })
  await refuses(argv, /worker_selection is empty/, policy('{}'))
  await refuses(argv, /worker_selection\.decode: no selection policy is named "x"/, policy('{decode: x}'))
  await refuses(argv, /unknown key "decod" \(did you mean decode\?\)/, policy('{decod: x}'))
  await refuses(argv, /instances\[0\]: the name default is reserved/, policy('{instances: [{name: default, type: dynamo-default-cost-fn}]}'))
  await refuses(argv, /instances\[0\]: type "x" is not known; expected dynamo-default-cost-fn or/, policy('{instances: [{name: a, type: x}]}'))
  await refuses(argv, /parameter cache_threshold: 2 is not valid; expected a number from 0 to 1/, policy('{instances: [{name: a, type: dynamo-two-tier-cost-fn, parameters: {cache_threshold: 2}}]}'))
  await refuses(argv, /parameter x is not known/, policy('{instances: [{name: a, type: dynamo-default-cost-fn, parameters: {x: 2}}]}'))
  await refuses(argv, /two are named a/, policy('{instances: [{name: a, type: dynamo-default-cost-fn}, {name: a, type: dynamo-default-cost-fn}]}'))
})

test('ways of knowing caches that exclude each other are refused', async () => {
  await refuses(['--router-approximate-cache-policy', 'lru'], /lru needs --no-router-kv-events/)
  await refuses(['--router-predicted-ttl-secs', '3', '--no-router-kv-events'], /^--router-predicted-ttl-secs needs --router-kv-events/)
  await refuses(['--enable-session-prefix-index', '--no-router-kv-events'], /^--enable-session-prefix-index needs --router-kv-events/)
  const { warnings } = await parse([...target, '--enable-session-prefix-index'])
  assert.match(warnings.join(), /--enable-session-prefix-index.* no effect/)
})

test('the prefill load model: measured, or by a table of durations from a file', async () => {
  const argv = [...target, '--router-prefill-load-model', 'aic', '--ais-perf-config', 'd.yaml']
  const table = (text: string): Given => ({ files: { 'd.yaml': text } })
  assert.equal((await parse(target)).prefillLoadModel, null)
  assert.deepEqual((await parse([...target, '--router-prefill-load-model', 'measured'])).prefillLoadModel, { kind: 'measured' })
  assert.deepEqual((await parse(argv, table('prefill_durations: [[100, 20.5], [1000, 150]]'))).prefillLoadModel,
    { kind: 'table', points: [{ tokens: 100, ms: 20.5 }, { tokens: 1000, ms: 150 }] })
  await refuses(['--router-prefill-load-model', 'ais'], /ais needs a table of durations in --ais-perf-config/)
  await refuses(argv.slice(2), /prefill_durations is missing; give a list of pairs .*predictor are not read/, table('{"model": "x"}'))
  await refuses(argv.slice(2), /entry 1: "x" is not valid/, table('prefill_durations: [[1, 1], x]'))
  await refuses(argv.slice(2), /prefill_durations: entry 1: \[5, 1\] does not rise/, table('prefill_durations: [[9, 1], [5, 1]]'))
  await refuses(['--ais-perf-config', 'd.yaml'], /^--ais-perf-config needs --router-prefill-load-model ais/, table(''))
  await refuses(['--router-prefill-load-model', 'measured', '--no-router-track-prefill-tokens'], /needs --router-track-prefill-tokens/)
})

test('planes that are not spoken are refused by their variable, with what to set; those that are count', async () => {
  await refuses([], /^DYN_REQUEST_PLANE http: not available in this version \(the HTTP plane of Dynamo 1\.1 .*tcp or nats/, { env: { DYN_REQUEST_PLANE: 'http' } })
  await refuses([], /^DYN_RESPONSE_PLANE quic: not available in this version \(responses travel over TCP only; set it to tcp/, { env: { DYN_RESPONSE_PLANE: 'quic' } })
  const { values: nats } = await parse(target, { env: { DYN_REQUEST_PLANE: 'NATS', DYN_EVENT_PLANE: ' nats ', NATS_SERVER: 'nats://a:1', DYN_TCP_TLS_KEY_PATH: '/key' } })
  assert.deepEqual([nats.requestPlane, nats.eventPlane, nats.natsServer, nats.tcpTlsKey], ['nats', 'nats', 'nats://a:1', '/key'])
  await refuses([], /^DYN_DISCOVERY_BACKEND: "fil" is not valid \(did you mean file\?\)/, { env: { DYN_DISCOVERY_BACKEND: 'fil' } })
  const { values } = await parse(target, { env: { DYN_DISCOVERY_BACKEND: 'file', DYN_FILE_KV: '/kv', DYN_EVENT_PLANE: '', DYN_TCP_TLS_INSECURE: 'false', DYN_SYSTEM_PORT: '40000' } })
  assert.deepEqual([values.discoveryBackend, values.fileKv, values.eventPlane, values.systemPort], ['file', '/kv', 'zmq', 40000])
})

test('switches from the environment take the usual words only', async () => {
  for (const word of ['true', '1', 'YES', 'on']) assert.equal((await parse(target, { env: { DYN_ROUTER_TRACK_OUTPUT_BLOCKS: word } })).values.trackOutputBlocks, true)
  for (const word of ['false', '0', 'No', 'off', '']) assert.equal((await parse(target, { env: { DYN_ROUTER_USE_KV_EVENTS: word } })).values.useKvEvents, false)
  await refuses([], /^DYN_ROUTER_USE_KV_EVENTS: "maybe" is not valid; use true/, { env: { DYN_ROUTER_USE_KV_EVENTS: 'maybe' } })
})

test('values out of range are refused with field, value and what is expected', async () => {
  const cases: [string[], RegExp][] = [
    [['--router-block-size', '0'], /^--router-block-size: "0" is not valid; expected a whole number of tokens from 1/],
    [['--router-block-size', 'abc'], /^--router-block-size: "abc" is not valid/],
    [['--router-block-size', '1.5'], /is not valid/],
    [['--router-temperature', '-1'], /^--router-temperature: "-1" is not valid; expected a finite number, 0 or more/],
    [['--router-temperature', 'nan'], /is not valid/],
    [['--router-temperature', 'inf'], /is not valid/],
    [['--router-temperature', '1e999'], /is not valid/],
    [['--router-kv-overlap-score-credit', '-1'], /is not valid/],
    [['--router-kv-overlap-score-credit-decay', '-1'], /is not valid/],
    [['--router-prefill-load-scale', '-1'], /is not valid/],
    [['--router-decode-active-request-weight', '-1'], /is not valid/],
    [['--router-host-cache-hit-weight', '1.1'], /from 0 to 1/],
    [['--router-disk-cache-hit-weight', '-0.1'], /from 0 to 1/],
    [['--router-ttl-secs', '-1'], /is not valid/],
    [['--router-event-threads', '0'], /is not valid/],
    [['--router-queue-policy', 'lifo'], /^--router-queue-policy: "lifo" is not valid.*expected one of fcfs, wspt/],
    [['--endpoint', 'a.b'], /^--endpoint: "a\.b" is not valid; expected namespace\.component\.endpoint/],
    [['--endpoint', 'a.b.c.d'], /is not valid/],
    [['--endpoint', 'a..c'], /is not valid/],
    [['--component', 'a/b'], /^--component: "a\/b" is not valid/],
    [['--track-output-blocks', '--no-router-track-active-blocks'], /^--track-output-blocks needs --router-track-active-blocks, which --no-router-track-active-blocks turned off/],
    [['--active-decode-blocks-threshold', '1.5'], /from 0 to 1/],
  ]
  for (const [argv, message] of cases) await refuses(argv, message)
})

test('numbers are read as Python writes them', async () => {
  const { values } = await parse([...target, '--router-block-size', ' 1_024 ', '--router-temperature', '1e-3', '--router-ttl-secs', '.5'])
  assert.deepEqual([values.blockSize, values.temperature, values.ttlSeconds], [1024, 0.001, 0.5])
})

test('without an endpoint the start ends with what to set', async () => {
  await assert.rejects(parse([]), /^UsageError: --endpoint is missing; .*DYN_ROUTER_ENDPOINT$/)
  assert.equal((await parse([], { env: { DYN_ROUTER_ENDPOINT: 'x.y.z' } })).values.endpoint, 'x.y.z')
  const printed = await parseCommand('router', [], {}, () => new Uint8Array(), { needsTarget: false })
  assert.equal(printed.kind, 'config')
})

test('a tracking key is 32 raw bytes with a name, and only with the keyed hash', async () => {
  const key = Uint8Array.from({ length: 32 }, (_, index) => index)
  const keyed = ['--router-tracking-hash', 'keyed-xxh3-v1', '--router-tracking-key-file', 'k', '--router-tracking-key-id', 'epoch-1']
  const config = await parse([...target, ...keyed], { files: { k: key } })
  const settings = routerSettingsOf(config, { blockSize: 16, isEagle: false, role: 'prefill', routingGroup: 'g' })
  assert.deepEqual(settings.tracking, { mode: 'keyed-xxh3-v1', key, keyId: 'epoch-1', routingGroup: 'g' })
  await refuses(keyed, /k: 31 bytes; expected exactly 32 raw bytes/, { files: { k: key.slice(1) } })
  await refuses(keyed, /cannot be read \(ENOENT\)/)
  await refuses(['--router-tracking-hash', 'keyed-xxh3-v1'], /needs --router-tracking-key-file/)
  await refuses([...keyed.slice(0, 4), '--router-tracking-key-id', ' x'], /^--router-tracking-key-id: " x" is not valid/, { files: { k: key } })
  await refuses(keyed.slice(2), /^--router-tracking-key-file needs --router-tracking-hash keyed-xxh3-v1/, { files: { k: key } })
})

test('settings of the router carry the values and the facts of the cards', async () => {
  const config = await parse([...target, '--router-temperature', '0.5', '--active-decode-blocks-threshold', '0.9', '--router-block-size', '64'])
  const settings = routerSettingsOf(config, { blockSize: 16, isEagle: true, role: 'decode', routingGroup: 'g' })
  assert.equal(settings.blockSize, 16)
  assert.equal(settings.temperature, 0.5)
  assert.equal(settings.activeDecodeBlocksThreshold, 0.9)
  assert.equal(settings.activePrefillTokensThreshold, null)
  assert.deepEqual([settings.isEagle, settings.role, settings.tracking.mode], [true, 'decode', 'public-xxh3-v1'])
  assert.ok(Object.isFrozen(settings))
})

test('the namespace of the environment holds for the router and its workers, the suffix for the workers', async () => {
  const at = async (env: Environment) => routerTargetOf((await parse(target, { env })).values)
  assert.deepEqual(await at({}), { namespace: 'dynamo', component: 'router', workers: { namespace: 'dynamo', component: 'backend', endpoint: 'generate' } })
  assert.equal((await at({ DYN_NAMESPACE: 'other' })).workers.namespace, 'other')
  const suffixed = await at({ DYN_NAMESPACE: 'other', DYN_NAMESPACE_WORKER_SUFFIX: 'abc' })
  assert.deepEqual([suffixed.namespace, suffixed.workers.namespace], ['other', 'other-abc'])
})

test('help and version are told apart from values', async () => {
  assert.equal((await parseCommand('router', ['--help'], {}, () => new Uint8Array())).kind, 'help')
  assert.equal((await parseCommand('worker', ['--version'], {}, () => new Uint8Array())).kind, 'version')
})

test('no secret is shown in an error', async () => {
  const message = await parse([...target, '--config', 'w.yaml'], { files: { 'w.yaml': 'etcd-auth-password: [hunter2]' } }).then(() => '', String)
  assert.match(message, /etcd-auth-password/)
  assert.doesNotMatch(message, /hunter2/)
})

test('parts that read variables themselves see the values of the file', async () => {
  const files = { 'w.yaml': 'discovery-backend: file\nfile-kv: /kv\n' }
  const config = await parse([...target, '--config', 'w.yaml'], { files, env: { DYN_FILE_KV: '/other' } })
  const env = effectiveEnvironment(config, { DYN_FILE_KV: '/other', PATH: '/bin' })
  assert.deepEqual(env, { DYN_FILE_KV: '/other', PATH: '/bin', DYN_DISCOVERY_BACKEND: 'file' })
})

test('a variable that is nearly ours is pointed out, others are left alone', async () => {
  const { warnings } = await parse(target, { env: { DYN_ROUTER_TEMPRATURE: '1', DYN_ROUTER_MODE: 'kv', WARMPATH_SIM_SPEEDUP: '2', PATH: '/bin' } })
  assert.deepEqual(warnings, ['DYN_ROUTER_TEMPRATURE is not a variable that is read; did you mean DYN_ROUTER_TEMPERATURE?'])
})

test('a variable that governs nothing here is said to', async () => {
  const { warnings } = await parse(target, { env: { DYN_EVENT_PLANE_CODEC: 'json', OTEL_EXPORT_ENABLED: '' } })
  assert.deepEqual(warnings, ['DYN_EVENT_PLANE_CODEC has no effect: events are MessagePack, in Dynamo too'])
})

test('an option that governs nothing without another one is said to, unless that is given', async () => {
  const cases: [string[], string | null][] = [
    [['--admin-token-file', 't'], '--admin-token-file has no effect without --admin-port; set it, or leave --admin-token-file out'],
    [['--policy-budget-us', '9'], '--policy-budget-us has no effect without --policy or --policy-shadow; set it, or leave --policy-budget-us out'],
    [['--on-prefill-error', 'fail'], '--on-prefill-error has no effect without --prefill-endpoint; set it, or leave --on-prefill-error out'],
    [['--http-host', '::1'], '--http-host has no effect without --http-port; set it, or leave --http-host out'],
    [['--admin-port', '0', '--admin-token-file', 't'], null],
    [['--http-port', '0', '--http-host', '::1'], null],
    [['--no-decode-kv-reuse'], null],
  ]
  for (const [argv, warning] of cases) assert.deepEqual((await parse([...target, ...argv])).warnings, warning === null ? [] : [warning], argv.join(' '))
})

test('unknown names in files come with a mend: the nearest name, or all there are', async () => {
  await refuses(['--config', 'w.yaml'], /unknown option "xyzzy"; see warmpath router --help, or leave it out$/, { files: { 'w.yaml': 'xyzzy: 1\n' } })
  await refuses(['--router-policy-config', 'p.yaml'], /^p\.yaml:2: unknown setting router\.xyzzy; the settings are .*router_ttl_secs/, { files: { 'p.yaml': 'router:\n  xyzzy: 1\n' } })
  await refuses(['--router-policy-config', 'p.yaml'], /unknown section "xyzzy"; the sections are router,/, { files: { 'p.yaml': 'xyzzy:\n  a: 1\n' } })
})

test('mistakes on any command line name the option, the value and the mend', async () => {
  const cases: [CommandName, string[], RegExp][] = [
    ['start', ['--port', '1'], /^unknown option --port \(did you mean --http-port\?\)/],
    ['router', ['--tempreature', '1'], /^unknown option --tempreature \(did you mean --router-temperature\?\)/],
    ['router', ['--nope'], /^unknown option --nope; see warmpath router --help/],
    ['router', ['--endpoint', 'a.b.c', '--config', ''], /^--config: "" is not valid; expected the path of a file/],
    ['router', ['--endpoint', 'a.b.c', '--prefill-endpoint', 'a.b.c'], /^--prefill-endpoint: a\.b\.c is the endpoint of the decode workers .*; give/],
    ['router', ['--endpoint', 'a.b.c', '--on-prefill-error', 'no'], /expected one of retry,decode-only \| retry \| decode-only \| fail/],
    ['start', ['--model-name', ''], /^--model-name: "" is not valid; expected a text that is not empty/],
    ['start', ['--http-host', ''], /^--http-host: "" is not valid/],
  ]
  for (const [command, argv, message] of cases) {
    await assert.rejects(parseCommand(command, argv, {}, () => { throw new Error('nothing is read') }), (error) => error instanceof UsageError && message.test(error.message) && !error.message.includes('\n'), argv.join(' '))
  }
})
