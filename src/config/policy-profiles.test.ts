import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parse } from 'yaml'
import { parseCommand } from './parse-command.ts'
import { readPolicyProfiles } from './policy-profiles.ts'
import { routerSettingsOf } from './router-settings.ts'
import { UsageError } from './usage-error.ts'

const good = `
default_policy_family: std
uncached_isl_buckets:
  - {min_tokens: 0, bucket: short}
  - {min_tokens: 512, bucket: long}
policy_classes:
  - {name: std-short, policy_family: std, cache_bucket: short, quantum: 64, prefill_busy_threshold: 100}
  - {name: std-long, policy_family: std, cache_bucket: long, quantum: 32, queue_policy: wspt, request_queue_limit_per_worker: 3}
  - {name: vip, quantum: 256, prefill_busy_threshold_frac: 0.5, raw_isl_token_queue_limit_per_worker: 9, cached_token_queue_limit_per_worker: 0}
`

const parsed = async (text: string, env: Readonly<Record<string, string>> = {}) => {
  const config = await parseCommand('router', ['--endpoint', 'a.b.c', '--router-policy-config', 'p.yaml'], env, (path) => {
    assert.equal(path, 'p.yaml')
    return new TextEncoder().encode(text)
  })
  if (config.kind !== 'config') throw new Error(config.kind)
  return config
}
const facts = { blockSize: 4, isEagle: false, role: 'aggregated' as const, routingGroup: 'm' }

test('classes are read as written', () => {
  const { root, models } = readPolicyProfiles('p', parse(good) as Record<string, unknown>)
  assert.equal(models.size, 0)
  assert.deepEqual(root?.buckets, [{ minTokens: 0, bucket: 'short' }, { minTokens: 512, bucket: 'long' }])
  assert.deepEqual(root?.classes.map(({ name, policy, quantum, busyTokens, busyFraction, limits }) => [name, policy, quantum, busyTokens, busyFraction, limits]), [
    ['std-short', 'fcfs', 64, 100, null, { requests: null, promptTokens: null, cachedTokens: null }],
    ['std-long', 'wspt', 32, null, null, { requests: 3, promptTokens: null, cachedTokens: null }],
    ['vip', 'fcfs', 256, null, 0.5, { requests: null, promptTokens: 9, cachedTokens: 0 }],
  ])
})

test("a model's own profile wins over the one for all, and both over the threshold of the options", async () => {
  const own = good.replaceAll('std', 'own').trim().replaceAll('\n', '\n    ')
  const profileOf = async (text: string) => routerSettingsOf(await parsed(text, { DYN_ROUTER_QUEUE_THRESHOLD: '0.25' }), facts).queue?.profile
  assert.equal((await profileOf(`${good}models:\n  m:\n    ${own}`))?.defaultFamily, 'own')
  assert.equal((await profileOf(`${good}models:\n  other:\n    ${own}`))?.defaultFamily, 'std')
  assert.deepEqual((await profileOf(`models:\n  other:\n    ${own}`))?.classes.map(({ name, busyFraction }) => [name, busyFraction]), [['default', 0.25]])
})

const mistakes: readonly (readonly [change: (text: string) => string, error: RegExp])[] = [
  [(text) => text.replace('quantum: 64', 'quantumm: 64'), /^p\.yaml:7: policy_classes\[0\]\.quantumm: unknown key \(did you mean quantum\?\)$/],
  [(text) => text.replace('quantum: 64, ', ''), /^p\.yaml:7: policy_classes\[0\]\.quantum: is missing$/],
  [(text) => text.replace('quantum: 64', 'quantum: 0'), /^p\.yaml:7: policy_classes\[0\]\.quantum: 0 is not valid; expected a whole number of at least 1$/],
  [(text) => text.replace('quantum: 64', 'quantum: 1.5'), /policy_classes\[0\]\.quantum: 1\.5 is not valid/],
  [(text) => text.replace('wspt', 'lcfs'), /^p\.yaml:8: policy_classes\[1\]\.queue_policy: lcfs is not for policy files/],
  [(text) => text.replace('wspt', 'lifo'), /queue_policy: "lifo" is not valid; expected fcfs or wspt/],
  [(text) => text.replace('cache_bucket: short, ', ''), /^p\.yaml:7: policy_classes\[0\]: policy_family and cache_bucket belong together/],
  [(text) => text.replace('name: std-long', 'name: std-short'), /^p\.yaml:8: policy_classes\[1\]\.name: two classes are named std-short/],
  [(text) => text.replace('name: vip', 'name: std'), /std is the name of a family, too/],
  [(text) => text.replace('name: vip', 'name: v p'), /"v p" is not valid; expected letters, digits/],
  [(text) => text.replace('cache_bucket: long', 'cache_bucket: lon'), /there is no bucket lon \(did you mean long\?\)/],
  [(text) => text.replace('cache_bucket: long', 'cache_bucket: short'), /family std has a class for bucket short already/],
  [(text) => text.replace(/ {2}- \{name: std-long.*\n/, ''), /family std has no class for bucket long/],
  [(text) => text.replace('default_policy_family: std', 'default_policy_family: sdt'), /^p\.yaml:2: default_policy_family: no class has the family sdt \(did you mean std\?\)$/],
  [(text) => text.replace('default_policy_family: std', ''), /belong together; add default_policy_family$/],
  [(text) => text.replace('min_tokens: 0', 'min_tokens: 5'), /^p\.yaml:4: uncached_isl_buckets\[0\]\.min_tokens: 5 is not valid; the first bucket starts at 0$/],
  [(text) => text.replace('min_tokens: 512', 'min_tokens: 0'), /expected more than 0/],
  [(text) => text.replace('bucket: long}', 'bucket: short}'), /two buckets are named short/],
  [(text) => text.replace('frac: 0.5', 'frac: -0.5'), /prefill_busy_threshold_frac: -0\.5 is not valid/],
  [(text) => text.replace('threshold: 100', 'threshold: -1'), /prefill_busy_threshold: -1 is not valid/],
  [() => 'policy_classes: []\ndefault_policy_family: a\nuncached_isl_buckets: []\n', /uncached_isl_buckets: must be a list with at least one entry/],
  [() => 'models:\n  m:\n    polic_classes: []\n', /^p\.yaml:3: models\.m\.polic_classes: unknown key \(did you mean policy_classes\?\)$/],
]

test('a mistake is named with its place, its line and the nearest name', async () => {
  for (const [change, error] of mistakes) {
    const text = change(good)
    assert.notEqual(text, good)
    await assert.rejects(parsed(text), (thrown: unknown) => {
      assert.ok(thrown instanceof UsageError)
      assert.match(thrown.message, error)
      return true
    })
  }
})
